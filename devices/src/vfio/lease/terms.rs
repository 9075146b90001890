//! When the lease is asked for, and when it is given up: a state machine of the time, and of whether the
//! card was used.

use std::time::{Duration, Instant};

/// The longest that the ranges are held, from when they were given: what another guest, or the host,
/// may have to wait. Long against a change of bridges, which takes tens of microseconds on a machine and a
/// millisecond inside of one; short against what a person sees.
pub const SLICE: Duration = Duration::from_millis(10);
/// It is looked at so often whether the card is used; if it was not since the look before, they are given up.
pub const IDLE: Duration = Duration::from_millis(2);
/// After a whole slice they are not asked for again before this is over, so that who waits for them is
/// awake, and has them.
pub const REST: Duration = Duration::from_millis(2);
/// Unused for so long, the ranges go back to the host's console.
pub const AWAY: Duration = Duration::from_millis(250);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for the ranges, and wait until they are given.
    Lock,
    /// Give them up.
    Unlock,
    /// Let the host's console have them.
    HandOver,
    /// Look again after this time.
    Look(Duration),
    /// Look again when the card is used, or after this time.
    Sleep(Option<Duration>),
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nobody has used the card for long.
    #[default]
    Away,
    /// The ranges were asked for. When something is asked again, they were given.
    Asked,
    /// They are held.
    Held { since: Instant, used: Instant },
    /// They were held for a whole slice.
    Resting { until: Instant, used: bool },
    /// They were given up since nobody used the card.
    Quiet { since: Instant },
}

impl Terms {
    /// Whether the ranges are held, as far as the steps were carried out.
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Asked | State::Held { .. })
    }

    /// What is to be done at `now`, which never goes back, after the step before was carried out; `used`
    /// says that the card was used since.
    pub fn step(&mut self, now: Instant, used: bool) -> Step {
        let (state, step) = match self.state {
            State::Away if used => (State::Asked, Step::Lock),
            State::Away => (State::Away, Step::Sleep(None)),
            State::Asked => hold(now, now, now),
            State::Held { since, used: before } => hold(now, since, if used { now } else { before }),
            State::Resting { until, used: before } => rest(now, until, used || before),
            State::Quiet { .. } if used => (State::Asked, Step::Lock),
            State::Quiet { since } => match left(now, since, AWAY) {
                Some(left) => (State::Quiet { since }, Step::Sleep(Some(left))),
                None => (State::Away, Step::HandOver),
            },
        };
        self.state = state;
        step
    }
}

fn hold(now: Instant, since: Instant, used: Instant) -> (State, Step) {
    let Some(slice) = left(now, since, SLICE) else {
        return (State::Resting { until: now + REST, used: false }, Step::Unlock);
    };
    match left(now, used, IDLE) {
        Some(idle) => (State::Held { since, used }, Step::Look(slice.min(idle))),
        None => (State::Quiet { since: now }, Step::Unlock),
    }
}

fn rest(now: Instant, until: Instant, used: bool) -> (State, Step) {
    match until.checked_duration_since(now).filter(|left| !left.is_zero()) {
        Some(left) => (State::Resting { until, used }, Step::Look(left)),
        None if used => (State::Asked, Step::Lock),
        None => (State::Quiet { since: now }, Step::Sleep(Some(AWAY))),
    }
}

/// What is left of a time that began at `since`.
fn left(now: Instant, since: Instant, time: Duration) -> Option<Duration> {
    time.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the machine did, in microseconds from the start.
    #[derive(Debug, Default)]
    struct Seen {
        locks: Vec<u64>,
        unlocks: Vec<u64>,
        hand_overs: Vec<u64>,
    }

    /// Runs the machine on a card that is used at these times, up to `end`. A lock takes `wait`.
    fn run(uses: &[u64], wait: u64, end: u64) -> Seen {
        let (start, mut terms, mut seen) = (Instant::now(), Terms::default(), Seen::default());
        let mut now = 0;
        let mut looked = None;
        let later = |now: u64, time: Duration| now + u64::try_from(time.as_micros()).unwrap().max(1);
        while now < end {
            let used = uses.iter().any(|at| looked.is_none_or(|looked| *at > looked) && *at <= now);
            looked = Some(now);
            match terms.step(start + Duration::from_micros(now), used) {
                Step::Lock => {
                    seen.locks.push(now);
                    now += wait;
                }
                Step::Unlock => seen.unlocks.push(now),
                Step::HandOver => seen.hand_overs.push(now),
                Step::Look(time) => now = later(now, time),
                Step::Sleep(time) => {
                    let next = uses.iter().copied().find(|at| *at > now).unwrap_or(u64::MAX);
                    now = next.min(time.map_or(u64::MAX, |time| later(now, time)));
                }
            }
            assert_eq!(terms.is_held(), seen.locks.len() > seen.unlocks.len());
        }
        seen
    }

    #[test]
    fn a_burst_is_one_lease_that_ends_soon_after_it() {
        let uses: Vec<u64> = (100..4000).step_by(50).collect();
        let seen = run(&uses, 30, 100_000);
        assert_eq!(seen.locks, [100]);
        assert!(seen.unlocks.len() == 1 && (5900..7100).contains(&seen.unlocks[0]), "{seen:?}");
        assert!(seen.hand_overs.is_empty());
    }

    #[test]
    fn who_goes_on_for_ever_rests_after_each_slice() {
        let uses: Vec<u64> = (0..200_000).step_by(50).collect();
        let seen = run(&uses, 0, 200_000);
        for (lock, unlock) in seen.locks.iter().zip(&seen.unlocks) {
            assert_eq!(unlock - lock, 10_000);
        }
        for (unlock, lock) in seen.unlocks.iter().zip(&seen.locks[1..]) {
            assert_eq!(lock - unlock, 2000);
        }
        assert!(seen.locks.len() > 15);
    }

    #[test]
    fn the_slice_begins_when_the_ranges_are_given() {
        let uses: Vec<u64> = (0..100_000).step_by(50).collect();
        let seen = run(&uses, 30_000, 100_000);
        assert_eq!((seen.locks[0], seen.unlocks[0]), (0, 40_000));
    }

    #[test]
    fn the_console_has_them_back_once_after_a_pause() {
        let seen = run(&[5, 500_000], 0, 2_000_000);
        assert_eq!(seen.hand_overs.len(), 2);
        assert!((250_000..260_000).contains(&seen.hand_overs[0]), "{seen:?}");
        assert_eq!(seen.locks, [5, 500_000]);
    }

    proptest! {
        /// Whatever is done with the card: nothing is held for longer than a slice, nor without use for long,
        /// each use is followed by a lease, and what is over is handed over.
        #[test]
        fn the_bounds_hold(
            steps in prop::collection::vec(prop_oneof![1..200_u64, 1..20_000_u64, 1..400_000_u64], 1..200),
            wait in 0..50_000_u64,
        ) {
            let uses: Vec<u64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
            let last = *uses.last().unwrap();
            let seen = run(&uses, wait, last + 1_000_000);
            prop_assert_eq!(seen.locks.len(), seen.unlocks.len());
            for (lock, unlock) in seen.locks.iter().zip(&seen.unlocks) {
                prop_assert!(unlock - lock <= wait + 10_000);
                // Some use was not long before the end: between the last two looks that found one and none.
                let given = lock + wait;
                let recent = |at: &u64| *at <= *unlock && unlock - at <= 4_100;
                prop_assert!(unlock - given <= 2_100 || uses.iter().any(recent), "{}..{}", given, unlock);
            }
            for at in &uses {
                // It was in a lease, or one follows after the rest.
                let served = seen.locks.iter().zip(&seen.unlocks).any(|(lock, unlock)| at <= unlock && *lock <= at + 2_100);
                prop_assert!(served, "{} in {:?}", at, seen);
            }
            prop_assert!(seen.hand_overs.last().is_some_and(|at| at > seen.unlocks.last().unwrap()));
        }
    }
}
