//! A bridge's windows as values, and as the registers that hold them.

use trapline_io::{Gpa, Port, Span};

use super::spec;

/// What a bridge passes on of ports and memory (PCI-to-PCI Bridge 1.2 sections 3.2.5.6 to 3.2.5.10). `None` is a
/// closed window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Ports: whole [`Windows::PORTS`].
    pub io: Option<Span<Port>>,
    /// Memory below 4 GiB: whole [`Windows::MEMORY`].
    pub memory: Option<Span<Gpa>>,
    /// Prefetchable memory anywhere: whole [`Windows::MEMORY`].
    pub prefetchable: Option<Span<Gpa>>,
}

impl Windows {
    /// Granularity of the window of ports.
    pub const PORTS: u64 = 4 << 10;
    /// Granularity of the windows of memory, in bytes.
    pub const MEMORY: u64 = 1 << 20;

    /// The dwords of a type 1 header that hold them: offset and value. The first holds the secondary status
    /// too, of which no bit is set by this.
    pub(super) fn registers(&self) -> [(u16, u32); 5] {
        let ports = |at: Port| u32::from(at.0) >> 8 & 0xf0;
        // Base above limit is closed.
        let io = self.io.map_or(0x00f0, |span| ports(span.first()) | ports(span.last()) << 8);
        let memory = |at: Gpa| (at.0 >> 16 & 0xfff0) as u32;
        let both = |span: Option<Span<Gpa>>| {
            span.map_or(0x0000_fff0, |span| memory(span.first()) | memory(span.last()) << 16)
        };
        let upper = |at: fn(Span<Gpa>) -> Gpa| self.prefetchable.map_or(0, |span| (at(span).0 >> 32) as u32);
        [
            (spec::IO_BASE, io),
            (spec::MEMORY_BASE, both(self.memory)),
            // The low bits say that it is one of 64 bits.
            (spec::PREFETCHABLE_BASE, both(self.prefetchable) | 0x0001_0001),
            (spec::PREFETCHABLE_BASE_UPPER, upper(Span::first)),
            (spec::PREFETCHABLE_BASE_UPPER + 4, upper(Span::last)),
        ]
    }
}
