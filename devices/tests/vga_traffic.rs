//! Whatever a guest writes, the adapter neither panics nor leaves its memory, and the screen can be
//! shown.

use proptest::prelude::*;
use trapline_devices::vga::scanout::{self, MAX_HEIGHT, MAX_WIDTH};
use trapline_devices::vga::{Adapter, DISPI, Malformed, SCREEN, Snapshot};
use trapline_io::{Access, Device, Op, Region, Width};

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)]
}

/// Mostly small numbers, which are valid registers and resolutions more often.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![0..32_u64, 0..0x400_u64, any::<u16>().prop_map(u64::from), any::<u64>()]
}

fn places() -> impl Strategy<Value = (Region, u64)> {
    prop_oneof![
        6 => (0x3b0..0x3e0_u64).prop_map(|port| (Region::VGA, port)),
        2 => (0xa_0000..0xc_0000_u64).prop_map(|at| (Region::VGA, at)),
        3 => (0x3f8..0x620_u64).prop_map(|at| (Region::bar(2), at)),
        2 => (0x500..0x518_u64).prop_map(|at| (Region::bar(2), at)),
        2 => (0..3_u64).prop_map(|at| (DISPI, at)),
        1 => any::<u64>().prop_map(|at| (Region::bar(0), at)),
        1 => (0..0x100_0010_u64).prop_map(|at| (Region::bar(0), at)),
        1 => (0..0x1010_u64).prop_map(|at| (Region::CONFIG, at)),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(region, at)| (Region(region), at)),
        1 => any::<u64>().prop_map(|at| (Region::ROM, at)),
    ]
}

fn accesses() -> impl Strategy<Value = Access> {
    (places(), widths(), prop::option::weighted(0.8, values())).prop_map(
        |((region, offset), width, write)| match write {
            Some(value) => Access::write(region, offset, width, value),
            None => Access::read(region, offset, width),
        },
    )
}

fn carry_out(adapter: &mut Adapter, access: Access) {
    let Access { region, width, offset, op } = access;
    // A fault is a right answer too.
    let _ = match op {
        Op::Read => adapter.read(region, offset, width),
        Op::Write(value) => adapter.write(region, offset, width, value).map(|()| 0),
    };
}

fn show(adapter: &Adapter) -> Result<(), TestCaseError> {
    let (snapshot, vram) = (Snapshot::of(adapter), adapter.framebuffer().bytes());
    let frame = scanout::frame(&snapshot, vram);
    prop_assert!(frame.width <= MAX_WIDTH && frame.height <= MAX_HEIGHT);
    prop_assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
    if let Some(text) = scanout::text(&snapshot, vram) {
        prop_assert_eq!(text.cells.len(), text.columns * text.rows);
    }
    prop_assert_eq!(
        Snapshot::from_page(adapter.screen().bytes()).map(|seen| seen.registers),
        Ok(snapshot.registers)
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_traffic_does_no_harm(bursts in prop::collection::vec(prop::collection::vec(accesses(), 1..200), 1..4)) {
        let mut adapter = Adapter::new(Some(vec![0xaa; 100])).unwrap();
        for access in bursts.into_iter().flatten() {
            carry_out(&mut adapter, access);
        }
        // A screen that is off would hide most of it.
        for (port, value) in [(0x3c3, 1), (0x3c2, 1), (0x3c0, 0x20), (0x3c4, 0x0101)] {
            adapter.read(Region::VGA, 0x3da, Width::B1).unwrap();
            adapter.write(Region::VGA, port, Width::B2, value).unwrap();
        }
        adapter.claims();
        let registers = *adapter.registers();
        carry_out(&mut adapter, Access::read(SCREEN, 0, Width::B8));
        prop_assert_eq!(registers, *adapter.registers());
        show(&adapter)?;
        adapter.reset();
        show(&adapter)?;
    }

    #[test]
    fn a_malformed_snapshot_is_refused_or_shown(
        mut bytes in prop::collection::vec(any::<u8>(), Snapshot::SIZE),
        memory in prop_oneof![Just(0_usize), Just(5), Just(0x1_0001), Just(0x20_0000)],
    ) {
        prop_assert!(matches!(Snapshot::from_bytes(&bytes), Err(Malformed::Magic(_) | Malformed::Version(_))));
        let good = Snapshot::of(&Adapter::new(None).unwrap());
        bytes[..16].copy_from_slice(&good.to_bytes()[..16]);
        let snapshot = Snapshot::from_bytes(&bytes).unwrap();
        let mut memory = vec![0x5a; memory];
        let memory = vm_memory::VolatileSlice::from(memory.as_mut_slice());
        let frame = scanout::frame(&snapshot, memory);
        prop_assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
        scanout::text(&snapshot, memory);
    }
}
