//! The sequencer: clocking, and which planes are written.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bits that exist in each register.
const MASKS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];

/// Registers of the sequencer, ports 0x3c4 and 0x3c5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sequencer {
    index: u8,
    registers: [u8; 5],
}

impl Sequencer {
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

    /// Dots of a character clock: 8 or 9.
    pub fn dots(&self) -> usize {
        if self.registers[1] & 1 == 1 { 8 } else { 9 }
    }

    /// Each dot lasts two clocks, so it is two dots wide on the screen.
    pub fn half_clock(&self) -> bool {
        self.registers[1] & 8 != 0
    }

    /// The screen is off, and the memory the processor's alone.
    pub fn screen_off(&self) -> bool {
        self.registers[1] & 0x20 != 0
    }

    /// The planes that a write changes, one bit each.
    pub fn map_mask(&self) -> u8 {
        self.registers[2] & 0xf
    }

    /// Where the fonts start in plane 2: for characters whose attribute bit 3 is clear, and set.
    pub fn fonts(&self) -> [usize; 2] {
        let select = usize::from(self.registers[3]);
        let clear = select >> 4 & 1 | (select & 3) << 1;
        let set = select >> 5 & 1 | (select >> 2 & 3) << 1;
        [clear * 0x2000, set * 0x2000]
    }

    /// Even addresses write planes 0 and 2, odd ones 1 and 3.
    pub fn odd_even(&self) -> bool {
        self.registers[4] & 4 == 0
    }

    /// The two low bits of the address select the plane.
    pub fn chain_4(&self) -> bool {
        self.registers[4] & 8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bits_that_exist_are_kept() {
        let mut sequencer = Sequencer::default();
        for (index, mask) in (0..).zip(MASKS) {
            sequencer.set_index(index);
            sequencer.write(0xff);
            assert_eq!(sequencer.read(), mask);
        }
        sequencer.set_index(5);
        sequencer.write(0xff);
        assert_eq!(sequencer.read(), 0);
    }

    #[test]
    fn font_maps_lie_in_the_order_of_the_ega() {
        let mut sequencer = Sequencer::default();
        sequencer.set_index(3);
        for (map, offset) in [(0, 0), (1, 0x4000), (2, 0x8000), (3, 0xc000)] {
            sequencer.write(map | 3 << 2);
            assert_eq!(sequencer.fonts(), [offset, 0xc000]);
            sequencer.write(map | 0x10 | 0x20);
            assert_eq!(sequencer.fonts(), [offset + 0x2000, 0x2000]);
        }
    }
}
