//! Writes that the kernel has collected, on their way into the queue of the function they are for.
//!
//! KVM keeps them in one ring per machine, which holds only writes for the legacy ranges of the
//! function that owns VGA (design rule 3). Whoever makes an access to that function takes them out
//! first, and so does a clock, since a guest that only writes never exits.

use crate::Trap;

/// The kernel's ring. Its entries are taken by one thread at a time.
pub trait Collected: Send + Sync {
    /// Whether nothing is there: one load, no more.
    fn is_empty(&self) -> bool;

    /// Takes the oldest write. Never blocks.
    fn pop(&self) -> Option<Trap>;
}
