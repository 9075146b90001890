//! The graphics controller: what a byte that the processor moves does to the planes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bits that exist in each register.
const MASKS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

/// Registers of the graphics controller, ports 0x3ce and 0x3cf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Graphics {
    index: u8,
    registers: [u8; 9],
}

/// How a cell becomes dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    /// Eight dots; one bit of each plane.
    Planar,
    /// Eight dots of two bits, four out of each even plane, then four out of each odd one: CGA.
    Interleaved,
    /// Four pixels of eight bits, each two dots wide.
    Bytes,
}

impl Graphics {
    /// The index register.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Sets the index register.
    pub fn set_index(&mut self, index: u8) {
        self.index = index;
    }

    /// The register that the index selects; zero where there is none.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index)).copied().unwrap_or(0)
    }

    /// Writes the register that the index selects.
    pub fn write(&mut self, value: u8) {
        let index = usize::from(self.index);
        if let (Some(register), Some(mask)) = (self.registers.get_mut(index), MASKS.get(index)) {
            *register = value & mask;
        }
    }

    /// Set/reset: a bit for each plane.
    pub(super) fn set_reset(&self) -> u8 {
        self.registers[0]
    }

    /// Enable set/reset: the planes that take set/reset in write mode 0.
    pub(super) fn enable_set_reset(&self) -> u8 {
        self.registers[1]
    }

    /// Color compare: the colour that read mode 1 looks for.
    pub(super) fn color_compare(&self) -> u8 {
        self.registers[2]
    }

    /// How far right data is rotated.
    pub(super) fn rotate(&self) -> u32 {
        u32::from(self.registers[3] & 7)
    }

    /// How data meets the latches: 0 replace, 1 and, 2 or, 3 exclusive or.
    pub(super) fn function(&self) -> u8 {
        self.registers[3] >> 3 & 3
    }

    /// The plane that read mode 0 gives.
    pub(super) fn read_map(&self) -> u8 {
        self.registers[4] & 3
    }

    /// Write mode, 0 to 3.
    pub(super) fn write_mode(&self) -> u8 {
        self.registers[5] & 3
    }

    /// Reads compare colours (read mode 1).
    pub(super) fn compares(&self) -> bool {
        self.registers[5] & 8 != 0
    }

    /// Even addresses read planes 0 and 2, odd ones 1 and 3.
    pub(super) fn odd_even(&self) -> bool {
        self.registers[5] & 0x10 != 0
    }

    /// How a cell becomes dots.
    pub(super) fn shift(&self) -> Shift {
        match self.registers[5] >> 5 & 3 {
            0 => Shift::Planar,
            1 => Shift::Interleaved,
            _ => Shift::Bytes,
        }
    }

    /// Graphics, not text.
    pub fn graphics(&self) -> bool {
        self.registers[6] & 1 != 0
    }

    /// Where the window lies: first offset from 0xa0000, and length.
    pub fn window(&self) -> (u32, u32) {
        match self.registers[6] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        }
    }

    /// Color don't care: the planes that read mode 1 looks at.
    pub(super) fn color_care(&self) -> u8 {
        self.registers[7]
    }

    /// Bit mask: the bits that come from data, not from the latches.
    pub(super) fn bit_mask(&self) -> u8 {
        self.registers[8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bits_that_exist_are_kept() {
        let mut graphics = Graphics::default();
        for (index, mask) in (0..).zip(MASKS) {
            graphics.set_index(index);
            graphics.write(0xff);
            assert_eq!(graphics.read(), mask);
        }
        graphics.set_index(9);
        graphics.write(0xff);
        assert_eq!(graphics.read(), 0);
    }

    #[test]
    fn four_windows() {
        let mut graphics = Graphics::default();
        graphics.set_index(6);
        let windows = [0, 4, 8, 12].map(|value| {
            graphics.write(value);
            graphics.window()
        });
        assert_eq!(windows, [(0, 0x2_0000), (0, 0x1_0000), (0x1_0000, 0x8000), (0x1_8000, 0x8000)]);
    }
}
