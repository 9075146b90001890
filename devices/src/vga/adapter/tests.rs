//! The regions of the adapter, and what it claims.

use super::*;
use trapline_io::Gpa;
use trapline_io::device::Target;

const EDID_HEADER: u64 = 0x00ff_ffff_ffff_ff00;

fn adapter() -> Adapter {
    Adapter::new(Some(vec![0x55, 0xaa, 3])).unwrap()
}

fn config(adapter: &mut Adapter, offset: u64, width: Width, value: u64) {
    adapter.write(Region::CONFIG, offset, width, value).unwrap();
}

#[test]
fn an_identity_that_drivers_know() {
    let mut adapter = adapter();
    let mut read = |offset| adapter.read(Region::CONFIG, offset, Width::B4).unwrap();
    assert_eq!((read(0), read(8), read(0x2c)), (0x1111_1234, 0x0300_0002, 0x1100_1af4));
    assert_eq!(read(0x3c) >> 8 & 0xff, 0, "an interrupt pin");
}

#[test]
fn accesses_at_the_end_of_all_addresses_find_nothing() {
    let mut adapter = adapter();
    for region in (0..10).map(Region).chain([DISPI]) {
        for width in [Width::B1, Width::B2, Width::B4, Width::B8] {
            for offset in u64::MAX - 8..=u64::MAX {
                let _ = adapter.write(region, offset, width, 0);
                let read = adapter.read(region, offset, width);
                assert!(
                    read.is_err() || read == Ok(width.all_ones()),
                    "{region:?} {offset:#x} {width:?}: {read:?}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_claimed_before_command_says_so() {
    let mut adapter = adapter();
    assert!(adapter.claims().ranges.is_empty());
    config(&mut adapter, 0x10, Width::B4, 0xe000_0000);
    config(&mut adapter, 0x18, Width::B4, 0xe100_0000);
    config(&mut adapter, 0x30, Width::B4, 0xe101_0001);
    config(&mut adapter, 4, Width::B2, 1);
    let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
    let ranges: Vec<Range> = adapter.claims().ranges.iter().map(|claim| claim.range).collect();
    assert_eq!(ranges, [ports(0x3b0, 0x3bb), ports(0x3c0, 0x3df), ports(0x1ce, 0x1d0)]);
    config(&mut adapter, 4, Width::B2, 2);
    let memory = |first, len| Range::Memory(Span::of_len(Gpa(first), len).unwrap());
    let claims = adapter.claims().ranges;
    let ranges: Vec<Range> = claims.iter().map(|claim| claim.range).collect();
    let expected = [
        memory(0xe000_0000, 16 << 20),
        memory(0xe100_0000, 4096),
        memory(0xe101_0000, 65536),
        memory(0xa_0000, 0x2_0000),
    ];
    assert_eq!(ranges, expected);
    assert!(claims[0].direct.as_ref().is_some_and(|direct| direct.kind == DirectKind::Bar));
    assert!(matches!(claims[3].target, Target::Region { region: Region::VGA, offset: 0xa_0000, .. }));
    adapter.reset();
    assert!(adapter.claims().ranges.is_empty());
}

#[test]
fn the_rom_reads_as_the_image_and_then_ones() {
    let mut adapter = adapter();
    assert_eq!(adapter.read(Region::ROM, 0, Width::B4), Ok(0xff03_aa55));
    assert_eq!(adapter.read(Region::ROM, 0xfffc, Width::B8), Ok(u64::MAX));
    let mut bare = Adapter::new(None).unwrap();
    config(&mut bare, 0x30, Width::B4, 0xffff_ffff);
    assert_eq!(bare.read(Region::CONFIG, 0x30, Width::B4), Ok(0));
    assert_eq!(bare.read(Region::ROM, 0, Width::B4), Err(Fault::NoRegister));
    let error = Adapter::new(Some(vec![0; ROM_SIZE + 1])).unwrap_err();
    assert!(error.to_string().contains("65537"), "{error}");
}

#[test]
fn bar_2_repeats_the_ports() {
    let mut adapter = adapter();
    adapter.write(MMIO, 0x402, Width::B1, 0x67).unwrap();
    adapter.write(MMIO, 0x414, Width::B2, 0x340e).unwrap();
    assert_eq!(adapter.read(Region::VGA, 0x3cc, Width::B1), Ok(0x67));
    assert_eq!(adapter.read(Region::VGA, 0x3d4, Width::B2), Ok(0x340e));
    assert_eq!(adapter.read(MMIO, 0x414, Width::B2), Ok(0x340e));
    assert_eq!(adapter.read(MMIO, 0x41e, Width::B4), Err(Fault::NoRegister));
}

#[test]
fn bar_2_has_edid_and_byte_order() {
    let mut adapter = adapter();
    assert_eq!(adapter.read(MMIO, 0, Width::B8), Ok(EDID_HEADER));
    assert_eq!(adapter.read(MMIO, 0x80, Width::B8), Ok(0));
    assert_eq!(adapter.read(MMIO, 0x600, Width::B8), Ok(0x1e1e_1e1e_0000_0008));
    adapter.write(MMIO, 0x604, Width::B4, 0xbebe_bebe).unwrap();
    adapter.write(MMIO, 0x604, Width::B4, 1).unwrap();
    assert_eq!(adapter.read(MMIO, 0x604, Width::B4), Ok(0xbebe_bebe));
    assert_eq!(adapter.read(MMIO, 0x200, Width::B4), Err(Fault::NoRegister));
    assert_eq!(adapter.read(MMIO, u64::MAX, Width::B4), Err(Fault::NoRegister));
}

#[test]
fn the_bochs_registers_have_two_ways_in() {
    let mut adapter = adapter();
    adapter.write(DISPI, 0, Width::B2, 1).unwrap();
    adapter.write(DISPI, 1, Width::B2, 800).unwrap();
    assert_eq!(adapter.read(MMIO, 0x502, Width::B2), Ok(800));
    adapter.write(MMIO, 0x502, Width::B4, 480 << 16 | 640).unwrap();
    assert_eq!(adapter.read(DISPI, 1, Width::B2), Ok(640));
    assert_eq!(adapter.read(DISPI, 0, Width::B2), Ok(1));
    assert_eq!(adapter.read(MMIO, 0x500, Width::B8), Ok(480 << 32 | 640 << 16 | 0xb0c5));
    assert_eq!(adapter.write(MMIO, 0x503, Width::B1, 0), Err(Fault::BadWidth));
    assert_eq!(adapter.write(DISPI, 1, Width::B1, 0), Err(Fault::BadWidth));
    assert_eq!(adapter.read(DISPI, 0, Width::B4), Err(Fault::BadWidth));
}

#[test]
fn enabling_clears_what_is_shown_unless_told_not_to() {
    let mut adapter = adapter();
    let shown = 640 * 480;
    for (flags, left) in [(0x80, 0x55), (0, 0)] {
        for offset in [0, shown - 1, shown] {
            adapter.write(FRAMEBUFFER, offset, Width::B1, 0x55).unwrap();
        }
        for (register, value) in [(4, 0), (1, 640), (2, 480), (3, 8), (4, 0x41 | flags)] {
            adapter.write(MMIO, 0x500 + 2 * register, Width::B2, value).unwrap();
        }
        let seen = [0, shown - 1, shown].map(|offset| adapter.read(FRAMEBUFFER, offset, Width::B1).unwrap());
        assert_eq!(seen, [left, left, 0x55]);
    }
}

#[test]
fn the_framebuffer_is_the_memory_that_others_map() {
    let mut adapter = adapter();
    let other = Shared::open(adapter.framebuffer().file().try_clone().unwrap(), VRAM_SIZE).unwrap();
    adapter.write(FRAMEBUFFER, 0xff_fff8, Width::B8, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(memory::load(other.bytes(), 0xff_fffc, Width::B4), 0x1122_3344);
    assert_eq!(adapter.read(FRAMEBUFFER, 0xff_fffd, Width::B4), Ok(0xffff_ffff));
}

#[test]
fn the_screen_region_follows_every_write() {
    let mut adapter = adapter();
    let view = crate::vga::View::of(&adapter);
    let steps = [(0x3c2, 0x67), (0x3c4, 2), (0x3c5, 3), (0x3c8, 9), (0x3c9, 1), (0x3c9, 2), (0x3c9, 3)];
    for (port, value) in steps {
        adapter.write(Region::VGA, port, Width::B1, value).unwrap();
        assert_eq!(view.snapshot().unwrap().registers, *adapter.registers());
    }
    assert_eq!(adapter.write(SCREEN, 0, Width::B4, 0), Ok(()));
    assert_eq!(adapter.read(SCREEN, 0, Width::B4), Ok(u64::from(u32::from_le_bytes(*b"TVGA"))));
    adapter.reset();
    assert_eq!(view.snapshot().unwrap().registers, Registers::default());
}

#[test]
fn what_is_not_vga_is_not_answered() {
    let mut adapter = adapter();
    for offset in [0, 0x3af, 0x3bc, 0x3bf, 0x3e0, 0x9_ffff, 0xc_0000, u64::MAX] {
        assert_eq!(adapter.read(Region::VGA, offset, Width::B1), Err(Fault::NoRegister), "{offset:#x}");
        assert_eq!(adapter.write(Region::VGA, offset, Width::B1, 0), Err(Fault::NoRegister), "{offset:#x}");
    }
    assert_eq!(adapter.read(Region(11), 0, Width::B1), Err(Fault::NoRegister));
}

#[test]
fn regions_have_the_sizes_that_vfio_tells() {
    let sizes = [0, 1, 2, 6, 7, 8, 9].map(|index| region_size(Region(index)));
    let some = [Some(16 << 20), None, Some(4096), Some(65536), Some(4096), Some(0xc_0000), Some(4096)];
    assert_eq!(sizes, some);
}
