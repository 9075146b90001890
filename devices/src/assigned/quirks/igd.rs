//! Intel's integrated graphics: what firmware and driver of the guest find beside the function itself.
//!
//! * *OpRegion*: a table in RAM with the video BIOS table in it. The host's is a region of the device
//!   (`VFIO_REGION_SUBTYPE_INTEL_IGD_OPREGION`); the guest's firmware copies it to RAM of the guest and writes the
//!   address to ASLS, byte 0xfc of configuration space.
//! * *Stolen memory*: RAM that firmware sets aside for the adapter, as much as GGC (0x50) says. The guest's
//!   firmware writes its address to BDSM, which is a mirror in BAR 0 too: of 4 bytes at 0x5c up to
//!   generation 10, of 8 at 0xc0 from 11 on.
//!
//! Both registers are the guest's own here and begin at zero: the host's addresses mean nothing to it.
//! What of QEMU's "legacy mode" there cannot be on this machine: the adapter finds its PCH by the ids of the
//! LPC bridge at 00:1f.0, which is Q35's own and by whose ids SeaBIOS sets up power management and interrupts.
//! So these ids stay, and so do those of the host bridge; Linux' driver takes the PCH from the adapter's
//! generation where it finds none that fits.

use trapline_io::{Region, Width};

use super::super::backend::Backend;
use super::super::config::Config;
use super::super::registers::Registers;
use super::mirror::Mirror;
use super::{Card, DISPLAY, INTEL, Quirk, regions};
use crate::pci::spec;

/// The region with the OpRegion: PCI vendor type (bit 31) of Intel's, and its subtype (linux/vfio.h).
const OPREGION: (u32, u32) = (1 << 31 | 0x8086, 1);

/// Address of the OpRegion.
const ASLS: u16 = 0xfc;
/// BDSM, as the guest's firmware has it.
const FIRMWARES_BASE: u16 = 0x5c;
/// Graphics control.
const GGC: u16 = 0x50;
const BAR: u8 = 0;
/// The mirror of BDSM.
const MIRROR: u64 = 0x10_80c0;
const MIB: u64 = 1 << 20;

/// What an OpRegion begins with. Its size in KiB follows, without the video BIOS table that may lie behind it. Linux'
/// vfio_pci_igd.c makes no region of anything else.
const SIGNATURE: &[u8] = b"IntelGraphicsMem";
/// An OpRegion with a video BIOS table behind it is some tens of KiB; no more than this is read.
const OPREGION_LARGEST: u64 = MIB;

/// What the guest's firmware is to be told of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Igd {
    /// The OpRegion, to be copied to RAM below 4 GiB.
    pub opregion: Vec<u8>,
    /// Bytes of stolen memory to set aside; zero for none.
    pub stolen_memory: u64,
}

impl Igd {
    /// That of a device; `None` of any other function, and where the host gives no OpRegion or something else in
    /// its place, which the guest's firmware would copy and its driver refuse.
    ///
    /// Reads configuration space and OpRegion: some tens of KiB, through the device's file.
    pub fn of(backend: &mut dyn Backend) -> Option<Igd> {
        let registers = Registers::read(backend).ok()?;
        let region = opregion(&registers, backend)?;
        match contents(region, backend) {
            Ok(opregion) => Some(Igd { opregion, stolen_memory: stolen_memory(&registers) }),
            Err(why) => {
                tracing::warn!(device = backend.name(), why, "a driver of the guest has no OpRegion");
                None
            }
        }
    }
}

/// The OpRegion, if it is one.
fn contents(region: Region, backend: &mut dyn Backend) -> Result<Vec<u8>, &'static str> {
    let len = backend.region(region).size;
    let bytes = usize::try_from(len).ok().filter(|_| len <= OPREGION_LARGEST);
    let mut opregion = vec![0; bytes.ok_or("it is too large for one")?];
    backend.read_bytes(region, 0, &mut opregion).map_err(|_| "it cannot be read")?;
    let kib = opregion
        .strip_prefix(SIGNATURE)
        .and_then(<[u8]>::first_chunk)
        .map(|kib| u64::from(u32::from_le_bytes(*kib)))
        .ok_or("it has no signature")?;
    if kib == 0 || kib * 1024 > len {
        return Err("it is not as large as it says");
    }
    Ok(opregion)
}

/// Makes the registers with addresses of RAM the guest's own, where the host gives an OpRegion, whatever is in it, and
/// tells whether it does.
pub(in super::super) fn adopt(config: &mut Config, registers: &Registers, backend: &dyn Backend) -> bool {
    if opregion(registers, backend).is_none() {
        return false;
    }
    own(config, ASLS, 4);
    if let Some(generation) = generation(registers.word(spec::DEVICE_ID)) {
        let (at, len) = stolen_base(generation);
        own(config, at, len);
    }
    true
}

fn opregion(registers: &Registers, backend: &dyn Backend) -> Option<Region> {
    backend.typed(OPREGION).filter(|_| is_igd(registers))
}

/// Whether the function is a display adapter of Intel's.
fn is_igd(registers: &Registers) -> bool {
    let class = registers.dword(spec::REVISION_ID) >> 24;
    registers.word(spec::VENDOR_ID) == INTEL && class == DISPLAY
}

/// The graphics generation of a device id, as far as it is known.
fn generation(device: u16) -> Option<u8> {
    if device & 0xffe == 0xa84 {
        return Some(9);
    }
    Some(match device >> 8 {
        0x01 => 6,
        0x04 | 0x0a | 0x0c | 0x0d | 0x0f => 7,
        0x16 | 0x22 => 8,
        0x19 | 0x31 | 0x59 | 0x3e | 0x9b => 9,
        0x8a | 0x45 | 0x4e => 11,
        0x9a | 0x4c | 0x46 | 0xa7 => 12,
        _ => return None,
    })
}

/// Where BDSM is, and its bytes.
fn stolen_base(generation: u8) -> (u16, u16) {
    if generation < 11 { (FIRMWARES_BASE, 4) } else { (0xc0, 8) }
}

/// Bytes of stolen memory that the device was set up with; zero where the generation is not known, has it in a BAR of
/// its own, or has BDSM where the guest's firmware does not look for it: SeaBIOS writes to 0x5c, always.
fn stolen_memory(registers: &Registers) -> u64 {
    let known = generation(registers.word(spec::DEVICE_ID));
    let Some(generation) = known.filter(|generation| stolen_base(*generation).0 == FIRMWARES_BASE) else {
        return 0;
    };
    let control = u64::from(registers.word(GGC));
    let mode = if generation < 8 { control >> 3 & 0x1f } else { control >> 8 & 0xff };
    if generation >= 9 && mode >= 0xf0 { (mode - 0xf0 + 1) * 4 * MIB } else { mode * 32 * MIB }
}

/// Gives the guest a register that the device neither answers nor sees.
fn own(config: &mut Config, at: u16, len: u16) {
    config.keep(at, len);
    for byte in at..at + len {
        config.space_mut().preset(byte, Width::B1, 0);
        config.space_mut().allow(byte, Width::B1, 0xff);
    }
}

/// The quirk, if the guest has stolen memory of its own.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    let (at, len) = stolen_base(generation(card.device()).filter(|_| card.opregion)?);
    let mirror = Mirror::new(regions::IGD_MIRROR, BAR, MIRROR, len.into()).of(at);
    card.has_memory(BAR, MIRROR + 8).then(|| Box::new(mirror) as Box<dyn Quirk>)
}

#[cfg(test)]
mod tests {
    use trapline_io::Op;

    use super::super::tests::{IGD, made, registers};
    use super::super::{Beside, Lead};
    use super::*;

    #[test]
    fn generations_are_told_by_the_device_id() {
        let known = [
            (0x0a84, Some(9)),
            (0x1a85, Some(9)),
            (0x0126, Some(6)),
            (0x0412, Some(7)),
            (0x1616, Some(8)),
            (0x5916, Some(9)),
            (0x8a52, Some(11)),
            (0x46a6, Some(12)),
            (0x7d55, None),
            (0x2e32, None),
        ];
        for (device, expected) in known {
            assert_eq!(generation(device), expected, "{device:04x}");
        }
    }

    #[test]
    fn the_size_of_stolen_memory_is_read_as_each_generation_has_it() {
        let cases = [
            (0x0126, 0x0008, 32),
            (0x0412, 0x00f8, 31 * 32),
            (0x1616, 0x0200, 64),
            (0x5916, 0x02c1, 64),
            (0x5916, 0xf001, 4),
            (0x3e92, 0xfe00, 15 * 4),
            (0x9a49, 0xfe00, 0),
            (0x7d55, 0x0200, 0),
        ];
        for (device, control, mib) in cases {
            let mut bytes = registers(IGD);
            bytes[2..4].copy_from_slice(&u16::to_le_bytes(device));
            bytes[0x50..0x52].copy_from_slice(&u16::to_le_bytes(control));
            assert_eq!(stolen_memory(&Registers::of(&bytes)), mib * MIB, "{device:04x} {control:04x}");
        }
    }

    #[test]
    fn the_base_of_stolen_memory_is_in_bar_0_too() {
        for (device, at, width) in [(0x5916, 0x5c, Width::B4), (0x9a49, 0xc0, Width::B8)] {
            let mirror = made(IGD.with_device(device), regions::IGD_MIRROR).unwrap();
            let place = (Region::bar(0), MIRROR);
            let read = mirror.lead(MIRROR, width, Op::Read);
            assert_eq!(read, Ok(Lead::Config(at, Beside::Sees(place))));
            assert_eq!(mirror.lead(MIRROR, width, Op::Write(1)), Ok(Lead::Config(at, Beside::Nothing)));
            assert_eq!(mirror.overlays()[0].len, width.bytes() as u64);
        }
        assert!(made(IGD.with_device(0x7d55), regions::IGD_MIRROR).is_none());
    }
}
