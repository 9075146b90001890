//! Which orders PCI and x86 allow a function's accesses to have, and whether a recorded one is among them.
//!
//! A *program* is what the vCPUs did, in the order in which they did it; a *record* is what the device
//! saw. Each operation knows which others its vCPU knew of: its own earlier ones, and, after vCPU B
//! learned of it, those of vCPU A (a flag in memory, an interrupt, the answer to a read).
//!
//! x86 carries out stores to uncached memory and `out` in program order (SDM volume 3, section 9.2),
//! PCI keeps posted writes in order and lets no read pass one (PCI 3.0, section 3.2.5 and appendix E).
//! So for every operation that reaches the device one by one ([`Way::Strict`], [`Way::Late`]):
//!
//! * It is seen exactly once, as it was: a port never wider, narrower or joined to another; bytes of
//!   memory may be part of one run where byte lanes are independent, never in planar modes.
//! * What its vCPU knew of when it was made is seen before it. What nobody knew of may come before
//!   or after.
//! * A strict one is seen while its vCPU waits for it.
//!
//! Text in the shadow ([`Way::Ram`]) is memory. Of what is written to one byte there
//!
//! * the device may miss what was overwritten, and sees the rest in its order;
//! * it is seen after what its vCPU knew to be done, writes still on their way ([`Way::Late`]) apart: late
//!   are only palette, cursor, start address and the like, with which text meets on the screen alone;
//! * it may be late itself, but the device has it before anything from which the delay could be told
//!   ([`Op::shows`]): a change of the start address, a read of the window, any access to another region
//!   or to registers that change what the window is, a beat of the clock, a change of mode, the end.
//!
//! A reset forgets what was under way and lets nothing of it through later.

use std::collections::HashMap;

use trapline_io::{Access, Op as Direction, Region, Width};

use crate::record::{CPUS, Seen};

/// How an operation was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It trapped, and its vCPU went on when the device had answered.
    Strict,
    /// It was collected by the kernel or posted.
    Late,
    /// The shadow took it.
    Ram,
    /// It reached the device's own memory, or was a moment in the life of the machine: it stands in the
    /// record as a mark.
    Mark,
    /// Nothing decoded it.
    Nowhere,
}

/// One operation of a program.
#[derive(Clone, Debug)]
pub struct Op {
    /// Who made it.
    pub cpu: usize,
    /// How many operations of each vCPU it comes after.
    pub after: [usize; CPUS],
    /// What it was.
    pub access: Access,
    /// How it was carried out.
    pub way: Way,
    /// The length of the record when it was made, and when its vCPU went on.
    pub made: (usize, usize),
    /// A delay of text could be told from it.
    pub shows: bool,
    /// It was made in plain text mode, so that what it writes to the window is what the window holds then.
    pub plain: bool,
    /// How many resets came before it.
    pub life: usize,
}

/// Why a record is not one of the program's. Numbers are places in the program, the last one in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// Never seen.
    Lost(usize),
    /// Seen, and nobody did it (any more).
    Unknown(usize),
    /// The second comes after the first, and was seen before it.
    Reordered(usize, usize),
    /// A strict operation was seen when its vCPU was gone.
    NotAwaited(usize),
    /// Text written by the first was not there when the second was seen.
    Stale(usize, usize),
    /// A run where byte lanes are not independent, or of ports.
    Merged(usize),
}

/// A place in the record: of an entry, and of a byte in it.
type Place = (usize, usize);

/// Where an operation was seen, byte by byte.
#[derive(Clone, Debug, Default)]
struct Sight {
    bytes: u8,
    first: Option<Place>,
    last: Option<Place>,
}

/// Whether `record` is a legal outcome of `program`.
pub fn check(program: &[Op], record: &[Seen]) -> Result<(), Illegal> {
    let mut watch = Watch::new(program);
    for (at, seen) in record.iter().enumerate() {
        if let Seen::Access(access) = seen
            && watch.look.takes(*access, record.get(at + 1))
        {
            continue;
        }
        watch.see(at, seen)?;
    }
    watch.nothing_lost()?;
    watch.kept_in_order()
}

struct Watch<'a> {
    program: &'a [Op],
    /// Numbers of each vCPU's operations.
    by_cpu: [Vec<usize>; CPUS],
    sights: Vec<Sight>,
    life: usize,
    look: Look,
    /// What the window holds, and who wrote it last; absent where it was never written.
    held: HashMap<u64, (u8, Option<usize>)>,
    clouded: bool,
}

fn in_window(access: Access) -> bool {
    access.region == Region::VGA && access.offset >= 0xa_0000
}

/// The bytes that a write brings, each with its address.
fn bytes_of(access: Access) -> Vec<(u64, u8)> {
    let Direction::Write(value) = access.op else { return Vec::new() };
    (access.offset..).zip(value.to_le_bytes()).take(access.width.bytes()).collect()
}

/// What the machine reads for itself: registers of the card and of its configuration.
fn is_housekeeping(access: Access) -> bool {
    const LOOKED_AT: [u64; 2] = [0x3c3, 0x3cc];
    match (access.region, access.op) {
        (Region::CONFIG, _) | (Region(2), Direction::Read) => true,
        (Region::VGA, Direction::Read) => access.width == Width::B1 && LOOKED_AT.contains(&access.offset),
        _ => false,
    }
}

/// The machine looks at registers behind an index port: the index is read, each register selected and read,
/// the index restored. Programs never read an index.
#[derive(Default)]
struct Look {
    port: Option<u64>,
}

impl Look {
    /// Whether `access` belongs to a look, `next` being what the device sees after it.
    fn takes(&mut self, access: Access, next: Option<&Seen>) -> bool {
        const INDEX: [u64; 4] = [0x3c4, 0x3ce, 0x3d4, 0x3b4];
        let plain = access.region == Region::VGA && access.width == Width::B1;
        match (self.port, access.op) {
            (None, Direction::Read) if plain && INDEX.contains(&access.offset) => {
                self.port = Some(access.offset);
                true
            }
            (Some(port), Direction::Read) => plain && access.offset == port + 1,
            (Some(port), Direction::Write(_)) if plain && access.offset == port => {
                let register = Access::read(Region::VGA, port + 1, Width::B1);
                self.port = (next == Some(&Seen::Access(register))).then_some(port);
                true
            }
            _ => false,
        }
    }
}

impl<'a> Watch<'a> {
    fn new(program: &'a [Op]) -> Watch<'a> {
        let of = |cpu| (0..program.len()).filter(|at| program[*at].cpu == cpu).collect();
        Watch {
            program,
            by_cpu: std::array::from_fn(of),
            sights: vec![Sight::default(); program.len()],
            life: 0,
            look: Look::default(),
            held: HashMap::new(),
            clouded: false,
        }
    }

    fn see(&mut self, at: usize, seen: &Seen) -> Result<(), Illegal> {
        match seen {
            Seen::Reset => self.life += 1,
            Seen::Mark(op) => {
                self.sighted(*op, 0xff, (at, 0));
                return self.is_fresh(*op);
            }
            Seen::Access(access) => return self.see_access(at, *access),
            Seen::Run { independent: false, .. } => return Err(Illegal::Merged(at)),
            Seen::Run { region, offset, .. } if *region == Region::VGA && *offset < 0xa_0000 => {
                return Err(Illegal::Merged(at));
            }
            Seen::Run { offset, bytes, .. } => {
                for (byte, (address, value)) in (*offset..).zip(bytes).enumerate() {
                    self.see_byte((at, byte), address, *value, true)?;
                }
            }
        }
        Ok(())
    }

    fn see_access(&mut self, at: usize, access: Access) -> Result<(), Illegal> {
        let one_by_one = |op: &Op| matches!(op.way, Way::Strict | Way::Late);
        let same = |number: &usize| {
            let op = &self.program[*number];
            let open = self.sights[*number].first.is_none() && op.made.0 <= at && op.life == self.life;
            one_by_one(op) && open && op.access == access
        };
        if let Some(number) = (0..self.program.len()).find(same) {
            if self.program[number].shows {
                self.is_fresh_at(number)?;
            }
            for (address, value) in bytes_of(access).into_iter().filter(|_| in_window(access)) {
                self.hold(address, value, number)?;
            }
            self.sighted(number, 0xff, (at, 0));
            return Ok(());
        }
        if !in_window(access) || access.op == Direction::Read {
            return if is_housekeeping(access) { Ok(()) } else { Err(Illegal::Unknown(at)) };
        }
        // Text that was brought out piece by piece.
        for (byte, (address, value)) in bytes_of(access).into_iter().enumerate() {
            self.see_byte((at, byte), address, value, false)?;
        }
        Ok(())
    }

    /// A byte of the window: of a run of writes, or of text that is brought out.
    fn see_byte(&mut self, place: Place, address: u64, value: u8, joined: bool) -> Result<(), Illegal> {
        let brings = |number: usize| {
            let op = &self.program[number];
            let lane = address.checked_sub(op.access.offset).filter(|lane| *lane < 8)?;
            let known = op.made.0 <= place.0 && op.life == self.life && in_window(op.access);
            let one_by_one = matches!(op.way, Way::Strict | Way::Late);
            let open = !one_by_one || joined && self.sights[number].bytes >> lane & 1 == 0;
            let wanted = known && open && (one_by_one || op.way == Way::Ram);
            let fits = bytes_of(op.access).contains(&(address, value));
            (wanted && fits).then_some((number, 1 << lane))
        };
        let found = (0..self.program.len()).find_map(brings);
        // Unchanged bytes between two that changed may be written once more.
        let repeated = match self.held.get(&address) {
            Some((held, _)) => *held == value,
            None => value == 0 || self.clouded,
        };
        match found {
            Some((number, lane)) => {
                if !(self.sights[number].bytes & lane != 0 && repeated) {
                    self.hold(address, value, number)?;
                }
                self.sighted(number, lane, place);
                Ok(())
            }
            None if repeated => Ok(()),
            None => Err(Illegal::Unknown(place.0)),
        }
    }

    /// Memory has one order: a byte never goes back to what was written earlier.
    fn hold(&mut self, address: u64, value: u8, number: usize) -> Result<(), Illegal> {
        if !self.program[number].plain {
            // Any byte may have become any other.
            self.held.clear();
            self.clouded = true;
            return Ok(());
        }
        if let Some((_, Some(newer))) = self.held.get(&address).filter(|(_, by)| *by > Some(number)) {
            return Err(Illegal::Reordered(number, *newer));
        }
        self.held.insert(address, (value, Some(number)));
        Ok(())
    }

    fn sighted(&mut self, number: usize, lanes: u8, place: Place) {
        let sight = &mut self.sights[number];
        sight.bytes |= lanes;
        sight.first.get_or_insert(place);
        sight.last = Some(place);
    }

    fn knew(&self, later: usize, earlier: usize) -> bool {
        let (op, other) = (&self.program[later], &self.program[earlier]);
        let place = self.by_cpu[other.cpu].partition_point(|number| *number < earlier);
        later != earlier && op.after[other.cpu] > place
    }

    fn is_fresh(&self, number: usize) -> Result<(), Illegal> {
        if self.program[number].shows { self.is_fresh_at(number) } else { Ok(()) }
    }

    /// All text that `number` comes after is in the device, or was overwritten.
    fn is_fresh_at(&self, number: usize) -> Result<(), Illegal> {
        let texts = (0..number).filter(|text| {
            let op = &self.program[*text];
            op.way == Way::Ram && op.life == self.life && self.knew(number, *text)
        });
        for text in texts {
            for (address, value) in bytes_of(self.program[text].access) {
                let fresh = match self.held.get(&address) {
                    Some((held, by)) => *by >= Some(text) || *held == value,
                    None => value == 0 || self.clouded,
                };
                if !fresh {
                    return Err(Illegal::Stale(text, number));
                }
            }
        }
        Ok(())
    }

    fn nothing_lost(&self) -> Result<(), Illegal> {
        for (number, op) in self.program.iter().enumerate() {
            let sight = &self.sights[number];
            let all = 0xff_u8 >> (8 - op.access.width.bytes());
            let whole = sight.bytes & all == all;
            let forgotten = op.life < self.life && op.way == Way::Late;
            if matches!(op.way, Way::Strict | Way::Late | Way::Mark) && !whole && !forgotten {
                return Err(Illegal::Lost(number));
            }
            let awaited = sight.first.is_none_or(|(at, _)| op.made.0 <= at && at < op.made.1);
            if op.way == Way::Strict && !awaited {
                return Err(Illegal::NotAwaited(number));
            }
        }
        Ok(())
    }

    fn kept_in_order(&self) -> Result<(), Illegal> {
        for later in 0..self.program.len() {
            for earlier in (0..later).filter(|earlier| self.knew(later, *earlier)) {
                if !self.is_ordered(earlier, later) {
                    return Err(Illegal::Reordered(earlier, later));
                }
            }
        }
        Ok(())
    }

    fn is_ordered(&self, earlier: usize, later: usize) -> bool {
        // Text is judged by what the device holds; only what is done may not be passed by it.
        let text = |number: usize| self.program[number].way == Way::Ram;
        if text(earlier) || text(later) && self.program[earlier].way == Way::Late {
            return true;
        }
        match (self.sights[earlier].last, self.sights[later].first) {
            (Some(earlier), Some(later)) => earlier < later,
            _ => true,
        }
    }
}

#[path = "order/tests.rs"]
mod tests;
