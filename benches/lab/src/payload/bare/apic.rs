//! The local APIC (Intel SDM volume 3, chapter 12): interrupts, and a second processor.

use super::{Bare, sector};
use crate::payload::flat::{Label, Op, Reg, Rm};

const BASE: u32 = 0xfee0_0000;
/// Registers, at their addresses.
pub const ID: Rm = Rm::Abs(BASE + 0x20);
pub const END_OF_INTERRUPT: Rm = Rm::Abs(BASE + 0xb0);
pub const COMMAND_LOW: Rm = Rm::Abs(BASE + 0x300);
pub const COMMAND_HIGH: Rm = Rm::Abs(BASE + 0x310);
pub const TIMER: Rm = Rm::Abs(BASE + 0x320);
pub const TIMER_START: Rm = Rm::Abs(BASE + 0x380);
pub const TIMER_DIVIDER: Rm = Rm::Abs(BASE + 0x3e0);
const PRIORITY: Rm = Rm::Abs(BASE + 0x80);
const SPURIOUS: Rm = Rm::Abs(BASE + 0xf0);
const PIN0: Rm = Rm::Abs(BASE + 0x350);

/// A delivery mode of the local vector table: the 8259s give the vector.
const EXTERNAL: u32 = 0x700;
const MASKED: u32 = 1 << 16;
/// In the interrupt command: to a processor that is reset, and to one that waits for its start.
const INIT: u32 = 0x4500;
const START: u32 = 0x4600;

/// Where a second processor starts.
const STARTING_PAGE: u32 = 0x7000;

impl Bare {
    /// The local APIC on, all priorities let through, the 8259s' pin masked.
    pub fn local_apic_on(&mut self) {
        self.set(PIN0, EXTERNAL | MASKED);
        self.set(PRIORITY, 0);
        self.set(SPURIOUS, 0x1ff);
    }

    /// Handles a vector: counts it in the cell that is returned, does `also`, ends the interrupt.
    ///
    /// `also` may use every register.
    pub fn on_interrupt(&mut self, vector: u8, also: impl FnOnce(&mut Self)) -> Rm {
        let count = self.cell();
        let (handler, after) = (self.label(), self.label());
        self.jump(after);
        self.place(handler);
        self.raw(&[0x60]); //                               pushad
        self.increment(count);
        also(self);
        self.set(END_OF_INTERRUPT, 0);
        self.raw(&[0x61]); //                               popad
        self.leave_interrupt();
        self.place(after);
        self.gate(vector.into(), handler);
        count
    }

    /// Goes back to where an interrupt came, without `iretd`: where KVM emulates the guest's every
    /// instruction in this mode, it does not know that one.
    fn leave_interrupt(&mut self) {
        // On the stack are EIP, CS and the flags; they become a word to skip, the flags, and EIP.
        self.push(Reg::Eax);
        self.load(Reg::Eax, Rm::At(Reg::Esp, 4));
        self.swap(Rm::At(Reg::Esp, 12), Reg::Eax);
        self.store(Rm::At(Reg::Esp, 8), Reg::Eax);
        self.pop(Reg::Eax);
        self.raw(&[0x8d, 0x64, 0x24, 0x04]); //             lea esp, [esp + 4]: no flag changes
        self.raw(&[0x9d]); //                               popfd
        self.ret();
    }

    /// Lets the 8259s' interrupts through: their vectors start at 0x20, all of them masked.
    pub fn external_interrupts_on(&mut self) {
        for (port, value) in [
            // ICW1 to ICW4 (8259A data sheet): with cascade, vectors, where the second one is, 8086.
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 0x04),
            (0x21, 0x01),
            (0xa0, 0x11),
            (0xa1, 0x28),
            (0xa1, 0x02),
            (0xa1, 0x01),
            (0x21, 0xff),
            (0xa1, 0xff),
        ] {
            self.set(Reg::Eax, value);
            self.out8(port);
        }
        self.set(PIN0, EXTERNAL);
    }

    /// Unmasks the line of the 8259s whose number is in `line`, and masks all others.
    pub fn unmask(&mut self, line: Rm) {
        self.load(Reg::Ecx, line);
        self.set(Reg::Eax, 1);
        self.raw(&[0xd3, 0xe0]); //                         shl eax, cl
        // Line 2 is the second 8259.
        self.op_number(Op::Or, Reg::Eax, 1 << 2);
        self.raw(&[0xf7, 0xd0]); //                         not eax
        self.out8(0x21);
        self.right(Reg::Eax, 8);
        self.out8(0xa1);
    }

    /// Starts the second processor at `entry`, with a stack of its own and interrupts off.
    pub fn start_second(&mut self, entry: Label) {
        self.start_processor(1, entry);
    }

    /// The same for the processor whose local APIC has this number. One that is not there is not missed. All have
    /// the second one's stack at `entry`, and no other is started meanwhile.
    pub fn start_processor(&mut self, number: u32, entry: Label) {
        let second_entry = self.second_entry;
        self.set_address(Reg::Eax, entry);
        self.store(second_entry, Reg::Eax);
        // jmp 0:entry of the boot sector
        self.set(Rm::Abs(STARTING_PAGE), 0xea | u32::from(sector::SECOND) << 8);
        self.set(Rm::Abs(STARTING_PAGE + 4), 0);
        self.set(COMMAND_HIGH, number << 24);
        self.set(COMMAND_LOW, INIT);
        self.wait(10, |_, _| {});
        for _ in 0..2 {
            self.set(COMMAND_LOW, START | STARTING_PAGE >> 12);
            self.wait(1, |_, _| {});
        }
    }
}
