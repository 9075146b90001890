//! Signals that end a run.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::run::{End, Ends};
use crate::screen::terminal;

/// While this lives, the first of the signals ends the run in good order, and a second one, for a run that can not
/// end any more, the process.
#[derive(Debug)]
pub(super) struct EndingSignals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl EndingSignals {
    /// Takes the signals over.
    pub(super) fn report_to(ends: Ends) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut first = true;
            for signal in signals.forever() {
                if !std::mem::take(&mut first) {
                    terminal::restore();
                    std::process::exit(signal.saturating_add(128));
                }
                ends.report(End::Signal(u8::try_from(signal).unwrap_or(0)));
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
