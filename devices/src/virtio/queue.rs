//! The virtqueue that the registers set up and the task works through.
//!
//! One short lock guards it, held for a look at the rings or a copy to or from guest memory, never
//! while disk or socket is waited for. The registers take it to start and to reset the queue, and so
//! a reset that has returned is final: what is still under way belongs to an earlier *generation*, and
//! finds that out before it touches guest memory. A kick takes no lock.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::interrupt::{self, Interrupt};

/// The largest queue, in descriptors.
pub(super) const SIZE: u16 = 256;

/// The most buffers of one chain, those of an indirect table included.
const BUFFERS: usize = 256;

/// Where the driver has put the rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rings {
    /// Descriptors, a power of two.
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// The guest broke the rules of the queue. The device stands still until it is reset.
#[derive(Debug)]
pub(super) struct Broken;

/// The queue was reset meanwhile: the work is void.
#[derive(Debug)]
pub(super) struct Stale;

/// Which life of the queue a piece of work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

struct State {
    queue: Option<Queue>,
    features: u64,
    generation: Generation,
}

/// The shared queue.
pub(super) struct SharedQueue {
    state: Mutex<State>,
    /// Asks the task to look at the rings.
    kick: Notify,
    /// Kicks too, without an access; none if the host had no descriptor left.
    doorbell: Option<Arc<OwnedFd>>,
    /// The device needs a reset (section 2.1.2).
    broken: AtomicBool,
    /// The COMMAND register lets the function read and write memory.
    master: AtomicBool,
    pub(super) interrupt: Interrupt,
    memory: Arc<GuestMemoryMmap>,
}

impl SharedQueue {
    pub(super) fn new(memory: Arc<GuestMemoryMmap>, interrupt: Interrupt) -> SharedQueue {
        SharedQueue {
            state: Mutex::new(State { queue: None, features: 0, generation: Generation(0) }),
            kick: Notify::new(),
            doorbell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .inspect_err(|error| tracing::warn!(%error, "a virtio queue has no eventfd: kicks trap"))
                .ok()
                .map(Arc::new),
            broken: AtomicBool::new(false),
            master: AtomicBool::new(false),
            interrupt,
            memory,
        }
    }

    /// The driver is ready: `features` are agreed on. With rings that are not in RAM the device breaks.
    pub(super) fn start(&self, rings: Rings, features: u64) {
        let mut state = self.state.lock();
        state.features = features;
        match self.check(rings, features) {
            Ok(queue) => state.queue = Some(queue),
            Err(Broken) => self.fail(&mut state),
        }
        drop(state);
        self.kick();
    }

    /// Takes the queue away. When it returns nothing of the device touches guest memory any more.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.queue = None;
        state.generation.0 += 1;
        self.broken.store(false, Ordering::SeqCst);
        self.interrupt.acknowledge();
        drop(state);
        self.kick.notify_one();
    }

    /// The driver has made buffers available. Never blocks.
    pub(super) fn kick(&self) {
        if self.master.load(Ordering::Relaxed) {
            self.kick.notify_one();
        }
    }

    /// The eventfd that the kernel signals in place of the driver's kick. The task watches it.
    pub(super) fn doorbell(&self) -> Option<&Arc<OwnedFd>> {
        self.doorbell.as_ref()
    }

    pub(super) fn set_master(&self, master: bool) {
        if !self.master.swap(master, Ordering::SeqCst) && master {
            self.kick();
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Waits for a kick or a reset.
    pub(super) async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// Has the task look again.
    pub(super) fn look_again(&self) {
        self.kick.notify_one();
    }

    pub(super) fn generation(&self) -> Generation {
        self.state.lock().generation
    }

    /// Whether `feature`, the number of a bit, is agreed on.
    pub(super) fn has_feature(&self, feature: u32) -> bool {
        self.state.lock().features >> feature & 1 == 1
    }

    /// Takes the next chain that the driver made available.
    pub(super) fn pop(&self, generation: Generation) -> Option<Chain> {
        let mut state = self.state_of(generation).ok()?;
        if !self.master.load(Ordering::SeqCst) {
            return None;
        }
        let queue = state.queue.as_mut()?;
        match next_chain(queue, &self.memory) {
            Ok(chain) => chain,
            Err(Broken) => {
                self.fail(&mut state);
                None
            }
        }
    }

    /// Reads guest memory, or writes it, unless the queue was reset.
    pub(super) fn with_memory<R>(
        &self,
        generation: Generation,
        f: impl FnOnce(&GuestMemoryMmap) -> R,
    ) -> Result<R, Stale> {
        let _state = self.state_of(generation)?;
        Ok(f(&self.memory))
    }

    /// Gives a chain back to the driver with `written` bytes in it, and interrupts if it wants that.
    pub(super) fn complete(&self, generation: Generation, head: u16, written: u32) {
        let Ok(mut state) = self.state_of(generation) else { return };
        let event_index = state.features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        let Some(queue) = state.queue.as_mut() else { return };
        let done = queue.add_used(&*self.memory, head, written);
        let wanted = done.and_then(|()| {
            if event_index { queue.needs_notification(&*self.memory) } else { self.is_interrupted(queue) }
        });
        match wanted {
            Ok(true) => self.interrupt.raise(interrupt::QUEUE),
            Ok(false) => {}
            Err(_) => self.fail(&mut state),
        }
    }

    /// Stops the device for the driver's fault, and tells it.
    pub(super) fn break_down(&self, generation: Generation) {
        if let Ok(mut state) = self.state_of(generation) {
            self.fail(&mut state);
        }
    }

    fn fail(&self, state: &mut State) {
        state.queue = None;
        self.broken.store(true, Ordering::SeqCst);
        self.interrupt.raise(interrupt::CONFIG);
    }

    fn state_of(&self, generation: Generation) -> Result<MutexGuard<'_, State>, Stale> {
        let state = self.state.lock();
        if state.generation == generation { Ok(state) } else { Err(Stale) }
    }

    /// Without event indexes: whether the driver wants to be interrupted.
    fn is_interrupted(&self, queue: &Queue) -> Result<bool, virtio_queue::Error> {
        // The driver looks at the used ring after it has set the flag.
        fence(Ordering::SeqCst);
        let flags: u16 = self
            .memory
            .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// A queue on rings that lie in RAM and are aligned (section 2.7).
    fn check(&self, rings: Rings, features: u64) -> Result<Queue, Broken> {
        let mut queue = Queue::new(SIZE).map_err(|_| Broken)?;
        queue.try_set_size(rings.size).map_err(|_| Broken)?;
        queue.try_set_desc_table_address(GuestAddress(rings.descriptors)).map_err(|_| Broken)?;
        queue.try_set_avail_ring_address(GuestAddress(rings.available)).map_err(|_| Broken)?;
        queue.try_set_used_ring_address(GuestAddress(rings.used)).map_err(|_| Broken)?;
        let size = usize::from(rings.size);
        let in_ram = |at, bytes| self.memory.check_range(GuestAddress(at), bytes);
        if !in_ram(rings.descriptors, 16 * size)
            || !in_ram(rings.available, 6 + 2 * size)
            || !in_ram(rings.used, 6 + 8 * size)
        {
            return Err(Broken);
        }
        queue.set_event_idx(features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1);
        queue.set_ready(true);
        Ok(queue)
    }
}

/// The next chain, or none and the driver asked to kick for more.
fn next_chain(queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Broken> {
    for _ in 0..2 {
        queue.disable_notification(memory).map_err(|_| Broken)?;
        let next = queue.iter(memory).map_err(|_| Broken)?.next();
        if let Some(chain) = next {
            return if chain.head_index() < queue.size() { Chain::new(chain).map(Some) } else { Err(Broken) };
        }
        // More may have come before the driver saw that it should kick.
        if !queue.enable_notification(memory).map_err(|_| Broken)? {
            return Ok(None);
        }
    }
    // The index moved and there was nothing: the driver takes back what it gave.
    Err(Broken)
}

/// A part of a chain: buffers in guest memory, one after the other.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    list: Vec<(GuestAddress, u32)>,
}

/// A buffer is not in RAM, or the buffers are too short.
#[derive(Debug)]
pub(super) struct NotRam;

impl Buffers {
    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.list.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// Copies `to.len()` bytes from byte `skip` on out of guest memory.
    pub(super) fn read(&self, memory: &GuestMemoryMmap, skip: u64, to: &mut [u8]) -> Result<(), NotRam> {
        let mut done = 0;
        for (at, len) in self.pieces(skip, to.len()) {
            let piece = to.get_mut(done..done + len).ok_or(NotRam)?;
            memory.read_slice(piece, at).map_err(|_| NotRam)?;
            done += len;
        }
        if done == to.len() { Ok(()) } else { Err(NotRam) }
    }

    /// Copies `from` into guest memory, from byte `skip` of the buffers on.
    pub(super) fn write(&self, memory: &GuestMemoryMmap, skip: u64, from: &[u8]) -> Result<(), NotRam> {
        let mut done = 0;
        for (at, len) in self.pieces(skip, from.len()) {
            let piece = from.get(done..done + len).ok_or(NotRam)?;
            memory.write_slice(piece, at).map_err(|_| NotRam)?;
            done += len;
        }
        if done == from.len() { Ok(()) } else { Err(NotRam) }
    }

    /// Where `count` bytes from byte `skip` on lie. Stops before an address that does not exist.
    fn pieces(&self, skip: u64, count: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
        let (mut skip, mut left) = (skip, count);
        let pieces = self.list.iter().map(move |&(at, len)| {
            let passed = skip.min(len.into());
            skip -= passed;
            let rest = usize::try_from(u64::from(len) - passed).unwrap_or(0).min(left);
            left -= rest;
            (at, passed, rest)
        });
        let wanted = pieces.filter(|(_, _, rest)| *rest > 0);
        wanted.map_while(|(at, passed, rest)| Some((at.checked_add(passed)?, rest)))
    }
}

/// A chain of buffers: what the driver gives, then room for what it gets.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: u16,
    pub(super) readable: Buffers,
    pub(super) writable: Buffers,
}

impl Chain {
    /// Collects the buffers of a chain. It must end, not be too long, and have all readable buffers
    /// first (section 2.7.4.2).
    fn new(chain: DescriptorChain<&GuestMemoryMmap>) -> Result<Chain, Broken> {
        let mut parts =
            Chain { head: chain.head_index(), readable: Buffers::default(), writable: Buffers::default() };
        let mut ended = false;
        for (count, descriptor) in chain.enumerate() {
            let buffer = (descriptor.addr(), descriptor.len());
            if descriptor.is_write_only() {
                parts.writable.list.push(buffer);
            } else if parts.writable.list.is_empty() {
                parts.readable.list.push(buffer);
            } else {
                return Err(Broken);
            }
            if count >= BUFFERS {
                return Err(Broken);
            }
            ended = !descriptor.has_next();
        }
        if ended { Ok(parts) } else { Err(Broken) }
    }
}
