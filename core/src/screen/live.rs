//! The live view: what is on the adapter's screen, in a terminal.
//!
//! [`View`] draws to any [`Write`]: it keeps what the terminal shows, compares and writes only the positions that
//! changed. When to draw, and where keys come from, is its owner's. Text is shown as text in the terminal's 16 colours;
//! a graphics mode in half blocks, two pixels a position, in true colour. The last row holds the help line where the
//! guest's screen leaves it free, and otherwise for the first seconds and after the prefix key.
//!
//! The background of a cell takes all four bits of the attribute: what a real screen blinks is bright here.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetBackgroundColor, SetForegroundColor};
use crossterm::terminal::{Clear, ClearType};

use super::chord::HELP;
use super::picture::{Picture, Tile};
use super::{Frame, Source, TextScreen};

/// The time between two looks at the screen: some 30 a second.
pub const INTERVAL: Duration = Duration::from_millis(33);
/// How long the help line stays where it hides a row of the guest's screen.
pub const HELP_TIME: Duration = Duration::from_secs(4);

/// A picture of one adapter's screen on a terminal.
#[derive(Debug)]
pub struct View<W: Write> {
    out: W,
    columns: u16,
    rows: u16,
    /// What the terminal shows, or `None` if that is not known.
    shown: Option<Picture>,
    /// The frame that `shown` was made of, to be spared making it again.
    frame: Option<Frame>,
    /// Until then the help line is shown whatever it hides.
    help_until: Option<Instant>,
}

impl<W: Write> View<W> {
    /// A view on a terminal of `columns` and `rows`, with the help line shown for [`HELP_TIME`] from `now`.
    pub fn new(out: W, columns: u16, rows: u16, now: Instant) -> Self {
        Self { out, columns, rows, shown: None, frame: None, help_until: now.checked_add(HELP_TIME) }
    }

    /// The terminal has another size: all of it is drawn anew.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        (self.columns, self.rows) = (columns, rows);
        self.shown = None;
        self.frame = None;
    }

    /// Shows the help line for [`HELP_TIME`].
    pub fn help(&mut self, now: Instant) {
        self.help_until = now.checked_add(HELP_TIME);
        self.frame = None;
    }

    /// Draws what `source` shows now. Blocks while the terminal takes what is written, a moment where it takes nothing.
    ///
    /// # Errors
    ///
    /// What the terminal reports, [`io::ErrorKind::WouldBlock`] where it took nothing; the next drawing then writes all
    /// of it.
    pub fn draw(&mut self, source: &mut dyn Source, now: Instant) -> io::Result<()> {
        // What is left of one that was not taken goes first, else each try would add a whole screen.
        self.out.flush()?;
        let picture = match source.text() {
            Some(text) => {
                self.frame = None;
                self.text_picture(&text, now)
            }
            None => match source.frame() {
                Some(frame) if self.help_until.is_none() && self.frame.as_ref() == Some(&frame) => {
                    return Ok(());
                }
                Some(frame) => {
                    let picture = self.frame_picture(&frame, now);
                    self.frame = Some(frame);
                    picture
                }
                None => {
                    self.frame = None;
                    let mut picture = Picture::empty(self.columns, self.rows);
                    put_line(&mut picture, 0, "[the display is off]");
                    put_help(&mut picture);
                    picture
                }
            },
        };
        let written = self.show(&picture);
        self.shown = written.is_ok().then_some(picture);
        written
    }

    fn text_picture(&mut self, text: &TextScreen, now: Instant) -> Picture {
        let free = text.rows < usize::from(self.rows);
        if !self.help_due(now) && !free {
            return Picture::of_text(text, self.columns, self.rows);
        }
        self.above_help(|columns, rows| Picture::of_text(text, columns, rows))
    }

    fn frame_picture(&mut self, frame: &Frame, now: Instant) -> Picture {
        if self.help_due(now) {
            self.above_help(|columns, rows| Picture::of_frame(frame, columns, rows))
        } else {
            Picture::of_frame(frame, self.columns, self.rows)
        }
    }

    fn help_due(&mut self, now: Instant) -> bool {
        if self.help_until.is_some_and(|until| now >= until) {
            self.help_until = None;
        }
        self.help_until.is_some()
    }

    fn above_help(&self, picture: impl FnOnce(u16, u16) -> Picture) -> Picture {
        let mut picture = picture(self.columns, self.rows.saturating_sub(1));
        picture.rows = self.rows;
        picture.tiles.resize(usize::from(self.columns) * usize::from(self.rows), Tile::EMPTY);
        put_help(&mut picture);
        picture
    }

    /// Writes where `picture` differs from what is shown.
    fn show(&mut self, picture: &Picture) -> io::Result<()> {
        let shown = match self.shown.take() {
            Some(shown) if (shown.columns, shown.rows) == (picture.columns, picture.rows) => shown,
            _ => {
                queue!(self.out, SetAttribute(Attribute::Reset), Clear(ClearType::All), Hide)?;
                Picture::empty(picture.columns, picture.rows)
            }
        };
        if shown == *picture {
            return self.out.flush();
        }
        if shown.cursor.is_some() {
            queue!(self.out, Hide)?;
        }
        self.show_tiles(picture, &shown)?;
        if let Some((column, row)) = picture.cursor {
            queue!(self.out, MoveTo(column, row), Show)?;
        }
        self.out.flush()
    }

    fn show_tiles(&mut self, picture: &Picture, shown: &Picture) -> io::Result<()> {
        let mut colours: Option<(Color, Color)> = None;
        // Where the next character goes if the cursor is not moved.
        let mut next = None;
        for (at, (tile, old)) in picture.tiles.iter().zip(&shown.tiles).enumerate() {
            if tile == old {
                continue;
            }
            let columns = usize::from(picture.columns);
            let (Ok(column), Ok(row)) = (u16::try_from(at % columns), u16::try_from(at / columns)) else {
                break;
            };
            if next != Some((column, row)) {
                queue!(self.out, MoveTo(column, row))?;
            }
            if colours.map(|(foreground, _)| foreground) != Some(tile.foreground) {
                queue!(self.out, SetForegroundColor(tile.foreground))?;
            }
            if colours.map(|(_, background)| background) != Some(tile.background) {
                queue!(self.out, SetBackgroundColor(tile.background))?;
            }
            colours = Some((tile.foreground, tile.background));
            queue!(self.out, Print(tile.ch))?;
            // Behind the last column the cursor's place differs between terminals.
            next = (column + 1 < picture.columns).then_some((column + 1, row));
        }
        if colours.is_some() {
            queue!(self.out, SetAttribute(Attribute::Reset))?;
        }
        Ok(())
    }
}

/// Writes the help line over the last row.
fn put_help(picture: &mut Picture) {
    let row = picture.rows.saturating_sub(1);
    for tile in row_of(picture, row) {
        *tile = Tile { ch: ' ', foreground: Color::AnsiValue(0), background: Color::AnsiValue(7) };
    }
    put_line(picture, row, HELP);
}

fn put_line(picture: &mut Picture, row: u16, line: &str) {
    for (tile, ch) in row_of(picture, row).iter_mut().zip(line.chars()) {
        tile.ch = ch;
    }
}

fn row_of(picture: &mut Picture, row: u16) -> &mut [Tile] {
    let columns = usize::from(picture.columns);
    picture.tiles.chunks_mut(columns.max(1)).nth(usize::from(row)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
