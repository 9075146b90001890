//! A machine for tests: RAM, a page at the reset vector, and one toy device behind a real path.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range, Retire};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::{Access, Device, Fault, Gpa, Op, Port, Region, Span, Width};
use trapline_vcpu::slots::wanted;
use trapline_vcpu::{Exits, OpenError, Slots, Vcpus, Vm, World};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::code::{Code, descriptor_table};

/// Length of the RAM at 0.
pub const RAM: u64 = 0xa0000;
const RAM_LEN: usize = 0xa0000;
/// Where execution begins, in real mode with all segments 0.
pub const START: u32 = 0x1000;
/// The port by which a guest tells its test a byte.
pub const TELL: u8 = 0xf4;
/// First of 256 ports of the device; accesses are strict.
pub const PORTS: u16 = 0x500;
/// First of 16 ports of the device; writes are posted.
pub const POSTED: u16 = 0x600;
/// First of 16 ports of the device; writes are topology changes.
pub const TOPOLOGY: u16 = 0x700;
/// Memory of the device, 64 KiB.
pub const WINDOW: u32 = 0xb0000;

/// The regions of the device.
pub const PORT_REGION: Region = Region(0);
pub const WINDOW_REGION: Region = Region(1);
pub const POSTED_REGION: Region = Region(2);
pub const TOPOLOGY_REGION: Region = Region(3);
const TELL_REGION: Region = Region(4);
/// What lies behind RAM where its slot was taken away.
pub const RAM_REGION: Region = Region(5);

/// A port that counts its reads: each gives the next number in every byte.
pub const COUNTING: u16 = PORTS + 0x80;
/// A port that takes 20 ms for a read.
pub const SLOW: u16 = PORTS + 0x90;

/// How long a guest may take to do what it should.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the byte at this offset of the device reads as.
pub fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(7).wrapping_add(3) & 0xff) as u8
}

/// The little-endian value of the pattern.
pub fn pattern_value(offset: u64, width: Width) -> u64 {
    (0..width.bytes() as u64).rev().fold(0, |value, i| value << 8 | u64::from(pattern(offset + i)))
}

/// A machine without KVM is a skipped test, and one line says so.
pub fn kvm() -> Option<Arc<Vm>> {
    match Vm::new() {
        Ok(vm) => Some(Arc::new(vm)),
        Err(error @ (OpenError::Missing | OpenError::Forbidden)) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the vCPUs reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Shutdown(usize),
    Failed(usize, String),
    NoMemory(usize),
}

struct Reports(Mutex<Sender<Report>>);

impl Exits for Reports {
    fn shutdown(&self, vcpu: usize) {
        let _ = self.0.lock().unwrap().send(Report::Shutdown(vcpu));
    }
    fn failed(&self, vcpu: usize, text: &str) {
        let _ = self.0.lock().unwrap().send(Report::Failed(vcpu, text.into()));
    }
    fn no_memory(&self, vcpu: usize, _: Option<Gpa>) {
        let _ = self.0.lock().unwrap().send(Report::NoMemory(vcpu));
    }
}

/// Notes what it is asked, and answers with the pattern.
struct Toy {
    log: Arc<Mutex<Vec<Access>>>,
    told: Sender<u8>,
    counted: u64,
    /// Reads of the window wait for this to be unlocked.
    gate: Arc<Mutex<()>>,
}

impl Device for Toy {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.log.lock().unwrap().push(Access::read(region, offset, width));
        if region == WINDOW_REGION {
            drop(self.gate.lock().unwrap());
        }
        if (region, offset) == (PORT_REGION, u64::from(SLOW - PORTS)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if (region, offset) == (PORT_REGION, u64::from(COUNTING - PORTS)) {
            self.counted += 1;
            return Ok((self.counted & 0xff) * 0x0101_0101_0101_0101);
        }
        Ok(pattern_value(offset, width))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == TELL_REGION {
            let _ = self.told.send((value & 0xff) as u8);
        } else {
            self.log.lock().unwrap().push(Access::write(region, offset, width, value));
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// A topology that knows the machine's shared parts.
pub type Change = Box<dyn Fn(&Parts, &mut Caller, Access) + Send + Sync>;

struct Changes {
    parts: Parts,
    change: Change,
}

impl Topology for Changes {
    fn change(&self, caller: &mut Caller, _: EndpointId, access: Access) {
        (self.change)(&self.parts, caller, access);
    }
}

/// What a topology change works on.
#[derive(Clone)]
pub struct Parts {
    pub vm: Arc<Vm>,
    pub world: Arc<World>,
    pub slots: Arc<Mutex<Slots>>,
    pub published: Published,
    pub endpoint: Arc<Endpoint>,
    pub ram: Arc<MmapRegion>,
    pub rom: Arc<MmapRegion>,
}

/// The machine.
pub struct Machine {
    pub parts: Parts,
    pub vcpus: Vcpus,
    pub log: Arc<Mutex<Vec<Access>>>,
    pub gate: Arc<Mutex<()>>,
    told: Receiver<u8>,
    reports: Receiver<Report>,
}

impl Machine {
    /// A machine with this code in its RAM, stood ready; `None` without KVM.
    pub fn new(cpus: u16, code: Vec<Code>) -> Option<Machine> {
        Machine::with_change(cpus, code, Box::new(|_, _, _| panic!("no topology change was expected")))
    }

    /// The same, and what a write to the ports at [`TOPOLOGY`] does.
    pub fn with_change(cpus: u16, code: Vec<Code>, change: Change) -> Option<Machine> {
        let vm = kvm()?;
        let ram = Arc::new(MmapRegion::new(RAM_LEN).unwrap());
        let rom = Arc::new(MmapRegion::new(0x1000).unwrap());
        let pieces = code.into_iter().map(Code::done).chain([descriptor_table()]);
        for (at, bytes) in pieces {
            ram.as_volatile_slice().write_slice(&bytes, at as usize).unwrap();
        }
        // jmp 0:START
        let [low, high, ..] = START.to_le_bytes();
        rom.as_volatile_slice().write_slice(&[0xea, low, high, 0, 0], 0xff0).unwrap();

        let (log, gate): (Arc<Mutex<Vec<Access>>>, Arc<Mutex<()>>) = Default::default();
        let (tell, told) = channel();
        let toy = Toy { log: log.clone(), told: tell, counted: 0, gate: gate.clone() };
        let completions = Completions::new(cpus + 1);
        let bell = Arc::new(Doorbell::new().unwrap());
        let endpoint = Arc::new(Endpoint::new("toy", Box::new(toy), completions.clone(), bell));
        let endpoints: Arc<[Arc<Endpoint>]> = Arc::new([endpoint.clone()]);
        let world = Arc::new(World::new(usize::from(cpus)));
        let slots = Arc::new(Mutex::new(Slots::new(vm.clone())));
        let published = Published::default();
        let parts = Parts { vm: vm.clone(), world: world.clone(), slots, published, endpoint, ram, rom };
        parts.publish(Some(0..RAM));

        let topology: Arc<dyn Topology> = Arc::new(Changes { parts: parts.clone(), change });
        let latch = Arc::new(ConfigLatch::default());
        let path = |cpu| {
            let caller = completions.caller(CallerId(cpu)).unwrap();
            let reader = parts.published.reader();
            Path::new(reader, latch.clone(), endpoints.clone(), topology.clone(), caller)
        };
        let (report, reports) = channel();
        let exits = Arc::new(Reports(Mutex::new(report)));
        let vcpus = Vcpus::spawn(vm, world, (0..cpus).map(path).collect(), exits).unwrap();
        Some(Machine { parts, vcpus, log, gate, told, reports })
    }

    /// A machine that runs.
    pub fn started(cpus: u16, code: Vec<Code>) -> Option<Machine> {
        let machine = Machine::new(cpus, code)?;
        machine.parts.world.release();
        Some(machine)
    }

    /// Waits for what the guest tells next.
    #[track_caller]
    pub fn told(&self) -> u8 {
        match self.told.recv_timeout(PATIENCE) {
            Ok(value) => value,
            Err(_) => panic!("the guest tells nothing; reported: {:?}", self.reports.try_recv()),
        }
    }

    /// What the guest told in between, if anything.
    pub fn told_already(&self) -> Option<u8> {
        self.told.try_recv().ok()
    }

    /// Waits for what comes first: what the guest tells next, or the next report of a vCPU.
    #[track_caller]
    pub fn told_or_reported(&self) -> Result<u8, Report> {
        let since = Instant::now();
        loop {
            if let Some(value) = self.told_already() {
                return Ok(value);
            }
            if let Ok(report) = self.reports.try_recv() {
                return Err(report);
            }
            assert!(since.elapsed() < PATIENCE, "neither the guest nor a vCPU says anything");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the device has been asked something since [`Machine::take_log`]: behind a gate that is held,
    /// a vCPU is in the device then, and stays there.
    #[track_caller]
    pub fn await_access(&self) {
        let since = Instant::now();
        while self.log.lock().unwrap().is_empty() {
            assert!(since.elapsed() < PATIENCE, "no access comes");
            std::thread::yield_now();
        }
    }

    /// Waits for the next report of a vCPU.
    #[track_caller]
    pub fn reported(&self) -> Report {
        self.reports.recv_timeout(PATIENCE).expect("no vCPU reports anything")
    }

    /// What the device saw, but the telling; forgets it.
    pub fn take_log(&self) -> Vec<Access> {
        self.parts.endpoint.drain();
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// The dword of RAM at `at`.
    pub fn ram(&self, at: u32) -> u32 {
        self.parts.ram.as_volatile_slice().read_obj(at as usize).unwrap()
    }

    /// Parks, resets the vCPUs and the chips, and lets go.
    pub fn reset(&self) {
        let mut guard = self.parts.world.lock();
        let parked = guard.park().unwrap();
        self.vcpus.reset(&parked).unwrap();
    }

    /// Stops and joins.
    pub fn stop(self) {
        self.parts.world.stop();
        self.vcpus.join().unwrap();
    }
}

impl Parts {
    /// The address space with RAM mapped on `direct`; the rest of RAM traps.
    pub fn space(&self, direct: Option<std::ops::Range<u64>>) -> AddressSpace {
        let mut builder = SpaceBuilder::default();
        let me = EndpointId(0);
        let ports = |first: u16, len| Range::Ports(Span::of_len(Port(first), len).unwrap());
        let memory = |first, len| Range::Memory(Span::of_len(Gpa(first), len).unwrap());
        let direct_claim = |range, memory: &Arc<MmapRegion>, offset, kind| {
            Claim::region(range, RAM_REGION, offset).direct(Direct { memory: memory.clone(), offset, kind })
        };
        builder.claim(me, &Claim::region(ports(PORTS, 256), PORT_REGION, 0));
        builder.claim(me, &Claim::region(ports(POSTED, 16), POSTED_REGION, 0).retire(Retire::Posted));
        builder.claim(me, &Claim::region(ports(TOPOLOGY, 16), TOPOLOGY_REGION, 0).retire(Retire::Topology));
        builder.claim(me, &Claim::region(ports(u16::from(TELL), 1), TELL_REGION, 0));
        builder.claim(me, &Claim::region(memory(u64::from(WINDOW), 0x10000), WINDOW_REGION, 0));
        builder.claim(me, &direct_claim(memory(0xffff_f000, 0x1000), &self.rom, 0, DirectKind::Rom));
        if let Some(range) = direct {
            let len = range.end - range.start;
            let claim = direct_claim(memory(range.start, len), &self.ram, range.start, DirectKind::Ram);
            builder.claim(me, &claim);
        }
        builder.claim(me, &Claim::region(memory(0, RAM), RAM_REGION, 0));
        builder.build()
    }

    /// Publishes [`Parts::space`] and brings the slots into line.
    pub fn publish(&self, direct: Option<std::ops::Range<u64>>) {
        let space = self.space(direct);
        let wanted = wanted(&space);
        let mut slots = self.slots.lock().unwrap();
        slots.remove_unwanted(&wanted).unwrap();
        self.published.publish(space);
        slots.add_missing(&wanted).unwrap();
    }
}

/// The writes in a log.
pub fn writes(log: &[Access]) -> Vec<(Region, u64, Width, u64)> {
    let write = |access: &Access| match access.op {
        Op::Write(value) => Some((access.region, access.offset, access.width, value)),
        Op::Read => None,
    };
    log.iter().filter_map(write).collect()
}
