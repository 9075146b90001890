//! Writes that a driver makes again and again: the same value to the same register, trapped each time.
//!
//! An acknowledgement or a doorbell on a page that cannot be mapped is such a register. Its write is
//! handed to the kernel as a whole: KVM signals an eventfd in place of the exit, and the device's
//! driver (VFIO) answers the signal with the write. What differs in value or width still traps, so
//! nothing is guessed wrongly, only seen late.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use trapline_io::device::Signal;
use trapline_io::{Region, Width};

use super::backend::{Backend, Write};

/// How often in a row a write must trap before the kernel gets it.
const TIMES: u8 = 10;

/// How many writes of one function the kernel gets: each is a descriptor, and a guest might make up any
/// number.
const MOST: usize = 10;

/// How many registers are watched at a time.
const WATCHED: usize = 8;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Writes, and how often each came with no other access to its register in between.
    watched: [Option<(Write, u8)>; WATCHED],
    /// Which of them is the next to be forgotten.
    oldest: usize,
    taken: Vec<(Write, Arc<OwnedFd>)>,
    /// None is wanted, or the backend takes none, or not this many.
    refused: bool,
}

impl Repeats {
    /// Nothing yet, or, unless `wanted`, never anything.
    pub fn of(backend: &dyn Backend, wanted: bool) -> Repeats {
        Repeats { refused: !wanted || !backend.takes_writes(), ..Repeats::default() }
    }

    /// Takes note of a write that trapped; true if it is time for the kernel to take it.
    pub fn note(&mut self, write: Write) -> bool {
        if self.refused || self.taken.len() >= MOST || write.width == Width::B8 {
            return false;
        }
        let mut times = 0;
        for place in &mut self.watched {
            if let Some((known, count)) = *place
                && known.touches(write.region, write.offset, write.width)
            {
                times = if known == write { count } else { times };
                *place = None;
            }
        }
        if times + 1 >= TIMES {
            // One that was given traps until the map has followed, and for good where KVM refused it.
            return !self.taken.iter().any(|(taken, _)| *taken == write);
        }
        let free = self.watched.iter().position(Option::is_none);
        let place = free.unwrap_or(self.oldest);
        self.oldest = (place + 1) % WATCHED;
        if let Some(place) = self.watched.get_mut(place) {
            *place = Some((write, times + 1));
        }
        false
    }

    /// Takes note of a read that trapped.
    pub fn read(&mut self, region: Region, offset: u64, width: Width) {
        for place in &mut self.watched {
            if place.is_some_and(|(known, _)| known.touches(region, offset, width)) {
                *place = None;
            }
        }
    }

    /// Gives a write to the kernel. Of a backend that refuses, nothing is watched any more.
    pub fn give(&mut self, backend: &mut dyn Backend, write: Write) {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let given = event.ok().filter(|event| backend.connect_write(write, event.as_fd()).is_ok());
        match given {
            Some(event) => self.taken.push((write, Arc::new(event))),
            None => self.refused = true,
        }
    }

    /// What the kernel has been given, with what it waits for.
    pub fn signals(&self) -> impl Iterator<Item = (Write, Signal)> {
        self.taken.iter().map(|(write, event)| {
            let value = Some((write.width, write.value));
            (*write, Signal { event: Arc::clone(event), value })
        })
    }

    /// Takes all of it back, and starts to watch anew.
    pub fn reset(&mut self, backend: &mut dyn Backend) {
        for (write, _) in self.taken.drain(..) {
            // One that is gone writes nothing any more.
            let _ = backend.disconnect_write(write);
        }
        self.watched = [None; WATCHED];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Region = Region::bar(0);

    fn write(offset: u64, width: Width, value: u64) -> Write {
        Write { region: BAR, offset, width, value }
    }

    /// How many of these writes have to come, one after the other, until the kernel should get one.
    fn until(repeats: &mut Repeats, writes: &[Write]) -> Option<usize> {
        writes.iter().cycle().take(100).position(|write| repeats.note(*write)).map(|index| index + 1)
    }

    #[test]
    fn the_tenth_in_a_row_is_the_last() {
        let mut repeats = Repeats::default();
        assert_eq!(until(&mut repeats, &[write(4, Width::B4, 7)]), Some(10));
        // And then it is counted anew.
        assert_eq!(until(&mut repeats, &[write(4, Width::B4, 7)]), Some(10));
        assert_eq!(until(&mut repeats, &[write(4, Width::B8, 7)]), None);
    }

    #[test]
    fn other_registers_do_not_disturb_and_other_accesses_to_it_do() {
        let mut repeats = Repeats::default();
        let one = write(4, Width::B4, 7);
        let elsewhere: Vec<Write> = (1..8).map(|n| write(0x100 * n, Width::B4, n)).collect();
        let mut turns = vec![one];
        turns.extend(&elsewhere);
        assert_eq!(until(&mut repeats, &turns), Some(9 * 8 + 1));
        for other in [write(4, Width::B4, 8), write(4, Width::B2, 7), write(7, Width::B1, 0)] {
            assert_eq!(until(&mut Repeats::default(), &[one, other]), None, "{other:?}");
        }
        let mut repeats = Repeats::default();
        for _ in 0..5 {
            assert!((0..9).all(|_| !repeats.note(one)));
            repeats.read(BAR, 6, Width::B1);
        }
        repeats.read(BAR, 8, Width::B4);
        repeats.read(Region::bar(1), 4, Width::B4);
        assert_eq!(until(&mut repeats, &[one]), Some(10));
    }

    #[test]
    fn any_number_of_registers_is_watched_with_as_much_memory() {
        let mut repeats = Repeats::default();
        for n in 0..1000 {
            for _ in 0..3 {
                assert!(!repeats.note(write(8 * n, Width::B4, n)));
            }
        }
        assert_eq!(until(&mut repeats, &[write(0, Width::B1, 0)]), Some(10));
    }
}
