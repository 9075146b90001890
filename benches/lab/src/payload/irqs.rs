//! A bare program that tells whether interrupts work at all, so that failures are told apart.
//!
//! | line | what was done |
//! |---|---|
//! | to itself | the first processor sends itself an interrupt |
//! | timer, once | the local APIC's timer counts down once |
//! | timer, periodic | and again and again |
//! | from the second | the second processor, where there is one, sends the first an interrupt |

use super::bare::{self, Bare, apic, time};
use super::flat::{If, Op, Reg};

/// Its name in the verdict.
pub const NAME: &str = "irqs";

const OWN: u8 = 0x40;
const TIMER: u8 = 0x41;
const OTHER: u8 = 0x42;
/// In the timer's vector: it starts anew by itself.
const PERIODIC: u32 = 1 << 17;
/// In the interrupt command: the destination is the sender.
const TO_ITSELF: u32 = 1 << 18;
/// How often the periodic timer must come.
const TICKS: u32 = 5;

/// The disk.
pub fn disk() -> Vec<u8> {
    bare::disk(NAME, |b| {
        to_itself(b);
        timer(b);
        from_second(b);
    })
}

fn to_itself(b: &mut Bare) {
    let count = b.on_interrupt(OWN, |_| {});
    b.raw(&[0xfb]); //                                      sti
    b.set(apic::COMMAND_LOW, TO_ITSELF | 1 << 14 | u32::from(OWN));
    b.wait_for(count, 1);
    b.check("to itself", If::Equal);
}

fn timer(b: &mut Bare) {
    let start = b.cell();
    let count = b.on_interrupt(TIMER, |_| {});
    b.set(apic::TIMER_DIVIDER, 0b1011); //                  by 1
    b.set(apic::TIMER, TIMER.into());
    b.ticks();
    b.store(start, Reg::Eax);
    b.set(apic::TIMER_START, 50_000_000);
    b.wait_for(count, 1);
    b.check("timer, once", If::Equal);
    b.ticks_since(start);
    b.say("50000000 of its clocks take ACPI's timer ");
    b.say_number(Reg::Eax);
    b.say("\n");
    b.set(count, 0);
    b.set(apic::TIMER, PERIODIC | u32::from(TIMER));
    b.set(apic::TIMER_START, 10_000_000);
    b.wait(time::PATIENCE_MS, |c, done| {
        c.op_number(Op::Cmp, count, TICKS);
        c.jump_if(If::NotBelow, done);
    });
    b.op_number(Op::Cmp, count, TICKS);
    b.check("timer, periodic", If::NotBelow);
    b.set(apic::TIMER_START, 0);
}

fn from_second(b: &mut Bare) {
    let alive = b.cell();
    let count = b.on_interrupt(OTHER, |_| {});
    let (second, after, alone) = (b.label(), b.label(), b.label());
    b.jump(after);
    b.place(second);
    b.set(alive, 1);
    b.local_apic_on();
    b.set(apic::COMMAND_HIGH, 0);
    b.set(apic::COMMAND_LOW, 1 << 14 | u32::from(OTHER));
    let halt = b.here();
    b.raw(&[0xfa, 0xf4]); //                                cli; hlt
    b.jump(halt);
    b.place(after);
    b.start_second(second);
    b.wait_for(alive, 1);
    b.jump_if(If::NotEqual, alone);
    b.wait_for(count, 1);
    b.check("from the second", If::Equal);
    b.place(alone);
}
