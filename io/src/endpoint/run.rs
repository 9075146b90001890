//! What belongs to the token: the device, and the run of posted writes that is about to reach it.
//!
//! Posted writes of memory that follow each other upwards, each where the last one ended, are held
//! back and reach the device as one [`Device::write_run`], if it [merges] there. A
//! run stays within one page of its region. Whatever does not continue it ends it, and every turn of
//! a drain ends with it, so nothing is held back while nobody owns the token.
//!
//! [merges]: Device::merges

use crate::access::{Access, Op, Region};
use crate::device::{Device, Fault};
use crate::queue::Entry;
use crate::stages::now;
use crate::trace::{How, Recorder};

/// No run crosses a multiple of this, in bytes from the region's start; the most that one can hold.
const PAGE: usize = 4096;

/// Offsets of [`Region::VGA`] below this are ports.
const PORTS: u64 = 0x1_0000;

/// The device, with what is on its way to it.
pub(super) struct Held {
    pub(super) device: Box<dyn Device>,
    /// What is told of writes for which nobody waits, if somebody traces.
    pub(super) recorder: Option<Recorder>,
    run: Run,
}

/// Writes that are held back; empty while nobody owns the token.
struct Run {
    /// The first write.
    first: Access,
    /// How many writes.
    writes: usize,
    /// How many bytes.
    len: usize,
    bytes: Box<[u8; PAGE]>,
}

impl Held {
    pub(super) fn new(device: Box<dyn Device>) -> Held {
        let first = Access::read(Region(0), 0, crate::Width::B1);
        Held { device, recorder: None, run: Run { first, writes: 0, len: 0, bytes: Box::new([0; PAGE]) } }
    }

    /// Holds the write back if it continues the run.
    #[inline]
    pub(super) fn extend(&mut self, entry: &Entry) -> bool {
        let extended = self.run.writes > 0 && entry.waiter.is_none() && self.run.extend(entry.access);
        if extended {
            self.note_held(entry);
        }
        extended
    }

    /// Holds the write back as the first of a run, if the device wants one; there is none now.
    #[inline]
    pub(super) fn begin(&mut self, entry: &Entry) -> bool {
        let access = entry.access;
        let begun = entry.waiter.is_none()
            && is_memory(access)
            && self.device.merges(access.region, access.offset)
            && self.run.begin(access);
        if begun {
            self.note_held(entry);
        }
        begun
    }

    /// Records a write that is about to reach the device with others, now: nothing overtakes it.
    pub(super) fn note_held(&self, entry: &Entry) {
        if self.recorder.is_some() {
            self.note(entry, now(), None);
        }
    }

    /// Records a write that reached the device at `start`, for so long as is known.
    pub(super) fn note(&self, entry: &Entry, start: u64, end: Option<u64>) {
        if let Some(recorder) = &self.recorder {
            let how = if entry.collected { How::Collected } else { How::Posted };
            recorder.carried_out(entry.access, how, start, end);
        }
    }

    /// Says since when the device has a write whose record is still to come.
    pub(super) fn under_way(&self, since: Option<u64>) {
        if let Some(recorder) = &self.recorder {
            recorder.under_way(since);
        }
    }

    /// Carries out what is held back, if anything is. A run of one is a plain write.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        if self.run.writes == 0 { Ok(()) } else { self.carry_out_run() }
    }

    fn carry_out_run(&mut self) -> Result<(), Fault> {
        // The run is over before the device is called: a device that panics leaves none behind.
        let writes = std::mem::take(&mut self.run.writes);
        let Access { region, width, offset, op } = self.run.first;
        match op {
            Op::Write(value) if writes == 1 => self.device.write(region, offset, width, value),
            _ => {
                let bytes = self.run.bytes.get(..self.run.len).unwrap_or(&[]);
                self.device.write_run(region, offset, bytes)
            }
        }
    }
}

impl Run {
    fn begin(&mut self, access: Access) -> bool {
        self.first = access;
        self.len = 0;
        self.writes = usize::from(self.append(access));
        self.writes > 0
    }

    fn extend(&mut self, access: Access) -> bool {
        let follows = access.region == self.first.region
            && self.first.offset.checked_add(self.len as u64) == Some(access.offset);
        let appended = follows && self.append(access);
        self.writes += usize::from(appended);
        appended
    }

    /// Adds the bytes of a write, if it ends within the page in which the run began.
    fn append(&mut self, access: Access) -> bool {
        let Op::Write(value) = access.op else { return false };
        let width = access.width.bytes();
        if self.first.offset % PAGE as u64 + (self.len + width) as u64 > PAGE as u64 {
            return false;
        }
        let Some(place) = self.bytes.get_mut(self.len..self.len + width) else { return false };
        for (byte, lane) in place.iter_mut().zip(value.to_le_bytes()) {
            *byte = lane;
        }
        self.len += width;
        true
    }
}

/// Whether this is a write that may be merged: configuration space and ports never are.
fn is_memory(access: Access) -> bool {
    matches!(access.op, Op::Write(_))
        && access.region != Region::CONFIG
        && (access.region != Region::VGA || access.offset >= PORTS)
}

#[cfg(all(test, not(loom)))]
mod tests;
