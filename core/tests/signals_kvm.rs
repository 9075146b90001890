//! A register that asks for an eventfd while the guest runs, through the whole machine. Needs /dev/kvm.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use trapline::events::Events;
use trapline::machine::{Ending, Machine};
use trapline::parts::Parts;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::Devfn;
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::device::{Claim, Claims, Range, Signal};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Device, Fault, Port, Region, Span, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// Writes to port 0x5004 are counted, by the device or by its eventfd, which it asks for at the third of
/// them; port 0x5005 reads 1 once the eventfd counts, and its write powers off.
struct Bell {
    writes: Arc<AtomicU64>,
    rounds: Arc<AtomicU64>,
    event: Arc<OwnedFd>,
    /// What the eventfd counted so far.
    rung: Arc<AtomicU64>,
    events: Events,
}

impl Device for Bell {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        self.rounds.fetch_add(1, SeqCst);
        let mut count = [0; 8];
        if rustix::io::read(&self.event, &mut count).is_ok() {
            self.rung.fetch_add(u64::from_ne_bytes(count), SeqCst);
        }
        Ok(u64::from(self.rung.load(SeqCst) >= 3))
    }

    fn write(&mut self, _: Region, offset: u64, _: Width, _: u64) -> Result<(), Fault> {
        if offset == 1 {
            self.events.report(Event::PowerOff);
        } else if self.writes.fetch_add(1, SeqCst) == 2 {
            self.events.report(Event::Claims);
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
        let mut register = Claim::region(ports(0x5004, 0x5004), Region(0), 0);
        if self.writes.load(SeqCst) >= 3 {
            let event = Arc::clone(&self.event);
            register = register.signal(Signal { event, value: Some((Width::B1, 0x55)) });
        }
        Claims { ranges: vec![register, Claim::region(ports(0x5005, 0x5005), Region(0), 1)], bridge: None }
    }
}

#[test]
fn a_register_gets_its_eventfd_when_its_device_says_so() {
    let code = [
        0xb0, 0x55, // again: mov al, 0x55
        0xba, 0x04, 0x50, 0xee, // mov dx, 0x5004; out dx, al
        0x42, 0xec, // inc dx; in al, dx
        0x84, 0xc0, 0x74, 0xf4, // test al, al; jz again
        0xba, 0x04, 0x50, 0xb0, 0x56, 0xee, // mov dx, 0x5004; mov al, 0x56; out dx, al
        0x42, 0xee, 0xf4, 0xf4, // inc dx; out dx, al; hlt
    ];
    let vm = Arc::new(Vm::new().expect("needs /dev/kvm"));
    let image = MmapRegion::new(0x1_0000).unwrap();
    image.as_volatile_slice().write_slice(&code, 0).unwrap();
    image.as_volatile_slice().write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    let (events, published) = (Events::default(), Published::default());
    let bell = Bell {
        writes: Arc::default(),
        rounds: Arc::default(),
        event: Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap()),
        rung: Arc::default(),
        events: events.clone(),
    };
    let (writes, rounds, rung) = (bell.writes.clone(), bell.rounds.clone(), bell.rung.clone());
    let bridge = HostBridge::new(Ram::new(1 << 20).unwrap(), Arc::new(image)).unwrap();
    let parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts::platform("bell", bell),
    ];
    let mut machine = Machine::new(vm, 1, Service::Adaptive, published.clone(), parts, events).unwrap();
    let ending = machine.run(Some(Instant::now() + Duration::from_secs(30))).unwrap();
    assert_eq!(published.current().signals().count(), 1);
    machine.stop();
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(rung.load(SeqCst), 3, "it signals, each time once");
    // Each round wrote once, one way or the other, and the last write had another value.
    assert_eq!(writes.load(SeqCst) + rung.load(SeqCst), rounds.load(SeqCst) + 1);
}
