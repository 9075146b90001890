//! A ring of records from one producer to one consumer.
//!
//! `head` counts what was put in, `tail` what was taken out; both only grow, and the place is the count
//! modulo the capacity. The producer fills a slot and publishes it by storing `head` with release; the
//! consumer copies it and gives it back by storing `tail` with release. So no slot is written while it
//! is read. The words of a slot are relaxed atomics, which cost what plain words cost: a second producer
//! would be a mistake that garbles records, not undefined behaviour. `tests/loom_trace.rs` tries the
//! orders.

use std::sync::OnceLock;
use std::thread::Thread;

use super::record::{Record, WORDS};
use crate::sync::{AtomicU64, Ordering};

/// One record, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot([AtomicU64; WORDS]);

/// A count in a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Count(AtomicU64);

/// A ring of records; see the module's page.
#[derive(Debug)]
pub struct Lane {
    slots: Box<[Slot]>,
    /// Written by the producer.
    head: Count,
    /// Written by the producer beside `head`: what found no room, and since when an access is under way.
    lost: AtomicU64,
    busy: AtomicU64,
    /// Written by the consumer.
    tail: Count,
    consumer: OnceLock<Thread>,
}

/// No access is under way.
const IDLE: u64 = u64::MAX;

impl Lane {
    /// A lane for `capacity` records, a power of two from 4 on.
    pub fn new(capacity: usize) -> Lane {
        let slot = |_| Slot(std::array::from_fn(|_| AtomicU64::new(0)));
        Lane {
            slots: (0..capacity.next_power_of_two().max(4)).map(slot).collect(),
            head: Count(AtomicU64::new(0)),
            lost: AtomicU64::new(0),
            busy: AtomicU64::new(IDLE),
            tail: Count(AtomicU64::new(0)),
            consumer: OnceLock::new(),
        }
    }

    /// How many records fit.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The thread that takes records out: unparked each time another quarter of the ring has been filled.
    /// Only the first counts.
    pub fn wake(&self, consumer: Thread) {
        let _ = self.consumer.set(consumer);
    }

    /// Puts a record in, or counts it as lost; tells which. By one thread at a time: the one that the
    /// lane was made for, or the owner of a token. Neither locks nor allocates; each quarter of a ring
    /// may cost a wake-up.
    pub fn push(&self, record: &Record) -> bool {
        let head = self.head.0.load(Ordering::Relaxed);
        let capacity = self.slots.len() as u64;
        let slot = self.slots.get(self.place(head));
        let taken = head.wrapping_sub(self.tail.0.load(Ordering::Acquire));
        let Some(slot) = slot.filter(|_| taken < capacity) else {
            self.lost.store(self.lost.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            return false;
        };
        for (to, from) in slot.0.iter().zip(record.words()) {
            to.store(from, Ordering::Relaxed);
        }
        let head = head.wrapping_add(1);
        self.head.0.store(head, Ordering::Release);
        if head & (capacity / 4 - 1) == 0
            && let Some(consumer) = self.consumer.get()
        {
            consumer.unpark();
        }
        true
    }

    /// Takes what is there, the oldest first, up to `most` records. By one thread at a time.
    pub fn take(&self, most: usize, mut each: impl FnMut(Record)) -> usize {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let there = self.head.0.load(Ordering::Acquire).wrapping_sub(tail);
        let count = usize::try_from(there).unwrap_or(usize::MAX).min(most);
        let mut at = tail;
        for _ in 0..count {
            if let Some(slot) = self.slots.get(self.place(at)) {
                let words = std::array::from_fn(|word| slot.0[word].load(Ordering::Relaxed));
                each(Record::of_words(&words));
            }
            at = at.wrapping_add(1);
        }
        self.tail.0.store(at, Ordering::Release);
        count
    }

    /// How many records found no room so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Since when the producer has an access under way whose record is still to come; `None` if it has
    /// none. A hint: it may be old.
    pub fn busy_since(&self) -> Option<u64> {
        Some(self.busy.load(Ordering::Relaxed)).filter(|since| *since != IDLE)
    }

    /// Set by the producer.
    pub(super) fn set_busy(&self, since: Option<u64>) {
        self.busy.store(since.unwrap_or(IDLE), Ordering::Relaxed);
    }

    fn place(&self, count: u64) -> usize {
        // The capacity is a power of two that is a usize, so the rest is one.
        usize::try_from(count & (self.slots.len() as u64 - 1)).unwrap_or_default()
    }
}
