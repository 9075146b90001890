//! The DAC: 256 colours of three components.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Registers and colours of the DAC, ports 0x3c6 to 0x3c9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dac {
    mask: u8,
    read_index: u8,
    write_index: u8,
    /// What port 0x3c7 reads: 0 after a write of the write index, 3 after one of the read index.
    state: u8,
    /// The component that comes next, 0 to 2.
    component: u8,
    /// Components written that wait for the third.
    pending: [u8; 2],
    palette: [[u8; 3]; 256],
}

impl Default for Dac {
    fn default() -> Dac {
        Dac {
            mask: 0xff,
            read_index: 0,
            write_index: 0,
            state: 0,
            component: 0,
            pending: [0; 2],
            palette: [[0; 3]; 256],
        }
    }
}

impl Dac {
    /// Where the colours start, in bytes; they are the last part.
    pub(super) const PALETTE: usize = std::mem::offset_of!(Dac, palette);

    /// The pixel mask.
    pub fn mask(&self) -> u8 {
        self.mask
    }

    /// Sets the pixel mask.
    pub fn set_mask(&mut self, mask: u8) {
        self.mask = mask;
    }

    /// What port 0x3c7 reads: 0 when colours are being written, 3 when they are being read.
    pub fn state(&self) -> u8 {
        self.state
    }

    /// The entry that is written next.
    pub fn write_index(&self) -> u8 {
        self.write_index
    }

    /// Starts reading at an entry.
    pub fn set_read_index(&mut self, index: u8) {
        (self.read_index, self.state, self.component) = (index, 3, 0);
    }

    /// Starts writing at an entry.
    pub fn set_write_index(&mut self, index: u8) {
        (self.write_index, self.state, self.component) = (index, 0, 0);
    }

    /// The next component.
    pub fn read(&mut self) -> u8 {
        let color = self.palette[usize::from(self.read_index)];
        let value = color.get(usize::from(self.component)).copied().unwrap_or(0);
        if self.component < 2 {
            self.component += 1;
        } else {
            (self.component, self.read_index) = (0, self.read_index.wrapping_add(1));
        }
        value
    }

    /// The next component, of `bits` (6 or 8); the third one makes the entry valid.
    pub fn write(&mut self, value: u8, bits: u32) {
        let value = if bits == 8 { value } else { value & 0x3f };
        if let Some(slot) = self.pending.get_mut(usize::from(self.component)) {
            *slot = value;
            self.component += 1;
            return;
        }
        self.palette[usize::from(self.write_index)] = [self.pending[0], self.pending[1], value];
        (self.component, self.write_index) = (0, self.write_index.wrapping_add(1));
    }

    /// Red, green and blue, 8 bits each, that an entry shows through the pixel mask when components
    /// have `bits` (6 or 8).
    pub fn color(&self, entry: u8, bits: u32) -> [u8; 3] {
        let color = self.palette[usize::from(entry & self.mask)];
        if bits == 8 { color } else { color.map(|six| six << 2 | six >> 4 & 3) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_writes_make_a_color_and_move_on() {
        let mut dac = Dac::default();
        dac.set_write_index(255);
        for value in [0xff, 0x20, 0x01, 1, 2] {
            dac.write(value, 6);
        }
        assert_eq!((dac.color(255, 6), dac.color(0, 6), dac.state()), ([255, 130, 4], [0; 3], 0));
        dac.write(3, 6);
        assert_eq!(dac.color(0, 8), [1, 2, 3]);
        dac.set_read_index(255);
        assert_eq!([dac.read(), dac.read(), dac.read(), dac.read()], [0x3f, 0x20, 1, 1]);
        assert_eq!(dac.state(), 3);
    }

    #[test]
    fn the_mask_selects_the_entry() {
        let mut dac = Dac::default();
        dac.set_write_index(1);
        for value in [9, 8, 7] {
            dac.write(value, 8);
        }
        dac.set_mask(0x0f);
        assert_eq!(dac.color(0xf1, 8), [9, 8, 7]);
    }
}
