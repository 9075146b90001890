//! The font of the VGA, taken from an adapter's ROM.

use anyhow::{Context, Result};

use super::ROWS;

/// The second glyph of code page 437, a face: it tells where a font of 16 rows lies in a ROM.
pub(super) const FACE: [u8; ROWS] =
    [0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e, 0, 0, 0, 0];
/// The characters besides ASCII that are told apart: what boot menus are drawn with.
const DRAWN: [(u8, char); 13] = [
    (0x18, '↑'),
    (0x19, '↓'),
    (0xb3, '│'),
    (0xba, '║'),
    (0xbb, '╗'),
    (0xbc, '╝'),
    (0xbf, '┐'),
    (0xc0, '└'),
    (0xc4, '─'),
    (0xc8, '╚'),
    (0xc9, '╔'),
    (0xd9, '┘'),
    (0xda, '┌'),
];
/// The rows from here on can be covered by the cursor.
const CURSOR: usize = 13;
/// How many dots of a glyph may be wrong: another font of the same look, or a cursor that is higher.
const TOLERANCE: u32 = 4;
/// What stands for a cell that cannot be read.
const UNKNOWN: char = '·';

/// The shapes of characters.
#[derive(Debug)]
pub struct Font {
    glyphs: Vec<([u8; ROWS], char)>,
}

impl Font {
    /// Finds the font in a ROM.
    pub fn find(rom: &[u8]) -> Result<Self> {
        let face = rom.windows(ROWS).position(|window| window == FACE);
        let start = face.and_then(|face| face.checked_sub(ROWS)).context("the ROM has no font")?;
        let ascii = (b' '..=b'~').map(|code| (code, char::from(code)));
        let glyphs = ascii.chain(DRAWN).map(|(code, character)| {
            let at = start + usize::from(code) * ROWS;
            let rows = rom.get(at..at + ROWS)?;
            Some((rows.try_into().ok()?, character))
        });
        let glyphs = glyphs.collect::<Option<Vec<_>>>().context("the ROM's font breaks off")?;
        Ok(Font { glyphs })
    }

    /// The character with this shape, in either polarity; a cursor below it may be part of the shape.
    pub fn read(&self, shape: &[u8; ROWS]) -> char {
        if *shape == [0; ROWS] {
            return ' ';
        }
        let inverted = shape.map(|row| !row);
        let exact = |shape: &[u8; ROWS]| self.glyphs.iter().find(|(glyph, _)| glyph == shape);
        if let Some((_, character)) = exact(shape).or_else(|| exact(&inverted)) {
            return *character;
        }
        let near = self
            .glyphs
            .iter()
            .map(|(glyph, character)| (distance(glyph, shape).min(distance(glyph, &inverted)), *character));
        match near.min_by_key(|(distance, _)| *distance) {
            Some((distance, character)) if distance <= TOLERANCE => character,
            _ => UNKNOWN,
        }
    }
}

/// The number of dots that differ above the cursor.
fn distance(glyph: &[u8; ROWS], shape: &[u8; ROWS]) -> u32 {
    glyph.iter().zip(shape).take(CURSOR).map(|(one, other)| (one ^ other).count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_without_a_font_is_an_error() {
        assert_eq!(Font::find(&[0; 4096]).unwrap_err().to_string(), "the ROM has no font");
        let mut short = vec![0; ROWS];
        short.extend(FACE);
        assert_eq!(Font::find(&short).unwrap_err().to_string(), "the ROM's font breaks off");
    }
}
