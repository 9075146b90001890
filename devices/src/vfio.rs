//! The kernel's VFIO: PCI functions of the host that are bound to `vfio-pci`.
//!
//! * [`Iommu`]: what the functions of one machine share: the kernel's interface (groups and a
//!   container, or iommufd), and guest memory as the devices see it.
//! * [`Device`]: one function, as an [`assigned::Backend`](crate::assigned::Backend).
//! * [`arbiter`] and [`lease`]: which card of the host has the legacy VGA ranges, and for how long.
//! * [`driver`]: what the drivers of the host do to an assignment.
//!
//! What a kernel offers differs. Debian's has groups only (no `CONFIG_IOMMUFD`); Ubuntu's has both ways,
//! and with both all of this was seen to work on real functions. An iommufd maps no BARs for the DMA of
//! other devices. The tests of `device` run on functions that `TRAPLINE_VFIO` names, as in the lab.
//!
//! # What vfio-ioctls does, and what not
//!
//! The container, the I/O address space of an iommufd, mapping and unmapping for DMA, and finding a
//! device's own node are vfio-ioctls'. Its `VfioDevice` is not used: its list of regions moves
//! down behind a region that is missing, its transfers and its reset tell of no errors, it connects
//! interrupts only all at once, it keeps the group to itself, which a bus reset must show to the kernel,
//! and it panics when it is dropped after its device is gone. Those calls are in `sys`, the one file
//! here with unsafe code.

pub mod arbiter;
mod attention;
mod bus_reset;
mod caps;
mod device;
mod dma;
pub mod driver;
mod error;
mod ioeventfd;
mod iommu;
mod irq;
pub mod lease;
mod message;
mod open;
mod owned;
mod region;
mod reset;
mod sys;
mod sysfs;
mod view;

pub use device::{Device, Settings};
pub use dma::DmaError;
pub use error::Error;
pub use iommu::{Interface, Iommu};
pub use lease::Lease;
pub use reset::Method;
