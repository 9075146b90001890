//! What firmware would do with the device: its BARs get addresses, and it is seen what lies where.
//!
//! It is done on the device itself before the machine is made, so that the guest finds it ready.

use trapline_devices::pci::spec;
use trapline_devices::{legacy, pci::Devfn};
use trapline_io::device::{Claim, DirectKind, Range, Target};
use trapline_io::file::FileRegion;
use trapline_io::{Device, Fault, Gpa, Region, Span, Width};

use super::cases::Places;

/// Where BARs are put: 32-bit memory from here to there, large 64-bit ones above, I/O.
const MEMORY: (u64, u64) = (0xc000_0000, 0xf000_0000);
const HIGH_MEMORY: u64 = 1 << 36;
const PORTS: u64 = 0xc000;
/// I/O and memory decode; no bus mastering.
const DECODE: u64 = 3;
/// The most capabilities that fit.
const CAPABILITIES: usize = 48;

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where the guest finds things.
    pub places: Places,
    /// The file behind legacy VGA, if there is one.
    pub vga: Option<FileRegion>,
    /// The file behind the trapped BAR: its part from [`Places::trapped`] on.
    pub trapped: Option<FileRegion>,
}

/// A BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bar {
    number: u8,
    prefetchable: bool,
    span: Span<Gpa>,
}

/// Gives addresses to the device's BARs, switches decode on and looks. `harmless` says that all its
/// registers may be written; of others only prefetchable memory may.
///
/// # Errors
/// The device does not answer.
pub fn survey(device: &mut dyn Device, devfn: Devfn, harmless: bool) -> Result<Survey, Fault> {
    let bars = place_bars(device)?;
    device.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, DECODE)?;
    let claims = device.claims().ranges;
    let legacy_window = Gpa(legacy::WINDOW.0);
    let vga = claims.iter().any(|claim| memory(claim).is_some_and(|span| span.contains(legacy_window)));
    let mut places =
        Places { vga, config: Some(0x8000_0000 | u32::from(devfn.raw()) << 8), ..Places::default() };
    let mut trapped_file = None;
    for bar in &bars {
        let writable = harmless || bar.prefetchable;
        let low = |gpa: Gpa| u32::try_from(gpa.0).ok();
        if let Some(at) = mapped(*bar, &claims).and_then(low)
            && (places.mapped.is_none() || bar.prefetchable)
        {
            places.mapped = Some(at);
            places.mapped_write = writable.then_some(at);
        }
        if let Some(gpa) = trapped(*bar, &claims)
            && places.trapped.is_none()
            && let Some(at) = low(gpa)
        {
            places.trapped = Some(at);
            places.trapped_write = writable.then_some(at);
            trapped_file = file_at(device, *bar, gpa);
        }
    }
    places.msix = vector_control(device, &bars)?;
    Ok(Survey { places, vga: device.file(Region::VGA).cloned(), trapped: trapped_file })
}

fn read(device: &mut dyn Device, at: u16, width: Width) -> Result<u64, Fault> {
    device.read(Region::CONFIG, at.into(), width)
}

/// Sizes every BAR (PCI 3.0 section 6.2.5.1) and gives it an address.
fn place_bars(device: &mut dyn Device) -> Result<Vec<Bar>, Fault> {
    let (mut memory, mut high, mut ports) = (MEMORY.0, HIGH_MEMORY, PORTS);
    let mut bars = Vec::new();
    let mut number = 0;
    while number < 6 {
        let at = spec::BAR0 + 4 * u16::from(number);
        let kind = read(device, at, Width::B4)?;
        let wide = kind & 7 == 4 && number < 5;
        let size = size(device, at, wide)?;
        let count = if wide { 2 } else { 1 };
        let this = number;
        number += count;
        if size == 0 {
            continue;
        }
        if kind & 1 != 0 {
            write_bar(device, at, false, take(&mut ports, size))?;
            continue;
        }
        let fits = memory.next_multiple_of(size).saturating_add(size) <= MEMORY.1;
        let address = if fits || !wide { take(&mut memory, size) } else { take(&mut high, size) };
        write_bar(device, at, wide, address)?;
        let span = Span::of_len(Gpa(address), size);
        bars.extend(span.map(|span| Bar { number: this, prefetchable: kind & 8 != 0, span }));
    }
    Ok(bars)
}

fn size(device: &mut dyn Device, at: u16, wide: bool) -> Result<u64, Fault> {
    write_bar(device, at, wide, u64::MAX)?;
    let low = read(device, at, Width::B4)?;
    let upper = if wide { read(device, at + 4, Width::B4)? } else { 0xffff_ffff };
    let mask = upper << 32 | low & !(if low & 1 != 0 { 3 } else { 0xf });
    if low == 0 {
        return Ok(0);
    }
    // Of an I/O BAR the upper 16 bits may be fixed to zero.
    let mask = if low & 1 != 0 { mask | 0xffff_0000 } else { mask };
    Ok((!mask).wrapping_add(1))
}

fn write_bar(device: &mut dyn Device, at: u16, wide: bool, address: u64) -> Result<(), Fault> {
    device.write(Region::CONFIG, at.into(), Width::B4, address & 0xffff_ffff)?;
    if wide {
        device.write(Region::CONFIG, u64::from(at) + 4, Width::B4, address >> 32)?;
    }
    Ok(())
}

/// The next aligned place, which is then taken.
fn take(next: &mut u64, size: u64) -> u64 {
    let address = next.checked_next_multiple_of(size).unwrap_or(0);
    *next = address.saturating_add(size);
    address
}

fn memory(claim: &Claim) -> Option<Span<Gpa>> {
    match claim.range {
        Range::Memory(span) => Some(span),
        Range::Ports(_) => None,
    }
}

/// The first address of the BAR that the guest reaches without a trap.
fn mapped(bar: Bar, claims: &[Claim]) -> Option<Gpa> {
    let direct = claims.iter().filter(|claim| is_bar(claim));
    direct.filter_map(memory).filter_map(|span| span.intersection(bar.span)).map(Span::first).min()
}

fn is_bar(claim: &Claim) -> bool {
    claim.direct.as_ref().is_some_and(|direct| direct.kind == DirectKind::Bar)
}

/// The first dword of the BAR that traps to its own region: not mapped, and under no overlay.
fn trapped(bar: Bar, claims: &[Claim]) -> Option<Gpa> {
    let own = |claim: &Claim| {
        claim.direct.is_none()
            && matches!(claim.target, Target::Region { region, .. } if region == Region::bar(bar.number))
    };
    let covers: Vec<Span<Gpa>> = claims
        .iter()
        .filter(|claim| !own(claim))
        .filter_map(memory)
        .filter(|span| span.overlaps(bar.span))
        .collect();
    let behind = covers.iter().filter_map(|span| span.last().0.checked_add(1)).map(Gpa);
    let mut starts: Vec<Gpa> = std::iter::once(bar.span.first()).chain(behind).collect();
    starts.sort_unstable();
    let dword = |gpa: Gpa| Span::of_len(Gpa(gpa.0.next_multiple_of(4)), 4);
    starts.into_iter().filter_map(dword).find_map(|dword| {
        let inside = bar.span.contains(dword.first()) && bar.span.contains(dword.last());
        (inside && !covers.iter().any(|span| span.overlaps(dword))).then(|| dword.first())
    })
}

/// The file's part from `gpa` to the end of the BAR.
fn file_at(device: &dyn Device, bar: Bar, gpa: Gpa) -> Option<FileRegion> {
    let offset = bar.span.offset_of(gpa)?;
    let file = device.file(Region::bar(bar.number))?;
    Some(FileRegion {
        offset: file.offset.checked_add(offset)?,
        len: file.len.checked_sub(offset)?,
        ..file.clone()
    })
}

/// Where vector control of the first MSI-X entry lies (PCI 3.0 section 6.8.2).
fn vector_control(device: &mut dyn Device, bars: &[Bar]) -> Result<Option<u32>, Fault> {
    if read(device, spec::STATUS, Width::B2)? & u64::from(spec::STATUS_CAPABILITIES) == 0 {
        return Ok(None);
    }
    let mut at = read(device, spec::CAPABILITIES, Width::B1)?;
    for _ in 0..CAPABILITIES {
        let Ok(place) = u16::try_from(at & 0xfc) else { break };
        if place < spec::FIRST_CAPABILITY {
            break;
        }
        if read(device, place, Width::B1)? == u64::from(spec::CAP_MSIX) {
            let table = read(device, place + 4, Width::B4)?;
            let bar = bars.iter().find(|bar| u64::from(bar.number) == table & 7);
            let entry = bar.and_then(|bar| bar.span.first().0.checked_add((table & !7) + 12));
            return Ok(entry.and_then(|gpa| u32::try_from(gpa).ok()));
        }
        at = read(device, place + 1, Width::B1)?;
    }
    Ok(None)
}
