//! What is wrong with a function's interrupts, judged by looks at it that lie seconds apart.
//!
//! * [`Wrong::Silent`]: the guest enabled messages and lets the function master the bus; none has
//!   come at the look after [`LAST`].
//! * [`Wrong::Storm`] by its line: at two looks in a row the line came again and again, and the device had its reason
//!   for it at every moment: the guest acknowledges, and the reason stays.
//! * [`Wrong::Storm`] by messages: at two looks in a row there were more than any device has reasons for.
//! * [`Wrong::Unserved`]: the line has been asserted and held back since an earlier look: the guest does not
//!   acknowledge, or that ends nothing.
//!
//! The two of the line are one for a device that holds its line back by its own COMMAND register (PCI 2.3): where that
//! is let through again and the reason is still there, the host's kernel tells the guest once more without an interrupt
//! that it could count, or letting it through in between. Only a device that cannot is told of as a storm.
//!
//! A device that is merely idle, or merely busy, is none of these: it has no reason pending while it is idle, and
//! has none for moments while it is served.

use std::time::Duration;

use trapline_devices::assigned::{Messages, Offered};
use trapline_devices::seen::Signalling;

use super::count::Pins;

/// When a function is looked at, after it went over to another way to interrupt.
pub(crate) const LOOKS: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(7), Duration::from_secs(15), LAST];
/// The last of them. A driver that has enabled interrupts has had its first by then.
pub(crate) const LAST: Duration = Duration::from_secs(31);
/// Between two looks after that.
pub(crate) const LATER: Duration = Duration::from_secs(60);
/// How long the line has to be held back before that is wrong: firmware leaves devices so for a while.
const HELD: Duration = Duration::from_secs(10);
/// How many interrupts a second there must be to speak of a storm: by the line, whose reason is looked at too,
/// and by messages, of which the fastest devices send less.
const LINE_STORM: u64 = 100;
const MESSAGE_STORM: u64 = 250_000;

/// What was found at one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// When, from the time on when the function went over to this way.
    pub(crate) at: Duration,
    /// How the guest has it interrupt.
    pub(crate) way: Signalling,
    /// How many came since it did, or `None` where they cannot be counted.
    pub(crate) count: Option<u64>,
    /// Its registers, where `asserted` says that it was so at every moment of the look.
    pub(crate) pins: Pins,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// No message has come since the guest enabled them.
    Silent(Signalling),
    /// So many a second, without end.
    Storm(Signalling, u64),
    /// The line stays asserted, whatever the guest does.
    Unserved,
}

/// One function's looks.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    last: Option<Look>,
    /// Looks in a row that found a storm.
    storms: u32,
}

impl Judge {
    /// The function went over to another way.
    pub(crate) fn start_over(&mut self) {
        *self = Judge::default();
    }

    /// Takes one more look, later than those before.
    pub(crate) fn weigh(&mut self, look: Look) -> Option<Wrong> {
        let last = self.last.replace(look).filter(|last| last.way == look.way);
        // One that comes much later may be of another driver, which has just enabled them again.
        let is_last = (LAST..LAST + LATER).contains(&look.at) && last.is_none_or(|last| last.at < LAST);
        let rate = last.and_then(|last| rate(last, look));
        let storm = rate.filter(|rate| match look.way {
            Signalling::Line => *rate >= LINE_STORM && look.pins.asserted,
            Signalling::Msi | Signalling::Msix => *rate >= MESSAGE_STORM,
            Signalling::Off => false,
        });
        self.storms = if storm.is_some() { self.storms + 1 } else { 0 };
        match (look.way, storm) {
            (way, Some(rate)) if self.storms > 1 => Some(Wrong::Storm(way, rate)),
            (Signalling::Line, _) if last.is_some_and(|last| unserved(last, look)) => Some(Wrong::Unserved),
            (Signalling::Msi | Signalling::Msix, _)
                if is_last && look.count == Some(0) && look.pins.master =>
            {
                Some(Wrong::Silent(look.way))
            }
            _ => None,
        }
    }
}

/// How many a second came between two looks.
fn rate(last: Look, look: Look) -> Option<u64> {
    let more = look.count?.checked_sub(last.count?)?;
    let millis = look.at.checked_sub(last.at)?.as_millis();
    u64::try_from((u128::from(more) * 1000).checked_div(millis)?).ok()
}

fn unserved(last: Look, look: Look) -> bool {
    let stands = |look: Look| look.pins.asserted && look.pins.held && look.pins.master;
    stands(last) && stands(look) && last.count == look.count && look.at.saturating_sub(last.at) >= HELD
}

impl Wrong {
    /// For a person, with the option that helps; `offered` is what the guest sees now, because of `shown`.
    pub(crate) fn words(self, offered: Offered, shown: Messages) -> String {
        let other = || other_way(self, offered, shown);
        match self {
            Wrong::Silent(way) => format!(
                "the guest enabled its {} {} s ago and none has come; if its driver waits for them, {}",
                name(way),
                LAST.as_secs(),
                other()
            ),
            Wrong::Storm(way, rate) => format!(
                "it interrupts by its {} without end, {rate} times a second, whatever the guest does; {}",
                name(way),
                other()
            ),
            Wrong::Unserved => format!(
                "its INTx line is asserted without end: nothing in the guest serves it, or what does cannot end its \
                 reason; {}",
                other()
            ),
        }
    }
}

fn name(way: Signalling) -> &'static str {
    match way {
        Signalling::Msix => "MSI-X",
        Signalling::Msi => "MSI",
        Signalling::Line | Signalling::Off => "INTx line",
    }
}

/// What may help: another way to interrupt.
fn other_way(wrong: Wrong, offered: Offered, shown: Messages) -> &'static str {
    let Offered { line, msi, msix } = offered;
    let (Wrong::Silent(way) | Wrong::Storm(way, _)) = wrong else {
        return by_messages(offered, shown);
    };
    match way {
        Signalling::Msix if msi && line => {
            "give msi=no-msix, so that it uses MSI, or msi=off, so that it uses its line"
        }
        Signalling::Msix if msi => "give msi=no-msix, so that it uses MSI",
        Signalling::Msi if msix && line => {
            "give msi=no-msi, so that it uses MSI-X, or msi=off, so that it uses its line"
        }
        Signalling::Msi if msix => "give msi=no-msi, so that it uses MSI-X",
        Signalling::Msi | Signalling::Msix if line => "give msi=off, so that it uses its line",
        Signalling::Msi | Signalling::Msix => "it has no other way to interrupt, so no option helps",
        Signalling::Line | Signalling::Off => by_messages(offered, shown),
    }
}

/// The same for a function that uses its line.
fn by_messages(offered: Offered, shown: Messages) -> &'static str {
    match shown {
        Messages::Guest if offered.msi || offered.msix => {
            "its driver in the guest could use messages instead: see that it is loaded and not told otherwise"
        }
        Messages::Guest => "it has no other way: see that its driver is loaded in the guest",
        _ => "give msi=guest, so that its driver in the guest can use messages",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASTER: Pins = Pins { master: true, asserted: false, held: false };
    const ASSERTED: Pins = Pins { asserted: true, ..MASTER };
    const HELD_BACK: Pins = Pins { held: true, ..ASSERTED };

    /// The looks, with what was found at each of them; gives each look's verdict.
    fn judged(way: Signalling, found: impl Fn(usize) -> (Option<u64>, Pins)) -> Vec<Option<Wrong>> {
        let mut judge = Judge::default();
        let looks = LOOKS.iter().enumerate().map(|(index, at)| {
            let (count, pins) = found(index);
            Look { at: *at, way, count, pins }
        });
        looks.map(|look| judge.weigh(look)).collect()
    }

    #[test]
    fn messages_that_never_come_are_told_at_the_last_look() {
        for way in [Signalling::Msi, Signalling::Msix] {
            let verdicts = judged(way, |_| (Some(0), MASTER));
            assert_eq!(verdicts, [None, None, None, None, Some(Wrong::Silent(way))]);
            assert_eq!(judged(way, |_| (Some(1), MASTER)), [None; 5], "one is enough");
            assert_eq!(judged(way, |_| (None, MASTER)), [None; 5], "posted ones are not counted");
            assert_eq!(judged(way, |_| (Some(0), Pins::default())), [None; 5], "it can send none");
        }
        assert_eq!(judged(Signalling::Line, |_| (Some(0), MASTER)), [None; 5], "it may have no reason");
    }

    #[test]
    fn a_storm_is_told_at_the_second_look_that_finds_it() {
        let seconds = |index: usize| LOOKS[index].as_secs();
        let line = judged(Signalling::Line, |index| (Some(1000 * seconds(index)), ASSERTED));
        assert_eq!(line[..2], [None, None]);
        assert_eq!(line[2], Some(Wrong::Storm(Signalling::Line, 1000)));
        let busy = judged(Signalling::Line, |index| (Some(20_000 * seconds(index)), MASTER));
        assert_eq!(busy, [None; 5], "it was served in between");
        let slow = judged(Signalling::Line, |index| (Some(50 * seconds(index)), ASSERTED));
        assert_eq!(slow, [None; 5]);
        let messages = |rate| judged(Signalling::Msi, |index| (Some(rate * seconds(index)), ASSERTED));
        assert_eq!(messages(200_000), [None; 5]);
        assert_eq!(messages(300_000)[2], Some(Wrong::Storm(Signalling::Msi, 300_000)));
    }

    #[test]
    fn a_line_that_nobody_acknowledges_is_told_when_it_has_stood_for_long() {
        let verdicts = judged(Signalling::Line, |_| (Some(3), HELD_BACK));
        assert_eq!(verdicts, [None, None, None, None, Some(Wrong::Unserved)]);
        let served = judged(Signalling::Line, |index| (Some(index as u64), HELD_BACK));
        assert_eq!(served, [None; 5], "each time another one");
        let firmware = Pins { master: false, ..HELD_BACK };
        assert_eq!(judged(Signalling::Line, |_| (Some(3), firmware)), [None; 5]);
        assert_eq!(judged(Signalling::Line, |_| (Some(3), ASSERTED)), [None; 5], "not held back");
    }

    #[test]
    fn the_option_that_helps_is_one_that_leaves_another_way() {
        let all = Offered { line: true, msi: true, msix: true };
        let words = |way, offered| Wrong::Silent(way).words(offered, Messages::Guest);
        assert!(words(Signalling::Msix, all).contains("give msi=no-msix"));
        assert!(words(Signalling::Msi, all).contains("give msi=no-msi,"));
        let only = Offered { msi: false, ..all };
        assert!(words(Signalling::Msix, only).contains("give msi=off"));
        assert!(words(Signalling::Msi, Offered { msix: false, ..all }).contains("give msi=off"));
        let virtual_function = Offered { line: false, msi: false, msix: true };
        assert!(words(Signalling::Msix, virtual_function).ends_with("no option helps"));
        let line = |shown| Wrong::Storm(Signalling::Line, 9).words(all, shown);
        assert!(line(Messages::Off).contains("give msi=guest") && !line(Messages::Guest).contains("give"));
        assert!(Wrong::Unserved.words(all, Messages::NoMsi).contains("give msi=guest"));
    }

    proptest! {
        /// A device that is served is never accused, however it is used: whenever it is looked at twice, it has
        /// had a moment without a reason, or the line went on.
        #[test]
        fn a_device_that_is_served_is_not_accused(
            rates in prop::collection::vec(0_u64..200_000, LOOKS.len()),
            way in prop_oneof![Just(Signalling::Line), Just(Signalling::Msi), Just(Signalling::Msix)],
            held in any::<bool>(),
        ) {
            let count = |index: usize| {
                let mut before = Duration::ZERO;
                let spans = LOOKS.iter().zip(&rates).take(index + 1);
                1 + spans.map(|(at, rate)| {
                    let span = *at - before;
                    before = *at;
                    span.as_secs() * rate
                }).sum::<u64>()
            };
            let pins = Pins { held, ..MASTER };
            prop_assert_eq!(judged(way, |index| (Some(count(index)), pins)), vec![None; LOOKS.len()]);
        }
    }
}
