//! The window of the function that owns it: how its accesses are carried out now, and what would be
//! better.
//!
//! The machine turns the mode ([`trapline_io::window`]); this knows what may be wished for. Plain text
//! that is being written is shadowed. What else is written is collected. What rests is strict, and
//! nothing ticks then. A guest that works through the BARs gets them mapped.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use trapline_io::device::{Claim, Range};
use trapline_io::window::Mode;
use trapline_io::{Access, Op, Region};

use super::claims::{claims_in, collected};
use super::phase::{Phases, Rate};
use super::shadow::Shadow;
use super::state::{State, Text};
use super::{Phase, WINDOW, Ways};
use crate::assigned::Backend;
use crate::pci::spec::Command;
use crate::seen::{Mark, Seen};

mod access;

/// A function that rests wakes up after so many writes, or accesses to the window, in this time.
const BURST: (u32, Duration) = (16, Duration::from_millis(16));
/// It rests after so long without any: the first is what it takes at least. A guest that comes back while it
/// would still have been awake with twice as long makes the next rest come later, at most after the second:
/// each rest and each return stops the guest for a moment.
const IDLE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// After so many times in this time that the text window had to be read back, which is slow on a card,
/// nothing is shadowed for as long: something else writes there all the time.
const READ_BACKS: (u32, Duration) = (8, Duration::from_secs(1));
/// The same after so many starts, since each end takes a memory slot away from all vCPUs: more than one
/// for each picture of a screen.
const STARTS: (u32, Duration) = (128, Duration::from_secs(1));

/// What is known of the card's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing, and the card has to be asked.
    Unasked,
    /// Nothing answered.
    Silent,
    /// All that decides.
    Registers(State),
}

/// How much the guest does with the window.
#[derive(Debug)]
struct Traffic {
    burst: Rate,
    /// Enough to be worth a clock.
    active: bool,
    /// Something happened since the clock ticked last.
    busy: bool,
    last: Option<Instant>,
    /// After how long it rests.
    idle: Duration,
    /// When it came to rest.
    rested: Option<Instant>,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic {
            burst: Rate::new(BURST),
            active: false,
            busy: false,
            last: None,
            idle: IDLE.0,
            rested: None,
        }
    }

    /// It comes to rest now.
    fn rest(&mut self, now: Instant) {
        if std::mem::take(&mut self.active) {
            self.rested = Some(now);
        }
    }

    /// It is awake again.
    fn wake(&mut self, now: Instant) {
        if let Some(rested) = self.rested.take() {
            let soon = now.saturating_duration_since(rested) <= self.idle;
            self.idle = if soon { IDLE.1.min(2 * self.idle) } else { IDLE.0 };
        }
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Owner {
    ways: Ways,
    /// The card has the Bochs interface, which can be asked in BAR 2.
    bochs: bool,
    /// The card decodes the ports, so that it can be asked.
    decodes: bool,
    mode: Mode,
    known: Known,
    shadow: Option<Shadow>,
    /// What is shadowed.
    text: Option<Text>,
    traffic: Traffic,
    phases: Phases,
    /// The guest works through the BARs.
    native: bool,
    /// The guest uses registers of the CRT controller that a VGA does not have: nothing is shadowed
    /// in this run any more.
    pinned: bool,
    /// The text window could not be read.
    refused: bool,
    read_backs: Rate,
    starts: Rate,
    /// Until when nothing is shadowed.
    held: Option<Instant>,
    clock: Option<Thread>,
    /// Where it is noted what the guest shows.
    seen: Arc<Seen>,
    /// The registers may mean another mode than when the window was last used.
    fresh: bool,
    /// The clock was unparked, and has not ticked since.
    called: bool,
}

impl Owner {
    /// The window of a function that may do this; `None` if it is to be strict, with its BARs mapped.
    /// `bochs` says that the Bochs interface is in its BAR 2.
    pub fn new(ways: Ways, bochs: bool) -> Option<Owner> {
        if ways.phase == Phase::Native {
            return None;
        }
        let shadow = (ways.coalesced && ways.shadowed).then(Shadow::new).transpose();
        let shadow = shadow.unwrap_or_else(|error| {
            tracing::warn!("no memory for the text window's shadow: {error}");
            None
        });
        Some(Owner::of(ways, bochs, shadow))
    }

    fn of(ways: Ways, bochs: bool, shadow: Option<Shadow>) -> Owner {
        Owner {
            ways: Ways { shadowed: shadow.is_some(), ..ways },
            bochs,
            decodes: false,
            mode: Mode::Resting,
            known: Known::Unasked,
            shadow,
            text: None,
            traffic: Traffic::new(),
            phases: Phases::default(),
            native: false,
            pinned: false,
            refused: false,
            read_backs: Rate::new(READ_BACKS),
            starts: Rate::new(STARTS),
            held: None,
            clock: None,
            seen: Arc::default(),
            fresh: true,
            called: false,
        }
    }

    /// Has it noted in `seen` what the guest shows.
    pub fn note_in(&mut self, seen: Arc<Seen>) {
        self.seen = seen;
    }

    /// How accesses are carried out now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The ranges whose writes may be collected before they are carried out.
    pub fn collected(&self) -> Vec<Range> {
        collected(self.ways)
    }

    /// What is decoded at the fixed addresses with this Command register.
    pub fn claims(&self, command: Command) -> Vec<Claim> {
        let text = self.text.zip(self.shadow.as_ref());
        let text = text.map(|(text, shadow)| (text.first, shadow.memory()));
        claims_in(self.mode, self.ways, command, text)
    }

    /// Whom to unpark.
    pub fn watch(&mut self, clock: Thread) {
        self.clock = Some(clock);
        self.consider();
    }

    /// One beat: brings out what was written to the shadow, and gives the mode that is wanted.
    pub fn tick(&mut self, card: &mut dyn Backend, now: Instant) -> Mode {
        self.called = false;
        self.held = self.held.filter(|until| now < *until);
        self.flush(card);
        let traffic = &mut self.traffic;
        if std::mem::take(&mut traffic.busy) || traffic.last.is_none() {
            traffic.last = Some(now);
        }
        let quiet = traffic.last.is_some_and(|last| now.saturating_duration_since(last) >= traffic.idle);
        // Also while it rests: then the machine could not do what was wished for.
        if quiet {
            traffic.rest(now);
        }
        self.wish()
    }

    /// Goes over to a mode, if it may and can be.
    pub fn turn(&mut self, card: &mut dyn Backend, to: Mode, now: Instant) {
        if to == self.mode {
            return;
        }
        self.flush(card);
        let may = match to {
            Mode::Native => self.ways.phase == Phase::Auto,
            Mode::Resting => true,
            Mode::Coalesced => self.ways.coalesced,
            Mode::Shadowed => self.mode != Mode::Native && self.start_shadow(card, now),
        };
        if !may {
            // At rest nothing ticks, and the next wish would wait for the guest.
            return self.consider();
        }
        if to == Mode::Native {
            // From now on the guest reaches the card without any trap.
            self.native = true;
            self.disturbed();
        }
        if self.mode == Mode::Native {
            self.native = false;
            self.disturbed();
            self.phases.returned(now);
        }
        self.traffic.active = to.collects();
        self.traffic.last = None;
        if to.collects() {
            self.traffic.wake(now);
        }
        match to {
            Mode::Native => self.seen.note(Mark::Native),
            Mode::Shadowed => self.seen.note(Mark::Text),
            Mode::Resting | Mode::Coalesced => {}
        }
        self.mode = to;
        self.text = self.plain_text().filter(|_| to == Mode::Shadowed);
    }

    /// Whether a write to region 8 may be carried out without ending the shadow.
    pub fn admits(&self, access: Access) -> bool {
        let Op::Write(value) = access.op else { return true };
        if self.mode != Mode::Shadowed || access.region != Region::VGA || access.offset >= WINDOW.0 {
            return true;
        }
        let Known::Registers(mut state) = self.known else { return false };
        state.follow(access.offset, access.width, value) && state.plain_text() == self.text
    }

    /// Before an access to another region of the function than the legacy one.
    pub fn flush(&mut self, card: &mut dyn Backend) {
        if self.mode != Mode::Shadowed {
            return;
        }
        // What a register of no VGA's may have changed: what the guest sees is the text all the same.
        self.learn(card);
        if let (Some(text), Some(shadow)) = (self.text, &mut self.shadow)
            && matches!(&self.known, Known::Registers(state) if state.plain_text() == Some(text))
        {
            // One that fails is tried again at the next beat; a card that is gone says so by itself.
            let changed = shadow.flush(card, text.first).unwrap_or(false);
            self.traffic.busy |= changed;
            if changed {
                self.phases.window();
            }
        }
    }

    /// An access to a BAR that the native phase maps.
    pub fn bar(&mut self) {
        let counts = self.ways.phase == Phase::Auto && self.mode != Mode::Native;
        if counts && self.phases.bar(Instant::now) {
            self.native = true;
            self.consider();
        }
    }

    /// What the registers are is not known any more.
    pub fn forget(&mut self) {
        self.known = Known::Unasked;
        self.fresh = true;
        self.refused = false;
    }

    /// Neither is what text memory holds.
    pub fn disturbed(&mut self) {
        self.forget();
        if let Some(shadow) = &mut self.shadow {
            shadow.forget();
        }
    }

    /// The Command register was written; `ports` says whether the card decodes ports now.
    pub fn decode(&mut self, ports: bool) {
        self.forget();
        self.decodes = ports;
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.disturbed();
        self.decodes = false;
        self.mode = Mode::Resting;
        self.text = None;
        self.traffic = Traffic::new();
        self.phases = Phases::default();
        self.native = false;
    }

    /// Asks the card if nothing is known of its registers.
    fn learn(&mut self, card: &mut dyn Backend) {
        if self.known != Known::Unasked || !self.decodes {
            return;
        }
        self.known = match State::read(card, self.bochs) {
            Ok(Some(state)) => Known::Registers(state),
            Ok(None) | Err(_) => Known::Silent,
        };
        self.consider();
    }

    fn start_shadow(&mut self, card: &mut dyn Backend, now: Instant) -> bool {
        self.learn(card);
        if !self.may_shadow() {
            return false;
        }
        let (Some(text), Some(shadow)) = (self.plain_text(), &mut self.shadow) else { return false };
        let reads_back = !shadow.is_known() && self.read_backs.count(|| now);
        if self.starts.count(|| now) || reads_back {
            self.held = Some(now + READ_BACKS.1);
        }
        self.refused = shadow.start(card, text.first).is_err();
        !self.refused
    }

    fn plain_text(&self) -> Option<Text> {
        match &self.known {
            Known::Registers(state) => state.plain_text(),
            Known::Unasked | Known::Silent => None,
        }
    }

    fn may_shadow(&self) -> bool {
        let barred = self.pinned || self.refused || self.held.is_some();
        self.ways.shadowed && !barred && self.plain_text().is_some()
    }

    fn wish(&self) -> Mode {
        match () {
            () if self.native => Mode::Native,
            () if !self.traffic.active => Mode::Resting,
            // Where the text moved behind our back the shadow is to begin anew.
            () if self.may_shadow() && (self.mode != Mode::Shadowed || self.plain_text() == self.text) => {
                Mode::Shadowed
            }
            () if self.ways.coalesced => Mode::Coalesced,
            () => Mode::Resting,
        }
    }

    /// Wakes the clock if it is to turn the mode.
    fn consider(&mut self) {
        if let Some(clock) = self.clock.as_ref().filter(|_| !self.called && self.wish() != self.mode) {
            self.called = true;
            clock.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
