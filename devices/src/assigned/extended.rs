//! The list of extended capabilities (PCI Express base specification 5.0 section 7.6), filtered.

use trapline_io::Width;

use super::config::Config;
use super::registers::{CLASSIC, EXTENDED, Registers};

/// Single root I/O virtualization, and its bytes.
const VIRTUAL_FUNCTIONS: u32 = 0x0010;
const VIRTUAL_FUNCTIONS_LEN: u16 = 0x40;
/// Resizable BAR.
const RESIZABLE_BAR: u32 = 0x0015;
/// The most base address registers that it can name.
const RESIZABLE_BARS: u16 = 6;
/// The largest size that every version of it can name: 512 GiB, as a power of two over 1 MiB.
const LARGEST: u32 = 19;
/// The longest capability of which nothing but the start is known.
const UNKNOWN_LEN: u16 = 0x40;

/// What becomes of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// The device answers it, and takes what its backend lets through.
    Passed,
    /// The device answers it, and sees no write.
    ReadOnly,
    /// Only the current sizes are on offer.
    Sizes,
    /// It is out of the list, and the device sees no write.
    Dropped,
    /// The same, and nothing of it is readable.
    Hidden,
}

fn treatment(id: u32) -> Treatment {
    match id {
        // Error reporting, virtual channels, serial number, power budgeting, vendor's own (two ways).
        0x0001..=0x0004 | 0x0008 | 0x0009 | 0x000b | 0x0023 => Treatment::Passed,
        RESIZABLE_BAR => Treatment::Sizes,
        // Virtual functions, whose BARs tell where they lie on the host and the guest cannot place.
        VIRTUAL_FUNCTIONS => Treatment::Hidden,
        // A place holder; what is of a root complex; other functions of the device (ARI), which the
        // guest's bus does not have; a port's.
        0x0000 | 0x0005..=0x0007 | 0x000a | 0x000e | 0x0011 | 0x001d | 0x0024 => Treatment::Dropped,
        // Among them address translation, page requests and process ids, which are the host's IOMMU's
        // business, and what manages the link.
        _ => Treatment::ReadOnly,
    }
}

/// Builds the list that is `shown`, or an empty one.
pub(super) fn add(config: &mut Config, device: &Registers, shown: bool) {
    let starts: Vec<u16> = device.extended_capabilities().map(|(at, _)| at).collect();
    // The list begins at a fixed place, so what is dropped there leaves an empty link.
    config.keep(CLASSIC, 4);
    let mut tail = CLASSIC;
    for (at, header) in device.extended_capabilities() {
        let id = header & 0xffff;
        let mut treatment = treatment(id);
        if treatment == Treatment::Sizes && !freeze_sizes(config, device, at) {
            treatment = Treatment::Dropped;
        }
        if matches!(treatment, Treatment::ReadOnly | Treatment::Dropped) && id != 0 {
            config.show(at, length(at, &starts));
        }
        config.keep(at, if treatment == Treatment::Hidden { VIRTUAL_FUNCTIONS_LEN } else { 4 });
        if matches!(treatment, Treatment::Dropped | Treatment::Hidden) || !shown {
            continue;
        }
        if at != CLASSIC {
            let link = config.space().read(tail, Width::B4) & 0xf_ffff | u32::from(at) << 20;
            config.space_mut().preset(tail, Width::B4, link);
        }
        config.space_mut().preset(at, Width::B4, header & 0xf_ffff);
        tail = at;
    }
}

/// How far a capability goes at most.
fn length(at: u16, starts: &[u16]) -> u16 {
    let next = starts.iter().copied().filter(|start| *start > at).min();
    let end = next.unwrap_or(u16::try_from(EXTENDED).unwrap_or(u16::MAX));
    (end - at).min(UNKNOWN_LEN)
}

/// Shows a Resizable BAR capability whose every register offers the size that it has: another would
/// have to be set on the host before the device is given away. False if it has no such form.
fn freeze_sizes(config: &mut Config, device: &Registers, at: u16) -> bool {
    let bars = (device.dword(at.saturating_add(8)) >> 5 & 7) as u16;
    let entries = || (0..bars).map(|bar| at.saturating_add(4 + 8 * bar));
    let size = |entry: u16| device.dword(entry.saturating_add(4)) >> 8 & 0x3f;
    let fits = usize::from(at) + 4 + 8 * usize::from(bars) <= EXTENDED;
    if !(1..=RESIZABLE_BARS).contains(&bars) || !fits || entries().any(|entry| size(entry) > LARGEST) {
        return false;
    }
    for entry in entries() {
        config.keep(entry, 8);
        config.space_mut().preset(entry, Width::B4, 1 << (size(entry) + 4));
        let control = device.dword(entry + 4) & 0x3fe7;
        config.space_mut().preset(entry + 4, Width::B4, control);
    }
    true
}
