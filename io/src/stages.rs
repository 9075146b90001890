//! Where the time of an access goes: five moments of each exit, histograms of what lies between, and
//! the records of a trace.
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
//! A caller that is traced has a `Stages` with a [`Recorder`], which gets the same moments, but those of
//! each access. So measuring and tracing are one branch on the access path, not two.
//!
//! [`Caller::exit`]: crate::completion::Caller::exit
//! [`Caller::resume`]: crate::completion::Caller::resume

use std::fmt;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::access::{Op, Trap};
use crate::device::Retire;
use crate::space::Resolved;
use crate::trace::{Done, How, Moments, Recorder};

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

/// Nanoseconds of a clock that only goes forward (`CLOCK_MONOTONIC`); read without a system call.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0).wrapping_mul(1_000_000_000)
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The longest time that is told apart, in nanoseconds: ten seconds.
const LONGEST: u64 = 10_000_000_000;

/// Histograms of the stages of one caller's accesses: values to two significant digits, up to ten
/// seconds. All memory is taken when it is made.
#[derive(Debug)]
pub struct Stages {
    histograms: [Histogram<u64>; 5],
    /// Whether the histograms are filled.
    measures: bool,
    recorder: Option<Recorder>,
    exit: Option<u64>,
    /// Of the whole exit.
    marks: Moments,
    /// Of the access that is under way.
    access: Moments,
    /// Another thread carried the access out.
    queued: bool,
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
            measures: true,
            recorder: None,
            exit: None,
            marks: Moments::default(),
            access: Moments::default(),
            queued: false,
        }
    }

    /// For a caller that is traced and not measured: the histograms stay empty.
    pub fn tracing(recorder: Recorder) -> Stages {
        Stages { measures: false, ..Stages::new().traced(recorder) }
    }

    /// The same, which records each access too.
    #[must_use]
    pub fn traced(self, recorder: Recorder) -> Stages {
        Stages { recorder: Some(recorder), ..self }
    }

    /// `KVM_RUN` returned with an access.
    pub fn exit(&mut self) {
        let exit = now();
        self.exit = Some(exit);
        self.marks = Moments::default();
        self.access = Moments::default();
        self.queued = false;
        if let Some(recorder) = &mut self.recorder {
            recorder.exit(exit);
        }
    }

    /// The access asks for its place in the order.
    pub fn push(&mut self) {
        let push = now();
        self.marks.push.get_or_insert(push);
        self.access.push = Some(push);
    }

    /// The caller carried the access out itself between these times of [`now`].
    pub(crate) fn carried_out(&mut self, start: u64, end: u64) {
        self.marks.start.get_or_insert(start);
        self.marks.end = Some(end);
        self.access.start = Some(start);
        self.access.end = Some(end);
    }

    /// The owner of the function carried the access out between these times while the caller waited.
    pub(crate) fn answered(&mut self, start: u64, end: u64) {
        self.queued = true;
        self.carried_out(start, end);
    }

    /// A trap was carried out, or posted, and gave `value`.
    #[cold]
    pub(crate) fn note(&mut self, trap: Trap, resolved: Resolved, value: u64) {
        let access = std::mem::take(&mut self.access);
        let queued = std::mem::take(&mut self.queued);
        let (Some(recorder), Some(exit)) = (&mut self.recorder, self.exit) else { return };
        let (target, how) = match resolved {
            Resolved::Split => return,
            Resolved::Latch(_) => (None, How::Latch),
            Resolved::Unclaimed => (None, How::Unclaimed),
            Resolved::Access { endpoint, access, retire } => {
                let how = match (trap.op, retire) {
                    (Op::Write(_), Retire::Topology) => How::Topology,
                    (Op::Write(_), Retire::Posted) => How::Posted,
                    _ if queued => How::Queued,
                    _ => How::Inline,
                };
                (Some((endpoint, access)), how)
            }
        };
        let value = if let Op::Write(written) = trap.op { written } else { value };
        recorder.note(exit, trap, Done { target, value, how }, access);
    }

    /// The guest goes on; records what was marked since [`Stages::exit`].
    pub fn resume(&mut self) {
        let Some(exit) = self.exit.take() else { return };
        let resume = now();
        if let Some(recorder) = &mut self.recorder {
            recorder.resume(resume);
        }
        if !self.measures {
            return;
        }
        let Moments { push, start, end } = self.marks;
        self.record(Stage::Resolve, Some(exit), push);
        self.record(Stage::Wait, push, start);
        self.record(Stage::Device, start, end);
        self.record(Stage::Return, end.or(push), Some(resume));
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
        let mut all = Stages::new();
        all.merge(&one);
        all.merge(&one);
        assert_eq!(all.of(Stage::Total).len(), 2);
    }
}
