//! How a device is called without an access of the guest: a descriptor that the worker watches.
//!
//! A timerfd does for both causes. The device arms it for a time of its own ([`Attention::after`]);
//! another thread that has fed the device makes it expire at once ([`Poke::poke`]). Either way it
//! becomes readable, the worker calls [`trapline_io::Device::attend`] with the token held, and the
//! device starts with [`Attention::clear`] and looks at everything it waits for. The later of two
//! settings wins, so a poke may be held up by as long as the device armed: times are short, and a
//! device that is fed arms none longer than 200 ms.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// The device's side: arms and clears.
#[derive(Debug)]
pub struct Attention(Arc<OwnedFd>);

/// The other threads' side: calls the device soon.
#[derive(Clone, Debug)]
pub struct Poke(Arc<OwnedFd>);

impl Attention {
    /// A descriptor that is not readable yet.
    ///
    /// # Errors
    /// The kernel has no timerfd to give.
    pub fn new() -> io::Result<Attention> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Attention(Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)))
    }

    /// A descriptor to give to the worker, as [`trapline_io::worker::Served::attention`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// What another thread keeps to call the device.
    pub fn handle(&self) -> Poke {
        Poke(Arc::clone(&self.0))
    }

    /// Asks to be called once, `delay` from now; replaces an earlier wish. One system call.
    pub fn after(&self, delay: Duration) {
        expire(&self.0, delay);
    }

    /// Makes the descriptor unreadable again. Called first thing in `attend`.
    pub fn clear(&self) {
        let mut expirations = [0; 8];
        // Would block: another call was first.
        let _ = rustix::io::read(self.0.as_fd(), &mut expirations);
    }
}

impl Poke {
    /// Has the device called as soon as the worker comes to it. Never blocks; any thread.
    pub fn poke(&self) {
        expire(&self.0, Duration::ZERO);
    }
}

fn expire(timer: &OwnedFd, delay: Duration) {
    // Zero would disarm.
    let delay = delay.max(Duration::from_nanos(1));
    let it_value = Timespec {
        tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX / 2),
        tv_nsec: delay.subsec_nanos().into(),
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    // Fails for values out of range alone, and there are none.
    let _ = timerfd_settime(timer, TimerfdTimerFlags::empty(), &once);
}

/// Whether `descriptor` becomes readable within `limit`.
#[cfg(test)]
pub(super) fn readable_within(descriptor: impl AsFd, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_poke_and_a_time_make_it_readable_until_cleared() {
        let attention = Attention::new().unwrap();
        let watched = attention.descriptor().unwrap();
        assert!(!readable_within(&watched, NOW));
        attention.handle().poke();
        assert!(readable_within(&watched, SOON));
        attention.clear();
        assert!(!readable_within(&watched, NOW));
        attention.after(Duration::from_millis(2));
        assert!(readable_within(&watched, SOON));
        attention.clear();
        attention.clear();
    }
}
