//! A machine with one adapter at 00:01.0, and ports by which its guest tells and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trapline::events::Events;
use trapline::machine::{Ending, Machine};
use trapline::parts::Parts;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::{ConfigSpace, Devfn};
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::space::DwordSet;
use trapline_io::{Device, Fault, Gpa, Port, Region, Span, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::double::Double;
use crate::rival::Rival;

/// No test takes longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Tells: how often it is written is counted, and read back. Power-off. Reset. Notes 16 bits.
pub const TELL: u16 = 0x5004;
pub const OFF: u16 = 0x5005;
pub const RESET: u16 = 0x5006;
pub const NOTE: u16 = 0x5008;

struct Switch {
    told: Arc<AtomicU64>,
    notes: Arc<Mutex<Vec<u64>>>,
    events: Events,
}

impl Device for Switch {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(self.told.load(SeqCst))
    }

    fn write(&mut self, _: Region, offset: u64, _: Width, value: u64) -> Result<(), Fault> {
        match offset {
            4 => self.notes.lock().push(value),
            0 => drop(self.told.fetch_add(1, SeqCst)),
            1 => self.events.report(Event::PowerOff),
            _ => self.events.report(Event::Reset),
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let ports = Range::Ports(Span::new(Port(TELL), Port(NOTE + 1)).unwrap());
        Claims { ranges: vec![Claim::region(ports, Region(0), 0)], bridge: None }
    }
}

/// The window and the ports whose writes may be late.
pub fn zones() -> Vec<Range> {
    let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
    let window = Range::Memory(Span::new(Gpa(0xa_0000), Gpa(0xb_ffff)).unwrap());
    vec![window, ports(0x3b4, 0x3b5), ports(0x3c0, 0x3c0), ports(0x3c8, 0x3c9), ports(0x3d4, 0x3d5)]
}

/// What the guest is.
pub struct Rig {
    pub service: Service,
    /// The code of vCPU 0.
    pub first: Vec<u8>,
    /// The code of one more, which the first one starts.
    pub second: Option<Vec<u8>>,
    /// A device at 00:02.0 that comes before the adapter where both claim the same.
    pub rival: Option<Rival>,
    /// Another adapter, at 00:03.0.
    pub beside: Option<Double>,
    /// The guest's memory.
    pub ram: Ram,
}

impl Rig {
    pub fn new(code: &[&[u8]]) -> Rig {
        Rig {
            service: Service::Adaptive,
            first: code.concat(),
            second: None,
            rival: None,
            beside: None,
            ram: Ram::new(1 << 20).unwrap(),
        }
    }

    pub fn with(self, code: &[&[u8]]) -> Rig {
        Rig { second: Some(code.concat()), ..self }
    }

    /// Lets the machine run until it ends; `meanwhile` is called on a thread of its own with what the
    /// guest tells. Gives what it noted.
    pub fn run(
        self,
        adapter: impl Device + 'static,
        topology: DwordSet,
        collected: Vec<Range>,
        meanwhile: impl FnOnce(&Events, &AtomicU64) + Send,
    ) -> (Ending, Vec<u64>) {
        let vm = Arc::new(Vm::new().expect("needs /dev/kvm"));
        let image = MmapRegion::new(0x1_0000).unwrap();
        let slice = image.as_volatile_slice();
        assert!(self.first.len() <= 0x8000);
        slice.write_slice(&self.first, 0).unwrap();
        slice.write_slice(self.second.as_deref().unwrap_or(&[0xf4]), 0x8000).unwrap();
        slice.write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
        let (events, told) = (Events::default(), Arc::default());
        let notes: Arc<Mutex<Vec<u64>>> = Arc::default();
        let switch = Switch { told: Arc::clone(&told), notes: Arc::clone(&notes), events: events.clone() };
        let bridge = HostBridge::new(self.ram, Arc::new(image)).unwrap();
        let adapter = Parts::function("adapter", adapter, None, Devfn::new(1, 0).unwrap(), topology);
        let mut parts = vec![
            Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
            Parts::platform("switch", switch),
        ];
        if let Some(rival) = self.rival {
            let place = Devfn::new(2, 0).unwrap();
            parts.push(Parts::function("rival", rival, None, place, ConfigSpace::TOPOLOGY));
        }
        let zones = collected.clone();
        parts.push(Parts { collected, ..adapter });
        if let Some(beside) = self.beside {
            let place = Devfn::new(3, 0).unwrap();
            let beside = Parts::function("beside", beside, None, place, ConfigSpace::TOPOLOGY);
            parts.push(Parts { collected: zones, ..beside });
        }
        let cpus = if self.second.is_some() { 2 } else { 1 };
        let mut machine =
            Machine::new(vm, cpus, self.service, Published::default(), parts, events.clone()).unwrap();
        let ending = std::thread::scope(|scope| {
            scope.spawn(|| meanwhile(&events, &told));
            machine.run(Instant::now().checked_add(LONGEST)).unwrap()
        });
        let since = Instant::now();
        machine.stop();
        assert!(since.elapsed() < Duration::from_secs(10), "the end took {:?}", since.elapsed());
        let notes = notes.lock().clone();
        (ending, notes)
    }
}

/// Waits until `done`, and tells whether it came about in time.
pub fn wait(longest: Duration, done: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    while !done() && since.elapsed() < longest {
        std::thread::sleep(Duration::from_millis(1));
    }
    done()
}
