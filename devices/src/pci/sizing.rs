//! The base address registers of any function, found as firmware finds them (PCI 3.0 section 6.2.5.1).

use trapline_io::{Device, Region, Width};

use super::bar::{Bar, BarKind};
use super::spec;

/// Header Type: a PCI-to-PCI bridge.
const BRIDGE: u64 = 1;
/// Expansion ROM base address: the ROM decodes.
const ROM_ENABLE: u32 = 1;

/// Index (6 is the ROM) and kind and size of each register of `device`, which decodes nothing meanwhile.
/// Every register holds afterwards what it held before. What the device does not answer is no register.
pub fn bars(device: &mut dyn Device) -> Vec<(u8, Bar)> {
    let bridge = is_bridge(device);
    let mut found = Vec::new();
    let mut index = 0;
    while index < if bridge { 2 } else { 6 } {
        let bar = memory_or_ports(device, offset(index, bridge));
        found.extend(bar.map(|bar| (index, bar)));
        let wide = matches!(bar, Some(Bar { kind: BarKind::Memory64 { .. }, .. }));
        index += if wide { 2 } else { 1 };
    }
    let rom = mask(device, offset(6, bridge), u64::from(!ROM_ENABLE)) & 0xffff_f800;
    found.extend(size_of(rom, u32::MAX.into()).map(|size| (6, Bar { kind: BarKind::Rom, size })));
    found
}

/// Whether it has a type 1 header.
pub fn is_bridge(device: &mut dyn Device) -> bool {
    let header = device.read(Region::CONFIG, spec::HEADER_TYPE.into(), Width::B1).unwrap_or(0);
    header & !u64::from(spec::MULTIFUNCTION) == BRIDGE
}

/// Where the register with this index is; 6 is the ROM's.
pub(super) fn offset(index: u8, bridge: bool) -> u16 {
    match (index, bridge) {
        (6, false) => spec::ROM_BAR,
        (6, true) => spec::BRIDGE_ROM_BAR,
        _ => spec::BAR0 + 4 * u16::from(index),
    }
}

fn memory_or_ports(device: &mut dyn Device, at: u16) -> Option<Bar> {
    let low = mask(device, at, u32::MAX.into());
    let prefetchable = low & 8 != 0;
    let (kind, address, whole) = match low & 7 {
        bits if bits & 1 == 1 => (BarKind::Io, low & 0xffff_fffc, u32::MAX.into()),
        4 => {
            let high = mask(device, at + 4, u32::MAX.into());
            (BarKind::Memory64 { prefetchable }, high << 32 | low & 0xffff_fff0, u64::MAX)
        }
        _ => (BarKind::Memory32 { prefetchable }, low & 0xffff_fff0, u32::MAX.into()),
    };
    size_of(address, whole).map(|size| Bar { kind, size })
}

/// What the register reads after a write of `ones`.
fn mask(device: &mut dyn Device, at: u16, ones: u64) -> u64 {
    let at = at.into();
    let Ok(before) = device.read(Region::CONFIG, at, Width::B4) else { return 0 };
    // A device that takes no write reads as it did, or not at all.
    let _ = device.write(Region::CONFIG, at, Width::B4, ones);
    let read = device.read(Region::CONFIG, at, Width::B4).unwrap_or(0);
    let _ = device.write(Region::CONFIG, at, Width::B4, before);
    read & 0xffff_ffff
}

/// The size that the address bits which can be set tell, of registers as wide as `whole`.
fn size_of(address: u64, whole: u64) -> Option<u64> {
    let size = (!address & whole).wrapping_add(1) & whole;
    (address != 0 && size.is_power_of_two()).then_some(size)
}
