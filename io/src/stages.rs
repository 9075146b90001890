//! Where the time of an access goes: five moments of each exit, and histograms of what lies between.
//!
//! ```text
//!  KVM_RUN returns   asks for the token   device begins   device is done   KVM_RUN again
//!      exit ----------- push --------------- start ----------- end ----------- resume
//!            resolve             wait              device          return
//! ```
//!
//! A caller that measures holds a `Stages` in [`crate::completion::Caller::stages`]; one that does not pays a
//! branch that is always taken the same way. The vCPU thread calls [`Caller::exit`] right after
//! `KVM_RUN` returned and [`Caller::resume`] right before the next; the endpoint marks the rest, also
//! when another thread carries the access out. An exit without an access (unclaimed, the latch, a
//! topology change) counts in [`Stage::Total`] only. A posted write has no start and end, as the vCPU
//! does not wait for it: its way back counts from the push. Of an exit that is cut into several
//! accesses the first gives push and start, the last the end.
//!
//! [`Caller::exit`]: crate::completion::Caller::exit
//! [`Caller::resume`]: crate::completion::Caller::resume

use std::fmt;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the exit to the queue: decoding the exit, looking the address up.
    Resolve,
    /// From the queue to the device: waiting for the token and for what was pushed before.
    Wait,
    /// In the device.
    Device,
    /// From the device's answer (of a posted write: from the push) back into the guest.
    Return,
    /// All of it.
    Total,
}

impl Stage {
    /// All stages, in the order in which an access passes them.
    pub const ALL: [Stage; 5] = [Stage::Resolve, Stage::Wait, Stage::Device, Stage::Return, Stage::Total];

    /// The stage's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Resolve => "resolve",
            Stage::Wait => "wait",
            Stage::Device => "device",
            Stage::Return => "return",
            Stage::Total => "total",
        }
    }
}

/// Nanoseconds of a clock that only goes forward; read without a system call.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0).wrapping_mul(1_000_000_000)
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The longest time that is told apart, in nanoseconds: ten seconds.
const LONGEST: u64 = 10_000_000_000;

/// Histograms of the stages of one caller's accesses: values to two significant digits, up to ten
/// seconds. All memory is taken when it is made.
#[derive(Clone, Debug)]
pub struct Stages {
    histograms: [Histogram<u64>; 5],
    exit: Option<u64>,
    push: Option<u64>,
    start: Option<u64>,
    end: Option<u64>,
}

impl Default for Stages {
    fn default() -> Stages {
        Stages::new()
    }
}

impl Stages {
    /// Empty histograms.
    pub fn new() -> Stages {
        let empty = || Histogram::new_with_bounds(1, LONGEST, 2).expect("these bounds are valid");
        Stages {
            histograms: std::array::from_fn(|_| empty()),
            exit: None,
            push: None,
            start: None,
            end: None,
        }
    }

    /// `KVM_RUN` returned with an access.
    pub fn exit(&mut self) {
        self.exit = Some(now());
        self.push = None;
        self.start = None;
        self.end = None;
    }

    /// The access asks for its place in the order.
    pub fn push(&mut self) {
        self.push.get_or_insert_with(now);
    }

    /// The device carried the access out between these times of [`now`].
    pub(crate) fn carried_out(&mut self, start: u64, end: u64) {
        self.start.get_or_insert(start);
        self.end = Some(end);
    }

    /// The guest goes on; records what was marked since [`Stages::exit`].
    pub fn resume(&mut self) {
        let resume = now();
        let Some(exit) = self.exit.take() else { return };
        let done = self.end.or(self.push);
        self.record(Stage::Resolve, Some(exit), self.push);
        self.record(Stage::Wait, self.push, self.start);
        self.record(Stage::Device, self.start, self.end);
        self.record(Stage::Return, done, Some(resume));
        self.record(Stage::Total, Some(exit), Some(resume));
    }

    fn record(&mut self, stage: Stage, from: Option<u64>, to: Option<u64>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.histograms[stage as usize].saturating_record(to.saturating_sub(from));
        }
    }

    /// The histogram of one stage, in nanoseconds.
    pub fn of(&self, stage: Stage) -> &Histogram<u64> {
        &self.histograms[stage as usize]
    }

    /// Adds what another caller recorded.
    pub fn merge(&mut self, other: &Stages) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            // Both have the same bounds, so nothing can be out of range.
            let _ = mine.add(theirs);
        }
    }

    /// A table of the stages, one a line, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

/// The percentiles of all stages as a table; see [`Stages::summary`].
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(&'a Stages);

/// Which percentiles a summary gives.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:>10}", "ns", "count")?;
        for percentile in PERCENTILES {
            write!(f, " {:>10}", format!("p{percentile}"))?;
        }
        for stage in Stage::ALL {
            let histogram = self.0.of(stage);
            write!(f, "\n{:<8} {:>10}", stage.name(), histogram.len())?;
            for percentile in PERCENTILES {
                write!(f, " {:>10}", histogram.value_at_percentile(percentile))?;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_stage_gets_its_own_time() {
        let mut stages = Stages::new();
        for _ in 0..3 {
            stages.exit();
            stages.push();
            let start = now();
            std::thread::sleep(std::time::Duration::from_millis(3));
            stages.carried_out(start, now());
            stages.resume();
        }
        for stage in Stage::ALL {
            assert_eq!(stages.of(stage).len(), 3, "{stage:?}");
        }
        assert!(stages.of(Stage::Device).min() >= 2_900_000);
        assert!(stages.of(Stage::Total).min() >= stages.of(Stage::Device).min());
        let table = stages.summary().to_string();
        assert_eq!(table.lines().count(), 6);
        assert!(table.contains("p99.99"));
    }

    #[test]
    fn a_posted_write_has_no_device_time_and_an_idle_exit_only_a_total() {
        let mut stages = Stages::new();
        stages.exit();
        stages.push();
        stages.resume();
        stages.exit();
        stages.resume();
        stages.resume();
        assert_eq!(stages.of(Stage::Total).len(), 2);
        assert_eq!(stages.of(Stage::Return).len(), 1);
        assert_eq!(stages.of(Stage::Device).len(), 0);
    }

    #[test]
    fn callers_are_added_up() {
        let mut one = Stages::new();
        one.exit();
        one.resume();
        let mut all = one.clone();
        all.merge(&one);
        assert_eq!(all.of(Stage::Total).len(), 2);
    }
}
