//! Waking the worker, at most once per burst.
//!
//! A doorbell is a word that says what its worker does, and an event that the worker sleeps on. Who
//! pushed an access rings; that costs a fence and a load while the worker is awake, and one system
//! call when it sleeps, after which it counts as awake again.
//!
//! **No wake-up is lost.** A pusher pushes, fences, reads the word. The worker writes [`sleep`] into
//! the word, fences, looks at the queues a last time. Whichever fence comes first in their single
//! order, either the pusher reads that the worker sleeps, or the worker sees what was pushed. The
//! same holds for [`leave`]: either the pusher learns that nobody serves the queue any more, or the
//! worker's last drain takes what was pushed.
//!
//! [`sleep`]: Doorbell::sleep
//! [`leave`]: Doorbell::leave

#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};

use crate::sync::{AtomicU32, Event, Ordering, fence};

/// No worker serves this bell: before one is started and after it stopped.
const ABSENT: u32 = 0;
/// The worker looks at its queues.
const AWAKE: u32 = 1;
/// The worker sleeps on the event, or is about to.
const ASLEEP: u32 = 2;

/// How pushers reach one worker.
#[derive(Debug)]
pub struct Doorbell {
    worker: AtomicU32,
    event: Event,
}

impl Doorbell {
    /// A new doorbell that nobody attends to yet.
    ///
    /// # Errors
    /// The kernel has no eventfd to give.
    pub fn new() -> std::io::Result<Doorbell> {
        Ok(Doorbell { worker: AtomicU32::new(ABSENT), event: Event::new()? })
    }

    /// Called after a push: wakes the worker if it sleeps. True promises that a worker will look at
    /// its queues after this; false means that there is none, and the caller must see to its access
    /// itself.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let mut seen = self.worker.load(Ordering::Relaxed);
        while seen == ASLEEP {
            match self.worker.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    self.event.signal();
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        seen == AWAKE
    }

    /// Whether a worker will look at what was pushed before the last fence of this thread.
    pub fn is_attended(&self) -> bool {
        self.worker.load(Ordering::Relaxed) != ABSENT
    }

    /// Wakes the worker whatever it does: to make it notice something other than a push.
    pub fn wake(&self) {
        self.event.signal();
    }

    /// The worker is about to sleep on the event: to be followed by a last look at every queue.
    pub fn sleep(&self) {
        self.turn_to(ASLEEP);
        fence(Ordering::SeqCst);
    }

    /// The worker is there, and awake.
    pub fn awake(&self) {
        self.turn_to(AWAKE);
    }

    /// The worker goes for good: to be followed by a last drain of every queue.
    pub fn leave(&self) {
        self.turn_to(ABSENT);
        fence(Ordering::SeqCst);
    }

    /// Always by exchange: a plain store could come, in the word's order, before a pusher's exchange
    /// that happened earlier.
    fn turn_to(&self, state: u32) {
        self.worker.swap(state, Ordering::AcqRel);
    }

    /// Sleeps until rung.
    #[cfg(loom)]
    pub fn wait(&self) {
        self.event.wait();
    }
}

/// The event as an eventfd: readable once somebody rang.
#[cfg(not(loom))]
impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn rung(bell: &Doorbell) -> bool {
        let mut fds = [rustix::event::PollFd::new(bell, rustix::event::PollFlags::IN)];
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&none)).unwrap() == 1
    }

    #[test]
    fn only_a_sleeping_worker_costs_a_system_call() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.ring(), "nobody is there to promise anything");
        bell.awake();
        assert!(bell.ring());
        assert!(!rung(&bell));
        bell.sleep();
        assert!(bell.ring());
        assert!(rung(&bell));
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&bell, &mut count).unwrap(), 8);
        assert!(bell.ring(), "a burst wakes once");
        assert!(!rung(&bell));
        bell.leave();
        assert!(!bell.ring());
    }
}
