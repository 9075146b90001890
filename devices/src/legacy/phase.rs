//! When a function that owns legacy VGA goes from one phase to the other.
//!
//! A guest's driver works through the BARs and leaves the window alone: from then on the BARs are
//! mapped. A guest that writes the window again and again is in text again. Each phase is costly for
//! the accesses of the other, and so is the change itself: a guest that does both alternately is made
//! to show more of the one before the function comes back to it.

use std::time::{Duration, Instant};

/// To the native phase: that many accesses to BARs, without one to the window, in that time.
const TO_NATIVE: (u32, Duration) = (64, Duration::from_millis(10));
/// Back to the legacy phase: that many accesses to the window in that time. 10 ms would be half of all
/// the time where an access takes 10 microseconds, and cannot be where it takes 70, as in a machine
/// inside of a machine.
const TO_LEGACY: (u32, Duration) = (512, Duration::from_millis(100));
/// A return that follows another one so soon makes the next one harder.
const SOON: Duration = Duration::from_secs(1);
/// How often that may double: the guest has then to show about a minute of it.
const DOUBLINGS: u32 = 9;

/// Counts until so many things happened in so much time.
///
/// The clock is asked for the first of them and the last. What comes too slowly is counted from anew,
/// so that a burst is noticed at the latest when it is twice as long as it has to be.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    threshold: u32,
    span: Duration,
    count: u32,
    since: Option<Instant>,
}

impl Rate {
    /// Counts to `threshold`, at least two, within `span`.
    pub fn new((threshold, span): (u32, Duration)) -> Rate {
        Rate { threshold, span, count: 0, since: None }
    }

    /// One more. True when there were enough in time; it then begins again.
    pub fn count(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        self.count += 1;
        if self.count == 1 {
            self.since = Some(clock());
            return false;
        }
        if self.count < self.threshold {
            return false;
        }
        let now = clock();
        let fast = self.since.is_some_and(|since| now.saturating_duration_since(since) <= self.span);
        // The one that came too late is the first of the next.
        (self.count, self.since) = if fast { (0, None) } else { (1, Some(now)) };
        fast
    }

    /// Begins again.
    pub fn clear(&mut self) {
        self.count = 0;
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct Phases {
    bars: Rate,
    window: Rate,
    returned: Option<Instant>,
    doublings: u32,
}

impl Default for Phases {
    fn default() -> Phases {
        let (bars, window) = (Rate::new(TO_NATIVE), Rate::new(TO_LEGACY));
        Phases { bars, window, returned: None, doublings: 0 }
    }
}

impl Phases {
    /// An access to a BAR that would be mapped, in the legacy phase. True when it is time to map them.
    pub fn bar(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        self.bars.count(clock)
    }

    /// An access to the window in the legacy phase.
    pub fn window(&mut self) {
        self.bars.clear();
    }

    /// An access to the window in the native phase. True when it is time to leave it.
    pub fn native_window(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        self.window.count(clock)
    }

    /// The function has gone back to the legacy phase.
    pub fn returned(&mut self, now: Instant) {
        let soon = self.returned.is_some_and(|last| now.saturating_duration_since(last) <= SOON);
        self.doublings = if soon { DOUBLINGS.min(self.doublings + 1) } else { 0 };
        self.returned = Some(now);
        let (threshold, span) = TO_LEGACY;
        let factor = 1 << self.doublings;
        self.window = Rate::new((threshold * factor, span * factor));
        self.bars.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(start: Instant, micros: u64) -> Instant {
        start + Duration::from_micros(micros)
    }

    /// How many accesses of this distance it takes.
    fn needed(mut one: impl FnMut(u64) -> bool, distance: u64, most: u64) -> Option<u64> {
        (1..=most).find(|count| one(count * distance))
    }

    #[test]
    fn sixty_four_bar_accesses_without_the_window() {
        let start = Instant::now();
        let mut phases = Phases::default();
        assert_eq!(needed(|now| phases.bar(|| at(start, now)), 100, 1000), Some(64));
        assert_eq!(needed(|now| phases.bar(|| at(start, now)), 160, 10_000), None);
        // One access to the window starts the count again.
        let mut phases = Phases::default();
        let mut other = |now| {
            if now % 50 == 0 {
                phases.window();
            }
            phases.bar(|| at(start, now))
        };
        assert_eq!(needed(&mut other, 1, 10_000), None);
    }

    #[test]
    fn each_quick_return_doubles_what_the_next_one_takes() {
        let start = Instant::now();
        let mut phases = Phases::default();
        let mut now = 0;
        let mut takes = |phases: &mut Phases, pause: u64| {
            now += pause;
            let count = (1..100_000).find(|_| {
                now += 50;
                phases.native_window(|| at(start, now))
            });
            phases.returned(at(start, now));
            count
        };
        let taken = [(); 3].map(|()| takes(&mut phases, 0));
        assert_eq!(taken, [Some(512), Some(512), Some(1024)]);
        assert_eq!(takes(&mut phases, 2_000_000), Some(2048));
        assert_eq!(takes(&mut phases, 0), Some(512), "the one before was not soon");
        // It does not double without end.
        for _ in 0..40 {
            phases.returned(at(start, now));
        }
        assert_eq!(phases.window.threshold, 512 << DOUBLINGS);
    }

    #[test]
    fn the_clock_is_asked_for_the_first_and_the_last() {
        let mut rate = Rate::new((64, Duration::from_millis(10)));
        let mut asked = 0;
        for _ in 0..640 {
            rate.count(|| {
                asked += 1;
                Instant::now()
            });
        }
        assert!((20..=21).contains(&asked), "{asked}");
    }

    proptest! {
        /// Against all times: never without so many in so long, always with twice as many.
        #[test]
        fn a_rate_is_neither_blind_nor_hasty(
            steps in prop::collection::vec(prop_oneof![0..4_u64, 0..20_u64], 1..400),
            threshold in 2..20_u32,
        ) {
            let (start, span) = (Instant::now(), 40);
            let mut rate = Rate::new((threshold, Duration::from_micros(span)));
            let (mut now, mut times): (u64, Vec<u64>) = (0, Vec::new());
            for step in steps {
                now += step;
                times.push(now);
                let within = |count: u32| {
                    let first = times.len().checked_sub(count as usize);
                    first.is_some_and(|first| now - times[first] <= span)
                };
                if rate.count(|| at(start, now)) {
                    prop_assert!(within(threshold));
                    times.clear();
                } else {
                    prop_assert!(!within(2 * threshold - 1));
                }
            }
        }
    }
}
