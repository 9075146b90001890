//! A lease on the host's legacy VGA ranges for bursts of accesses.
//!
//! VFIO takes the arbiter's lock for each access to region 8 and lets go of it behind that. Where two
//! cards are used at the same time, by two guests or by a guest and the host, the bridges are changed for
//! nearly every access. So while accesses go on somebody holds the lock for all of them:
//!
//! ```text
//!   vfio::Device -- used --> Word, shared -- looked at --> keeper, a process -- lock, unlock --> arbiter
//!                 \-- bell, when it sleeps ------------------^
//! ```
//!
//! # Why a process
//!
//! Who asks for the lock sleeps where no signal reaches it until whoever has it lets go. In a process that
//! holds the arbiter's descriptor, the bell and a page, this keeps nobody: nothing waits for it, neither
//! an access nor the end of a run. If either side dies, the kernel, or the end of the bell, frees the lock.
//!
//! # What is promised
//!
//! * *No access waits for the lease.* It is asked for by the way, and without it VFIO's own arbitration is
//!   as right. What an access may wait for is another's lease, in the kernel, as for another's access.
//! * *It is short* (`terms`): given up when the card was not used for 2 ms, at the latest seen 2 ms later,
//!   and after 10 ms in any case; the keeper sees to that, so also when the machine is stopped by a debugger.
//!   Then it rests, and who waited has its turn.
//! * *Two that wait for each other* cannot be: the locks of two cards exclude each other, who has one
//!   asks for no other, and gives it up without anybody's help.
//! * *What leaves together is carried out together*: the first write of a flush says that the card is used.
//!   If that write has to wait for another's lease, so has the keeper; both wake when it ends, and the
//!   rest of the flush runs inside of our lease.
//! * *The host's console has the ranges when the card is at rest*, and at the end. Linux' own text
//!   console (vgacon) asks the arbiter for nothing: it writes to wherever the ranges lead. At the end that is done
//!   before the card is closed, or once more behind it where nobody waited, since a bus reset may undo it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::arbiter::Arbiter;
use crate::pci::PciAddress;
use word::Word;

mod keeper;
mod terms;
#[cfg(test)]
mod tests;
mod word;

/// How long the keeper may take to end before it is left alone: it may sleep in the kernel.
const FAREWELL: Duration = Duration::from_millis(500);

/// The machine's end of a lease. Dropping this ends it, and waits until the host's console has the ranges, at most half
/// a second. It is to be dropped after the last access and before the card is closed, which resets the card's bus.
#[derive(Debug)]
pub struct Lease {
    word: Word,
    bell: UnixStream,
    keeper: Child,
}

impl Lease {
    /// Starts `keeper`, which is to be a [`Keeper`], and gives the arbiter's descriptor to it. Its standard error stays
    /// what it is.
    ///
    /// # Errors
    /// The system refuses a process or a descriptor.
    pub fn start(mut keeper: Command, arbiter: Arbiter) -> io::Result<Lease> {
        let word = Word::new()?;
        let (bell, theirs) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        word.send(&bell)?;
        let keeper = keeper
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(arbiter.into_fd()))
            // Ctrl-C at the terminal is for the machine.
            .process_group(0)
            .spawn()?;
        Ok(Lease { word, bell, keeper })
    }

    /// The card is about to be used. A load, and at the begin of a burst a system call that does not block.
    #[inline]
    pub fn used(&self) {
        if self.word.used() {
            self.ring();
        }
    }

    /// The number of the keeper's process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.keeper.id()
    }

    #[cold]
    fn ring(&self) {
        // A keeper that is gone is not missed, and does not go to sleep again.
        let _ = (&self.bell).write(&[0]);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Only one way: the other end sees whether it is still waited for.
        let _ = self.bell.shutdown(std::net::Shutdown::Write);
        let deadline = Instant::now() + FAREWELL;
        // What sleeps in the kernel ends when it wakes; nobody waits for it.
        while matches!(self.keeper.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The other end, in a process of its own: its standard input is the bell, through which the word comes first, its
/// output the arbiter.
#[derive(Debug)]
pub struct Keeper {
    word: Word,
    bell: OwnedFd,
    arbiter: Arbiter,
}

impl Keeper {
    /// What [`Lease::start`] gave to this process.
    ///
    /// # Errors
    /// It was not started by that, or the card is gone.
    pub fn from_stdio(card: PciAddress) -> io::Result<Keeper> {
        let bell = std::io::stdin().as_fd().try_clone_to_owned()?;
        let word = Word::receive(bell.as_fd())?;
        let arbiter = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Keeper { word, bell, arbiter: Arbiter::of(arbiter, card)? })
    }

    /// Holds the arbiter for bursts of accesses, until the machine is gone. It uses what it has and opens nothing.
    ///
    /// # Errors
    /// The card is gone.
    pub fn keep(mut self) -> io::Result<()> {
        keeper::keep(&self.word, self.bell.as_fd(), &mut self.arbiter)
    }
}
