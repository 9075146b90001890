//! Log lines: on standard error, but never over the live view.
//!
//! `TRAPLINE_LOG` chooses what is logged, as in `TRAPLINE_LOG=debug` or `TRAPLINE_LOG=trapline_io=trace`; without it
//! warnings are.
//! While the live view is on the terminal, lines are kept and come out when it has left.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// The most that is kept back, in bytes: the last lines before a failure matter, and the first after a start; the
/// latter are kept.
const KEPT_MOST: usize = 64 << 10;

/// Where log lines go. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Lines that wait for the terminal, or `None` when they go straight out.
    kept: Option<Vec<u8>>,
    lost: u64,
}

/// Starts logging for this process.
pub(super) fn start() -> Log {
    let log = Log::default();
    let usual = || Targets::new().with_default(LevelFilter::WARN);
    let (filter, problem) = match std::env::var("TRAPLINE_LOG") {
        Ok(text) => match text.parse() {
            Ok(filter) => (filter, None),
            Err(_) => (usual(), Some(text)),
        },
        Err(_) => (usual(), None),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(log.clone())
        .finish()
        .with(filter);
    // A second start in one process keeps the first: both would write to the same place.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(text) = problem {
        tracing::warn!("TRAPLINE_LOG={text:?} is no log filter; warnings are logged");
    }
    log
}

impl Log {
    /// Keeps lines back until the result is dropped.
    pub(super) fn hold(&self) -> Held {
        self.0.lock().kept.get_or_insert_default();
        Held(self.clone())
    }
}

/// Keeps log lines back.
#[derive(Debug)]
pub(super) struct Held(Log);

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        let kept = state.kept.take().unwrap_or_default();
        // A standard error that is closed takes no log.
        let _ = io::stderr().write_all(&kept);
        if state.lost > 0 {
            let _ = writeln!(
                io::stderr(),
                "trapline: {} log lines were lost while the screen was shown",
                state.lost
            );
            state.lost = 0;
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

/// Writes lines to a [`Log`]. The subscriber writes each with one call.
#[derive(Debug)]
pub(super) struct Line(Log);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock();
        match &mut state.kept {
            // A failure would be told on standard error by the subscriber, which panics if that fails too; and a
            // machine is not to end because the disk of its log is full.
            None => drop(io::stderr().write_all(bytes)),
            Some(kept) if kept.len() + bytes.len() <= KEPT_MOST => kept.extend_from_slice(bytes),
            Some(_) => state.lost += 1,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_within_bounds() {
        let log = Log::default();
        let held = log.hold();
        let mut line = log.make_writer();
        for _ in 0..100 {
            line.write_all(&[b'x'; 1000]).unwrap();
        }
        let state = log.0.lock();
        assert_eq!((state.kept.as_ref().map(Vec::len), state.lost), (Some(65_000), 35));
        drop(state);
        // The lines themselves are not wanted in the output of the tests.
        log.0.lock().kept = Some(Vec::new());
        log.0.lock().lost = 0;
        drop(held);
        assert!(log.0.lock().kept.is_none());
    }
}
