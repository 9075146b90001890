//! What a guest did to the adapter, out of a trace in the text form (`trapline run --trace FILE`, the page of
//! `trapline::trace`): memory as `R` and `W`, ports as `MARK ... PIO`.
//!
//! To be whole it has to be taken with `--window strict`, where every access to the window traps.

use std::collections::BTreeMap;

use trapline_io::{Access, Op, Region, Trap, Width};

use crate::machine::{gpa, port};
use crate::play::Event;

/// Configuration space of bus 0 by memory, where Q35's firmware has it.
const ECAM: u64 = 0xb000_0000;
const ECAM_LEN: u64 = 0x1000_0000;

/// A line that a trace does not have.
#[derive(Debug)]
pub struct Malformed(#[allow(dead_code, reason = "shown to people")] pub usize);

/// What there is to know while a trace is read.
#[derive(Default)]
struct Reader {
    /// The adapter's configuration address, bus and function as in a configuration cycle.
    adapter: Option<u64>,
    latch: u64,
    /// Mapped now, by number: first address and length.
    mapped: BTreeMap<u64, (u64, u64)>,
    events: Vec<Event>,
}

/// All accesses of a trace to the adapter 1234:1111, in order. Nothing of it if the trace tells of losses.
///
/// # Errors
/// The number of a line that is not understood, or that tells of a loss.
pub fn read(text: &str) -> Result<Vec<Event>, Malformed> {
    let mut reader = Reader { adapter: adapter(text), ..Reader::default() };
    for (number, line) in text.lines().enumerate() {
        reader.line(line).ok_or(Malformed(number + 1))?;
    }
    Ok(reader.events)
}

fn adapter(text: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.strip_prefix("PCIDEV ")).map(str::split_whitespace);
    fields.find_map(|mut fields| {
        let at = u64::from_str_radix(fields.next()?, 16).ok()?;
        (fields.next()? == "12341111").then_some(at)
    })
}

fn hex(field: &str) -> Option<u64> {
    u64::from_str_radix(field.strip_prefix("0x")?, 16).ok()
}

fn op(letter: &str, value: &str) -> Option<Op> {
    match letter {
        "R" => Some(Op::Read),
        "W" => Some(Op::Write(hex(value)?)),
        _ => None,
    }
}

fn width(field: &str) -> Option<Width> {
    Width::of(field.parse().ok()?)
}

impl Reader {
    fn line(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [letter @ ("R" | "W"), bytes, _, _, at, value, ..] => {
                self.memory(gpa(hex(at)?, width(bytes)?, op(letter, value)?));
            }
            ["MARK", _, "PIO", letter, bytes, at, value] => {
                let at = u16::try_from(hex(at)?).ok()?;
                self.port(at, port(at, width(bytes)?, op(letter, value)?))?;
            }
            ["MARK", _, "Lost", ..] => return None,
            ["MAP", _, number, at, _, len, ..] => {
                self.mapped.insert(number.parse().ok()?, (hex(at)?, hex(len)?));
            }
            ["UNMAP", _, number, ..] => {
                self.mapped.remove(&number.parse().ok()?);
            }
            ["VERSION" | "PCIDEV" | "LSPCI" | "MARK", ..] | [] => {}
            _ => return None,
        }
        Some(())
    }

    fn memory(&mut self, trap: Trap) {
        let trapline_io::Address::Gpa(at) = trap.at else { return };
        let at = at.0;
        if (ECAM..ECAM + ECAM_LEN).contains(&at) {
            let access =
                Access { region: Region::CONFIG, width: trap.width, offset: at & 0xfff, op: trap.op };
            if Some((at - ECAM) >> 12) == self.adapter {
                self.events.push(Event::Config(access));
            }
            return;
        }
        let window = (0xa_0000..0xc_0000).contains(&at);
        let inside = |(first, len): &(u64, u64)| (*first..first + len).contains(&at);
        if window || self.mapped.values().any(inside) {
            self.events.push(Event::Access(trap));
        }
    }

    fn port(&mut self, at: u16, trap: Trap) -> Option<()> {
        match (at, trap.op) {
            (0x3b0..=0x3bb | 0x3c0..=0x3df | 0x1ce..=0x1d0, _) => self.events.push(Event::Access(trap)),
            (0xcf8, Op::Write(value)) if trap.width == Width::B4 => self.latch = value,
            (0xcfc..=0xcff, op) => {
                let function = self.latch >> 8 & 0xffff;
                if self.latch >> 31 == 1 && Some(function) == self.adapter {
                    let offset = self.latch & 0xfc | u64::from(at & 3);
                    let access = Access { region: Region::CONFIG, width: trap.width, offset, op };
                    self.events.push(Event::Config(access));
                }
            }
            _ => {}
        }
        Some(())
    }
}
