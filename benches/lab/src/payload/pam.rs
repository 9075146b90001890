//! A bare program that walks every state of every segment below 1 MiB that the chipset's PAM registers rule,
//! and the states of SMRAM over the legacy VGA window.
//!
//! A segment's registers say separately where reads and where writes go, to ROM or to RAM. At the start and at the
//! end of each the program reads and writes in every state, and looks in the other states at what became of it;
//! and it copies the last page onto itself while reads go to ROM and writes to RAM, as firmware may.
//!
//! The window must be the adapter's unless SMRAM is open, whether or not there is a system management mode.
//! An adapter is known by its graphics controller, which turns each byte that is written by four bits; RAM
//! keeps what it was given.

use super::bare::{self, Bare};
use super::flat::{If, Label, Op, Reg, Rm};

/// Its name in the verdict.
pub const NAME: &str = "pam";
/// What it says if the adapter answers in the window, behind a colon.
pub const WINDOW: &str = "the window is the adapter's";
/// What it says of the state in which a segment reads ROM and writes RAM, behind the segment.
pub const WRITE_RAM: &str = "ROM to reads, RAM to writes";

/// The states by their number, which is the value of the field.
const STATES: [&str; 4] = ["ROM alone", "RAM to reads, ROM to writes", WRITE_RAM, "RAM alone"];

/// The host bridge at 00:00.0.
const HOST_BRIDGE: u32 = 1 << 31;
const PAM0: u32 = 0x90;
/// The dword with SMRAM in bits 15:8 and ESMRAMC in bits 23:16.
const SMRAM: u8 = 0x9c;
const PAGE: u32 = 0x1000;
/// Where the firmware's image begins below 1 MiB; below it there is no ROM, and zeros are read.
const FIRMWARE: u32 = 0xe_0000;
/// Configuration by ports.
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

/// Patterns that are found in no ROM at the same place.
const FIRST: u32 = 0x5aa5_c33c;
const SECOND: u32 = 0x1bad_b002;
const THIRD: u32 = 0x7e57_a12e;

/// Bits of SMRAM, with the segment's, which are read only.
const CLOSED: u32 = 0x0a;
const OPEN: u32 = 0x4a;
const NONE_OPEN: u32 = 0x42;
const HIDDEN: u32 = 0x2a;
const LOCK: u32 = 0x10;
/// ESMRAMC as after reset, and with SMRAM above.
const LOW: u32 = 0x38;
const HIGH: u32 = 0xb8;

/// A byte of the window that text mode decodes and nothing shows.
const PLACE: u32 = 0xb_9000;
/// The ends of the window, which only RAM answers then.
const ENDS: [u32; 2] = [0xa_0000, 0xb_fffc];
/// Where SMRAM is above, less its place below.
const ABOVE: u32 = 0xfeda_0000 - 0xa_0000;

/// What the walk needs, of the segment it is in.
struct Cells {
    function: Rm,
    /// Offset of the register's dword from [`PAM0`], and of the field in it.
    register: Rm,
    shift: Rm,
    /// What the ROM has at the place that is looked at.
    rom: Rm,
    /// A bit for each state, or step, in which something was wrong.
    bad: Rm,
    sum: Rm,
}

/// The disk.
pub fn disk() -> Vec<u8> {
    bare::disk(NAME, |b| {
        let cells = Cells {
            function: b.cell(),
            register: b.cell(),
            shift: b.cell(),
            rom: b.cell(),
            bad: b.cell(),
            sum: b.cell(),
        };
        b.set(cells.function, HOST_BRIDGE);
        let after = b.label();
        b.jump(after);
        let state = set_state(b, &cells);
        let walk = walk(b, &cells, state);
        let copy = copy(b, &cells, state);
        b.place(after);
        for segment in segments() {
            carry_out(b, &cells, &segment, [walk, copy]);
        }
        smram(b, &cells);
    })
}

/// A segment: its first and last address, and where its field is from [`PAM0`] on.
struct Segment {
    first: u32,
    last: u32,
    register: u32,
    shift: u32,
}

fn segments() -> impl Iterator<Item = Segment> {
    let small = (0..12_u32).map(|number| Segment {
        first: 0xc_0000 + number * 0x4000,
        last: 0xc_3fff + number * 0x4000,
        register: 1 + number / 2,
        shift: number % 2 * 4,
    });
    small.chain([Segment { first: 0xf_0000, last: 0xf_ffff, register: 0, shift: 4 }])
}

fn carry_out(b: &mut Bare, cells: &Cells, segment: &Segment, [walk, copy]: [Label; 2]) {
    b.set(cells.register, PAM0 + (segment.register & 4));
    b.set(cells.shift, segment.register % 4 * 8 + segment.shift);
    b.set(cells.bad, 0);
    for place in [segment.first, segment.last - 3] {
        b.set(Reg::Edi, place);
        b.call(walk);
    }
    b.set(Reg::Edi, segment.last + 1 - PAGE);
    b.call(copy);
    for (state, text) in STATES.iter().enumerate() {
        b.test(cells.bad, 1 << state);
        b.check(&format!("{:05x}-{:05x}: {text}", segment.first, segment.last), If::Equal);
    }
}

/// A routine that puts the segment into the state in EAX; all registers but ESI and EDI are lost.
fn set_state(b: &mut Bare, cells: &Cells) -> Label {
    let routine = b.here();
    b.push(Reg::Eax);
    b.load(Reg::Eax, cells.function);
    b.op(Op::Add, Reg::Eax, cells.register);
    b.out32(ADDRESS);
    b.in32(DATA);
    b.load(Reg::Ecx, cells.shift);
    b.set(Reg::Ebx, 3);
    b.raw(&[0xd3, 0xe3, 0xf7, 0xd3]); //                    shl ebx, cl; not ebx
    b.op(Op::And, Reg::Eax, Reg::Ebx);
    b.pop(Reg::Ebx);
    b.raw(&[0xd3, 0xe3]); //                                shl ebx, cl
    b.op(Op::Or, Reg::Eax, Reg::Ebx);
    b.out32(DATA);
    b.ret();
    routine
}

/// Goes over to a state.
fn enter(b: &mut Bare, set_state: Label, state: u32) {
    b.set(Reg::Eax, state);
    b.call(set_state);
}

/// A routine that goes through the states at the address in EDI.
fn walk(b: &mut Bare, cells: &Cells, set_state: Label) -> Label {
    let routine = b.here();
    let place = Rm::At(Reg::Edi, 0);
    rom_at(b, cells);
    let is = |b: &mut Bare, value: u32, state: u32| {
        b.op_number(Op::Cmp, place, value);
        b.when(If::NotEqual, |c| c.op_number(Op::Or, cells.bad, 1 << state));
    };
    let is_rom = |b: &mut Bare, state: u32| {
        b.load(Reg::Eax, place);
        b.op(Op::Cmp, Reg::Eax, cells.rom);
        b.when(If::NotEqual, |c| c.op_number(Op::Or, cells.bad, 1 << state));
    };
    enter(b, set_state, 3);
    b.set(place, FIRST);
    is(b, FIRST, 3);
    for state in [0, 1] {
        for write in [None, Some(SECOND)] {
            enter(b, set_state, state);
            if let Some(value) = write {
                b.set(place, value);
            }
            if state == 0 {
                is_rom(b, state)
            } else {
                is(b, FIRST, state)
            }
            // What was written has reached nothing.
            enter(b, set_state, 3);
            is(b, FIRST, state);
        }
    }
    enter(b, set_state, 2);
    is_rom(b, 2);
    b.set(place, THIRD);
    b.raw(&[0xc6, 0x47, 0x01, 0x77]); //                    mov byte [edi + 1], 0x77
    is_rom(b, 2);
    for state in [1, 3] {
        enter(b, set_state, state);
        is(b, THIRD & 0xffff_00ff | 0x7700, 2);
    }
    b.ret();
    routine
}

/// `rom` = what the firmware's image has for EDI, where it is always found below 4 GiB, or nothing.
fn rom_at(b: &mut Bare, cells: &Cells) {
    b.set(cells.rom, 0);
    b.op_number(Op::Cmp, Reg::Edi, FIRMWARE);
    b.when(If::NotBelow, |c| {
        c.load(Reg::Eax, Rm::At(Reg::Edi, -0x10_0000));
        c.store(cells.rom, Reg::Eax);
    });
}

/// A routine that copies the page at EDI onto itself, and holds what is in RAM then against the ROM.
fn copy(b: &mut Bare, cells: &Cells, set_state: Label) -> Label {
    let routine = b.here();
    let page = b.cell();
    let dwords = |b: &mut Bare| {
        b.load(Reg::Edi, page);
        b.set(Reg::Ecx, PAGE / 4);
    };
    b.store(page, Reg::Edi);
    enter(b, set_state, 3);
    dwords(b);
    b.set(Reg::Eax, FIRST);
    b.raw(&[0xf3, 0xab]); //                                rep stosd
    enter(b, set_state, 2);
    dwords(b);
    b.load(Reg::Esi, page);
    b.raw(&[0xf3, 0xa5]); //                                rep movsd
    enter(b, set_state, 1);
    dwords(b);
    b.set(cells.sum, 0);
    let next = b.here();
    rom_at(b, cells);
    b.load(Reg::Eax, Rm::At(Reg::Edi, 0));
    b.op(Op::Cmp, Reg::Eax, cells.rom);
    b.when(If::NotEqual, |c| c.increment(cells.sum));
    b.op_number(Op::Add, Reg::Edi, 4);
    b.op_number(Op::Sub, Reg::Ecx, 1);
    b.jump_if(If::NotEqual, next);
    b.op_number(Op::Cmp, cells.sum, 0);
    b.when(If::NotEqual, |c| c.op_number(Op::Or, cells.bad, 1 << 2));
    b.ret();
    routine
}

/// What is looked at in the window, in order. Nothing is said in between: what is written while SMRAM is open does
/// not show.
const STEPS: [&str; 9] = [
    WINDOW,
    "open: RAM is there",
    "closed: the adapter's again, and it has what it had",
    "open: RAM has what it had",
    "open, but switched off: the adapter's",
    "closed to data: the adapter's",
    "open and high: the adapter's",
    "open and high: RAM is above, and closed no more",
    "locked: closed for good",
];

fn smram(b: &mut Bare, cells: &Cells) {
    b.set(cells.bad, 0);
    adapter(b, cells, 0, 0x12);
    registers(b, cells, OPEN, LOW);
    turned(b, 0x34);
    is_byte(b, cells, 1, 0, 0x34);
    for (place, value) in ENDS.into_iter().zip([SECOND, THIRD]) {
        b.set(Rm::Abs(place), value);
    }
    is_ram(b, cells, 1, 0);
    registers(b, cells, CLOSED, LOW);
    is_byte(b, cells, 2, 0, 0x21);
    registers(b, cells, OPEN, LOW);
    is_byte(b, cells, 3, 0, 0x34);
    is_ram(b, cells, 3, 0);
    registers(b, cells, NONE_OPEN, LOW);
    adapter(b, cells, 4, 0x56);
    registers(b, cells, HIDDEN, LOW);
    adapter(b, cells, 5, 0x12);
    registers(b, cells, OPEN, HIGH);
    adapter(b, cells, 6, 0x78);
    is_byte(b, cells, 7, ABOVE, 0x34);
    is_ram(b, cells, 7, ABOVE);
    registers(b, cells, CLOSED, HIGH);
    is_byte(b, cells, 7, ABOVE, 0xff);
    registers(b, cells, OPEN, LOW);
    for (smram, esmramc, kept) in [(OPEN | LOCK, LOW, CLOSED), (OPEN, HIGH, CLOSED), (HIDDEN, LOW, HIDDEN)] {
        registers(b, cells, smram, esmramc);
        b.config(cells.function, SMRAM);
        b.op_number(Op::And, Reg::Eax, 0xff_ff00);
        b.op_number(Op::Cmp, Reg::Eax, LOW << 16 | (kept | LOCK) << 8);
        wrong_unless_equal(b, cells, 8);
        adapter(b, cells, 8, 0x12);
    }
    for (step, text) in STEPS.iter().enumerate() {
        b.test(cells.bad, 1 << step);
        b.check(text, If::Equal);
    }
}

/// Writes SMRAM and ESMRAMC.
fn registers(b: &mut Bare, cells: &Cells, smram: u32, esmramc: u32) {
    b.change_config(cells.function, SMRAM, 0xff_ff00, esmramc << 16 | smram << 8);
}

fn wrong_unless_equal(b: &mut Bare, cells: &Cells, step: u32) {
    b.when(If::NotEqual, |c| c.op_number(Op::Or, cells.bad, 1 << step));
}

/// Writes a byte to the window, which an adapter turns.
fn turned(b: &mut Bare, value: u8) {
    let rotate = |b: &mut Bare, count: u32| {
        b.set(Reg::Edx, 0x3ce);
        b.set(Reg::Eax, count << 8 | 3); //                 data rotate
        b.raw(&[0x66, 0xef]); //                            out dx, ax
    };
    rotate(b, 4);
    b.set(Reg::Ebx, PLACE);
    b.raw(&[0xc6, 0x03, value]); //                         mov byte [ebx], value
    rotate(b, 0);
}

/// An adapter answers in the window.
fn adapter(b: &mut Bare, cells: &Cells, step: u32, value: u8) {
    turned(b, value);
    is_byte(b, cells, step, 0, value.rotate_right(4));
}

/// The byte of the window, or of what lies so far above it, has this value.
fn is_byte(b: &mut Bare, cells: &Cells, step: u32, above: u32, value: u8) {
    b.load_byte(Reg::Eax, Rm::Abs(PLACE + above));
    b.op_number(Op::Cmp, Reg::Eax, value.into());
    wrong_unless_equal(b, cells, step);
}

/// RAM has what was written to the ends of the window.
fn is_ram(b: &mut Bare, cells: &Cells, step: u32, above: u32) {
    for (place, value) in ENDS.into_iter().zip([SECOND, THIRD]) {
        b.op_number(Op::Cmp, Rm::Abs(place + above), value);
        wrong_unless_equal(b, cells, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_segments_are_walked_and_the_disk_boots() {
        let mut next = 0xc_0000;
        for segment in segments() {
            assert_eq!(segment.first, next);
            next = segment.last + 1;
        }
        assert_eq!((next, segments().count()), (0x10_0000, 13));
        let disk = disk();
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
    }
}
