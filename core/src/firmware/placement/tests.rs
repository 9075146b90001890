use proptest::prelude::*;
use trapline_devices::pci::BarKind;

use super::*;

mod model;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DEBIAN_12: Version = Version(1, 16, 2);
const DEBIAN_13: Version = Version(1, 16, 3);
const NEWEST: Version = Version(1, 17, 0);

fn wide(size: u64) -> Option<Bar> {
    Some(Bar { kind: BarKind::Memory64 { prefetchable: true }, size })
}

fn plain_wide(size: u64) -> Option<Bar> {
    Some(Bar { kind: BarKind::Memory64 { prefetchable: false }, size })
}

fn narrow(size: u64) -> Option<Bar> {
    Some(Bar { kind: BarKind::Memory32 { prefetchable: false }, size })
}

fn function(parent: Option<FunctionId>, device: u8, bars: &[(usize, Option<Bar>)]) -> Function {
    let mut all = [None; 7];
    bars.iter().for_each(|(index, bar)| all[*index] = *bar);
    let devfn = Devfn::new(device, 0).unwrap();
    Function { name: format!("device{device}"), parent, devfn, class: 0x0300, bars: all, bridge: None }
}

fn port(device: u8, hot_plug: bool) -> Function {
    let bridge = Some(Bridge { hot_plug });
    Function { name: format!("port{device}"), class: 0x0604, bridge, ..function(None, device, &[]) }
}

fn guest(functions: &[Function], memory: u64, phys_bits: u8, vendor: Vendor) -> Guest<'_> {
    Guest { functions, ram: RamSplit::of(memory), phys_bits, vendor, reserved: &[], floor: 0 }
}

/// Where the first register of the first function comes to lie.
fn first(version: Version, guest: &Guest<'_>) -> u64 {
    memory_at(&place(version, guest).unwrap(), 0, 0)
}

fn memory_at(plan: &Plan, function: FunctionId, bar: u8) -> u64 {
    match plan.bar(function, bar).unwrap() {
        Range::Memory(span) => span.first().0,
        Range::Ports(span) => panic!("{span:?}"),
    }
}

#[test]
fn large_bars_lie_where_firmware_was_seen_to_put_them() {
    use Vendor::{Amd, Intel};
    let one = [function(None, 1, &[(0, wide(128 * GIB))])];
    assert_eq!(first(DEBIAN_13, &guest(&one, GIB, 46, Amd)), 0x3fe0_0000_0000);
    assert_eq!(first(DEBIAN_12, &guest(&one, GIB, 46, Amd)), 0x20_0000_0000);
    let two = [function(None, 1, &[(0, wide(256 * GIB))]), function(None, 2, &[(0, wide(128 * GIB))])];
    let plan = place(DEBIAN_13, &guest(&two, 4 * GIB, 46, Amd)).unwrap();
    assert_eq!((memory_at(&plan, 0, 0), memory_at(&plan, 1, 0)), (0x3800_0000_0000, 0x3840_0000_0000));
    let behind = [function(Some(1), 0, &[(0, wide(128 * GIB))]), port(1, false)];
    assert_eq!(first(DEBIAN_13, &guest(&behind, 4 * GIB, 46, Amd)), 0x3800_0000_0000);
    assert_eq!(first(DEBIAN_13, &guest(&behind, 4 * GIB, 39, Intel)), 0x60_0000_0000);
    // Moved down once by what AMD's HyperTransport keeps below 1 TiB.
    let hole = [Span::of_len(Gpa(0xfd_0000_0000), 12 * GIB).unwrap()];
    let plan = place(DEBIAN_13, &Guest { reserved: &hole, ..guest(&two, 4 * GIB, 40, Amd) }).unwrap();
    assert_eq!((memory_at(&plan, 0, 0), memory_at(&plan, 1, 0)), (0x40_0000_0000, 0x80_0000_0000));
    let small = [function(None, 1, &[(0, wide(256 * MIB))])];
    assert_eq!(first(DEBIAN_13, &guest(&small, 4 * GIB, 39, Intel)), 0x70_0000_0000);
    // A width that is not believed: nothing goes high that need not.
    assert_eq!(first(DEBIAN_13, &guest(&small, 4 * GIB, 40, Intel)), 0xe000_0000);
    assert_eq!(first(NEWEST, &guest(&small, 4 * GIB, 40, Intel)), 0x1_8000_0000);
}

#[test]
fn eight_of_128_gib_lie_in_a_row() {
    let eight: Vec<_> = (1..9).map(|device| function(None, device, &[(0, wide(128 * GIB))])).collect();
    let plan = place(NEWEST, &guest(&eight, 8 * GIB, 48, Vendor::Amd)).unwrap();
    let places: Vec<u64> = (0..8).map(|id| memory_at(&plan, id, 0)).collect();
    let base = (1 << 44) - (2 << 40);
    assert_eq!(places, (0..8).map(|n| base + n * 128 * GIB).collect::<Vec<_>>());
    assert_eq!(plan.high, Span::of_len(Gpa(base), 1 << 40));
    let error = place(NEWEST, &guest(&eight, 8 * GIB, 39, Vendor::Intel)).unwrap_err();
    assert!(matches!(error, Misfit::High { bits: 39, .. }), "{error:?}");
    assert!(
        error.to_string().contains("device8 BAR 0 128 GiB, ") || error.to_string().contains("4 more"),
        "{error}"
    );
}

#[test]
fn nobody_but_us_looks_at_the_end_of_addresses() {
    let two = [function(None, 1, &[(0, wide(256 * GIB))]), function(None, 2, &[(0, wide(128 * GIB))])];
    let error = place(DEBIAN_13, &guest(&two, 4 * GIB, 39, Vendor::Intel)).unwrap_err();
    let Misfit::High { from, end, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*from, *end), (0x40_0000_0000, Some(0xa0_0000_0000)));
    let text = error.to_string();
    for part in
        ["from 0x4000000000", "end at 0xa000000000", "39 bits", "0x8000000000", "device1 BAR 0 256 GiB"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_port_with_a_slot_misplaces_a_large_bar_in_one_version() {
    let behind = |hot_plug| {
        let large = function(Some(2), 0, &[(0, wide(16 * GIB)), (2, wide(8 * GIB))]);
        vec![large, port(1, hot_plug), port(2, hot_plug), function(Some(1), 0, &[(0, wide(16 * GIB))])]
    };
    let (with, without) = (behind(true), behind(false));
    for version in [DEBIAN_12, DEBIAN_13, NEWEST] {
        place(version, &guest(&without, 8 * GIB, 40, Vendor::Amd)).unwrap();
    }
    let error = place(DEBIAN_13, &guest(&with, 8 * GIB, 40, Vendor::Amd)).unwrap_err();
    assert!(matches!(error, Misfit::Crooked { .. }), "{error:?}");
    assert!(error.to_string().contains("BAR 0 16 GiB would be put at"), "{error}");
    place(NEWEST, &guest(&with, 8 * GIB, 40, Vendor::Amd)).unwrap();
}

#[test]
fn the_low_window_can_be_filled_to_the_last_page() {
    // 512 + 256 + 128 + 64 MiB, and 44 MiB of pieces: 1004 MiB in all.
    let sizes = [512, 256, 128, 64, 32, 8];
    let mut functions: Vec<_> =
        (1..).zip(sizes).map(|(device, size)| function(None, device, &[(0, narrow(size * MIB))])).collect();
    functions.push(function(None, 10, &[(0, narrow(4 * MIB))]));
    let plan = place(DEBIAN_12, &guest(&functions, GIB, 40, Vendor::Amd)).unwrap();
    assert_eq!(memory_at(&plan, 0, 0), 0xc000_0000);
    assert_eq!(memory_at(&plan, 6, 0), 0xfe80_0000);
    functions.push(function(None, 11, &[(6, Some(Bar { kind: BarKind::Rom, size: 2 * KIB }))]));
    let error = place(DEBIAN_12, &guest(&functions, GIB, 40, Vendor::Amd)).unwrap_err();
    let Misfit::Low { needed, .. } = &error else { panic!("{error:?}") };
    // One page more, and the whole list moves down to a multiple of its largest.
    assert_eq!(*needed, 0xfec0_0000 - 0xa000_0000);
    let text = error.to_string();
    assert!(text.contains("1004 MiB at 0xc0000000-0xfebfffff") && text.contains("rom=off"), "{text}");
}

#[test]
fn a_plain_64_bit_bar_behind_a_port_has_to_lie_low() {
    let behind = [function(Some(1), 0, &[(0, plain_wide(2 * GIB))]), port(1, false)];
    let error = place(DEBIAN_13, &guest(&behind, GIB, 46, Vendor::Intel)).unwrap_err();
    assert!(
        error.to_string().contains("behind port1 2 GiB") && error.to_string().contains("root-port=off"),
        "{error}"
    );
    let on_root = [function(None, 1, &[(0, plain_wide(2 * GIB))])];
    assert!(first(DEBIAN_13, &guest(&on_root, GIB, 46, Vendor::Intel)) > 4 * GIB);
}

#[test]
fn what_evades_a_reserved_range_must_not_fall_below_4_gib() {
    let hole = [Span::of_len(Gpa(0xfd_0000_0000), 12 * GIB).unwrap()];
    let two =
        [function(None, 1, &[(0, plain_wide(256 * GIB))]), function(None, 2, &[(0, plain_wide(256 * GIB))])];
    let error =
        place(DEBIAN_13, &Guest { reserved: &hole, ..guest(&two, GIB, 40, Vendor::Amd) }).unwrap_err();
    assert!(matches!(error, Misfit::Taken { at, .. } if at.first() == Gpa(0)), "{error}");
}

#[test]
fn ports_run_out() {
    let io = Some(Bar { kind: BarKind::Io, size: 128 });
    let many = |count: u8| -> Vec<Function> {
        let ports = (0..count).map(|device| port(device, false));
        let behind = (0..count).map(|device| function(Some(device.into()), 0, &[(4, io)]));
        ports.chain(behind).collect()
    };
    let (few, more) = (many(3), many(15));
    let plan = place(DEBIAN_13, &guest(&few, GIB, 40, Vendor::Amd)).unwrap();
    assert_eq!(plan.bar(3, 4), Span::of_len(trapline_io::Port(0xe000), 128).map(Range::Ports));
    let four = many(4);
    let plan = place(DEBIAN_13, &guest(&four, GIB, 40, Vendor::Amd)).unwrap();
    assert_eq!(plan.bar(7, 4), Span::of_len(trapline_io::Port(0x1000), 128).map(Range::Ports));
    place(DEBIAN_13, &guest(&many(14), GIB, 40, Vendor::Amd)).unwrap();
    let error = place(DEBIAN_13, &guest(&more, GIB, 40, Vendor::Amd)).unwrap_err().to_string();
    assert!(error.contains("0xf000 ports") && error.contains("root-port=off"), "{error}");
}

fn bars() -> impl Strategy<Value = [Option<Bar>; 7]> {
    let kind = prop_oneof![
        2 => Just(BarKind::Io),
        3 => any::<bool>().prop_map(|prefetchable| BarKind::Memory32 { prefetchable }),
        5 => any::<bool>().prop_map(|prefetchable| BarKind::Memory64 { prefetchable }),
    ];
    let sized = (kind, 4..39_u32, 0..10_u32).prop_map(|(kind, large, small)| {
        let size = match kind {
            BarKind::Io => 1 << (2 + small),
            BarKind::Memory64 { .. } => 1 << large,
            _ => 1 << (large.min(28) - small.min(large.min(28) - 4)),
        };
        Bar { kind, size }
    });
    let rom =
        proptest::option::weighted(0.3, (11..22_u32).prop_map(|n| Bar { kind: BarKind::Rom, size: 1 << n }));
    let pair = proptest::option::weighted(0.4, sized);
    (proptest::array::uniform3(pair), rom).prop_map(|([a, b, c], rom)| [a, None, b, None, c, None, rom])
}

/// Ports on bus 0, a port behind a port, and functions anywhere.
fn functions() -> impl Strategy<Value = Vec<Function>> {
    let ports = proptest::collection::vec((any::<bool>(), any::<bool>()), 0..4);
    let leaves =
        proptest::collection::vec((bars(), any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 1..8);
    (ports, leaves).prop_map(|(ports, leaves)| {
        let mut all: Vec<Function> = Vec::new();
        for (device, (hot_plug, deep)) in (8..).zip(ports) {
            let parent = all.len().checked_sub(1).filter(|_| deep);
            all.push(Function { parent, ..port(device, hot_plug) });
        }
        let bridges = all.len();
        for (device, (bars, above, usb)) in (1..).zip(leaves) {
            let parent = above.index(bridges + 1).checked_sub(1);
            let class = if usb { 0x0c03 } else { 0x0300 };
            all.push(Function { bars, class, ..function(parent, device, &[]) });
        }
        all
    })
}

#[derive(Debug)]
struct Case {
    functions: Vec<Function>,
    version: Version,
    memory: u64,
    phys_bits: u8,
    vendor: Vendor,
    reserved: Vec<Span<Gpa>>,
    floor: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let version = prop::sample::select(vec![DEBIAN_12, DEBIAN_13, Version(1, 16, 4), NEWEST]);
    let memory = prop::sample::select(vec![GIB, 4 * GIB, 64 * GIB, 2048 * GIB]);
    let vendor = prop::sample::select(vec![Vendor::Intel, Vendor::Amd, Vendor::Other]);
    let hole = prop::sample::select(vec![vec![], vec![Span::of_len(Gpa(0xfd_0000_0000), 12 * GIB).unwrap()]]);
    let floor = prop::sample::select(vec![0, 0, 1 << 38]);
    let numbers = (version, memory, 36..53_u8, vendor, hole, floor);
    (functions(), numbers).prop_map(|(functions, (version, memory, phys_bits, vendor, reserved, floor))| {
        Case { functions, version, memory, phys_bits, vendor, reserved, floor }
    })
}

/// Planned ranges as the model counts them.
fn counted(range: Range) -> model::Where {
    match range {
        Range::Ports(span) => (span.first().0.into(), i128::from(span.extent()) + 1),
        Range::Memory(span) => (span.first().0.into(), i128::from(span.extent()) + 1),
    }
}

/// What is wrong with addresses that the firmware would program.
fn is_bad(case: &Case, guest: &Guest<'_>, found: &[(model::What, model::Where)]) -> bool {
    let end = 1_i128 << guest.phys_bits;
    if guest.ram.high > 0 && i128::from(4 * GIB + guest.ram.high) > end {
        return true;
    }
    found.iter().any(|((_, bar, list), (at, size))| {
        let (first, last) = (*at, at + size);
        let hits = |span: &Span<Gpa>| first <= span.last().0.into() && i128::from(span.first().0) < last;
        let ram = Span::of_len(Gpa(4 * GIB), guest.ram.high);
        let low = i128::from(LOW.0)..=i128::from(LOW.1);
        let strays = first < i128::from(4 * GIB) && !(low.contains(&first) && low.contains(&(last - 1)));
        // A window that is not needed counts for where the end lies, unless it stays closed.
        *list > 0
            && *size > 0
            && (last > end
                || bar.is_some()
                    && (strays
                        || first % size != 0
                        || case.reserved.iter().any(hits)
                        || ram.iter().any(hits)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_plan_is_what_the_rule_says(case in cases()) {
        let guest = Guest {
            reserved: &case.reserved,
            floor: case.floor,
            ..guest(&case.functions, case.memory, case.phys_bits, case.vendor)
        };
        let found = model::addresses(case.version, &guest);
        match (place(case.version, &guest), found) {
            (Ok(plan), Some(found)) => {
                for ((function, bar, list), place) in &found {
                    match bar {
                        Some(bar) => prop_assert_eq!(plan.bar(*function, *bar).map(counted), Some(*place)),
                        None if place.1 == 0 => {}
                        None => {
                            let window = plan.windows.iter().find(|window| {
                                let ports = matches!(window.at, Range::Ports(_));
                                window.bridge == *function && ports == (*list == 0)
                                    && window.prefetchable == (*list == 2)
                            });
                            prop_assert_eq!(window.map(|window| counted(window.at)), Some(*place));
                        }
                    }
                }
                let registers = case.functions.iter().flat_map(|function| function.bars).flatten().count();
                prop_assert_eq!(plan.bars.len(), registers);
                prop_assert!(!is_bad(&case, &guest, &found));
                sound(&case, &plan)?;
            }
            (Err(Misfit::Ports { .. } | Misfit::Low { .. }), None) => {}
            (Err(Misfit::Ram { .. }), _) => prop_assert!(is_bad(&case, &guest, &[])),
            (Err(Misfit::High { .. } | Misfit::Crooked { .. } | Misfit::Taken { .. }), Some(found)) => {
                prop_assert!(is_bad(&case, &guest, &found));
            }
            (planned, found) => prop_assert!(false, "{:?}\n{:?}", planned, found),
        }
    }
}

/// What must hold whatever the rule is: nothing overlaps, and each lies in the window above it.
fn sound(case: &Case, plan: &Plan) -> Result<(), TestCaseError> {
    for (index, one) in plan.bars.iter().enumerate() {
        let (at, size) = counted(one.at);
        prop_assert_eq!(at % size, 0);
        for other in plan.bars.get(index + 1..).unwrap_or_default() {
            let (other_at, other_size) = counted(other.at);
            let apart = at + size <= other_at || other_at + other_size <= at;
            let same_space = std::mem::discriminant(&one.at) == std::mem::discriminant(&other.at);
            prop_assert!(apart || !same_space, "{:?} {:?}", one, other);
        }
        if let Range::Memory(span) = one.at {
            let low = span.first().0 >= LOW.0 && span.last().0 <= LOW.1;
            let high =
                plan.high.is_some_and(|high| high.contains(span.first()) && high.contains(span.last()));
            prop_assert!(low || high, "{:?}", one);
        }
        let mut inner = (at, size);
        let mut parent = case.functions[one.function].parent;
        while let Some(bridge) = parent {
            let around =
                plan.windows.iter().filter(|window| window.bridge == bridge).map(|it| counted(it.at));
            let holds = |(first, len): &model::Where| *first <= inner.0 && inner.0 + inner.1 <= first + len;
            let Some(window) = around.into_iter().find(holds) else {
                return Err(TestCaseError::fail(format!("{one:?} is in no window of {bridge}")));
            };
            inner = window;
            parent = case.functions[bridge].parent;
        }
    }
    Ok(())
}
