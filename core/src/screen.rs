//! The screen of an adapter, shown to a person.
//!
//! What is on the screen comes from a [`Source`]: in text modes as characters ([`TextScreen`]), in all modes as pixels
//! ([`Frame`]). It goes to a terminal while the machine runs ([`live`]), and at its end to a PNG file ([`png`]) or a
//! text file ([`text`]). Keys go the other way: from the terminal ([`chord`]) or from a script ([`typist`]), as
//! [`Key`](trapline_devices::platform::keyboard::Key)s of the guest's keyboard. Nothing here knows what an adapter is.

pub mod chord;
pub mod file;
pub mod live;
mod picture;
pub mod png;
pub mod terminal;
pub mod text;
pub mod typist;

pub use trapline_devices::vga::scanout::Frame;

/// Gives the present picture of one adapter.
pub trait Source: Send {
    /// The characters on the screen, or `None` in a graphics mode and while the display is off.
    fn text(&mut self) -> Option<TextScreen>;

    /// The pixels on the screen, in text modes too, or `None` while the display is off.
    fn frame(&mut self) -> Option<Frame>;
}

/// The characters on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScreen {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Row by row, `columns * rows` of them; what is missing counts as blank.
    pub cells: Vec<Cell>,
    /// Column and row of the cursor, or `None` while it does not show.
    pub cursor: Option<(usize, usize)>,
}

/// One character on a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The character of code page 437, in Unicode.
    pub ch: char,
    /// The VGA attribute: bits 0 to 3 the foreground colour, bits 4 to 7 the background colour.
    pub attribute: u8,
}

impl Cell {
    /// What an erased screen is full of: light grey on black.
    pub const BLANK: Self = Self { ch: ' ', attribute: 0x07 };
}

impl TextScreen {
    /// The cell at `column` and `row`, blank where there is none.
    #[must_use]
    pub fn cell(&self, column: usize, row: usize) -> Cell {
        if column >= self.columns || row >= self.rows {
            return Cell::BLANK;
        }
        let at = row.checked_mul(self.columns).and_then(|start| start.checked_add(column));
        at.and_then(|at| self.cells.get(at)).copied().unwrap_or(Cell::BLANK)
    }

    /// The characters of `row`, without its trailing blanks.
    #[must_use]
    pub fn line(&self, row: usize) -> String {
        let mut line: String =
            (0..self.columns).map(|column| picture::printable(self.cell(column, row).ch)).collect();
        line.truncate(line.trim_end_matches(' ').len());
        line
    }

    /// Whether `wanted` stands within one row.
    #[must_use]
    pub fn shows(&self, wanted: &str) -> bool {
        (0..self.rows).any(|row| self.line(row).contains(wanted))
    }
}
