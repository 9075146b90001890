//! How the owner of the token serves the queue, and how a caller comes by its answer.

use std::sync::atomic::Ordering::Relaxed;

use super::run::Held;
use super::{Endpoint, Service, Token};
#[cfg(not(loom))]
use crate::access::Region;
use crate::access::{Access, Op};
use crate::completion::{Caller, Completion};
use crate::device::Fault;
use crate::feed::RING;
#[cfg(not(loom))]
use crate::file::FileRegion;
use crate::queue::{CallerId, Entry};
use crate::stages::now;
use crate::sync::{Ordering, SPINS, fence, spin_loop};

impl Endpoint {
    /// Pushes what the kernel has collected, before anything else is asked of this function. May wait
    /// for the token when the queue is full. An endpoint without a feed pays a branch for this. Tells
    /// whether there was anything.
    #[inline]
    pub(super) fn collect(&self) -> bool {
        let any = self.feed.get().is_some_and(|feed| !feed.is_idle());
        if any {
            self.collect_from_ring();
        }
        any
    }

    #[cold]
    fn collect_from_ring(&self) {
        self.collect_and(|| self.drain_queued());
    }

    /// As [`Endpoint::collect`] for the owner of the token; does not wait.
    pub(super) fn collect_owned(&self, held: &mut Held) {
        self.collect_and(|| {
            self.drain_queue(held);
        });
    }

    /// Pushes what the kernel has collected, and calls `make_room` whenever the queue is full. That
    /// ends: see [`crate::feed`].
    pub(super) fn collect_and(&self, mut make_room: impl FnMut()) {
        let Some(feed) = self.feed.get() else { return };
        let mut budget = RING;
        let push = |access| self.queue.push(Entry { collected: true, ..Entry::posted(access) }).is_ok();
        while !feed.is_idle() && !feed.collect(&mut budget, push) {
            make_room();
        }
    }

    /// Carries out what is queued. Waits for the token.
    pub(super) fn drain_queued(&self) {
        let mut device = self.device.lock();
        self.drain_queue(&mut device);
        self.release(device);
    }

    /// Answers up to one queue's length of entries without carrying them out. Only the owner of the
    /// token calls this.
    pub(super) fn discard_queue(&self) {
        for _ in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { break };
            if let Some(completion) = self.completion_of(&entry) {
                completion.complete(entry.access.width.all_ones());
            }
        }
    }

    pub(super) fn call_queued(&self, caller: &mut Caller, access: Access) -> u64 {
        let id = caller.id();
        let timed = caller.stages.is_some();
        caller.completion().set_timed(timed);
        caller.completion().begin();
        if self.queue.push(Entry { waiter: Some(id), ..Entry::posted(access) }).is_err() {
            return self.drain_and_carry_out(self.device.lock(), Some(caller), access);
        }
        let value = self.answer_to(caller.completion(), id);
        if timed {
            let (start, end) = caller.completion().times();
            if let Some(stages) = &mut caller.stages {
                stages.answered(start, end);
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
            self.serve_entry(&mut device, &entry);
            if entry.waiter == Some(id) {
                own = completion.poll();
                break;
            }
        }
        self.finish_run(&mut device);
        self.release(device);
        own.unwrap_or_else(|| completion.wait())
    }

    /// Carries out what is queued, then `access`, which was not pushed. See the module's page.
    #[inline]
    pub(super) fn drain_and_carry_out(
        &self,
        mut device: Token<'_>,
        caller: Option<&mut Caller>,
        access: Access,
    ) -> u64 {
        self.drain_queue(&mut device);
        let value = self.carry_out_timed(&mut device, caller, access);
        self.release(device);
        value
    }

    /// Carries out a write for which nobody waits.
    fn carry_out_posted(&self, held: &mut Held, entry: &Entry) {
        if held.recorder.is_none() {
            self.carry_out(held, entry.access);
            return;
        }
        let start = now();
        held.under_way(Some(start));
        self.carry_out(held, entry.access);
        held.note(entry, start, Some(now()));
        held.under_way(None);
    }

    /// Carries out an access of the caller's own; without a caller, a write that was not even queued.
    #[inline]
    pub(super) fn carry_out_timed(
        &self,
        held: &mut Held,
        caller: Option<&mut Caller>,
        access: Access,
    ) -> u64 {
        let Some(caller) = caller else {
            self.carry_out_posted(held, &Entry::posted(access));
            return 0;
        };
        match &mut caller.stages {
            None => self.carry_out(held, access),
            Some(stages) => {
                let start = now();
                let value = self.carry_out(held, access);
                stages.carried_out(start, now());
                value
            }
        }
    }

    /// Carries out what was queued when this was called, and perhaps some of what came after: at
    /// most one queue's length. Tells whether there was anything.
    #[inline]
    pub(super) fn drain_queue(&self, held: &mut Held) -> bool {
        !self.queue.is_empty() && self.drain_some(held)
    }

    fn drain_some(&self, held: &mut Held) -> bool {
        let mut any = false;
        for _ in 0..self.queue.capacity() {
            let Some(entry) = self.queue.pop() else { break };
            any = true;
            self.serve_entry(held, &entry);
        }
        self.finish_run(held);
        any
    }

    /// Carries out one entry, or holds it back for the run that it belongs to. Who serves the last
    /// one calls [`Endpoint::finish_run`].
    fn serve_entry(&self, held: &mut Held, entry: &Entry) {
        if held.extend(entry) {
            return;
        }
        self.finish_run(held);
        if held.begin(entry) {
            return;
        }
        let Some(completion) = self.completion_of(entry) else {
            self.carry_out_posted(held, entry);
            return;
        };
        if completion.is_timed() {
            let start = now();
            let value = self.carry_out(held, entry.access);
            completion.set_times(start, now());
            completion.complete(value);
        } else {
            completion.complete(self.carry_out(held, entry.access));
        }
    }

    fn finish_run(&self, held: &mut Held) {
        if held.finish().is_err() {
            self.count_fault();
        }
    }

    fn completion_of(&self, entry: &Entry) -> Option<&Completion> {
        self.completions.of(entry.waiter?)
    }

    #[inline]
    fn carry_out(&self, held: &mut Held, access: Access) -> u64 {
        let device = &mut *held.device;
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

    #[inline]
    pub(super) fn release(&self, device: Token<'_>) {
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
    device: Token<'a>,
    endpoint: &'a Endpoint,
}

#[cfg(not(loom))]
impl Endpoint {
    /// The token, if it is free.
    pub(crate) fn try_own(&self) -> Option<Owned<'_>> {
        Some(Owned { device: self.device.try_lock()?, endpoint: self })
    }
}

#[cfg(not(loom))]
impl Owned<'_> {
    /// The oldest queued access.
    pub(crate) fn pop(&self) -> Option<Entry> {
        self.endpoint.queue.pop()
    }

    /// Holds an entry back if it continues the run of writes that the device merges.
    pub(crate) fn extend(&mut self, entry: &Entry) -> bool {
        self.device.extend(entry)
    }

    /// Carries out an entry, and answers it if somebody waits; or begins a run with it.
    pub(crate) fn serve(&mut self, entry: &Entry) {
        self.endpoint.serve_entry(&mut self.device, entry);
    }

    /// Ends the run: before anything that [`Owned::serve`] does not see, and before the token goes.
    pub(crate) fn finish_run(&mut self) {
        self.endpoint.finish_run(&mut self.device);
    }

    /// The entry goes to the kernel with a batch.
    pub(crate) fn note(&mut self, entry: &Entry) {
        self.device.note_held(entry);
    }

    /// See [`crate::Device::file`].
    pub(crate) fn file(&self, region: Region) -> Option<&FileRegion> {
        self.device.device.file(region)
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
