//! The real primitives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use crossbeam::queue::ArrayQueue as Queue;
pub(crate) use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::futex;

/// How often a caller looks for its answer, or for the token, before it sleeps: a few microseconds,
/// what a futex wake-up costs at its best.
pub(crate) const SPINS: u32 = 200;

/// A word that one thread sleeps on until another one changed it.
#[derive(Debug, Default)]
pub(crate) struct Futex {
    /// The word.
    pub(crate) word: AtomicU32,
}

impl Futex {
    /// Sleeps while the word is `expected`; may wake for no reason.
    pub(crate) fn wait(&self, expected: u32) {
        let _ = futex::wait(&self.word, futex::Flags::PRIVATE, expected, None);
    }

    /// Wakes one sleeper. The word was changed before.
    pub(crate) fn wake(&self) {
        let _ = futex::wake(&self.word, futex::Flags::PRIVATE, 1);
    }
}

/// A counter in the kernel: what is signalled before a wait is not lost.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> std::io::Result<Event> {
        Ok(Event(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Adds one to the counter. Only a full counter could block, after 2^64 signals without a wait.
    pub(crate) fn signal(&self) {
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes()));
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
