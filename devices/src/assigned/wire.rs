//! A connected vector and what it delivers.

use std::io;
use std::os::fd::BorrowedFd;

use crate::host::{Message, Vector};

/// A vector that remembers its message, so that only a change of it costs a system call.
#[derive(Debug)]
pub(super) struct Wire {
    vector: Box<dyn Vector>,
    message: Option<Message>,
}

impl Wire {
    /// A vector that delivers nothing yet.
    pub fn new(vector: Box<dyn Vector>) -> Wire {
        Wire { vector, message: None }
    }

    /// The eventfd that the device writes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.vector.fd()
    }

    /// Delivers `message` from now on; keeps what comes in while there is none, or none that the host
    /// takes.
    pub fn follow(&mut self, message: Option<Message>) -> io::Result<()> {
        if self.message == message {
            return Ok(());
        }
        // What is refused is not delivered, and neither is what was before: the next message is news.
        self.message = None;
        self.vector.route(message)?;
        self.message = message;
        Ok(())
    }

    /// Whether it delivers what the device signals.
    pub fn delivers(&self) -> bool {
        self.message.is_some()
    }

    /// Whether an interrupt waits for the end of the mask.
    pub fn pending(&self) -> bool {
        self.message.is_none() && self.vector.pending()
    }
}
