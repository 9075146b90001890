//! RAM that stands for the text window, and how what the guest writes there reaches the card.
//!
//! The guest reads and writes the RAM without any exit. A *flush* compares it with what the card was
//! sent and writes the runs that differ. There is no dirty log: to copy and compare 32 KiB takes 0.6 to
//! 0.75 of what fetching the log of as much takes (`cargo bench -p trapline-benches --bench window`), and
//! nothing has to be write-protected, so that no vCPU's TLB is flushed and no page faults again.
//!
//! A flush takes its copy of the RAM first, and compares and sends that. So a write by the guest
//! while it goes on is either in the copy, or differs from what was sent and leaves with the next.
//!
//! What the card was sent outlives the shadow: writes that reach the card in other ways are noted too
//! ([`Shadow::note`]), so that a shadow that rested starts again without reading anything back.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use trapline_io::{Fault, Region, Width};
use vm_memory::{Bytes, MmapRegion, VolatileMemory, VolatileSlice};

use crate::assigned::Backend;

/// Bytes of the text window.
pub const LEN: usize = 0x8000;
/// Runs that are closer than this leave as one: a transfer costs more than a few bytes of it.
const GAP: usize = 16;
/// Bytes that are compared at a time.
const STRIDE: usize = 256;

/// See the module's page.
#[derive(Debug)]
pub struct Shadow {
    ram: Arc<MmapRegion>,
    /// What the card has, if `known`.
    sent: Box<[u8]>,
    known: bool,
    /// The copy that a flush works on.
    copy: Box<[u8]>,
}

impl Shadow {
    /// A shadow of nothing yet.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new() -> io::Result<Shadow> {
        let ram = MmapRegion::new(LEN).map_err(io::Error::other)?;
        let zeros = || vec![0; LEN].into_boxed_slice();
        Ok(Shadow { ram: Arc::new(ram), sent: zeros(), known: false, copy: zeros() })
    }

    /// The RAM, 32 KiB.
    pub fn memory(&self) -> &Arc<MmapRegion> {
        &self.ram
    }

    /// Makes the RAM what the card has at `first`; reads it from the card if that is not known. No vCPU
    /// runs.
    ///
    /// # Errors
    /// The card failed the read.
    pub fn start(&mut self, card: &mut dyn Backend, first: u64) -> Result<(), Fault> {
        if !self.known {
            card.read_bytes(Region::VGA, first, &mut self.sent)?;
            self.known = true;
        }
        self.ram().copy_from(&self.sent);
        Ok(())
    }

    /// Writes to the card, at `first`, what the guest has changed since the last flush; tells whether
    /// there was anything.
    ///
    /// # Errors
    /// The card failed a write; the next flush sends everything.
    pub fn flush(&mut self, card: &mut dyn Backend, first: u64) -> Result<bool, Fault> {
        // Not the slice: of one that is borrowed the copy could not be written.
        let ram = Arc::clone(&self.ram);
        ram.as_volatile_slice().copy_to(&mut self.copy);
        if !self.known {
            card.write_bytes(Region::VGA, first, &self.copy)?;
            self.known = true;
            self.sent.copy_from_slice(&self.copy);
            return Ok(true);
        }
        // Mostly nothing has changed, and that is told fastest of all of it at once.
        if self.copy == self.sent {
            return Ok(false);
        }
        let mut done = 0;
        while let Some(run) = next_run(&self.copy, &self.sent, done) {
            let (Some(from), Some(to)) = (self.copy.get(run.clone()), self.sent.get_mut(run.clone())) else {
                break;
            };
            let sent = card.write_bytes(Region::VGA, first + run.start as u64, from);
            sent.inspect_err(|_| self.known = false)?;
            to.copy_from_slice(from);
            done = run.end;
        }
        Ok(done > 0)
    }

    /// Takes note that these bytes reached the card at `place` of the window in another way.
    pub fn note(&mut self, place: usize, bytes: &[u8]) {
        let places = self.sent.get_mut(place..).unwrap_or_default();
        places.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Whether a start needs no reading back.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What the card has is not known any more.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// A read of the RAM that trapped nevertheless; ones behind its end.
    pub fn load(&self, place: usize, width: Width) -> u64 {
        let mut bytes = [0xff; 8];
        let (lanes, _) = bytes.split_at_mut(width.bytes());
        // Where it reaches beyond the end the rest are ones, as on a bus.
        let _ = self.ram().read(lanes, place);
        u64::from_le_bytes(bytes) & width.all_ones()
    }

    /// A write to the RAM that trapped nevertheless; what lies behind its end is dropped.
    pub fn store(&self, place: usize, bytes: &[u8]) {
        let _ = self.ram().write(bytes, place);
    }

    fn ram(&self) -> VolatileSlice<'_> {
        self.ram.as_volatile_slice()
    }
}

/// The first run of bytes that differ, from `from` on, with gaps of bytes that do not.
fn next_run(new: &[u8], old: &[u8], from: usize) -> Option<Range<usize>> {
    let start = difference(new, old, from, STRIDE).or_else(|| {
        let from = from + STRIDE;
        let mut blocks = new.get(from..)?.chunks(STRIDE).zip(old.get(from..)?.chunks(STRIDE));
        let block = blocks.position(|(new, old)| new != old)?;
        difference(new, old, from + block * STRIDE, STRIDE)
    })?;
    let mut end = start + 1;
    while let Some(next) = difference(new, old, end, GAP) {
        end = next + 1;
    }
    Some(start..end)
}

/// The first place that differs, among `most` from `from` on.
fn difference(new: &[u8], old: &[u8], from: usize, most: usize) -> Option<usize> {
    let pairs = new.get(from..)?.iter().zip(old.get(from..)?);
    pairs.take(most).position(|(new, old)| new != old).map(|place| from + place)
}

#[cfg(test)]
mod tests;
