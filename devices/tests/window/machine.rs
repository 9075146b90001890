//! A machine of one card and two vCPUs, all on one thread: the real access path and the real function, and
//! in the place of KVM and of the machine's topology what they do, step by step.
//!
//! What a guest's access meets first is a memory slot, then a coalesced zone, then a trap: as in KVM.
#![allow(dead_code, reason = "each test uses its own part")]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use trapline_devices::assigned::{Function, Options};
use trapline_devices::legacy::Ways;
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Direct, DirectKind, Range, Retire, Target};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigAddress, ConfigLatch, DwordSet, EndpointId, Resolved, SpaceBuilder};
use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Region, Span, Trap, Width};
use vm_memory::{Bytes, VolatileMemory};

use crate::card::Card;
use crate::record::CPUS;
use crate::ring::Ring;

const OWNER: EndpointId = EndpointId(0);
const PAGE: u64 = 4096;

/// How a machine is made.
pub struct Setting {
    pub ways: Ways,
    pub service: Service,
    /// Places in the function's queue.
    pub queue: usize,
    /// A worker is there: posted writes wait until [`Machine::work`].
    pub worker: bool,
    pub ring: Ring,
    pub flaw: Flaw,
}

/// What the machine does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// A change of the map publishes the map without the card before it drains.
    HidesFirst,
    /// What was collected is forgotten when collecting ends.
    ForgetsRing,
}

/// How an access was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Through a memory slot of this kind.
    Slot(DirectKind),
    /// The kernel collected it.
    Collected,
    /// It trapped.
    Trapped(Retire),
    /// It trapped, and nothing decodes it.
    Nowhere,
}

/// See the module's page.
pub struct Machine {
    map: Arc<Map>,
    endpoint: Arc<Endpoint>,
    bell: Arc<Doorbell>,
    worker: bool,
    paths: Vec<Path>,
    latch: Arc<ConfigLatch>,
    now: Instant,
}

/// What the vCPUs share: the map, and the right to change it.
struct Map {
    endpoint: OnceLock<Arc<Endpoint>>,
    topology: DwordSet,
    published: Published,
    ring: Ring,
    zones: AtomicBool,
    feed: Arc<Feed>,
    claims: Mutex<Vec<Claim>>,
    mode: Mutex<Mode>,
    flaw: Flaw,
}

impl Machine {
    /// A machine with `card` at 00:02.0, which decodes nothing yet.
    pub fn new(card: Card, setting: Setting) -> Machine {
        let options = Options { ways: setting.ways, ..Options::default() };
        let mut function = Function::open(card, options).unwrap();
        if let Some(window) = function.window() {
            window.watch(std::thread::current());
        }
        let published = Published::default();
        let feed = Arc::new(Feed::new(Box::new(setting.ring.clone()), &published, OWNER));
        let map = Arc::new(Map {
            endpoint: OnceLock::new(),
            topology: function.topology(),
            published,
            ring: setting.ring,
            zones: AtomicBool::new(false),
            feed: Arc::clone(&feed),
            claims: Mutex::default(),
            mode: Mutex::default(),
            flaw: setting.flaw,
        });
        let completions = Completions::new(2);
        let bell = Arc::new(Doorbell::new().unwrap());
        let endpoint = Endpoint::new("card", Box::new(function), completions.clone(), Arc::clone(&bell));
        let endpoint = Arc::new(endpoint.with_service(setting.service).with_capacity(setting.queue));
        endpoint.feed_from(feed);
        assert!(map.endpoint.set(Arc::clone(&endpoint)).is_ok());
        map.follow();
        let latch = Arc::new(ConfigLatch::default());
        let path = |cpu: usize| {
            let caller = completions.caller(CallerId(u16::try_from(cpu).unwrap())).unwrap();
            let endpoints = [Arc::clone(&endpoint)];
            let reader = map.published.reader();
            Path::new(reader, Arc::clone(&latch), Arc::new(endpoints), map.clone(), caller)
        };
        let paths = (0..CPUS).map(path).collect();
        let worker = setting.worker;
        if worker {
            bell.awake();
        }
        Machine { map, endpoint, bell, worker, paths, latch, now: Instant::now() }
    }

    /// BAR 0 at 0xe0000000, BAR 2 at 0xe1000000, everything decoded.
    pub fn place(&mut self) {
        for (offset, width, value) in
            [(0x10, Width::B4, 0xe000_0000), (0x18, Width::B4, 0xe100_0000), (4, Width::B2, 3)]
        {
            self.config(0, Access::write(Region::CONFIG, offset, width, value));
        }
    }

    /// One access to the card's configuration space.
    pub fn config(&mut self, cpu: usize, access: Access) -> u64 {
        let latch = 0x8000_1000 | access.offset & 0xfc;
        self.trap(cpu, port(0xcf8, Width::B4, Op::Write(latch)));
        self.trap(cpu, port(0xcfc + (access.offset & 3) as u16, access.width, access.op))
    }

    fn trap(&mut self, cpu: usize, trap: Trap) -> u64 {
        self.paths[cpu].carry_out(trap)
    }

    /// One access of a guest's: the value read, zero for a write.
    pub fn access(&mut self, cpu: usize, trap: Trap) -> (How, u64) {
        if let Address::Gpa(gpa) = trap.at {
            if let Some((first, direct)) = self.map.slot(gpa, trap.width) {
                return (How::Slot(direct.kind), memory(&direct, gpa.0 - first, trap));
            }
            // What crosses a page is two accesses for a processor; which bytes go first nobody promises.
            if gpa.0 / PAGE != (gpa.0 + trap.width.bytes() as u64 - 1) / PAGE {
                return self.halves(cpu, trap);
            }
        }
        if self.map.zones.load(Relaxed) && matches!(trap.op, Op::Write(_)) && self.map.ring.collect(trap) {
            return (How::Collected, 0);
        }
        let how = match self.map.published.current().resolve(trap, &self.latch) {
            Resolved::Access { retire, .. } => How::Trapped(retire),
            _ => How::Nowhere,
        };
        (how, self.trap(cpu, trap))
    }

    fn halves(&mut self, cpu: usize, trap: Trap) -> (How, u64) {
        let width = trap.width.half().unwrap();
        let shift = 8 * width.bytes();
        let (low, high) = match trap.op {
            Op::Read => (Op::Read, Op::Read),
            Op::Write(value) => (Op::Write(value & width.all_ones()), Op::Write(value >> shift)),
        };
        let behind = match trap.at {
            Address::Gpa(gpa) => Address::Gpa(Gpa(gpa.0 + width.bytes() as u64)),
            at => at,
        };
        let (how, first) = self.access(cpu, Trap { at: trap.at, width, op: low });
        let (_, second) = self.access(cpu, Trap { at: behind, width, op: high });
        (how, first | second << shift)
    }

    /// The worker's turn.
    pub fn work(&mut self) {
        if self.worker {
            self.endpoint.serve();
            self.bell.awake();
        }
    }

    /// The mode of the window now.
    pub fn mode(&self) -> Mode {
        *self.map.mode.lock().unwrap()
    }

    /// A beat of the clock after `pause`, and what follows from it.
    pub fn tick(&mut self, pause: Duration) {
        self.now += pause;
        let now = self.now;
        if let Some(wish) = self.map.window(|window| window.tick(now))
            && wish != self.mode()
        {
            self.turn(wish);
        }
    }

    /// All vCPUs are parked, and the window turned.
    pub fn turn(&mut self, to: Mode) {
        self.map.turn(to);
    }

    /// The machine is reset.
    pub fn reset(&mut self) {
        let map = &self.map;
        map.show(false);
        map.zones.store(false, Relaxed);
        self.endpoint.discard();
        map.feed.set_active(false);
        self.endpoint.with_device(|device| device.reset());
        self.latch.set(0);
        map.follow();
    }

    /// The end of a run; tells whether nothing was left behind.
    pub fn end(&mut self) -> bool {
        self.tick(Duration::from_millis(16));
        self.turn(Mode::Native);
        !self.endpoint.has_work() && !self.map.ring.holds_writes() && self.map.feed.strays() == 0
    }

    /// How many accesses the device refused.
    pub fn faults(&self) -> u64 {
        self.endpoint.faults()
    }
}

impl Map {
    fn endpoint(&self) -> &Endpoint {
        self.endpoint.get().unwrap()
    }

    /// A function that may not be fast has no window to be turned.
    fn window<R>(&self, f: impl FnOnce(&mut dyn Window) -> R) -> Option<R> {
        self.endpoint().with_device(|device| device.window().map(f))
    }

    /// Publishes what the function claims, or nothing of it.
    fn show(&self, shown: bool) {
        let mut builder = SpaceBuilder::default();
        builder.function(ConfigAddress(0x10), OWNER, self.topology);
        for (first, last, target) in
            [(0xcf8, 0xcfb, Target::ConfigAddress), (0xcfc, 0xcff, Target::ConfigData)]
        {
            let range = Range::Ports(Span::new(Port(first), Port(last)).unwrap());
            let mut claim = Claim::region(range, Region::CONFIG, 0);
            claim.target = target;
            builder.claim(OWNER, &claim);
        }
        for claim in self.claims.lock().unwrap().iter().filter(|_| shown) {
            builder.claim(OWNER, claim);
        }
        self.published.publish(builder.build());
    }

    /// Asks the function what it claims, and publishes that.
    fn follow(&self) {
        *self.claims.lock().unwrap() = self.endpoint().with_device(|device| device.claims()).ranges;
        *self.mode.lock().unwrap() = self.window(|window| window.mode()).unwrap_or_default();
        self.show(true);
    }

    /// The slot that holds all of an access, with its first address.
    fn slot(&self, at: Gpa, width: Width) -> Option<(u64, Direct)> {
        let last = Gpa(at.0 + width.bytes() as u64 - 1);
        let space = self.published.current();
        let mut slots = space.direct();
        let (span, direct) = slots.find(|(span, _)| span.first() <= at && last <= span.last())?;
        Some((span.first().0, direct.clone()))
    }

    fn turn(&self, to: Mode) {
        let forgets = self.flaw == Flaw::ForgetsRing && !to.collects();
        if !forgets {
            self.endpoint().drain();
        }
        if !to.collects() {
            self.zones.store(false, Relaxed);
            if forgets {
                while self.ring.pop().is_some() {}
            }
            self.feed.set_active(false);
        }
        self.window(|window| window.turn(to));
        self.follow();
        if self.mode.lock().unwrap().collects() {
            self.feed.set_active(true);
            self.zones.store(true, Relaxed);
        }
    }

    fn end_shadow(&self) {
        if *self.mode.lock().unwrap() == Mode::Shadowed {
            self.turn(Mode::Coalesced);
        }
    }
}

impl Topology for Map {
    fn change(&self, caller: &mut Caller, _: EndpointId, access: Access) {
        // To ask drains too, so that nothing is left for the flaw to lose: no other vCPU runs here meanwhile.
        let asks = self.flaw != Flaw::HidesFirst || access.region != Region::CONFIG;
        if asks && self.endpoint().call_admitted(caller, access) {
            return;
        }
        if access.region != Region::CONFIG {
            self.end_shadow();
            self.endpoint().call(caller, access);
            return;
        }
        if self.flaw != Flaw::HidesFirst {
            self.endpoint().drain();
            self.end_shadow();
        }
        self.show(false);
        self.endpoint().drain();
        self.endpoint().call(caller, access);
        self.follow();
    }
}

/// A guest's load or store in a slot.
fn memory(direct: &Direct, inside: u64, trap: Trap) -> u64 {
    let at = usize::try_from(direct.offset + inside).unwrap();
    let slice = direct.memory.get_slice(at, trap.width.bytes()).unwrap();
    let mut bytes = [0; 8];
    let lanes = &mut bytes[..trap.width.bytes()];
    match trap.op {
        Op::Read => {
            slice.read_slice(lanes, 0).unwrap();
            u64::from_le_bytes(bytes)
        }
        Op::Write(value) => {
            lanes.copy_from_slice(&value.to_le_bytes()[..lanes.len()]);
            slice.write_slice(lanes, 0).unwrap();
            0
        }
    }
}

/// An access to a port.
pub fn port(at: u16, width: Width, op: Op) -> Trap {
    Trap { at: Address::Port(Port(at)), width, op }
}

/// An access to memory.
pub fn gpa(at: u64, width: Width, op: Op) -> Trap {
    Trap { at: Address::Gpa(Gpa(at)), width, op }
}
