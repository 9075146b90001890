//! The primitives that cross threads: the only place where they are named.
//!
//! The hand-over of accesses is proved by loom, which runs a test under every order of the threads'
//! steps. loom cannot see into `ArrayQueue`, parking_lot, futexes and eventfds, so `cfg(loom)` puts
//! stand-ins with the same promises, and no stronger ones, in their place. `ArrayQueue` itself, and
//! the kernel, are trusted.

#[cfg(loom)]
mod stand_in;
#[cfg(not(loom))]
mod system;

#[cfg(loom)]
pub(crate) use stand_in::*;
#[cfg(not(loom))]
pub(crate) use system::*;
