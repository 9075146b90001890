//! One function's queue, and the token that gives the right to touch its device.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};

use crate::access::{Access, Op};
use crate::completion::{Caller, Completions};
use crate::device::{Device, Fault};
use crate::doorbell::Doorbell;
use crate::queue::{AccessQueue, CallerId, Entry};
use crate::sync::{Ordering, fence};

/// How often a caller looks for its answer, or the token, before it sleeps.
const SPINS: u32 = 200;

/// How many accesses a function's queue holds.
const CAPACITY: usize = 256;

/// A function: its queue, its token, its device.
pub struct Endpoint {
    name: String,
    queue: AccessQueue,
    device: Mutex<Box<dyn Device>>,
    completions: Completions,
    bell: Arc<Doorbell>,
    faults: Counter,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint for `device`. `bell` wakes the worker that serves it; `completions` are those of
    /// the machine.
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
            faults: Counter::new(0),
        }
    }

    /// What the function is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many accesses the device refused or failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Carries out `access` after all that was pushed before, and gives the value read (zero for a
    /// write). May sleep while another thread owns the device.
    pub fn call(&self, caller: &mut Caller, access: Access) -> u64 {
        let id = caller.id();
        caller.completion().begin();
        if self.queue.push(Entry { access, waiter: Some(id) }).is_err() {
            return self.help_and_carry_out(access);
        }
        for _ in 0..SPINS {
            if let Some(mut device) = self.device.try_lock()
                && let Some(value) = self.drain_to(&mut **device, Some(id))
            {
                self.release(device);
                return value;
            }
            if let Some(value) = caller.completion().poll() {
                return value;
            }
            std::hint::spin_loop();
        }
        caller.completion().wait()
    }

    /// Queues a write without waiting for it. When the queue is full it becomes a strict access.
    pub fn post(&self, access: Access) {
        if self.queue.push(Entry { access, waiter: None }).is_err() {
            self.help_and_carry_out(access);
            return;
        }
        self.bell.ring();
    }

    /// Carries out all that is queued. Waits for the token.
    pub fn drain(&self) {
        let mut device = self.device.lock();
        self.drain_to(&mut **device, None);
        self.release(device);
    }

    /// Runs `f` on the device after all that is queued, holding the token: for set-up, topology and
    /// reset, never on the access path.
    pub fn with_device<R>(&self, f: impl FnOnce(&mut dyn Device) -> R) -> R {
        let mut device = self.device.lock();
        self.drain_to(&mut **device, None);
        let result = f(&mut **device);
        self.release(device);
        result
    }

    /// Drops what is queued without carrying it out; whoever waits reads all ones.
    pub fn discard(&self) {
        let device = self.device.lock();
        while let Some(entry) = self.queue.pop() {
            self.answer(entry.waiter, entry.access.width.all_ones());
        }
        self.release(device);
    }

    /// Whether accesses wait to be carried out.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    fn help_and_carry_out(&self, access: Access) -> u64 {
        let mut device = self.device.lock();
        for _ in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { break };
            let value = self.carry_out(&mut **device, entry.access);
            self.answer(entry.waiter, value);
        }
        let value = self.carry_out(&mut **device, access);
        self.release(device);
        value
    }

    /// Drains up to the entry of `until` and gives its value, or until the queue is empty.
    fn drain_to(&self, device: &mut dyn Device, until: Option<CallerId>) -> Option<u64> {
        while let Some(entry) = self.queue.pop() {
            let value = self.carry_out(device, entry.access);
            if entry.waiter.is_some() && entry.waiter == until {
                return Some(value);
            }
            self.answer(entry.waiter, value);
        }
        None
    }

    fn answer(&self, waiter: Option<CallerId>, value: u64) {
        if let Some(completion) = waiter.and_then(|id| self.completions.of(id)) {
            completion.complete(value);
        }
    }

    fn carry_out(&self, device: &mut dyn Device, access: Access) -> u64 {
        let ones = access.width.all_ones();
        let done: Result<u64, Fault> = match access.op {
            Op::Read => device.read(access.region, access.offset, access.width),
            Op::Write(value) => device.write(access.region, access.offset, access.width, value).map(|()| 0),
        };
        done.map_or_else(
            |_| {
                self.faults.fetch_add(1, Relaxed);
                ones
            },
            |value| value & ones,
        )
    }

    fn release(&self, device: MutexGuard<'_, Box<dyn Device>>) {
        drop(device);
        fence(Ordering::SeqCst);
        if self.has_work() {
            self.bell.ring();
        }
    }
}
