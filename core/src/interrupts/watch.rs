//! The thread that looks whether interrupts of the host's functions come and end.
//!
//! It is called when a function goes over to another way to interrupt ([`Seen::call`]), looks at it at the times
//! of [`LOOKS`], and from then on once in [`LATER`], until there is something to tell of or it is called again. Looks
//! that this thread came too late for are one. It reads sysfs alone: it takes no token, and no access to a function
//! waits for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trapline_devices::assigned::{Messages, Offered};
use trapline_devices::pci::PciAddress;
use trapline_devices::seen::{Seen, Signalling};

use super::count::{self, Pins, Taken};
use super::judge::{Judge, LATER, LOOKS, Look};
use crate::host::Tree;
use crate::sandbox::{Kind, Seccomp};
use crate::stoppable::{Farewell, StopFlag, StoppableThread};

/// How often the registers are read at a look, and how long it waits in between.
const SAMPLES: u32 = 16;
const BETWEEN: Duration = Duration::from_millis(1);
/// A read of a device's registers can wait for its reset.
const FAREWELL: Farewell =
    Farewell { longest: Duration::from_secs(15), hangs: "the registers of a device cannot be read" };

/// A function to be watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// What messages call it.
    pub(crate) name: String,
    /// Where it is on the host.
    pub(crate) address: PciAddress,
    /// What the guest does with it.
    pub(crate) seen: Arc<Seen>,
    /// The ways that the guest sees, and why.
    pub(crate) offered: Offered,
    /// What the guest was to see.
    pub(crate) shown: Messages,
    /// What is found out.
    pub(crate) found: Arc<Mutex<Found>>,
}

/// What was found of a function's interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How many came at least, by the line, by MSI and by MSI-X: those that were there at a look.
    pub(crate) line: u64,
    pub(crate) msi: u64,
    pub(crate) msix: u64,
    /// Messages may go to the guest uncounted.
    pub(crate) posted: bool,
    /// What was told to the user.
    pub(crate) told: Option<String>,
}

/// The thread. Dropping this has it count a last time and end, and waits for that, 15 seconds at most.
#[derive(Debug)]
pub(crate) struct Watch {
    _thread: StoppableThread,
}

impl Watch {
    /// Watches these functions of the host of which `tree` tells. Before the guest runs.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub(crate) fn start(tree: Tree, functions: Vec<Watched>, seccomp: Seccomp) -> io::Result<Watch> {
        let listened: Vec<_> = functions.iter().map(|function| Arc::clone(&function.seen)).collect();
        let posted = count::are_posted(&tree);
        let states = functions.into_iter().map(|function| State::new(function, posted)).collect();
        let watcher = Watcher { tree, states };
        let thread = StoppableThread::start("interrupts", FAREWELL, move |stop| {
            seccomp.confine(Kind::Interrupts);
            watcher.run(stop);
        })?;
        listened.iter().for_each(|seen| seen.call(thread.thread().clone()));
        // What they did before.
        thread.thread().unpark();
        Ok(Watch { _thread: thread })
    }
}

/// What the thread knows.
struct Watcher {
    tree: Tree,
    states: Vec<State>,
}

impl Watcher {
    fn run(mut self, stop: &StopFlag) {
        while !stop.is_set() {
            let now = Instant::now();
            let due = self.states.iter_mut().filter_map(|state| state.step(&self.tree, now)).min();
            match due {
                Some(due) => std::thread::park_timeout(due.saturating_duration_since(Instant::now())),
                None => std::thread::park(),
            }
        }
        for state in &mut self.states {
            state.follow(&self.tree, Instant::now());
            state.count(&self.tree);
        }
    }
}

/// One function.
struct State {
    function: Watched,
    posted: bool,
    /// The way that it went over to, after how many resets, and when.
    way: (Signalling, u32),
    since: Instant,
    /// When it is looked at next, from then on.
    next: Option<Duration>,
    /// What was counted before, of this way.
    before: u64,
    /// How many came since it went over.
    came: u64,
    judge: Judge,
}

impl State {
    fn new(function: Watched, posted: bool) -> State {
        function.found.lock().posted = posted;
        State {
            function,
            posted,
            way: (Signalling::Off, 0),
            since: Instant::now(),
            next: None,
            before: 0,
            came: 0,
            judge: Judge::default(),
        }
    }

    /// Does what is due, and gives when the next look is.
    fn step(&mut self, tree: &Tree, now: Instant) -> Option<Instant> {
        self.follow(tree, now);
        let due = self.since + self.next?;
        if due > now {
            return Some(due);
        }
        self.look(tree, now);
        let at = now.saturating_duration_since(self.since);
        let next = LOOKS.into_iter().find(|look| *look > at).unwrap_or(at + LATER);
        self.next = Some(next).filter(|_| self.function.found.lock().told.is_none());
        Some(self.since + self.next?)
    }

    /// Begins anew where the function went over to another way.
    fn follow(&mut self, tree: &Tree, now: Instant) {
        let way = (self.function.seen.signalling(), self.function.seen.resets());
        if way.0 == Signalling::Off || way == self.way {
            return;
        }
        (self.way, self.since, self.next, self.came) = (way, now, LOOKS.first().copied(), 0);
        self.judge.start_over();
        // Messages are counted anew when they are connected, a line goes on.
        let taken = Taken::read(tree, self.function.address);
        self.before = if way.0 == Signalling::Line { taken.count } else { 0 };
    }

    fn look(&mut self, tree: &Tree, now: Instant) {
        self.count(tree);
        if self.function.seen.signalling() != self.way.0 {
            // It is held back now.
            return;
        }
        let messages = self.way.0 != Signalling::Line;
        let Some(pins) = pins(tree, self.function.address, !messages) else { return };
        let count = (!messages || !self.posted).then_some(self.came);
        let at = now.saturating_duration_since(self.since);
        let wrong = self.judge.weigh(Look { at, way: self.way.0, count, pins });
        if let Some(wrong) = wrong.filter(|_| self.function.found.lock().told.is_none()) {
            let Watched { name, offered, shown, .. } = &self.function;
            let words = wrong.words(*offered, *shown);
            tracing::warn!("{name}: {words}");
            self.function.found.lock().told = Some(words);
        }
    }

    /// Counts what came since it was last counted.
    fn count(&mut self, tree: &Tree) {
        let Taken { way, count } = Taken::read(tree, self.function.address);
        if way != self.way.0 {
            return;
        }
        // Fewer than before: the messages were connected anew.
        let more = count.checked_sub(self.before).unwrap_or(count);
        (self.before, self.came) = (count, self.came + more);
        let mut found = self.function.found.lock();
        match way {
            Signalling::Line => found.line += more,
            Signalling::Msi => found.msi += more,
            Signalling::Msix => found.msix += more,
            Signalling::Off => {}
        }
    }
}

/// A function's registers, several times in a row where it has to be known whether they are always so.
fn pins(tree: &Tree, address: PciAddress, always: bool) -> Option<Pins> {
    let mut pins = Pins::read(tree, address)?;
    for _ in 1..if always { SAMPLES } else { 1 } {
        if !pins.asserted {
            break;
        }
        std::thread::sleep(BETWEEN);
        let next = Pins::read(tree, address)?;
        pins = Pins { asserted: pins.asserted && next.asserted, ..next };
    }
    Some(pins)
}

#[cfg(test)]
mod tests;
