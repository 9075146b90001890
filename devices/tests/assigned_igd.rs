//! Intel's integrated graphics: the OpRegion for the guest's firmware, and the registers with addresses of RAM,
//! which are the guest's own.

use trapline_devices::assigned::Igd;
use trapline_io::device::Target;
use trapline_io::{Device, Region, Width};

#[path = "assigned_card/adapter.rs"]
mod adapter;
#[path = "assigned_card/card.rs"]
mod fake;
#[path = "assigned_card/guest.rs"]
mod machine;
use adapter::{Adapter, Bars, IO, NONE, TYPED, WIDE, own};
use fake::Host;
use machine::Guest;

/// Type and subtype (linux/vfio.h).
const OPREGION: (u32, u32) = (0x8000_8086, 1);
const LPC: (u32, u32) = (0x8000_8086, 3);
const BARS: Bars = [(WIDE, 2 << 20), NONE, (WIDE, 1 << 20), NONE, (IO, 0x40), NONE];
/// Of generation 9, of 12, and of one that is not known.
const KABY_LAKE: u16 = 0x5916;
const TIGER_LAKE: u16 = 0x9a49;
const METEOR_LAKE: u16 = 0x7d55;

const ASLS: u16 = 0xfc;
const GGC: usize = 0x50;
/// BDSM up to generation 10, and from 11 on.
const BDSM: u16 = 0x5c;
const WIDE_BDSM: u16 = 0xc0;
/// Where BAR 0 shows it, with BAR 0 where the guest has it.
const MIRROR: u64 = 0xe010_80c0;
const IN_BAR: u64 = 0x10_80c0;
const MIB: u64 = 1 << 20;

/// An OpRegion of so many bytes, which says that `kib` KiB are its fixed part.
fn opregion(bytes: usize, kib: u32) -> Vec<u8> {
    let mut opregion: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    opregion[..16].copy_from_slice(b"IntelGraphicsMem");
    opregion[16..20].copy_from_slice(&kib.to_le_bytes());
    opregion
}

/// A card whose registers are full of the host's addresses.
fn without_opregion(device: u16) -> Adapter {
    let card = Adapter::new((0x8086, device), BARS);
    for at in [ASLS, BDSM, WIDE_BDSM, WIDE_BDSM + 4] {
        card.state().config[usize::from(at)..][..4].copy_from_slice(&[0x18, 0xa0, 0x57, 0x8b]);
    }
    card.state().config[GGC..GGC + 2].copy_from_slice(&[0xc1, 2]);
    card
}

fn with_opregion(card: Adapter, contents: Vec<u8>) -> Adapter {
    let size = contents.len() as u64;
    // Not the first: what is found is found by its type.
    card.with_typed(LPC, 256, vec![0; 256]).with_typed(OPREGION, size, contents)
}

fn igd(device: u16) -> Adapter {
    with_opregion(without_opregion(device), opregion(0x3000, 8))
}

fn guest_of(card: Adapter) -> Guest {
    Guest::of(card, Host::new().options())
}

#[test]
fn firmware_is_given_the_opregion_as_the_host_has_it() {
    let mut card = igd(KABY_LAKE);
    let found = Igd::of(&mut card).unwrap();
    assert!(found.opregion == opregion(0x3000, 8));
    assert_eq!(found.stolen_memory, 64 * MIB);
    // A guest finds what its firmware made of it, and not this.
    let ranges = guest_of(card).driver.0.claims().ranges;
    let is_typed = |target| matches!(target, Target::Region { region: Region(9..0xe0), .. });
    assert!(TYPED == 9 && !ranges.iter().any(|claim| is_typed(claim.target)));
}

#[test]
fn stolen_memory_is_only_where_firmware_looks_for_it() {
    for (device, mib) in [(KABY_LAKE, 64), (TIGER_LAKE, 0), (METEOR_LAKE, 0)] {
        assert_eq!(Igd::of(&mut igd(device)).unwrap().stolen_memory, mib * MIB, "{device:x}");
    }
}

#[test]
fn what_is_no_opregion_is_refused() {
    let of = |size: u64, contents: Vec<u8>| {
        Igd::of(&mut without_opregion(KABY_LAKE).with_typed(OPREGION, size, contents))
    };
    let largest = opregion(1 << 20, 8);
    assert!(of(MIB, largest.clone()).is_some_and(|igd| igd.opregion == largest), "as large as any");
    let longer = opregion((1 << 20) + 0x1000, 8);
    let mut other = opregion(0x2000, 8);
    other[15] = b'n';
    let cases: [(&str, u64, Vec<u8>); 10] = [
        ("no bytes", 0, vec![]),
        ("no room for its size", 19, opregion(0x2000, 8)),
        ("too large", MIB + 0x1000, longer.clone()),
        ("absurd", 1 << 40, longer.clone()),
        ("absurd", u64::MAX, longer),
        ("ends early", 0x2000, opregion(0x1000, 4)),
        ("no signature", 0x2000, other),
        ("says zero", 0x2000, opregion(0x2000, 0)),
        ("says more than there is", 0x2000, opregion(0x2000, 9)),
        ("says more than can be counted", 0x2000, opregion(0x2000, u32::MAX)),
    ];
    for (why, size, contents) in cases {
        assert_eq!(of(size, contents.clone()), None, "{why}");
        // And no guest finds the address of the host's.
        let card = without_opregion(KABY_LAKE).with_typed(OPREGION, size, contents);
        assert_eq!(guest_of(card).driver.get32(ASLS), 0, "{why}");
    }
}

#[test]
fn what_is_no_integrated_graphics_of_intels_gets_nothing() {
    let ati = Adapter::new((0x1002, KABY_LAKE), BARS);
    let bytes = without_opregion(KABY_LAKE).state().config[0x40..].to_vec();
    ati.state().config[0x40..].copy_from_slice(&bytes);
    let cards = [
        ("none of Intel's", with_opregion(ati, opregion(0x2000, 8))),
        ("no display", igd(KABY_LAKE).with_class(0x0200)),
        ("no OpRegion", without_opregion(KABY_LAKE).with_typed(LPC, 256, vec![0; 256])),
    ];
    for (why, mut card) in cards {
        assert_eq!(Igd::of(&mut card), None, "{why}");
        let mut guest = guest_of(card);
        assert_eq!((guest.driver.get32(ASLS), guest.driver.get32(BDSM)), (0x8b57_a018, 0x8b57_a018), "{why}");
        guest.driver.set32(ASLS, 5);
        assert_eq!(guest.card.written(), [(ASLS.into(), 5)], "{why}");
        assert_eq!(guest.mapped()[0], (0xe000_0000, 2 * MIB), "{why}: nothing lies over BAR 0");
    }
    // A display that is not VGA compatible is one, as the second of two is.
    let mut other = igd(KABY_LAKE).with_class(0x0380);
    assert!(Igd::of(&mut other).is_some());
    assert_eq!(guest_of(other).load(MIRROR, Width::B4), 0);
}

/// The registers of a device that are the guest's own, as dwords.
fn registers(device: u16) -> &'static [u16] {
    match device {
        KABY_LAKE => &[ASLS, BDSM],
        TIGER_LAKE => &[ASLS, WIDE_BDSM, WIDE_BDSM + 4],
        _ => &[ASLS],
    }
}

#[test]
fn registers_with_addresses_are_the_guests_own() {
    for device in [KABY_LAKE, TIGER_LAKE, METEOR_LAKE] {
        let mut guest = guest_of(igd(device));
        for (at, number) in registers(device).iter().zip(1..) {
            assert_eq!(guest.driver.get32(*at), 0, "{device:x} {at:x}: the host's address means nothing");
            guest.driver.set32(*at, 0x7ab0_1000 + number);
            assert_eq!(guest.driver.get32(*at), 0x7ab0_1000 + number, "{device:x} {at:x}");
            guest.driver.set16(*at + 2, 0x1234);
            assert_eq!(guest.driver.get32(*at), 0x1234_1000 + number, "{device:x} {at:x}");
        }
        assert_eq!((guest.card.written(), guest.changes), (vec![], 0), "{device:x}");
        guest.driver.0.reset();
        for at in registers(device) {
            assert_eq!(guest.driver.get32(*at), 0, "{device:x} {at:x} after a reset");
        }
        assert!(guest.card.written().iter().all(|(at, _)| *at < 0x40), "{device:x}");
    }
}

#[test]
fn where_a_generation_has_no_base_the_register_is_the_devices() {
    let others = [(KABY_LAKE, WIDE_BDSM), (TIGER_LAKE, BDSM), (METEOR_LAKE, BDSM), (METEOR_LAKE, WIDE_BDSM)];
    for (device, at) in others {
        let mut guest = guest_of(igd(device));
        assert_eq!(guest.driver.get32(at), 0x8b57_a018, "{device:x} {at:x}");
        guest.driver.set32(at, 7);
        assert_eq!(guest.card.written(), [(at.into(), 7)], "{device:x} {at:x}");
    }
}

#[test]
fn the_mirror_in_bar_0_is_the_same_register() {
    let mut guest = guest_of(igd(KABY_LAKE));
    guest.driver.set32(BDSM, 0x7c00_0000);
    assert_eq!(guest.load(MIRROR, Width::B4), 0x7c00_0000);
    assert_eq!(guest.card.seen(), [(false, Region::bar(0), IN_BAR, 0)], "a read may matter to it");
    guest.store(MIRROR, Width::B4, 0x7d00_0001);
    guest.store(MIRROR + 1, Width::B1, 0x20);
    assert_eq!((guest.driver.get32(BDSM), guest.load(MIRROR + 2, Width::B2)), (0x7d00_2001, 0x7d00));
    // The half behind it is the card's.
    let behind = own(Region::bar(0), IN_BAR + 4) & 0xffff_ffff;
    guest.card.seen();
    assert_eq!(guest.load(MIRROR, Width::B8), behind << 32 | 0x7d00_2001);
    guest.store(MIRROR, Width::B8, 0x5555_5555_7e00_0000);
    let writes: Vec<_> = guest.card.seen().into_iter().filter(|(write, ..)| *write).collect();
    assert_eq!(writes, [(true, Region::bar(0), IN_BAR + 4, 0x5555_5555)]);
    assert_eq!((guest.driver.get32(BDSM), guest.card.written(), guest.changes), (0x7e00_0000, vec![], 0));
    guest.driver.0.reset();
    guest.place();
    assert_eq!(guest.load(MIRROR, Width::B4), 0);
}

#[test]
fn the_mirror_of_later_generations_is_wide() {
    let mut guest = guest_of(igd(TIGER_LAKE));
    guest.store(MIRROR, Width::B8, 0x1_7c00_0001);
    assert_eq!((guest.driver.get32(WIDE_BDSM), guest.driver.get32(WIDE_BDSM + 4)), (0x7c00_0001, 1));
    guest.driver.set16(WIDE_BDSM + 4, 2);
    assert_eq!(guest.load(MIRROR, Width::B8), 0x2_7c00_0001);
    assert_eq!((guest.load(MIRROR + 4, Width::B4), guest.load(MIRROR + 7, Width::B1)), (2, 0));
    assert!(guest.card.seen().iter().all(|(write, ..)| !write));
    assert_eq!((guest.card.written(), guest.changes), (vec![], 0));
    assert_eq!(guest.load(MIRROR + 8, Width::B4), own(Region::bar(0), IN_BAR + 8) & 0xffff_ffff);
    guest.driver.0.reset();
    guest.place();
    assert_eq!(guest.load(MIRROR, Width::B8), 0);
}

#[test]
fn only_the_mirror_is_cut_out_of_bar_0() {
    for (device, len) in [(KABY_LAKE, 4), (TIGER_LAKE, 8)] {
        let bar: Vec<_> = guest_of(igd(device)).mapped().into_iter().take(2).collect();
        assert_eq!(bar, [(0xe000_0000, IN_BAR), (MIRROR + len, 2 * MIB - IN_BAR - len)], "{device:x}");
    }
    assert_eq!(guest_of(igd(METEOR_LAKE)).mapped()[0], (0xe000_0000, 2 * MIB));
}
