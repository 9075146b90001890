//! The host's PCI functions, as sysfs tells of them: what can be given to a guest, and what stands in
//! the way.
//!
//! * [`address`]: where a function sits.

pub mod address;

pub use address::PciAddress;
