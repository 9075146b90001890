//! Plays what a guest did on a machine with the software adapter, and looks at what became of it.
#![allow(dead_code, reason = "each test uses its own part")]

use std::time::Duration;

use trapline_devices::legacy::{Phase, Ways};
use trapline_devices::vga::scanout::{self, Frame};
use trapline_devices::vga::{Registers, Snapshot};
use trapline_io::endpoint::Service;
use trapline_io::window::Mode;
use trapline_io::{Access, Op, Trap, Width};
use vm_memory::Bytes;

use crate::card::{self, Card};
use crate::machine::{self, How, Machine, Setting, gpa, port};
use crate::record::CPUS;
use crate::ring::{self, Ring};

/// One thing that a guest does; what it writes may be what it has just read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// An access to memory or a port.
    Access(Trap),
    /// An access to the adapter's configuration space.
    Config(Access),
    /// Moves what stands at the first address to the second.
    Copy(u64, u64, Width),
    /// Reads a port, and writes the bits of the first mask and those of the second value back.
    Update(u16, u8, u8),
}

/// When the machine's clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Never between beginning and end. Every now and then the machine turns to the first mode, if it is in
    /// another.
    Never,
    /// Whenever a write has trapped, so that the window follows at once.
    AtTraps,
    /// At moments of chance, one in so many events, from this seed.
    Chance(u64, u64),
}

/// How it is played.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub ways: Ways,
    pub clock: Clock,
    /// The mode to begin in, if the window can be in it.
    pub first: Mode,
    /// Places in the function's queue.
    pub queue: usize,
    /// A worker carries posted writes out, some time.
    pub worker: bool,
    /// The two vCPUs do it in turn, each telling the other.
    pub in_turn: bool,
}

impl Manner {
    /// Each access as it comes.
    pub fn strict() -> Manner {
        Manner {
            ways: Ways::default(),
            clock: Clock::Never,
            first: Mode::Native,
            queue: 256,
            worker: false,
            in_turn: false,
        }
    }

    /// Writes collected, nothing more.
    pub fn coalesced(clock: Clock) -> Manner {
        let ways = Ways { coalesced: true, shadowed: false, phase: Phase::Legacy };
        Manner { ways, clock, first: Mode::Coalesced, ..Manner::strict() }
    }

    /// The text window as memory besides.
    pub fn shadowed(clock: Clock) -> Manner {
        let ways = Ways { coalesced: true, shadowed: true, phase: Phase::Legacy };
        Manner { ways, clock, first: Mode::Shadowed, ..Manner::strict() }
    }

    /// All ways in which a guest's doings have to end alike; `seed` is where chance begins.
    pub fn fast(seed: u64) -> Vec<Manner> {
        let auto = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
        vec![
            Manner::coalesced(Clock::Never),
            Manner::coalesced(Clock::Chance(seed, 50)),
            Manner::shadowed(Clock::Never),
            Manner::shadowed(Clock::AtTraps),
            Manner { queue: 1, worker: true, in_turn: true, ..Manner::shadowed(Clock::Chance(seed, 5)) },
            Manner { worker: true, ..Manner::shadowed(Clock::Chance(seed, 100)) },
            Manner {
                ways: auto,
                first: Mode::Resting,
                in_turn: true,
                ..Manner::shadowed(Clock::Chance(seed, 30))
            },
        ]
    }
}

/// What is left when the guest is done.
#[derive(PartialEq)]
pub struct Outcome {
    /// What every read gave.
    pub reads: Vec<u64>,
    pub registers: Registers,
    /// The first two MiB of video memory.
    pub vram: Vec<u8>,
}

/// How the accesses of a run were carried out, in this order: by a slot of the shadow, collected, trapped.
pub type Counts = [usize; 3];

/// Plays `events`; what happens first is that the BARs are placed, if `placed`.
pub fn play(events: &[Event], placed: bool, manner: Manner) -> (Outcome, Counts, Card) {
    let card = Card::new(false, card::Flaw::None);
    let setting = Setting {
        ways: manner.ways,
        service: Service::Adaptive,
        queue: manner.queue,
        worker: manner.worker,
        ring: Ring::new(ring::Flaw::None),
        flaw: machine::Flaw::None,
    };
    let mut player = Player {
        machine: Machine::new(card.clone(), setting),
        manner,
        chance: 0,
        reads: Vec::new(),
        counts: Counts::default(),
    };
    if let Clock::Chance(seed, _) = manner.clock {
        player.chance = seed | 1;
    }
    if placed {
        player.machine.place();
    }
    player.machine.turn(manner.first);
    for (number, event) in events.iter().enumerate() {
        let cpu = if manner.in_turn { number / 7 % CPUS } else { 0 };
        player.event(cpu, *event);
        if manner.clock == Clock::Never && number % 500 == 0 && player.machine.mode() != manner.first {
            player.machine.turn(manner.first);
        }
    }
    assert!(player.machine.end(), "something was left behind");
    let registers = card.adapter(|adapter| *adapter.registers());
    let mut vram = vec![0; 2 << 20];
    card.adapter(|adapter| adapter.framebuffer().bytes().read_slice(&mut vram, 0).unwrap());
    (Outcome { reads: player.reads, registers, vram }, player.counts, card)
}

/// The picture on the screen.
pub fn screen(card: &Card) -> Frame {
    card.adapter(|adapter| scanout::frame(&Snapshot::of(adapter), adapter.framebuffer().bytes()))
}

/// Where two runs part, for a person; `None` if they are the same.
pub fn difference(strict: &Outcome, other: &Outcome) -> Option<String> {
    let read = strict.reads.iter().zip(&other.reads).position(|(one, other)| one != other);
    if let Some(at) = read {
        return Some(format!("read {at}: {:x} for {:x}", other.reads[at], strict.reads[at]));
    }
    let byte = strict.vram.iter().zip(&other.vram).position(|(one, other)| one != other);
    if let Some(at) = byte {
        let (cell, plane) = (at / 4, at % 4);
        let bytes = (other.vram[at], strict.vram[at]);
        return Some(format!("cell {cell:x} of plane {plane}: {:x} for {:x}", bytes.0, bytes.1));
    }
    if strict.registers != other.registers {
        return Some(format!("{:x?}\nfor {:x?}", other.registers, strict.registers));
    }
    (strict != other).then(|| "another number of reads".to_owned())
}

/// What differs from the strict run in any way of being fast.
pub fn differences(events: &[Event], placed: bool, seed: u64) -> Vec<String> {
    let (strict, ..) = play(events, placed, Manner::strict());
    let fast = Manner::fast(seed).into_iter().filter_map(|manner| {
        let (outcome, ..) = play(events, placed, manner);
        Some(format!("{manner:?}: {}", difference(&strict, &outcome)?))
    });
    fast.collect()
}

struct Player {
    machine: Machine,
    manner: Manner,
    chance: u64,
    reads: Vec<u64>,
    counts: Counts,
}

impl Player {
    fn event(&mut self, cpu: usize, event: Event) {
        match event {
            Event::Access(trap) => {
                let value = self.access(cpu, trap);
                if trap.op == Op::Read {
                    self.reads.push(value);
                }
            }
            Event::Config(access) => {
                let value = self.machine.config(cpu, access);
                if access.op == Op::Read {
                    self.reads.push(value);
                }
            }
            Event::Copy(from, to, width) => {
                let value = self.access(cpu, gpa(from, width, Op::Read));
                self.reads.push(value);
                self.access(cpu, gpa(to, width, Op::Write(value)));
            }
            Event::Update(at, keep, set) => {
                let value = self.access(cpu, port(at, Width::B1, Op::Read));
                self.reads.push(value);
                let value = value & u64::from(keep) | u64::from(set);
                self.access(cpu, port(at, Width::B1, Op::Write(value)));
            }
        }
        if let Clock::Chance(_, one_in) = self.manner.clock {
            if self.draw().is_multiple_of(one_in) {
                let pause = if self.draw().is_multiple_of(8) { 300 } else { 16 };
                self.machine.tick(Duration::from_millis(pause));
            }
            if self.draw().is_multiple_of(3) {
                self.machine.work();
            }
        }
    }

    fn access(&mut self, cpu: usize, trap: Trap) -> u64 {
        let (how, value) = self.machine.access(cpu, trap);
        let trapped = match how {
            How::Slot(_) => 0,
            How::Collected => 1,
            How::Trapped(_) | How::Nowhere => 2,
        };
        self.counts[trapped] += 1;
        if trapped == 2 && trap.op != Op::Read && self.manner.clock == Clock::AtTraps {
            self.machine.tick(Duration::from_millis(16));
        }
        value
    }

    /// A number by chance (xorshift, Marsaglia 2003).
    fn draw(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance >> 11
    }
}
