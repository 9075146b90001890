//! Waking the worker, at most once per burst.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::sync::{AtomicBool, Ordering, fence};

/// An eventfd and a flag that says whether anybody sleeps on it.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Doorbell {
    /// A new doorbell, nobody asleep.
    ///
    /// # Errors
    /// The kernel has no eventfd to give.
    pub fn new() -> std::io::Result<Doorbell> {
        Ok(Doorbell { asleep: AtomicBool::new(false), fd: eventfd(0, EventfdFlags::CLOEXEC)? })
    }

    /// Called after a push: wakes the worker if it sleeps. One system call per burst.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// The worker is about to sleep: to be followed by a last look at every queue.
    pub fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
