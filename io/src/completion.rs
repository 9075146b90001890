//! The way back: one futex word and one value per caller.

use std::sync::Arc;

use crate::queue::CallerId;
use crate::stages::Stages;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Nothing is awaited.
const IDLE: u32 = 0;
/// An access is under way and its caller awake.
const PENDING: u32 = 1;
/// The caller sleeps on the futex.
const ASLEEP: u32 = 2;
/// The value is there.
const DONE: u32 = 3;

/// Where one caller awaits one answer at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Completion {
    state: AtomicU32,
    value: AtomicU64,
}

impl Completion {
    /// Announces that an answer will be awaited. Only the owning caller calls this.
    pub fn begin(&self) {
        self.state.store(PENDING, Ordering::Relaxed);
    }

    /// Takes the answer if it is there.
    pub fn poll(&self) -> Option<u64> {
        if self.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        self.state.store(IDLE, Ordering::Relaxed);
        Some(self.value.load(Ordering::Relaxed))
    }

    /// Gives the answer and wakes the caller if it sleeps. Exactly once per [`Completion::begin`].
    pub fn complete(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        if self.state.swap(DONE, Ordering::AcqRel) == ASLEEP {
            let _ = rustix::thread::futex::wake(&self.state, rustix::thread::futex::Flags::PRIVATE, 1);
        }
    }

    /// Sleeps until the answer is there.
    pub fn wait(&self) -> u64 {
        loop {
            if let Some(value) = self.poll() {
                return value;
            }
            let slept = self.state.compare_exchange(PENDING, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
            if slept.is_ok() || slept == Err(ASLEEP) {
                let _ = rustix::thread::futex::wait(
                    &self.state,
                    rustix::thread::futex::Flags::PRIVATE,
                    ASLEEP,
                    None,
                );
            }
        }
    }
}

/// The completions of a machine, one for each caller.
#[derive(Clone, Debug)]
pub struct Completions(Arc<[Completion]>);

impl Completions {
    /// Room for `callers` callers.
    pub fn new(callers: u16) -> Completions {
        Completions((0..callers).map(|_| Completion::default()).collect())
    }

    /// The completion of one caller.
    pub fn of(&self, id: CallerId) -> Option<&Completion> {
        self.0.get(usize::from(id.0))
    }

    /// The caller with this number; hand each number to one thread only.
    pub fn caller(&self, id: CallerId) -> Option<Caller> {
        (usize::from(id.0) < self.0.len()).then(|| Caller { completions: self.clone(), id, stages: None })
    }
}

/// Whoever makes accesses and may have to wait: a vCPU, or a thread of the host. One access at a time.
#[derive(Debug)]
pub struct Caller {
    completions: Completions,
    id: CallerId,
    /// Where the stages of each access are recorded, when somebody measures.
    pub stages: Option<Box<Stages>>,
}

impl Caller {
    /// The caller's number.
    pub fn id(&self) -> CallerId {
        self.id
    }

    /// The caller's completion.
    pub fn completion(&self) -> &Completion {
        &self.completions.0[usize::from(self.id.0)]
    }
}
