//! A machine that runs, as whoever watches it sees it: a keyboard, a screen, and an end.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use trapline_devices::platform::keyboard::Key;

use crate::report::account::Account;
use crate::screen::Source;

/// A machine that runs. Dropping it stops it too.
pub trait Guest {
    /// Presses and releases a key on the guest's keyboard. Does not block; a full keyboard loses the key.
    fn press(&mut self, key: Key);

    /// The screen of the guest's VGA adapter. It stays there when the guest has ended, until [`Guest::stop`].
    fn screen(&mut self) -> &mut dyn Source;

    /// Ends the run, if it has not ended by itself, and waits until the adapter shows all that the guest has written:
    /// for seconds only if the adapter hangs.
    fn end(&mut self) {}

    /// The functions that the guest was given, for a report. What is noted of them is complete when the machine was
    /// stopped.
    fn accounts(&self) -> Vec<Account> {
        Vec::new()
    }

    /// Stops all vCPUs and workers, finishes what the guest wrote to its disks, and ends what was started for the
    /// machine. Blocks until nothing of it is left, or for 70 s: what cannot be woken then is left to the end of the
    /// process.
    ///
    /// # Errors
    ///
    /// What could not be finished, for a person.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

/// Why a run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched itself off.
    PowerOff,
    /// The machine cannot go on; the text is one line for a person and names what failed.
    Failed(String),
    /// The time was over.
    Timeout,
    /// The user left the live view.
    Left,
    /// This signal arrived.
    Signal(u8),
}

/// Takes the news that the run is over. The first counts; clones share it.
#[derive(Clone, Debug)]
pub struct Ends(SyncSender<End>);

impl Ends {
    /// Where news come in, and where they come out.
    #[must_use]
    pub fn channel() -> (Self, Receiver<End>) {
        let (sender, receiver) = sync_channel(1);
        (Self(sender), receiver)
    }

    /// The run is over. Never blocks; any thread.
    pub fn report(&self, end: End) {
        // Full: an earlier end counts. Closed: the run is over already.
        let _ = self.0.try_send(end);
    }
}
