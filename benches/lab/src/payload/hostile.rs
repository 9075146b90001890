//! A bare program that does whatever comes to mind to the machine, on up to four processors at once.
//!
//! Each processor has a generator of random numbers (xorshift, 32 bits) of its own, made of the seed that the disk
//! was made with: ports, memory that is no RAM, configuration space by ports and by memory, in all widths, string
//! instructions, bursts on the legacy window. So PAM, SMRAM, PCIEXBAR, BARs, bridges and the power
//! management's base get anything too, and what the program then finds is its own affair: a processor that
//! loses its code takes an exception or resets the machine.
//!
//! The first processor also writes a byte to the debug port again and again: who watches the machine sees that the
//! others are served beside all this. That port nobody else writes to.

use super::bare::{self, Bare, apic};
use super::flat::{If, Label, Op, Reg, Rm};

/// Its name in the verdict, which it reaches only by an exception.
pub const NAME: &str = "hostile";

/// What it says first, before its seed.
pub const BEGUN: &str = "hostile: seed ";

/// What the first processor writes to the debug port.
pub const BEAT: u8 = b'~';

/// What a program leaves alone, so that a run is not over at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// Ports that reset the machine or switch it off, as far as they lie where the firmware put them.
    Resets,
    /// Nothing but the debug port.
    Nothing,
}

/// A run of addresses: the first, and the bits that vary.
type Run = (u32, u32);

/// Ports, each as often as it stands here; the first is any.
const PORTS: [Run; 16] = [
    (0, 0xffff),
    (0x3b0, 0x3f),
    (0x3c0, 0x1f),
    (0x3c0, 0x1f),
    (0x3d0, 0xf),
    (0x1ce, 1),
    (0x510, 0xf),
    (0x510, 0xf),
    (0xcf8, 7),
    (0x3f8, 7),
    (0x70, 1),
    (0x60, 7),
    (0x20, 0x1f),
    (0x40, 3),
    (0xc000, 0xfff),
    (0x600, 0x7f),
];

/// Memory that is no RAM, where the firmware put it.
const MEMORY: [Run; 16] = [
    (0xa_0000, 0x1_ffff),
    (0xa_0000, 0x1_ffff),
    (0xb_8000, 0x7fff),
    (0xc_0000, 0x3_ffff),
    (0xb000_0000, 0x0fff_ffff),
    (0xb000_0000, 0x000f_ffff),
    (0xb000_8000, 0xfff),
    (0xb000_0000, 0xfff),
    (0xc000_0000, 0x3fff_ffff),
    (0xfc00_0000, 0x03ff_ffff),
    (0xfd00_0000, 0x00ff_ffff),
    (0xfe00_0000, 0x007f_ffff),
    (0xfeb0_0000, 0x000f_ffff),
    (0xfebf_0000, 0xffff),
    (0xfec0_0000, 0xfff),
    (0xfff0_0000, 0x000f_ffff),
];

/// The ports that are spared: the first one and the first behind.
const DEBUG: (u32, u32) = (0x3ff, 0x403);
const RESETS: [(u32, u32); 4] = [(0x60, 0x65), (0x8f, 0x93), (0x5fd, 0x680), (0xcf6, 0xcfa)];

/// Where the processors' numbers, and the strings of their instructions, lie: 64 bytes for each.
const STATES: u32 = 0x2_4000;
const STRINGS: u32 = 0x2_5000;
/// The top of each processor's stack is so far above the one before, as a power of 2.
const STACK_SHIFT: u8 = 12;
/// Behind what `bare` uses.
const STACKS: u32 = 0x3_9000;
/// So many acts stand between two signs of life.
const ACTS_PER_BEAT: u32 = 50;
/// How many processors are started, if there are as many.
const PROCESSORS: u32 = 4;

/// The disk of a run that is made of `seed`.
pub fn disk(seed: u32, spared: Spared) -> Vec<u8> {
    bare::disk(NAME, |b| {
        let go = b.cell();
        let (hammer, main) = (b.label(), b.label());
        b.jump(main);
        b.place(hammer);
        processor(b, go, seed, spared);
        b.place(main);
        b.say(&format!("{BEGUN}{seed:#x}\n"));
        for number in 1..PROCESSORS {
            b.start_processor(number, hammer);
        }
        // Until then the timer by which starts are waited for is where it belongs.
        b.set(go, 1);
        b.jump(hammer);
    })
}

/// What each processor does, for ever.
fn processor(b: &mut Bare, go: Rm, seed: u32, spared: Spared) {
    let (random, pick) = (b.label(), b.label());
    b.load(Reg::Eax, apic::ID);
    b.right(Reg::Eax, 24);
    b.op_number(Op::And, Reg::Eax, 7);
    // EBP: the processor's own cells: its random number, and acts until a sign of life.
    b.load(Reg::Ebp, Reg::Eax);
    b.left(Reg::Ebp, 6);
    b.op_number(Op::Add, Reg::Ebp, STATES);
    b.load(Reg::Esp, Reg::Eax);
    b.left(Reg::Esp, STACK_SHIFT);
    b.op_number(Op::Add, Reg::Esp, STACKS);
    b.increment(Reg::Eax);
    b.raw(&[0x69, 0xc0]); //                                imul eax, eax, the golden ratio
    b.raw(&0x9e37_79b9_u32.to_le_bytes());
    b.op_number(Op::Xor, Reg::Eax, seed);
    b.op_number(Op::Or, Reg::Eax, 1);
    b.store(Rm::At(Reg::Ebp, 0), Reg::Eax);
    b.set(Rm::At(Reg::Ebp, 4), ACTS_PER_BEAT);
    let wait = b.here();
    b.op_number(Op::Cmp, go, 0);
    b.jump_if(If::Equal, wait);

    let again = b.here();
    beat(b);
    b.call(random);
    b.load(Reg::Esi, Reg::Eax);
    b.op_number(Op::And, Reg::Esi, 7);
    let acts = [read_port, write_port, read_memory, write_memory, configure, string, burst];
    for (number, act) in (0..).zip(acts) {
        b.op_number(Op::Cmp, Reg::Esi, number);
        let next = b.label();
        b.jump_if(If::NotEqual, next);
        act(b, &Ways { random, pick, again, spared });
        b.jump(again);
        b.place(next);
    }
    b.jump(again);

    b.place(random);
    generator(b);
    b.place(pick);
    picker(b, random);
}

/// What the acts have in common.
struct Ways {
    /// EAX = a random number; ECX is lost.
    random: Label,
    /// EDI = an address of the table of 16 runs at EDI; EAX and ECX are lost.
    pick: Label,
    /// The next act.
    again: Label,
    spared: Spared,
}

/// A byte to the debug port now and then, by the first processor.
fn beat(b: &mut Bare) {
    let none = b.label();
    b.op_number(Op::Cmp, Reg::Ebp, STATES);
    b.jump_if(If::NotEqual, none);
    b.op_number(Op::Sub, Rm::At(Reg::Ebp, 4), 1);
    b.jump_if(If::NotEqual, none);
    b.set(Rm::At(Reg::Ebp, 4), ACTS_PER_BEAT);
    b.set(Reg::Eax, BEAT.into());
    b.out8(0x402);
    b.place(none);
}

fn generator(b: &mut Bare) {
    b.load(Reg::Eax, Rm::At(Reg::Ebp, 0));
    for (up, bits) in [(true, 13), (false, 17), (true, 5)] {
        b.load(Reg::Ecx, Reg::Eax);
        if up {
            b.left(Reg::Ecx, bits)
        } else {
            b.right(Reg::Ecx, bits)
        }
        b.op(Op::Xor, Reg::Eax, Reg::Ecx);
    }
    b.store(Rm::At(Reg::Ebp, 0), Reg::Eax);
    b.ret();
}

fn picker(b: &mut Bare, random: Label) {
    b.call(random);
    b.right(Reg::Eax, 12);
    b.op_number(Op::And, Reg::Eax, 15);
    b.left(Reg::Eax, 3);
    b.op(Op::Add, Reg::Edi, Reg::Eax);
    b.call(random);
    b.op(Op::And, Reg::Eax, Rm::At(Reg::Edi, 4));
    b.load(Reg::Edi, Rm::At(Reg::Edi, 0));
    b.op(Op::Add, Reg::Edi, Reg::Eax);
    b.ret();
}

/// The table's address, and the pick.
fn address(b: &mut Bare, ways: &Ways, runs: &[Run; 16]) {
    let (table, behind) = (b.label(), b.label());
    b.jump(behind);
    b.place(table);
    for (first, mask) in runs {
        b.raw(&first.to_le_bytes());
        b.raw(&mask.to_le_bytes());
    }
    b.place(behind);
    b.set_address(Reg::Edi, table);
    b.call(ways.pick);
}

/// EDX = a port that is not spared.
fn port(b: &mut Bare, ways: &Ways) {
    address(b, ways, &PORTS);
    let resets = if ways.spared == Spared::Resets { &RESETS[..] } else { &[] };
    for (first, behind) in std::iter::once(&DEBUG).chain(resets) {
        let outside = b.label();
        b.op_number(Op::Cmp, Reg::Edi, *first);
        b.jump_if(If::Below, outside);
        b.op_number(Op::Cmp, Reg::Edi, *behind);
        b.jump_if(If::Below, ways.again);
        b.place(outside);
    }
    b.call(ways.random);
    b.load(Reg::Edx, Reg::Edi);
}

/// One of three instructions, by two bits of EAX that are looked at in ECX.
fn width(b: &mut Bare, forms: [&[u8]; 3]) {
    let end = b.label();
    b.load(Reg::Ecx, Reg::Eax);
    b.right(Reg::Ecx, 9);
    b.op_number(Op::And, Reg::Ecx, 3);
    for (number, form) in (0..).zip(forms) {
        let other = b.label();
        if number < 2 {
            b.op_number(Op::Cmp, Reg::Ecx, number);
            b.jump_if(If::NotEqual, other);
        }
        b.raw(form);
        b.jump(end);
        b.place(other);
    }
    b.place(end);
}

fn read_port(b: &mut Bare, ways: &Ways) {
    port(b, ways);
    width(b, [&[0xec], &[0x66, 0xed], &[0xed]]); //         in al, ax, eax
}

fn write_port(b: &mut Bare, ways: &Ways) {
    port(b, ways);
    width(b, [&[0xee], &[0x66, 0xef], &[0xef]]); //         out al, ax, eax
}

fn read_memory(b: &mut Bare, ways: &Ways) {
    address(b, ways, &MEMORY);
    b.call(ways.random);
    width(b, [&[0x8a, 0x17], &[0x66, 0x8b, 0x17], &[0x8b, 0x17]]); // mov dl, dx, edx, [edi]
}

fn write_memory(b: &mut Bare, ways: &Ways) {
    address(b, ways, &MEMORY);
    b.call(ways.random);
    width(b, [&[0x88, 0x07], &[0x66, 0x89, 0x07], &[0x89, 0x07]]); // mov [edi], al, ax, eax
}

/// A register of any function of buses 0 to 3, read, and written in half of the cases.
fn configure(b: &mut Bare, ways: &Ways) {
    b.call(ways.random);
    b.op_number(Op::And, Reg::Eax, 0x0003_fffc);
    b.op_number(Op::Or, Reg::Eax, 1 << 31);
    b.out32(0xcf8);
    b.in32(0xcfc);
    b.call(ways.random);
    b.test(Reg::Eax, 1 << 20);
    b.jump_if(If::NotEqual, ways.again);
    b.set(Reg::Edx, 0xcfc);
    width(b, [&[0xee], &[0x66, 0xef], &[0xef]]);
}

/// rep ins or rep outs, of up to 15 elements.
fn string(b: &mut Bare, ways: &Ways) {
    port(b, ways);
    b.load(Reg::Esi, Reg::Ebp);
    b.op_number(Op::Add, Reg::Esi, STRINGS - STATES);
    b.load(Reg::Edi, Reg::Esi);
    b.load(Reg::Ebx, Reg::Eax);
    b.op_number(Op::And, Reg::Ebx, 15);
    let out = b.label();
    b.test(Reg::Eax, 1 << 21);
    b.jump_if(If::Equal, out);
    // mov ecx, ebx before each, since ECX chose the width
    width(b, [&[0x8b, 0xcb, 0xf3, 0x6c], &[0x8b, 0xcb, 0xf3, 0x66, 0x6d], &[0x8b, 0xcb, 0xf3, 0x6d]]);
    b.jump(ways.again);
    b.place(out);
    width(b, [&[0x8b, 0xcb, 0xf3, 0x6e], &[0x8b, 0xcb, 0xf3, 0x66, 0x6f], &[0x8b, 0xcb, 0xf3, 0x6f]]);
}

/// A run of words on the legacy window, as a scrolling program makes it.
fn burst(b: &mut Bare, ways: &Ways) {
    b.call(ways.random);
    b.load(Reg::Edi, Reg::Eax);
    b.op_number(Op::And, Reg::Edi, 0x1_fffe);
    b.op_number(Op::Add, Reg::Edi, 0xa_0000);
    b.set(Reg::Ebx, 40);
    b.again_if(If::NotEqual, |c| {
        c.raw(&[0x66, 0x89, 0x07]); //                      mov [edi], ax
        c.op_number(Op::Add, Reg::Edi, 2);
        c.op_number(Op::Sub, Reg::Ebx, 1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_in_the_program_and_on_its_screen() {
        let disk = disk(0x1234_5678, Spared::Resets);
        for wanted in [&b"hostile: seed 0x12345678"[..], &0x1234_5678_u32.to_le_bytes()] {
            assert!(disk.windows(wanted.len()).any(|bytes| bytes == wanted));
        }
        assert_ne!(disk, super::disk(1, Spared::Resets));
        assert_ne!(disk, super::disk(0x1234_5678, Spared::Nothing));
    }

    #[test]
    fn the_strings_of_a_processor_are_its_own() {
        const {
            assert!(STRINGS - STATES >= PROCESSORS * 64 && STACKS + (PROCESSORS << STACK_SHIFT) < 0x9_0000);
        }
    }
}
