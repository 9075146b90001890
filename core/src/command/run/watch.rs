//! Watches a run until it ends: shows its screen, takes keys to it.

use std::io::{self, BufWriter};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

use crate::command::log::Log;
use crate::command::say;
use crate::config::{RunConfig, Screen, Serial};
use crate::guest::{End, Guest};
use crate::screen::chord::{Action, Chord};
use crate::screen::live::{self, View};
use crate::screen::terminal::{self, Output, Terminal};
use crate::screen::typist::Typist;

/// The longest sleep, where nothing else limits it.
const SLEEP_LONGEST: Duration = Duration::from_secs(3600);

/// `SIGHUP`: what the kernel says when a terminal is gone.
const HANG_UP: u8 = 1;

/// What a run is watched for.
#[derive(Debug)]
pub(super) struct Watch {
    ended: Receiver<End>,
    deadline: Option<Instant>,
    typist: Typist,
    live: bool,
}

impl Watch {
    /// A watch over a machine that started `now`.
    pub(super) fn new(config: &RunConfig, ended: Receiver<End>, now: Instant) -> Self {
        Self {
            ended,
            deadline: config.timeout.and_then(|timeout| now.checked_add(timeout)),
            typist: Typist::new(config.keys.clone().unwrap_or_default()),
            live: is_shown(config),
        }
    }

    /// Returns why the run is over. The terminal is as it was then.
    pub(super) fn until_the_end(&mut self, guest: &mut dyn Guest, log: &Log) -> anyhow::Result<End> {
        if self.live {
            // Dropped in reverse: the terminal first, then what was kept from it.
            let _held = log.hold();
            let terminal =
                Terminal::enter().context("the terminal cannot show the screen; give --screen none")?;
            self.shown(guest, &terminal).context("the terminal failed; with --screen none the run needs none")
        } else {
            Ok(self.unseen(guest))
        }
    }

    /// The text that `--keys` waits for, if it does.
    pub(super) fn awaited(&self) -> Option<&str> {
        self.typist.awaited()
    }

    /// Without a view: sleeps until something is due.
    fn unseen(&mut self, guest: &mut dyn Guest) -> End {
        loop {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return End::Timeout;
            }
            self.type_keys(guest, now);
            match self.ended.recv_timeout(self.sleep(now, None)) {
                Ok(end) => return end,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return vanished(),
            }
        }
    }

    /// With a view in the terminal, which is taken.
    fn shown(&mut self, guest: &mut dyn Guest, terminal: &Terminal) -> anyhow::Result<End> {
        // crossterm would start a program where the terminal does not tell.
        let size = tcgetwinsize(std::io::stdout()).map(|size| (size.ws_col, size.ws_row));
        let (columns, rows) = known(size.unwrap_or_default());
        let mut view = View::new(BufWriter::with_capacity(64 << 10, Output), columns, rows, Instant::now());
        let mut chord = Chord::default();
        let mut draw_at = Instant::now();
        loop {
            let now = Instant::now();
            match self.ended.try_recv() {
                Ok(end) => return Ok(end),
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(vanished()),
            }
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(End::Timeout);
            }
            if !terminal.is_taken() {
                return Ok(End::Failed("a thread of trapline failed, as told above".into()));
            }
            self.type_keys(guest, now);
            if now >= draw_at {
                match view.draw(guest.screen(), now) {
                    // It takes nothing just now, and is drawn anew as soon as it does.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    drawn => drawn?,
                }
                draw_at = now + live::INTERVAL;
            }
            if !is_there_after(self.sleep(now, Some(draw_at))) {
                return Ok(End::Signal(HANG_UP));
            }
            let mut idle = true;
            while event::poll(Duration::ZERO)? {
                idle = false;
                match event::read()? {
                    Event::Key(key) => match chord.feed(&key) {
                        Action::Send(key) => guest.press(key),
                        Action::Leave => return Ok(End::Left),
                        Action::Help => view.help(now),
                        Action::Ignore => {}
                    },
                    Event::Resize(columns, rows) => {
                        let (columns, rows) = known((columns, rows));
                        view.resize(columns, rows);
                    }
                    _ => {}
                }
            }
            if idle {
                // A part of a key may be there, of which crossterm makes nothing yet.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn type_keys(&mut self, guest: &mut dyn Guest, now: Instant) {
        if let Some(key) = self.typist.step(now, guest.screen()) {
            guest.press(key);
        }
    }

    /// The time from `now` to what comes next.
    fn sleep(&self, now: Instant, draw_at: Option<Instant>) -> Duration {
        let next = [self.deadline, self.typist.due(now), draw_at].into_iter().flatten().min();
        next.map_or(SLEEP_LONGEST, |next| next.saturating_duration_since(now)).min(SLEEP_LONGEST)
    }
}

/// Sleeps until there is a key, a signal comes or the time is over. False if the terminal is gone: crossterm, which
/// else would wait, reads one that was hung up again and again and never comes back.
fn is_there_after(time: Duration) -> bool {
    let input = std::io::stdin();
    let mut there = [PollFd::new(&input, PollFlags::IN)];
    match poll(&mut there, Timespec::try_from(time).ok().as_ref()) {
        Ok(_) => !there[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
        Err(_) => true,
    }
}

/// Whether there is a screen to show and a terminal to show it on. One that only the card itself shows is
/// named.
fn is_shown(config: &RunConfig) -> bool {
    let wanted = config.screen == Screen::Auto && config.serial != Serial::Stdio && terminal::is_there();
    if wanted && config.adapters.only_cards_show() {
        say("the guest's screen is the assigned card's own, not this terminal; Ctrl-C ends the guest");
        return false;
    }
    wanted
}

/// The size of a terminal, or the least that all have where it does not know its own, as on a serial line.
fn known((columns, rows): (u16, u16)) -> (u16, u16) {
    if columns == 0 || rows == 0 { (80, 24) } else { (columns, rows) }
}

/// All who could tell of the end are gone: a fault of ours, but no reason to wait for ever.
fn vanished() -> End {
    End::Failed("the machine ended without saying why".into())
}
