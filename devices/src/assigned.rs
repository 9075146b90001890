//! A PCI function that is not emulated here, given to the guest: by vfio-user, later by VFIO.
//!
//! * [`backend`]: what any way of reaching such a function offers.
//! * [`function`]: the function as the guest sees it.

pub mod backend;
mod config;
mod error;
pub mod function;
mod options;
mod quirks;
mod rom;

pub use backend::Backend;
pub use function::{Error, Function, LegacyVga, Options, Placement, RomSource, Vga};
