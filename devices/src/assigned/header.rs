//! The type 0 header that the guest sees: identity and base address registers from the device's own,
//! sizes from its regions.

use trapline_io::Width;

use super::config::Shape;
use super::error::Error;
use super::registers::Registers;
use crate::pci::{Bar, BarKind, ConfigSpace, Identity, Pin, spec};

/// Base class and subclass of a display controller of no named kind.
pub(super) const CLASS_DISPLAY_OTHER: u32 = 0x0380;

/// The header, with no capability and no ROM.
pub(super) fn space(device: &Registers, shape: &Shape) -> Result<ConfigSpace, Error> {
    let header = device.byte(spec::HEADER_TYPE) & !spec::MULTIFUNCTION;
    let vendor = device.word(spec::VENDOR_ID);
    if header != 0 || vendor == 0xffff {
        return Err(Error::NotAFunction { vendor, header });
    }
    let class = device.dword(spec::REVISION_ID);
    let mut space = ConfigSpace::new(Identity {
        vendor,
        device: device.word(spec::DEVICE_ID),
        revision: device.byte(spec::REVISION_ID),
        class: class >> 8,
        subsystem: (device.word(spec::SUBSYSTEM_VENDOR_ID), device.word(spec::SUBSYSTEM_ID)),
    });
    if shape.multifunction {
        space.preset(spec::HEADER_TYPE, Width::B1, spec::MULTIFUNCTION.into());
    }
    let pin = device.byte(spec::INTERRUPT_PIN);
    if shape.intx
        && let index @ 0..4 = pin.wrapping_sub(1)
    {
        space.set_pin(Pin::of(index));
    }
    // Minimum grant, maximum latency.
    for offset in spec::INTERRUPT_PIN + 1..spec::FIRST_CAPABILITY {
        space.preset(offset, Width::B1, device.byte(offset).into());
    }
    add_bars(&mut space, device, &shape.bars)?;
    Ok(space)
}

fn add_bars(space: &mut ConfigSpace, device: &Registers, sizes: &[u64; 6]) -> Result<(), Error> {
    let mut upper_half = false;
    for (index, &size) in (0u8..).zip(sizes) {
        if std::mem::take(&mut upper_half) || size == 0 {
            continue;
        }
        let register = device.dword(spec::BAR0 + 4 * u16::from(index));
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
