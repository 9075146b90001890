use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Address, Op, Trap};
use vm_memory::GuestAddress;

use super::*;
use crate::q35::Pages;

mod model;

const FIRMWARE: u64 = 0x4_0000;

/// A firmware whose every 16-bit word at an even offset tells its page.
fn firmware(size: u64) -> Arc<MmapRegion> {
    let region: MmapRegion = MmapRegion::new(usize::try_from(size).unwrap()).unwrap();
    for page in 0..size / PAGE {
        let word = u16::try_from(page).unwrap() | 0xf000;
        store(&region, page * PAGE, Width::B2, word.into()).unwrap();
    }
    Arc::new(region)
}

fn bridge(ram: u64) -> HostBridge {
    HostBridge::new(Ram::new(ram).unwrap(), firmware(FIRMWARE)).unwrap()
}

fn set(bridge: &mut HostBridge, offset: u64, width: Width, value: u64) {
    bridge.write(Region::CONFIG, offset, width, value).unwrap();
}

fn get(bridge: &mut HostBridge, offset: u64, width: Width) -> u64 {
    bridge.read(Region::CONFIG, offset, width).unwrap()
}

/// First and last address, region, offset and kind of every claim of memory with direct access.
fn layout(bridge: &HostBridge) -> Vec<(u64, u64, Region, u64, DirectKind)> {
    let row = |claim: &Claim| {
        let (Range::Memory(span), Some(direct)) = (claim.range, &claim.direct) else { return None };
        let Target::Region { region, offset, .. } = claim.target else { return None };
        let (memory, kind, at) = bridge.memory(region, offset).unwrap();
        assert!(Arc::ptr_eq(memory, &direct.memory));
        assert_eq!((direct.offset, direct.kind), (at, kind));
        assert!(at + span.extent() < memory.size() as u64, "{claim:?}");
        Some((span.first().0, span.last().0, region, offset, kind))
    };
    bridge.claims().ranges.iter().filter_map(row).collect()
}

/// The rows between 0xc0000 and 1 MiB.
fn shadowed(bridge: &HostBridge) -> Vec<(u64, u64, Region, u64)> {
    let inside = |row: &(u64, u64, Region, u64, DirectKind)| row.0 >= 0xc_0000 && row.1 < 0x10_0000;
    layout(bridge).into_iter().filter(inside).map(|row| (row.0, row.1, row.2, row.3)).collect()
}

fn space(bridge: &HostBridge) -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    for claim in bridge.claims().ranges {
        builder.claim(EndpointId(0), &claim);
    }
    builder.build()
}

fn resolve(bridge: &HostBridge, at: Address, width: Width) -> Resolved {
    space(bridge).resolve(Trap { at, width, op: Op::Read }, &ConfigLatch::default())
}

/// What the guest reads there, the trapped way.
fn peek(bridge: &mut HostBridge, gpa: u64, width: Width) -> u64 {
    match resolve(bridge, Address::Gpa(Gpa(gpa)), width) {
        Resolved::Access { access, .. } => bridge.read(access.region, access.offset, width).unwrap(),
        other => panic!("{gpa:#x} resolves to {other:?}"),
    }
}

fn poke(bridge: &mut HostBridge, gpa: u64, width: Width, value: u64) {
    match resolve(bridge, Address::Gpa(Gpa(gpa)), width) {
        Resolved::Access { access, .. } => bridge.write(access.region, access.offset, width, value).unwrap(),
        other => panic!("{gpa:#x} resolves to {other:?}"),
    }
}

#[test]
fn at_power_on_the_firmware_shows_at_both_places() {
    let bridge = bridge(4 << 30);
    assert_eq!(
        layout(&bridge),
        [
            (0, 0x9_ffff, region::RAM, 0, DirectKind::Ram),
            (0xc_0000, 0xd_ffff, region::BLANK, 0, DirectKind::Rom),
            (0xe_0000, 0xf_ffff, region::FLASH, 0x2_0000, DirectKind::Rom),
            (0x10_0000, 0x7fff_ffff, region::RAM, 0x10_0000, DirectKind::Ram),
            (0xfffc_0000, 0xffff_ffff, region::FLASH, 0, DirectKind::Rom),
            (0x1_0000_0000, 0x1_7fff_ffff, region::HIGH_RAM, 0, DirectKind::Ram),
        ]
    );
}

#[test]
fn identity_and_quiet_registers() {
    let mut bridge = bridge(64 << 20);
    assert_eq!(get(&mut bridge, 0x00, Width::B4), 0x29c0_8086);
    assert_eq!(get(&mut bridge, 0x08, Width::B4), 0x0600_0000);
    assert_eq!(get(&mut bridge, 0x2c, Width::B4), 0x1100_1af4);
    for bar in (0x10..=0x24).step_by(4).chain([0x30]) {
        set(&mut bridge, bar, Width::B4, 0xffff_ffff);
        assert_eq!(get(&mut bridge, bar, Width::B4), 0, "{bar:#x}");
    }
    // What a query for larger TSEG or another SMBASE reads when there is neither.
    set(&mut bridge, 0x50, Width::B2, 0xffff);
    assert_eq!(get(&mut bridge, 0x50, Width::B2), 0xffff);
    set(&mut bridge, 0x9c, Width::B1, 0xff);
    assert_eq!(get(&mut bridge, 0x9c, Width::B1), 0);
    assert_eq!(get(&mut bridge, 0x9e, Width::B1), 0x38);
}

#[test]
fn pam_as_seabios_uses_it() {
    let mut bridge = bridge(1 << 30);
    assert_eq!(get(&mut bridge, 0x90, Width::B1), 0);

    set(&mut bridge, 0x90, Width::B4, 0x3333_3330);
    assert_eq!(
        shadowed(&bridge),
        [
            (0xc_0000, 0xd_7fff, region::RAM, 0xc_0000),
            (0xd_8000, 0xd_ffff, region::BLANK, 0x1_8000),
            (0xe_0000, 0xe_ffff, region::FLASH, 0x2_0000),
            (0xf_0000, 0xf_ffff, region::RAM, 0xf_0000),
        ]
    );
    set(&mut bridge, 0x94, Width::B4, 0x0033_3333);
    assert_eq!(shadowed(&bridge), [(0xc_0000, 0xf_ffff, region::RAM, 0xc_0000)]);
    assert_eq!(get(&mut bridge, 0x90, Width::B4), 0x3333_3330);

    // The BIOS copies itself down, runs its option ROMs, and locks what is to stay.
    poke(&mut bridge, 0xf_0000, Width::B2, 0x1234);
    set(&mut bridge, 0x90, Width::B4, 0x1111_1110);
    set(&mut bridge, 0x94, Width::B4, 0x0033_3111);
    assert_eq!(
        shadowed(&bridge),
        [
            (0xc_0000, 0xe_3fff, region::SHADOW, 0xc_0000),
            (0xe_4000, 0xe_ffff, region::RAM, 0xe_4000),
            (0xf_0000, 0xf_ffff, region::SHADOW, 0xf_0000),
        ]
    );
    poke(&mut bridge, 0xf_0000, Width::B2, 0x5678);
    assert_eq!(peek(&mut bridge, 0xf_0000, Width::B2), 0x1234, "locked");

    bridge.reset();
    assert_eq!(peek(&mut bridge, 0xf_0000, Width::B2), 0xf030, "pristine after reset");
    set(&mut bridge, 0x90, Width::B4, 0x3333_3330);
    assert_eq!(peek(&mut bridge, 0xf_0000, Width::B2), 0x1234, "memory survives a reset");
}

#[test]
fn firmware_copies_itself_onto_itself() {
    let mut bridge = bridge(16 << 20);
    set(&mut bridge, 0x90, Width::B1, 0x20);
    set(&mut bridge, 0x93, Width::B1, 0x02);
    assert_eq!(
        shadowed(&bridge),
        [
            (0xc_0000, 0xc_ffff, region::BLANK, 0),
            (0xd_0000, 0xd_3fff, region::BLANK_OVER_RAM, 0x1_0000),
            (0xd_4000, 0xd_ffff, region::BLANK, 0x1_4000),
            (0xe_0000, 0xe_ffff, region::FLASH, 0x2_0000),
            (0xf_0000, 0xf_ffff, region::FLASH_OVER_RAM, 0x3_0000),
        ]
    );
    for page in (0xf_0000..0x10_0000).step_by(0x1000) {
        let word = peek(&mut bridge, page, Width::B2);
        poke(&mut bridge, page, Width::B2, word);
        poke(&mut bridge, page + 8, Width::B8, page);
        assert_eq!(peek(&mut bridge, page + 8, Width::B8), 0, "the ROM is read");
    }
    set(&mut bridge, 0x90, Width::B1, 0x10);
    for page in (0xf_0000..0x10_0000).step_by(0x1000) {
        assert_eq!(peek(&mut bridge, page, Width::B2), 0xf030 + (page >> 12 & 0xf));
        assert_eq!(peek(&mut bridge, page + 8, Width::B8), page);
    }
}

#[test]
fn every_value_of_pam_claims_the_whole_area() {
    let mut bridge = bridge(16 << 20);
    for register in 0..7 {
        for value in 0..=255 {
            set(&mut bridge, 0x90 + register, Width::B1, value);
            let rows = shadowed(&bridge);
            let mut next = 0xc_0000;
            for row in &rows {
                assert_eq!(row.0, next, "{register} {value:#x}");
                next = row.1 + 1;
            }
            assert_eq!(next, 0x10_0000);
            let last = if register == 0 { value & 0x30 } else { value & 0x33 };
            assert_eq!(get(&mut bridge, 0x90 + register, Width::B1), last);
        }
        set(&mut bridge, 0x90 + register, Width::B1, 0);
    }
}

#[test]
fn pciexbar_moves_the_window() {
    let mut bridge = bridge(1 << 30);
    let ecam = |bridge: &HostBridge| {
        let found = bridge.claims().ranges.into_iter().find(|claim| claim.target == Target::Ecam);
        found.map(|claim| claim.range)
    };
    let memory = |first, len| Span::of_len(Gpa(first), len).map(Range::Memory);
    assert_eq!(ecam(&bridge), None);
    assert_eq!(get(&mut bridge, 0x60, Width::B4), 0xb000_0000);
    for (low, high) in [(0, None), (0xb000_0001, memory(0xb000_0000, 256 << 20))] {
        set(&mut bridge, 0x60, Width::B4, low);
        set(&mut bridge, 0x64, Width::B4, 0);
        assert_eq!(ecam(&bridge), high);
    }
    for (low, high, range) in [
        (0xe400_0003, 0, memory(0xe000_0000, 128 << 20)),
        (0xe400_0005, 0, memory(0xe400_0000, 64 << 20)),
        (0xe400_0007, 0, None),
        (0xffff_ffff, 0xffff_ffff, None),
        (0xfc00_0005, 0xffff_ffff, memory(0xf_fc00_0000, 64 << 20)),
        (0x0000_0001, 0, memory(0, 256 << 20)),
    ] {
        set(&mut bridge, 0x60, Width::B4, low);
        set(&mut bridge, 0x64, Width::B4, high);
        assert_eq!(ecam(&bridge), range, "{high:#x} {low:#x}");
    }
    bridge.reset();
    assert_eq!(ecam(&bridge), None);
}

#[test]
fn the_vga_window_is_free_unless_smram_is_open() {
    let mut bridge = bridge(1 << 30);
    let window = Address::Gpa(Gpa(0xb_8000));
    let free = |bridge: &HostBridge| resolve(bridge, window, Width::B2) == Resolved::Unclaimed;
    for value in 0..=0xff_u64 {
        bridge.reset();
        set(&mut bridge, 0x9d, Width::B1, value);
        // There, open, not locked; every other combination leaves the window to the adapter.
        let open = value & 0x58 == 0x48;
        assert_eq!(free(&bridge), !open, "SMRAM {value:#x}");
        set(&mut bridge, 0x9e, Width::B1, 0x80);
        assert!(free(&bridge), "SMRAM {value:#x}, high");
        let high = (0xfeda_0000, 0xfedb_ffff, region::RAM, 0xa_0000, DirectKind::Ram);
        assert_eq!(layout(&bridge).contains(&high), open, "SMRAM {value:#x}, high");
    }
    bridge.reset();
    set(&mut bridge, 0x9d, Width::B1, 0x4a);
    assert_eq!(layout(&bridge)[0], (0, 0xb_ffff, region::RAM, 0, DirectKind::Ram));
    set(&mut bridge, 0x9d, Width::B1, 0x0a);
    assert_eq!(layout(&bridge)[0], (0, 0x9_ffff, region::RAM, 0, DirectKind::Ram));
}

#[test]
fn a_locked_smram_changes_no_more() {
    let mut bridge = bridge(16 << 20);
    set(&mut bridge, 0x9d, Width::B1, 0x5a);
    assert_eq!(get(&mut bridge, 0x9d, Width::B1), 0x1a, "the lock closes");
    // Only D_CLS can still be written, which hides nothing.
    for (offset, width, value, both) in [
        (0x9d, Width::B1, 0x40, 0x381a),
        (0x9c, Width::B4, 0xffff_ffff, 0x383a),
        (0x9e, Width::B1, 0x87, 0x383a),
        (0x9d, Width::B2, 0, 0x381a),
    ] {
        set(&mut bridge, offset, width, value);
        assert_eq!(get(&mut bridge, 0x9d, Width::B2), both);
        assert_eq!(resolve(&bridge, Address::Gpa(Gpa(0xb_8000)), Width::B2), Resolved::Unclaimed);
    }
    bridge.reset();
    assert_eq!(get(&mut bridge, 0x9c, Width::B4), 0x0038_0200);
}

#[test]
fn trapped_accesses_reach_the_memory() {
    let mut bridge = bridge(4 << 30);
    for (gpa, width, value) in [
        (0x1000, Width::B8, 0x1122_3344_5566_7788),
        (0x7fff_fffe, Width::B2, 0xbeef),
        (0x1_0000_0001, Width::B4, 0xdead_beef),
        (0x9_ffff, Width::B1, 0x5a),
    ] {
        poke(&mut bridge, gpa, width, value);
        assert_eq!(peek(&mut bridge, gpa, width), value, "{gpa:#x}");
    }
    let seen: u64 = bridge.ram.guest_memory().read_obj(GuestAddress(0x1000)).unwrap();
    assert_eq!(seen, 0x1122_3344_5566_7788);
    for (gpa, value) in [(0xffff_f000, 0xf03f), (0xf_f000, 0xf03f), (0xc_8000, 0)] {
        poke(&mut bridge, gpa, Width::B2, 0xffff);
        assert_eq!(peek(&mut bridge, gpa, Width::B2), value, "{gpa:#x} is no RAM");
    }
}

#[test]
fn accesses_out_of_bounds_are_faults() {
    let mut bridge = bridge(1 << 20);
    for number in 0..=255 {
        for offset in [u64::MAX, u64::MAX - 3, 1 << 52, 16 << 20] {
            let region = Region(number);
            assert!(bridge.read(region, offset, Width::B4).is_err());
            let rom = matches!(region, region::SHADOW | region::FLASH | region::BLANK);
            assert_eq!(bridge.write(region, offset, Width::B4, 0).is_ok(), rom);
        }
    }
    assert_eq!(bridge.read(Region::CONFIG, 0, Width::B8), Err(Fault::BadWidth));
    assert_eq!(bridge.read(Region::CONFIG, 0xffe, Width::B4), Err(Fault::NoRegister));
}

#[test]
fn firmware_of_any_fitting_size() {
    let ram = Ram::new(1 << 20).unwrap();
    for size in [PAGE - 1, LARGEST_FIRMWARE + PAGE] {
        let odd = Arc::new(MmapRegion::new(usize::try_from(size).unwrap()).unwrap());
        assert!(matches!(HostBridge::new(ram.clone(), odd), Err(FirmwareError::Size(_))));
    }
    let mut small = HostBridge::new(ram.clone(), firmware(0x1_3000)).unwrap();
    assert_eq!(
        shadowed(&small),
        [(0xc_0000, 0xe_cfff, region::BLANK, 0), (0xe_d000, 0xf_ffff, region::FLASH, 0)]
    );
    assert_eq!(peek(&mut small, 0xe_d000, Width::B2), 0xf000);
    set(&mut small, 0x96, Width::B1, 0x30);
    assert_eq!(shadowed(&small)[1], (0xe_c000, 0xe_ffff, region::RAM, 0xe_c000));
    assert_eq!(shadowed(&small)[2], (0xf_0000, 0xf_ffff, region::FLASH, 0x3000));
    assert!(HostBridge::new(ram, firmware(LARGEST_FIRMWARE)).is_ok());
}

#[test]
fn the_ports_leave_room_for_reset_control() {
    let bridge = bridge(1 << 20);
    let at = |port| Address::Port(Port(port));
    assert_eq!(resolve(&bridge, at(0xcf8), Width::B4), Resolved::Latch(0));
    assert_eq!(resolve(&bridge, at(0xcf9), Width::B1), Resolved::Unclaimed);
    assert_eq!(resolve(&bridge, at(0xcfc), Width::B4), Resolved::Unclaimed, "latch not enabled");
    let space = space(&bridge);
    let latch = ConfigLatch::default();
    let write = Trap { at: at(0xcf8), width: Width::B4, op: Op::Write(0x8000_0090) };
    space.resolve(write, &latch);
    assert_eq!(latch.get(), 0x8000_0090);
}

#[test]
fn only_what_goes_on_in_memory_too_is_merged() {
    let mut runs = Vec::new();
    push(&mut runs, 0x1000, 0x2000, region::RAM, 0x1000);
    push(&mut runs, 0x2000, 0x3000, region::RAM, 0x2000);
    push(&mut runs, 0x3000, 0x3000, region::RAM, 0x3000);
    assert_eq!(runs.len(), 1);
    push(&mut runs, 0x3000, 0x4000, region::RAM, 0x8000);
    push(&mut runs, 0x4000, 0x5000, region::SHADOW, 0x9000);
    push(&mut runs, 0x6000, 0x7000, region::SHADOW, 0xb000);
    assert_eq!(runs.len(), 4);
}

#[test]
fn high_ram_on_both_sides_of_a_gap_is_reached_trapped_and_directly() {
    let kept = Span::of_len(Gpa(0x1_4000_0000), 1 << 20).unwrap();
    let ram = Ram::around(4 << 30, Pages::Transparent, &[kept]).unwrap();
    let mut bridge = HostBridge::new(ram.clone(), firmware(FIRMWARE)).unwrap();
    let above: Vec<_> = layout(&bridge).into_iter().filter(|run| run.0 >= 1 << 32).collect();
    let expected = [
        (0x1_0000_0000, 0x1_3fff_ffff, region::HIGH_RAM, 0, DirectKind::Ram),
        (0x1_8000_0000, 0x1_bfff_ffff, region::HIGH_RAM, 0x8000_0000, DirectKind::Ram),
    ];
    assert_eq!(above, expected);
    poke(&mut bridge, 0x1_8000_1000, Width::B4, 0x1122_3344);
    assert_eq!(peek(&mut bridge, 0x1_8000_1000, Width::B4), 0x1122_3344);
    let seen: u32 = ram.guest_memory().read_obj(GuestAddress(0x1_8000_1000)).unwrap();
    assert_eq!(seen, 0x1122_3344);
    let directly = bridge.claims().ranges.into_iter().find_map(|claim| match claim.range {
        Range::Memory(span) if span.first() == Gpa(0x1_8000_0000) => claim.direct,
        _ => None,
    });
    let direct = directly.unwrap();
    assert_eq!((direct.offset, direct.memory.size()), (0, 1 << 30));
}
