//! The queue of one function: bounded, many producers, drained by whoever owns the endpoint's token.
//!
//! It is `crossbeam`'s `ArrayQueue`, Dmitry Vyukov's bounded queue. That is lock-free in the trade's
//! loose sense: a producer that is preempted between claiming its place and filling it holds up the
//! drain until it runs again. Any queue with one order for all producers has to wait for the missing
//! entry, and one order is what a function needs: with a queue per vCPU, vCPU 1 could
//! overtake a write of vCPU 0 that it knows to have been made.

use crate::access::Access;
use crate::sync::Queue;

/// An access on its way to a device.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What to carry out.
    pub access: Access,
    /// Who waits for the answer; nobody waits for a posted write.
    pub waiter: Option<CallerId>,
    /// Whether the kernel had collected the write: then no vCPU knows of it.
    pub collected: bool,
}

impl Entry {
    /// A write for which nobody waits.
    pub const fn posted(access: Access) -> Entry {
        Entry { access, waiter: None, collected: false }
    }
}

/// The number of a caller: an index into the machine's completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(pub u16);

/// Accesses of one function in the order in which they were pushed.
#[derive(Debug)]
pub struct AccessQueue(Queue<Entry>);

impl AccessQueue {
    /// A queue that holds up to `capacity` accesses, at least one.
    pub fn new(capacity: usize) -> AccessQueue {
        AccessQueue(Queue::new(capacity.max(1)))
    }

    /// Appends an entry, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The entry itself.
    pub fn push(&self, entry: Entry) -> Result<(), Entry> {
        self.0.push(entry)
    }

    /// Takes the oldest entry. Only the owner of the token calls this.
    pub fn pop(&self) -> Option<Entry> {
        // Looking first keeps the fence of a fruitless pop off the path of the uncontended access.
        if self.0.is_empty() { None } else { self.0.pop() }
    }

    /// Whether nothing waits. Orders nothing by itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries fit.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
