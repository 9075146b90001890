//! Graphics modes of the VGA: 16 colours from four planes, 256 colours, and those of the CGA.

use super::raster::{Line, Raster};
use super::{Frame, Planes, all_colors, sixteen_colors};
use crate::vga::Registers;
use crate::vga::graphics::Shift;

/// The picture.
pub(super) fn draw(registers: &Registers, planes: &Planes) -> Frame {
    let raster = Raster::of(registers);
    let shift = registers.graphics.shift();
    let colors = match shift {
        Shift::Bytes => all_colors(registers),
        _ => {
            let colors = sixteen_colors(registers);
            std::array::from_fn(|value| colors[value & 15])
        }
    };
    let mut frame = Frame::black(raster.width(), raster.lines);
    // One character more than is shown, for panning.
    let mut dots = vec![0; (raster.columns + 1) * 8];
    let mut drawn = None;
    for (line, pixels) in raster.lines().zip(frame.lines_mut()) {
        // Most lines are shown twice or more.
        if drawn != Some((line.counter, line.row_scan)) {
            draw_line(registers, planes, shift, line, &mut dots);
            drawn = Some((line.counter, line.row_scan));
        }
        let pan = match line.split && registers.attribute.pan_stops() {
            true => 0,
            false => registers.attribute.pan(8).min(8),
        };
        for (pixels, value) in pixels.chunks_exact_mut(3 * raster.stretch).zip(&dots[pan..]) {
            for pixel in pixels.chunks_exact_mut(3) {
                pixel.copy_from_slice(&colors[usize::from(*value)]);
            }
        }
    }
    frame
}

/// The dots of one line, as entries of the palette.
fn draw_line(registers: &Registers, planes: &Planes, shift: Shift, line: Line, dots: &mut [u8]) {
    for (column, dots) in dots.chunks_exact_mut(8).enumerate() {
        let cell = planes.cell(registers.crtc.cell(line.counter + column, line.row_scan));
        let values = match shift {
            Shift::Planar => planar(cell),
            Shift::Interleaved => interleaved(cell),
            Shift::Bytes => std::array::from_fn(|dot| cell[dot / 2]),
        };
        dots.copy_from_slice(&values);
    }
}

/// One bit of each plane, the leftmost dot in bit 7.
fn planar(cell: [u8; 4]) -> [u8; 8] {
    std::array::from_fn(|dot| {
        let bit = |plane: usize| (cell[plane] >> (7 - dot) & 1) << plane;
        bit(0) | bit(1) | bit(2) | bit(3)
    })
}

/// Two bits of an even plane below two bits of the plane two above it; first planes 0 and 2.
fn interleaved(cell: [u8; 4]) -> [u8; 8] {
    std::array::from_fn(|dot| {
        let pair = |plane: usize| cell[plane] >> (6 - 2 * (dot % 4)) & 3;
        pair(dot / 4) | pair(dot / 4 + 2) << 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_make_colors() {
        assert_eq!(planar([0x81, 0x01, 0x40, 0x41]), [1, 12, 0, 0, 0, 0, 0, 11]);
    }

    #[test]
    fn pairs_of_bits_make_colors() {
        assert_eq!(interleaved([0b00_01_10_11, 0b11_10_01_00, 0, 0]), [0, 1, 2, 3, 3, 2, 1, 0]);
        assert_eq!(interleaved([0, 0, 0b11_00_00_00, 0b00_00_00_01]), [12, 0, 0, 0, 0, 0, 0, 4]);
    }
}
