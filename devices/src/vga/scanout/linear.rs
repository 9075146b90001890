//! Modes of the Bochs interface: lines of pixels in video memory.

use vm_memory::VolatileSlice;

use super::{Frame, all_colors, sixteen_colors};
use crate::vga::Registers;
use crate::vga::dispi::Layout;

/// The picture; dark if the interface is off.
pub(super) fn draw(registers: &Registers, vram: VolatileSlice<'_>) -> Frame {
    let Some(layout) = registers.dispi.layout() else { return Frame::black(0, 0) };
    let mut frame = Frame::black(layout.width, layout.height);
    let colors = match layout.bpp {
        4 => {
            let colors = sixteen_colors(registers);
            std::array::from_fn(|value| colors[value & 15])
        }
        _ => all_colors(registers),
    };
    let big = registers.dispi.big_endian();
    let mut bytes = Vec::new();
    for (y, pixels) in frame.lines_mut().enumerate() {
        load_line(&layout, y, vram, &mut bytes);
        let pixels = pixels.chunks_exact_mut(3);
        match layout.bpp {
            4 => {
                for (x, pixel) in (layout.x % 8..).zip(pixels) {
                    pixel.copy_from_slice(&colors[planar(&bytes, x)]);
                }
            }
            8 => pixels.zip(&bytes).for_each(|(p, byte)| p.copy_from_slice(&colors[usize::from(*byte)])),
            bpp => {
                let size = usize::from(bpp.div_ceil(8));
                for (pixel, source) in pixels.zip(bytes.chunks_exact(size)) {
                    pixel.copy_from_slice(&direct(source, bpp, big));
                }
            }
        }
    }
    frame
}

/// Copies a line as far as video memory reaches; the rest is zero.
fn load_line(layout: &Layout, y: usize, vram: VolatileSlice<'_>, bytes: &mut Vec<u8>) {
    let start = layout.pitch * (layout.y + y);
    let (start, length) = match layout.bpp {
        // Cells of eight pixels and four planes; one more for the pixels that start inside a cell.
        4 => ((start + layout.x / 8) * 4, (layout.width / 8 + 1) * 4),
        bpp => {
            let size = usize::from(bpp.div_ceil(8));
            (start + layout.x * size, layout.width * size)
        }
    };
    bytes.clear();
    bytes.resize(length, 0);
    if let Ok(line) = vram.offset(start) {
        line.copy_to(bytes);
    }
}

/// The value of four bits at pixel `x` of a line of cells.
fn planar(cells: &[u8], x: usize) -> usize {
    let cell = cells.get(x / 8 * 4..).and_then(|cells| cells.first_chunk::<4>()).copied().unwrap_or_default();
    (0..4).map(|plane| usize::from(cell[plane] >> (7 - x % 8) & 1) << plane).sum()
}

/// The colour of a pixel of 15, 16, 24 or 32 bits: red in the upper bits.
fn direct(source: &[u8], bpp: u16, big: bool) -> [u8; 3] {
    match (bpp, source) {
        (15, [a, b]) => {
            let value = if big { u16::from_be_bytes([*a, *b]) } else { u16::from_le_bytes([*a, *b]) };
            [five(value >> 10), five(value >> 5), five(value)]
        }
        (_, [a, b]) => {
            let value = if big { u16::from_be_bytes([*a, *b]) } else { u16::from_le_bytes([*a, *b]) };
            let green = (value >> 5 & 63).to_le_bytes()[0];
            [five(value >> 11), green << 2 | green >> 4, five(value)]
        }
        (32, [_, red, green, blue]) if big => [*red, *green, *blue],
        (_, [red, green, blue]) if big => [*red, *green, *blue],
        (_, [blue, green, red, ..]) => [*red, *green, *blue],
        _ => [0; 3],
    }
}

/// The low five bits as eight.
fn five(value: u16) -> u8 {
    let value = (value & 31).to_le_bytes()[0];
    value << 3 | value >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_of_every_depth_reach_white() {
        for (bpp, size) in [(15, 2), (16, 2), (24, 3), (32, 4)] {
            for big in [false, true] {
                assert_eq!(direct(&[0xff; 4][..size], bpp, big), [255; 3]);
            }
        }
    }

    #[test]
    fn red_lies_in_the_upper_bits() {
        assert_eq!(direct(&0x7c00_u16.to_le_bytes(), 15, false), [255, 0, 0]);
        assert_eq!(direct(&0x07e0_u16.to_le_bytes(), 16, false), [0, 255, 0]);
        assert_eq!(direct(&0x001f_u16.to_be_bytes(), 16, true), [0, 0, 255]);
        assert_eq!(direct(&[3, 2, 1], 24, false), [1, 2, 3]);
        assert_eq!(direct(&[3, 2, 1, 0], 32, false), [1, 2, 3]);
        assert_eq!(direct(&[0, 1, 2, 3], 32, true), [1, 2, 3]);
    }
}
