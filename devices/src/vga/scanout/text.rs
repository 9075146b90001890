//! Text modes: characters in plane 0, attributes in plane 1, fonts in plane 2.

use std::fmt;

use super::cp437::CHARACTERS;
use super::raster::{Line, Raster};
use super::{Frame, Planes, sixteen_colors};
use crate::vga::Registers;

/// A character and how it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The code: a place in the font.
    pub code: u8,
    /// Foreground in bits 3:0, background in bits 7:4 (6:4 where bit 7 blinks).
    pub attribute: u8,
}

impl Cell {
    /// The character, if the font is that of code page 437.
    pub fn character(self) -> char {
        CHARACTERS[usize::from(self.code)]
    }
}

/// A screen of text. As a string: its lines, spaces at their ends left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Characters of a row: 1 to 256.
    pub columns: usize,
    /// Rows; the last may be cut off.
    pub rows: usize,
    /// The characters, row by row from the top left: `columns * rows`.
    pub cells: Vec<Cell>,
    /// Column and row of the cursor, where it is on and on the screen.
    pub cursor: Option<(usize, usize)>,
}

impl Text {
    /// The rows from the top.
    pub fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks_exact(self.columns.max(1))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.rows() {
            let line: String = row.iter().map(|cell| cell.character()).collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The characters on the screen.
pub(super) fn read(registers: &Registers, planes: &Planes) -> Text {
    let (raster, crtc) = (Raster::of(registers), &registers.crtc);
    let cursor_at = crtc.cursor_lines().map(|_| crtc.cursor() & 0xffff);
    let (mut cells, mut cursor, mut rows) = (Vec::new(), None, 0);
    for line in raster.lines().filter(|line| line.first) {
        for column in 0..raster.columns {
            let counter = (line.counter + column) & 0xffff;
            let [code, attribute, ..] = planes.cell(crtc.cell(counter, line.row_scan));
            cells.push(Cell { code, attribute });
            if cursor_at == Some(counter) {
                cursor = cursor.or(Some((column, rows)));
            }
        }
        rows += 1;
    }
    Text { columns: raster.columns, rows, cells, cursor }
}

/// The picture; what blinks is shown.
pub(super) fn draw(registers: &Registers, planes: &Planes) -> Frame {
    let raster = Raster::of(registers);
    let colors = sixteen_colors(registers);
    let mut frame = Frame::black(raster.width(), raster.lines);
    // One character more than is shown, for panning.
    let mut dots = vec![0; (raster.columns + 1) * raster.dots];
    for (line, pixels) in raster.lines().zip(frame.lines_mut()) {
        draw_line(registers, planes, &raster, line, &mut dots);
        let pan = match line.split && registers.attribute.pan_stops() {
            true => 0,
            false => registers.attribute.pan(raster.dots).min(raster.dots),
        };
        for (pixels, value) in pixels.chunks_exact_mut(3 * raster.stretch).zip(&dots[pan..]) {
            for pixel in pixels.chunks_exact_mut(3) {
                pixel.copy_from_slice(&colors[usize::from(value & 15)]);
            }
        }
    }
    frame
}

/// The dots of one line, as values of four bits.
fn draw_line(registers: &Registers, planes: &Planes, raster: &Raster, line: Line, dots: &mut [u8]) {
    let (crtc, attribute) = (&registers.crtc, &registers.attribute);
    let fonts = registers.sequencer.fonts();
    let cursor = crtc.cursor_lines().filter(|(first, last)| (first..=last).contains(&&line.row_scan));
    let cursor_at = cursor.map(|_| crtc.cursor() & 0xffff);
    let background_mask = if attribute.blink() { 7 } else { 15 };
    for (column, dots) in dots.chunks_exact_mut(raster.dots).enumerate() {
        let counter = (line.counter + column) & 0xffff;
        let [code, style, ..] = planes.cell(crtc.cell(counter, line.row_scan));
        let font = fonts[usize::from(style >> 3 & 1)];
        let [.., bits, _] = planes.cell(font + usize::from(code) * 32 + (line.row_scan & 31));
        // Nine dots, the leftmost in bit 8.
        let ninth = attribute.line_graphics() && matches!(code, 0xc0..=0xdf);
        let mut bits = u16::from(bits) << 1 | u16::from(ninth) & u16::from(bits);
        let underlined = attribute.monochrome() && style & 0x77 == 0x01;
        if cursor_at == Some(counter) || underlined && line.row_scan == crtc.underline() {
            bits = 0x1ff;
        }
        let (foreground, background) = (style & 15, style >> 4 & background_mask);
        for (dot, place) in dots.iter_mut().enumerate() {
            *place = if bits << dot & 0x100 != 0 { foreground } else { background };
        }
    }
}
