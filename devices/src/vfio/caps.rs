//! What a device's own header and capabilities say about using it.

use std::ops::Range;

use crate::pci;
use crate::pci::spec::{self, PowerControl, express};

/// Advanced features, AF Capabilities, 8 bits: transactions pending in bit 0, function level reset in bit 1.
const ADVANCED_CAPABILITIES: usize = 3;
const ADVANCED_FLR: u8 = 1 << 1;
/// MSI-X Message Control: the last vector's number.
const MSIX_LAST: u16 = 0x7ff;

/// A copy of the first 256 bytes of configuration space.
pub(super) struct Header<'a>(pub &'a [u8]);

impl Header<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0xff)
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from(self.half(at)) | u32::from(self.half(at + 2)) << 16
    }

    /// Vendor and device.
    pub fn identity(&self) -> u32 {
        self.word(usize::from(spec::VENDOR_ID))
    }

    /// A base address register, 0 to 5. The kernel shows one that has no place as zero, kind and all
    /// (`vfio_bar_fixup`).
    pub fn bar(&self, index: u8) -> u32 {
        self.word(usize::from(spec::BAR0) + 4 * usize::from(index))
    }

    /// Where the first capability of a kind begins.
    fn find(&self, id: u8) -> Option<usize> {
        let mut list = pci::capabilities(|at| self.byte(at.into()));
        list.find(|(_, found)| *found == id).map(|(at, _)| at.into())
    }

    /// Whether it is a function of PCI Express.
    pub fn is_express(&self) -> bool {
        self.find(spec::CAP_EXPRESS).is_some()
    }

    /// Whether it has a function level reset.
    pub fn has_flr(&self) -> bool {
        let express = self.find(spec::CAP_EXPRESS).is_some_and(|at| {
            let capabilities = self.word(at + usize::from(express::DEVICE_CAPABILITIES));
            capabilities & express::FUNCTION_RESET_CAPABLE != 0
        });
        let advanced = self
            .find(spec::CAP_ADVANCED)
            .is_some_and(|at| self.byte(at + ADVANCED_CAPABILITIES) & ADVANCED_FLR != 0);
        express || advanced
    }

    /// Whether going to D3hot and back resets it.
    pub fn has_power_reset(&self) -> bool {
        self.find(spec::CAP_POWER).is_some_and(|at| {
            !PowerControl::from_bits(self.half(at + usize::from(spec::PMCSR))).no_soft_reset()
        })
    }

    /// In which BAR the MSI-X table lies, and where in it.
    pub fn msix_table(&self) -> Option<(u8, Range<u64>)> {
        let at = self.find(spec::CAP_MSIX)?;
        let table = self.word(at + 4);
        let bar = u8::try_from(table & 7).ok().filter(|bar| *bar < 6)?;
        let first = u64::from(table & !7);
        let vectors = u64::from(self.half(at + 2) & MSIX_LAST) + 1;
        Some((bar, first..first + vectors * 16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with these capabilities, one after the other.
    fn header(capabilities: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[6] = 0x10;
        let (mut at, mut link) = (0x40, 0x34);
        for capability in capabilities {
            bytes[link] = u8::try_from(at).unwrap();
            bytes[at..at + capability.len()].copy_from_slice(capability);
            link = at + 1;
            bytes[link] = 0;
            at += capability.len().next_multiple_of(4);
        }
        bytes
    }

    #[test]
    fn resets_are_found() {
        let express = |bits: u8| [0x10, 0, 2, 0, 0, 0x80, 0, bits];
        let power = |control: u8| [0x01, 0, 3, 0, control, 0, 0, 0];
        for (capabilities, flr, by_power) in [
            (vec![], false, false),
            (vec![&express(0)[..]], false, false),
            (vec![&express(0x10)], true, false),
            (vec![&power(8), &express(0x10)], true, false),
            (vec![&power(0), &express(0)], false, true),
            (vec![&[0x13, 0, 6, 3, 0, 0], &power(3)], true, true),
            (vec![&[0x13, 0, 6, 1, 0, 0]], false, false),
        ] {
            let bytes = header(&capabilities);
            let header = Header(&bytes);
            assert_eq!((header.has_flr(), header.has_power_reset()), (flr, by_power), "{capabilities:x?}");
        }
    }

    #[test]
    fn an_msix_table_is_found() {
        let bytes = header(&[&[0x05, 0, 0, 0], &[0x11, 0, 0x3f, 0x80, 0x02, 0x30, 0, 0, 0x02, 0x38, 0, 0]]);
        assert_eq!(Header(&bytes).msix_table(), Some((2, 0x3000..0x3400)));
        assert_eq!(Header(&header(&[])).msix_table(), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read(bytes: Vec<u8>) {
            let header = Header(&bytes);
            let _ = (header.has_flr(), header.has_power_reset(), header.msix_table(), header.is_express());
        }
    }
}
