//! Printing: text screen, debug port and serial line at once.

use super::Bare;
use crate::payload::flat::{Flat, If, Label, Op, Reg, Rm};

const SCREEN: i32 = 0xb8000;
const LINE: u32 = 160;
const SCREEN_BYTES: u32 = 25 * LINE;
const DEBUG_PORT: u16 = 0x402;
const SERIAL: u16 = 0x3f8;

/// pushad and popad
const PUSH_ALL: u8 = 0x60;
const POP_ALL: u8 = 0x61;

/// The routines, which keep all registers.
#[derive(Clone, Copy)]
pub struct Routines {
    /// Prints the text at ESI.
    text: Label,
    /// Prints EAX in hexadecimal digits.
    hex: Label,
    /// Prints EAX in decimal digits.
    number: Label,
}

impl Routines {
    /// Writes them; `cursor` is the offset of the next character on the screen.
    pub fn write(code: &mut Flat, cursor: Rm) -> Self {
        let character = character(code, cursor);
        Routines { text: text(code, character), hex: hex(code, character), number: number(code, character) }
    }
}

/// Prints AL.
fn character(code: &mut Flat, cursor: Rm) -> Label {
    let routine = code.here();
    code.raw(&[PUSH_ALL]);
    code.out8(DEBUG_PORT);
    code.out8(SERIAL);
    code.op_number(Op::And, Reg::Eax, 0xff);
    code.load(Reg::Ebx, cursor);
    code.op_number(Op::Cmp, Reg::Eax, u32::from(b'\n'));
    code.choose(
        If::Equal,
        |c| {
            // To the start of the next line.
            c.load(Reg::Eax, Reg::Ebx);
            c.set(Reg::Edx, 0);
            c.set(Reg::Ecx, LINE);
            c.divide(Reg::Ecx);
            c.op(Op::Sub, Reg::Ebx, Reg::Edx);
            c.op_number(Op::Add, Reg::Ebx, LINE);
        },
        |c| {
            c.op_number(Op::Or, Reg::Eax, 0x0700);
            c.raw(&[0x66]); //                              of 16 bits
            c.store(Rm::At(Reg::Ebx, SCREEN), Reg::Eax);
            c.op_number(Op::Add, Reg::Ebx, 2);
        },
    );
    code.op_number(Op::Cmp, Reg::Ebx, SCREEN_BYTES);
    code.when(If::NotBelow, |c| c.set(Reg::Ebx, 0));
    code.store(cursor, Reg::Ebx);
    code.raw(&[POP_ALL]);
    code.ret();
    routine
}

fn text(code: &mut Flat, character: Label) -> Label {
    let routine = code.here();
    code.raw(&[PUSH_ALL]);
    let (next, end) = (code.here(), code.label());
    code.load_byte(Reg::Eax, Rm::At(Reg::Esi, 0));
    code.test(Reg::Eax, 0xff);
    code.jump_if(If::Equal, end);
    code.call(character);
    code.increment(Reg::Esi);
    code.jump(next);
    code.place(end);
    code.raw(&[POP_ALL]);
    code.ret();
    routine
}

fn hex(code: &mut Flat, character: Label) -> Label {
    let routine = code.here();
    code.raw(&[PUSH_ALL]);
    code.load(Reg::Ebx, Reg::Eax);
    code.set(Reg::Ecx, 8);
    code.again_if(If::NotEqual, |c| {
        c.load(Reg::Eax, Reg::Ebx);
        c.right(Reg::Eax, 28);
        c.left(Reg::Ebx, 4);
        c.op_number(Op::Cmp, Reg::Eax, 10);
        c.when(If::NotBelow, |c| c.op_number(Op::Add, Reg::Eax, u32::from(b'a' - b'0' - 10)));
        c.op_number(Op::Add, Reg::Eax, u32::from(b'0'));
        c.call(character);
        c.op_number(Op::Sub, Reg::Ecx, 1);
    });
    code.raw(&[POP_ALL]);
    code.ret();
    routine
}

fn number(code: &mut Flat, character: Label) -> Label {
    let routine = code.here();
    code.raw(&[PUSH_ALL]);
    code.set(Reg::Ecx, 0);
    code.set(Reg::Ebx, 10);
    // The lowest digit is found first and printed last.
    code.again_if(If::NotEqual, |c| {
        c.set(Reg::Edx, 0);
        c.divide(Reg::Ebx);
        c.push(Reg::Edx);
        c.increment(Reg::Ecx);
        c.test(Reg::Eax, u32::MAX);
    });
    code.again_if(If::NotEqual, |c| {
        c.pop(Reg::Eax);
        c.op_number(Op::Add, Reg::Eax, u32::from(b'0'));
        c.call(character);
        c.op_number(Op::Sub, Reg::Ecx, 1);
    });
    code.raw(&[POP_ALL]);
    code.ret();
    routine
}

impl Bare {
    /// Prints `text`, on 25 lines at most; ESI is lost.
    pub fn say(&mut self, text: &str) {
        let routine = self.routines.text;
        self.text(text);
        self.call(routine);
    }

    /// Prints an operand as eight hexadecimal digits; EAX is lost.
    pub fn say_hex(&mut self, operand: impl Into<Rm>) {
        let routine = self.routines.hex;
        self.load(Reg::Eax, operand);
        self.call(routine);
    }

    /// Prints an operand as a decimal number; EAX is lost.
    pub fn say_number(&mut self, operand: impl Into<Rm>) {
        let routine = self.routines.number;
        self.load(Reg::Eax, operand);
        self.call(routine);
    }
}
