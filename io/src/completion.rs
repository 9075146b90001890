//! The way back: one futex word and one value per caller, made once, used for every access.
//!
//! Only who has to wait uses it: an access that its own caller carries out never comes here. The word
//! goes from *idle* to *pending* when a caller pushes, perhaps to *asleep*, to *done* when the owner
//! of the token answers, and back to *idle* when the caller takes the value. A caller has one access
//! under way at a time, and an entry is popped once, so an answer comes exactly once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64 as Timestamp};

use crate::queue::CallerId;
use crate::stages::Stages;
use crate::sync::{AtomicU64, Futex, Ordering};

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
    state: Futex,
    value: AtomicU64,
    timed: AtomicBool,
    start: Timestamp,
    end: Timestamp,
}

impl Completion {
    /// Announces that an answer will be awaited. Only the owning caller calls this.
    pub fn begin(&self) {
        self.state.word.store(PENDING, Ordering::Relaxed);
    }

    /// Takes the answer if it is there.
    pub fn poll(&self) -> Option<u64> {
        if self.state.word.load(Ordering::Acquire) != DONE {
            return None;
        }
        self.state.word.store(IDLE, Ordering::Relaxed);
        Some(self.value.load(Ordering::Relaxed))
    }

    /// Gives the answer and wakes the caller if it sleeps. Exactly once per [`Completion::begin`].
    pub fn complete(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        if self.state.word.swap(DONE, Ordering::AcqRel) == ASLEEP {
            self.state.wake();
        }
    }

    /// Sleeps until the answer is there.
    pub fn wait(&self) -> u64 {
        loop {
            if let Some(value) = self.poll() {
                return value;
            }
            let word = &self.state.word;
            let slept = word.compare_exchange(PENDING, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
            if slept.is_ok() || slept == Err(ASLEEP) {
                self.state.wait(ASLEEP);
            }
        }
    }

    /// Whether the caller wants to know when its access was carried out.
    pub(crate) fn is_timed(&self) -> bool {
        self.timed.load(Relaxed)
    }

    /// Set by the caller before it pushes.
    pub(crate) fn set_timed(&self, timed: bool) {
        self.timed.store(timed, Relaxed);
    }

    /// Set by the owner of the token before it answers, in nanoseconds of the stages' clock.
    pub(crate) fn set_times(&self, start: u64, end: u64) {
        self.start.store(start, Relaxed);
        self.end.store(end, Relaxed);
    }

    /// When the access was carried out; valid after the answer.
    pub(crate) fn times(&self) -> (u64, u64) {
        (self.start.load(Relaxed), self.end.load(Relaxed))
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

    /// A guest access arrived: to be called right after `KVM_RUN` returned.
    #[inline]
    pub fn exit(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.exit();
        }
    }

    /// The guest goes on: to be called right before `KVM_RUN`.
    #[inline]
    pub fn resume(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.resume();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_caller_is_woken_each_time() {
        let completions = Completions::new(1);
        let owner = completions.clone();
        let (ask, asked) = std::sync::mpsc::channel::<u64>();
        let answering = std::thread::spawn(move || {
            for value in asked {
                if value % 7 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                owner.of(CallerId(0)).unwrap().complete(value);
            }
        });
        let completion = completions.of(CallerId(0)).unwrap();
        for value in 0..200 {
            completion.begin();
            assert_eq!(completion.poll(), None);
            ask.send(value).unwrap();
            assert_eq!(completion.wait(), value);
            assert_eq!(completion.poll(), None, "an answer is taken once");
        }
        drop(ask);
        answering.join().unwrap();
    }
}
