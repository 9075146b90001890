//! One function's queue, and the token that gives the right to touch its device.
//!
//! # One order
//!
//! The order of a function's accesses is the order of pushes into its queue. Whoever
//! holds the token takes from the front; nobody else takes. A caller that finds the token free does
//! not push at all: it takes the token, carries out all that it finds queued, and then its own access
//! directly. That is the same order. An access that was made before this one (one its maker, or
//! anybody whom the maker told, knows to have been made) is either done or in the queue, since it got
//! there before its maker went on; so it is carried out first. What is pushed while the queue is
//! drained is concurrent with this access, and a concurrent access may come before or after. The
//! same argument covers a full queue: the caller waits for the token and drains as many entries as
//! the queue can hold, which includes all that were in it before.
//!
//! # What the kernel collected
//!
//! A function with a legacy window has a [`Feed`]: writes that its vCPUs made without an exit. Every
//! entry into the endpoint that depends on the order first moves them into the queue, so all of the
//! above holds for them too; that never happens with the feed's lock held during a wait for the
//! token. Only the worker's turn ([`Endpoint::serve`], [`Endpoint::attend`]) leaves them: nobody asks
//! anything there.
//!
//! # What is merged
//!
//! While a queue is drained, posted writes of memory that follow each other upwards are held back and
//! reach the device as one (`run.rs` beside this file), if it wants that
//! ([`Device::merges`]). What somebody waits for, every port and whatever does not continue the run
//! ends it. It also ends with the drain, so the device has seen everything before the token goes, and
//! before the owner's own access.
//!
//! # Who serves what is queued
//!
//! Nothing that was pushed is left lying:
//!
//! * *The owner of the token* releases it, fences, and looks at the queue; if something is there it
//!   rings for the worker.
//! * *A pusher* pushes, fences, and then either takes the token itself, or sees it taken (then that
//!   owner looks after its release), or learns from the doorbell that a worker will come.
//! * *Without a worker*, before it is started and after it stopped, a pusher always waits for the
//!   token and serves the queue itself. So an owner never has to serve more than one queue's length
//!   for others, and nobody sleeps on a promise that nobody made.
//!
//! The two fences make one of "the pusher sees the token free" and "the owner sees the entry" true.
//! An entry is popped once, under the token, and its popper answers it: an answer comes exactly
//! once. `tests/loom_endpoint.rs` tries the orders.
//!
//! # What may wait, and for how long
//!
//! [`Endpoint::call`] waits for the accesses before its own and for the device. [`Endpoint::post`]
//! waits only when the queue is full or no worker is there. Each carries out at most one queue's
//! length of other callers' accesses, and with a feed one queue's length more for each write that
//! found no room. No device is called without the token, and the token is never taken twice by one
//! thread: a device must not use its own endpoint.

use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use crate::access::Access;
use crate::completion::{Caller, Completions};
use crate::device::Device;
use crate::doorbell::Doorbell;
use crate::feed::Feed;
use crate::queue::{AccessQueue, Entry};
use crate::sync::{Mutex, MutexGuard};
use crate::trace::Recorder;

mod run;
mod serve;

use run::Held;
#[cfg(not(loom))]
pub(crate) use serve::Owned;

/// How many accesses a function's queue holds.
const CAPACITY: usize = 256;

/// Who carries accesses out. A read by way of a sleeping worker costs many times one that the vCPU makes itself, as
/// `cargo bench` shows; a push costs a small part of an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Service {
    /// The caller itself, whenever the token is free; also of posted writes.
    Inline,
    /// The worker, always. Without a worker as [`Service::Inline`].
    Uring,
    /// Reads and strict writes the caller, posted writes the worker.
    #[default]
    Adaptive,
}

type Token<'a> = MutexGuard<'a, Held>;

/// A function: its queue, its token, its device.
pub struct Endpoint {
    name: String,
    queue: AccessQueue,
    device: Mutex<Held>,
    feed: OnceLock<Arc<Feed>>,
    completions: Completions,
    bell: Arc<Doorbell>,
    service: Service,
    faults: Counter,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint for `device`, served [`Service::Adaptive`] through a queue of 256 accesses. `bell`
    /// wakes the worker that serves it; `completions` are those of the machine.
    pub fn new(
        name: impl Into<String>,
        device: Box<dyn Device>,
        completions: Completions,
        bell: Arc<Doorbell>,
    ) -> Endpoint {
        Endpoint {
            name: name.into(),
            queue: AccessQueue::new(CAPACITY),
            device: Mutex::new(Held::new(device)),
            feed: OnceLock::new(),
            completions,
            bell,
            service: Service::default(),
            faults: Counter::new(0),
        }
    }

    /// The same endpoint, served in this way.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Endpoint {
        self.service = service;
        self
    }

    /// The same endpoint with room for `capacity` queued accesses, at least one.
    #[must_use]
    pub fn with_capacity(mut self, capacity: usize) -> Endpoint {
        self.queue = AccessQueue::new(capacity);
        self
    }

    /// From now on every access comes after what `feed` has collected by then: called once, before the
    /// vCPUs run, for a function with a legacy window. A second feed is not taken.
    pub fn feed_from(&self, feed: Arc<Feed>) {
        if self.feed.set(feed).is_err() {
            tracing::error!(endpoint = self.name(), "a function has one feed only");
        }
    }

    /// From now on what is carried out for nobody who waits is recorded. Once, before the vCPUs run;
    /// waits for the token.
    pub fn record(&self, recorder: Recorder) {
        self.device.lock().recorder = Some(recorder);
    }

    /// What the function is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many accesses the device refused or failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Whether accesses wait to be carried out.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Carries out `access` after all that was pushed or collected before, and gives the value read
    /// (zero for a write). May sleep while another thread owns the device.
    #[inline]
    pub fn call(&self, caller: &mut Caller, access: Access) -> u64 {
        if let Some(stages) = &mut caller.stages {
            stages.push();
        }
        self.collect();
        if self.service != Service::Uring
            && let Some(device) = self.device.try_lock()
        {
            return self.drain_and_carry_out(device, Some(caller), access);
        }
        self.call_queued(caller, access)
    }

    /// As [`Endpoint::call`] for a write that may need more than to be carried out: where it changes the map
    /// ([`Device::changes_map`]), or the device's window does not admit it in its present mode
    /// ([`crate::window::Window::admits`]), nothing is done, and this is false. A device without a window admits
    /// all. Waits for the token.
    pub fn call_admitted(&self, caller: &mut Caller, access: Access) -> bool {
        if let Some(stages) = &mut caller.stages {
            stages.push();
        }
        self.collect();
        let mut device = self.device.lock();
        self.drain_queue(&mut device);
        let admitted = !device.device.changes_map(access)
            && device.device.window().is_none_or(|window| window.admits(access));
        if admitted {
            self.carry_out_timed(&mut device, Some(caller), access);
        }
        self.release(device);
        admitted
    }

    /// Queues a write without waiting for it. When the queue is full, or nobody else would serve it,
    /// it is carried out before this returns; so it is behind a ring of collected writes, which cost
    /// less to carry out, merged, than to wake the worker for.
    pub fn post(&self, access: Access) {
        let collected = self.collect();
        if (self.service == Service::Inline || self.service == Service::Adaptive && collected)
            && let Some(device) = self.device.try_lock()
        {
            self.drain_and_carry_out(device, None, access);
        } else if self.queue.push(Entry::posted(access)).is_err() {
            self.drain_and_carry_out(self.device.lock(), None, access);
        } else if !self.bell.ring() {
            self.drain_queued();
        }
    }

    /// Carries out all that is queued or collected. Waits for the token.
    pub fn drain(&self) {
        self.collect();
        self.drain_queued();
    }

    /// Runs `f` on the device after all that is queued or collected, holding the token: for set-up,
    /// topology, reset and a window's clock, never on the access path. Waits for the token, so neither
    /// the device itself nor a [`crate::worker::Task`] may call this; a task has
    /// [`Endpoint::try_with_device`].
    pub fn with_device<R>(&self, f: impl FnOnce(&mut dyn Device) -> R) -> R {
        self.collect();
        let mut device = self.device.lock();
        self.drain_queue(&mut device);
        let result = f(&mut *device.device);
        self.release(device);
        result
    }

    /// As [`Endpoint::with_device`] if the token is free, else gives `f` back without waiting.
    ///
    /// # Errors
    /// `f` itself: another thread owns the device.
    pub fn try_with_device<R, F: FnOnce(&mut dyn Device) -> R>(&self, f: F) -> Result<R, F> {
        let Some(mut device) = self.device.try_lock() else {
            return Err(f);
        };
        self.collect_owned(&mut device);
        self.drain_queue(&mut device);
        let result = f(&mut *device.device);
        self.release(device);
        Ok(result)
    }

    /// Drops what is queued or collected without carrying it out; whoever waits reads all ones. Waits
    /// for the token.
    pub fn discard(&self) {
        let device = self.device.lock();
        self.collect_and(|| self.discard_queue());
        self.discard_queue();
        self.release(device);
    }

    /// The worker's turn: carries out what is queued, and collects nothing, if the token is free; tells
    /// whether it did anything. Does not ring; the worker looks again before it sleeps.
    pub fn serve(&self) -> bool {
        if !self.has_work() {
            return false;
        }
        let Some(mut device) = self.device.try_lock() else {
            return false;
        };
        self.drain_queue(&mut device)
    }

    /// Whether the worker must not sleep: something is queued, and no owner will look after it. To
    /// be asked after [`Doorbell::sleep`].
    pub fn needs_service(&self) -> bool {
        self.has_work() && !self.device.is_locked()
    }

    /// Calls [`Device::attend`] if the token is free, and tells whether it was.
    pub fn attend(&self) -> bool {
        let Some(mut device) = self.device.try_lock() else {
            return false;
        };
        device.device.attend();
        self.release(device);
        true
    }
}
