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

    /// What a boot sector begins with: DS and SS are 0, the stack lies below 0x7c00, strings go upwards.
    pub fn begin(&mut self) -> &mut Self {
        self.op(&[0x31, 0xc0, 0x8e, 0xd8]); //            xor ax, ax; mov ds, ax
        self.op(&[0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfc]) // mov ss, ax; mov sp, 0x7c00; cld
    }

    /// Writes a line by int 10h; a zero ends it. Where it lies is still to be filled in: see
    /// [`Code::patch_before`], with the place that this gives.
    pub fn print_line(&mut self) -> Place {
        self.op16(&[0xbe], 0); //                   mov si, line
        let next = self.here();
        self.op(&[0xac, 0xb4, 0x0e]); //      next: lodsb; mov ah, 0x0e
        self.op16(&[0xbb], 7).op(&[0xcd, 0x10]); // mov bx, 7; int 0x10
        self.op(&[0x80, 0x3c, 0x00]); //            cmp byte [si], 0
        self.back(0x75, next); //                   jne next
        next
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

/// A disk of 1 MiB that starts with these bytes as its boot sector, at most 510 of them.
pub fn disk(boot: &[u8]) -> Vec<u8> {
    let mut disk = sector(boot);
    disk.resize(1 << 20, 0);
    disk
}

/// A boot sector of these bytes, at most 510 of them.
pub fn sector(boot: &[u8]) -> Vec<u8> {
    assert!(boot.len() <= 510, "a short program");
    let mut sector = boot.to_vec();
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector
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
