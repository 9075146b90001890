//! The attribute controller: from the value of a dot to an entry of the DAC.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bits that exist in each register.
const MASKS: [u8; 0x15] = {
    let mut masks = [0x3f; 0x15];
    masks[0x10] = 0xef;
    masks[0x11] = 0xff;
    masks[0x13] = 0x0f;
    masks[0x14] = 0x0f;
    masks
};

/// Registers of the attribute controller, ports 0x3c0 and 0x3c1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attribute {
    index: u8,
    /// Not zero: the next write of port 0x3c0 is data.
    data_next: u8,
    registers: [u8; 0x15],
}

impl Attribute {
    /// The index register, with the palette source in bit 5.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// What a read of input status 1 does: the next write is an index.
    pub fn expect_index(&mut self) {
        self.data_next = 0;
    }

    /// The register that the index selects; zero where there is none.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index & 0x1f)).copied().unwrap_or(0)
    }

    /// A write of port 0x3c0: the index, then data, in turn.
    ///
    /// The palette is written whatever the palette source is; a VGA asks for it to be clear.
    pub fn write(&mut self, value: u8) {
        let index = usize::from(self.index & 0x1f);
        if self.data_next == 0 {
            self.index = value & 0x3f;
        } else if let (Some(register), Some(mask)) = (self.registers.get_mut(index), MASKS.get(index)) {
            *register = value & mask;
        }
        self.data_next = u8::from(self.data_next == 0);
    }

    /// The display reads the palette; without it the screen is dark.
    pub fn screen_on(&self) -> bool {
        self.index & 0x20 != 0
    }

    /// Attributes are those of the monochrome adapter: underlines.
    pub(super) fn monochrome(&self) -> bool {
        self.registers[0x10] & 2 != 0
    }

    /// The ninth dot of the characters 0xc0 to 0xdf repeats the eighth.
    pub(super) fn line_graphics(&self) -> bool {
        self.registers[0x10] & 4 != 0
    }

    /// Bit 7 of a character's attribute blinks and is no part of the background.
    pub(super) fn blink(&self) -> bool {
        self.registers[0x10] & 8 != 0
    }

    /// Panning holds only down to the line compare.
    pub(super) fn pan_stops(&self) -> bool {
        self.registers[0x10] & 0x20 != 0
    }

    /// Horizontal panning in dots, given the dots of a character.
    pub(super) fn pan(&self, dots: usize) -> usize {
        match (usize::from(self.registers[0x13]), dots) {
            (8.., 9) => 0,
            (pan, 9) => pan + 1,
            (pan, _) => pan & 7,
        }
    }

    /// The entry of the DAC for each value of four bits.
    pub fn colors(&self) -> [u8; 16] {
        let (enabled, select) = (self.registers[0x12] & 0xf, self.registers[0x14]);
        std::array::from_fn(|value| {
            let color = self.registers[value & usize::from(enabled)];
            let color = match self.registers[0x10] & 0x80 {
                0 => color & 0x3f,
                _ => color & 0xf | (select & 3) << 4,
            };
            color | (select & 0xc) << 4
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(attribute: &mut Attribute, index: u8, value: u8) {
        attribute.expect_index();
        attribute.write(index);
        attribute.write(value);
    }

    #[test]
    fn index_and_data_take_turns() {
        let mut attribute = Attribute::default();
        attribute.write(0x01);
        attribute.write(0x3a);
        attribute.write(0x21);
        assert_eq!((attribute.index(), attribute.read(), attribute.screen_on()), (0x21, 0x3a, true));
        attribute.expect_index();
        attribute.write(0x02);
        assert_eq!(attribute.read(), 0);
        attribute.write(0xff);
        assert_eq!(attribute.read(), 0x3f);
        attribute.write(0x15);
        attribute.write(0xff);
        attribute.write(0x15);
        assert_eq!(attribute.read(), 0);
    }

    #[test]
    fn color_select_replaces_upper_bits() {
        let mut attribute = Attribute::default();
        for index in 0..16 {
            set(&mut attribute, index, 0x30 | index);
        }
        set(&mut attribute, 0x12, 0x0f);
        assert_eq!(attribute.colors()[5], 0x35);
        set(&mut attribute, 0x14, 0x09);
        assert_eq!(attribute.colors()[5], 0xb5);
        set(&mut attribute, 0x10, 0x80);
        assert_eq!(attribute.colors()[5], 0x95);
        set(&mut attribute, 0x12, 0x03);
        assert_eq!(attribute.colors()[5], 0x91);
    }

    #[test]
    fn nine_dot_text_pans_from_eight() {
        let mut attribute = Attribute::default();
        set(&mut attribute, 0x13, 8);
        assert_eq!((attribute.pan(9), attribute.pan(8)), (0, 0));
        set(&mut attribute, 0x13, 0);
        assert_eq!((attribute.pan(9), attribute.pan(8)), (1, 0));
    }
}
