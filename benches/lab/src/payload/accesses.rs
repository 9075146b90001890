//! A bare program that measures what accesses cost the guest.
//!
//! Time is the processor's counter of cycles, held against ACPI's timer first. Each kind of access is
//! carried out for a while before it is measured: a monitor may need a moment to see what the guest does. The
//! adapter is in text mode, as the boot sector left it. For each kind there is a line on the debug console,
//! which [`costs`] reads.

use super::bare::{self, Bare};
use super::flat::{If, Op, Reg, Rm};

/// Its name in the verdict.
pub const NAME: &str = "accesses";

/// One kind of access, and how much of it is in one round of its loop.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// How many are in one round.
    many: u32,
    write: fn(&mut Bare),
}

/// How many single accesses there are in one round.
const SINGLE: u32 = 64;

/// All of them. EBX counts rounds and must be kept; all other registers are free.
pub const KINDS: [Kind; 9] = [
    Kind { name: EXIT, many: SINGLE, write: exit },
    Kind { name: "port read (3cc)", many: SINGLE, write: port_read },
    Kind { name: "port write (3d4)", many: SINGLE, write: |b| port_write(b, 0x3d4, 0x0e) },
    Kind { name: "port write (3c4)", many: SINGLE, write: |b| port_write(b, 0x3c4, 2) },
    Kind { name: "window write, 2 bytes", many: SINGLE, write: window_write },
    Kind { name: "window read, 2 bytes", many: SINGLE, write: window_read },
    Kind { name: FONT, many: SINGLE, write: planar_write },
    Kind { name: LINE, many: 1, write: line },
    Kind { name: SCROLL, many: 1, write: scroll },
];

/// An exit with next to no work.
pub const EXIT: &str = "exit (port 80)";
/// A write to the window while it leads to one plane, as fonts are written.
pub const FONT: &str = "window write, 1 byte, to the font";
/// 80 characters and the cursor's place: 80 writes of 2 bytes and 4 port writes.
pub const LINE: &str = "line of text";
/// All lines but the first move up: 960 reads and 960 writes of 4 bytes.
pub const SCROLL: &str = "screen scrolled by copying";

/// How many of ACPI's ticks the counter is held against: 50 ms.
const SPAN_TICKS: u32 = 178_977;
const SPAN_NS: f64 = 5e7;
/// How many such spans a kind is carried out before it is measured, and how many it is measured.
const BEFORE: u32 = 3;
const MEASURED: u32 = 10;

const TEXT: u32 = 0xb8000;
const LINE_BYTES: u32 = 160;

/// The disk.
pub fn disk() -> Vec<u8> {
    bare::disk(NAME, |b| {
        let span = b.cell();
        calibrate(b, span);
        for kind in &KINDS {
            measure(b, kind, span);
        }
    })
}

/// What the program has said: the nanoseconds of each kind, in the order of [`KINDS`].
pub fn costs(said: &str) -> Option<Vec<f64>> {
    let line = |name: &str| {
        let words = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        let (first, second) = words.split_once(' ')?;
        Some((first.parse::<f64>().ok()?, second.trim().parse::<f64>().ok()?))
    };
    let (span, _) = line("span")?;
    let cost = |kind: &Kind| {
        let (rounds, cycles) = line(kind.name)?;
        Some(cycles / span * SPAN_NS / (rounds * f64::from(kind.many)))
    };
    KINDS.iter().map(cost).collect()
}

/// EAX = the counter of cycles without its lowest 8 bits, which then counts for minutes; EDX is lost.
fn cycles(b: &mut Bare) {
    b.raw(&[0x0f, 0x31]); //                                rdtsc
    b.raw(&[0x0f, 0xac, 0xd0, 8]); //                       shrd eax, edx, 8
}

/// `span` = how many cycles go by in 50 ms.
fn calibrate(b: &mut Bare, span: Rm) {
    let (ticks, start) = (b.cell(), b.cell());
    b.ticks();
    b.store(ticks, Reg::Eax);
    cycles(b);
    b.store(start, Reg::Eax);
    let again = b.here();
    b.ticks_since(ticks);
    b.op_number(Op::Cmp, Reg::Eax, SPAN_TICKS);
    b.jump_if(If::Below, again);
    cycles(b);
    b.op(Op::Sub, Reg::Eax, start);
    b.store(span, Reg::Eax);
    b.say("span: ");
    b.say_number(span);
    b.say(" 0\n");
}

/// Carries out a kind for a while, and once more, and says the rounds and the cycles of the second time.
fn measure(b: &mut Bare, kind: &Kind, span: Rm) {
    let (start, taken, end) = (b.cell(), b.cell(), b.cell());
    for spans in [BEFORE, MEASURED] {
        b.set(end, 0);
        for _ in 0..spans {
            b.load(Reg::Eax, end);
            b.op(Op::Add, Reg::Eax, span);
            b.store(end, Reg::Eax);
        }
        b.set(Reg::Ebx, 0);
        cycles(b);
        b.store(start, Reg::Eax);
        let again = b.here();
        (kind.write)(b);
        b.increment(Reg::Ebx);
        cycles(b);
        b.op(Op::Sub, Reg::Eax, start);
        b.store(taken, Reg::Eax);
        b.op(Op::Cmp, Reg::Eax, end);
        b.jump_if(If::Below, again);
    }
    b.say(kind.name);
    b.say(": ");
    b.say_number(Reg::Ebx);
    b.say(" ");
    b.say_number(taken);
    b.say("\n");
}

/// Repeats `body` for the accesses of one round, which ECX counts.
fn each(b: &mut Bare, many: u32, body: impl FnOnce(&mut Bare)) {
    b.set(Reg::Ecx, many);
    let again = b.here();
    body(b);
    b.op_number(Op::Sub, Reg::Ecx, 1);
    b.jump_if(If::NotEqual, again);
}

fn exit(b: &mut Bare) {
    each(b, SINGLE, |b| b.raw(&[0xe6, 0x80])); //           out 0x80, al
}

fn port_read(b: &mut Bare) {
    b.set(Reg::Edx, 0x3cc);
    each(b, SINGLE, |b| b.raw(&[0xec])); //                 in al, dx
}

fn port_write(b: &mut Bare, port: u16, value: u32) {
    b.set(Reg::Eax, value);
    b.set(Reg::Edx, port.into());
    each(b, SINGLE, |b| b.raw(&[0xee])); //                 out dx, al
}

fn window_write(b: &mut Bare) {
    cell_of_round(b);
    each(b, SINGLE, write_cell);
}

fn window_read(b: &mut Bare) {
    b.set(Reg::Edi, TEXT);
    each(b, SINGLE, |b| {
        b.load_word(Reg::Eax, Rm::At(Reg::Edi, 0));
        b.op_number(Op::Add, Reg::Edi, 2);
    });
}

/// The map mask and odd/even are set for one plane, and set back, in each round: that counts too.
fn planar_write(b: &mut Bare) {
    // Index and value in one 16-bit write: to plane 2 in one piece, and back to text.
    let font = [(0x3c4, 0x0402), (0x3c4, 0x0704), (0x3ce, 0x0005), (0x3ce, 0x0406)];
    let text = [(0x3c4, 0x0302), (0x3c4, 0x0304), (0x3ce, 0x1005), (0x3ce, 0x0e06)];
    let registers = |b: &mut Bare, values: &[(u32, u32)]| {
        for (port, value) in values {
            b.set(Reg::Edx, *port);
            b.set(Reg::Eax, *value);
            b.raw(&[0x66, 0xef]); //                        out dx, ax
        }
    };
    registers(b, &font);
    // Behind the last glyph that is shown, in the second font.
    b.set(Reg::Edi, 0xa2000);
    each(b, SINGLE, |b| {
        b.raw(&[0x88, 0x0f]); //                            mov [edi], cl
        b.increment(Reg::Edi);
    });
    registers(b, &text);
}

/// EDI = where the line of this round starts, EAX = a character of this round.
fn cell_of_round(b: &mut Bare) {
    b.load(Reg::Eax, Reg::Ebx);
    b.set(Reg::Edx, 0);
    b.set(Reg::Ecx, 24);
    b.divide(Reg::Ecx);
    b.load(Reg::Edi, Reg::Edx);
    b.left(Reg::Edi, 5); //                                 a line has 5 * 32 bytes
    b.load(Reg::Edx, Reg::Edi);
    b.left(Reg::Edx, 2);
    b.op(Op::Add, Reg::Edi, Reg::Edx);
    b.op_number(Op::Add, Reg::Edi, TEXT);
    b.load(Reg::Eax, Reg::Ebx);
    b.op_number(Op::And, Reg::Eax, 0x3f);
    b.op_number(Op::Add, Reg::Eax, 0x0700 + u32::from(b'0'));
}

fn write_cell(b: &mut Bare) {
    b.raw(&[0x66, 0x89, 0x07]); //                          mov [edi], ax
    b.op_number(Op::Add, Reg::Edi, 2);
}

fn line(b: &mut Bare) {
    cell_of_round(b);
    each(b, 80, write_cell);
    // The cursor behind it, in characters from the start of the text.
    b.op_number(Op::Sub, Reg::Edi, TEXT);
    b.right(Reg::Edi, 1);
    b.set(Reg::Edx, 0x3d4);
    for (index, shift) in [(0x0e, 8), (0x0f, 0)] {
        b.set(Reg::Eax, index);
        b.raw(&[0xee, 0x42]); //                            out dx, al; inc edx
        b.load(Reg::Eax, Reg::Edi);
        if shift > 0 {
            b.right(Reg::Eax, shift);
        }
        b.raw(&[0xee, 0x4a]); //                            out dx, al; dec edx
    }
}

fn scroll(b: &mut Bare) {
    // One cell of the last line is another in each round, so that every line is.
    b.load(Reg::Eax, Reg::Ebx);
    b.op_number(Op::And, Reg::Eax, 0x3f);
    b.op_number(Op::Add, Reg::Eax, 0x0700 + u32::from(b'0'));
    b.raw(&[0x66]); //                                      of 16 bits
    b.store(Rm::Abs(TEXT + 24 * LINE_BYTES), Reg::Eax);
    b.set(Reg::Edi, TEXT);
    each(b, 24 * LINE_BYTES / 4, |b| {
        b.load(Reg::Eax, Rm::At(Reg::Edi, 160));
        b.store(Rm::At(Reg::Edi, 0), Reg::Eax);
        b.op_number(Op::Add, Reg::Edi, 4);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_what_was_said() {
        // 50 ms are 1000 cycles, and every kind took 2000 for 10 rounds.
        let mut said = "span: 1000 0\n".to_owned();
        KINDS.iter().for_each(|kind| said += &format!("{}: 10 2000\n", kind.name));
        let costs = costs(&said).unwrap();
        assert_eq!(costs[0], 1e8 / 640.0);
        assert_eq!(costs[KINDS.len() - 1], 1e7);
        assert_eq!(super::costs("span: 1000 0\n"), None);
    }

    #[test]
    fn it_is_a_disk_that_boots() {
        let disk = disk();
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
    }
}
