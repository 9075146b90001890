//! 32-bit code for flat segments: registers, operands, labels, and loops as closures.
//!
//! Only what the programs here need. Jumps are always near ones, so that their length is known before
//! their target is.

/// A register of 32 bits, by its number in an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    Eax,
    Ecx,
    Edx,
    Ebx,
    Esp,
    Ebp,
    Esi,
    Edi,
}

/// An operand: a register, or memory at an address or at a register and a distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rm {
    Reg(Reg),
    Abs(u32),
    At(Reg, i32),
}

impl From<Reg> for Rm {
    fn from(register: Reg) -> Self {
        Rm::Reg(register)
    }
}

/// Operations on two operands, by their number in an instruction.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// What a jump depends on, by its number in an instruction.
#[derive(Clone, Copy, Debug)]
pub enum If {
    Below = 2,
    NotBelow = 3,
    Equal = 4,
    NotEqual = 5,
}

impl If {
    fn not(self) -> Self {
        match self {
            If::Below => If::NotBelow,
            If::NotBelow => If::Below,
            If::Equal => If::NotEqual,
            If::NotEqual => If::Equal,
        }
    }
}

/// A place in the code, which may be set after it was used.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// How a place is written where it is used.
#[derive(Clone, Copy)]
enum Use {
    /// Its distance from behind the operand.
    Distance,
    /// Its address.
    Address,
}

/// Code that is loaded at `origin`.
pub struct Flat {
    bytes: Vec<u8>,
    origin: u32,
    /// Offset of each label, when it is known.
    labels: Vec<Option<usize>>,
    /// Operands to be filled in: their offset, the label, and how.
    uses: Vec<(usize, Label, Use)>,
}

impl Flat {
    /// No code yet; its first byte will lie at the address `origin`.
    pub fn at(origin: u32) -> Self {
        Flat { bytes: Vec::new(), origin, labels: Vec::new(), uses: Vec::new() }
    }

    /// Appends instructions.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn raw32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// A place that [`place`](Self::place) will set.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Sets the label here.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.bytes.len());
    }

    /// A label set here.
    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }

    fn used(&mut self, label: Label, by: Use) {
        self.uses.push((self.bytes.len(), label, by));
        self.raw32(0);
    }

    /// An instruction with a register (or a number that extends the opcode) and an operand.
    fn modrm(&mut self, opcode: &[u8], register: u8, rm: Rm) {
        self.raw(opcode);
        match rm {
            Rm::Reg(reg) => self.raw(&[0xc0 | register << 3 | reg as u8]),
            Rm::Abs(address) => {
                self.raw(&[register << 3 | 5]);
                self.raw32(address);
            }
            Rm::At(reg, distance) => {
                self.raw(&[0x80 | register << 3 | reg as u8]);
                // The number of ESP means that one more byte names the base.
                if reg == Reg::Esp {
                    self.raw(&[0x24]);
                }
                self.raw(&distance.to_le_bytes());
            }
        }
    }

    /// mov register, operand
    pub fn load(&mut self, register: Reg, from: impl Into<Rm>) {
        self.modrm(&[0x8b], register as u8, from.into());
    }

    /// movzx register, byte of memory
    pub fn load_byte(&mut self, register: Reg, from: Rm) {
        self.modrm(&[0x0f, 0xb6], register as u8, from);
    }

    /// movzx register, word of memory
    pub fn load_word(&mut self, register: Reg, from: Rm) {
        self.modrm(&[0x0f, 0xb7], register as u8, from);
    }

    /// mov operand, register
    pub fn store(&mut self, to: impl Into<Rm>, register: Reg) {
        self.modrm(&[0x89], register as u8, to.into());
    }

    /// xchg operand, register
    pub fn swap(&mut self, with: Rm, register: Reg) {
        self.modrm(&[0x87], register as u8, with);
    }

    /// mov operand, number
    pub fn set(&mut self, to: impl Into<Rm>, value: u32) {
        match to.into() {
            Rm::Reg(register) => self.raw(&[0xb8 | register as u8]),
            memory => self.modrm(&[0xc7], 0, memory),
        }
        self.raw32(value);
    }

    /// mov register, address of the label
    pub fn set_address(&mut self, register: Reg, label: Label) {
        self.raw(&[0xb8 | register as u8]);
        self.used(label, Use::Address);
    }

    /// An operation on a register and an operand.
    pub fn op(&mut self, op: Op, register: Reg, with: impl Into<Rm>) {
        self.modrm(&[(op as u8) << 3 | 3], register as u8, with.into());
    }

    /// An operation on an operand and a number.
    pub fn op_number(&mut self, op: Op, on: impl Into<Rm>, value: u32) {
        self.modrm(&[0x81], op as u8, on.into());
        self.raw32(value);
    }

    /// test operand, number
    pub fn test(&mut self, operand: impl Into<Rm>, value: u32) {
        self.modrm(&[0xf7], 0, operand.into());
        self.raw32(value);
    }

    /// shl register, count
    pub fn left(&mut self, register: Reg, count: u8) {
        self.modrm(&[0xc1], 4, register.into());
        self.raw(&[count]);
    }

    /// shr register, count
    pub fn right(&mut self, register: Reg, count: u8) {
        self.modrm(&[0xc1], 5, register.into());
        self.raw(&[count]);
    }

    /// div operand: EDX and EAX by it, to EAX and a rest in EDX
    pub fn divide(&mut self, by: impl Into<Rm>) {
        self.modrm(&[0xf7], 6, by.into());
    }

    /// inc operand
    pub fn increment(&mut self, operand: impl Into<Rm>) {
        self.modrm(&[0xff], 0, operand.into());
    }

    /// push register
    pub fn push(&mut self, register: Reg) {
        self.raw(&[0x50 | register as u8]);
    }

    /// pop register
    pub fn pop(&mut self, register: Reg) {
        self.raw(&[0x58 | register as u8]);
    }

    /// mov edx, port; out dx, eax
    pub fn out32(&mut self, port: u16) {
        self.set(Reg::Edx, port.into());
        self.raw(&[0xef]);
    }

    /// mov edx, port; out dx, al
    pub fn out8(&mut self, port: u16) {
        self.set(Reg::Edx, port.into());
        self.raw(&[0xee]);
    }

    /// mov edx, port; in eax, dx
    pub fn in32(&mut self, port: u16) {
        self.set(Reg::Edx, port.into());
        self.raw(&[0xed]);
    }

    /// call label
    pub fn call(&mut self, label: Label) {
        self.raw(&[0xe8]);
        self.used(label, Use::Distance);
    }

    /// ret
    pub fn ret(&mut self) {
        self.raw(&[0xc3]);
    }

    /// jmp label
    pub fn jump(&mut self, label: Label) {
        self.raw(&[0xe9]);
        self.used(label, Use::Distance);
    }

    /// A jump to the label on a condition.
    pub fn jump_if(&mut self, condition: If, label: Label) {
        self.raw(&[0x0f, 0x80 | condition as u8]);
        self.used(label, Use::Distance);
    }

    /// Code that is carried out only on a condition.
    pub fn when(&mut self, condition: If, body: impl FnOnce(&mut Self)) {
        let end = self.label();
        self.jump_if(condition.not(), end);
        body(self);
        self.place(end);
    }

    /// One code on a condition, and another without it.
    pub fn choose(&mut self, condition: If, then: impl FnOnce(&mut Self), other: impl FnOnce(&mut Self)) {
        let (otherwise, end) = (self.label(), self.label());
        self.jump_if(condition.not(), otherwise);
        then(self);
        self.jump(end);
        self.place(otherwise);
        other(self);
        self.place(end);
    }

    /// Code that is carried out once, and again as long as the condition holds after it.
    pub fn again_if(&mut self, condition: If, body: impl FnOnce(&mut Self)) {
        let start = self.here();
        body(self);
        self.jump_if(condition, start);
    }

    /// Puts the address of `text` and a NUL, which lie in the code, into ESI.
    pub fn text(&mut self, text: &str) {
        let behind = self.label();
        self.call(behind);
        self.raw(text.as_bytes());
        self.raw(&[0]);
        self.place(behind);
        self.pop(Reg::Esi);
    }

    /// The code, with every use of a label filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let number = |offset: usize| u32::try_from(offset).expect("a small program");
        for (at, label, by) in &self.uses {
            let target = number(self.labels[label.0].expect("a label that is set"));
            let value = match by {
                Use::Distance => target.wrapping_sub(number(*at) + 4),
                Use::Address => self.origin + target,
            };
            self.bytes[*at..*at + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(write: impl FnOnce(&mut Flat)) -> Vec<u8> {
        let mut code = Flat::at(0x8000);
        write(&mut code);
        code.finish()
    }

    /// The bytes are those that the GNU assembler makes (in its long forms).
    #[test]
    fn operands_are_registers_addresses_and_distances() {
        assert_eq!(code(|c| c.load(Reg::Ebx, Reg::Esi)), [0x8b, 0xde]);
        assert_eq!(code(|c| c.load(Reg::Eax, Rm::Abs(0x1234))), [0x8b, 0x05, 0x34, 0x12, 0, 0]);
        assert_eq!(code(|c| c.store(Rm::At(Reg::Ebp, -4), Reg::Ecx)), [0x89, 0x8d, 0xfc, 0xff, 0xff, 0xff]);
        assert_eq!(code(|c| c.load(Reg::Eax, Rm::At(Reg::Esp, 8))), [0x8b, 0x84, 0x24, 8, 0, 0, 0]);
        assert_eq!(code(|c| c.set(Rm::At(Reg::Edi, 8), 7)), [0xc7, 0x87, 8, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(code(|c| c.op(Op::Xor, Reg::Eax, Reg::Edx)), [0x33, 0xc2]);
        assert_eq!(code(|c| c.op_number(Op::Cmp, Reg::Edx, 5)), [0x81, 0xfa, 5, 0, 0, 0]);
        assert_eq!(code(|c| c.load_word(Reg::Eax, Rm::At(Reg::Ebx, 0))), [0x0f, 0xb7, 0x83, 0, 0, 0, 0]);
    }

    #[test]
    fn labels_reach_back_and_forth() {
        let back = code(|c| c.again_if(If::NotEqual, |c| c.raw(&[0x90])));
        assert_eq!(back, [0x90, 0x0f, 0x85, 0xf9, 0xff, 0xff, 0xff]);
        let over = code(|c| c.when(If::Equal, |c| c.raw(&[0x90, 0x90])));
        assert_eq!(over, [0x0f, 0x85, 2, 0, 0, 0, 0x90, 0x90]);
        let either = code(|c| c.choose(If::Below, |c| c.raw(&[0x90]), |c| c.raw(&[0xf4])));
        assert_eq!(either, [0x0f, 0x83, 6, 0, 0, 0, 0x90, 0xe9, 1, 0, 0, 0, 0xf4]);
        let text = code(|c| c.text("ab"));
        assert_eq!(text, [0xe8, 3, 0, 0, 0, b'a', b'b', 0, 0x5e]);
        let address = code(|c| {
            let label = c.here();
            c.set_address(Reg::Eax, label);
        });
        assert_eq!(address, [0xb8, 0, 0x80, 0, 0]);
    }
}
