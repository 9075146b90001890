//! A test double of a function with legacy VGA: text cells, a font behind the map mask, a BAR.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range, Retire};
use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Device, Fault, Gpa, Op, Port, Region, Span, Width};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const WINDOW: u64 = 0xa_0000;
const TEXT: u64 = 0xb_8000;
const TEXT_SIZE: usize = 0x8000;
/// Where the text window begins in the whole one.
const TEXT_AT: usize = 0x1_8000;
const REST: Duration = Duration::from_millis(250);

/// What the double wishes for when it has had traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    Always(Mode),
    /// Coalesced and shadowed in turn, one a beat.
    Alternating,
}

/// What a test can see of it, at any time.
#[derive(Default)]
pub struct Seen {
    /// What the card holds, behind the window, plane 2 apart.
    pub cells: Mutex<Vec<u8>>,
    pub font: Mutex<Vec<u8>>,
    /// Writes to the window that came while memory decode was off, and changes of the map under a shadow.
    pub wrong: AtomicU64,
    pub ticks: AtomicU64,
    pub turns: AtomicU64,
    pub shadows: AtomicU64,
    pub resets: AtomicU64,
    pub regained: AtomicU64,
    pub bar: AtomicU64,
    /// The clock is called for the first traffic alone.
    pub calls_once: AtomicBool,
    clock: Mutex<Option<Thread>>,
    called: AtomicBool,
}

impl Seen {
    pub fn wake(&self) {
        if let Some(clock) = &*self.clock.lock() {
            clock.unpark();
        }
    }

    pub fn word(&self, at: usize) -> u16 {
        let cells = self.cells.lock();
        u16::from_le_bytes([cells[at], cells[at + 1]])
    }
}

pub struct Double {
    config: ConfigSpace,
    want: Want,
    mode: Mode,
    map_mask: u64,
    index: u64,
    shadow: Arc<MmapRegion>,
    traffic: Option<Instant>,
    seen: Arc<Seen>,
}

impl Double {
    pub fn new(want: Want) -> (Double, Arc<Seen>) {
        let id = Identity { vendor: 0x1234, device: 1, revision: 0, class: 0x03_0000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 });
        let seen = Arc::new(Seen::default());
        *seen.cells.lock() = vec![0; 0x2_0000];
        *seen.font.lock() = vec![0; 0x2_0000];
        let double = Double {
            config,
            want,
            mode: Mode::Resting,
            map_mask: 3,
            index: 2,
            shadow: Arc::new(MmapRegion::new(TEXT_SIZE).unwrap()),
            traffic: None,
            seen: Arc::clone(&seen),
        };
        (double, seen)
    }

    fn is_text(&self) -> bool {
        self.map_mask == 3
    }

    fn text(cells: &mut [u8]) -> &mut [u8] {
        &mut cells[TEXT_AT..][..TEXT_SIZE]
    }

    /// What the guest has written goes to the card.
    fn flush(&mut self) {
        if self.mode == Mode::Shadowed {
            let mut now = vec![0; TEXT_SIZE];
            self.shadow.as_volatile_slice().read_slice(&mut now, 0).unwrap();
            let mut cells = self.seen.cells.lock();
            let sent = Double::text(&mut cells);
            if sent != now {
                sent.copy_from_slice(&now);
                self.traffic = Some(Instant::now());
            }
        }
    }

    fn write_window(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if !self.config.command().memory() {
            self.seen.wrong.fetch_add(1, SeqCst);
        }
        let at = usize::try_from(offset - WINDOW).unwrap();
        let plane = if self.is_text() { &self.seen.cells } else { &self.seen.font };
        plane.lock()[at..at + width.bytes()].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }

    fn had_traffic(&mut self) {
        self.traffic = Some(Instant::now());
        if !self.mode.collects() && !self.seen.called.swap(true, SeqCst) {
            self.seen.wake();
        }
    }
}

impl Device for Double {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => return self.config.read_region(offset, width),
            Region::VGA => self.had_traffic(),
            _ => {}
        }
        let Some(at) = offset.checked_sub(WINDOW).filter(|_| region == Region::VGA) else { return Ok(0) };
        let at = usize::try_from(at).unwrap();
        let mut bytes = [0; 8];
        let cells = self.seen.cells.lock();
        bytes[..width.bytes()].copy_from_slice(&cells[at..at + width.bytes()]);
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.flush();
        match (region, offset) {
            (Region::CONFIG, _) => {
                let shadowed = self.mode == Mode::Shadowed;
                self.seen.wrong.fetch_add(u64::from(shadowed), SeqCst);
                return self.config.write_region(offset, width, value).map(drop);
            }
            (Region::VGA, WINDOW..) => {
                self.had_traffic();
                return self.write_window(offset, width, value);
            }
            (Region::VGA, 0x3c4) => {
                self.index = value & 0xff;
                if width == Width::B2 && self.index == 2 {
                    self.map_mask = value >> 8;
                }
            }
            (Region::VGA, 0x3c5) if self.index == 2 => self.map_mask = value,
            (Region::VGA, _) => {}
            _ => drop(self.seen.bar.fetch_add(1, SeqCst)),
        }
        assert!(self.is_text() || self.mode != Mode::Shadowed, "let through in spite of `admits`");
        Ok(())
    }

    fn reset(&mut self) {
        self.config.reset();
        self.seen.cells.lock().fill(0);
        self.seen.font.lock().fill(0);
        (self.mode, self.map_mask, self.traffic) = (Mode::Resting, 3, None);
        self.seen.resets.fetch_add(1, SeqCst);
    }

    fn claims(&self) -> Claims {
        let command = self.config.command();
        let mut ranges = Vec::new();
        let memory = |first, last| Range::Memory(Span::new(Gpa(first), Gpa(last)).unwrap());
        let vga = |range, offset| Claim::region(range, Region::VGA, offset);
        let retire = if self.mode.collects() { Retire::Posted } else { Retire::Strict };
        if command.memory() && self.mode == Mode::Shadowed {
            let direct = Direct { memory: Arc::clone(&self.shadow), offset: 0, kind: DirectKind::Shadow };
            ranges.push(vga(memory(TEXT, TEXT + TEXT_SIZE as u64 - 1), TEXT).direct(direct));
        }
        if command.memory() {
            ranges.push(vga(memory(WINDOW, 0xb_ffff), WINDOW).retire(retire));
        }
        let guarded = if self.mode == Mode::Shadowed { Retire::Topology } else { Retire::Strict };
        let bar = self.config.decoded(0).map(|range| Claim::region(range, Region::bar(0), 0));
        ranges.extend(bar.map(|claim| claim.retire(guarded)));
        if command.io() {
            let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
            ranges.push(vga(ports(0x3c4, 0x3c5), 0x3c4).retire(guarded));
            ranges.push(vga(ports(0x3d4, 0x3d5), 0x3d4).retire(retire));
        }
        Claims { ranges, bridge: None }
    }

    fn window(&mut self) -> Option<&mut dyn Window> {
        Some(self)
    }
}

impl Window for Double {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn watch(&mut self, clock: Thread) {
        assert!(self.seen.clock.lock().replace(clock).is_none(), "watched twice");
    }

    fn tick(&mut self, now: Instant) -> Mode {
        self.seen.ticks.fetch_add(1, SeqCst);
        self.seen.called.fetch_and(self.seen.calls_once.load(SeqCst), SeqCst);
        self.flush();
        if self.traffic.is_none_or(|last| now.saturating_duration_since(last) > REST) {
            return Mode::Resting;
        }
        match self.want {
            Want::Always(Mode::Shadowed) if !self.is_text() => Mode::Coalesced,
            Want::Always(mode) => mode,
            Want::Alternating if self.mode == Mode::Coalesced && self.is_text() => Mode::Shadowed,
            Want::Alternating => Mode::Coalesced,
        }
    }

    fn turn(&mut self, to: Mode) {
        self.seen.turns.fetch_add(1, SeqCst);
        self.flush();
        if to == Mode::Shadowed && !self.is_text() {
            return;
        }
        if to == Mode::Shadowed {
            let mut cells = self.seen.cells.lock();
            self.shadow.as_volatile_slice().write_slice(Double::text(&mut cells), 0).unwrap();
            self.seen.shadows.fetch_add(1, SeqCst);
        }
        self.mode = to;
    }

    fn regained(&mut self) {
        self.seen.regained.fetch_add(1, SeqCst);
    }

    fn admits(&self, access: Access) -> bool {
        let Op::Write(value) = access.op else { return true };
        let mask = match (access.region, access.offset, access.width) {
            (Region::VGA, 0x3c4, Width::B2) if value & 0xff == 2 => value >> 8,
            (Region::VGA, 0x3c5, Width::B1) if self.index == 2 => value,
            (Region::VGA, ..) => 3,
            _ => 0,
        };
        self.mode != Mode::Shadowed || mask == 3
    }
}
