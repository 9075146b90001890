//! Takes the terminal over and gives it back.
//!
//! It is given back when [`Terminal`] is dropped, when any thread panics (also where a panic ends the process at once),
//! and by [`restore`], for whoever ends the process in another way. Only SIGKILL leaves it as it is; `reset` helps then.

use std::io::{self, IsTerminal, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::queue;
use crossterm::style::ResetColor;
use crossterm::terminal::{DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen};

/// Whether the terminal is ours now. The state of the terminal is one per process, and so is this.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

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
                restore();
                earlier(panic);
            }));
        });
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
    let _ = Output.write_all(&commands);
    let _ = crossterm::terminal::disable_raw_mode();
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
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
