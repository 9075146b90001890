//! Collected, posted and awaited accesses of one function against a naive model: one list, in the order in
//! which they were made. Whoever is answered has seen all of it done.
//!
//! All on one thread: what threads may do to each other is for loom. What is tried here is what no
//! loom model has room for: long programs, full queues, runs that merge, and maps that change.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

const OWNER: EndpointId = EndpointId(3);
const OTHER: EndpointId = EndpointId(4);
/// A write to this port decides whether runs may be merged.
const MERGING: u16 = 0x3c4;

/// What a device saw. A run is taken apart only when it is compared.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    One(Access),
    Run(u64, Vec<u8>),
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    writes: u64,
    merging: bool,
    faults: Vec<&'static str>,
}

/// Writes down what it sees; a read gives the number of bytes written so far.
#[derive(Clone, Default)]
struct Card(Arc<Mutex<State>>);

impl Device for Card {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut state = self.0.lock().unwrap();
        state.seen.push(Seen::One(Access::read(region, offset, width)));
        Ok(state.writes)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let mut state = self.0.lock().unwrap();
        state.seen.push(Seen::One(Access::write(region, offset, width, value)));
        state.writes += width.bytes() as u64;
        if (region, offset) == (Region::VGA, MERGING.into()) {
            state.merging = value & 1 == 1;
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }

    fn merges(&self, region: Region, offset: u64) -> bool {
        let mut state = self.0.lock().unwrap();
        if region == Region::CONFIG || region == Region::VGA && offset < 0xa_0000 {
            state.faults.push("asked whether ports or configuration space merge");
        }
        state.merging
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut state = self.0.lock().unwrap();
        if !state.merging || region != Region::VGA {
            state.faults.push("a run where none may be");
        }
        if offset / 4096 != (offset + bytes.len() as u64 - 1) / 4096 {
            state.faults.push("a run across pages");
        }
        state.seen.push(Seen::Run(offset, bytes.to_vec()));
        state.writes += bytes.len() as u64;
        Ok(())
    }

    fn window(&mut self) -> Option<&mut dyn Window> {
        Some(self)
    }
}

impl Window for Card {
    fn mode(&self) -> Mode {
        Mode::Coalesced
    }
    fn watch(&mut self, _: std::thread::Thread) {}
    fn tick(&mut self, _: std::time::Instant) -> Mode {
        Mode::Coalesced
    }
    fn turn(&mut self, _: Mode) {}
    /// Asked last, so what it sees at that moment is what an answer rests on.
    fn regained(&mut self) {}

    fn admits(&self, access: Access) -> bool {
        matches!(access.op, Op::Write(value) if value & 2 == 0)
    }
}

#[derive(Clone, Default)]
struct Ring(Arc<Mutex<VecDeque<Trap>>>);

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    fn pop(&self) -> Option<Trap> {
        self.0.lock().unwrap().pop_front()
    }
}

/// Which map is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    /// The owner has it all, the window in two ranges.
    Owned,
    /// Nobody decodes the window.
    Hidden,
    /// Another function has the ports.
    Shared,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The kernel collects a write to the window: place, width.
    Window(u64, Width),
    /// The kernel collects neighbouring cells.
    Line(u64, u64),
    /// The kernel collects a write to a port.
    Port(u16, Width),
    /// A write that may or may not be merged from now on, collected as well.
    Merge(bool),
    /// A write is posted: as the kernel does with one that it had no room for.
    Post(u64, Width),
    /// A vCPU waits for a read, or a write.
    Call(bool),
    /// A write that the window may refuse.
    Admitted(u64),
    Serve,
    Drain,
    WithDevice,
    TryWithDevice,
    Discard,
    Publish(Map),
    /// The kernel stops collecting and begins again.
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let widths = || prop::sample::select(vec![Width::B1, Width::B2, Width::B4, Width::B8]);
    let narrow = || prop::sample::select(vec![Width::B1, Width::B2]);
    let place = || prop_oneof![8 => 0..64_u64, 1 => 0x17ff0..0x18010_u64, 1 => 0xff0..0x1008_u64];
    let map = prop::sample::select(vec![Map::Owned, Map::Owned, Map::Hidden, Map::Shared]);
    prop_oneof![
        12 => (place(), widths()).prop_map(|(at, width)| Step::Window(at, width)),
        6 => (place(), 2..90_u64).prop_map(|(at, cells)| Step::Line(at, cells)),
        6 => (prop::sample::select(vec![0x3c0, 0x3c8, 0x3d4]), narrow())
            .prop_map(|(port, width)| Step::Port(port, width)),
        4 => prop::bool::weighted(0.7).prop_map(Step::Merge),
        6 => (place(), widths()).prop_map(|(at, width)| Step::Post(at, width)),
        3 => any::<bool>().prop_map(Step::Call),
        2 => (0..4_u64).prop_map(Step::Admitted),
        3 => Just(Step::Serve),
        1 => Just(Step::Drain),
        1 => Just(Step::WithDevice),
        1 => Just(Step::TryWithDevice),
        1 => Just(Step::Discard),
        1 => map.prop_map(Step::Publish),
        1 => Just(Step::Restart),
    ]
}

fn space(map: Map) -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    let ports = Range::Ports(Span::new(Port(0x3c0), Port(0x3df)).unwrap());
    let owner = if map == Map::Shared { OTHER } else { OWNER };
    builder.claim(owner, &Claim::region(ports, Region::VGA, 0x3c0));
    for (first, last) in [(0xa_0000, 0xb_7fff), (0xb_8000, 0xb_ffff)] {
        let range = Range::Memory(Span::new(Gpa(first), Gpa(last)).unwrap());
        if map != Map::Hidden {
            builder.claim(OWNER, &Claim::region(range, Region::VGA, first));
        }
    }
    builder.build()
}

struct Rig {
    endpoint: Endpoint,
    feed: Arc<Feed>,
    ring: Ring,
    card: Card,
    published: Published,
    bell: Arc<Doorbell>,
    caller: Caller,
    worker: bool,
    places: usize,
    /// What the device has to see, in order.
    expected: Vec<Access>,
    strays: u64,
    number: u64,
}

impl Rig {
    fn new(service: Service, queue: usize, worker: bool, places: usize) -> Rig {
        let (card, ring) = (Card::default(), Ring::default());
        let completions = Completions::new(1);
        let bell = Arc::new(Doorbell::new().unwrap());
        let endpoint = Endpoint::new("card", Box::new(card.clone()), completions.clone(), Arc::clone(&bell))
            .with_service(service)
            .with_capacity(queue);
        let published = Published::new(space(Map::Owned));
        let feed = Arc::new(Feed::new(Box::new(ring.clone()), &published, OWNER));
        endpoint.feed_from(Arc::clone(&feed));
        feed.set_active(true);
        if worker {
            bell.awake();
        }
        let caller = completions.caller(CallerId(0)).unwrap();
        let (expected, strays, number) = (Vec::new(), 0, 0);
        Rig { endpoint, feed, ring, card, published, bell, caller, worker, places, expected, strays, number }
    }

    /// Another value, whose bytes are all its own.
    fn value(&mut self, width: Width) -> u64 {
        self.number += 1;
        let byte = self.number % 255 + 1;
        (0x0706_0504_0302_0100 ^ (byte * 0x0101_0101_0101_0101)) & width.all_ones()
    }

    fn collect(&mut self, at: Address, width: Width, value: u64) {
        let trap = Trap { at, width, op: Op::Write(value) };
        let room = self.ring.0.lock().unwrap().len() < self.places;
        if room {
            self.expect(trap);
            self.ring.0.lock().unwrap().push_back(trap);
        } else if let Resolved::Access { endpoint: OWNER, access, .. } = self.resolve(trap) {
            // It exits, and is posted.
            self.expected.push(access);
            self.endpoint.post(access);
        }
    }

    fn resolve(&self, trap: Trap) -> Resolved {
        self.published.current().resolve(trap, &ConfigLatch::default())
    }

    /// The accesses of one write: what crosses a range's end is its halves, the lower one first.
    fn expect(&mut self, trap: Trap) {
        match self.resolve(trap) {
            Resolved::Access { endpoint: OWNER, access, .. } => self.expected.push(access),
            Resolved::Access { .. } => self.strays += 1,
            Resolved::Split => {
                let (Some(width), Op::Write(value)) = (trap.width.half(), trap.op) else { return };
                let high = match trap.at {
                    Address::Port(port) => {
                        Address::Port(Port(port.0 + u16::try_from(width.bytes()).unwrap()))
                    }
                    Address::Gpa(gpa) => Address::Gpa(Gpa(gpa.0 + width.bytes() as u64)),
                };
                self.expect(Trap { at: trap.at, width, op: Op::Write(value & width.all_ones()) });
                self.expect(Trap { at: high, width, op: Op::Write(value >> (8 * width.bytes())) });
            }
            _ => {}
        }
    }

    fn bytes_written(&self) -> u64 {
        let bytes = |access: &Access| match access.op {
            Op::Write(_) => access.width.bytes() as u64,
            Op::Read => 0,
        };
        self.expected.iter().map(bytes).sum()
    }

    /// Makes one step; tells whether all that was made before must be done now.
    fn step(&mut self, step: Step) -> Result<bool, TestCaseError> {
        match step {
            Step::Window(at, width) => {
                let value = self.value(width);
                self.collect(Address::Gpa(Gpa(0xa_0000 + at)), width, value);
            }
            Step::Line(at, cells) => {
                for cell in 0..cells {
                    let value = self.value(Width::B2);
                    self.collect(Address::Gpa(Gpa(0xa_0000 + at + 2 * cell)), Width::B2, value);
                }
            }
            Step::Port(port, width) => {
                let value = self.value(width);
                self.collect(Address::Port(Port(port)), width, value);
            }
            Step::Merge(merge) => {
                self.collect(Address::Port(Port(MERGING)), Width::B1, u64::from(merge));
            }
            Step::Post(at, width) => {
                let value = self.value(width);
                let access = Access::write(Region::VGA, 0xa_0000 + at, width, value);
                self.expected.push(access);
                self.endpoint.post(access);
            }
            Step::Call(read) => {
                let access = match read {
                    true => Access::read(Region::bar(0), 0, Width::B8),
                    false => Access::write(Region::CONFIG, 4, Width::B2, self.number),
                };
                let answer = self.endpoint.call(&mut self.caller, access);
                prop_assert_eq!(answer, if read { self.bytes_written() } else { 0 });
                self.expected.push(access);
                return Ok(true);
            }
            Step::Admitted(value) => {
                let access = Access::write(Region::bar(2), 0, Width::B1, value);
                let admitted = self.endpoint.call_admitted(&mut self.caller, access);
                prop_assert_eq!(admitted, value & 2 == 0);
                self.expected.extend(admitted.then_some(access));
                return Ok(true);
            }
            Step::Serve => drop(self.endpoint.serve()),
            Step::Drain => self.endpoint.drain(),
            Step::WithDevice => self.endpoint.with_device(|_| ()),
            Step::TryWithDevice => prop_assert!(self.endpoint.try_with_device(|_| ()).is_ok()),
            Step::Discard => {
                let done = self.flat().map_err(TestCaseError::fail)?.len();
                self.expected.truncate(done);
                self.endpoint.discard();
                // What was meant for others is looked up on its way as well.
                self.strays = self.feed.strays();
            }
            Step::Publish(map) => {
                self.endpoint.drain();
                self.published.publish(space(map));
                return Ok(true);
            }
            Step::Restart => {
                self.endpoint.drain();
                self.feed.set_active(false);
                prop_assert!(!self.feed.is_active());
                self.feed.set_active(true);
                return Ok(true);
            }
        }
        Ok(matches!(step, Step::Drain | Step::WithDevice | Step::TryWithDevice))
    }

    /// What the device saw, runs taken apart into the writes that they were made of.
    fn flat(&self) -> Result<Vec<Access>, String> {
        let mut flat: Vec<Access> = Vec::new();
        for seen in &self.card.0.lock().unwrap().seen {
            let (mut at, mut bytes) = match seen {
                Seen::One(access) => {
                    flat.push(*access);
                    continue;
                }
                Seen::Run(at, bytes) => (*at, bytes.as_slice()),
            };
            let first = flat.len();
            while !bytes.is_empty() {
                let Some(Access { width, .. }) = self.expected.get(flat.len()) else {
                    return Err(format!("more than was written: {seen:x?}"));
                };
                let Some((part, rest)) = bytes.split_at_checked(width.bytes()) else {
                    return Err(format!("part of a write: {seen:x?}"));
                };
                let value = part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                flat.push(Access::write(Region::VGA, at, *width, value));
                (at, bytes) = (at + width.bytes() as u64, rest);
            }
            if flat.len() < first + 2 {
                return Err(format!("a run of one: {seen:x?}"));
            }
        }
        Ok(flat)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_function_sees_what_was_made_in_the_order_in_which_it_was_made(
        service in prop::sample::select(vec![Service::Inline, Service::Adaptive]),
        queue in prop::sample::select(vec![1_usize, 2, 7, 256]),
        worker in any::<bool>(),
        places in prop::sample::select(vec![1_usize, 4, 169]),
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        let mut rig = Rig::new(service, queue, worker, places);
        for step in steps {
            let all = rig.step(step)?;
            let seen = rig.flat().map_err(TestCaseError::fail)?;
            prop_assert!(rig.expected.starts_with(&seen), "{:x?}\n{:x?}", seen, rig.expected);
            prop_assert!(!all || seen.len() == rig.expected.len(), "{step:?}: something is still under way");
            if rig.worker {
                rig.bell.awake();
            }
        }
        rig.endpoint.drain();
        prop_assert_eq!(rig.flat().map_err(TestCaseError::fail)?, rig.expected.clone());
        prop_assert_eq!(rig.feed.strays(), rig.strays);
        let state = rig.card.0.lock().unwrap();
        prop_assert!(state.faults.is_empty(), "{:?}", state.faults);
        prop_assert_eq!(rig.endpoint.faults(), 0);
    }
}

/// Writes next to each other do leave as one, or the tests above would prove nothing of runs.
#[test]
fn a_collected_line_leaves_as_one_run() {
    let mut rig = Rig::new(Service::Adaptive, 256, false, 169);
    rig.step(Step::Merge(true)).unwrap();
    rig.step(Step::Line(0, 80)).unwrap();
    rig.step(Step::Call(true)).unwrap();
    let seen = rig.card.0.lock().unwrap().seen.clone();
    assert_eq!(seen.len(), 3);
    assert!(matches!(&seen[1], Seen::Run(0xa_0000, bytes) if bytes.len() == 160), "{seen:x?}");
}
