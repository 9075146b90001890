//! A PCI function that is not emulated here, given to the guest: by VFIO or vfio-user.
//!
//! * [`backend`]: what any way of reaching such a function offers.
//! * [`function`]: the function as the guest sees it.

pub mod backend;
mod config;
pub mod function;
mod quirks;
mod rom;

pub use backend::Backend;
pub use function::{Error, Function, Options, RomSource, Vga};
