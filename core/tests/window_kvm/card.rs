//! The software adapter in this process, as the backend of an assigned function.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Instant;

use trapline_devices::assigned::backend::{Mapping, RegionInfo};
use trapline_devices::assigned::{Backend, Function, Options, RomSource};
use trapline_devices::legacy::Ways;
use trapline_devices::vga::{Adapter, SCREEN, View, region_size};
use trapline_io::device::{Claims, Device};
use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Fault, Region, Width};
use vm_memory::MmapRegion;

/// The adapter, and how often it was asked for something.
pub struct Card {
    adapter: Adapter,
    regions: Vec<RegionInfo>,
}

impl Card {
    pub fn new() -> Card {
        let adapter = Adapter::new(None).unwrap();
        let region = |number| {
            let size = region_size(Region(number)).unwrap_or(0);
            let mappings = match Region(number) == Region::bar(0) {
                true => vec![Mapping::whole(0, Arc::clone(adapter.framebuffer().memory()))],
                false => Vec::new(),
            };
            RegionInfo { size, readable: size > 0, writable: size > 0, mappings }
        };
        let regions = (0..=SCREEN.0).map(region).collect();
        Card { adapter, regions }
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }

    fn resettable(&self) -> bool {
        true
    }

    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.adapter.read(region, offset, width)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.adapter.write(region, offset, width, value)
    }

    fn reset(&mut self) -> Result<(), Fault> {
        self.adapter.reset();
        Ok(())
    }
}

/// How often the function went into each mode: native, resting, coalesced, shadowed.
#[derive(Default)]
pub struct Turns([AtomicU64; 4]);

impl Turns {
    pub fn to(&self, mode: Mode) -> u64 {
        self.of(mode).load(SeqCst)
    }

    fn of(&self, mode: Mode) -> &AtomicU64 {
        match mode {
            Mode::Native => &self.0[0],
            Mode::Resting => &self.0[1],
            Mode::Coalesced => &self.0[2],
            Mode::Shadowed => &self.0[3],
        }
    }
}

/// What of a card is seen when its machine is gone.
pub struct Seen {
    pub view: View,
    pub memory: Arc<MmapRegion>,
    pub turns: Arc<Turns>,
}

/// The function, with its turns counted.
pub struct Counted {
    pub function: Function<Card>,
    turns: Arc<Turns>,
}

impl Counted {
    pub fn new(ways: Ways) -> (Counted, Seen) {
        let card = Card::new();
        let turns = Arc::new(Turns::default());
        let seen = Seen {
            view: View::of(&card.adapter),
            memory: Arc::clone(card.adapter.framebuffer().memory()),
            turns: Arc::clone(&turns),
        };
        let options = Options { ways, rom: RomSource::Off, ..Options::default() };
        let function = Function::open(card, options).unwrap();
        (Counted { function, turns }, seen)
    }
}

impl Device for Counted {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.function.read(region, offset, width)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.function.write(region, offset, width, value)
    }

    fn reset(&mut self) {
        self.function.reset();
    }

    fn claims(&self) -> Claims {
        self.function.claims()
    }

    fn merges(&self, region: Region, offset: u64) -> bool {
        self.function.merges(region, offset)
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.function.write_run(region, offset, bytes)
    }

    fn window(&mut self) -> Option<&mut dyn Window> {
        self.function.window().is_some().then_some(self as &mut dyn Window)
    }
}

impl Window for Counted {
    fn mode(&self) -> Mode {
        self.function.mode()
    }

    fn watch(&mut self, clock: Thread) {
        Window::watch(&mut self.function, clock);
    }

    fn tick(&mut self, now: Instant) -> Mode {
        Window::tick(&mut self.function, now)
    }

    fn turn(&mut self, to: Mode) {
        let before = self.function.mode();
        Window::turn(&mut self.function, to);
        if self.function.mode() != before {
            self.turns.of(self.function.mode()).fetch_add(1, SeqCst);
        }
    }

    fn regained(&mut self) {}

    fn admits(&self, access: Access) -> bool {
        self.function.admits(access)
    }
}
