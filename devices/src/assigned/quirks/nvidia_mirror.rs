//! The mirrors of configuration space in BAR 0 of NVIDIA adapters: at 0x88000, which their drivers use all the
//! time, and at 0x1800, which only the firmware of legacy VGA does.
//!
//! Two writes are different from those of other mirrors:
//!
//! * A GeForce takes a write to the id byte of the MSI capability as the acknowledge of an interrupt; without it
//!   there is one interrupt and then silence. Nothing of that byte can be written in configuration
//!   space, so the device sees the write.
//! * What a driver writes again and again (0x704 to acknowledge too) is given to the kernel
//!   (`assigned::repeats`), which makes the write in the mirror itself.

use trapline_io::{Fault, Op, Region, Width};

use super::mirror::Mirror;
use super::{Beside, Card, Lead, Overlay, Quirk, regions};
use crate::pci::spec;

const BAR: u8 = 0;

/// See the module's page.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    mirror: Mirror,
    /// Offset of the MSI capability, if it is shown.
    msi: Option<u16>,
}

/// The mirror that drivers use.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    make(
        card,
        Mirror::new(regions::NVIDIA_MIRROR, BAR, 0x8_8000, card.config_len()),
        0x8_8000 + card.config_len(),
    )
}

/// The mirror that firmware uses.
pub(super) fn legacy_on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    make(card, Mirror::new(regions::NVIDIA_LEGACY_MIRROR, BAR, 0x1800, 0x100), 0x1900)
}

fn make(card: &Card<'_>, mirror: Mirror, end: u64) -> Option<Box<dyn Quirk>> {
    card.has_memory(BAR, end)
        .then(|| Box::new(Acknowledged { mirror, msi: card.config.msi }) as Box<dyn Quirk>)
}

impl Quirk for Acknowledged {
    fn region(&self) -> Region {
        self.mirror.region()
    }

    fn overlays(&self) -> Vec<Overlay> {
        self.mirror.overlays()
    }

    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        let at = self.mirror.config(offset, width)?;
        if op == Op::Read {
            return self.mirror.lead(offset, width, op);
        }
        let place = self.mirror.place(offset);
        let end = usize::from(at) + width.bytes();
        let acknowledges = self.msi.is_some_and(|msi| at >= msi && end <= usize::from(msi) + 2);
        let beside = match at {
            _ if acknowledges => Beside::Sees(place),
            spec::FIRST_CAPABILITY.. => Beside::Alike(place),
            _ => Beside::Nothing,
        };
        Ok(Lead::Config(at, beside))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GEFORCE, MSI, made};
    use super::*;

    const AT: u64 = 0x8_8000;

    #[test]
    fn the_device_sees_acknowledges_alone() {
        let mirror = made(GEFORCE, regions::NVIDIA_MIRROR).unwrap();
        let lead = |at: u16, width| mirror.lead(AT + u64::from(at), width, Op::Write(0xff)).unwrap();
        let place = |at: u16| (Region::bar(0), AT + u64::from(at));
        for (at, width) in [(MSI, Width::B1), (MSI + 1, Width::B1), (MSI, Width::B2)] {
            assert_eq!(lead(at, width), Lead::Config(at, Beside::Sees(place(at))));
        }
        for (at, width) in [(MSI, Width::B4), (MSI + 1, Width::B2), (MSI + 2, Width::B2), (0x704, Width::B4)]
        {
            assert_eq!(lead(at, width), Lead::Config(at, Beside::Alike(place(at))));
        }
        assert_eq!(lead(4, Width::B2), Lead::Config(4, Beside::Nothing));
        let read = mirror.lead(AT + 0x10, Width::B4, Op::Read);
        assert_eq!(read, Ok(Lead::Config(0x10, Beside::Sees(place(0x10)))));
        assert_eq!(mirror.lead(AT + 0xffe, Width::B4, Op::Read), Err(Fault::NoRegister));
    }

    #[test]
    fn the_mirror_of_firmware_needs_legacy_vga() {
        let len = |adapter, region| made(adapter, region).map(|quirk| quirk.overlays()[0].len);
        assert_eq!(len(GEFORCE, regions::NVIDIA_MIRROR), Some(0x1000));
        assert_eq!(len(GEFORCE, regions::NVIDIA_LEGACY_MIRROR), Some(0x100));
        assert_eq!(len(GEFORCE.without_vga(), regions::NVIDIA_MIRROR), Some(0x1000));
        assert_eq!(len(GEFORCE.without_vga(), regions::NVIDIA_LEGACY_MIRROR), None);
        assert_eq!(len(GEFORCE.with_class(0x0302), regions::NVIDIA_MIRROR), None);
        assert_eq!(len(GEFORCE.with_bar(0, 0x8_8000), regions::NVIDIA_MIRROR), None);
    }
}
