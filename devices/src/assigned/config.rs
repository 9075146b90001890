//! The configuration space that the guest sees of an assigned function: the header emulated, the
//! capabilities chosen, device-specific registers passed on.

use trapline_io::device::Range;
use trapline_io::space::DwordSet;
use trapline_io::{Fault, Width};

use super::error::Error;
use crate::pci::{Bar, BarKind, ConfigSpace, Identity, spec};

/// Bytes of the space that PCI 3.0 knows; what lies behind it is not shown.
pub(super) const SIZE: usize = 256;

/// Base class and subclass of a VGA compatible controller, and of a display controller of no named kind.
pub(super) const CLASS_VGA: u32 = 0x0300;
const CLASS_DISPLAY_OTHER: u32 = 0x0380;

/// Where device-specific registers and capabilities start.
const FIRST: u16 = 0x40;
/// Advanced features, which hold a function level reset.
const CAP_ADVANCED: u8 = 0x13;
/// Power management: bytes, offset of control and status, its bit that says that nothing is lost on
/// the way from D3hot to D0, and the mask of the power state (PCI Power Management 1.2, section 3.2).
const POWER_LEN: usize = 8;
const POWER_CONTROL: u16 = 4;
const NO_SOFT_RESET: u32 = 1 << 3;
const POWER_STATE: u32 = 3;
/// Version, device-specific initialisation, D1 and D2 support: no power management events.
const POWER_CAPS: u32 = 0x0627;
/// Status bits that describe the function: 66 MHz, fast back-to-back, DEVSEL timing.
const STATUS_FIXED: u32 = 0x06a0;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Config {
    space: ConfigSpace,
    /// Bytes that the device itself answers and takes.
    forwarded: Box<[bool; SIZE]>,
    /// Offset of the power management capability.
    power: Option<u16>,
}

impl Config {
    /// The space of a device with this configuration space, these BAR sizes and a ROM of that size
    /// (a power of two).
    pub fn new(device: &[u8; SIZE], bars: &[u64; 6], rom: Option<u64>) -> Result<Config, Error> {
        let header = byte(device, spec::HEADER_TYPE) & !spec::MULTIFUNCTION;
        let vendor = word(device, spec::VENDOR_ID);
        if header != 0 || vendor == 0xffff {
            return Err(Error::NotAFunction { vendor, header });
        }
        let class = dword(device, spec::REVISION_ID);
        let mut space = ConfigSpace::new(Identity {
            vendor,
            device: word(device, spec::DEVICE_ID),
            revision: byte(device, spec::REVISION_ID),
            class: class >> 8,
            subsystem: (word(device, spec::SUBSYSTEM_VENDOR_ID), word(device, spec::SUBSYSTEM_ID)),
        });
        space.preset(spec::STATUS, Width::B2, u32::from(word(device, spec::STATUS)) & STATUS_FIXED);
        // Minimum grant, maximum latency. The interrupt pin shows none: the device's interrupts do not
        // reach the guest yet.
        for offset in spec::INTERRUPT_PIN + 1..FIRST {
            space.preset(offset, Width::B1, byte(device, offset).into());
        }
        add_bars(&mut space, device, bars)?;
        if let Some(size) = rom {
            space.add_bar(6, Bar { kind: BarKind::Rom, size });
        }
        let mut forwarded = Box::new([false; SIZE]);
        forwarded.iter_mut().skip(FIRST.into()).for_each(|byte| *byte = true);
        let mut config = Config { space, forwarded, power: None };
        config.add_capabilities(device);
        Ok(config)
    }

    /// A VGA compatible controller that does not own the legacy ranges tells the guest that it is
    /// another display controller: a BIOS goes by the class, would take the first VGA for its own, and
    /// run its ROM on the registers of whoever owns them.
    pub fn be_no_vga(&mut self) {
        let class = self.space.read(spec::REVISION_ID, Width::B4);
        if class >> 16 == CLASS_VGA {
            self.space.preset(spec::REVISION_ID, Width::B4, CLASS_DISPLAY_OTHER << 16 | class & 0xff);
        }
    }

    /// The guest's view, where it is emulated.
    pub fn space(&self) -> &ConfigSpace {
        &self.space
    }

    /// The dwords whose writes change the map: those of the header, and the power state.
    pub fn topology(&self) -> DwordSet {
        let control = self.power.and_then(|at| u8::try_from(at + POWER_CONTROL).ok());
        control.map_or(ConfigSpace::TOPOLOGY, |at| ConfigSpace::TOPOLOGY.union(DwordSet::of(&[at])))
    }

    /// Whether the guest has put the function into D3hot, where it decodes nothing.
    pub fn asleep(&self) -> bool {
        self.power
            .is_some_and(|at| self.space.read(at + POWER_CONTROL, Width::B2) & POWER_STATE == POWER_STATE)
    }

    /// What a base address register decodes now.
    pub fn decoded(&self, index: u8) -> Option<Range> {
        if self.asleep() { None } else { self.space.decoded(index) }
    }

    /// A read; `device` is asked for it where the device answers some of the bytes.
    pub fn read(
        &self,
        offset: u16,
        width: Width,
        device: impl FnOnce() -> Result<u64, Fault>,
    ) -> Result<u64, Fault> {
        let emulated = u64::from(self.space.read(offset, width));
        let mask = self.forwarded_bits(offset, width);
        if mask == 0 {
            return Ok(emulated & width.all_ones());
        }
        Ok(emulated & !mask & width.all_ones() | device()? & mask)
    }

    /// A write; tells whether the device must see it too.
    pub fn write(&mut self, offset: u16, width: Width, value: u64) -> bool {
        self.space.write(offset, width, (value & 0xffff_ffff) as u32);
        self.forwarded_bits(offset, width) != 0
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.space.reset();
    }

    /// The bits of an access that the device answers.
    fn forwarded_bits(&self, offset: u16, width: Width) -> u64 {
        let start = usize::from(offset);
        let lanes = self.forwarded.iter().skip(start).take(width.bytes()).enumerate();
        lanes.filter(|(_, forwarded)| **forwarded).fold(0, |mask, (lane, _)| mask | 0xff << (8 * lane))
    }

    /// Shows the device's capability list less what is not served yet: message signalled interrupts,
    /// and what can reset the function or speaks of a link (Express, advanced features).
    fn add_capabilities(&mut self, device: &[u8; SIZE]) {
        let mut link = spec::CAPABILITIES;
        for (at, id) in capabilities(device) {
            let hidden = match id {
                spec::CAP_MSI => msi_len(word(device, at + 2)),
                spec::CAP_MSIX => 12,
                spec::CAP_EXPRESS => 0x3c,
                CAP_ADVANCED => 6,
                _ => 0,
            };
            if hidden > 0 {
                self.keep(at, hidden);
                continue;
            }
            self.keep(at, if id == spec::CAP_POWER { POWER_LEN } else { 2 });
            self.space.preset(link, Width::B1, at.into());
            self.space.preset(at, Width::B2, id.into());
            link = at + 1;
            if id == spec::CAP_POWER && self.power.is_none() && usize::from(at) + POWER_LEN <= SIZE {
                self.space.preset(at + 2, Width::B2, u32::from(word(device, at + 2)) & POWER_CAPS);
                self.space.preset(at + POWER_CONTROL, Width::B2, NO_SOFT_RESET);
                self.space.allow(at + POWER_CONTROL, Width::B2, POWER_STATE);
                self.power = Some(at);
            }
        }
        if link != spec::CAPABILITIES {
            let status = self.space.read(spec::STATUS, Width::B2) | u32::from(spec::STATUS_CAPABILITIES);
            self.space.preset(spec::STATUS, Width::B2, status);
        }
    }

    /// Keeps bytes from the device: they are answered here.
    fn keep(&mut self, at: u16, len: usize) {
        self.forwarded.iter_mut().skip(at.into()).take(len).for_each(|byte| *byte = false);
    }
}

/// The base address registers: kinds from the device's own registers, sizes from its regions.
fn add_bars(space: &mut ConfigSpace, device: &[u8; SIZE], sizes: &[u64; 6]) -> Result<(), Error> {
    let mut upper_half = false;
    for (index, &size) in (0u8..).zip(sizes) {
        if std::mem::take(&mut upper_half) || size == 0 {
            continue;
        }
        let register = dword(device, spec::BAR0 + 4 * u16::from(index));
        let prefetchable = register & 8 != 0;
        let (kind, least, most) = match register & 7 {
            bits if bits & 1 == 1 => (BarKind::Io, 4, 1 << 16),
            4 => (BarKind::Memory64 { prefetchable }, 16, 1 << 48),
            _ => (BarKind::Memory32 { prefetchable }, 16, 1 << 31),
        };
        let rounded = size.max(least).checked_next_power_of_two().filter(|size| *size <= most);
        upper_half = matches!(kind, BarKind::Memory64 { .. });
        match rounded {
            Some(size) if !(upper_half && index == 5) => space.add_bar(index, Bar { kind, size }),
            _ => return Err(Error::Bar { index, size }),
        }
    }
    Ok(())
}

/// Offset and id of each capability, as often as fit into the space; a list in circles ends.
fn capabilities(device: &[u8; SIZE]) -> impl Iterator<Item = (u16, u8)> {
    let present = word(device, spec::STATUS) & spec::STATUS_CAPABILITIES != 0;
    let mut at = if present { byte(device, spec::CAPABILITIES) } else { 0 };
    let mut seen = [false; SIZE];
    std::iter::from_fn(move || {
        let here = u16::from(at & 0xfc);
        let place = usize::from(here);
        if here < FIRST || std::mem::replace(&mut seen[place], true) {
            return None;
        }
        at = byte(device, here + 1);
        Some((here, byte(device, here)))
    })
}

/// Bytes of the MSI capability (PCI 3.0 section 6.8.1): a 64-bit address and masks make it longer.
fn msi_len(control: u16) -> usize {
    match (control >> 7 & 1, control >> 8 & 1) {
        (0, 0) => 10,
        (1, 0) => 14,
        (0, _) => 20,
        _ => 24,
    }
}

fn byte(device: &[u8; SIZE], at: u16) -> u8 {
    device.get(usize::from(at)).copied().unwrap_or(0xff)
}

pub(super) fn word(device: &[u8; SIZE], at: u16) -> u16 {
    u16::from_le_bytes([byte(device, at), byte(device, at + 1)])
}

fn dword(device: &[u8; SIZE], at: u16) -> u32 {
    u32::from(word(device, at)) | u32::from(word(device, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_device_is_a_function_or_refused(
            bytes in prop::collection::vec(any::<u8>(), SIZE),
            sizes in any::<[u64; 6]>(),
            shift in 0u32..64,
            writes in prop::collection::vec((0u16..0x1000, any::<u32>()), 0..64),
        ) {
            let mut device: [u8; SIZE] = bytes.try_into().unwrap();
            device[usize::from(spec::HEADER_TYPE)] &= 0x80;
            let sizes = sizes.map(|size| size >> shift);
            if let Ok(mut config) = Config::new(&device, &sizes, Some(4096)) {
                for (offset, value) in writes {
                    let at = offset & !3;
                    config.write(at, Width::B4, value.into());
                    prop_assert!(config.read(at, Width::B4, || Ok(u64::MAX)).unwrap() <= 0xffff_ffff);
                }
                for bar in 0..7 {
                    config.decoded(bar);
                }
                config.topology();
            }
        }
    }

    fn device() -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&[0x34, 0x12, 0x11, 0x11]);
        bytes[6] = 0x10;
        bytes[8..12].copy_from_slice(&[2, 0, 0, 3]);
        bytes[0x10] = 0x08;
        bytes[0x18] = 0x04;
        bytes[0x20] = 0x01;
        bytes[0x34] = 0x50;
        bytes[0x3d] = 1;
        bytes[0x50..0x54].copy_from_slice(&[spec::CAP_MSI, 0x60, 0x80, 0]);
        bytes[0x60..0x68].copy_from_slice(&[spec::CAP_POWER, 0x70, 0x03, 0xff, 0, 0, 0, 0]);
        bytes[0x70..0x73].copy_from_slice(&[spec::CAP_VENDOR, 0x50, 0x08]);
        bytes
    }

    fn config() -> Config {
        Config::new(&device(), &[16 << 20, 0, 3000, 0, 64, 0], Some(65536)).unwrap()
    }

    fn emulated(config: &Config, offset: u16, width: Width) -> u64 {
        config.read(offset, width, || panic!("asked the device")).unwrap()
    }

    #[test]
    fn the_header_is_the_devices_with_our_bars() {
        let mut config = config();
        assert_eq!(emulated(&config, 0, Width::B4), 0x1111_1234);
        assert_eq!(emulated(&config, 8, Width::B4), 0x0300_0002);
        assert_eq!(emulated(&config, 0x3d, Width::B1), 0);
        for offset in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x30] {
            assert!(!config.write(offset, Width::B4, 0xffff_ffff));
        }
        assert_eq!(emulated(&config, 0x10, Width::B4), 0xff00_0008);
        assert_eq!(emulated(&config, 0x14, Width::B4), 0);
        assert_eq!(emulated(&config, 0x18, Width::B4), 0xffff_f004);
        assert_eq!(emulated(&config, 0x20, Width::B4), 0xffff_ffc1);
        assert_eq!(emulated(&config, 0x30, Width::B4), 0xffff_0001);
    }

    #[test]
    fn capabilities_not_served_are_out_of_the_list() {
        let config = config();
        assert_eq!(emulated(&config, 0x34, Width::B1), 0x60);
        assert_eq!(emulated(&config, 0x60, Width::B2), 0x7001);
        assert_eq!(config.read(0x70, Width::B4, || Ok(0xaabb_ccdd)), Ok(0xaabb_0009));
        assert_eq!(emulated(&config, 0x50, Width::B4), 0);
        assert_eq!(emulated(&config, 0x06, Width::B2) & 0x10, 0x10);
        assert_eq!(config.read(0x40, Width::B1, || Ok(0x5a)), Ok(0x5a));
        assert_eq!(emulated(&config, 0x100, Width::B4), 0);
    }

    #[test]
    fn in_d3_it_decodes_nothing() {
        let mut config = config();
        config.write(0x10, Width::B4, 0xe000_0000);
        config.write(0x04, Width::B2, 3);
        assert!(config.decoded(0).is_some());
        assert!(config.topology().contains(0x64));
        config.write(0x64, Width::B2, 3);
        assert!(config.decoded(0).is_none());
        config.write(0x64, Width::B2, 0);
        assert!(config.decoded(0).is_some());
    }

    #[test]
    fn what_is_no_function_is_refused() {
        let mut bridge = device();
        bridge[0x0e] = 0x81;
        assert!(matches!(Config::new(&bridge, &[0; 6], None), Err(Error::NotAFunction { .. })));
        assert!(Config::new(&[0xff; SIZE], &[0; 6], None).is_err());
        let huge = [1 << 40, 0, 0, 0, 0, 0];
        assert!(matches!(Config::new(&device(), &huge, None), Err(Error::Bar { index: 0, .. })));
    }
}
