//! A bare program that drives QEMU's `edu` device (docs/specs/edu.rst): registers, interrupts, DMA.
//!
//! Checked are the identification, the liveness register, a factorial, MSI, interrupts by INTx through
//! the 8259s, and a round trip of nearly a page from memory to the device and back. What a function lacks (MSI,
//! or a pin) is said and left out.

pub mod lies;

use super::bare::pci::{BAR0, COMMAND, INTERRUPT, INTX_OFF, MASTER, MEMORY};
use super::bare::{self, Bare, apic, time};
use super::flat::{If, Label, Op, Reg, Rm};

/// Its name in the verdict.
pub const NAME: &str = "edu";

/// Device and vendor.
const ID: u32 = 0x11e8_1234;

/// Registers in BAR 0.
const IDENTIFICATION: i32 = 0x00;
const LIVENESS: i32 = 0x04;
const FACTORIAL: i32 = 0x08;
const STATUS: i32 = 0x20;
const INTERRUPT_STATUS: i32 = 0x24;
const RAISE: i32 = 0x60;
const ACKNOWLEDGE: i32 = 0x64;
const DMA_FROM: i32 = 0x80;
const DMA_TO: i32 = 0x88;
const DMA_COUNT: i32 = 0x90;
const DMA_COMMAND: i32 = 0x98;

/// Bits of the status register.
const COMPUTING: u32 = 0x01;
const INTERRUPT_WHEN_COMPUTED: u32 = 0x80;
/// Bits of the DMA command.
const DMA_START: u32 = 1;
const DMA_TO_MEMORY: u32 = 2;
const DMA_INTERRUPT: u32 = 4;
/// Interrupt status of a DMA transfer, and of a factorial.
const DMA_DONE: u32 = 0x100;
const COMPUTED: u32 = 1;

/// The device's own page, as its DMA engine names it.
const DEVICE_MEMORY: u32 = 0x4_0000;
/// A transfer: QEMU 7.2 ends with an error at one that reaches the page's end.
const LENGTH: u32 = 4092;
/// Buffers below 256 MiB: the device's DMA addresses have 28 bits.
const SOURCE: u32 = 0x20_0000;
const DESTINATION: u32 = 0x21_0000;
/// What lies around and in the destination before the transfer.
const UNTOUCHED: u32 = 0x5aa5_0ff0;
/// Word i of the pattern is i times this, so that no two are alike.
const STEP: u32 = 0x0103_0507;

const MSI_CAPABILITY: u32 = 5;
const MSI_VECTOR: u8 = 0x50;
/// Interrupts raised by hand, of each kind.
const TIMES: u32 = 16;

/// What the program keeps in cells.
struct Edu {
    function: Rm,
    bar: Rm,
    /// Interrupts for which the device had a reason.
    served: Rm,
    /// All reasons that it ever had.
    reasons: Rm,
}

/// The disk.
pub fn disk() -> Vec<u8> {
    bare::disk(NAME, program)
}

/// The same, after which the machine is reset and carries it out again, without end.
pub fn endless_disk() -> Vec<u8> {
    bare::disk(NAME, |b| {
        b.start_over();
        program(b);
    })
}

fn program(b: &mut Bare) {
    let edu = Edu { function: b.cell(), bar: b.cell(), served: b.cell(), reasons: b.cell() };
    let end = b.label();
    present(b, &edu, end);
    registers(b, &edu);
    dma(b, &edu);
    msi(b, &edu);
    intx(b, &edu);
    b.place(end);
}

fn present(b: &mut Bare, edu: &Edu, end: Label) {
    b.find(ID, edu.function);
    b.op_number(Op::Cmp, edu.function, 0);
    b.check("edu is there", If::NotEqual);
    b.op_number(Op::Cmp, edu.function, 0);
    b.jump_if(If::Equal, end);
    b.config(edu.function, BAR0);
    b.op_number(Op::And, Reg::Eax, !0xf);
    b.store(edu.bar, Reg::Eax);
    b.change_config(edu.function, COMMAND, 0xffff_0000 | INTX_OFF, MEMORY | MASTER);
    quiet(b, edu);
    b.say("address ");
    b.say_hex(edu.function);
    b.say(", BAR 0 at ");
    b.say_hex(edu.bar);
    b.say("\n");
}

/// Takes back what a program before this one asked for: a reset of the function does not. Its factorials would
/// interrupt, and an interrupt that nobody raised be counted.
fn quiet(b: &mut Bare, edu: &Edu) {
    b.load(Reg::Ebx, edu.bar);
    b.set(Rm::At(Reg::Ebx, STATUS), 0);
    b.load(Reg::Eax, Rm::At(Reg::Ebx, INTERRUPT_STATUS));
    b.store(Rm::At(Reg::Ebx, ACKNOWLEDGE), Reg::Eax);
}

fn registers(b: &mut Bare, edu: &Edu) {
    b.load(Reg::Ebx, edu.bar);
    b.load(Reg::Eax, Rm::At(Reg::Ebx, IDENTIFICATION));
    b.op_number(Op::Cmp, Reg::Eax, 0x0100_00ed);
    b.check("identification 1.0", If::Equal);
    b.load(Reg::Ebx, edu.bar);
    // Three patterns: the differences to what must be read are collected.
    b.set(Reg::Ecx, 0);
    for pattern in [0x1234_5678_u32, 0, 0x8000_0001] {
        b.set(Rm::At(Reg::Ebx, LIVENESS), pattern);
        b.load(Reg::Eax, Rm::At(Reg::Ebx, LIVENESS));
        b.op_number(Op::Xor, Reg::Eax, !pattern);
        b.op(Op::Or, Reg::Ecx, Reg::Eax);
    }
    b.op_number(Op::Cmp, Reg::Ecx, 0);
    b.check("liveness", If::Equal);
    b.load(Reg::Ebx, edu.bar);
    b.set(Rm::At(Reg::Ebx, FACTORIAL), 10);
    factorial_is(b, edu, 3_628_800, "10! without an interrupt");
}

fn factorial_is(b: &mut Bare, edu: &Edu, value: u32, text: &str) {
    b.wait(time::PATIENCE_MS, |c, done| {
        c.load(Reg::Ebx, edu.bar);
        c.test(Rm::At(Reg::Ebx, STATUS), COMPUTING);
        c.jump_if(If::Equal, done);
    });
    b.load(Reg::Ebx, edu.bar);
    b.load(Reg::Eax, Rm::At(Reg::Ebx, FACTORIAL));
    b.op_number(Op::Cmp, Reg::Eax, value);
    b.check(text, If::Equal);
}

/// From memory to the device, and from there to elsewhere in memory.
fn dma(b: &mut Bare, edu: &Edu) {
    // The pattern, and something else around and in the place where it must arrive.
    b.set(Reg::Edi, SOURCE);
    b.set(Reg::Eax, 0);
    b.again_if(If::NotEqual, |c| {
        c.store(Rm::At(Reg::Edi, 0), Reg::Eax);
        c.op_number(Op::Add, Reg::Eax, STEP);
        c.op_number(Op::Add, Reg::Edi, 4);
        c.op_number(Op::Cmp, Reg::Edi, SOURCE + LENGTH);
    });
    b.set(Reg::Edi, DESTINATION - 4);
    b.set(Reg::Ecx, LENGTH / 4 + 2);
    b.set(Reg::Eax, UNTOUCHED);
    b.raw(&[0xf3, 0xab]); //                                rep stosd
    transfer(b, edu, SOURCE, DEVICE_MEMORY, DMA_START);
    b.check("DMA from memory ends", If::Equal);
    transfer(b, edu, DEVICE_MEMORY, DESTINATION, DMA_START | DMA_TO_MEMORY);
    b.check("DMA to memory ends", If::Equal);
    let wrong = b.cell();
    b.set(Reg::Edi, DESTINATION);
    b.set(Reg::Eax, 0);
    b.again_if(If::NotEqual, |c| {
        c.op(Op::Cmp, Reg::Eax, Rm::At(Reg::Edi, 0));
        c.when(If::NotEqual, |c| c.increment(wrong));
        c.op_number(Op::Add, Reg::Eax, STEP);
        c.op_number(Op::Add, Reg::Edi, 4);
        c.op_number(Op::Cmp, Reg::Edi, DESTINATION + LENGTH);
    });
    for around in [DESTINATION - 4, DESTINATION + LENGTH] {
        b.op_number(Op::Cmp, Rm::Abs(around), UNTOUCHED);
        b.when(If::NotEqual, |c| c.increment(wrong));
    }
    b.say("wrong words of 1023 and around them: ");
    b.say_number(wrong);
    b.op_number(Op::Cmp, wrong, 0);
    b.check("; DMA round trip", If::Equal);
}

/// Carries out a transfer; the flags say whether it ended.
fn transfer(b: &mut Bare, edu: &Edu, from: u32, to: u32, command: u32) {
    b.load(Reg::Ebx, edu.bar);
    b.set(Rm::At(Reg::Ebx, DMA_FROM), from);
    b.set(Rm::At(Reg::Ebx, DMA_TO), to);
    b.set(Rm::At(Reg::Ebx, DMA_COUNT), LENGTH);
    b.set(Rm::At(Reg::Ebx, DMA_COMMAND), command);
    b.wait(time::PATIENCE_MS, |c, done| {
        c.load(Reg::Ebx, edu.bar);
        c.test(Rm::At(Reg::Ebx, DMA_COMMAND), DMA_START);
        c.jump_if(If::Equal, done);
    });
    b.load(Reg::Ebx, edu.bar);
    b.test(Rm::At(Reg::Ebx, DMA_COMMAND), DMA_START);
}

/// What a handler does: takes the reason from the device, counts it, acknowledges it.
fn serve(b: &mut Bare, edu: &Edu) {
    b.load(Reg::Ebx, edu.bar);
    b.load(Reg::Eax, Rm::At(Reg::Ebx, INTERRUPT_STATUS));
    b.load(Reg::Ecx, edu.reasons);
    b.op(Op::Or, Reg::Ecx, Reg::Eax);
    b.store(edu.reasons, Reg::Ecx);
    b.store(Rm::At(Reg::Ebx, ACKNOWLEDGE), Reg::Eax);
    b.test(Reg::Eax, u32::MAX);
    b.when(If::NotEqual, |c| c.increment(edu.served));
}

/// Raises interrupts one by one, each when the one before was served, and checks that all came.
fn raise(b: &mut Bare, edu: &Edu, text: &str) {
    let round = b.cell();
    let (next, end) = (b.label(), b.label());
    b.set(edu.served, 0);
    b.set(edu.reasons, 0);
    b.raw(&[0xfb]); //                                      sti
    b.place(next);
    b.load(Reg::Ebx, edu.bar);
    b.load(Reg::Eax, round);
    b.op_number(Op::Or, Reg::Eax, 0x8000_0000);
    b.store(Rm::At(Reg::Ebx, RAISE), Reg::Eax);
    b.increment(round);
    b.wait(time::PATIENCE_MS, |c, done| {
        c.load(Reg::Eax, round);
        c.op(Op::Cmp, Reg::Eax, edu.served);
        c.jump_if(If::Equal, done);
    });
    b.load(Reg::Eax, round);
    b.op(Op::Cmp, Reg::Eax, edu.served);
    b.jump_if(If::NotEqual, end);
    b.op_number(Op::Cmp, round, TIMES);
    b.jump_if(If::Below, next);
    b.place(end);
    b.say_number(edu.served);
    b.say(" of 16 interrupts, reasons ");
    b.say_hex(edu.reasons);
    b.op_number(Op::Cmp, edu.served, TIMES);
    b.check(text, If::Equal);
    // The reasons were 8000'0000 to 8000'000f.
    b.op_number(Op::Cmp, edu.reasons, 0x8000_000f);
    b.check("the reasons are those given", If::Equal);
}

fn msi(b: &mut Bare, edu: &Edu) {
    let control = b.cell();
    let (missing, end) = (b.label(), b.label());
    let count = b.on_interrupt(MSI_VECTOR, |b| serve(b, edu));
    enable_msi(b, edu, control, missing);
    raise(b, edu, "; MSI");
    b.load(Reg::Eax, count);
    b.op(Op::Cmp, Reg::Eax, edu.served);
    b.check("none came without a reason", If::Equal);
    by_themselves(b, edu);
    b.change_config(control, 0, 1 << 16, 0);
    b.jump(end);
    b.place(missing);
    b.say("no MSI capability\n");
    b.place(end);
}

/// Enables MSI with one message; `control` is then where the capability is. Goes to `missing` if there is none.
fn enable_msi(b: &mut Bare, edu: &Edu, control: Rm, missing: Label) {
    let narrow = b.label();
    b.capability(edu.function, MSI_CAPABILITY);
    b.op_number(Op::Cmp, Reg::Esi, 0);
    b.jump_if(If::Equal, missing);
    // PCI 3.0 section 6.8.1: address, upper address where there are 64 bits, data; enable is bit 16.
    b.load(Reg::Ebx, edu.function);
    b.op(Op::Or, Reg::Ebx, Reg::Esi);
    b.store(control, Reg::Ebx);
    b.load(Reg::Ecx, apic::ID);
    b.right(Reg::Ecx, 24);
    b.left(Reg::Ecx, 12);
    b.op_number(Op::Or, Reg::Ecx, 0xfee0_0000);
    b.set_config(control, 4, Reg::Ecx);
    b.set(Reg::Ecx, MSI_VECTOR.into());
    b.config(control, 0);
    b.test(Reg::Eax, 1 << 23);
    b.jump_if(If::Equal, narrow);
    b.set_config(control, 0xc, Reg::Ecx);
    b.set(Reg::Ecx, 0);
    b.place(narrow);
    b.set_config(control, 8, Reg::Ecx);
    b.change_config(control, 0, 0x0070_0000, 1 << 16);
}

/// Interrupts that the device raises when something is done.
fn by_themselves(b: &mut Bare, edu: &Edu) {
    b.set(edu.reasons, 0);
    b.load(Reg::Ebx, edu.bar);
    b.set(Rm::At(Reg::Ebx, STATUS), INTERRUPT_WHEN_COMPUTED);
    b.set(Rm::At(Reg::Ebx, FACTORIAL), 12);
    b.wait_for(edu.reasons, COMPUTED);
    b.check("an interrupt when a factorial is computed", If::Equal);
    factorial_is(b, edu, 479_001_600, "12!");
    b.set(edu.reasons, 0);
    transfer(b, edu, SOURCE, DEVICE_MEMORY, DMA_START | DMA_INTERRUPT);
    b.wait_for(edu.reasons, DMA_DONE);
    b.check("an interrupt when a transfer is done", If::Equal);
}

/// The pin, through whatever line of the 8259s the firmware gave it.
fn intx(b: &mut Bare, edu: &Edu) {
    let line = b.cell();
    let (no_pin, end) = (b.label(), b.label());
    enable_line(b, edu, line, no_pin, serve);
    b.unmask(line);
    b.say("line ");
    b.say_number(line);
    b.say(": ");
    raise(b, edu, "; INTx");
    b.jump(end);
    b.place(no_pin);
    b.say("no interrupt pin\n");
    b.place(end);
}

/// Lets the pin through, whose handler does this and acknowledges at the 8259s; `line` is then its line there, still
/// masked. Goes to `no_pin` if there is none.
fn enable_line(b: &mut Bare, edu: &Edu, line: Rm, no_pin: Label, handle: fn(&mut Bare, &Edu)) {
    b.config(edu.function, INTERRUPT);
    b.store(line, Reg::Eax);
    b.test(Reg::Eax, 0xff00);
    b.jump_if(If::Equal, no_pin);
    b.op_number(Op::And, line, 0xf);
    for vector in 0x20..0x30 {
        b.on_interrupt(vector, |b| {
            handle(b, edu);
            b.set(Reg::Eax, 0x20); //                       OCW2: end of interrupt
            b.out8(0xa0);
            b.out8(0x20);
        });
    }
    b.external_interrupts_on();
    b.change_config(edu.function, COMMAND, 0xffff_0000 | INTX_OFF, 0);
}
