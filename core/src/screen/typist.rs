//! Types a script on the guest's keyboard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use trapline_devices::platform::keyboard::Key;

use super::Source;
use crate::config::{Script, Step};

/// The least time between two keys: a BIOS keeps 15 of them and drops the rest, and a boot loader reads them at its
/// leisure.
const KEY_INTERVAL: Duration = Duration::from_millis(40);
/// How often the screen is looked at while a text is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Carries out a [`Script`], one step at a time. It does not sleep: the owner calls [`Typist::step`] when it is time.
#[derive(Debug)]
pub struct Typist {
    steps: VecDeque<Step>,
    /// No step is taken before this.
    due: Option<Instant>,
}

impl Typist {
    /// A typist at the start of `script`.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { steps: script.steps.into(), due: None }
    }

    /// Takes the next step if it is time for it, and returns the key to press, if any. `now` never goes back.
    pub fn step(&mut self, now: Instant, screen: &mut dyn Source) -> Option<Key> {
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        let (key, pause) = match self.steps.front()? {
            Step::Press(key) => (Some(*key), KEY_INTERVAL),
            Step::Wait(pause) => (None, *pause),
            Step::WaitText(wanted) => {
                if !screen.text().is_some_and(|text| text.shows(wanted)) {
                    self.due = now.checked_add(LOOK_INTERVAL);
                    return None;
                }
                (None, Duration::ZERO)
            }
        };
        self.steps.pop_front();
        self.due = now.checked_add(pause);
        key
    }

    /// When the next step is due, or `None` when all is typed.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.steps.front().map(|_| self.due.unwrap_or(now))
    }

    /// The text that is waited for, for a message when the run ends before it came.
    #[must_use]
    pub fn awaited(&self) -> Option<&str> {
        match self.steps.front() {
            Some(Step::WaitText(wanted)) => Some(wanted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{Cell, Frame, TextScreen};
    use trapline_devices::platform::keyboard::KeyCode;

    struct Line(&'static str);

    impl Source for Line {
        fn text(&mut self) -> Option<TextScreen> {
            let cells: Vec<Cell> = self.0.chars().map(|ch| Cell { ch, attribute: 7 }).collect();
            Some(TextScreen { columns: cells.len(), rows: 1, cells, cursor: None })
        }
        fn frame(&mut self) -> Option<Frame> {
            None
        }
    }

    #[test]
    fn keys_wait_for_time_and_for_text() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut typist = Typist::new("a<wait:1>b<wait-text:GRUB>c".parse().unwrap());
        let mut screen = Line("SeaBIOS");
        assert_eq!(typist.step(at(0), &mut screen), Some(Key::new(KeyCode::Char('a'))));
        assert_eq!(typist.step(at(39), &mut screen), None);
        assert_eq!(typist.due(at(39)), Some(at(40)));
        assert_eq!(typist.step(at(40), &mut screen), None, "the wait begins");
        assert_eq!(typist.step(at(1039), &mut screen), None);
        assert_eq!(typist.step(at(1040), &mut screen), Some(Key::new(KeyCode::Char('b'))));
        assert_eq!(typist.awaited(), Some("GRUB"));
        assert_eq!(typist.step(at(1080), &mut screen), None);
        assert_eq!(typist.due(at(1080)), Some(at(1130)));
        screen = Line("GNU GRUB 2");
        assert_eq!(typist.step(at(1130), &mut screen), None);
        assert_eq!(typist.step(at(1130), &mut screen), Some(Key::new(KeyCode::Char('c'))));
        assert_eq!(typist.due(at(1130)), None);
        assert_eq!(typist.step(at(9999), &mut screen), None);
    }
}
