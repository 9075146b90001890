//! The queue of one function: bounded, many producers, drained by whoever owns the endpoint's token.

use crossbeam::queue::ArrayQueue;

use crate::access::Access;

/// An access on its way to a device.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What to carry out.
    pub access: Access,
    /// Who waits for the answer; nobody waits for a posted write.
    pub waiter: Option<CallerId>,
}

/// The number of a caller: an index into the machine's completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(pub u16);

/// Accesses of one function in the order in which they were pushed (design rule 1).
#[derive(Debug)]
pub struct AccessQueue(ArrayQueue<Entry>);

impl AccessQueue {
    /// A queue that holds up to `capacity` accesses.
    pub fn new(capacity: usize) -> AccessQueue {
        AccessQueue(ArrayQueue::new(capacity.max(1)))
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
        self.0.pop()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries fit.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
