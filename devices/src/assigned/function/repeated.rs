//! Writes that the kernel makes in place of an exit, once a driver has repeated them
//! ([`Repeats`](crate::assigned::repeats)).
//!
//! The kernel's write goes past the queue. So it is only wanted while nothing of the function's is
//! posted, which is in the native phase, and where it may come a little late: not while the function
//! interrupts by its line, whose acknowledgement must be first.

use trapline_io::device::{Claim, Range};
use trapline_io::window::{Mode, Window};
use trapline_io::{Gpa, Port, Region, Span, Width};

use super::Function;
use super::claims::PAGE;
use crate::assigned::backend::{Backend, Write};

impl<B: Backend> Function<B> {
    /// A write to a BAR has trapped, and reached the device.
    pub(super) fn note_write(&mut self, write: Write) {
        if self.repeats.note(write) && self.signals() && self.traps_always(write) {
            self.repeats.give(&mut self.backend, write);
        }
    }

    /// A read of a BAR traps.
    pub(super) fn note_read(&mut self, region: Region, offset: u64, width: Width) {
        self.repeats.read(region, offset, width);
    }

    /// The registers of such writes, over their BARs.
    pub(super) fn claim_repeats(&self, ranges: &mut Vec<Claim>) {
        if self.signals() {
            let mut claims: Vec<Claim> = Vec::new();
            for (write, signal) in self.repeats.signals() {
                let Some(range) = self.register(write) else { continue };
                match claims.iter_mut().find(|claim| claim.range == range) {
                    Some(claim) => claim.signals.push(signal),
                    None => {
                        let region = self.overlay_at(write.region, write.offset).unwrap_or(write.region);
                        claims.push(Claim::region(range, region, write.offset).signal(signal));
                    }
                }
            }
            ranges.append(&mut claims);
        }
    }

    /// Whether the kernel may write by itself now.
    fn signals(&self) -> bool {
        self.mode() == Mode::Native && !self.interrupts.by_line(self.config.space())
    }

    /// Where the guest sees the register, if all of it is there.
    fn register(&self, write: Write) -> Option<Range> {
        let len = write.width.bytes() as u64;
        let range = match self.config.decoded(write.region.0)? {
            Range::Memory(bar) => {
                let span = Span::of_len(Gpa(bar.first().0.checked_add(write.offset)?), len)?;
                Range::Memory(span.intersection(bar).filter(|inside| *inside == span)?)
            }
            Range::Ports(bar) => {
                let first = bar.first().0.checked_add(u16::try_from(write.offset).ok()?)?;
                let span = Span::of_len(Port(first), len)?;
                Range::Ports(span.intersection(bar).filter(|inside| *inside == span)?)
            }
        };
        Some(range)
    }

    /// Whether a write there traps for good. A page that is mapped may trap for a while, and would for ever
    /// with a register of its own; a page with a part of the MSI-X table, or with an overlay of a quirk, is never
    /// mapped.
    fn traps_always(&self, write: Write) -> bool {
        let page = |at: u64| at / PAGE;
        let mapped = |mapping: &crate::assigned::backend::Mapping| {
            page(mapping.offset) <= page(write.offset)
                && page(write.offset) < page(mapping.offset.saturating_add(mapping.len))
        };
        let table = self.interrupts.msix.iter().flat_map(|msix| [msix.table, msix.pending]).any(|area| {
            let last = area.offset.saturating_add(area.len.saturating_sub(1));
            area.bar == write.region.0
                && page(area.offset) <= page(write.offset)
                && page(write.offset) <= page(last)
        });
        table
            || self.has_overlay(write.region, page(write.offset) * PAGE, PAGE)
            || !self.backend.region(write.region).mappings.iter().any(mapped)
    }
}
