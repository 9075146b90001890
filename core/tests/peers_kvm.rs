//! BARs in the reach of other functions' DMA, through the whole machine. Needs /dev/kvm.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trapline::dma::{Peers, Reach};
use trapline::events::Events;
use trapline::machine::{Ending, Machine};
use trapline::parts::Parts;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Devfn, Identity, Link};
use trapline_devices::q35::{HostBridge, Ram, RootPort};
use trapline_devices::vfio::DmaError;
use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Device, Fault, Gpa, Port, Region, Span, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const MIB: u64 = 1 << 20;
/// No machine runs longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Where the card's BAR lies first, then, and where that of the other card.
const HERE: u32 = 0xe000_0000;
const THERE: u32 = 0xe100_0000;
const OTHER: u32 = 0xe300_0000;

/// What became of BARs, and of the card behind the port.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Map(u32),
    Unmap(u32),
    Reset,
}
use Step::{Map, Reset, Unmap};

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Step>>>);

impl Log {
    fn note(&self, step: Step) {
        self.0.lock().unwrap().push(step);
    }
}

impl Reach for Log {
    fn map(&self, at: Gpa, _: &Arc<MmapRegion>, offset: u64, len: u64) -> Result<(), DmaError> {
        assert_eq!((offset, len), (0, MIB));
        self.note(Map(u32::try_from(at.0).unwrap()));
        Ok(())
    }

    fn unmap(&self, at: Gpa, len: u64) -> Result<(), DmaError> {
        assert_eq!(len, MIB);
        self.note(Unmap(u32::try_from(at.0).unwrap()));
        Ok(())
    }
}

/// A function with one BAR, which is memory.
struct Card {
    config: ConfigSpace,
    memory: Arc<MmapRegion>,
    log: Log,
}

impl Card {
    fn new(log: Log) -> Card {
        let id = Identity { vendor: 0x1234, device: 1, revision: 0, class: 0x03_8000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: MIB });
        Card { config, memory: Arc::new(MmapRegion::new(1 << 20).unwrap()), log }
    }
}

impl Device for Card {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.config.read_region(offset, width) } else { Ok(0) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::CONFIG {
            self.config.write_region(offset, width, value)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.log.note(Reset);
        self.config.reset();
    }

    fn claims(&self) -> Claims {
        let memory = Arc::clone(&self.memory);
        let direct = Direct { memory, offset: 0, kind: DirectKind::Bar };
        let bar = self.config.decoded(0).map(|range| Claim::region(range, Region::bar(0), 0).direct(direct));
        Claims { ranges: bar.into_iter().collect(), bridge: None }
    }
}

/// What is written to port 0x5004 resets the machine, and the second time switches it off.
struct Switch {
    used: bool,
    events: Events,
}

impl Device for Switch {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        let used = std::mem::replace(&mut self.used, true);
        self.events.report(if used { Event::PowerOff } else { Event::Reset });
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let ports = Range::Ports(Span::new(Port(0x5004), Port(0x5004)).unwrap());
        Claims { ranges: vec![Claim::region(ports, Region(0), 0)], bridge: None }
    }
}

/// Buses and devices: a root port, the card behind it, and the other card.
const PORT: u32 = 0x0800;
const CARD: u32 = 0x1_0000;
const OTHER_CARD: u32 = 0x1000;

/// Writes a dword of the configuration space of `function`.
fn configure(function: u32, offset: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0x66, 0xb8]; // mov eax, ...
    code.extend((0x8000_0000 | function | offset).to_le_bytes());
    code.extend([0xba, 0xf8, 0x0c, 0x66, 0xef, 0x66, 0xb8]); // mov dx, 0xcf8; out dx, eax; mov eax, ...
    code.extend(value.to_le_bytes());
    code.extend([0xba, 0xfc, 0x0c, 0x66, 0xef]); // mov dx, 0xcfc; out dx, eax
    code
}

/// Lets the guest run `code`, twice since it is reset in between; what it came to in a round.
fn run(code: &[Vec<u8>]) -> Vec<Step> {
    let vm = Arc::new(Vm::new().expect("needs /dev/kvm"));
    let image = MmapRegion::new(0x1_0000).unwrap();
    let slice = image.as_volatile_slice();
    slice.write_slice(&code.concat(), 0).unwrap();
    slice.write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    let (events, published, log) = (Events::default(), Published::default(), Log::default());
    let card = Card::new(log.clone());
    let shared = vec![Arc::downgrade(&card.memory)];
    let at = |device| Devfn::new(device, 0).unwrap();
    let port = RootPort::new(Link { speed: 4, lanes: 16 });
    let bridge = HostBridge::new(Ram::new(MIB).unwrap(), Arc::new(image)).unwrap();
    let other = Card::new(Log::default());
    let parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts::platform("switch", Switch { used: false, events: events.clone() }),
        Parts::function("port", port, None, at(1), RootPort::TOPOLOGY),
        Parts::function("card", card, Some(2), at(0), ConfigSpace::TOPOLOGY),
        Parts::function("other", other, None, at(2), ConfigSpace::TOPOLOGY),
    ];
    let mut machine = Machine::new(vm, 1, Service::Adaptive, published.clone(), parts, events).unwrap();
    machine.share_bars(Peers::new(Arc::new(log.clone()), shared));
    let ending = machine.run(Instant::now().checked_add(LONGEST));
    assert_eq!(ending.unwrap(), Ending::PowerOff);
    let shows = |at: u32| published.current().direct().any(|(span, _)| span.contains(Gpa(at.into())));
    assert!(shows(HERE) && shows(OTHER), "both cards are in the map at the end");
    let steps = log.0.lock().unwrap().clone();
    machine.stop();
    assert_eq!(log.0.lock().unwrap().last(), Some(&Unmap(HERE)), "nothing stays behind");
    let (first, second) = steps.split_at(steps.len() / 2 + 1);
    assert_eq!(first, [second, &[Unmap(HERE), Reset]].concat(), "out of reach before the reset");
    second.to_vec()
}

/// What comes before: the port is open, and the other card's BAR there.
fn prepared() -> Vec<Vec<u8>> {
    vec![
        configure(PORT, 0x18, 0x0001_0100),
        configure(PORT, 0x20, 0xe1f0_e000),
        configure(PORT, 0x04, 2),
        configure(OTHER_CARD, 0x10, OTHER),
        configure(OTHER_CARD, 0x04, 2),
        configure(CARD, 0x10, HERE),
        configure(CARD, 0x04, 2),
    ]
}

const SWITCH: [u8; 6] = [0xba, 0x04, 0x50, 0xee, 0xf4, 0xf4]; // mov dx, 0x5004; out dx, al; hlt

#[test]
fn a_bar_is_mapped_anew_only_where_it_moves() {
    let mut code = prepared();
    code.extend([
        // Bus mastering, of both; a register that says nothing of BARs; and the window, as it is.
        configure(CARD, 0x04, 6),
        configure(CARD, 0x04, 2),
        configure(PORT, 0x04, 6),
        configure(CARD, 0x3c, 0xb),
        configure(PORT, 0x20, 0xe1f0_e000),
        // To another place; out of sight, and back.
        configure(CARD, 0x10, THERE),
        configure(CARD, 0x04, 0),
        configure(CARD, 0x04, 2),
        configure(PORT, 0x20, 0xe0f0_e000),
        configure(CARD, 0x10, HERE),
        SWITCH.to_vec(),
    ]);
    let moves = [Map(HERE), Unmap(HERE), Map(THERE), Unmap(THERE), Map(THERE), Unmap(THERE), Map(HERE)];
    assert_eq!(run(&code), moves);
}

#[test]
fn no_bar_is_mapped_while_its_bus_is_reset() {
    let mut code = prepared();
    code.extend([
        configure(PORT, 0x3c, 0x0040_0000),
        configure(PORT, 0x3c, 0),
        configure(CARD, 0x10, HERE),
        configure(CARD, 0x04, 2),
        SWITCH.to_vec(),
    ]);
    assert_eq!(run(&code), [Map(HERE), Unmap(HERE), Reset, Map(HERE)]);
}
