//! Signals that end the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::sandbox::{Kind, Seccomp};
use crate::screen::terminal;

/// The signals that ask a program to end.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// What closes a terminal or stops a service may say it more than once, or in two ways, within moments: a shell that
/// ends and then its terminal, `timeout`, a session. Who is impatient is slower.
const ECHO: Duration = Duration::from_secs(1);

/// While this lives, the first of the signals ends the program in good order, and a later one, for a program that
/// cannot end any more, at once. A terminal that is gone is no reason to hurry.
#[derive(Debug)]
pub(super) struct EndingSignals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl EndingSignals {
    /// Takes the signals over; `first` is called with the number of the first one, on a thread of its own.
    pub(super) fn first(first: impl FnOnce(u8) + Send + 'static) -> io::Result<Self> {
        Self::confined(Seccomp::Off, first)
    }

    /// The same, with that thread confined.
    pub(super) fn confined(seccomp: Seccomp, first: impl FnOnce(u8) + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new(ENDING)?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            seccomp.confine(Kind::Signals);
            let (mut first, mut asked) = (Some(first), Instant::now());
            for signal in signals.forever() {
                match first.take() {
                    Some(first) => {
                        asked = Instant::now();
                        first(u8::try_from(signal).unwrap_or(0));
                    }
                    None if hurries(signal, asked.elapsed()) => {
                        terminal::restore_at_once();
                        std::process::exit(signal.saturating_add(128));
                    }
                    None => {}
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

/// Whether a signal so long after the first one ends the program at once.
fn hurries(signal: i32, since: Duration) -> bool {
    signal != SIGHUP && since >= ECHO
}

/// For a process that ends when the one that started it does, and is needed until then: what stops a service, or all
/// programs of this name, is told to both.
///
/// # Errors
/// The system refuses it.
pub(crate) fn leave_to_parent() -> io::Result<()> {
    // Nobody looks.
    let told = Arc::new(AtomicBool::new(false));
    ENDING.into_iter().try_for_each(|signal| signal_hook::flag::register(signal, Arc::clone(&told)).map(drop))
}

impl Drop for EndingSignals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that panics; and if it did, the run is over all the same.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_impatient_is_told_from_an_echo() {
        let moment = Duration::from_millis(20);
        assert!([SIGINT, SIGTERM, SIGHUP, SIGQUIT].iter().all(|signal| !hurries(*signal, moment)));
        assert!([SIGINT, SIGTERM, SIGQUIT].iter().all(|signal| hurries(*signal, ECHO)));
        assert!(!hurries(SIGHUP, Duration::from_secs(3600)), "the terminal is gone, and nobody waits at it");
    }
}
