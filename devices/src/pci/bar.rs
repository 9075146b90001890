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

/// A base address register: its kind, and its size in bytes, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The kind.
    pub kind: BarKind,
    /// Bytes; a power of two, at least 4 for I/O, 16 for memory, 2048 for a ROM.
    pub size: u64,
}

impl Bar {
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

    /// The range that the register decodes when it holds `address`. None where it lies at zero, at
    /// the top (a register being sized), or beyond its address space.
    pub(super) fn range(self, address: u64) -> Option<Range> {
        let address = address & self.address_mask();
        if address == 0 || address == self.address_mask() {
            return None;
        }
        match self.kind {
            BarKind::Io => Span::of_len(Port(u16::try_from(address).ok()?), self.size).map(Range::Ports),
            _ => Span::of_len(Gpa(address), self.size).map(Range::Memory),
        }
    }
}
