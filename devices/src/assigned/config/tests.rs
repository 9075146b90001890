use proptest::prelude::*;

use super::*;

fn shape() -> Shape {
    Shape {
        placement: Placement::RootBus,
        multifunction: false,
        intx: true,
        bars: [16 << 20, 0, 3000, 0, 64, 0],
        rom: Some(65536),
    }
}

/// An adapter with power management, a vendor's capability, advanced features and an endpoint's
/// Express capability.
fn device() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&[0x34, 0x12, 0x11, 0x11]);
    bytes[6] = 0x10;
    bytes[8..12].copy_from_slice(&[2, 0, 0, 3]);
    bytes[0x10] = 0x08;
    bytes[0x18] = 0x04;
    bytes[0x20] = 0x01;
    bytes[0x34] = 0x60;
    bytes[0x3d] = 2;
    bytes[0x60..0x68].copy_from_slice(&[spec::CAP_POWER, 0x70, 0x03, 0xff, 0x08, 0, 0, 0]);
    bytes[0x70..0x73].copy_from_slice(&[spec::CAP_VENDOR, 0x78, 0x08]);
    bytes[0x78..0x7e].copy_from_slice(&[spec::CAP_ADVANCED, 0x80, 6, 3, 0, 0]);
    bytes[0x80..0x84].copy_from_slice(&[spec::CAP_EXPRESS, 0xc0, 0x02, 0x00]);
    bytes[0x84..0x88].copy_from_slice(&0x1000_8001_u32.to_le_bytes());
    bytes[0x8c..0x90].copy_from_slice(&0x0040_0103_u32.to_le_bytes());
    bytes[0x92..0x94].copy_from_slice(&0x1103_u16.to_le_bytes());
    bytes[0xac..0xb0].copy_from_slice(&0xe_u32.to_le_bytes());
    bytes[0xb0] = 3;
    bytes[0xc0..0xc2].copy_from_slice(&[0x14, 0x60]);
    bytes
}

fn config_of(bytes: &[u8], shape: Shape) -> Config {
    Config::new(&Registers::of(bytes), &shape).unwrap()
}

fn config() -> Config {
    config_of(&device(), shape())
}

fn behind_port(bytes: &[u8]) -> Config {
    config_of(bytes, Shape { placement: Placement::BehindPort, ..shape() })
}

fn emulated(config: &Config, offset: u16, width: Width) -> u64 {
    config.read(offset, width, || panic!("asked the device")).unwrap()
}

/// What the device is given of a write.
fn write(config: &mut Config, offset: u16, width: Width, value: u64) -> Vec<(u16, usize, u64)> {
    let mut seen = Vec::new();
    let note = |at, width: Width, value| {
        seen.push((at, width.bytes(), value));
        Ok(())
    };
    config.write(offset, width, value, note).unwrap();
    seen
}

fn ids(config: &Config) -> Vec<u64> {
    let mut at = emulated(config, 0x34, Width::B1);
    let mut ids = Vec::new();
    while at != 0 && ids.len() < 48 {
        let place = u16::try_from(at).unwrap();
        ids.push(emulated(config, place, Width::B1));
        at = emulated(config, place + 1, Width::B1);
    }
    ids
}

fn extended_ids(config: &Config) -> Vec<(u16, u64)> {
    let mut at = 0x100;
    let mut found = Vec::new();
    while at != 0 && found.len() < 48 {
        let header = emulated(config, at, Width::B4);
        found.push((at, header & 0xf_ffff));
        at = u16::try_from(header >> 20).unwrap();
    }
    found
}

proptest! {
    #[test]
    fn any_device_is_a_function_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 256),
        lists in prop::collection::vec((0x40u8..0xff, 0u8..0x16, 0x40u8..0xff), 0..12),
        more in prop::collection::vec((0x100u16..0x1000, 0u32..0x30, 0x100u32..0x1000), 0..24),
        bars in any::<[u64; 6]>(),
        shift in 0u32..64,
        behind in any::<bool>(),
        writes in prop::collection::vec((0u16..0x1000, any::<u32>()), 0..64),
    ) {
        let mut device = bytes;
        device.resize(EXTENDED, 0);
        for (at, id, next) in lists {
            device[usize::from(at & 0xfc)] = id;
            device[usize::from(at & 0xfc) + 1] = next;
        }
        for (at, id, next) in more {
            let at = usize::from(at & 0xffc);
            device[at..at + 4].copy_from_slice(&(next << 20 | 1 << 16 | id).to_le_bytes());
        }
        device[usize::from(spec::HEADER_TYPE)] &= 0x80;
        let placement = if behind { Placement::BehindPort } else { Placement::RootBus };
        let shape = Shape { placement, bars: bars.map(|size| size >> shift), ..shape() };
        if let Ok(mut config) = Config::new(&Registers::of(&device), &shape) {
            for (offset, value) in writes {
                let at = offset & !3;
                config.resets(at, Width::B4, value.into());
                for (place, bytes, _) in write(&mut config, at, Width::B4, value.into()) {
                    prop_assert!(place >= at && usize::from(place) + bytes <= usize::from(at) + 4);
                }
                prop_assert!(config.read(at, Width::B4, || Ok(u64::MAX)).unwrap() <= 0xffff_ffff);
            }
            for bar in 0..7 {
                config.decoded(bar);
            }
            config.topology();
            config.reset();
            prop_assert!(ids(&config).len() < 48, "a list in circles");
            prop_assert!(config.read(0x100, Width::B4, || Ok(0)).is_ok());
        }
    }
}

#[test]
fn the_header_is_the_devices_with_our_bars() {
    let mut config = config();
    assert_eq!(emulated(&config, 0, Width::B4), 0x1111_1234);
    assert_eq!(emulated(&config, 8, Width::B4), 0x0300_0002);
    assert_eq!(emulated(&config, 0x0e, Width::B1), 0);
    assert_eq!(emulated(&config, 0x3d, Width::B1), 2);
    for offset in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x30] {
        assert_eq!(write(&mut config, offset, Width::B4, 0xffff_ffff), []);
    }
    assert_eq!(emulated(&config, 0x10, Width::B4), 0xff00_0008);
    assert_eq!(emulated(&config, 0x14, Width::B4), 0);
    assert_eq!(emulated(&config, 0x18, Width::B4), 0xffff_f004);
    assert_eq!(emulated(&config, 0x20, Width::B4), 0xffff_ffc1);
    assert_eq!(emulated(&config, 0x30, Width::B4), 0xffff_0001);
    let several = config_of(&device(), Shape { multifunction: true, intx: false, ..shape() });
    assert_eq!(emulated(&several, 0x0e, Width::B1), 0x80);
    assert_eq!(emulated(&several, 0x3d, Width::B1), 0);
}

#[test]
fn status_is_the_devices_but_for_the_list() {
    let mut config = config();
    assert_eq!(config.read(6, Width::B2, || Ok(0xffff)), Ok(0xffff));
    assert_eq!(config.read(6, Width::B2, || Ok(0)), Ok(0x0010));
    assert_eq!(write(&mut config, 4, Width::B4, 0xf900_0007), [(6, 2, 0xf900)]);
    assert_eq!(emulated(&config, 4, Width::B2), 7);
    let mut bare = device();
    bare[0x34] = 0x40;
    assert_eq!(config_of(&bare, shape()).read(6, Width::B2, || Ok(0xffff)), Ok(0xffff));
    bare[6] = 0;
    assert_eq!(config_of(&bare, shape()).read(6, Width::B2, || Ok(0xffff)), Ok(0xffef));
}

#[test]
fn capabilities_of_slots_and_places_are_out_of_the_list() {
    let mut config = config();
    assert_eq!(ids(&config), [1, 9, 0x13, 0x10]);
    assert_eq!(config.read(0x70, Width::B4, || Ok(0xaabb_ccdd)), Ok(0xaabb_7809));
    assert_eq!(write(&mut config, 0x70, Width::B4, 0x1234_5678), [(0x72, 2, 0x1234)]);
    assert_eq!(config.read(0x40, Width::B1, || Ok(0x5a)), Ok(0x5a));
    assert_eq!(config.read(0x101, Width::B1, || Ok(0x5a)), Ok(0), "no extended list on the root bus");
    assert_eq!(config.read(0x488, Width::B4, || Ok(0x5a)), Ok(0x5a));
    assert_eq!(write(&mut config, 0x488, Width::B4, 1), [(0x488, 4, 1)]);
}

#[test]
fn power_is_on_or_off_and_asks_for_no_attention() {
    let mut config = config();
    assert_eq!(emulated(&config, 0x60, Width::B4), 0x0003_7001);
    assert_eq!(emulated(&config, 0x64, Width::B2), 8, "whether a reset comes with it is the device's");
    for (asked, is) in [(1, 8), (3, 0xb), (2, 0xb), (0x8100, 8)] {
        assert_eq!(write(&mut config, 0x64, Width::B2, asked), []);
        assert_eq!(emulated(&config, 0x64, Width::B2), is, "asked for {asked:#x}");
    }
}

#[test]
fn in_d3_it_decodes_nothing() {
    let mut config = config();
    write(&mut config, 0x10, Width::B4, 0xe000_0000);
    write(&mut config, 0x04, Width::B2, 3);
    assert!(config.decoded(0).is_some());
    for register in [0x04, 0x10, 0x30, 0x64, 0x88, 0x7c] {
        assert!(config.topology().contains(register), "{register:#x}");
    }
    assert!(!config.topology().contains(0x90));
    write(&mut config, 0x64, Width::B2, 3);
    assert!(config.decoded(0).is_none());
    write(&mut config, 0x64, Width::B2, 0);
    assert!(config.decoded(0).is_some());
}

#[test]
fn only_what_the_device_has_resets_it() {
    let config = config();
    assert!(config.resets(0x88, Width::B2, 0x8000));
    assert!(config.resets(0x89, Width::B1, 0x80));
    assert!(config.resets(0x88, Width::B4, 0xffff));
    assert!(config.resets(0x7c, Width::B1, 1));
    assert!(!config.resets(0x88, Width::B1, 0x80) && !config.resets(0x88, Width::B2, 0x7fff));
    let mut without = device();
    without[0x87] = 0;
    without[0x7b] = 1;
    let config = config_of(&without, shape());
    assert!(!config.resets(0x88, Width::B4, 0xffff_ffff) && !config.resets(0x7c, Width::B4, 1));
}

#[test]
fn express_goes_by_the_place() {
    let express = |kind: u8, version: u8, placement| {
        let mut bytes = device();
        bytes[0x82] = kind << 4 | version;
        let config = config_of(&bytes, Shape { placement, ..shape() });
        let shown = ids(&config).contains(&0x10);
        let link = (emulated(&config, 0x8c, Width::B4), emulated(&config, 0x90, Width::B4));
        shown.then(|| (emulated(&config, 0x82, Width::B2), link.0, link.1))
    };
    use Placement::{BehindPort, RootBus};
    assert_eq!(express(0, 2, RootBus), Some((0x92, 0, 0)));
    assert_eq!(express(9, 2, RootBus), Some((0x92, 0, 0)));
    assert_eq!(express(1, 2, RootBus), None, "a legacy endpoint");
    assert_eq!(express(0, 2, BehindPort), Some((0x02, 0x0040_0103, 0x1103_0000)));
    assert_eq!(express(1, 2, BehindPort), Some((0x12, 0x0040_0103, 0x1103_0000)));
    assert_eq!(express(9, 2, BehindPort), Some((0x02, 0x11, 0x0011_0000)));
    assert_eq!(express(0, 0, BehindPort), Some((0x01, 0x0040_0103, 0x1103_0000)));
    assert_eq!(express(5, 2, BehindPort), None, "a switch");
}

#[test]
fn the_link_is_not_the_guests_and_the_device_is() {
    let mut config = behind_port(&device());
    assert_eq!(write(&mut config, 0x90, Width::B2, 0xffff), []);
    assert_eq!(emulated(&config, 0x90, Width::B2), 0xcb);
    assert_eq!(write(&mut config, 0x88, Width::B2, 0x2810), [(0x88, 2, 0x2810)]);
    assert_eq!(config.read(0x88, Width::B2, || Ok(0x2810)), Ok(0x2810));
    assert_eq!(write(&mut config, 0xa8, Width::B2, 5), [(0xa8, 2, 5)]);
    assert_eq!(emulated(&config, 0x94, Width::B4), 0, "no slot");
    assert_eq!(emulated(&config, 0xac, Width::B4), 0xe);
}

fn extend(bytes: &mut [u8], list: &[(usize, u32)]) {
    for (place, (at, id)) in list.iter().enumerate() {
        let next = list.get(place + 1).map_or(0, |(next, _)| u32::try_from(*next).unwrap());
        bytes[*at..at + 4].copy_from_slice(&(next << 20 | 1 << 16 | id).to_le_bytes());
    }
}

#[test]
fn extended_capabilities_are_chosen_behind_a_port() {
    let mut bytes = device();
    // ARI first; error reporting, virtual functions, address translation, and a resizable BAR.
    extend(&mut bytes, &[(0x100, 0xe), (0x140, 1), (0x180, 0), (0x1c0, 0x10), (0x200, 0xf), (0x240, 0x15)]);
    bytes[0x244..0x248].copy_from_slice(&0x000f_fff0_u32.to_le_bytes());
    bytes[0x248..0x24c].copy_from_slice(&0x0000_0820_u32.to_le_bytes());
    let mut config = behind_port(&bytes);
    let list = [(0x100, 0), (0x140, 0x1_0001), (0x200, 0x1_000f), (0x240, 0x1_0015)];
    assert_eq!(extended_ids(&config), list);
    assert_eq!(write(&mut config, 0x148, Width::B4, 0), [(0x148, 4, 0)], "error masks");
    for dropped in [0x104, 0x1c8, 0x204, 0x244, 0x248] {
        assert_eq!(write(&mut config, dropped, Width::B4, 0xffff_ffff), [], "{dropped:#x}");
    }
    assert_eq!(emulated(&config, 0x244, Width::B4), 1 << 12, "256 MiB and no other");
    assert_eq!(emulated(&config, 0x248, Width::B4), 0x820);
    assert_eq!(extended_ids(&config_of(&bytes, shape())), [(0x100, 0)]);
    bytes[0x249] = 20;
    assert_eq!(extended_ids(&behind_port(&bytes)), list[..3]);
}

#[test]
fn where_virtual_functions_lie_on_the_host_is_not_shown() {
    let mut bytes = device();
    extend(&mut bytes, &[(0x100, 1), (0x140, 0x10), (0x180, 0xb)]);
    // The first of their BARs.
    bytes[0x164..0x168].copy_from_slice(&0x9000_000c_u32.to_le_bytes());
    for config in [behind_port(&bytes), config_of(&bytes, shape())] {
        for at in (0x140..0x180).step_by(4).filter(|at| *at != 0x140) {
            assert_eq!(emulated(&config, at, Width::B4), 0, "{at:#x}");
        }
        assert_eq!(config.read(0x184, Width::B4, || Ok(7)), Ok(7), "the next capability");
    }
}

#[test]
fn a_conventional_device_has_no_extended_list_anywhere() {
    let mut bytes = device();
    extend(&mut bytes, &[(0x100, 1)]);
    bytes[0x80] = spec::CAP_VENDOR;
    assert_eq!(extended_ids(&behind_port(&bytes)), [(0x100, 0)]);
    bytes.truncate(256);
    bytes[0x80] = spec::CAP_EXPRESS;
    let mut short = behind_port(&bytes);
    assert_eq!(emulated(&short, 0x100, Width::B4), 0);
    assert_eq!(write(&mut short, 0x100, Width::B4, 1), []);
}

#[test]
fn what_is_no_function_is_refused() {
    let mut bridge = device();
    bridge[0x0e] = 0x81;
    let new = |bytes: &[u8], shape| Config::new(&Registers::of(bytes), &shape);
    assert!(matches!(new(&bridge, shape()), Err(Error::NotAFunction { .. })));
    assert!(new(&[0xff; 256], shape()).is_err());
    let huge = Shape { bars: [1 << 40, 0, 0, 0, 0, 0], ..shape() };
    assert!(matches!(new(&device(), huge), Err(Error::Bar { index: 0, .. })));
}

#[test]
fn a_region_of_an_odd_size_has_a_register_of_the_next_power_of_two() {
    let shape = Shape { bars: [0, 0, 0x2f_00f0_0000, 0, 0, 0], ..shape() };
    let mut config = config_of(&device(), shape);
    for at in [0x18, 0x1c] {
        write(&mut config, at, Width::B4, u64::from(u32::MAX));
    }
    assert_eq!(emulated(&config, 0x18, Width::B4), 0x0000_0004);
    assert_eq!(emulated(&config, 0x1c, Width::B4), 0xffff_ffc0);
}
