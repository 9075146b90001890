//! A program on the bare machine: a disk whose boot sector loads 32-bit code that owns the processor.
//!
//! The program has flat segments, an IDT in which every exception says its number and ends the run, the
//! 8259s masked, the local APIC on, and the routines of [`mod@print`], [`pci`], [`apic`] and
//! [`time`]. What it prints is on the text screen, on the debug port 0x402 and on the first serial
//! line; it ends with a verdict, `NAME: PASS` or `NAME: FAIL`, and turns the machine off, or resets it.
//!
//! ```text
//!  7000  where a second processor starts
//!  7c00  the boot sector
//!  8000  the program
//! 20000  cells: the program's variables, zero at first
//! 28000  the IDT
//! 30000  top of the first processor's stack, and 38000 of the second one's
//! ```

pub mod apic;
pub mod pci;
mod print;
mod sector;
pub mod time;

use std::ops::{Deref, DerefMut};

use anyhow::{Result, ensure};

use super::flat::{Flat, If, Label, Op, Reg, Rm};

const PROGRAM: u32 = 0x8000;
const CELLS: u32 = 0x2_0000;
const CELLS_END: u32 = 0x2_1000;
const IDT: u32 = 0x2_8000;
const STACK: u32 = 0x3_0000;
const SECOND_STACK: u32 = 0x3_8000;
/// Selector of the code segment.
const CODE: u32 = 8;

/// A program being written. It is its code, and what all programs have.
pub struct Bare {
    code: Flat,
    name: &'static str,
    next_cell: u32,
    /// Checks that failed.
    failures: Rm,
    /// Where the second processor goes.
    second_entry: Rm,
    /// Whether the machine is reset in the end.
    starts_over: bool,
    routines: print::Routines,
}

impl Deref for Bare {
    type Target = Flat;

    fn deref(&self) -> &Flat {
        &self.code
    }
}

impl DerefMut for Bare {
    fn deref_mut(&mut self) -> &mut Flat {
        &mut self.code
    }
}

/// A disk of 1 MiB that carries out `program` and ends with its verdict.
pub fn disk(name: &'static str, program: impl FnOnce(&mut Bare)) -> Vec<u8> {
    let mut code = Flat::at(PROGRAM);
    let (main, second) = (code.label(), code.label());
    start(&mut code, main, second);
    let mut next_cell = CELLS;
    let mut cell = || {
        next_cell += 4;
        Rm::Abs(next_cell - 4)
    };
    let (failures, second_entry, cursor) = (cell(), cell(), cell());
    let routines = print::Routines::write(&mut code, cursor);
    code.place(second);
    code.set(Reg::Esp, SECOND_STACK);
    load_idt(&mut code);
    code.load(Reg::Eax, second_entry);
    code.raw(&[0xff, 0xe0]); //                             jmp eax
    let mut bare = Bare { code, name, next_cell, failures, second_entry, starts_over: false, routines };
    bare.place(main);
    bare.exceptions();
    load_idt(&mut bare);
    bare.local_apic_on();
    program(&mut bare);
    bare.verdict();
    sector::disk(&bare.code.finish())
}

/// Where the boot sector jumps to with either processor: data segments, and then their own ways.
fn start(code: &mut Flat, main: Label, second: Label) {
    code.set(Reg::Eax, 0x10);
    code.raw(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); //     mov ds, ax; mov es, ax; mov ss, ax
    code.set(Reg::Ecx, 0x1b); //                            IA32_APIC_BASE: bit 8 is the first processor's
    code.raw(&[0x0f, 0x32]); //                             rdmsr
    code.test(Reg::Eax, 1 << 8);
    code.jump_if(If::Equal, second);
    code.set(Reg::Esp, STACK);
    code.set(Reg::Edi, CELLS);
    code.set(Reg::Ecx, (CELLS_END - CELLS) / 4);
    code.set(Reg::Eax, 0);
    code.raw(&[0xfc, 0xf3, 0xab]); //                       cld; rep stosd
    for port in [0x21, 0xa1] {
        code.set(Reg::Eax, 0xff); //                        both 8259s masked
        code.out8(port);
    }
    code.jump(main);
}

/// lidt, from a descriptor on the stack.
fn load_idt(code: &mut Flat) {
    code.set(Reg::Eax, IDT);
    code.push(Reg::Eax);
    code.set(Reg::Eax, (256 * 8 - 1) << 16);
    code.push(Reg::Eax);
    // The limit is in the upper half of the lower word.
    code.raw(&[0x0f, 0x01, 0x5c, 0x24, 0x02]); //           lidt [esp + 2]
    code.pop(Reg::Eax);
    code.pop(Reg::Eax);
}

impl Bare {
    /// A variable of 32 bits, zero at first.
    pub fn cell(&mut self) -> Rm {
        let address = self.next_cell;
        assert!(address < CELLS_END, "a small program");
        self.next_cell += 4;
        Rm::Abs(address)
    }

    /// Every exception prints its number and what lies on the stack, and ends the run.
    fn exceptions(&mut self) {
        let (common, after) = (self.label(), self.label());
        let stubs: Vec<Label> = (0..32_u32).map(|_| self.label()).collect();
        self.jump(after);
        for (vector, stub) in (0_u32..).zip(&stubs) {
            self.place(*stub);
            self.set(Reg::Ebp, vector);
            self.jump(common);
        }
        self.place(common);
        self.say("exception ");
        self.say_number(Reg::Ebp);
        self.say(", on the stack");
        for word in 0..4 {
            self.say(" ");
            self.say_hex(Rm::At(Reg::Esp, word * 4));
        }
        self.say("\n");
        let failures = self.failures;
        self.increment(failures);
        self.verdict();
        self.place(after);
        for (vector, stub) in (0_u32..).zip(stubs) {
            self.gate(vector, stub);
        }
    }

    /// Points a vector of the IDT to a handler.
    fn gate(&mut self, vector: u32, handler: Label) {
        self.set_address(Reg::Eax, handler);
        self.load(Reg::Ecx, Reg::Eax);
        self.op_number(Op::And, Reg::Eax, 0xffff);
        self.op_number(Op::Or, Reg::Eax, CODE << 16);
        self.op_number(Op::And, Reg::Ecx, 0xffff_0000);
        self.op_number(Op::Or, Reg::Ecx, 0x8e00); //        present, 32-bit interrupt gate
        self.store(Rm::Abs(IDT + vector * 8), Reg::Eax);
        self.store(Rm::Abs(IDT + vector * 8 + 4), Reg::Ecx);
    }

    /// Says `text` and whether the flags are as they must be; a failure is counted.
    pub fn check(&mut self, text: &str, condition: If) {
        let failures = self.failures;
        // The flags are read before anything is printed.
        self.set(Reg::Eax, 0);
        self.when(condition, |c| c.set(Reg::Eax, 1));
        self.push(Reg::Eax);
        self.say(text);
        self.pop(Reg::Eax);
        self.test(Reg::Eax, 1);
        let (wrong, end) = (self.label(), self.label());
        self.jump_if(If::Equal, wrong);
        self.say(": ok\n");
        self.jump(end);
        self.place(wrong);
        self.say(": WRONG\n");
        self.increment(failures);
        self.place(end);
    }

    /// Has the machine reset in the end, not turned off, so that the program is carried out without end.
    pub fn start_over(&mut self) {
        self.starts_over = true;
    }

    /// Ends the run.
    pub fn verdict(&mut self) {
        let (failed, end) = (self.label(), self.label());
        let failures = self.failures;
        self.op_number(Op::Cmp, failures, 0);
        self.jump_if(If::NotEqual, failed);
        self.say(&pass(self.name));
        self.jump(end);
        self.place(failed);
        self.say(&format!("{}: FAIL", self.name));
        self.place(end);
        self.say("\n");
        if self.starts_over {
            self.set(Reg::Eax, 6); //                       a hard reset
            self.set(Reg::Edx, 0xcf9);
            self.raw(&[0xee]); //                           out dx, al
        }
        self.set(Reg::Eax, 0x2000); //                      PM1a control: sleep type 0, and go
        self.set(Reg::Edx, 0x604);
        self.raw(&[0x66, 0xef]); //                         out dx, ax
        self.raw(&[0xfa, 0xf4, 0xeb, 0xfd]); //       wait: cli; hlt; jmp wait
    }
}

/// The last line of a program that found all as it must be.
pub fn pass(name: &str) -> String {
    format!("{name}: PASS")
}

/// An error with all that a program found wrong, or that it did not come to its verdict.
pub fn passed(said: &str, name: &str) -> Result<()> {
    let wrong: Vec<&str> = said.lines().map(str::trim).filter(|line| line.ends_with("WRONG")).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    ensure!(said.contains(&pass(name)), "no \"{}\", but: {}", pass(name), said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_boots_and_holds_the_program_behind_its_boot_sector() {
        let disk = disk("nothing", |_| {});
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
        assert_eq!(disk[512..517], [0xb8, 0x10, 0, 0, 0]);
        let verdict = pass("nothing");
        assert!(disk.windows(verdict.len()).any(|bytes| bytes == verdict.as_bytes()));
    }
}
