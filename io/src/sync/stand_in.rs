//! What loom can see, in place of the real primitives.

use std::collections::VecDeque;

pub(crate) use loom::hint::spin_loop;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex as LoomMutex, MutexGuard as LoomGuard};

/// One look before sleeping: more would multiply the orders to try without adding a new one.
pub(crate) const SPINS: u32 = 1;

fn entered<G>(locked: Result<G, std::sync::PoisonError<G>>) -> G {
    locked.unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A bounded queue. Its length is a relaxed atomic beside the lock, so that looking whether it is
/// empty orders nothing: the fences of the protocol must do that alone.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    entries: LoomMutex<VecDeque<T>>,
    len: AtomicUsize,
    capacity: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Queue<T> {
        Queue { entries: LoomMutex::new(VecDeque::new()), len: AtomicUsize::new(0), capacity }
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut entries = entered(self.entries.lock());
        if entries.len() == self.capacity {
            return Err(value);
        }
        entries.push_back(value);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut entries = entered(self.entries.lock());
        let value = entries.pop_front()?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

/// A mutex with parking_lot's interface. `locked` is what a failing `try_lock` and `is_locked` look
/// at, relaxed as theirs.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    locked: AtomicBool,
    inner: LoomMutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex { locked: AtomicBool::new(false), inner: LoomMutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let inner = entered(self.inner.lock());
        self.locked.store(true, Ordering::Relaxed);
        MutexGuard { inner: Some(inner), locked: &self.locked }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock().ok()?;
        self.locked.store(true, Ordering::Relaxed);
        Some(MutexGuard { inner: Some(inner), locked: &self.locked })
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}

/// The right to the value, until dropped.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    inner: Option<LoomGuard<'a, T>>,
    locked: &'a AtomicBool,
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner.as_deref().expect("held until drop")
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_deref_mut().expect("held until drop")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.locked.store(false, Ordering::Relaxed);
        self.inner = None;
    }
}

/// A futex out of a lock and a condition.
#[derive(Debug, Default)]
pub(crate) struct Futex {
    pub(crate) word: AtomicU32,
    lock: LoomMutex<()>,
    changed: Condvar,
}

impl Futex {
    pub(crate) fn wait(&self, expected: u32) {
        let guard = entered(self.lock.lock());
        if self.word.load(Ordering::Relaxed) == expected {
            drop(entered(self.changed.wait(guard)));
        }
    }

    pub(crate) fn wake(&self) {
        let _guard = entered(self.lock.lock());
        self.changed.notify_one();
    }
}

/// An eventfd out of a lock and a condition.
#[derive(Debug, Default)]
pub(crate) struct Event {
    count: LoomMutex<u64>,
    signalled: Condvar,
}

impl Event {
    pub(crate) fn new() -> std::io::Result<Event> {
        Ok(Event::default())
    }

    pub(crate) fn signal(&self) {
        *entered(self.count.lock()) += 1;
        self.signalled.notify_one();
    }

    /// Sleeps until signalled, and takes the count.
    pub(crate) fn wait(&self) {
        let mut count = entered(self.count.lock());
        while *count == 0 {
            count = entered(self.signalled.wait(count));
        }
        *count = 0;
    }
}
