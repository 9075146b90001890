//! The window at 0xa0000: the four planes, their latches, and every read and write mode.
//!
//! A cell is one byte of each of the four planes, and one little-endian word of video memory: plane
//! 0 in the low byte. So the latches are a word, a write works on all planes at once, and a mask of
//! planes is a mask of bytes.

use trapline_io::Width;
use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use super::Registers;
use super::spec::{MISC_RAM, PLANES_SIZE};

/// Bytes of one plane.
const PLANE_SIZE: usize = PLANES_SIZE / 4;

/// How an access reaches video memory.
enum View {
    /// As plain bytes, from this one on.
    Linear(usize),
    /// Through the planes, from this byte of a plane on.
    Planes(usize),
}

/// What the window keeps between accesses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// The cell that was read last.
    latches: u32,
}

impl Window {
    /// Reads at `offset` from 0xa0000; bytes that are not decoded are ones.
    pub(super) fn read(
        &mut self,
        registers: &Registers,
        vram: VolatileSlice<'_>,
        offset: u32,
        width: Width,
    ) -> u64 {
        let mut bytes = [0; 8];
        let lanes = &mut bytes[..width.bytes()];
        match view(registers, offset, width) {
            Some(View::Linear(at)) => return load(vram, at, width),
            // In ascending order: each byte read loads the latches.
            Some(View::Planes(at)) => {
                for (at, lane) in (at..).zip(lanes) {
                    *lane = self.read_planes(registers, vram, at);
                }
            }
            None => {
                for (at, lane) in (offset..).zip(lanes) {
                    *lane = match view(registers, at, Width::B1) {
                        Some(View::Linear(at)) => load(vram, at, Width::B1).to_le_bytes()[0],
                        Some(View::Planes(at)) => self.read_planes(registers, vram, at),
                        None => 0xff,
                    };
                }
            }
        }
        u64::from_le_bytes(bytes)
    }

    /// Writes at `offset` from 0xa0000; bytes that are not decoded are dropped.
    pub(super) fn write(
        &mut self,
        registers: &Registers,
        vram: VolatileSlice<'_>,
        offset: u32,
        width: Width,
        value: u64,
    ) {
        let lanes = value.to_le_bytes().into_iter().take(width.bytes());
        match view(registers, offset, width) {
            Some(View::Linear(at)) => store(vram, at, width, value),
            Some(View::Planes(at)) => {
                for (at, byte) in (at..).zip(lanes) {
                    self.write_planes(registers, vram, at, byte);
                }
            }
            None => {
                for (at, byte) in (offset..).zip(lanes) {
                    match view(registers, at, Width::B1) {
                        Some(View::Linear(at)) => store(vram, at, Width::B1, byte.into()),
                        Some(View::Planes(at)) => self.write_planes(registers, vram, at, byte),
                        None => {}
                    }
                }
            }
        }
    }

    fn read_planes(&mut self, registers: &Registers, vram: VolatileSlice<'_>, at: usize) -> u8 {
        let (graphics, chain_4) = (&registers.graphics, registers.sequencer.chain_4());
        let cell = match (chain_4, graphics.odd_even()) {
            (true, _) => at & !3,
            (false, true) => at & !1,
            (false, false) => at,
        };
        self.latches = load_cell(vram, cell);
        if graphics.compares() {
            let differs = (self.latches ^ spread(graphics.color_compare())) & spread(graphics.color_care());
            let [a, b, c, d] = differs.to_le_bytes();
            return !(a | b | c | d);
        }
        let plane = match (chain_4, graphics.odd_even()) {
            (true, _) => at & 3,
            (false, true) => usize::from(graphics.read_map() & 2) | at & 1,
            (false, false) => usize::from(graphics.read_map()),
        };
        self.latches.to_le_bytes()[plane]
    }

    fn write_planes(&self, registers: &Registers, vram: VolatileSlice<'_>, at: usize, byte: u8) {
        let sequencer = &registers.sequencer;
        let (cell, selected) = match (sequencer.chain_4(), sequencer.odd_even()) {
            (true, _) => (at & !3, 1 << (at & 3)),
            (false, true) => (at & !1, if at & 1 == 0 { 0b0101 } else { 0b1010 }),
            (false, false) => (at, 0b1111),
        };
        let planes = selected & sequencer.map_mask();
        store_cell(vram, cell, planes, self.compose(registers, byte));
    }

    /// What a write of `byte` puts into the planes.
    fn compose(&self, registers: &Registers, byte: u8) -> u32 {
        let graphics = &registers.graphics;
        let rotated = byte.rotate_right(graphics.rotate());
        let (data, mask) = match graphics.write_mode() {
            0 => {
                let fixed = spread(graphics.enable_set_reset());
                let data = repeat(rotated) & !fixed | spread(graphics.set_reset()) & fixed;
                (data, graphics.bit_mask())
            }
            1 => return self.latches,
            2 => (spread(byte), graphics.bit_mask()),
            _ => (spread(graphics.set_reset()), graphics.bit_mask() & rotated),
        };
        let data = match graphics.function() {
            0 => data,
            1 => data & self.latches,
            2 => data | self.latches,
            _ => data ^ self.latches,
        };
        let mask = repeat(mask);
        data & mask | self.latches & !mask
    }
}

/// How all bytes of an access reach video memory; `None` where one of them does not, or where they
/// do not lie in a row. `offset` plus the width stays below 2^32.
fn view(registers: &Registers, offset: u32, width: Width) -> Option<View> {
    if registers.misc & MISC_RAM == 0 || registers.enable & 1 == 0 {
        return None;
    }
    let linear = registers.dispi.enabled() && !registers.dispi.planar();
    let (first, length) = if linear { (0, 0x1_0000) } else { registers.graphics.window() };
    let inside = usize::try_from(offset.checked_sub(first)?).ok()?;
    if inside + width.bytes() > usize::try_from(length).ok()? {
        return None;
    }
    let bank = registers.dispi.bank();
    if linear {
        return Some(View::Linear(bank + inside));
    }
    // Behind 64 KiB a plane begins again; only banks reach further.
    let inside = inside % PLANE_SIZE;
    (inside + width.bytes() <= PLANE_SIZE).then_some(View::Planes(bank + inside))
}

/// One byte in all planes.
fn repeat(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

/// One bit for each plane, as all bits of that plane.
fn spread(planes: u8) -> u32 {
    let plane = |bit: u8| if planes >> bit & 1 == 1 { 0xff } else { 0 };
    u32::from_le_bytes([plane(0), plane(1), plane(2), plane(3)])
}

fn load_cell(vram: VolatileSlice<'_>, cell: usize) -> u32 {
    vram.get_ref::<u32>(cell * 4).map_or(u32::MAX, |word| u32::from_le(word.load()))
}

/// Only the planes that are written are touched: the guest may be writing the others through BAR 0.
fn store_cell(vram: VolatileSlice<'_>, cell: usize, planes: u8, value: u32) {
    if planes == 0xf {
        if let Ok(word) = vram.get_ref::<u32>(cell * 4) {
            word.store(value.to_le());
        }
        return;
    }
    for (plane, byte) in value.to_le_bytes().into_iter().enumerate() {
        if planes >> plane & 1 == 1
            && let Ok(place) = vram.get_ref::<u8>(cell * 4 + plane)
        {
            place.store(byte);
        }
    }
}

/// Loads from video memory; ones beyond its end.
pub(super) fn load(vram: VolatileSlice<'_>, at: usize, width: Width) -> u64 {
    let value = match width {
        Width::B1 => vram.read_obj::<u8>(at).map(u64::from),
        Width::B2 => vram.read_obj::<u16>(at).map(|value| u16::from_le(value).into()),
        Width::B4 => vram.read_obj::<u32>(at).map(|value| u32::from_le(value).into()),
        Width::B8 => vram.read_obj::<u64>(at).map(u64::from_le),
    };
    value.unwrap_or(width.all_ones())
}

/// Stores into video memory; nothing beyond its end.
pub(super) fn store(vram: VolatileSlice<'_>, at: usize, width: Width, value: u64) {
    let bytes = value.to_le_bytes();
    // Beyond the end the write is dropped, as the bus would.
    let _ = vram.write_slice(&bytes[..width.bytes()], at);
}

#[cfg(test)]
mod tests;
