//! An eventfd that both KVM and the rest of the program use.

// UNSAFETY: the type that kvm-ioctls takes neither lends its descriptor nor borrows one.
#![expect(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

/// An eventfd: written by a device, read by KVM, or the other way round.
#[derive(Debug)]
pub(crate) struct Signal(EventFd);

impl Signal {
    /// A counter at zero; nothing waits on it.
    pub(crate) fn new() -> io::Result<Signal> {
        EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map(Signal)
    }

    /// As kvm-ioctls takes it.
    pub(crate) fn kvm(&self) -> &EventFd {
        &self.0
    }

    /// Adds one.
    pub(crate) fn raise(&self) -> io::Result<()> {
        self.0.write(1)
    }

    /// Whether something was written and not read since.
    pub(crate) fn is_raised(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the `EventFd`, which is open as long as `self` lives, and
        // the result cannot outlive the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Calls `f` with somebody else's eventfd in the form that kvm-ioctls takes.
pub(crate) fn with_eventfd<R>(fd: impl AsFd, f: impl FnOnce(&EventFd) -> R) -> R {
    // SAFETY: the descriptor is open until this returns, since `fd` lives as long; and it is not closed
    // here, since its owner is another.
    let event = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_fd().as_raw_fd()) });
    f(&event)
}
