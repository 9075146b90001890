//! Changes of the map by a guest that does not behave, through the whole machine. Needs /dev/kvm.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use trapline::dma::Gate;
use trapline::events::Events;
use trapline::machine::{Around, Ending, Error, Machine, Observer};
use trapline::parts::Parts;
use trapline::topology::Topology;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Devfn, Identity};
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::completion::Caller;
use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range, Retire};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::space::{AddressSpace, EndpointId};
use trapline_io::{Access, Device, Fault, Gpa, Op, Port, Region, Span, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const MIB: u64 = 1 << 20;
/// No machine runs longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Port 0x5004 counts what is written to it, 0x5005 powers off.
struct Switch {
    told: Arc<AtomicU64>,
    events: Events,
}

impl Device for Switch {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(self.told.load(SeqCst))
    }

    fn write(&mut self, _: Region, offset: u64, _: Width, _: u64) -> Result<(), Fault> {
        match offset {
            0 => drop(self.told.fetch_add(1, SeqCst)),
            _ => self.events.report(Event::PowerOff),
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let ports = Range::Ports(Span::new(Port(0x5004), Port(0x5005)).unwrap());
        Claims { ranges: vec![Claim::region(ports, Region(0), 0)], bridge: None }
    }
}

/// The other half of COMMAND's dword, of which the card knows that it leaves the map alone.
const STATUS: u64 = 6;
/// A register of the card's at port 0x5010 that leads to COMMAND, but for one value.
const BACK_DOOR: Region = Region(0xe0);
const NOTHING: u64 = 0xffff;

/// A function with one BAR: registers, of which a write is counted, or memory, and then with a back door.
struct Card {
    config: ConfigSpace,
    memory: Option<Arc<MmapRegion>>,
    writes: Arc<AtomicU64>,
    /// How often bus mastering was switched on.
    masters: Arc<AtomicU64>,
    /// Where the map is, and how often a register was written while memory of the card was in it.
    published: Published,
    shown: Arc<AtomicU64>,
    /// How often a register of the card's own was written while its memory was in the map.
    writes_while_shown: Arc<AtomicU64>,
}

impl Card {
    fn new(bar: Bar, memory: Option<Arc<MmapRegion>>) -> Card {
        let id = Identity { vendor: 0x1234, device: 1, revision: 0, class: 0x03_8000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, bar);
        let [writes, masters, shown, writes_while_shown] = std::array::from_fn(|_| Arc::default());
        let published = Published::default();
        Card { config, memory, writes, masters, published, shown, writes_while_shown }
    }

    /// Its memory is in the map as it is now.
    fn is_shown(&self) -> bool {
        let ours =
            |direct: &Direct| self.memory.as_ref().is_some_and(|memory| Arc::ptr_eq(memory, &direct.memory));
        self.published.current().direct().any(|(_, direct)| ours(direct))
    }
}

impl Device for Card {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.config.read_region(offset, width) } else { Ok(0) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::CONFIG {
            self.masters.fetch_add(u64::from(offset == 4 && value & 4 != 0), SeqCst);
            self.shown.fetch_add(u64::from(self.is_shown()), SeqCst);
            return self.config.write_region(offset, width, value).map(drop);
        }
        if region == BACK_DOOR && value != NOTHING {
            return self.write(Region::CONFIG, 4, width, value);
        }
        self.writes_while_shown.fetch_add(u64::from(self.is_shown()), SeqCst);
        self.writes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn changes_map(&self, access: Access) -> bool {
        match access.region {
            Region::CONFIG => access.offset != STATUS,
            region => region == BACK_DOOR && access.op != Op::Write(NOTHING),
        }
    }

    fn reset(&mut self) {
        self.shown.fetch_add(u64::from(self.is_shown()), SeqCst);
        self.config.reset();
    }

    fn claims(&self) -> Claims {
        let bar = self.config.decoded(0).map(|range| Claim::region(range, Region::bar(0), 0));
        let bar = bar.map(|claim| match &self.memory {
            Some(memory) => {
                claim.direct(Direct { memory: Arc::clone(memory), offset: 0, kind: DirectKind::Bar })
            }
            None => claim,
        });
        let rom = self.config.decoded(6).map(|range| Claim::region(range, Region::ROM, 0));
        let rom = rom.zip(self.memory.as_ref()).map(|(claim, memory)| {
            claim.direct(Direct { memory: Arc::clone(memory), offset: 0, kind: DirectKind::Rom })
        });
        let ports = Range::Ports(Span::new(Port(0x5010), Port(0x5011)).unwrap());
        let back_door = Claim::region(ports, BACK_DOOR, 0).retire(Retire::Topology);
        let back_door = self.memory.is_some().then_some(back_door);
        Claims { ranges: bar.into_iter().chain(rom).chain(back_door).collect(), bridge: None }
    }
}

/// What a run of a machine with a card at 00:01.0 came to.
struct Run {
    ending: Result<Ending, Error>,
    told: u64,
    space: Arc<AddressSpace>,
}

/// Runs the code at f000:0000 for vCPU 0, and at f800:0000 for those that it starts.
fn run(card: Card, cpus: u16, first: &[u8], others: &[u8]) -> Run {
    run_gated(card, cpus, first, others, Gated::default())
}

/// Is given the machine's events and what the switch was told.
type Meanwhile = Box<dyn FnOnce(&Events, &AtomicU64) + Send>;

/// What happens to a machine from outside, while its card's bus mastering stands before a gate.
struct Gated {
    gate: Arc<Gate>,
    meanwhile: Meanwhile,
    around: Option<Around<'static>>,
}

impl Default for Gated {
    fn default() -> Gated {
        let gate = Arc::new(Gate::default());
        gate.open();
        Gated { gate, meanwhile: Box::new(|_, _| {}), around: None }
    }
}

fn run_gated(card: Card, cpus: u16, first: &[u8], others: &[u8], gated: Gated) -> Run {
    let Gated { gate, meanwhile, around } = gated;
    let vm = Arc::new(Vm::new().expect("needs /dev/kvm"));
    let image = MmapRegion::new(0x1_0000).unwrap();
    let slice = image.as_volatile_slice();
    slice.write_slice(first, 0).unwrap();
    slice.write_slice(others, 0x8000).unwrap();
    slice.write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    let (events, published, told) = (Events::default(), card.published.clone(), Arc::default());
    let switch = Switch { told: Arc::clone(&told), events: events.clone() };
    let bridge = HostBridge::new(Ram::new(MIB).unwrap(), Arc::new(image)).unwrap();
    let function = |name: &str, card, at, topology| Parts::function(name, card, None, at, topology);
    let card = function("card", card, Devfn::new(1, 0).unwrap(), ConfigSpace::TOPOLOGY);
    let parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts::platform("switch", switch),
        Parts { dma: Some(gate), ..card },
    ];
    let observer = Observer { around, ..Observer::default() };
    let (service, space) = (Service::Adaptive, published.clone());
    let mut machine = Machine::observed(vm, cpus, service, space, parts, events.clone(), observer).unwrap();
    let ending = std::thread::scope(|scope| {
        scope.spawn(|| meanwhile(&events, &told));
        machine.run(Instant::now().checked_add(LONGEST))
    });
    let space = published.current();
    machine.stop();
    Run { ending, told: told.load(SeqCst), space }
}

/// Writes a dword of the card's configuration space.
fn configure(offset: u8, value: u32) -> Vec<u8> {
    let mut code = vec![0x66, 0xb8]; // mov eax, ...
    code.extend((0x8000_0800 | u32::from(offset)).to_le_bytes());
    code.extend([0xba, 0xf8, 0x0c, 0x66, 0xef, 0x66, 0xb8]); // mov dx, 0xcf8; out dx, eax; mov eax, ...
    code.extend(value.to_le_bytes());
    code.extend([0xba, 0xfc, 0x0c, 0x66, 0xef]); // mov dx, 0xcfc; out dx, eax
    code
}

const TELL_AND_SWITCH_OFF: [u8; 8] = [
    0xba, 0x04, 0x50, // mov dx, 0x5004
    0xee, // out dx, al
    0x42, // inc dx
    0xee, // out dx, al
    0xf4, 0xf4,
];

fn memory_card(size: u64, kind: BarKind) -> Card {
    let memory = MmapRegion::new(usize::try_from(size).unwrap()).unwrap();
    Card::new(Bar { kind, size }, Some(Arc::new(memory)))
}

#[test]
fn a_bar_where_no_memory_can_be_is_no_end() {
    // Beyond any processor's physical addresses, and over what the kernel itself keeps.
    for (low, high) in [(0, 0x0004_0000), (0xff00_0000, 0x000f_fffe), (0xfe00_0000, 0)] {
        let code = [
            configure(0x10, low),
            configure(0x14, high),
            configure(0x04, 2),
            configure(0x04, 0),
            configure(0x10, 0xe000_0000),
            configure(0x14, 0),
            configure(0x04, 2),
            TELL_AND_SWITCH_OFF.to_vec(),
        ];
        let card = memory_card(16 * MIB, BarKind::Memory64 { prefetchable: true });
        let run = run(card, 1, &code.concat(), &[]);
        assert_eq!(run.ending.expect("the run goes on"), Ending::PowerOff, "{high:x} {low:x}");
        assert_eq!(run.told, 1);
        let mapped: Vec<_> = run.space.direct().map(|(span, _)| span.first()).collect();
        assert!(mapped.contains(&Gpa(0xe000_0000)), "{mapped:?}");
    }
}

#[test]
fn a_card_is_out_of_the_map_while_its_registers_change() {
    let mut card = memory_card(MIB, BarKind::Memory32 { prefetchable: false });
    card.config.add_bar(6, Bar { kind: BarKind::Rom, size: MIB });
    let shown = Arc::clone(&card.shown);
    let code = [
        configure(0x10, 0xe000_0000),
        configure(0x04, 2),
        configure(0x10, 0xe100_0000),
        // With its ROM in the map too.
        configure(0x30, 0xe200_0001),
        configure(0x10, 0xe400_0000),
        configure(0x04, 0),
        TELL_AND_SWITCH_OFF.to_vec(),
    ];
    let run = run(card, 1, &code.concat(), &[]);
    assert_eq!((run.ending.unwrap(), run.told), (Ending::PowerOff, 1));
    assert_eq!(shown.load(SeqCst), 0);
}

/// A write to the card's back door.
fn by_back_door(value: u16) -> Vec<u8> {
    let [low, high] = value.to_le_bytes();
    vec![0xb8, low, high, 0xba, 0x10, 0x50, 0xef] // mov ax, ...; mov dx, 0x5010; out dx, ax
}

#[test]
fn a_back_door_to_command_changes_the_map_and_what_leads_nowhere_does_not() {
    let card = memory_card(MIB, BarKind::Memory32 { prefetchable: false });
    let (shown, plain) = (Arc::clone(&card.shown), Arc::clone(&card.writes_while_shown));
    let code = [
        configure(0x10, 0xe000_0000),
        by_back_door(2),
        by_back_door(0xffff),
        by_back_door(0),
        by_back_door(0xffff),
        by_back_door(2),
        TELL_AND_SWITCH_OFF.to_vec(),
    ];
    let run = run(card, 1, &code.concat(), &[]);
    assert_eq!((run.ending.unwrap(), run.told), (Ending::PowerOff, 1));
    assert_eq!((shown.load(SeqCst), plain.load(SeqCst)), (0, 1), "the map is left alone where it can be");
    assert!(run.space.direct().any(|(span, _)| span.contains(Gpa(0xe000_0000))));
}

#[test]
fn a_register_that_leaves_the_map_alone_is_written_with_the_card_in_it() {
    let card = memory_card(MIB, BarKind::Memory32 { prefetchable: false });
    let shown = Arc::clone(&card.shown);
    let status = vec![0xba, 0xfe, 0x0c, 0xef]; // mov dx, 0xcfe; out dx, ax
    let code = [configure(0x10, 0xe000_0000), configure(0x04, 2), status, TELL_AND_SWITCH_OFF.to_vec()];
    let run = run(card, 1, &code.concat(), &[]);
    assert_eq!((run.ending.unwrap(), run.told), (Ending::PowerOff, 1));
    assert_eq!(shown.load(SeqCst), 1);
    assert!(run.space.direct().any(|(span, _)| span.contains(Gpa(0xe000_0000))));
}

/// Says that the card's memory is not there when [`NOTHING`] comes through its back door. A store there shows it too,
/// but not where KVM emulates the guest's instructions.
struct TakesAway(Arc<Topology>);

impl trapline_io::path::Topology for TakesAway {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        if access.region == BACK_DOOR && access.op == Op::Write(NOTHING) {
            self.0.mistrust(0, None);
        }
        self.0.change(caller, endpoint, access);
    }
}

#[test]
fn memory_that_a_device_took_away_comes_back_with_a_write_that_changes_nothing() {
    let bar = Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 };
    let memory = Arc::new(MmapRegion::new(4096).unwrap());
    let card = Card::new(bar, Some(Arc::clone(&memory)));
    let writes = Arc::clone(&card.writes);
    let store = vec![0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0x89, 0x16, 0, 0]; // mov ax, 0xa000; mov ds, ax; mov [0], dx
    let status = vec![0xba, 0xfe, 0x0c, 0xef]; // mov dx, 0xcfe; out dx, ax
    let code = [
        [configure(0x10, 0xa_0000), configure(0x04, 2), store.clone()].concat(),
        [by_back_door(0xffff), store.clone(), store.clone()].concat(),
        [status, store, TELL_AND_SWITCH_OFF.to_vec()].concat(),
    ];
    let around: Around<'_> = Box::new(|topology, _| Arc::new(TakesAway(topology)));
    let gated = Gated { around: Some(around), ..Gated::default() };
    let run = run_gated(card, 1, &code.concat(), &[], gated);
    assert_eq!(run.ending.unwrap(), Ending::PowerOff);
    assert_eq!(writes.load(SeqCst), 3, "the back door's, and two stores that trapped");
    assert_eq!(memory.as_volatile_slice().read_obj::<u16>(0).unwrap(), 0x0cfe, "the last one did not");
}

#[test]
fn no_bar_hides_the_interrupt_controllers() {
    let code = [configure(0x10, 0xfe00_0000), configure(0x04, 2), TELL_AND_SWITCH_OFF.to_vec()];
    let run = run(memory_card(16 * MIB, BarKind::Memory32 { prefetchable: false }), 1, &code.concat(), &[]);
    assert_eq!(run.ending.expect("the run goes on"), Ending::PowerOff);
    for address in [0xfec0_0000, 0xfee0_0000, 0xfee0_0fff] {
        let mapped = run.space.direct().find(|(span, _)| span.contains(Gpa(address)));
        assert!(mapped.is_none(), "{address:x}: {mapped:?}");
    }
}

/// Starts all others.
const START: [u8; 38] = [
    0x66, 0xb9, 0x1b, 0, 0, 0, // mov ecx, 0x1b: APIC base
    0x0f, 0x32, // rdmsr
    0x80, 0xcc, 0x0c, // or ah, 0x0c: x2APIC
    0x0f, 0x30, // wrmsr
    0x66, 0xb9, 0x30, 0x08, 0, 0, // mov ecx, 0x830: interrupt command
    0x66, 0x31, 0xd2, // xor edx, edx
    0x66, 0xb8, 0x00, 0x45, 0x0c, 0, // mov eax, 0xc4500: INIT to all others
    0x0f, 0x30, // wrmsr
    0x66, 0xb8, 0xf8, 0x46, 0x0c, 0, // mov eax, 0xc46f8: start at f8000
    0x0f, 0x30, // wrmsr
];

/// Starts all others, waits until the switch was told something, and meanwhile writes COMMAND with
/// what is there already.
fn command_again_and_again() -> Vec<u8> {
    let mut code = [configure(0x10, 0xa_0000), configure(0x04, 2), START.to_vec()].concat();
    let again = code.len();
    code.extend(configure(0x04, 2));
    code.extend([0xba, 0x04, 0x50, 0xec, 0x84, 0xc0]); // mov dx, 0x5004; in al, dx; test al, al
    let back = i16::try_from(again).unwrap() - i16::try_from(code.len() + 4).unwrap();
    code.extend([0x0f, 0x84]); // jz again
    code.extend(back.to_le_bytes());
    code.extend([0x42, 0xee, 0xf4, 0xf4]); // inc dx; out dx, al; hlt
    code
}

const WRITES: u16 = 3000;

#[test]
fn another_vcpus_writes_are_not_lost_while_a_register_is_written() {
    let mut writer = vec![0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xb9]; // mov ax, 0xa000; mov ds, ax; mov cx, ...
    writer.extend(WRITES.to_le_bytes());
    writer.extend([
        0x89, 0x0e, 0x00, 0x00, // again: mov [0], cx
        0xe2, 0xfa, // loop again
        0xba, 0x04, 0x50, 0xee, // mov dx, 0x5004; out dx, al
        0xf4, 0xf4,
    ]);
    let card = Card::new(Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 }, None);
    let writes = Arc::clone(&card.writes);
    let run = run(card, 2, &command_again_and_again(), &writer);
    assert_eq!(run.ending.unwrap(), Ending::PowerOff);
    assert_eq!(writes.load(SeqCst), u64::from(WRITES));
}

/// Publication takes its time here, and the vCPU that sees decode on goes on to the BAR at once.
#[test]
fn who_sees_a_card_decode_reaches_it() {
    let card = Card::new(Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 }, None);
    card.published.watch(|_| std::thread::sleep(Duration::from_millis(20)));
    let writes = Arc::clone(&card.writes);
    let wait_for_the_other = vec![
        0xba, 0x04, 0x50, // mov dx, 0x5004
        0xec, 0x84, 0xc0, // again: in al, dx; test al, al
        0x74, 0xfb, // jz again
    ];
    let first =
        [configure(0x10, 0xa_0000), START.to_vec(), wait_for_the_other, configure(0x04, 2), vec![0xf4]];
    let other = [
        0xb8, 0x00, 0xa0, 0x8e, 0xd8, // mov ax, 0xa000; mov ds, ax
        0xba, 0x04, 0x50, 0xee, // mov dx, 0x5004; out dx, al
        // What it reads is the BAR, whose second bit is clear, until the first turns to COMMAND.
        0xba, 0xfc, 0x0c, // mov dx, 0xcfc
        0xec, 0xa8, 0x02, // again: in al, dx; test al, 2
        0x74, 0xfb, // jz again
        0x89, 0x0e, 0x00, 0x00, // mov [0], cx
        0xba, 0x05, 0x50, 0xee, // mov dx, 0x5005; out dx, al
        0xf4,
    ];
    let run = run(card, 2, &first.concat(), &other);
    assert_eq!((run.ending.unwrap(), run.told), (Ending::PowerOff, 1));
    assert_eq!(writes.load(SeqCst), 1);
}

/// Tells, lets the card master the bus, tells again and switches off.
fn master_the_bus() -> Vec<u8> {
    let tell = vec![0xba, 0x04, 0x50, 0xee]; // mov dx, 0x5004; out dx, al
    let shown = [configure(0x10, 0xe000_0000), configure(0x04, 2)].concat();
    [shown, tell, configure(0x04, 6), TELL_AND_SWITCH_OFF.to_vec()].concat()
}

fn wait_until(told: &AtomicU64, count: u64) {
    let since = Instant::now();
    while told.load(SeqCst) < count && since.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn bus_mastering_waits_for_memory_also_across_a_reset() {
    let card = memory_card(MIB, BarKind::Memory32 { prefetchable: false });
    let (gate, masters) = (Arc::new(Gate::default()), Arc::clone(&card.masters));
    let shown = Arc::clone(&card.shown);
    let meanwhile = {
        let (gate, masters) = (Arc::clone(&gate), Arc::clone(&masters));
        move |events: &Events, told: &AtomicU64| {
            wait_until(told, 1);
            assert_eq!((told.load(SeqCst), masters.load(SeqCst)), (1, 0), "it waits");
            events.report(Event::Reset);
            wait_until(told, 2);
            assert_eq!((told.load(SeqCst), masters.load(SeqCst)), (2, 0), "it waits again");
            gate.open();
        }
    };
    let gated = Gated { gate, meanwhile: Box::new(meanwhile), around: None };
    let run = run_gated(card, 1, &master_the_bus(), &[], gated);
    assert_eq!(run.ending.unwrap(), Ending::PowerOff);
    assert_eq!((run.told, masters.load(SeqCst)), (3, 1));
    assert_eq!(shown.load(SeqCst), 0, "in the map while it was reset");
}

#[test]
fn the_end_of_a_run_does_not_wait_for_memory() {
    let card = memory_card(MIB, BarKind::Memory32 { prefetchable: false });
    let masters = Arc::clone(&card.masters);
    let left = Arc::new(OnceLock::new());
    let meanwhile = {
        let left = Arc::clone(&left);
        move |events: &Events, told: &AtomicU64| {
            wait_until(told, 1);
            left.set(Instant::now()).unwrap();
            events.push(trapline::events::Event::Leave);
        }
    };
    let gated = Gated { gate: Arc::default(), meanwhile: Box::new(meanwhile), around: None };
    let run = run_gated(card, 1, &master_the_bus(), &[], gated);
    assert_eq!(run.ending.unwrap(), Ending::Left);
    assert_eq!((run.told, masters.load(SeqCst)), (1, 0));
    // Who waits for a vCPU in vain gives up after 20 s.
    assert!(left.get().unwrap().elapsed() < Duration::from_secs(19));
}
