//! What is seen of a function while a guest has it: noted where its state changes, never for each access.
//!
//! Whoever holds the function's token notes; any thread asks. A life of the function is the time from one
//! reset by the machine, or by a bridge above it, to the next: what worked before a reset need not work
//! after it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::thread::Thread;

/// Something that happened at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The guest had the expansion ROM decoded, as firmware does that runs it.
    Rom,
    /// The legacy window of a text mode was used.
    Text,
    /// A graphics mode was set by VGA registers, or the legacy window used in one of the Bochs interface.
    Graphics,
    /// The guest worked through the BARs of the owner of legacy VGA, so that they were mapped.
    Native,
    /// The guest let it master the bus.
    Master,
    /// The guest enabled MSI, and one of its messages.
    Msi,
    /// The guest enabled MSI-X, and one of its vectors.
    Msix,
    /// The guest reset this function alone.
    FunctionReset,
}

/// How the guest has a function interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signalling {
    /// Not at all: nothing is enabled, or all of it is masked.
    #[default]
    Off,
    /// By its INTx line.
    Line,
    /// By MSI, of which a message was unmasked.
    Msi,
    /// By MSI-X, of which a vector was unmasked.
    Msix,
}

/// Which lives of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// From the start to the first reset.
    First,
    /// All those after a reset.
    Later,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Seen {
    first: AtomicU32,
    later: AtomicU32,
    resets: AtomicU32,
    now: AtomicU8,
    /// The last way that somebody was called for.
    called: AtomicU8,
    listener: OnceLock<Thread>,
}

impl Seen {
    /// Whether it was seen in that life.
    pub fn has(&self, life: Life, mark: Mark) -> bool {
        let marks = match life {
            Life::First => &self.first,
            Life::Later => &self.later,
        };
        marks.load(Relaxed) & bit(mark) != 0
    }

    /// How often it was reset while something had been seen of it.
    pub fn resets(&self) -> u32 {
        self.resets.load(Relaxed)
    }

    /// How it interrupts now.
    pub fn signalling(&self) -> Signalling {
        Signalling::of(self.now.load(Relaxed))
    }

    /// Has `thread` unparked whenever the function interrupts in another way than when it was last. That the
    /// guest holds interrupts back for a while is no other way. The first call counts.
    pub fn call(&self, thread: Thread) {
        // A second one would be another machine's.
        let _ = self.listener.set(thread);
    }

    /// Notes what happened.
    pub(crate) fn note(&self, mark: Mark) {
        let marks = if self.resets() == 0 { &self.first } else { &self.later };
        if marks.load(Relaxed) & bit(mark) == 0 {
            marks.fetch_or(bit(mark), Relaxed);
        }
    }

    /// It interrupts in this way now.
    pub(crate) fn signals(&self, way: Signalling) {
        match way {
            Signalling::Msi => self.note(Mark::Msi),
            Signalling::Msix => self.note(Mark::Msix),
            Signalling::Off | Signalling::Line => {}
        }
        self.now.store(way as u8, Relaxed);
        if way != Signalling::Off && self.called.swap(way as u8, Relaxed) != way as u8 {
            self.listener.get().inspect(|thread| thread.unpark());
        }
    }

    /// It is as at power-on.
    pub(crate) fn reset(&self) {
        if self.first.load(Relaxed) != 0 {
            self.resets.fetch_add(1, Relaxed);
        }
        self.called.store(Signalling::Off as u8, Relaxed);
    }
}

impl Signalling {
    fn of(byte: u8) -> Signalling {
        let all = [Signalling::Off, Signalling::Line, Signalling::Msi, Signalling::Msix];
        all.into_iter().find(|way| *way as u8 == byte).unwrap_or_default()
    }
}

fn bit(mark: Mark) -> u32 {
    1 << mark as u32
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_seen_belongs_to_a_life() {
        let seen = Seen::default();
        seen.reset();
        assert_eq!(seen.resets(), 0, "nothing had happened");
        seen.note(Mark::Text);
        seen.reset();
        seen.note(Mark::Native);
        assert!(seen.has(Life::First, Mark::Text) && seen.has(Life::Later, Mark::Native));
        assert!(!seen.has(Life::First, Mark::Native) && !seen.has(Life::Later, Mark::Text));
        assert_eq!(seen.resets(), 1);
    }

    #[test]
    fn only_another_way_calls() {
        use Signalling::{Line, Msi, Off};
        let seen = Seen::default();
        seen.call(std::thread::current());
        // Waits for long where there must be a call, and for no long time where there must be none.
        let signals = |way, call: bool| {
            std::thread::park_timeout(Duration::ZERO);
            seen.signals(way);
            let longest = if call { Duration::from_secs(60) } else { Duration::from_millis(20) };
            let start = Instant::now();
            std::thread::park_timeout(longest);
            assert_eq!(start.elapsed() < longest, call, "{way:?}");
        };
        let ways = [(Line, true), (Off, false), (Line, false), (Msi, true), (Msi, false), (Line, true)];
        ways.into_iter().for_each(|(way, call)| signals(way, call));
        assert!(seen.signalling() == Line && seen.has(Life::First, Mark::Msi));
        seen.reset();
        signals(Line, true);
    }
}
