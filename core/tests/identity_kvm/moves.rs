//! A guest of a few instructions that moves what is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trapline::events::Events;
use trapline::firmware::placement::survey;
use trapline::identity::{Ground, HostAddresses, arrange};
use trapline::machine::{Ending, Error, Machine};
use trapline::parts::Parts;
use trapline_devices::host::{self, Event, Events as _};
use trapline_devices::pci::{BarKind, ConfigSpace, Devfn, Moves};
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::space::{AddressSpace, ConfigLatch, Resolved};
use trapline_io::{Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::card::Card;

const HOME: u64 = 0xf600_0000;
const AWAY: u32 = 0xd000_0000;

/// A write to port 0x5004 powers off.
struct Switch(Events);

impl Device for Switch {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Err(Fault::NoRegister)
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        self.0.report(Event::PowerOff);
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let port = Range::Ports(Span::of_len(Port(0x5004), 1).unwrap());
        Claims { ranges: vec![Claim::region(port, Region(0), 0)], bridge: None }
    }
}

/// Writes a dword of the configuration space of 00:01.0.
fn configure(offset: u8, value: u32) -> Vec<u8> {
    let mut code = vec![0x66, 0xb8]; // mov eax, ...
    code.extend((0x8000_0800 | u32::from(offset)).to_le_bytes());
    code.extend([0xba, 0xf8, 0x0c, 0x66, 0xef, 0x66, 0xb8]); // mov dx, 0xcf8; out dx, eax; mov eax, ...
    code.extend(value.to_le_bytes());
    code.extend([0xba, 0xfc, 0x0c, 0x66, 0xef]); // mov dx, 0xcfc; out dx, eax
    code
}

/// Switches decode on, moves the BAR, and switches the machine off, if it comes so far.
fn run(moves: Moves) -> Option<(Result<Ending, Error>, Arc<AddressSpace>)> {
    let vm = match Vm::new() {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let mut code = [configure(4, 2), configure(0x10, AWAY)].concat();
    // mov cx, 200; again: in al, 0x80; loop again: a while in which the machine may end
    code.extend([0xb9, 0xc8, 0x00, 0xe4, 0x80, 0xe2, 0xfc]);
    code.extend([0xba, 0x04, 0x50, 0xee, 0xf4]); // mov dx, 0x5004; out dx, al; hlt
    let image = MmapRegion::new(0x1_0000).unwrap();
    image.as_volatile_slice().write_slice(&code, 0).unwrap();
    image.as_volatile_slice().write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    let (events, published) = (Events::default(), Published::default());
    let ram = Ram::new(1 << 20).unwrap();
    let bridge = HostBridge::new(ram.clone(), Arc::new(image)).unwrap();
    let card = Card::new(&[(0, BarKind::Memory32 { prefetchable: false }, 16 << 20)]);
    let at = Devfn::new(1, 0).unwrap();
    let card = Parts::function("card", card, None, at, ConfigSpace::TOPOLOGY);
    let keeps = HostAddresses { name: "0000:01:00.0".into(), bars: vec![(0, HOME)], moves };
    let mut parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts::platform("switch", Switch(events.clone())),
        Parts { keeps: Some(keeps), ..card },
    ];
    let (found, places) = survey(&mut parts);
    let ground = Ground { ram: ram.split(), phys_bits: 36, reserved: &[] };
    let told: Arc<dyn host::Events> = Arc::new(events.clone());
    arrange(&mut parts, (&found, &places), ground, &told).unwrap();
    let mut machine = Machine::new(vm, 1, Service::Adaptive, published.clone(), parts, events).unwrap();
    let ending = machine.run(Instant::now().checked_add(Duration::from_secs(60)));
    // The write that ends it may still be under way.
    machine.stop();
    Some((ending, published.current()))
}

/// Whether the card answers there.
fn answers(map: &AddressSpace, at: u64) -> bool {
    let trap = Trap { at: Address::Gpa(Gpa(at)), width: Width::B1, op: Op::Read };
    matches!(map.resolve(trap, &ConfigLatch::default()), Resolved::Access { endpoint, .. } if endpoint.0 == 2)
}

#[test]
fn a_move_that_is_refused_changes_nothing() {
    let Some((ending, map)) = run(Moves::Refuse) else { return };
    assert_eq!(ending.unwrap(), Ending::PowerOff);
    assert!(answers(&map, HOME) && !answers(&map, AWAY.into()));
}

#[test]
fn a_move_that_is_followed_takes_the_function_along() {
    let Some((ending, map)) = run(Moves::Follow) else { return };
    assert_eq!(ending.unwrap(), Ending::PowerOff);
    assert!(!answers(&map, HOME) && answers(&map, AWAY.into()));
}

#[test]
fn a_move_that_is_not_to_be_ends_the_machine_and_says_why() {
    let Some((ending, map)) = run(Moves::Stop) else { return };
    let text = ending.unwrap_err().to_string();
    assert_eq!(
        text,
        "0000:01:00.0: the guest moves BAR 0 from 0xf6000000, its address on the host, to 0xd0000000; identity=refuse \
         keeps it there, identity=follow lets it go"
    );
    assert!(answers(&map, HOME) && !answers(&map, AWAY.into()));
}
