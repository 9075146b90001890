//! The CRT controller: how many lines and characters there are, and which cells they show.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many registers a VGA has.
const COUNT: usize = 0x19;

/// Registers of the CRT controller, ports 0x3d4 and 0x3d5 or 0x3b4 and 0x3b5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Crtc {
    index: u8,
    registers: [u8; COUNT],
}

impl Crtc {
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

    /// Writes the register that the index selects. Bit 7 of register 0x11 protects registers 0 to 7,
    /// but for the line compare bit in register 7.
    pub fn write(&mut self, value: u8) {
        let protected = self.registers[0x11] & 0x80 != 0;
        match (self.index, protected) {
            (0..=6, true) => {}
            (7, true) => self.registers[7] = self.registers[7] & !0x10 | value & 0x10,
            (index, _) => {
                if let Some(register) = self.registers.get_mut(usize::from(index)) {
                    *register = value;
                }
            }
        }
    }

    /// Character clocks in the displayed part of a line: 1 to 256.
    pub fn columns(&self) -> usize {
        usize::from(self.registers[1]) + 1
    }

    /// Displayed lines: 1 to 1024.
    pub fn lines(&self) -> usize {
        self.with_overflow(0x12, 1, 6) + 1
    }

    /// The line after which the counter starts again at zero.
    pub fn line_compare(&self) -> usize {
        let bit_8 = usize::from(self.registers[7]) >> 4 & 1;
        let bit_9 = usize::from(self.registers[9]) >> 6 & 1;
        usize::from(self.registers[0x18]) | bit_8 << 8 | bit_9 << 9
    }

    /// Lines of a row of characters, before doubling: 1 to 32.
    pub fn row_height(&self) -> usize {
        usize::from(self.registers[9] & 0x1f) + 1
    }

    /// How often each line is shown: 1 or 2.
    pub fn scans(&self) -> usize {
        1 + usize::from(self.registers[9] >> 7)
    }

    /// The line of the first row that the screen starts with.
    pub fn preset_row(&self) -> usize {
        usize::from(self.registers[8] & 0x1f)
    }

    /// The counter at the first character: start address and byte panning.
    pub fn start(&self) -> usize {
        self.pair(0x0c) + usize::from(self.registers[8] >> 5 & 3)
    }

    /// How far the counter moves from row to row.
    pub fn stride(&self) -> usize {
        usize::from(self.registers[0x13]) * 2
    }

    /// The counter at the text cursor.
    pub fn cursor(&self) -> usize {
        self.pair(0x0e)
    }

    /// The lines of a row that the cursor covers, if it is on: from `first` to `last`.
    pub fn cursor_lines(&self) -> Option<(usize, usize)> {
        let (first, last) = (self.registers[0xa], self.registers[0xb] & 0x1f);
        let on = first & 0x20 == 0 && first & 0x1f <= last;
        on.then_some((usize::from(first & 0x1f), usize::from(last)))
    }

    /// The line of a row that an underline is drawn on.
    pub fn underline(&self) -> usize {
        usize::from(self.registers[0x14] & 0x1f)
    }

    /// The cell in the planes, below 0x10000, that a value of the counter fetches in line
    /// `row_scan` of a row: byte, word or doubleword mode, and the two address bits that modes
    /// compatible with the CGA take from the line.
    pub fn cell(&self, counter: usize, row_scan: usize) -> usize {
        let (mode, counter) = (self.registers[0x17], counter & 0xffff);
        let address = if self.registers[0x14] & 0x40 != 0 {
            counter << 2 | counter >> 14
        } else if mode & 0x40 == 0 {
            let top = if mode & 0x20 != 0 { 15 } else { 13 };
            counter << 1 | counter >> top & 1
        } else {
            counter
        };
        let replace = |address: usize, bit: usize, by: usize| address & !(1 << bit) | (by & 1) << bit;
        let address = if mode & 1 == 0 { replace(address, 13, row_scan) } else { address };
        let address = if mode & 2 == 0 { replace(address, 14, row_scan >> 1) } else { address };
        address & 0xffff
    }

    /// A register with its bits 8 and 9, which lie at these bits of register 7.
    fn with_overflow(&self, register: usize, bit_8: u8, bit_9: u8) -> usize {
        let overflow = usize::from(self.registers[7]);
        let low = usize::from(self.registers[register]);
        low | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9
    }

    /// Two registers, the high byte first.
    fn pair(&self, high: usize) -> usize {
        usize::from(u16::from_be_bytes([self.registers[high], self.registers[high + 1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(u8, u8)]) -> Crtc {
        let mut crtc = Crtc::default();
        for &(index, value) in values {
            crtc.set_index(index);
            crtc.write(value);
        }
        crtc
    }

    #[test]
    fn protection_spares_the_line_compare_bit() {
        let mut crtc = with(&[(0, 0x5f), (7, 0x0f), (0x11, 0x80)]);
        for index in 0..=7 {
            crtc.set_index(index);
            crtc.write(0xf0);
        }
        assert_eq!((crtc.registers[0], crtc.registers[7]), (0x5f, 0x1f));
        crtc.set_index(0x11);
        crtc.write(0);
        crtc.set_index(0);
        crtc.write(1);
        assert_eq!(crtc.read(), 1);
    }

    #[test]
    fn text_mode_3_has_80_columns_and_400_lines() {
        let crtc = with(&[(1, 0x4f), (7, 0x1f), (9, 0x4f), (0x12, 0x8f), (0x13, 0x28), (0x18, 0xff)]);
        assert_eq!((crtc.columns(), crtc.lines(), crtc.row_height(), crtc.scans()), (80, 400, 16, 1));
        assert_eq!((crtc.stride(), crtc.line_compare()), (80, 0x3ff));
    }

    #[test]
    fn the_counter_reaches_cells_in_three_ways() {
        assert_eq!(with(&[(0x17, 0xe3)]).cell(0x1234, 1), 0x1234);
        assert_eq!(with(&[(0x17, 0xa3)]).cell(0x1234, 1), 0x2468);
        assert_eq!(with(&[(0x17, 0xa3), (0x14, 0x40)]).cell(0x1234, 1), 0x48d0);
        assert_eq!(with(&[(0x17, 0xc2)]).cell(0x0010, 1), 0x2010);
    }

    #[test]
    fn the_cursor_can_be_off_in_two_ways() {
        assert_eq!(with(&[(0xa, 13), (0xb, 14)]).cursor_lines(), Some((13, 14)));
        assert_eq!(with(&[(0xa, 0x2d), (0xb, 14)]).cursor_lines(), None);
        assert_eq!(with(&[(0xa, 15), (0xb, 14)]).cursor_lines(), None);
    }
}
