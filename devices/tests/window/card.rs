//! The software adapter as an assigned card that writes down what it sees.
#![allow(dead_code, reason = "each test uses its own part")]

use std::sync::{Arc, Mutex, MutexGuard};

use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::{Mapping, RegionInfo};
use trapline_devices::vga::spec::DISPI_BPP;
use trapline_devices::vga::{Adapter, region_size};
use trapline_io::{Access, Device, Fault, Region, Width};

use crate::record::Seen;

/// How the card betrays what it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Not at all.
    #[default]
    None,
    /// Runs of text are held back until the next other access is through: a flush that came too late.
    LateFlush,
    /// The second run of text and each fourth after it never come.
    NoFlush,
    /// Two bytes written to a pair of ports are two writes.
    Narrow,
}

/// What stands in the record, and the adapter behind it. A clone is the same card.
#[derive(Clone)]
pub struct Card {
    state: Arc<Mutex<State>>,
    regions: Arc<[RegionInfo]>,
    flaw: Flaw,
}

struct State {
    adapter: Adapter,
    seen: Option<Vec<Seen>>,
    held: Vec<(u64, Vec<u8>)>,
    runs: usize,
}

impl Card {
    /// An adapter after power-on; `recorded` tells whether what it sees is kept.
    pub fn new(recorded: bool, flaw: Flaw) -> Card {
        let adapter = Adapter::new(None).unwrap();
        let region = |size| RegionInfo { size, readable: true, writable: true, mappings: Vec::new() };
        let size = |index| region_size(Region(index)).unwrap_or(0);
        let mut regions: Vec<_> = (0..9).map(|index| region(size(index))).collect();
        regions[0].mappings = vec![Mapping::whole(0, Arc::clone(adapter.framebuffer().memory()))];
        regions[6] = region(0);
        let seen = recorded.then(Vec::new);
        let state = State { adapter, seen, held: Vec::new(), runs: 0 };
        Card { state: Arc::new(Mutex::new(state)), regions: regions.into(), flaw }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Looks at the adapter itself, past all that is recorded.
    pub fn adapter<R>(&self, look: impl FnOnce(&mut Adapter) -> R) -> R {
        look(&mut self.state().adapter)
    }

    /// How long the record is.
    pub fn seen(&self) -> usize {
        self.state().seen.as_ref().map_or(0, Vec::len)
    }

    /// Adds to the record what the device does not see.
    pub fn note(&self, seen: Seen) {
        self.state().note(seen);
    }

    /// The record.
    pub fn take(&self) -> Vec<Seen> {
        self.state().seen.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl State {
    fn note(&mut self, seen: Seen) {
        if let Some(record) = &mut self.seen {
            record.push(seen);
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.note(Seen::Access(Access::write(region, offset, width, value)));
        self.adapter.write(region, offset, width, value)
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let independent = self.lanes_are_independent();
        self.note(Seen::Run { region, offset, bytes: bytes.to_vec(), independent });
        for (at, byte) in (offset..).zip(bytes) {
            self.adapter.write(region, at, Width::B1, (*byte).into())?;
        }
        Ok(())
    }

    fn release_held(&mut self) -> Result<(), Fault> {
        for (offset, bytes) in std::mem::take(&mut self.held) {
            self.write_run(Region::VGA, offset, &bytes)?;
        }
        Ok(())
    }

    /// A register behind an index port.
    fn register(&mut self, port: u64, index: u64) -> u64 {
        let adapter = &mut self.adapter;
        let mut read = |port| adapter.read(Region::VGA, port, Width::B1).unwrap_or(0xff);
        let was = read(port);
        let _ = self.adapter.write(Region::VGA, port, Width::B1, index);
        let value = self.adapter.read(Region::VGA, port + 1, Width::B1).unwrap_or(0xff);
        let _ = self.adapter.write(Region::VGA, port, Width::B1, was);
        value
    }

    /// A byte that is written is one byte of memory, whichever bytes come with it: not in planar
    /// modes, where latches, masks and functions decide.
    fn lanes_are_independent(&mut self) -> bool {
        let dispi = self.adapter.registers().dispi;
        if dispi.enabled() && dispi.read(DISPI_BPP) > 4 {
            return true;
        }
        let (memory, mode) = (self.register(0x3c4, 4), self.register(0x3ce, 5));
        let replaces = self.register(0x3ce, 1) == 0
            && self.register(0x3ce, 3) == 0
            && self.register(0x3ce, 8) == 0xff
            && mode & 3 == 0;
        let (chained, odd_even) = (memory & 8 != 0, memory & 4 == 0);
        replaces && (chained || odd_even && mode & 0x10 != 0)
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
        let mut state = self.state();
        state.note(Seen::Access(Access::read(region, offset, width)));
        state.adapter.read(region, offset, width)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let mut state = self.state();
        if self.flaw == Flaw::Narrow && region == Region::VGA && offset < 0xa_0000 && width == Width::B2 {
            state.write(region, offset, Width::B1, value & 0xff)?;
            return state.write(region, offset + 1, Width::B1, value >> 8);
        }
        state.write(region, offset, width, value)?;
        state.release_held()
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut state = self.state();
        for (at, byte) in (offset..).zip(bytes) {
            *byte = state.adapter.read(region, at, Width::B1)?.to_le_bytes()[0];
        }
        Ok(())
    }
    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut state = self.state();
        state.runs += 1;
        match self.flaw {
            Flaw::LateFlush => state.held.push((offset, bytes.to_vec())),
            Flaw::NoFlush if state.runs % 4 == 2 => {}
            _ => return state.write_run(region, offset, bytes),
        }
        Ok(())
    }
    fn reset(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        state.note(Seen::Reset);
        state.adapter.reset();
        Ok(())
    }
}
