//! What the tests came to, which of them failed, and which took long.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// How many characters of a line of a failure are told again at the end.
const LONGEST: usize = 240;

/// Numbers of tests; a test that could not be carried out is skipped, which is not passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that found nothing wrong.
    pub passed: usize,
    /// Tests that found something wrong, and steps that broke off.
    pub failed: usize,
    /// Tests that could not be carried out here.
    pub skipped: usize,
}

impl Tally {
    /// One test that passed.
    pub const PASSED: Tally = Tally { passed: 1, failed: 0, skipped: 0 };
    /// One test that failed.
    pub const FAILED: Tally = Tally { passed: 0, failed: 1, skipped: 0 };
    /// One test that was skipped.
    pub const SKIPPED: Tally = Tally { passed: 0, failed: 0, skipped: 1 };

    /// What a line that a test program printed adds, if anything.
    ///
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...` counts whole programs, an ignored test as
    /// skipped. `skipped: why` is printed by a test that then returns, and that the program therefore
    /// counts as passed: this takes it back.
    fn of_line(line: &str) -> Change {
        if let Some(why) = line.trim_start().strip_prefix("skipped: ") {
            return if why.trim().is_empty() { Change::Nothing } else { Change::TakenBack };
        }
        let Some(counts) = line.trim_start().strip_prefix("test result: ") else { return Change::Nothing };
        let number = |word: &str| {
            let before = counts.split(';').find_map(|part| part.trim().strip_suffix(word))?;
            before.rsplit(' ').next()?.parse().ok()
        };
        match (number(" passed"), number(" failed"), number(" ignored")) {
            (Some(passed), Some(failed), Some(skipped)) => Change::Result(Tally { passed, failed, skipped }),
            _ => Change::Nothing,
        }
    }

    /// Counts the output of `cargo test`, of which `finished` tells whether it ended with success.
    pub fn of_output<'a>(lines: impl Iterator<Item = &'a str>, finished: bool) -> Tally {
        let mut tally = Tally::default();
        let mut taken_back = 0;
        for line in lines {
            match Tally::of_line(line) {
                Change::Nothing => {}
                Change::TakenBack => taken_back += 1,
                Change::Result(result) => tally += result,
            }
        }
        let taken_back = taken_back.min(tally.passed);
        tally.passed -= taken_back;
        tally.skipped += taken_back;
        // A test that was not built or that killed its program is in no count.
        if !finished && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }

    /// Whether a run with these counts is good; `strict` where nothing may be skipped.
    pub fn is_good(self, strict: bool) -> bool {
        self.failed == 0 && self.passed > 0 && !(strict && self.skipped > 0)
    }
}

/// How a part of a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its counts.
    pub tally: Tally,
    /// What went wrong, where something did.
    pub failure: String,
}

impl From<Tally> for Outcome {
    fn from(tally: Tally) -> Self {
        Outcome { tally, failure: String::new() }
    }
}

/// A whole run: its counts, what failed in it, and how long each of its parts took.
#[derive(Debug, Default)]
pub struct Record {
    /// The sum of all parts.
    pub tally: Tally,
    times: Vec<(Duration, String)>,
    failures: Vec<String>,
}

impl Record {
    /// Adds a part.
    pub fn note(&mut self, name: &str, time: Duration, outcome: Outcome) {
        self.tally += outcome.tally;
        self.times.push((time, name.to_owned()));
        if outcome.tally.failed > 0 {
            self.failures.push(format!("{name}: {}", outcome.failure));
        }
    }

    /// Adds the parts of another.
    pub fn append(&mut self, mut other: Record) {
        self.tally += other.tally;
        self.times.append(&mut other.times);
        self.failures.append(&mut other.failures);
    }

    /// What failed, for the end of a long output of which somebody may see no more than that: at most so many lines
    /// of each part, none of them long.
    pub fn failures(&self, lines: usize) -> impl Iterator<Item = String> {
        let shortened = |line: &str| line.chars().take(LONGEST).collect();
        self.failures.iter().flat_map(move |failure| failure.lines().take(lines).map(shortened))
    }

    /// The parts that took longest, a line each, the slowest first.
    pub fn slowest(&self, count: usize) -> Vec<String> {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let lines =
            times.iter().take(count).map(|(time, name)| format!("{:6.1} s  {name}", time.as_secs_f64()));
        lines.collect()
    }
}

/// What a line changes.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Result(Tally),
    TakenBack,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
---- kvm stdout ----
skipped: /dev/kvm cannot be opened
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
";

    #[test]
    fn results_are_summed_and_skips_are_no_passes() {
        let tally = Tally::of_output(OUTPUT.lines(), false);
        assert_eq!(tally, Tally { passed: 3, failed: 2, skipped: 2 });
        assert_eq!(tally.to_string(), "3 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_program_that_breaks_off_is_a_failure() {
        let tally = Tally::of_output("test result: ok. 3 passed; 0 failed; 0 ignored;".lines(), false);
        assert_eq!(tally, Tally { passed: 3, failed: 1, skipped: 0 });
        assert_eq!(Tally::of_output("".lines(), true), Tally::default());
    }

    #[test]
    fn the_slowest_parts_and_failures_are_told_at_the_end() {
        let mut record = Record::default();
        for (name, seconds) in [("short", 1), ("longest", 30), ("long", 20)] {
            record.note(name, Duration::from_secs(seconds), Tally::PASSED.into());
        }
        let mut other = Record::default();
        let failure = "why\nwhere\nmore".to_owned();
        other.note("beside", Duration::from_secs(25), Outcome { tally: Tally::FAILED, failure });
        record.append(other);
        assert_eq!(record.slowest(2), ["  30.0 s  longest", "  25.0 s  beside"]);
        assert_eq!(record.failures(2).collect::<Vec<_>>(), ["beside: why", "where"]);
        assert_eq!(record.tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_run_without_passes_is_not_good() {
        assert!(!Tally::default().is_good(false));
        assert!(Tally::PASSED.is_good(true));
        let mut skipped = Tally::PASSED;
        skipped += Tally::SKIPPED;
        assert!(skipped.is_good(false));
        assert!(!skipped.is_good(true));
        skipped += Tally::FAILED;
        assert!(!skipped.is_good(false));
    }
}
