//! Eight-bit devices on a bus with wider cycles: a wide access is carried out byte by byte, lowest
//! address first, as the bridge to the old bus does it.

use std::sync::Arc;

use trapline_io::device::{Claim, Claims, Range};
use trapline_io::{Port, Region, Span, Width};

use crate::host::IrqLine;

/// An interrupt line that is told only what changes, since each telling is a system call.
pub(super) struct Irq {
    line: Arc<dyn IrqLine>,
    level: bool,
}

impl Irq {
    pub(super) fn new(line: Arc<dyn IrqLine>) -> Irq {
        Irq { line, level: false }
    }

    pub(super) fn set(&mut self, level: bool) {
        if level != self.level {
            self.level = level;
            self.line.set(level);
        }
    }

    /// Low, whatever was believed.
    pub(super) fn reset(&mut self) {
        self.level = false;
        self.line.set(false);
    }
}

/// The region of a platform device that has one.
pub(super) const PORTS: Region = Region(0);

/// Reads `width` bytes from `offset` on through a read of single registers.
pub(super) fn read(offset: u64, width: Width, mut register: impl FnMut(u64) -> u8) -> u64 {
    (0..width.bytes() as u64)
        .fold(0, |value, lane| value | u64::from(register(offset.wrapping_add(lane))) << (8 * lane))
}

/// Writes the low `width` bytes of `value` from `offset` on through a write of single registers.
pub(super) fn write(offset: u64, width: Width, value: u64, mut register: impl FnMut(u64, u8)) {
    for (lane, byte) in (0..width.bytes() as u64).zip(value.to_le_bytes()) {
        register(offset.wrapping_add(lane), byte);
    }
}

/// Claims of ports `(first, last, offset)`: trapped, strict, the offset being that of the first.
pub(super) fn claims(ports: &[(u16, u16, u64)]) -> Claims {
    let ranges = ports.iter().filter_map(|&(first, last, offset)| {
        Some(Claim::region(Range::Ports(Span::new(Port(first), Port(last))?), PORTS, offset))
    });
    Claims { ranges: ranges.collect(), bridge: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_accesses_go_byte_by_byte_upwards() {
        assert_eq!(read(0x10, Width::B4, |at| at.to_le_bytes()[0]), 0x1312_1110);
        let mut seen = Vec::new();
        write(0x10, Width::B2, 0xaabb_ccdd, |at, byte| seen.push((at, byte)));
        assert_eq!(seen, [(0x10, 0xdd), (0x11, 0xcc)]);
    }
}
