//! A bare program that moves a BAR of a Bochs adapter (1234:1111) while another processor reads it.
//!
//! The first processor moves the BAR to and fro, with memory decode on and with it off, and says after
//! each change what must be read at either address: the known value, or all ones. The second processor
//! reads both addresses all the time. While a change is under way it accepts either; between changes
//! it must read what was said, which a stale mapping in either processor's view would not give. No step
//! is left before the second processor has seen it.
//!
//! | round | BAR | what is read |
//! |---|---|---|
//! | frame | 0, the framebuffer, which may be mapped into the guest | a pattern beyond what is shown |
//! | registers | 2, which is trapped or mapped | the id of the display interface |

use super::bare::pci::{BAR0, COMMAND, MEMORY};
use super::bare::{self, Bare, time};
use super::flat::{Flat, If, Label, Op, Reg, Rm};

/// Its name in the verdict.
pub const NAME: &str = "movebar";

/// Device and vendor.
const ID: u32 = 0x1111_1234;
/// Where the BAR is moved to and fro: nothing of SeaBIOS' making lies so low in the PCI window.
const PLACES: [u32; 2] = [0xd000_0000, 0xd400_0000];
/// The register with the memory window of a bridge, and a window around both places.
const WINDOW: u8 = 0x20;
const WIDE: u32 = 0xd7f0_d000;
/// How often all four kinds of move are made.
const TURNS: u32 = 25;

/// What is read, and how.
struct Round {
    name: &'static str,
    /// Register of the BAR.
    bar: u8,
    offset: u32,
    known: u32,
    /// All ones, as wide as what is read.
    ones: u32,
}

const FRAME: Round =
    Round { name: "frame", bar: BAR0, offset: 0x40_0000, known: 0x5aa5_c33c, ones: u32::MAX };
const REGISTERS: Round =
    Round { name: "registers", bar: BAR0 + 8, offset: 0x500, known: 0xb0c5, ones: 0xffff };

/// What both processors use.
struct Cells {
    function: Rm,
    bridge: Rm,
    /// Counts the starts and ends of changes: odd while one is under way.
    generation: Rm,
    /// What must be read at each place between changes.
    expected: [Rm; 2],
    /// Code of the second processor's round, or 0.
    round: Rm,
    /// Passes of the second processor in which nothing changed.
    steady: Rm,
    known: Rm,
    ones: Rm,
    moving: Rm,
    wrong: Rm,
    wrong_value: Rm,
    stuck: Rm,
}

/// The disk.
pub fn disk() -> Vec<u8> {
    bare::disk(NAME, |b| {
        let cells = Cells {
            function: b.cell(),
            bridge: b.cell(),
            generation: b.cell(),
            expected: [b.cell(), b.cell()],
            round: b.cell(),
            steady: b.cell(),
            known: b.cell(),
            ones: b.cell(),
            moving: b.cell(),
            wrong: b.cell(),
            wrong_value: b.cell(),
            stuck: b.cell(),
        };
        let end = b.label();
        present(b, &cells, end);
        second_processor(b, &cells, end);
        for round in [FRAME, REGISTERS] {
            carry_out(b, &cells, &round);
        }
        b.place(end);
    })
}

fn present(b: &mut Bare, cells: &Cells, end: Label) {
    b.find(ID, cells.function);
    b.op_number(Op::Cmp, cells.function, 0);
    b.check("the adapter is there", If::NotEqual);
    b.op_number(Op::Cmp, cells.function, 0);
    b.jump_if(If::Equal, end);
    b.bridge_above(cells.function);
    b.store(cells.bridge, Reg::Eax);
    b.say("address ");
    b.say_hex(cells.function);
    b.say(", bridge ");
    b.say_hex(cells.bridge);
    b.say("\n");
}

/// Starts it; it carries out whatever code `round` names.
fn second_processor(b: &mut Bare, cells: &Cells, end: Label) {
    let (second, after) = (b.label(), b.label());
    let alive = b.cell();
    b.jump(after);
    b.place(second);
    b.set(alive, 1);
    let idle = b.here();
    b.raw(&[0xf3, 0x90]); //                                pause
    b.load(Reg::Eax, cells.round);
    b.test(Reg::Eax, u32::MAX);
    b.jump_if(If::Equal, idle);
    b.raw(&[0xff, 0xd0]); //                                call eax
    b.jump(idle);
    b.place(after);
    b.start_second(second);
    b.wait_for(alive, 1);
    b.check("a second processor runs", If::Equal);
    b.op_number(Op::Cmp, alive, 1);
    b.jump_if(If::NotEqual, end);
}

fn carry_out(b: &mut Bare, cells: &Cells, round: &Round) {
    let (old_bar, old_window) = (b.cell(), b.cell());
    let (no_bridge, no_bridge_now) = (b.label(), b.label());
    let code = reader(b, cells, round);
    b.config(cells.function, round.bar);
    b.store(old_bar, Reg::Eax);
    b.op_number(Op::Cmp, cells.bridge, 0);
    b.jump_if(If::Equal, no_bridge);
    b.config(cells.bridge, WINDOW);
    b.store(old_window, Reg::Eax);
    b.set(Reg::Ecx, WIDE);
    b.set_config(cells.bridge, WINDOW, Reg::Ecx);
    b.place(no_bridge);
    nothing_there(b, round);
    put(b, cells, round, 0);
    prepare(b, cells, round);
    moves(b, cells, round, code);
    b.op_number(Op::Cmp, cells.bridge, 0);
    b.jump_if(If::Equal, no_bridge_now);
    b.set_config(cells.bridge, WINDOW, old_window);
    b.place(no_bridge_now);
    b.set_config(cells.function, round.bar, old_bar);
    report(b, cells, round);
}

/// Moves the BAR.
fn put(b: &mut Bare, cells: &Cells, round: &Round, place: usize) {
    b.set(Reg::Ecx, PLACES[place]);
    b.set_config(cells.function, round.bar, Reg::Ecx);
}

/// EAX = what is read at the place.
fn read(c: &mut Flat, round: &Round, place: usize) {
    let at = Rm::Abs(PLACES[place] + round.offset);
    match round.ones {
        u32::MAX => c.load(Reg::Eax, at),
        _ => c.load_word(Reg::Eax, at),
    }
}

fn nothing_there(b: &mut Bare, round: &Round) {
    read(b, round, 0);
    b.load(Reg::Ecx, Reg::Eax);
    read(b, round, 1);
    b.op(Op::And, Reg::Eax, Reg::Ecx);
    b.op_number(Op::Cmp, Reg::Eax, round.ones);
    b.check(&format!("{}: nothing is in the way", round.name), If::Equal);
}

/// Writes the pattern where there is none, and tells how long a read takes.
fn prepare(b: &mut Bare, cells: &Cells, round: &Round) {
    let start = b.cell();
    if round.bar == BAR0 {
        b.set(Rm::Abs(PLACES[0] + round.offset), round.known);
    }
    // Enough reads for an adapter that maps a BAR only when it is used.
    for reads in [200, 1000] {
        b.ticks();
        b.store(start, Reg::Eax);
        b.set(Reg::Ecx, reads);
        b.again_if(If::NotEqual, |c| {
            read(c, round, 0);
            c.op_number(Op::Sub, Reg::Ecx, 1);
        });
    }
    b.ticks_since(start);
    b.load(Reg::Ecx, Reg::Eax);
    b.say(round.name);
    b.say(": 1000 reads take microseconds ");
    b.set(Reg::Edx, 0);
    b.load(Reg::Eax, Reg::Ecx);
    b.left(Reg::Eax, 10);
    b.set(Reg::Ebx, time::TICKS_PER_MS + time::TICKS_PER_MS / 42);
    b.divide(Reg::Ebx);
    b.say_number(Reg::Eax);
    b.say("\n");
    for counter in [
        cells.steady,
        cells.known,
        cells.ones,
        cells.moving,
        cells.wrong,
        cells.wrong_value,
        cells.stuck,
        cells.generation,
    ] {
        b.set(counter, 0);
    }
    expect(b, cells, round, Some(0));
}

/// Notes what must be read once the change is over: the value at `place`, all ones everywhere else.
fn expect(b: &mut Bare, cells: &Cells, round: &Round, place: Option<usize>) {
    for (other, expected) in cells.expected.into_iter().enumerate() {
        b.set(expected, if place == Some(other) { round.known } else { round.ones });
    }
}

/// Ends a change: what is read here and by the second processor must be what is expected now. Then a
/// new one starts.
fn settle(b: &mut Bare, cells: &Cells, round: &Round, place: Option<usize>) {
    let before = b.cell();
    expect(b, cells, round, place);
    for (other, expected) in cells.expected.into_iter().enumerate() {
        read(b, round, other);
        b.op(Op::Cmp, Reg::Eax, expected);
        b.when(If::NotEqual, |c| {
            c.increment(cells.wrong);
            c.store(cells.wrong_value, Reg::Eax);
        });
    }
    b.load(Reg::Eax, cells.steady);
    b.store(before, Reg::Eax);
    b.increment(cells.generation);
    b.wait(time::PATIENCE_MS, |c, done| {
        c.load(Reg::Eax, cells.steady);
        c.op(Op::Cmp, Reg::Eax, before);
        c.jump_if(If::NotEqual, done);
    });
    b.load(Reg::Eax, cells.steady);
    b.op(Op::Cmp, Reg::Eax, before);
    b.when(If::Equal, |c| c.increment(cells.stuck));
    b.increment(cells.generation);
}

fn moves(b: &mut Bare, cells: &Cells, round: &Round, code: Label) {
    let turns = b.cell();
    b.set(turns, 0);
    // A change is under way until the second processor is there.
    b.increment(cells.generation);
    b.set_address(Reg::Eax, code);
    b.store(cells.round, Reg::Eax);
    settle(b, cells, round, Some(0));
    let (again, end) = (b.here(), b.label());
    for (place, decode_off) in [(1, false), (0, false), (1, true), (0, true)] {
        if decode_off {
            b.change_config(cells.function, COMMAND, 0xffff_0000 | MEMORY, 0);
            settle(b, cells, round, None);
        }
        put(b, cells, round, place);
        if decode_off {
            b.change_config(cells.function, COMMAND, 0xffff_0000, MEMORY);
        }
        settle(b, cells, round, Some(place));
        // A second processor that is lost costs its patience once.
        b.op_number(Op::Cmp, cells.stuck, 0);
        b.jump_if(If::NotEqual, end);
    }
    b.increment(turns);
    b.op_number(Op::Cmp, turns, TURNS);
    b.jump_if(If::Below, again);
    b.place(end);
    b.set(cells.round, 0);
    b.change_config(cells.function, COMMAND, 0xffff_0000, MEMORY);
}

/// The second processor's part: returns when the round is over.
fn reader(b: &mut Bare, cells: &Cells, round: &Round) -> Label {
    let after = b.label();
    b.jump(after);
    let routine = b.here();
    // EBX = the generation at the start of a pass.
    b.load(Reg::Ebx, cells.generation);
    for (place, expected) in cells.expected.into_iter().enumerate() {
        let (moving, wrong, next) = (b.label(), b.label(), b.label());
        b.load(Reg::Edi, expected);
        read(b, round, place);
        b.test(Reg::Ebx, 1);
        b.jump_if(If::NotEqual, moving);
        b.op(Op::Cmp, Reg::Ebx, cells.generation);
        b.jump_if(If::NotEqual, moving);
        b.op(Op::Cmp, Reg::Eax, Reg::Edi);
        b.jump_if(If::NotEqual, wrong);
        b.op_number(Op::Cmp, Reg::Eax, round.ones);
        b.choose(If::Equal, |c| c.increment(cells.ones), |c| c.increment(cells.known));
        b.jump(next);
        b.place(moving);
        b.increment(cells.moving);
        b.op_number(Op::Cmp, Reg::Eax, round.known);
        b.jump_if(If::Equal, next);
        b.op_number(Op::Cmp, Reg::Eax, round.ones);
        b.jump_if(If::Equal, next);
        b.place(wrong);
        b.increment(cells.wrong);
        b.store(cells.wrong_value, Reg::Eax);
        b.place(next);
    }
    // The pass counts if nothing changed in it.
    let unsteady = b.label();
    b.test(Reg::Ebx, 1);
    b.jump_if(If::NotEqual, unsteady);
    b.op(Op::Cmp, Reg::Ebx, cells.generation);
    b.when(If::Equal, |c| c.increment(cells.steady));
    b.place(unsteady);
    b.op_number(Op::Cmp, cells.round, 0);
    b.jump_if(If::NotEqual, routine);
    b.ret();
    b.place(after);
    routine
}

fn report(b: &mut Bare, cells: &Cells, round: &Round) {
    b.say(&format!("{}: {} moves, reads of the second processor: ", round.name, TURNS * 4));
    for (count, text) in
        [(cells.known, " right, "), (cells.ones, " all ones, "), (cells.moving, " in between\n")]
    {
        b.say_number(count);
        b.say(text);
    }
    for (count, text) in [(cells.known, "the value was seen"), (cells.ones, "all ones were seen")] {
        b.op_number(Op::Cmp, count, TURNS);
        b.check(&format!("{}: {text}", round.name), If::NotBelow);
    }
    b.op_number(Op::Cmp, cells.stuck, 0);
    b.check(&format!("{}: the second processor saw every change", round.name), If::Equal);
    b.say(&format!("{}: wrong reads ", round.name));
    b.say_number(cells.wrong);
    b.say(", the last ");
    b.say_hex(cells.wrong_value);
    b.op_number(Op::Cmp, cells.wrong, 0);
    b.check("; none is wrong", If::Equal);
}
