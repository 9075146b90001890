//! The access path of trapline: from what a guest did to the answer it gets.
//!
//! ```text
//! VM exit -> Trap -> AddressSpace::resolve -> Access -> AccessQueue of the function -> Endpoint
//!         -> (the vCPU itself, or the io_uring worker) -> Device -> Completion -> KVM_RUN
//! ```
//!
//! One direction, no way back but the [`completion::Completion`]. This crate knows addresses, file
//! descriptors and offsets; it does not know PCI registers, VFIO or KVM.
//!
//! * [`addr`], [`access`]: what the guest did ([`Trap`]) and what a device sees ([`Access`]).
//! * [`device`]: the trait [`Device`], all the code behind an endpoint.
//! * [`space`], [`publish`]: the immutable table from addresses to regions, and its publication.
//! * [`queue`], [`completion`], [`doorbell`]: the pieces that cross threads.
//! * [`endpoint`]: one function's queue and the right to touch its device.
//! * [`path`]: the whole way of one vCPU, trap in, value out.
//! * [`ring`], [`worker`]: what goes through io_uring, and the thread that drives it.
//! * [`stages`]: where the time of an access goes.

pub mod access;
pub mod addr;
pub mod completion;
pub mod device;
pub mod doorbell;
pub mod endpoint;
pub mod file;
pub mod path;
pub mod publish;
pub mod queue;
#[cfg(not(loom))]
pub mod ring;
pub mod rounds;
pub mod space;
pub mod stages;
mod sync;
#[cfg(not(loom))]
pub mod worker;

pub use access::{Access, Address, Op, Region, Trap, Width};
pub use addr::{Gpa, Port, Span};
pub use device::{Device, Fault};
