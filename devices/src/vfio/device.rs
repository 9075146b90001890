//! One function.

use std::sync::Arc;

use trapline_io::{Fault, Region, Width};

use super::{Address, Iommu};
use crate::assigned::backend::{Backend, RegionInfo};
use crate::host::Events;

/// How to use a device.
#[derive(Clone, Default)]
pub struct Settings {
    /// Who is told when the device fails or the host wants it back; else it is only logged.
    pub events: Option<Arc<dyn Events>>,
}

/// Why a device cannot be used. The text names the device and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("{0}: this host has no such PCI device")]
    NoDevice(Address),
}

/// A function of the host, as a [`Backend`].
#[derive(Debug)]
pub struct Device;

impl Device {
    /// Opens the function at `address`. Its interrupts are off, it decodes nothing and masters no bus.
    /// Waits for the kernel, which resets the device: up to some seconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(address: Address, iommu: &Arc<Iommu>, settings: Settings) -> Result<Device, Error> {
        let _ = (address, iommu, settings);
        todo!()
    }

    /// Where it is on the host.
    pub fn address(&self) -> Address {
        todo!()
    }
}

impl Backend for Device {
    fn name(&self) -> &str {
        todo!()
    }

    fn regions(&self) -> &[RegionInfo] {
        todo!()
    }

    fn is_dead(&self) -> bool {
        todo!()
    }

    fn resettable(&self) -> bool {
        todo!()
    }

    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let _ = (region, offset, width);
        todo!()
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let _ = (region, offset, width, value);
        todo!()
    }

    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let _ = (region, offset, bytes);
        todo!()
    }

    fn reset(&mut self) -> Result<(), Fault> {
        todo!()
    }
}
