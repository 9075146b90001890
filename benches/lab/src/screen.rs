//! What an adapter of the outer machine shows: a picture, and the text that can be read in it.
//!
//! The text is read from the pixels, as a person does, and not from the memory behind them: whether the
//! right part of that memory is shown is among the things to be tested.

mod font;
mod picture;

pub use font::Font;
pub use picture::Picture;

/// The height of a cell.
const ROWS: usize = 16;

/// A screen at one moment.
#[derive(Debug)]
pub struct Screen {
    /// What is seen.
    pub picture: Picture,
    /// What can be read, one line per row, without blanks at the ends of lines.
    pub text: String,
}

impl Screen {
    /// Reads the text of a picture. A mode of graphics gives whatever text there is in cells of 8 by 16.
    pub fn read(picture: Picture, font: &Font) -> Self {
        // Text modes with 9 dots in a character have 720 dots in a line, 360 with half as many characters.
        let cell = if picture.width.is_multiple_of(360) { 9 } else { 8 };
        let lines: Vec<String> = (0..picture.height / ROWS)
            .map(|row| {
                let columns = 0..picture.width / cell;
                let line: String =
                    columns.map(|column| font.read(&pattern(&picture, column * cell, row * ROWS))).collect();
                line.trim_end().to_owned()
            })
            .collect();
        let text = lines.join("\n");
        Screen { picture, text: text.trim_end().to_owned() }
    }

    /// Whether a line has this text in it.
    pub fn shows(&self, wanted: &str) -> bool {
        self.text.lines().any(|line| line.contains(wanted))
    }
}

/// The eight left dots of each row of a cell: set where they differ from the dot in the corner.
fn pattern(picture: &Picture, x: usize, y: usize) -> [u8; ROWS] {
    let corner = picture.dot(x, y);
    std::array::from_fn(|row| {
        let dots = (0..8).map(|dot| picture.dot(x + dot, y + row) != corner);
        dots.fold(0, |bits, set| bits << 1 | u8::from(set))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ROM with a font in which the glyph of a character is its code in every row below the first.
    fn rom() -> Vec<u8> {
        let mut rom = vec![0x5a; 100];
        let glyph = |code: u8| {
            let mut rows = [code; ROWS];
            rows[0] = 0;
            rows
        };
        rom.extend([0; ROWS]);
        rom.extend(font::FACE);
        for code in 2..=255 {
            rom.extend(if code == b' ' { [0; ROWS] } else { glyph(code) });
        }
        rom
    }

    /// Draws text with the font of `rom`, in cells of this width.
    fn draw(lines: &[&str], columns: usize, cell: usize) -> Picture {
        let rom = rom();
        let mut picture = Picture::black(columns * cell, lines.len() * ROWS);
        for (row, line) in lines.iter().enumerate() {
            for (column, code) in line.bytes().enumerate() {
                for y in 0..ROWS {
                    let bits = rom[100 + usize::from(code) * ROWS + y];
                    for x in (0..8).filter(|x| bits & 0x80 >> x != 0) {
                        picture.set(column * cell + x, row * ROWS + y, [170, 170, 170]);
                    }
                }
            }
        }
        picture
    }

    #[test]
    fn text_is_read_in_cells_of_eight_and_nine_dots() {
        let font = Font::find(&rom()).unwrap();
        for cell in [8, 9] {
            let screen = Screen::read(draw(&["SeaBIOS (version", "", " Hi!"], 80, cell), &font);
            assert_eq!(screen.text, "SeaBIOS (version\n\n Hi!");
            assert!(screen.shows("BIOS") && !screen.shows("GRUB"));
        }
    }

    #[test]
    fn a_cursor_and_inverted_cells_do_not_hide_a_character() {
        let font = Font::find(&rom()).unwrap();
        let mut picture = draw(&["ab "], 80, 9);
        for column in [1, 2] {
            for x in 0..9 {
                for y in 14..16 {
                    picture.set(column * 9 + x, y, [255, 255, 255]);
                }
            }
        }
        let a: Vec<_> = (0..9 * ROWS).map(|dot| (dot % 9, dot / 9)).collect();
        for (x, y) in a {
            let dot = picture.dot(x, y);
            picture.set(x, y, dot.map(|colour| 255 - colour));
        }
        assert_eq!(Screen::read(picture, &font).text, "ab");
    }
}
