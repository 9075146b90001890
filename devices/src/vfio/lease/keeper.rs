//! The process that holds the arbiter's lock, and nothing else.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::terms::{Step, Terms};
use super::word::Word;
use crate::vfio::arbiter::Legacy;

/// How long the kernel may take to close the card of a machine that did not wait: it resets its bus.
pub(super) const CLOSED: Duration = Duration::from_secs(2);

/// Holds the ranges while `word` says that the card is used, by the terms of the lease, until the other end
/// of `bell` says no more. They are the console's then.
///
/// # Errors
/// The card, or the bell, is gone.
pub fn keep(word: &Word, bell: BorrowedFd<'_>, legacy: &mut dyn Legacy) -> io::Result<()> {
    let mut terms = Terms::default();
    let mut had = false;
    loop {
        let over = match terms.step(Instant::now(), word.take()) {
            Step::Lock => {
                had = true;
                legacy.lock().map(|()| false)?
            }
            Step::Unlock => legacy.unlock().map(|()| false)?,
            Step::HandOver => legacy.hand_over().map(|()| false)?,
            Step::Look(time) => is_over(bell, Some(time))?,
            Step::Sleep(time) => word.sleep() && is_over(bell, time)?,
        };
        if over {
            break;
        }
    }
    match had {
        true => give_back(legacy, terms.is_held())?,
        false => legacy.hand_over()?,
    }
    if had && is_alone(bell)? {
        std::thread::sleep(CLOSED);
        give_back(legacy, false)?;
    }
    Ok(())
}

/// Has the ranges lead to the console whatever happened to the bridges behind the arbiter's back: it changes
/// nothing for a card that it takes for the owner. A bus reset is such a thing. The kernel reads the bridge's control
/// register before it and writes that back behind it, so a VGA Enable that was taken away meanwhile is there again.
fn give_back(legacy: &mut dyn Legacy, is_held: bool) -> io::Result<()> {
    if !is_held {
        legacy.lock()?;
    }
    legacy.unlock()?;
    legacy.hand_over()
}

/// Whether the machine is gone, or waits no longer: then its card is being closed, which resets it.
fn is_alone(bell: BorrowedFd<'_>) -> io::Result<bool> {
    let mut bells = [PollFd::from_borrowed_fd(bell, PollFlags::empty())];
    poll(&mut bells, Some(&Timespec::default()))?;
    Ok(bells.iter().any(|bell| bell.revents().contains(PollFlags::HUP)))
}

/// Waits for so long, or until the bell rings; true when its other end says no more.
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
