//! The legacy VGA window of a function, as the machine sees it: how it is carried out now, and who may
//! change that.
//!
//! The function knows what its registers mean; the machine owns vCPUs, memory slots and KVM's
//! coalesced zones. So the function *wishes* for a [`Mode`], and the machine *turns* it, with all
//! vCPUs parked: what the function claims afterwards tells which slots there are.

use std::thread::Thread;
use std::time::Instant;

use crate::Access;

/// How the accesses to a function with legacy VGA are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// *Native phase.* The function's BARs are mapped into the guest, as far as they can be; accesses to
    /// the window and its ports trap, and are strict.
    #[default]
    Native,
    /// *Legacy phase, at rest.* No BAR is mapped. Everything traps, and nothing ticks.
    Resting,
    /// *Legacy phase.* KVM collects writes to the window and to some ports; the clock ticks.
    Coalesced,
    /// *Legacy phase.* As [`Mode::Coalesced`], and the text window is RAM of the guest's.
    Shadowed,
}

impl Mode {
    /// Whether KVM collects writes, so that somebody has to look after them from time to time.
    pub const fn collects(self) -> bool {
        matches!(self, Mode::Coalesced | Mode::Shadowed)
    }
}

/// What a function with legacy VGA has for the machine ([`crate::Device::window`]). Like all of a device it
/// is called with the token held, and after all that was queued or collected before.
pub trait Window {
    /// How its accesses are carried out now. Changed by [`Window::turn`] and by a reset alone.
    fn mode(&self) -> Mode;

    /// From now on this thread is unparked when [`Window::tick`] would have something new to say, at
    /// most once until it is called. Called once, before the machine runs.
    fn watch(&mut self, clock: Thread);

    /// One beat of the clock: brings out what the guest has written to the shadow, and gives the mode
    /// that is wanted. The clock calls this about 60 times a second while the mode
    /// [collects](Mode::collects), and else when it was unparked.
    fn tick(&mut self, now: Instant) -> Mode;

    /// Goes over to another mode; all vCPUs are parked. Leaving [`Mode::Shadowed`] brings out what the
    /// guest has written; going there reads the window from the device if need be. Where that fails
    /// the mode stays as it was. Afterwards the machine asks for the claims and makes the slots follow.
    fn turn(&mut self, to: Mode);

    /// The legacy addresses lead here from now on, and led elsewhere before: what registers and memory hold
    /// is to be asked anew.
    fn regained(&mut self);

    /// Whether this access may be carried out in this mode. If not, the machine turns to
    /// [`Mode::Coalesced`] first. Asked for writes that [`crate::device::Retire::Topology`] marks.
    fn admits(&self, access: Access) -> bool;
}
