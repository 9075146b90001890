//! A PCI function that is not emulated here, given to the guest: by VFIO or vfio-user.
//!
//! * [`backend`]: what any way of reaching such a function offers.
//! * [`function`]: the function as the guest sees it.
//!
//! Inside, the function is made of what its configuration space shows (`config`, made of `header`,
//! `express` and `extended`), of its interrupts (`interrupts`, by the registers of `msi` and `msix`), of
//! its ROM, of quirks, and of writes that the kernel makes by itself (`repeats`).

pub mod backend;
mod config;
mod error;
mod express;
mod extended;
pub mod function;
mod header;
mod interrupts;
mod msi;
mod msix;
mod options;
mod quirks;
mod registers;
mod repeats;
mod rom;
mod wire;

pub use backend::Backend;
pub use function::{
    CLIQUE_LARGEST, Error, Function, LegacyVga, Messages, Options, Placement, RomSource, Vga,
};
pub use interrupts::Offered;
pub use quirks::igd::Igd;
pub use quirks::{is_foreign, overlay_name};
