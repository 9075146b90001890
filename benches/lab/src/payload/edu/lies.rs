//! The same device as one whose interrupts are of no use: programs that leave it so, and then only wait.

use super::super::bare::{self, Bare};
use super::super::flat::{Label, Reg, Rm};
use super::{Edu, RAISE, enable_line, enable_msi, present};

/// Its name in the verdict, which is never said.
const NAME: &str = "lies";

/// What each of them says when the device is as it is to be.
pub const READY: &str = "the device lies";

/// What is wrong with the interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// MSI is enabled, and no message is ever sent.
    Silent,
    /// The line is acknowledged at the interrupt controller, and the device keeps its reason.
    Storm,
    /// The line is asserted, and masked at the interrupt controller.
    Unserved,
}

/// The disk.
pub fn disk(lie: Lie) -> Vec<u8> {
    bare::disk(NAME, |b| {
        let edu = Edu { function: b.cell(), bar: b.cell(), served: b.cell(), reasons: b.cell() };
        let end = b.label();
        present(b, &edu, end);
        match lie {
            Lie::Silent => {
                let control = b.cell();
                enable_msi(b, &edu, control, end);
            }
            Lie::Storm => raise_once(b, &edu, true, end),
            Lie::Unserved => raise_once(b, &edu, false, end),
        }
        b.say(READY);
        b.say("\n");
        let wait = b.here();
        b.raw(&[0xf4]); //                                  hlt
        b.jump(wait);
        b.place(end);
    })
}

/// Asserts the line for good; a handler acknowledges it at the interrupt controller alone.
fn raise_once(b: &mut Bare, edu: &Edu, unmasked: bool, no_pin: Label) {
    let line = b.cell();
    enable_line(b, edu, line, no_pin, |_, _| {});
    if unmasked {
        b.unmask(line);
    }
    b.raw(&[0xfb]); //                                      sti
    b.load(Reg::Ebx, edu.bar);
    b.set(Rm::At(Reg::Ebx, RAISE), 1);
}
