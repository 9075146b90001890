//! One function's queue, and the token that gives the right to touch its device.
//!
//! # One order
//!
//! The order of a function's accesses is the order of pushes into its queue (design rule 1). Whoever
//! holds the token takes from the front; nobody else takes. A caller that finds the token free does
//! not push at all: it takes the token, carries out all that it finds queued, and then its own access
//! directly. That is the same order. An access that was made before this one (one its maker, or
//! anybody whom the maker told, knows to have been made) is either done or in the queue, since it got
//! there before its maker went on; so it is carried out first. What is pushed while the queue is
//! drained is concurrent with this access, and a concurrent access may come before or after. The
//! same argument covers a full queue: the caller waits for the token and drains as many entries as
//! the queue can hold, which includes all that were in it before.
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
//! length of other callers' accesses. No device is called without the token, and the token is never
//! taken twice by one thread: a device must not use its own endpoint.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering::Relaxed;

use crate::access::{Access, Op};
use crate::completion::{Caller, Completion, Completions};
use crate::device::{Device, Fault};
use crate::doorbell::Doorbell;
use crate::queue::{AccessQueue, CallerId, Entry};
use crate::stages::now;
use crate::sync::{Mutex, MutexGuard, Ordering, SPINS, fence, spin_loop};

/// How many accesses a function's queue holds.
const CAPACITY: usize = 256;

/// Who carries accesses out. The measured reasons are in the design: a read by way of a sleeping
/// worker costs 10 to 150 times one that the vCPU makes itself.
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

type Token<'a> = MutexGuard<'a, Box<dyn Device>>;

/// A function: its queue, its token, its device.
pub struct Endpoint {
    name: String,
    queue: AccessQueue,
    device: Mutex<Box<dyn Device>>,
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
            device: Mutex::new(device),
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

    /// Carries out `access` after all that was pushed before, and gives the value read (zero for a
    /// write). May sleep while another thread owns the device.
    pub fn call(&self, caller: &mut Caller, access: Access) -> u64 {
        if let Some(stages) = &mut caller.stages {
            stages.push();
        }
        if self.service != Service::Uring
            && let Some(device) = self.device.try_lock()
        {
            return self.drain_and_carry_out(device, Some(caller), access);
        }
        self.call_queued(caller, access)
    }

    /// Queues a write without waiting for it. When the queue is full, or nobody else would serve it,
    /// it is carried out before this returns.
    pub fn post(&self, access: Access) {
        if self.service == Service::Inline
            && let Some(device) = self.device.try_lock()
        {
            self.drain_and_carry_out(device, None, access);
        } else if self.queue.push(Entry { access, waiter: None }).is_err() {
            self.drain_and_carry_out(self.device.lock(), None, access);
        } else if !self.bell.ring() {
            self.drain();
        }
    }

    /// Carries out all that is queued. Waits for the token.
    pub fn drain(&self) {
        let mut device = self.device.lock();
        self.drain_queue(&mut **device);
        self.release(device);
    }

    /// Runs `f` on the device after all that is queued, holding the token: for set-up, topology and
    /// reset, never on the access path. Waits for the token, so neither the device itself nor a
    /// [`crate::worker::Task`] may call this; a task has [`Endpoint::try_with_device`].
    pub fn with_device<R>(&self, f: impl FnOnce(&mut dyn Device) -> R) -> R {
        let mut device = self.device.lock();
        self.drain_queue(&mut **device);
        let result = f(&mut **device);
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
        self.drain_queue(&mut **device);
        let result = f(&mut **device);
        self.release(device);
        Ok(result)
    }

    /// Drops what is queued without carrying it out; whoever waits reads all ones. Waits for the token.
    pub fn discard(&self) {
        let device = self.device.lock();
        for _ in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { break };
            if let Some(completion) = self.completion_of(&entry) {
                completion.complete(entry.access.width.all_ones());
            }
        }
        self.release(device);
    }

    /// The worker's turn: carries out what is queued if the token is free, and tells whether it did
    /// anything. Does not ring; the worker looks again before it sleeps.
    pub fn serve(&self) -> bool {
        if !self.has_work() {
            return false;
        }
        let Some(mut device) = self.device.try_lock() else {
            return false;
        };
        self.drain_queue(&mut **device)
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
        device.attend();
        self.release(device);
        true
    }

    /// The token, if it is free.
    #[cfg(not(loom))]
    pub(crate) fn try_own(&self) -> Option<Owned<'_>> {
        Some(Owned { device: self.device.try_lock()?, endpoint: self })
    }

    fn call_queued(&self, caller: &mut Caller, access: Access) -> u64 {
        let id = caller.id();
        let timed = caller.stages.is_some();
        caller.completion().set_timed(timed);
        caller.completion().begin();
        if self.queue.push(Entry { access, waiter: Some(id) }).is_err() {
            return self.drain_and_carry_out(self.device.lock(), Some(caller), access);
        }
        let value = self.answer_to(caller.completion(), id);
        if timed {
            let (start, end) = caller.completion().times();
            if let Some(stages) = &mut caller.stages {
                stages.carried_out(start, end);
            }
        }
        value
    }

    /// Waits for the answer to the entry that `id` has just pushed, or gets it.
    fn answer_to(&self, completion: &Completion, id: CallerId) -> u64 {
        let promised = if self.service == Service::Uring {
            self.bell.ring()
        } else {
            fence(Ordering::SeqCst);
            self.bell.is_attended()
        };
        for _ in 0..SPINS {
            if let Some(value) = completion.poll() {
                return value;
            }
            if (self.service != Service::Uring || !promised)
                && !self.device.is_locked()
                && let Some(device) = self.device.try_lock()
            {
                return self.own_answer(device, completion, id);
            }
            spin_loop();
        }
        if promised { completion.wait() } else { self.own_answer(self.device.lock(), completion, id) }
    }

    /// Drains up to the entry of `id`. If it is not there any more, a former owner has answered it.
    fn own_answer(&self, mut device: Token<'_>, completion: &Completion, id: CallerId) -> u64 {
        let mut own = None;
        for _ in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { break };
            self.serve_entry(&mut **device, &entry);
            if entry.waiter == Some(id) {
                own = completion.poll();
                break;
            }
        }
        self.release(device);
        own.unwrap_or_else(|| completion.wait())
    }

    /// Carries out what is queued, then `access`, which was not pushed. See the module's page.
    fn drain_and_carry_out(&self, mut device: Token<'_>, caller: Option<&mut Caller>, access: Access) -> u64 {
        self.drain_queue(&mut **device);
        let value = match caller.and_then(|caller| caller.stages.as_mut()) {
            None => self.carry_out(&mut **device, access),
            Some(stages) => {
                let start = now();
                let value = self.carry_out(&mut **device, access);
                stages.carried_out(start, now());
                value
            }
        };
        self.release(device);
        value
    }

    /// Carries out what was queued when this was called, and perhaps some of what came after: at
    /// most one queue's length. Tells whether there was anything.
    fn drain_queue(&self, device: &mut dyn Device) -> bool {
        for served in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { return served > 0 };
            self.serve_entry(device, &entry);
        }
        true
    }

    fn serve_entry(&self, device: &mut dyn Device, entry: &Entry) {
        let Some(completion) = self.completion_of(entry) else {
            self.carry_out(device, entry.access);
            return;
        };
        if completion.is_timed() {
            let start = now();
            let value = self.carry_out(device, entry.access);
            completion.set_times(start, now());
            completion.complete(value);
        } else {
            completion.complete(self.carry_out(device, entry.access));
        }
    }

    fn completion_of(&self, entry: &Entry) -> Option<&Completion> {
        self.completions.of(entry.waiter?)
    }

    fn carry_out(&self, device: &mut dyn Device, access: Access) -> u64 {
        let ones = access.width.all_ones();
        let done: Result<u64, Fault> = match access.op {
            Op::Read => device.read(access.region, access.offset, access.width),
            Op::Write(value) => device.write(access.region, access.offset, access.width, value).map(|()| 0),
        };
        match done {
            Ok(value) => value & ones,
            Err(_) => {
                self.count_fault();
                if access.op == Op::Read { ones } else { 0 }
            }
        }
    }

    fn count_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    fn release(&self, device: Token<'_>) {
        drop(device);
        fence(Ordering::SeqCst);
        // A new owner will look in its turn.
        if self.has_work() && !self.device.is_locked() {
            self.bell.ring();
        }
    }
}

/// The token in the hands of the worker, which may keep it while the kernel carries a batch out.
#[cfg(not(loom))]
pub(crate) struct Owned<'a> {
    /// The device; released before `endpoint` is looked at.
    pub(crate) device: Token<'a>,
    endpoint: &'a Endpoint,
}

#[cfg(not(loom))]
impl Owned<'_> {
    /// The oldest queued access.
    pub(crate) fn pop(&self) -> Option<Entry> {
        self.endpoint.queue.pop()
    }

    /// Carries out an entry, and answers it if somebody waits.
    pub(crate) fn serve(&mut self, entry: &Entry) {
        self.endpoint.serve_entry(&mut **self.device, entry);
    }

    /// Counts a write that the kernel failed.
    pub(crate) fn count_fault(&self) {
        self.endpoint.count_fault();
    }

    /// How many entries one turn may take.
    pub(crate) fn capacity(&self) -> usize {
        self.endpoint.queue.capacity()
    }
}
