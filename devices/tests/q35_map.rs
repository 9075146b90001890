//! The chipset in an address space, and the registers that firmware touches first, in its order.

use std::sync::Arc;

use parking_lot::Mutex;
use trapline_devices::host::{Event, Events, Gsis};
use trapline_devices::pci::{Devfn, Link};
use trapline_devices::q35::{HostBridge, Lpc, Pirqs, Ram, RootPort};
use trapline_io::device::Retire;
use trapline_io::space::{
    AddressSpace, ConfigAddress, ConfigLatch, DwordSet, EndpointId, Resolved, SpaceBuilder,
};
use trapline_io::{Address, Device, Gpa, Op, Port, Trap, Width};
use vm_memory::MmapRegion;

#[derive(Default)]
struct Board(Mutex<Vec<Event>>);

impl Gsis for Board {
    fn set(&self, _gsi: u32, _level: bool) {}
}

impl Events for Board {
    fn report(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// The devices behind a map that is made anew after each topology write: what a machine does, with
/// one processor and no queue.
struct Machine {
    devices: Vec<(Devfn, DwordSet, Box<dyn Device>)>,
    space: AddressSpace,
    latch: ConfigLatch,
    board: Arc<Board>,
    /// How often the map was made.
    changes: usize,
}

impl Machine {
    fn new() -> Machine {
        let board = Arc::new(Board::default());
        let firmware = Arc::new(MmapRegion::new(0x4_0000).unwrap());
        let host = HostBridge::new(Ram::new(1 << 30).unwrap(), firmware).unwrap();
        let lpc = Lpc::new(Pirqs::new(Arc::clone(&board) as Arc<dyn Gsis>), Arc::clone(&board) as _);
        let port = RootPort::new(Link { speed: 4, lanes: 16 });
        let at = |device, function| Devfn::new(device, function).unwrap();
        let mut machine = Machine {
            devices: vec![
                (at(0, 0), HostBridge::TOPOLOGY, Box::new(host)),
                (at(0x1f, 0), Lpc::TOPOLOGY, Box::new(lpc)),
                (at(1, 0), RootPort::TOPOLOGY, Box::new(port)),
            ],
            space: AddressSpace::default(),
            latch: ConfigLatch::default(),
            board,
            changes: 0,
        };
        machine.map();
        machine
    }

    fn map(&mut self) {
        let mut builder = SpaceBuilder::default();
        for (id, (devfn, topology, device)) in (0..).map(EndpointId).zip(&self.devices) {
            builder.function(ConfigAddress(devfn.raw().into()), id, *topology);
            for claim in device.claims().ranges {
                builder.claim(id, &claim);
            }
        }
        self.space = builder.build();
        self.changes += 1;
    }

    fn carry_out(&mut self, at: Address, width: Width, op: Op) -> u64 {
        match self.space.resolve(Trap { at, width, op }, &self.latch) {
            Resolved::Latch(value) => value,
            Resolved::Unclaimed => width.all_ones(),
            Resolved::Split => panic!("{at:?} is split"),
            Resolved::Access { endpoint, access, retire } => {
                let device = &mut self.devices[usize::from(endpoint.0)].2;
                let Op::Write(value) = op else {
                    return device.read(access.region, access.offset, width).unwrap();
                };
                device.write(access.region, access.offset, width, value).unwrap();
                if retire == Retire::Topology {
                    self.map();
                }
                0
            }
        }
    }

    fn read(&mut self, port: u16, width: Width) -> u64 {
        self.carry_out(Address::Port(Port(port)), width, Op::Read)
    }

    fn out(&mut self, port: u16, width: Width, value: u64) {
        self.carry_out(Address::Port(Port(port)), width, Op::Write(value));
    }

    fn load(&mut self, gpa: u64, width: Width) -> u64 {
        self.carry_out(Address::Gpa(Gpa(gpa)), width, Op::Read)
    }

    fn store(&mut self, gpa: u64, width: Width, value: u64) {
        self.carry_out(Address::Gpa(Gpa(gpa)), width, Op::Write(value));
    }
}

#[test]
fn the_first_steps_of_firmware() {
    let mut machine = Machine::new();
    // Is there a configuration mechanism, and is it this machine's host bridge?
    machine.out(0xcf8, Width::B4, 0x8000_0000);
    assert_eq!(machine.read(0xcf8, Width::B4), 0x8000_0000);
    assert_eq!(machine.read(0xcfc, Width::B4), 0x29c0_8086);
    machine.out(0xcf8, Width::B4, 0x8000_002c);
    assert_eq!(machine.read(0xcfe, Width::B2), 0x1100);
    // Port 0x92 says that A20 is open.
    assert_eq!(machine.read(0x92, Width::B1) & 2, 2);
    // Shadow RAM, by two dwords.
    for (register, value) in [(0x90, 0x3333_3330), (0x94, 0x0033_3333)] {
        let before = machine.changes;
        machine.out(0xcf8, Width::B4, 0x8000_0000 | register);
        machine.out(0xcfc, Width::B4, value);
        assert_eq!(machine.changes, before + 1);
    }
    machine.store(0xf_0000, Width::B4, 0x5555_aaaa);
    assert_eq!(machine.load(0xf_0000, Width::B4), 0x5555_aaaa);
    // The window to configuration space in memory.
    for (register, value) in [(0x60, 0), (0x64, 0), (0x60, 0xb000_0001)] {
        machine.out(0xcf8, Width::B4, 0x8000_0000 | register);
        machine.out(0xcfc, Width::B4, value);
    }
    let lpc = 0xb000_0000 + 0xf_8000;
    assert_eq!(machine.load(lpc, Width::B4), 0x2918_8086);
    // Power management: no SMI handler is waited for.
    machine.store(lpc + 0x40, Width::B4, 0x601);
    assert_eq!(machine.read(0x630, Width::B4), 0xffff_ffff, "not on yet");
    machine.store(lpc + 0x44, Width::B1, 0x80);
    assert_eq!(machine.read(0x630, Width::B4), 0x20);
    let first = machine.read(0x608, Width::B4);
    assert!(machine.read(0x608, Width::B4) >= first);
    machine.store(lpc + 0xf0, Width::B4, 0xfed1_c001);
    assert_eq!(machine.load(0xfed1_f140, Width::B2), 0x3210);
    // Interrupt routes change no map.
    let before = machine.changes;
    machine.store(lpc + 0x60, Width::B1, 10);
    assert_eq!(machine.changes, before);
    // The adapter's window was nobody's all the time.
    assert_eq!(machine.load(0xb_8000, Width::B2), 0xffff);
}

#[test]
fn firmware_that_runs_twice_resets_by_byte_writes() {
    let mut machine = Machine::new();
    machine.out(0xcf8, Width::B4, 0x8000_0044);
    machine.out(0xcf9, Width::B1, 0x02);
    assert!(machine.board.0.lock().is_empty());
    machine.out(0xcf9, Width::B1, 0x06);
    assert_eq!(*machine.board.0.lock(), [Event::Reset]);
    assert_eq!(machine.latch.get(), 0x8000_0044, "the latch is another register");
}

#[test]
fn soft_off_through_the_ports() {
    let mut machine = Machine::new();
    for (register, value) in [(0x40, 0x601), (0x44, 0x80)] {
        machine.out(0xcf8, Width::B4, 0x8000_f800 | register);
        machine.out(0xcfc, Width::B4, value);
    }
    machine.out(0xb2, Width::B1, 2);
    assert_eq!(machine.read(0x604, Width::B2), 1);
    machine.out(0x604, Width::B2, 0x2001);
    assert_eq!(*machine.board.0.lock(), [Event::PowerOff]);
}
