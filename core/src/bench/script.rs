//! What the guest is to do next, and how long it took: the other end of the four ports that its loop asks.
//!
//! A *visit* of a case warms up, so that the machine is in the mode that such a stream of accesses puts it
//! in, then measures the time of a slice, then once more with the stages of every access recorded:
//! reading the clock at each stage takes time itself, so the two are apart. A slice is measured in
//! pieces, so that one moment in which the host did something else is not the result.

use std::time::{Duration, Instant};

use trapline_io::stages::Stages;

/// Read: where the next case lies.
pub const NEXT: u16 = 0x5000;
/// Read: how often it is to be repeated; 0 means that there is nothing, ask again.
pub const COUNT: u16 = 0x5004;
/// Written when it begins.
pub const BEGIN: u16 = 0x5008;
/// Written when it is done.
pub const END: u16 = 0x500c;
/// A port of none of the machine's devices.
pub const NOBODY: u16 = 0x5100;

/// How many pieces a slice has, where one repetition is short enough, and how many it has at least.
const PIECES: u32 = 16;
const FEWEST: usize = 3;
/// The most repetitions at once.
const MOST: u32 = 1 << 24;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Warming up.
    pub warm_up: Duration,
    /// A measurement.
    pub slice: Duration,
}

/// What came of one visit.
#[derive(Debug)]
pub struct Visit {
    /// Which case, by its place in the image.
    pub case: usize,
    /// Nanoseconds of one repetition until all that was written had been carried out: the median of the
    /// pieces.
    pub ns: f64,
    /// The same of the quickest piece.
    pub best_ns: f64,
    /// The median time until the guest went on.
    pub guest_ns: f64,
    /// How often it was repeated with its stages recorded.
    pub recorded: u32,
    /// The stages of these accesses, where there are any.
    pub stages: Option<Box<Stages>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measure,
    Record,
}

/// The visits of one run of a machine, one after the other.
#[derive(Debug)]
pub struct Script {
    /// Number and address of the cases that are still to be visited, the last first.
    cases: Vec<(usize, u32)>,
    pace: Pace,
    records: bool,
    phase: Phase,
    count: u32,
    /// What of the warm-up is over.
    warm: Duration,
    began: Option<Instant>,
    /// What of the slice is over, and how long a repetition took in each piece: all of it, and until the
    /// guest went on.
    measured: Duration,
    pieces: Vec<(f64, f64)>,
    done: Vec<Visit>,
}

impl Script {
    /// Visits `cases`, given by number and address, in this order. `records` says whether stages are
    /// recorded.
    pub fn new(cases: impl IntoIterator<Item = (usize, u32)>, pace: Pace, records: bool) -> Script {
        let mut cases: Vec<_> = cases.into_iter().collect();
        cases.reverse();
        Script {
            cases,
            pace,
            records,
            phase: Phase::WarmUp,
            count: 1,
            warm: Duration::ZERO,
            began: None,
            measured: Duration::ZERO,
            pieces: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Where the next case lies; `None` when all is done.
    pub fn next(&self) -> Option<u32> {
        self.cases.last().map(|(_, entry)| *entry)
    }

    /// How often it is to be repeated; zero when all is done.
    pub fn count(&self) -> u32 {
        if self.cases.is_empty() { 0 } else { self.count }
    }

    /// The number of the case that is under way.
    pub fn under_way(&self) -> Option<usize> {
        self.cases.last().map(|(number, _)| *number)
    }

    /// Whether the stages of what comes now are to be recorded.
    pub fn wants_stages(&self) -> bool {
        self.phase == Phase::Record
    }

    /// The guest begins.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    /// The guest was done at `end`; what it had written was carried out at `settled`.
    pub fn end(&mut self, end: Instant, settled: Instant, stages: Option<Box<Stages>>) {
        let Some(began) = self.began.take() else { return };
        let of_one = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(self.count.max(1));
        let took = settled.saturating_duration_since(began).max(Duration::from_nanos(1));
        let (all, guest) = (of_one(took), of_one(end.saturating_duration_since(began)));
        match self.phase {
            Phase::WarmUp => self.warm_up(took, all),
            Phase::Measure => {
                self.pieces.push((all, guest));
                self.measured += took;
                if self.measured >= self.pace.slice && self.pieces.len() >= FEWEST {
                    self.measure_done(all);
                }
            }
            Phase::Record => self.finish(stages),
        }
    }

    /// In small steps: the machine's mode, and so the time, changes on the way.
    fn warm_up(&mut self, took: Duration, ns: f64) {
        self.warm += took;
        let left = self.pace.warm_up.saturating_sub(self.warm);
        if left.is_zero() {
            self.phase = Phase::Measure;
            self.count = times(self.pace.slice / PIECES, ns);
        } else {
            self.count = times(left.min(self.pace.warm_up / 8), ns).min(self.count.saturating_mul(4));
        }
    }

    fn measure_done(&mut self, ns: f64) {
        if self.records {
            self.phase = Phase::Record;
            self.count = times(self.pace.slice, ns);
        } else {
            self.finish(None);
        }
    }

    fn finish(&mut self, stages: Option<Box<Stages>>) {
        let recorded = if stages.is_some() { self.count } else { 0 };
        let (mut all, mut guest): (Vec<f64>, Vec<f64>) = self.pieces.drain(..).unzip();
        if let Some((case, _)) = self.cases.pop()
            && let (Some(ns), Some(guest_ns)) = (median(&mut all), median(&mut guest))
        {
            let best_ns = all.first().copied().unwrap_or(ns);
            self.done.push(Visit { case, ns, best_ns, guest_ns, recorded, stages });
        }
        self.phase = Phase::WarmUp;
        self.count = 1;
        (self.warm, self.measured) = (Duration::ZERO, Duration::ZERO);
    }

    /// What came of all visits that were finished.
    pub fn take(&mut self) -> Vec<Visit> {
        std::mem::take(&mut self.done)
    }
}

/// The middle of some numbers, which are sorted; of an even number the mean of the two in the middle.
pub fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let upper = numbers.get(numbers.len() / 2)?;
    let lower = numbers.get((numbers.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// How many repetitions of `ns` fill `time`, at least one.
fn times(time: Duration, ns: f64) -> u32 {
    let count = (time.as_secs_f64() * 1e9 / ns.max(0.1)).round();
    if count >= f64::from(MOST) {
        return MOST;
    }
    // Within bounds, so nothing is lost.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = count as u32;
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { warm_up: Duration::from_millis(8), slice: Duration::from_millis(4) };

    /// A guest whose repetition takes `ns`, to the end.
    fn play(script: &mut Script, ns: u64) -> Vec<u32> {
        let mut counts = Vec::new();
        while script.next().is_some() {
            counts.push(script.count());
            script.begin();
            let began = script.began.unwrap();
            let end = began + Duration::from_nanos(ns) * script.count();
            let stages = script.wants_stages().then(|| Box::new(Stages::new()));
            script.end(end, end + Duration::from_nanos(ns) * script.count(), stages);
            assert!(counts.len() < 1000, "it does not come to an end");
        }
        counts
    }

    #[test]
    fn a_visit_warms_up_then_measures_a_slice_then_records() {
        let mut script = Script::new([(7, 0x100)], PACE, true);
        assert_eq!((script.next(), script.under_way()), (Some(0x100), Some(7)));
        let counts = play(&mut script, 10_000);
        assert_eq!(counts[..3], [1, 4, 16]);
        // 16 pieces of a quarter of a millisecond, and all of it again with stages.
        assert_eq!(counts[counts.len() - 9..], [13, 13, 13, 13, 13, 13, 13, 13, 200]);
        let visits = script.take();
        assert_eq!((visits.len(), visits[0].case, visits[0].recorded), (1, 7, 200));
        assert!((visits[0].guest_ns - 10_000.0).abs() < 1.0 && (visits[0].ns - 20_000.0).abs() < 1.0);
        assert!(visits[0].stages.is_some());
        assert_eq!((script.next(), script.count()), (None, 0));
    }

    #[test]
    fn the_middle_of_numbers() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    /// A piece that took ten times as long is not the result.
    #[test]
    fn one_disturbed_piece_does_not_count() {
        let mut script = Script::new([(0, 1)], PACE, false);
        let mut pieces = 0;
        while script.next().is_some() {
            let measures = script.phase == Phase::Measure;
            pieces += u32::from(measures);
            let ns = if measures && pieces == 3 { 100_000 } else { 10_000 };
            script.begin();
            let end = script.began.unwrap() + Duration::from_nanos(ns) * script.count();
            script.end(end, end, None);
        }
        let visits = script.take();
        assert!((visits[0].ns - 10_000.0).abs() < 1.0 && (visits[0].best_ns - 10_000.0).abs() < 1.0);
    }

    #[test]
    fn cases_come_in_their_order_and_stages_only_where_wanted() {
        let mut script = Script::new([(3, 1), (1, 2)], PACE, false);
        play(&mut script, 5_000_000);
        let visits = script.take();
        assert_eq!(visits.iter().map(|visit| visit.case).collect::<Vec<_>>(), [3, 1]);
        assert!(visits.iter().all(|visit| visit.stages.is_none() && visit.recorded == 0));
    }

    #[test]
    fn what_takes_no_time_is_bounded() {
        assert_eq!(times(Duration::from_secs(100), 0.0), MOST);
        assert_eq!(times(Duration::from_millis(1), 1e12), 1);
        let mut script = Script::new([(0, 1)], PACE, false);
        script.begin();
        let began = script.began.unwrap();
        script.end(began, began, None);
        assert_eq!(script.count(), 4);
    }
}
