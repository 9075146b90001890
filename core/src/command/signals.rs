//! Signals that end the program.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::sandbox::{Kind, Seccomp};
use crate::screen::terminal;

/// While this lives, the first of the signals ends the program in good order, and a second one, for a program that
/// cannot end any more, at once.
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
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            seccomp.confine(Kind::Signals);
            let mut first = Some(first);
            for signal in signals.forever() {
                let Some(first) = first.take() else {
                    terminal::restore_at_once();
                    std::process::exit(signal.saturating_add(128));
                };
                first(u8::try_from(signal).unwrap_or(0));
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
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
