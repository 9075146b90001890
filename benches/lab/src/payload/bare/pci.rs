//! PCI configuration by ports 0xcf8 and 0xcfc (PCI 3.0, section 3.2.2.3.2).

use super::Bare;
use crate::payload::flat::{If, Op, Reg, Rm};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Registers of the header.
pub const COMMAND: u8 = 0x04;
pub const BAR0: u8 = 0x10;
pub const CAPABILITIES: u8 = 0x34;
pub const INTERRUPT: u8 = 0x3c;
const HEADER_TYPE: u8 = 0x0c;
const BUSES: u8 = 0x18;

/// Bits of the command register.
pub const MEMORY: u32 = 1 << 1;
pub const MASTER: u32 = 1 << 2;
pub const INTX_OFF: u32 = 1 << 10;

impl Bare {
    /// EAX = a register of 32 bits of the function, or capability, whose address is in `function`; EDX is lost.
    pub fn config(&mut self, function: impl Into<Rm>, register: u8) {
        self.load(Reg::Eax, function);
        self.op_number(Op::Add, Reg::Eax, register.into());
        self.out32(ADDRESS);
        self.in32(DATA);
    }

    /// Writes `value`, which is not in EAX or EDX, to a register; EAX and EDX are lost.
    pub fn set_config(&mut self, function: impl Into<Rm>, register: u8, value: impl Into<Rm>) {
        self.load(Reg::Eax, function);
        self.op_number(Op::Add, Reg::Eax, register.into());
        self.out32(ADDRESS);
        self.load(Reg::Eax, value);
        self.out32(DATA);
    }

    /// Clears and sets bits of a register; EAX, ECX and EDX are lost.
    pub fn change_config(&mut self, function: Rm, register: u8, clear: u32, set: u32) {
        self.config(function, register);
        self.op_number(Op::And, Reg::Eax, !clear);
        self.op_number(Op::Or, Reg::Eax, set);
        self.load(Reg::Ecx, Reg::Eax);
        self.set_config(function, register, Reg::Ecx);
    }

    /// Looks at every function of every bus that bridges on bus 0 lead to. `look` finds the function's
    /// address in EBX and its id in EAX, and must keep EBX and ECX.
    pub fn every_function(&mut self, look: impl FnOnce(&mut Self)) {
        let (absent, no_bridge) = (self.label(), self.label());
        self.set(Reg::Ebx, ENABLE);
        // ECX is the highest bus.
        self.set(Reg::Ecx, 0);
        let next = self.here();
        self.config(Reg::Ebx, HEADER_TYPE);
        self.right(Reg::Eax, 16);
        self.op_number(Op::And, Reg::Eax, 0x7f);
        self.op_number(Op::Cmp, Reg::Eax, 1);
        self.jump_if(If::NotEqual, no_bridge);
        self.config(Reg::Ebx, BUSES);
        self.right(Reg::Eax, 16);
        self.op_number(Op::And, Reg::Eax, 0xff);
        self.op(Op::Cmp, Reg::Eax, Reg::Ecx);
        self.when(If::NotBelow, |c| c.load(Reg::Ecx, Reg::Eax));
        self.place(no_bridge);
        self.config(Reg::Ebx, 0);
        self.op_number(Op::Cmp, Reg::Eax, u32::MAX);
        self.jump_if(If::Equal, absent);
        look(self);
        self.place(absent);
        self.op_number(Op::Add, Reg::Ebx, 0x100);
        self.load(Reg::Eax, Reg::Ebx);
        self.right(Reg::Eax, 16);
        self.op_number(Op::And, Reg::Eax, 0xff);
        self.op(Op::Cmp, Reg::Ecx, Reg::Eax);
        self.jump_if(If::NotBelow, next);
    }

    /// Puts the address of the first function with this id (device and vendor), or 0, into the cell.
    pub fn find(&mut self, id: u32, into: Rm) {
        self.set(into, 0);
        self.every_function(|b| {
            b.op_number(Op::Cmp, Reg::Eax, id);
            b.when(If::Equal, |c| {
                c.op_number(Op::Cmp, into, 0);
                c.when(If::Equal, |c| c.store(into, Reg::Ebx));
            });
        });
    }

    /// EAX = the address of the bridge on bus 0 whose secondary bus is that of `function`, or 0.
    pub fn bridge_above(&mut self, function: Rm) {
        let found = self.cell();
        self.every_function(|b| {
            let other = b.label();
            b.config(Reg::Ebx, HEADER_TYPE);
            b.test(Reg::Eax, 0x7f_0000);
            b.jump_if(If::Equal, other);
            b.config(Reg::Ebx, BUSES);
            b.right(Reg::Eax, 8);
            b.op_number(Op::And, Reg::Eax, 0xff);
            b.load(Reg::Edx, function);
            b.right(Reg::Edx, 16);
            b.op_number(Op::And, Reg::Edx, 0xff);
            b.op(Op::Cmp, Reg::Eax, Reg::Edx);
            b.when(If::Equal, |c| c.store(found, Reg::Ebx));
            b.place(other);
        });
        self.load(Reg::Eax, found);
    }

    /// ESI = the offset of the capability with this id, or 0.
    pub fn capability(&mut self, function: Rm, id: u32) {
        let (next, end) = (self.label(), self.label());
        self.config(function, CAPABILITIES);
        self.load(Reg::Esi, Reg::Eax);
        self.place(next);
        self.op_number(Op::And, Reg::Esi, 0xfc);
        self.jump_if(If::Equal, end);
        self.load(Reg::Ebx, function);
        self.op(Op::Or, Reg::Ebx, Reg::Esi);
        self.config(Reg::Ebx, 0);
        self.load(Reg::Ecx, Reg::Eax);
        self.op_number(Op::And, Reg::Ecx, 0xff);
        self.op_number(Op::Cmp, Reg::Ecx, id);
        self.jump_if(If::Equal, end);
        self.right(Reg::Eax, 8);
        self.load(Reg::Esi, Reg::Eax);
        self.jump(next);
        self.place(end);
    }
}
