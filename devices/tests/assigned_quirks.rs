//! Back doors of adapters to configuration space, through the address space as a guest uses them.

use trapline_devices::assigned::{Function, LegacyVga, Options};
use trapline_devices::legacy::{Phase, Ways};
use trapline_io::device::{Retire, Target};
use trapline_io::space::{ConfigLatch, Resolved};
use trapline_io::window::Mode;
use trapline_io::{Address, Device, Gpa, Op, Port, Region, Trap, Width};

#[path = "assigned_card/adapter.rs"]
mod adapter;
#[path = "../fuzz/src/quirks.rs"]
mod any;
#[path = "assigned_card/card.rs"]
mod fake;
#[path = "assigned_card/guest.rs"]
mod machine;
use adapter::{Adapter, Bars, IO, MEMORY, MSI, NONE, WIDE, own};
use fake::{Driver, Host};
use machine::Guest;

const RADEON: Bars = [(WIDE, 1 << 20), NONE, (WIDE, 0x2_0000), NONE, (IO, 0x100), NONE];
const RADEON_X550: Bars = [(MEMORY, 1 << 20), (IO, 0x100), (MEMORY, 0x4000), NONE, NONE, NONE];
const GEFORCE: Bars = [(MEMORY, 1 << 20), (WIDE, 1 << 20), NONE, NONE, NONE, (IO, 0x80)];

fn guest_of(vendor: u16, bars: Bars) -> Guest {
    guest_with(vendor, bars, Host::new().options())
}

fn guest_with(vendor: u16, bars: Bars, options: Options) -> Guest {
    let guest = Guest::of(Adapter::new((vendor, 0x1381), bars), options);
    assert_eq!(guest.driver.0.legacy_vga(), LegacyVga::Owned);
    guest
}

#[test]
fn a_radeon_tells_of_the_guests_bars_everywhere() {
    let mut guest = guest_of(0x1002, RADEON);
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
    let mut guest = guest_of(0x1002, RADEON_X550);
    assert_eq!(guest.inb(0x3c3), 0xd0);
    guest.outd(0xd000, 0xf10);
    assert_eq!(guest.ind(0xd004), 0xe000_0000);
    assert_eq!(guest.load(0xe100_0f14, Width::B4), 0xd001);
}

#[test]
fn what_is_written_by_a_back_door_is_written_as_by_the_front() {
    let mut guest = guest_of(0x1002, RADEON);
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
    let guest = guest_of(0x1002, RADEON);
    let pages = guest.mapped();
    assert!(pages.contains(&(0xe000_0000, 1 << 20)) && pages.contains(&(0xe100_0000, 0x4000)), "{pages:x?}");
    let guest = guest_of(0x10de, GEFORCE);
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
    let mut guest = guest_of(0x10de, GEFORCE);
    for (order, expected) in [(0x538, 0xe000_0000), (0x338, own(Region::VGA, 0x3d0))] {
        guest.outw(0x3d4, 0x338);
        guest.outd(0x3d0, 0x1810);
        guest.outd(0x3d4, order);
        assert_eq!(guest.ind(0x3d0), expected);
    }
    // Its other bytes too, none of which is the host's.
    guest.outw(0x3d4, 0x338);
    guest.outd(0x3d0, 0x1810);
    guest.outw(0x3d4, 0x538);
    assert_eq!([0x3d3, 0x3d2, 0x3d1].map(|port| guest.inb(port)), [0xe0, 0, 0]);
    assert_eq!(guest.inb(0x3d0), 0);
    assert_eq!(guest.inb(0x3d3), own(Region::VGA, 0x3d3) & 0xff, "it was read");
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
    let mut guest = guest_of(0x10de, GEFORCE);
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
    let mut guest = guest_of(0x10de, GEFORCE);
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
    let mut guest = guest_of(0x10de, GEFORCE);
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
    let guest = guest_of(0x10de, GEFORCE);
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
    let mut guest = guest_with(0x10de, GEFORCE, Options { ways, ..Host::new().options() });
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
    let mut guest = guest_of(0x1002, RADEON);
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
        card in 0..6_u8,
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
