//! What the functions of one machine share: their view of memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trapline_io::{Gpa, Span};
use vm_memory::MmapRegion;

/// The kernel's two ways to VFIO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// iommufd where kernel and device have it, else groups.
    #[default]
    Auto,
    /// `/dev/vfio/vfio` and `/dev/vfio/GROUP`.
    Group,
    /// `/dev/iommu` and `/dev/vfio/devices/vfioN`.
    Iommufd,
}

/// Why memory is not mapped for DMA.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// The caller set its flag.
    #[error("mapping memory for DMA was stopped")]
    Stopped,
}

/// The memory that the functions of one machine see by DMA. One of it for all functions of a
/// machine; any thread.
#[derive(Debug)]
pub struct Iommu;

impl Iommu {
    /// Nothing is opened before the first [`super::Device::open`].
    pub fn new(interface: Interface) -> Arc<Iommu> {
        let _ = interface;
        todo!()
    }

    /// What is used; `Auto` as long as no device is open.
    pub fn interface(&self) -> Interface {
        todo!()
    }

    /// The addresses that devices can reach, ascending; empty as long as no device is open.
    pub fn ranges(&self) -> Vec<Span<Gpa>> {
        todo!()
    }

    /// Lets devices read and write `len` bytes of `memory` from byte `offset` on, at `at`. Both
    /// addresses and `len` are multiples of 4096. Keeps `memory` alive until it is unmapped.
    ///
    /// Takes long for much memory (the kernel pins each page); `stop` ends it at the next GiB. What
    /// lies at fee00000-feefffff is passed over: there a device reaches the interrupt controllers.
    ///
    /// # Errors
    /// See [`DmaError`]. Nothing of the range is mapped then.
    pub fn map(
        &self,
        at: Gpa,
        memory: &Arc<MmapRegion>,
        offset: u64,
        len: u64,
        stop: &AtomicBool,
    ) -> Result<(), DmaError> {
        let _ = (at, memory, offset, len, stop);
        todo!()
    }

    /// Takes back what [`Iommu::map`] mapped in these `len` bytes from `at` on: whole calls of `map`
    /// only. When it returns, no device reaches that memory.
    ///
    /// # Errors
    /// The range cuts through what was mapped, or the kernel refused.
    pub fn unmap(&self, at: Gpa, len: u64) -> Result<(), DmaError> {
        let _ = (at, len);
        todo!()
    }

    /// What KVM's VFIO device (`KVM_DEV_VFIO_FILE_ADD`) is to be told of: the groups, or the devices.
    /// To be asked when all devices are open.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn kvm_files(&self) -> std::io::Result<Vec<OwnedFd>> {
        todo!()
    }
}
