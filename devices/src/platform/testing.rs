//! Stand-ins for the host in the tests of devices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::host::{Event, Events, IrqLine};

/// An interrupt line that remembers.
#[derive(Debug, Default)]
pub(crate) struct Line {
    level: AtomicBool,
    rises: AtomicUsize,
}

impl Line {
    pub(crate) fn level(&self) -> bool {
        self.level.load(SeqCst)
    }
    /// How often it went from low to high.
    pub(crate) fn rises(&self) -> usize {
        self.rises.load(SeqCst)
    }
}

impl IrqLine for Line {
    fn set(&self, level: bool) {
        if !self.level.swap(level, SeqCst) && level {
            self.rises.fetch_add(1, SeqCst);
        }
    }
}

/// Events that were reported.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<Vec<Event>>);

impl Reported {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

impl Events for Reported {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// The lowest byte of what was read.
pub(crate) fn low(value: u64) -> u8 {
    value.to_le_bytes()[0]
}
