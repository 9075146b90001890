//! The text on the screen, as lines.

use std::io::{self, Write};

use super::{Frame, TextScreen};

/// What was on the screen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its characters, in a text mode.
    pub text: Option<TextScreen>,
    /// Its pixels.
    pub frame: Option<Frame>,
}

/// Writes the rows of the screen in UTF-8, one a line, without trailing blanks. In a graphics mode and while there is
/// no picture it is one line in square brackets that says so.
///
/// # Errors
///
/// What `out` reports.
pub fn write(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    match snapshot {
        Snapshot { text: Some(text), .. } => {
            for row in 0..text.rows {
                writeln!(out, "{}", text.line(row))?;
            }
            Ok(())
        }
        Snapshot { frame: Some(frame), .. } => {
            writeln!(out, "[graphics mode, {} x {} pixels: no text]", frame.width, frame.height)
        }
        _ => writeln!(out, "[no picture: the display is off]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Cell;

    fn written(snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        write(snapshot, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_become_lines_without_trailing_blanks() {
        let cells = " a \0║é   \u{1b}b ".chars().map(|ch| Cell { ch, attribute: 0x1f }).collect();
        let text = TextScreen { columns: 3, rows: 4, cells, cursor: None };
        let snapshot = Snapshot { text: Some(text), frame: None };
        assert_eq!(written(&snapshot), " a\n ║é\n\n?b\n");
    }

    #[test]
    fn rows_that_are_not_there_are_empty() {
        let text =
            TextScreen { columns: 2, rows: 2, cells: vec![Cell { ch: 'x', attribute: 7 }], cursor: None };
        assert_eq!(written(&Snapshot { text: Some(text), frame: None }), "x\n\n");
    }

    #[test]
    fn graphics_and_darkness_say_so() {
        let frame = Frame { width: 640, height: 480, rgb: Vec::new() };
        let graphics = Snapshot { text: None, frame: Some(frame) };
        assert_eq!(written(&graphics), "[graphics mode, 640 x 480 pixels: no text]\n");
        assert_eq!(written(&Snapshot::default()), "[no picture: the display is off]\n");
    }
}
