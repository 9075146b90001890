use proptest::prelude::*;
use trapline_devices::pci::{Bar, BarKind, Devfn, Home, Windows};
use trapline_io::{Gpa, Port, Span};

use super::plan::Addresses;
use super::*;
use crate::firmware::placement::Bridge;

const MMIO: BarKind = BarKind::Memory32 { prefetchable: false };
const FRAME: BarKind = BarKind::Memory32 { prefetchable: true };
const WIDE: BarKind = BarKind::Memory64 { prefetchable: true };
const WIDE_MMIO: BarKind = BarKind::Memory64 { prefetchable: false };
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A function, and what it keeps.
type Given = (Function, Option<HostAddresses>);

fn plan(given: &[Given], ground: Ground<'_>) -> Result<Addresses, Unfit> {
    let (functions, identities): (Vec<_>, Vec<_>) = given.iter().cloned().unzip();
    super::plan::plan(&functions, &identities, ground)
}

fn bridge() -> Given {
    let (function, _) = function("root port 0", None, &[]);
    (Function { bridge: Some(Bridge::default()), ..function }, None)
}

/// A function with these registers, by kind and size, from index 0 on; those with an address keep it.
fn function(name: &str, parent: Option<usize>, wanted: &[(BarKind, u64, u64)]) -> Given {
    let mut index = 0;
    let (mut bars, mut kept) = ([None; 7], Vec::new());
    for (kind, size, address) in wanted {
        let at = if *kind == BarKind::Rom { 6 } else { index };
        bars[at] = Some(Bar { kind: *kind, size: *size });
        kept.extend((*address != 0).then_some((u8::try_from(at).unwrap(), *address)));
        index += if matches!(kind, BarKind::Memory64 { .. }) { 2 } else { 1 };
    }
    let keeps =
        (!kept.is_empty()).then(|| HostAddresses { name: name.into(), bars: kept, moves: Moves::Refuse });
    let (devfn, class) = (Devfn::default(), 0x0300);
    (Function { name: name.into(), parent, devfn, class, bars, bridge: None }, keeps)
}

fn ground(memory: u64) -> Ground<'static> {
    Ground { ram: RamSplit::of(memory), phys_bits: 40, reserved: &[] }
}

fn home(plan: &Addresses, function: usize, index: u8) -> Home {
    *plan.places[function].bars.iter().find(|home| home.index == index).unwrap()
}

fn memory(first: u64, last: u64) -> Option<Span<Gpa>> {
    Span::new(Gpa(first), Gpa(last))
}

/// What must hold of every plan.
fn check(functions: &[Given], ground: Ground<'_>, plan: &Addresses) -> Result<(), String> {
    let mut all: Vec<(bool, u64, u64, usize)> = Vec::new();
    for (at, ((function, keeps), places)) in functions.iter().zip(&plan.places).enumerate() {
        let mut indices: Vec<u8> = places.bars.iter().map(|home| home.index).collect();
        indices.sort_unstable();
        let wanted: Vec<u8> = (0..7).filter(|index| function.bars[usize::from(*index)].is_some()).collect();
        if indices != wanted {
            return Err(format!("{}: {indices:?} instead of {wanted:?}", function.name));
        }
        for home in &places.bars {
            let io = home.bar.kind == BarKind::Io;
            let last = home.address + (home.bar.size - 1);
            if !home.address.is_multiple_of(home.bar.size) || home.address == 0 {
                return Err(format!("{}: {home:x?} is not aligned", function.name));
            }
            let high = matches!(home.bar.kind, BarKind::Memory64 { .. });
            let most = if io {
                0xffff
            } else if high {
                (1 << ground.phys_bits) - 1
            } else {
                0xffff_ffff
            };
            if last > most {
                return Err(format!("{}: {home:x?} is too high", function.name));
            }
            all.push((io, home.address, last, at));
            if let Some(parent) = function.parent {
                let windows = plan.places[parent].windows.unwrap();
                let within = |span: Option<Span<Gpa>>| {
                    span.is_some_and(|span| span.contains(Gpa(home.address)) && span.contains(Gpa(last)))
                };
                let through = match home.bar.kind {
                    BarKind::Io => windows.io.is_some_and(|span| {
                        u64::from(span.first().0) <= home.address && last <= u64::from(span.last().0)
                    }),
                    FRAME | WIDE => within(windows.memory) || within(windows.prefetchable),
                    _ => within(windows.memory),
                };
                if !through {
                    return Err(format!("{}: {home:x?} is in no window of {windows:?}", function.name));
                }
            }
        }
        for (index, address) in keeps.iter().flat_map(|keeps| &keeps.bars) {
            let home = places.bars.iter().find(|home| home.index == *index).unwrap();
            if home.bar.kind != BarKind::Io && (home.address, home.kept) != (*address, true) {
                return Err(format!("{}: {home:x?} is not kept at {address:#x}", function.name));
            }
        }
    }
    let windows = functions.iter().enumerate().filter_map(|(at, _)| Some((at, plan.places[at].windows?)));
    let windows: Vec<(usize, Windows)> = windows.collect();
    for (bridge, windows) in &windows {
        let (first, second) = (windows.memory, windows.prefetchable);
        if first.zip(second).is_some_and(|(first, second)| first.overlaps(second)) {
            return Err(format!("{windows:?} overlap"));
        }
        for span in [windows.memory, windows.prefetchable].into_iter().flatten() {
            if span.first().0 % MIB != 0 || span.last().0 % MIB != MIB - 1 {
                return Err(format!("{span:?} is no window"));
            }
            all.push((false, span.first().0, span.last().0, functions.len() + bridge));
        }
        if windows.memory.is_some_and(|span| span.last() >= Gpa(4 * GIB)) {
            return Err(format!("{windows:?}: no register of 32 bits holds that"));
        }
        if let Some(span) = windows.io {
            all.push((true, span.first().0.into(), span.last().0.into(), functions.len() + bridge));
        }
    }
    for (at, len) in ground.ram.pieces() {
        all.push((false, at.0, at.0 + len - 1, usize::MAX));
    }
    all.push((false, 0xb000_0000, 0xbfff_ffff, usize::MAX));
    all.push((false, 0xfec0_0000, 0xffff_ffff, usize::MAX));
    let behind = |who: usize, window: usize| {
        functions.get(who).and_then(|(function, _)| function.parent) == window.checked_sub(functions.len())
            && window >= functions.len()
    };
    for (place, one) in all.iter().enumerate() {
        for other in &all[place + 1..] {
            let overlap = one.0 == other.0 && one.1 <= other.2 && other.1 <= one.2;
            if overlap && !behind(one.3, other.3) && !behind(other.3, one.3) {
                return Err(format!("{one:x?} overlaps {other:x?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_card_behind_a_port_keeps_what_it_has_and_its_rom_fits_in() {
    let card = [
        (MMIO, 16 * MIB, 0xf600_0000),
        (WIDE, 256 * MIB, 0xe000_0000),
        (WIDE, 32 * MIB, 0xf000_0000),
        (BarKind::Io, 128, 0xe000),
        (BarKind::Rom, 512 << 10, 0),
    ];
    let sound = [(MMIO, 16 << 10, 0xf708_0000)];
    let disk = [(BarKind::Io, 128, 0), (MMIO, 4096, 0)];
    let functions = [
        bridge(),
        function("card", Some(0), &card),
        function("sound", Some(0), &sound),
        function("disk", None, &disk),
    ];
    let plan = plan(&functions, ground(GIB)).unwrap();
    check(&functions, ground(GIB), &plan).unwrap();
    let windows = plan.places[0].windows.unwrap();
    assert_eq!(windows.memory, memory(0xf600_0000, 0xf70f_ffff));
    assert_eq!(windows.prefetchable, memory(0xe000_0000, 0xf1ff_ffff));
    assert_eq!(windows.io, Span::new(Port(0xe000), Port(0xefff)));
    assert_eq!(home(&plan, 1, 6).address, 0xf700_0000, "in a hole of the window");
    assert_eq!(home(&plan, 3, 1).address, 0xfebf_f000);
    assert!(plan.told.is_empty(), "{:?}", plan.told);
}

#[test]
fn what_lies_above_4_gib_leaves_the_other_window_to_the_rest() {
    let card = [
        (FRAME, 16 * MIB, 0xd000_0000),
        (WIDE, 8 * GIB, 0x60_0000_0000),
        (MMIO, MIB, 0xd200_0000),
        (BarKind::Rom, 64 << 10, 0),
    ];
    let functions = [bridge(), function("card", Some(0), &card)];
    let plan = plan(&functions, ground(8 * GIB)).unwrap();
    check(&functions, ground(8 * GIB), &plan).unwrap();
    let windows = plan.places[0].windows.unwrap();
    assert_eq!(windows.prefetchable, memory(0x60_0000_0000, 0x61_ffff_ffff));
    assert_eq!(windows.memory, memory(0xd000_0000, 0xd20f_ffff));
    assert_eq!(home(&plan, 1, 6).address, 0xd100_0000);
}

#[test]
fn a_rom_that_fits_nowhere_in_the_window_makes_it_wider() {
    let full = [(MMIO, MIB, 0xfea0_0000), (BarKind::Rom, 64 << 10, 0)];
    let above = [(MMIO, MIB, 0xfeb0_0000)];
    let functions = [bridge(), function("card", Some(0), &full), function("other", None, &above)];
    let plan = plan(&functions, ground(GIB)).unwrap();
    check(&functions, ground(GIB), &plan).unwrap();
    // Above is another's.
    assert_eq!(home(&plan, 1, 6).address, 0xfe9f_0000);
    assert_eq!(plan.places[0].windows.unwrap().memory, memory(0xfe90_0000, 0xfeaf_ffff));
}

#[test]
fn where_there_is_no_room_below_4_gib_what_can_goes_above_ram() {
    let large = [(WIDE, 512 * MIB, 0), (WIDE, 2 * GIB, 0)];
    let kept = [(MMIO, 512 * MIB, 0xc000_0000)];
    let functions = [function("kept", None, &kept), function("large", None, &large)];
    let plan = plan(&functions, ground(3 * GIB)).unwrap();
    check(&functions, ground(3 * GIB), &plan).unwrap();
    // Between low RAM and the configuration space are 768 MiB.
    assert_eq!(home(&plan, 1, 0).address, 0x8000_0000);
    assert_eq!(home(&plan, 1, 2).address, 0x1_8000_0000);
}

/// A register of 64 bits may lie anywhere, but not the window of a bridge through which it is reached if reads have side
/// effects.
#[test]
fn a_window_that_is_not_prefetchable_stays_below_4_gib() {
    let kept = || function("kept", None, &[(MMIO, 16 * MIB, 0xf600_0000)]);
    let large = |parent| function("large", parent, &[(WIDE_MMIO, GIB, 0)]);
    let on_the_root_bus = [kept(), large(None)];
    let plan_of = |functions: &[Given]| plan(functions, ground(4 * GIB));
    check(&on_the_root_bus, ground(4 * GIB), &plan_of(&on_the_root_bus).unwrap()).unwrap();
    let found = plan_of(&[bridge(), large(Some(0)), kept()]);
    assert!(matches!(found, Err(Unfit::NoRoom { size: GIB, .. })), "{found:?}");
}

#[test]
fn ports_that_a_guest_has_not_for_pci_lie_elsewhere() {
    let functions = [function("card", None, &[(BarKind::Io, 32, 0x300), (MMIO, 4096, 0xf000_0000)])];
    let plan = plan(&functions, ground(GIB)).unwrap();
    check(&functions, ground(GIB), &plan).unwrap();
    assert_eq!((home(&plan, 0, 0).address, home(&plan, 0, 0).kept), (0xffe0, false));
    assert_eq!(plan.told.len(), 1);
    assert!(plan.told[0].contains("BAR 0 lies at the host's ports 0x300-0x31f"), "{:?}", plan.told);
}

#[test]
fn what_can_not_be_arranged_says_why_and_what_to_do() {
    let alone = |kind, size, address| vec![function("card", None, &[(kind, size, address)])];
    let behind = |bars: &[_]| vec![bridge(), function("card", Some(0), bars)];
    let mut crossed = behind(&[(MMIO, MIB, 0xf000_0000), (MMIO, MIB, 0xf020_0000)]);
    crossed.push(function("other", None, &[(MMIO, MIB, 0xf010_0000)]));
    let cases = [
        (
            alone(FRAME, 256 * MIB, 0xb000_0000),
            "where the guest has its configuration space; have the host's firmware",
        ),
        (alone(MMIO, 4096, 0xfed0_0000), "where the guest has its interrupt controllers and firmware"),
        (alone(MMIO, 4096, 0x1000_0000), "where the guest has RAM"),
        (alone(WIDE, GIB, 1 << 40), "too few address bits"),
        (alone(MMIO, 4096, 0xf000_0800), "no place for a register of its size"),
        (
            behind(&[(WIDE_MMIO, MIB, 1 << 33)]),
            "is not prefetchable, and a root port passes on such memory only below",
        ),
        (crossed, "where the guest has BAR 0 of other; give root-port=off"),
        (
            behind(&[(MMIO, MIB, 0xaff0_0000), (MMIO, MIB, 0xc000_0000)]),
            "its configuration space; give root-port=off",
        ),
        (
            behind(&[(FRAME, MIB, 0xf000_0000), (MMIO, MIB, 0xf010_0000), (FRAME, MIB, 0xf020_0000)]),
            "root-port=off",
        ),
        (
            vec![
                function("card", None, &[(MMIO, 4096, 0xd000_0000)]),
                function("card", None, &[(MMIO, 1 << 31, 0)]),
            ],
            "no room for its BAR 0 of 0x80000000 bytes",
        ),
    ];
    for (functions, text) in cases {
        let error = plan(&functions, ground(GIB)).unwrap_err().to_string();
        assert!(error.starts_with("card: ") && error.contains(text), "{error}");
    }
}

/// A register, and where it is on a host that has placed it: in one of a few areas, so that many fit.
fn bar() -> impl Strategy<Value = (BarKind, u64, u64)> {
    let kinds = prop::sample::select(vec![BarKind::Io, MMIO, FRAME, WIDE, WIDE_MMIO, BarKind::Rom]);
    (kinds, 0_u32..17, any::<u16>(), 0_u8..4).prop_map(|(kind, bits, place, area)| {
        let size = if kind == BarKind::Io { 4 << bits.min(8) } else { 4096 << bits };
        let low = 0x8000_0000 + (u64::from(place) << 15);
        let address = match (kind, area) {
            (_, 0) | (BarKind::Rom, _) => 0,
            (BarKind::Io, _) => u64::from(place),
            (WIDE | WIDE_MMIO, 1) => (u64::from(place) << 21) + (4 << 30),
            _ => low,
        };
        (kind, size, address & !(size - 1))
    })
}

proptest! {
    #[test]
    fn nothing_overlaps_and_what_is_kept_is_kept(
        cards in prop::collection::vec((any::<bool>(), prop::collection::vec(bar(), 1..3)), 1..5),
        gib in 1_u64..12,
    ) {
        let mut functions = Vec::new();
        for (behind, bars) in cards {
            let parent = behind.then(|| {
                functions.push(bridge());
                functions.len() - 1
            });
            functions.push(function("card", parent, &bars));
        }
        let kept = functions.iter().flat_map(|(function, keeps)| {
            let bars = keeps.iter().flat_map(|keeps| &keeps.bars);
            bars.filter_map(|(index, address)| {
                let bar = function.bars[usize::from(*index)]?;
                Span::of_len(Gpa(*address), bar.size).filter(|_| !matches!(bar.kind, BarKind::Io | BarKind::Rom))
            })
        });
        let kept: Vec<_> = kept.collect();
        let ram = RamSplit::around(gib << 30, &kept, 4096).unwrap();
        let ground = Ground { ram, phys_bits: 40, reserved: &[] };
        if let Ok(plan) = plan(&functions, ground) {
            check(&functions, ground, &plan).map_err(TestCaseError::fail)?;
        }
    }
}
