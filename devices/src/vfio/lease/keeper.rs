//! The process that holds the arbiter's lock, and nothing else.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::terms::{Step, Terms};
use super::word::Word;
use crate::vfio::arbiter::Legacy;

/// Holds the ranges while `word` says that the card is used, by the terms of the lease, until the other end
/// of `bell` is gone. They are the console's then.
///
/// # Errors
/// The card, or the bell, is gone.
pub fn keep(word: &Word, bell: BorrowedFd<'_>, legacy: &mut dyn Legacy) -> io::Result<()> {
    let mut terms = Terms::default();
    loop {
        let over = match terms.step(Instant::now(), word.take()) {
            Step::Lock => legacy.lock().map(|()| false)?,
            Step::Unlock => legacy.unlock().map(|()| false)?,
            Step::HandOver => legacy.hand_over().map(|()| false)?,
            Step::Look(time) => is_over(bell, Some(time))?,
            Step::Sleep(time) => word.sleep() && is_over(bell, time)?,
        };
        if over {
            break;
        }
    }
    if terms.is_held() {
        legacy.unlock()?;
    }
    legacy.hand_over()
}

/// Waits for so long, or until the bell rings; true when its other end is gone.
fn is_over(bell: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<bool> {
    let time = time.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    let mut bells = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
    match poll(&mut bells, time.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::io::read(bell, &mut [0; 64]) {
        Ok(0) | Err(Errno::CONNRESET) => Ok(true),
        Ok(_) | Err(Errno::INTR | Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
