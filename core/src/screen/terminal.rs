//! Takes the terminal over and gives it back.
//!
//! It is given back when [`Terminal`] is dropped, when any thread panics (also where a panic ends the process at
//! once), and by [`restore`], for whoever ends the process in another way. Only SIGKILL leaves it as it is; `reset`
//! helps then.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

use crossterm::cursor::Show;
use crossterm::queue;
use crossterm::style::ResetColor;
use crossterm::terminal::{DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Whether the terminal is ours now. The state of the terminal is one per process, and so is this.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();
/// The terminal's settings before it was taken over for the first time.
static SETTINGS: OnceLock<Termios> = OnceLock::new();
/// How long a terminal may take to take something, and how much a ready one is given at once: a slow line has more than
/// twice the time that it needs for so much.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
const PIECE: usize = 64;
/// How often [`restore`] tries; what a terminal does not take then stays away.
const TRIES: usize = 4;
/// What [`restore`] writes.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1049l";

/// The terminal of this process, in raw mode and on its other screen, until this is dropped.
#[derive(Debug)]
pub struct Terminal(());

impl Terminal {
    /// Takes the terminal over.
    ///
    /// # Errors
    ///
    /// What the terminal reports; it is as it was then.
    pub fn enter() -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let earlier = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // In few calls: a confined thread may not open the terminal anew.
                restore_at_once();
                earlier(panic);
            }));
        });
        if let Ok(settings) = tcgetattr(io::stdin()) {
            SETTINGS.get_or_init(|| settings);
        }
        crossterm::terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let terminal = Self(());
        let mut commands = Vec::new();
        queue!(commands, EnterAlternateScreen, DisableLineWrap)?;
        Output.write_all(&commands)?;
        Ok(terminal)
    }

    /// Whether the terminal is still ours: a panic in another thread may have given it back.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        TAKEN.load(Ordering::SeqCst)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back if it is taken. Any thread, any number of times.
pub fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut commands = Vec::new();
    // Nothing can be done if the terminal is gone: there is nobody to be told, and nothing to restore.
    let _ = queue!(commands, ResetColor, Show, EnableLineWrap, LeaveAlternateScreen);
    let _ = (0..TRIES).find(|_| Output.write_all(&commands).is_ok());
    let _ = crossterm::terminal::disable_raw_mode();
}

/// The same from a signal handler that ends the process: two system calls, no lock and no memory.
pub(crate) fn restore_at_once() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = rustix::io::write(rustix::stdio::stdout(), LEAVE);
    if let Some(settings) = SETTINGS.get() {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, settings);
    }
}

/// Whether standard input and output are both a terminal, and this process is not in its background: taking the
/// terminal over would stop it there.
#[must_use]
pub fn is_there() -> bool {
    let in_background =
        rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group != rustix::process::getpgrp());
    io::stdin().is_terminal() && io::stdout().is_terminal() && !in_background
}

/// Standard output, without the lock and the buffer of [`io::Stdout`]: neither may stand in the way of [`restore`].
#[derive(Clone, Copy, Debug)]
pub struct Output;

impl Write for Output {
    /// A terminal whose other end takes nothing is [`io::ErrorKind::WouldBlock`] after a moment.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        if poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&PATIENCE))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What is ready takes this much.
        Ok(rustix::io::write(&stdout, bytes.get(..PIECE).unwrap_or(bytes))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_back_write_the_same() {
        let mut commands = Vec::new();
        queue!(commands, ResetColor, Show, EnableLineWrap, LeaveAlternateScreen).unwrap();
        assert_eq!(commands, LEAVE);
    }
}
