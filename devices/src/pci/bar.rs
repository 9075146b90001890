//! Base address registers: what kind they are and where they decode.

use trapline_io::device::Range;
use trapline_io::{Gpa, Port, Span};

/// What a base address register decodes (PCI 3.0 section 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// The expansion ROM: memory below 4 GiB with an enable bit of its own.
    Rom,
}

/// The first address that no x86 processor can put on the bus: 52 bits of physical address.
const PHYSICAL_END: u64 = 1 << 52;
/// The last address below 4 GiB, where the reset vector's flash ends.
const LAST_BELOW_4G: u64 = 0xffff_ffff;

/// A base address register: its kind, and its size in bytes, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The kind.
    pub kind: BarKind,
    /// Bytes; a power of two, at least 4 for I/O, 16 for memory, 2048 for a ROM. Other sizes are
    /// rounded up when the register is added to a configuration space.
    pub size: u64,
}

impl Bar {
    /// The same register with a size that the bits of a BAR can express: a power of two, not below
    /// the smallest of its kind nor above half of its address space.
    #[must_use]
    pub(super) fn expressible(self) -> Bar {
        let (smallest, largest) = match self.kind {
            BarKind::Io => (4, 1 << 31),
            BarKind::Memory32 { .. } => (16, 1 << 31),
            BarKind::Memory64 { .. } => (16, 1 << 63),
            BarKind::Rom => (2048, 1 << 31),
        };
        let size = self.size.checked_next_power_of_two().unwrap_or(largest).clamp(smallest, largest);
        Bar { size, ..self }
    }

    /// The bits that tell software the kind.
    pub(super) const fn type_bits(self) -> u32 {
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => (prefetchable as u32) << 3,
            BarKind::Memory64 { prefetchable } => 4 | (prefetchable as u32) << 3,
            BarKind::Rom => 0,
        }
    }

    /// The address bits that software can set, over all 64 bits.
    pub(super) const fn address_mask(self) -> u64 {
        let mask = !(self.size - 1);
        match self.kind {
            // x86 has 16 bits of I/O space; the upper half must be writable to be sized as 32 bits.
            BarKind::Io => mask & 0xffff_fffc,
            BarKind::Memory32 { .. } => mask & 0xffff_fff0,
            BarKind::Memory64 { .. } => mask & !0xf,
            BarKind::Rom => mask & 0xffff_f800,
        }
    }

    /// The range that the register decodes when it holds `address`. None where that is no place a
    /// BAR can be meant to lie: at zero (never assigned), with all address bits set (being sized,
    /// which firmware does without switching decode off), on the reset vector, or past the end of
    /// its address space.
    pub(super) fn range(self, address: u64) -> Option<Range> {
        let address = address & self.address_mask();
        if address == 0 || address == self.address_mask() {
            return None;
        }
        if self.kind == BarKind::Io {
            return Span::of_len(Port(u16::try_from(address).ok()?), self.size).map(Range::Ports);
        }
        let span = Span::of_len(Gpa(address), self.size)?;
        // A 64-bit register is sized one half at a time. Ones in the low half alone, the high half
        // being zero, give a range that ends with the last byte below 4 GiB; ones in the high half
        // give one that no processor reaches.
        let sizing = span.contains(Gpa(LAST_BELOW_4G)) || span.last() >= Gpa(PHYSICAL_END);
        (!sizing).then_some(Range::Memory(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [BarKind; 6] = [
        BarKind::Io,
        BarKind::Memory32 { prefetchable: false },
        BarKind::Memory32 { prefetchable: true },
        BarKind::Memory64 { prefetchable: false },
        BarKind::Memory64 { prefetchable: true },
        BarKind::Rom,
    ];

    fn memory64(size: u64) -> Bar {
        Bar { kind: BarKind::Memory64 { prefetchable: true }, size }
    }

    #[test]
    fn any_size_becomes_one_that_bits_can_express() {
        for kind in KINDS {
            for size in [0, 1, 3, 4, 15, 4097, 1 << 31, (1 << 32) + 1, 1 << 63, u64::MAX] {
                let bar = Bar { kind, size }.expressible();
                assert!(bar.size.is_power_of_two(), "{kind:?} {size:#x}");
                assert_ne!(bar.address_mask(), 0, "{kind:?} {size:#x}");
                assert_eq!(bar.range(u64::MAX), None);
                assert_eq!(bar.range(0), None);
            }
        }
        assert_eq!(memory64(3 << 20).expressible().size, 4 << 20);
    }

    #[test]
    fn a_register_being_sized_decodes_nothing() {
        let small = memory64(16 << 20);
        assert_eq!(small.range(0xffff_ffff), None);
        assert_eq!(small.range(0xffff_ffff_e000_0000), None);
        assert_eq!(memory64(256 << 20).range(0xffff_fff0), None);
        let narrow = Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 };
        assert_eq!(narrow.range(0xffff_ffff), None);
        let ports = Bar { kind: BarKind::Io, size: 32 };
        assert_eq!(ports.range(0xffff_fffc), None);
    }

    #[test]
    fn a_large_register_may_lie_at_the_top_of_a_window() {
        // All writable bits of the low half are set, and yet the address is a real one.
        let bar = memory64(256 << 20);
        let range = bar.range(0x3f_f000_0000);
        assert_eq!(range, Span::of_len(Gpa(0x3f_f000_0000), 256 << 20).map(Range::Memory));
        let huge = memory64(128 << 30);
        assert!(huge.range(0x3fe0_0000_0000).is_some());
    }

    #[test]
    fn ports_end_at_64_kib() {
        let ports = Bar { kind: BarKind::Io, size: 32 };
        assert_eq!(ports.range(0xffe0), Span::of_len(Port(0xffe0), 32).map(Range::Ports));
        assert_eq!(ports.range(0x1_0000), None);
        let wide = Bar { kind: BarKind::Io, size: 1 << 17 };
        assert_eq!(wide.range(0x2_0000), None);
    }
}
