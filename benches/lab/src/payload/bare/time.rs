//! Time, by ACPI's timer: 24 bits at 3.579545 MHz in port 0x608, where SeaBIOS puts the PM registers.

use super::Bare;
use crate::payload::flat::{Flat, If, Label, Op, Reg, Rm};

const PM_TIMER: u16 = 0x608;
/// Counts of a millisecond.
pub const TICKS_PER_MS: u32 = 3580;
/// What is waited for at a time: 24 bits count 4686 ms.
const PERIOD_MS: u32 = 4000;
/// How long something may take that takes no time: a processor of an emulated host may stand still for seconds.
pub const PATIENCE_MS: u32 = 20_000;

impl Bare {
    /// EAX = the timer's count; EDX is lost.
    pub fn ticks(&mut self) {
        self.in32(PM_TIMER);
        self.op_number(Op::And, Reg::Eax, 0xff_ffff);
    }

    /// EAX = ticks since `start`; EDX is lost.
    pub fn ticks_since(&mut self, start: Rm) {
        self.ticks();
        self.op(Op::Sub, Reg::Eax, start);
        self.op_number(Op::And, Reg::Eax, 0xff_ffff);
    }

    /// Repeats `look`, which jumps to the label when it is content, for at most `ms` milliseconds, of which there is one
    /// at least.
    ///
    /// `look` may use every register.
    pub fn wait(&mut self, ms: u32, look: impl FnOnce(&mut Flat, Label)) {
        let periods = ms.div_ceil(PERIOD_MS);
        let (start, left) = (self.cell(), self.cell());
        let done = self.label();
        self.set(left, periods);
        let period = self.here();
        self.ticks();
        self.store(start, Reg::Eax);
        let again = self.here();
        look(self, done);
        self.ticks_since(start);
        self.op_number(Op::Cmp, Reg::Eax, ms / periods * TICKS_PER_MS);
        self.jump_if(If::Below, again);
        self.op_number(Op::Sub, left, 1);
        self.jump_if(If::NotEqual, period);
        self.place(done);
    }

    /// Waits until `cell` has the value, for at most [`PATIENCE_MS`]; the flags say whether it has.
    pub fn wait_for(&mut self, cell: Rm, value: u32) {
        self.wait(PATIENCE_MS, |c, done| {
            c.op_number(Op::Cmp, cell, value);
            c.jump_if(If::Equal, done);
        });
        self.op_number(Op::Cmp, cell, value);
    }
}
