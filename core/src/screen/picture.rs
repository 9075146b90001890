//! The screen cut to what a terminal can show: one tile a character position.

use crossterm::style::Color;

use super::{Frame, TextScreen};

/// One character position of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) ch: char,
    pub(super) foreground: Color,
    pub(super) background: Color,
}

impl Tile {
    /// A position that the guest's screen does not reach.
    pub(super) const EMPTY: Self = Self { ch: ' ', foreground: Color::Reset, background: Color::Reset };
}

/// What a terminal of a certain size is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) columns: u16,
    pub(super) rows: u16,
    /// Row by row, `columns * rows` of them.
    pub(super) tiles: Vec<Tile>,
    pub(super) cursor: Option<(u16, u16)>,
}

/// The upper half of a character position; its background is the lower half.
const UPPER_HALF: char = '\u{2580}';

impl Picture {
    /// A terminal on which the guest shows nothing.
    pub(super) fn empty(columns: u16, rows: u16) -> Self {
        let tiles = vec![Tile::EMPTY; usize::from(columns) * usize::from(rows)];
        Self { columns, rows, tiles, cursor: None }
    }

    /// Text as text. Where the terminal is the smaller, its left columns are shown, and those rows, from the top
    /// on, that hold the cursor.
    pub(super) fn of_text(text: &TextScreen, columns: u16, rows: u16) -> Self {
        let first = match text.cursor {
            Some((_, row)) if row < text.rows => (row + 1).saturating_sub(usize::from(rows)),
            _ => 0,
        };
        let mut picture = Self::empty(columns, rows);
        for (at, tile) in picture.tiles.iter_mut().enumerate() {
            let (column, row) = (at % usize::from(columns), at / usize::from(columns) + first);
            if column < text.columns && row < text.rows {
                let cell = text.cell(column, row);
                *tile = Tile {
                    ch: printable(cell.ch),
                    foreground: vga_colour(cell.attribute & 0xf),
                    background: vga_colour(cell.attribute >> 4),
                };
            }
        }
        picture.cursor = text.cursor.and_then(|(column, row)| {
            let column = u16::try_from(column).ok().filter(|column| *column < columns)?;
            let row = u16::try_from(row.checked_sub(first)?).ok().filter(|row| *row < rows)?;
            Some((column, row))
        });
        picture
    }

    /// Pixels as half blocks, made smaller (never larger) to fit and keep their shape, in the middle.
    pub(super) fn of_frame(frame: &Frame, columns: u16, rows: u16) -> Self {
        let mut picture = Self::empty(columns, rows);
        let (across, down) = (usize::from(columns), usize::from(rows) * 2);
        if frame.width == 0 || frame.height == 0 || across == 0 || down == 0 {
            return picture;
        }
        let scale = Scale::to_fit(frame, across, down);
        let left = (across - scale.width) / 2;
        let top = (down - scale.height) / 4;
        for row in 0..scale.height.div_ceil(2) {
            for x in 0..scale.width {
                let upper = scale.average(frame, x, row * 2);
                let lower = scale.average(frame, x, row * 2 + 1);
                if let Some(tile) = picture.tiles.get_mut((top + row) * across + left + x) {
                    *tile = Tile {
                        ch: UPPER_HALF,
                        foreground: upper.unwrap_or(Color::Reset),
                        background: lower.unwrap_or(Color::Reset),
                    };
                }
            }
        }
        picture
    }
}

/// How a frame is made smaller.
struct Scale {
    width: usize,
    height: usize,
}

impl Scale {
    fn to_fit(frame: &Frame, across: usize, down: usize) -> Self {
        if frame.width <= across && frame.height <= down {
            return Self { width: frame.width, height: frame.height };
        }
        // Frames come from an adapter and may claim any size.
        let wide = |a: usize, b: usize| u128::try_from(a).unwrap_or(0) * u128::try_from(b).unwrap_or(0);
        let fitted = |length: usize, from: usize, to: usize| {
            let scaled = wide(length, to) / u128::try_from(from).unwrap_or(1).max(1);
            usize::try_from(scaled).unwrap_or(usize::MAX).max(1)
        };
        if wide(frame.width, down) >= wide(frame.height, across) {
            Self { width: across, height: fitted(frame.height, frame.width, across).min(down) }
        } else {
            Self { width: fitted(frame.width, frame.height, down).min(across), height: down }
        }
    }

    /// The mean colour of the frame's pixels under one pixel of the result, or `None` below its last row.
    fn average(&self, frame: &Frame, x: usize, y: usize) -> Option<Color> {
        if y >= self.height {
            return None;
        }
        let (left, right) = covered(x, self.width, frame.width);
        let (top, bottom) = covered(y, self.height, frame.height);
        let mut sum = [0u64; 3];
        let mut count = 0u64;
        for y in top..bottom {
            for pixel in run(frame, left, right, y).as_chunks::<3>().0 {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += u64::from(*value);
                }
                count += 1;
            }
        }
        let [r, g, b] = sum.map(|sum| u8::try_from(sum / count.max(1)).unwrap_or(u8::MAX));
        Some(Color::Rgb { r, g, b })
    }
}

/// The bytes of the pixels `from` to `to` (not included) of row `y`; those that are not there are left out.
fn run(frame: &Frame, from: usize, to: usize, y: usize) -> &[u8] {
    let at = |x: usize| y.checked_mul(frame.width)?.checked_add(x.min(frame.width))?.checked_mul(3);
    let run = at(from).zip(at(to)).filter(|_| y < frame.height);
    let clipped = run.and_then(|(from, to)| frame.rgb.get(from..to.min(frame.rgb.len())));
    clipped.unwrap_or_default()
}

/// The most pixels of a frame, in one direction, that count for one of the terminal. Keeps the cost of a frame of any
/// size within bounds.
const SAMPLES_MOST: usize = 32;

/// Which of `from` pixels lie under pixel `at` of `to`: the first, and the one behind the last.
fn covered(at: usize, to: usize, from: usize) -> (usize, usize) {
    let edge = |at: usize| at.saturating_mul(from) / to.max(1);
    let first = edge(at);
    (first, edge(at + 1).clamp(first + 1, first.saturating_add(SAMPLES_MOST)))
}

/// A VGA colour as the terminal's colour of the same name: the two number red and blue the other way round.
fn vga_colour(number: u8) -> Color {
    Color::AnsiValue((number & 0b1010) | ((number & 1) << 2) | ((number >> 2) & 1))
}

/// A character that takes exactly one position of a terminal and does nothing else. What is not in code page
/// 437 becomes a question mark: cells come from a guest, and a terminal obeys control characters.
pub(super) fn printable(ch: char) -> char {
    match ch {
        '\0' | '\u{a0}' => ' ',
        ' '..='~' => ch,
        '¡'..='¬' | '®'..='ÿ' => ch,
        'ƒ' | 'Α'..='Ω' | 'α'..='ω' | 'ⁿ' | '₧' | '•' | '‼' => ch,
        '←'..='↕' | '↨' | '∂'..='⋿' | '⌂' | '⌐' | '⌠' | '⌡' => ch,
        '─'..='▟' | '■' | '▬' | '▲' | '►' | '▼' | '◄' | '○' | '◘' | '◙' => ch,
        '☺'..='☼' | '♀' | '♂' | '♠' | '♣' | '♥' | '♦' | '♪' | '♫' => ch,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Cell;

    fn text(columns: usize, rows: usize, characters: &str) -> TextScreen {
        let cells = characters.chars().map(|ch| Cell { ch, attribute: 0x17 }).collect();
        TextScreen { columns, rows, cells, cursor: None }
    }

    fn shown(picture: &Picture) -> Vec<String> {
        let columns = usize::from(picture.columns).max(1);
        picture.tiles.chunks(columns).map(|row| row.iter().map(|tile| tile.ch).collect()).collect()
    }

    #[test]
    fn a_small_terminal_shows_what_fits_and_the_cursor() {
        let mut screen = text(3, 3, "abcdefghi");
        assert_eq!(shown(&Picture::of_text(&screen, 2, 2)), ["ab", "de"]);
        screen.cursor = Some((1, 2));
        let picture = Picture::of_text(&screen, 2, 2);
        assert_eq!((shown(&picture), picture.cursor), (vec!["de".into(), "gh".into()], Some((1, 1))));
        screen.cursor = Some((2, 2));
        assert_eq!(Picture::of_text(&screen, 2, 2).cursor, None);
        assert_eq!(Picture::of_text(&screen, 0, 0).tiles, []);
        screen.cursor = Some((usize::MAX, usize::MAX));
        assert_eq!(shown(&Picture::of_text(&screen, 2, 1)), ["ab"]);
    }

    #[test]
    fn a_large_terminal_is_empty_around_the_screen() {
        let picture = Picture::of_text(&text(1, 1, "x"), 2, 2);
        assert_eq!(shown(&picture), ["x ", "  "]);
        assert_eq!(picture.tiles[1], Tile::EMPTY);
        assert_eq!(picture.tiles[0].background, Color::AnsiValue(4));
    }

    #[test]
    fn vga_colours_keep_their_names() {
        let blue_green_cyan_red = [1, 2, 3, 4, 6, 9, 12, 15].map(vga_colour);
        assert_eq!(blue_green_cyan_red, [4, 2, 6, 1, 3, 12, 9, 15].map(Color::AnsiValue));
    }

    #[test]
    fn a_frame_that_fits_is_shown_pixel_by_pixel() {
        let frame = Frame { width: 1, height: 3, rgb: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] };
        let picture = Picture::of_frame(&frame, 1, 2);
        let half = |foreground, background| Tile { ch: UPPER_HALF, foreground, background };
        let rgb = |r, g, b| Color::Rgb { r, g, b };
        assert_eq!(picture.tiles, [half(rgb(1, 2, 3), rgb(4, 5, 6)), half(rgb(7, 8, 9), Color::Reset)]);
    }

    #[test]
    fn a_larger_frame_is_averaged_in_its_shape() {
        let mut rgb = vec![0; 8 * 4 * 3];
        rgb[..3].copy_from_slice(&[200, 100, 40]);
        let picture = Picture::of_frame(&Frame { width: 8, height: 4, rgb }, 4, 4);
        assert_eq!(shown(&picture), ["    ", "▀▀▀▀", "    ", "    "]);
        assert_eq!(picture.tiles[4].foreground, Color::Rgb { r: 50, g: 25, b: 10 });
    }

    #[test]
    fn frames_of_any_size_are_survived() {
        for (width, height) in
            [(usize::MAX, 1), (1, usize::MAX), (usize::MAX, usize::MAX), (0, 9), (1 << 33, 1 << 33)]
        {
            let picture = Picture::of_frame(&Frame { width, height, rgb: vec![9; 30] }, 5, 3);
            assert_eq!(picture.tiles.len(), 15);
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        for ch in (0..=0x1fu8).chain(0x7f..=0x9f).map(char::from).filter(|ch| *ch != '\0') {
            assert_eq!(printable(ch), '?', "{ch:?}");
        }
        for ch in ['\u{200b}', '\u{202e}', '\u{301}', '漢', '\u{fe0f}', '\u{ad}', '😀', '\u{e000}'] {
            assert_eq!(printable(ch), '?', "{ch:?}");
        }
    }

    #[test]
    fn all_of_code_page_437_gets_through() {
        let high = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
                    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■";
        let low = "☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼⌂";
        for ch in high.chars().chain(low.chars()) {
            assert_eq!(printable(ch), ch);
        }
    }
}
