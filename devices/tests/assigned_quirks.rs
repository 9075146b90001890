//! Back doors of adapters to configuration space, through the address space as a guest uses them.

use trapline_devices::assigned::{Function, LegacyVga, Options};
use trapline_devices::legacy::{Phase, Ways};
use trapline_io::device::{Retire, Target};
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::window::Mode;
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Region, Trap, Width};

#[path = "assigned_card/adapter.rs"]
mod adapter;
#[path = "../fuzz/src/quirks.rs"]
mod any;
#[path = "assigned_card/card.rs"]
mod fake;
use adapter::{Adapter, Bars, IO, MEMORY, MSI, NONE, WIDE, own};
use fake::{Driver, Host};

const RADEON: Bars = [(WIDE, 1 << 20), NONE, (WIDE, 0x2_0000), NONE, (IO, 0x100), NONE];
const RADEON_X550: Bars = [(MEMORY, 1 << 20), (IO, 0x100), (MEMORY, 0x4000), NONE, NONE, NONE];
const GEFORCE: Bars = [(MEMORY, 1 << 20), (WIDE, 1 << 20), NONE, NONE, NONE, (IO, 0x80)];

/// Where the guest puts BARs 0 to 5.
const PLACES: [u64; 6] = [0xe000_0000, 0xd000, 0xe100_0000, 0, 0xc000, 0xb000];

struct Guest {
    driver: Driver<Adapter>,
    card: Adapter,
    /// The whole of what was sent by a way that changes the map.
    changes: usize,
}

impl Guest {
    fn new(vendor: u16, bars: Bars) -> Guest {
        Guest::with(vendor, bars, Host::new().options())
    }

    fn with(vendor: u16, bars: Bars, options: Options) -> Guest {
        let card = Adapter::new((vendor, 0x1381), bars);
        let mut driver = Driver(Function::open(card.clone(), options).unwrap());
        assert_eq!(driver.0.legacy_vga(), LegacyVga::Owned);
        for (bar, (place, (_, size))) in (0_u16..).zip(PLACES.into_iter().zip(bars)) {
            if size > 0 {
                // A wide BAR is in place of ports.
                let place = if bar == 1 && bars[1].0 != IO { 0xe200_0000 } else { place };
                driver.set32(0x10 + 4 * bar, u32::try_from(place).unwrap());
            }
        }
        driver.set16(4, 3);
        card.seen();
        card.written();
        Guest { driver, card, changes: 0 }
    }

    fn space(&self) -> AddressSpace {
        let mut builder = SpaceBuilder::default();
        for claim in self.driver.0.claims().ranges {
            builder.claim(EndpointId(0), &claim);
        }
        builder.build()
    }

    /// As a vCPU does it.
    fn access(&mut self, at: Address, width: Width, op: Op) -> u64 {
        match self.space().resolve(Trap { at, width, op }, &ConfigLatch::default()) {
            Resolved::Access { access, retire, .. } => self.carry_out(access, retire),
            Resolved::Split => {
                let half = width.half().unwrap();
                let shift = 8 * half.bytes();
                let part = |shift: usize| match op {
                    Op::Read => Op::Read,
                    Op::Write(value) => Op::Write(value >> shift & half.all_ones()),
                };
                let upper = match at {
                    Address::Port(Port(port)) => {
                        Address::Port(Port(port + u16::try_from(half.bytes()).unwrap()))
                    }
                    Address::Gpa(Gpa(gpa)) => Address::Gpa(Gpa(gpa + half.bytes() as u64)),
                };
                let low = self.access(at, half, part(0));
                low | self.access(upper, half, part(shift)) << shift
            }
            other => panic!("{at:?}: {other:?}"),
        }
    }

    fn carry_out(&mut self, access: Access, retire: Retire) -> u64 {
        let function = &mut self.driver.0;
        let Access { region, offset, width, op } = access;
        let Op::Write(value) = op else { return function.read(region, offset, width).unwrap() };
        let decoded = |function: &Function<Adapter>| {
            let mut ranges = function.claims().ranges;
            ranges.retain(|claim| claim.signals.is_empty());
            ranges
        };
        let before = decoded(function);
        let announced = function.changes_map(access);
        function.write(region, offset, width, value).unwrap();
        // The topology is asked for what it has to know, and only then.
        let changed = before != decoded(function);
        assert!(!changed || announced && retire == Retire::Topology, "{access:?}: {retire:?}");
        self.changes += usize::from(announced);
        0
    }

    fn outd(&mut self, port: u64, value: u64) {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B4, Op::Write(value));
    }
    fn outw(&mut self, port: u64, value: u64) {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B2, Op::Write(value));
    }
    fn ind(&mut self, port: u64) -> u64 {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B4, Op::Read)
    }
    fn inb(&mut self, port: u64) -> u64 {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B1, Op::Read)
    }
    fn load(&mut self, gpa: u64, width: Width) -> u64 {
        self.access(Address::Gpa(Gpa(gpa)), width, Op::Read)
    }
    fn store(&mut self, gpa: u64, width: Width, value: u64) {
        self.access(Address::Gpa(Gpa(gpa)), width, Op::Write(value));
    }

    /// Pages of a BAR that are mapped, as first byte and length.
    fn mapped(&self) -> Vec<(u64, u64)> {
        self.space().direct().map(|(span, _)| (span.first().0, span.extent() + 1)).collect()
    }
}

#[test]
fn a_radeon_tells_of_the_guests_bars_everywhere() {
    let mut guest = Guest::new(0x1002, RADEON);
    assert_eq!(guest.inb(0x3c3), 0xc0);
    assert_eq!(guest.card.seen(), []);
    guest.outd(0xc000, 0x4010);
    assert_eq!(guest.ind(0xc004), 0xe000_0004);
    assert_eq!((guest.inb(0xc007), guest.inb(0xc006)), (0xe0, 0), "each lane has its byte");
    guest.outd(0xc000, 0x3000);
    assert_eq!(guest.ind(0xc004), own(Region::bar(4), 4));
    assert_eq!(guest.load(0xe100_4018, Width::B4), 0xe100_0004);
    assert_eq!(guest.load(0xe100_4018, Width::B8), 0xe100_0004, "two registers at once");
    assert_eq!(guest.load(0xe100_4100, Width::B4), own(Region::bar(2), 0x4100) & 0xffff_ffff);
    // A write to the port is none.
    guest.card.seen();
    guest.access(Address::Port(Port(0x3c3)), Width::B1, Op::Write(0));
    assert_eq!((guest.card.seen(), guest.card.written()), (vec![], vec![]));
}

#[test]
fn an_early_radeon_has_them_elsewhere() {
    let mut guest = Guest::new(0x1002, RADEON_X550);
    assert_eq!(guest.inb(0x3c3), 0xd0);
    guest.outd(0xd000, 0xf10);
    assert_eq!(guest.ind(0xd004), 0xe000_0000);
    assert_eq!(guest.load(0xe100_0f14, Width::B4), 0xd001);
}

#[test]
fn what_is_written_by_a_back_door_is_written_as_by_the_front() {
    let mut guest = Guest::new(0x1002, RADEON);
    // COMMAND by the window: memory off, then on again.
    guest.outd(0xc000, 0x4004);
    guest.outw(0xc004, 1);
    assert_eq!((guest.driver.get16(4), guest.card.written()), (1, vec![(4, 1)]));
    assert!(guest.mapped().is_empty() && guest.changes == 1);
    guest.outw(0xc004, 3);
    assert_eq!(guest.driver.get16(4), 3);
    // A BAR by the mirror: it moves.
    guest.store(0xe100_4018, Width::B4, 0xe400_0000);
    assert_eq!(guest.load(0xe400_4018, Width::B4), 0xe400_0004);
    assert_eq!(guest.changes, 3);
    // Nothing of it is the device's business.
    assert!(guest.card.seen().iter().all(|(write, region, ..)| !write || *region == Region::bar(4)));
    // A register of no weight.
    guest.store(0xe400_403c, Width::B1, 11);
    assert_eq!((guest.driver.get16(0x3c) & 0xff, guest.changes), (11, 3));
}

#[test]
fn only_pages_with_an_overlay_are_not_mapped() {
    let guest = Guest::new(0x1002, RADEON);
    let pages = guest.mapped();
    assert!(pages.contains(&(0xe000_0000, 1 << 20)) && pages.contains(&(0xe100_0000, 0x4000)), "{pages:x?}");
    let guest = Guest::new(0x10de, GEFORCE);
    let in_bar = |at: u64| {
        guest.mapped().iter().any(|(first, len)| (*first..first + len).contains(&(0xe000_0000 + at)))
    };
    for (at, mapped) in [(0, true), (0x1000, true), (0x1800, false), (0x1900, true), (0x8_7fff, true)] {
        assert_eq!(in_bar(at), mapped, "{at:x}");
    }
    assert!((0x8_8000..0x8_9000).step_by(64).all(|at| !in_bar(at)) && in_bar(0x8_9000));
}

#[test]
fn a_geforces_ports_lead_to_configuration_space() {
    let mut guest = Guest::new(0x10de, GEFORCE);
    for (order, expected) in [(0x538, 0xe000_0000), (0x338, own(Region::VGA, 0x3d0))] {
        guest.outw(0x3d4, 0x338);
        guest.outd(0x3d0, 0x1810);
        guest.outd(0x3d4, order);
        assert_eq!(guest.ind(0x3d0), expected);
    }
    guest.outd(0x3d4, 0x338);
    guest.outw(0x3d0, 0x1804);
    guest.outd(0x3d4, 0x738);
    guest.card.seen();
    guest.outw(0x3d0, 1);
    assert_eq!((guest.driver.get16(4), guest.changes, guest.card.seen()), (1, 1, vec![]));
    // And what is no such order is the card's.
    guest.outw(0x3d0, 5);
    assert_eq!(guest.card.seen(), [(true, Region::VGA, 0x3d0, 5)]);
}

#[test]
fn a_geforces_bar_5_leads_to_configuration_space() {
    let mut guest = Guest::new(0x10de, GEFORCE);
    for (port, value) in [(0xb000, 1), (0xb004, 1), (0xb008, 0x8_8010)] {
        guest.outd(port, value);
    }
    assert_eq!(guest.ind(0xb00c), 0xe000_0000);
    guest.outd(0xb008, 0x1824);
    assert_eq!(guest.ind(0xb00c), 0xb001);
    guest.outd(0xb004, 0);
    assert_eq!(guest.ind(0xb00c), own(Region::bar(5), 0xc));
    assert_eq!(guest.card.seen().iter().filter(|(write, ..)| *write).count(), 5, "it sees all of these");
}

const MIRROR: u64 = 0xe008_8000;

#[test]
fn an_acknowledge_reaches_the_card_and_is_soon_the_kernels() {
    let mut guest = Guest::new(0x10de, GEFORCE);
    guest.driver.set16(MSI + 2, 1);
    let (id, acknowledge) = (MIRROR + u64::from(MSI), (true, Region::bar(0), 0x8_8068, 0xff));
    guest.store(id, Width::B1, 0xff);
    assert_eq!(guest.card.seen(), [acknowledge]);
    assert_eq!((guest.driver.get16(MSI) & 0xff, guest.changes), (5, 0), "the id stays, nobody is stopped");
    // The other acknowledge, which is a register like any other.
    for times in 1..=12 {
        guest.store(MIRROR + 0x704, Width::B4, 0);
        assert_eq!(guest.card.state().writes.len(), usize::from(times >= 10), "{times}");
    }
    assert_eq!(guest.card.seen(), []);
    assert!(guest.card.written().contains(&(0x704, 0)));
    (0..9).for_each(|_| guest.store(id, Width::B1, 0xff));
    let promoted: Vec<_> =
        guest.card.state().writes.iter().map(|write| (write.offset, write.value)).collect();
    assert_eq!(promoted, [(0x8_8704, 0), (0x8_8068, 0xff)]);
    let signals: Vec<_> = guest.space().signals().map(|(at, _)| at).collect();
    assert_eq!(signals, [Address::Gpa(Gpa(id)), Address::Gpa(Gpa(MIRROR + 0x704))]);
    // Another value there is led as before.
    guest.card.written();
    guest.store(MIRROR + 0x704, Width::B4, 7);
    assert_eq!(guest.card.written(), [(0x704, 7)]);
    guest.driver.0.reset();
    assert!(guest.card.state().writes.is_empty());
}

#[test]
fn what_is_not_the_cards_alone_is_never_the_kernels() {
    let mut guest = Guest::new(0x10de, GEFORCE);
    guest.driver.set16(MSI + 2, 1);
    for (at, value) in [(4, 3), (0x24, 0xb001), (u64::from(MSI) + 4, 0xfee0_0000)] {
        (0..20).for_each(|_| guest.store(MIRROR + at, Width::B4, value));
    }
    // What an index selects neither.
    guest.outd(0xb008, 0x40);
    (0..20).for_each(|_| guest.outd(0xb00c, 1));
    assert_eq!(guest.card.state().writes, []);
}

#[test]
fn a_write_that_changes_the_map_is_one_in_any_mirror() {
    let guest = Guest::new(0x10de, GEFORCE);
    let topology = guest.driver.0.topology();
    let space = guest.space();
    let read = Trap { at: Address::Gpa(Gpa(MIRROR)), width: Width::B1, op: Op::Write(0) };
    for first in [MIRROR, 0xe000_1800] {
        for byte in 0..0x100 {
            let trap = Trap { at: Address::Gpa(Gpa(first + byte)), ..read };
            let Resolved::Access { retire, .. } = space.resolve(trap, &ConfigLatch::default()) else {
                panic!()
            };
            let fixed = byte == u64::from(MSI) || byte == u64::from(MSI) + 1;
            let changes = topology.contains(byte) && !fixed;
            assert_eq!(retire == Retire::Topology, changes, "{byte:x}");
        }
    }
}

#[test]
fn a_window_that_is_collected_keeps_its_ports() {
    let ways = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
    let mut guest = Guest::with(0x10de, GEFORCE, Options { ways, ..Host::new().options() });
    let retire = |guest: &Guest, port| {
        let trap = Trap { at: Address::Port(Port(port)), width: Width::B2, op: Op::Write(0) };
        match guest.space().resolve(trap, &ConfigLatch::default()) {
            Resolved::Access { retire, .. } => retire,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((retire(&guest, 0x3d4), retire(&guest, 0x3d0)), (Retire::Strict, Retire::Topology));
    guest.driver.0.window().unwrap().turn(Mode::Coalesced);
    assert_eq!((retire(&guest, 0x3d4), retire(&guest, 0x3d0)), (Retire::Posted, Retire::Topology));
    guest.outw(0x3d4, 0x338);
    guest.outd(0x3d0, 0x1810);
    guest.outw(0x3d4, 0x538);
    assert_eq!(guest.ind(0x3d0), 0xe000_0000);
    // A mirror is configuration space: never posted.
    let claims = guest.driver.0.claims().ranges;
    let late =
        |target| matches!(target, Target::Region { region: Region(0xe3..=0xe6), retire: Retire::Posted, .. });
    let posted = claims.iter().filter(|claim| late(claim.target)).count();
    assert_eq!(posted, 1, "only the index port");
}

#[test]
fn without_decode_and_asleep_there_is_no_back_door() {
    let mut guest = Guest::new(0x1002, RADEON);
    guest.driver.set16(4, 0);
    assert!(guest.driver.0.claims().ranges.is_empty());
    guest.driver.set16(4, 1);
    assert_eq!(guest.inb(0x3c3), 0xc0);
    guest.outd(0xc000, 0x4010);
    guest.driver.0.reset();
    guest.driver.set32(0x20, 0xc000);
    guest.driver.set16(4, 1);
    assert_eq!(guest.ind(0xc004), own(Region::bar(4), 4), "the index is forgotten");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// The body of the fuzz target of this name.
    #[test]
    fn whatever_a_guest_does_the_map_and_the_mirror_stay_true(
        card in 0..3_u8,
        steps in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
    ) {
        any::run(&[vec![card], steps].concat());
    }
}

#[test]
fn a_clique_is_shown_and_refused_where_it_makes_no_sense() {
    let options = Options { gpudirect_clique: Some(5), ..Host::new().options() };
    let card = Adapter::new((0x10de, 0x1381), GEFORCE);
    let mut driver = Driver(Function::open(card, options.clone()).unwrap());
    assert_eq!((driver.get32(0xc8), driver.get32(0xcc)), (0x5008_0009, 0x0028_5032));
    let card = Adapter::new((0x1002, 0x68f9), RADEON);
    let error = Function::open(card, options).unwrap_err().to_string();
    assert!(error.contains("gpudirect-clique=") && error.contains("NVIDIA"), "{error}");
}
