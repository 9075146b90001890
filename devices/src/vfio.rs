//! The kernel's VFIO: PCI functions of the host that are bound to `vfio-pci`.

mod address;
mod device;
mod iommu;

pub use address::{Address, BadAddress};
pub use device::{Device, Error, Settings};
pub use iommu::{DmaError, Interface, Iommu};
