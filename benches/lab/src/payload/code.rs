//! Machine code being written by hand: bytes, and jumps back and forth.

/// Machine code that is loaded at `origin`.
pub struct Code {
    bytes: Vec<u8>,
    origin: u16,
}

/// A place in the code.
#[derive(Clone, Copy)]
pub struct Place(usize);

impl Code {
    /// No code yet; its first byte will lie at the offset `origin` of its segment.
    pub fn at(origin: u16) -> Self {
        Code { bytes: Vec::new(), origin }
    }

    /// Appends instructions.
    pub fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends an instruction and the 16-bit operand behind it.
    pub fn op16(&mut self, bytes: &[u8], operand: u16) -> &mut Self {
        self.op(bytes).op(&operand.to_le_bytes())
    }

    /// Here.
    pub fn here(&self) -> Place {
        Place(self.bytes.len())
    }

    /// The offset of a place in its segment.
    pub fn offset(&self, place: Place) -> u16 {
        self.origin + u16::try_from(place.0).expect("a small program")
    }

    /// A short jump back to `target`; `opcode` says on which condition.
    pub fn back(&mut self, opcode: u8, target: Place) -> &mut Self {
        let distance = self.bytes.len() + 2 - target.0;
        let distance = u8::try_from(distance).ok().filter(|distance| *distance <= 128).expect("a short jump");
        self.op(&[opcode, distance.wrapping_neg()])
    }

    /// Fills in the 16-bit operand that ends at `place`, which was not known when it was written.
    pub fn patch_before(&mut self, place: Place, value: u16) {
        self.bytes[place.0 - 2..place.0].copy_from_slice(&value.to_le_bytes());
    }

    /// Turns the machine off: PM1a control gets sleep type 0 and the bit that starts it.
    pub fn power_off(&mut self) {
        self.op(&[0xba, 0x04, 0x06]); //          mov dx, 0x604
        self.op(&[0xb8, 0x00, 0x20]); //          mov ax, 0x2000
        self.op(&[0xef]); //                      out dx, ax
        self.op(&[0xfa]); //                      cli
        self.op(&[0xf4, 0xeb, 0xfd]); //    wait: hlt; jmp wait
    }

    /// The code.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_back_counts_from_behind_itself() {
        let mut code = Code::at(0x7c00);
        code.op(&[0x90]);
        let again = code.here();
        code.op(&[0x90]).back(0xeb, again);
        assert_eq!(code.bytes(), [0x90, 0x90, 0xeb, 0xfd]);
        assert_eq!(code.offset(again), 0x7c01);
    }
}
