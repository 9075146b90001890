//! Legacy VGA: what the function that owns it decodes at fixed addresses, beside its BARs, and how that is
//! made fast.
//!
//! The addresses are region 8 as VFIO has it, [`Region::VGA`](trapline_io::Region::VGA), whose offsets are
//! the addresses themselves. `claims` says what is decoded of them, and when a write retires.
//!
//! # The fast path, on this side
//!
//! ```text
//!   every access of the function                          the machine's clock, all vCPUs parked
//!        |                                                        |
//!        v                                                        v
//!     Owner  ---- what the registers mean ---- state          tick: flush; what mode is wanted?
//!        |  \---- what the guest works with --- phase          turn: now it is so
//!        |   \--- RAM for the text window ----- shadow              |
//!        v                                                        v
//!     Backend: the card                                       claims: slots and zones follow
//! ```
//!
//! * [`state`] knows the registers that decide what a byte in the window means. They are read from the card,
//!   and followed by each write that passes: so it does not matter who set the mode, or whether the
//!   card's BIOS ran at all. What is not known is asked for again at the next access to the window.
//! * [`shadow`] is RAM that stands for the text window while it is *plain text*: memory whose bytes stand for
//!   themselves. The guest uses it without exits; what changed is sent by comparison.
//! * [`phase`] counts what the guest works with, window or BARs. As long as a page of a BAR is mapped,
//!   writes to the window cannot be late: the guest could see that they are.
//! * [`owner`] puts them together: each access passes it, and it wishes for a mode
//!   ([`trapline_io::window::Mode`]). It never changes the mode by itself but by a reset, since slots and zones
//!   belong to the machine.
//!
//! Beside that, [`picture`] is what the host's console shows on a card before a guest has it, and again
//! after it.
//!
//! # What holds
//!
//! 1. A flush comes before whatever could tell that text is late: an access to configuration space or a
//!    BAR, a write to a port that may change what the window means, a new start of the screen, a reset, the
//!    end of the shadow. Reads of ports need none, since no register depends on text; a cursor may pass text.
//! 2. A write that may end plain text is admitted first ([`trapline_io::window::Window::admits`]); where it is
//!    not, the machine ends the shadow, and then the write is carried out. A register that is unknown to a
//!    VGA, or the Bochs interface, always ends it. An index of the CRT controller above 0x18 ends it for the
//!    run: such a card may show other memory by registers that nobody here knows.
//! 3. What text memory holds stays known while writes pass that are understood. After a write that is not
//!    (to a BAR, to the Bochs interface, to planes 0 and 1 in another mode) the next shadow reads the window
//!    back.
//! 4. Latches: a read from the shadow loads none. A guest that wants some in write modes 1 to 3 reads in
//!    that mode, where nothing is shadowed.
//! 5. A function that may only be strict ([`Phase::Native`]) has no owner: none of this is on its path.

mod claims;
pub mod owner;
pub mod phase;
pub mod picture;
pub mod shadow;
pub mod state;
#[cfg(test)]
mod testing;

pub use claims::claims;
pub use owner::Owner;

/// The window: first and last address.
pub const WINDOW: (u64, u64) = (0xa_0000, 0xb_ffff);
/// The ports, first and last of each run. 0x3bc to 0x3bf between them are a parallel port's.
pub const PORTS: [(u16, u16); 2] = [(0x3b0, 0x3bb), (0x3c0, 0x3df)];

/// What a function with legacy VGA may do to be fast. Nothing is what it does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// KVM may collect writes.
    pub coalesced: bool,
    /// The text window may be RAM with what changed carried out later. Only together with `coalesced`.
    pub shadowed: bool,
    /// The phases that it may be in.
    pub phase: Phase,
}

/// The phases of a function that owns legacy VGA: whether its guest has another way to the device, past the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// As its accesses tell.
    Auto,
    /// BARs always trap, so that writes may be collected and posted.
    Legacy,
    /// BARs are always mapped, and every access to the window is strict.
    #[default]
    Native,
}
