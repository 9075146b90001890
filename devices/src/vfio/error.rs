//! Why a device cannot be used, in words that say what to do.

use std::io;

use crate::pci::PciAddress;

/// Why a device cannot be used. The text names the device and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("{0}: this host has no such PCI device (trapline devices --all lists them)")]
    NoDevice(PciAddress),
    /// The host still uses it.
    #[error("{address} {bound}, not to vfio-pci: `trapline bind {address}` does that", bound = Bound(.driver))]
    NotBound {
        /// The device.
        address: PciAddress,
        /// Its driver, if it has one.
        driver: Option<String>,
    },
    /// No IOMMU stands between it and memory.
    #[error(
        "{0}: no IOMMU is active for it: switch on VT-d or AMD-Vi in the host's firmware, and on an Intel host \
         boot with intel_iommu=on"
    )]
    NoIommu(PciAddress),
    /// Others that the IOMMU cannot tell from it are in use by the host.
    #[error(
        "{address}: the IOMMU cannot keep it apart from {others}, in use by the host (group {group}): \
         `trapline bind {address}` takes the whole group"
    )]
    NotViable {
        /// The device.
        address: PciAddress,
        /// Its group.
        group: u32,
        /// The others, with their drivers.
        others: String,
    },
    /// Some other process has it.
    #[error("{address}: {path} is in use, most likely by another virtual machine: stop that first")]
    Busy {
        /// The device.
        address: PciAddress,
        /// The file.
        path: String,
    },
    /// It was opened before, in this machine.
    #[error("{0} is given to the guest twice")]
    Twice(PciAddress),
    /// The kernel has no VFIO, or not this one.
    #[error("{address}: there is no {path}: {advice}")]
    Missing {
        /// The device.
        address: PciAddress,
        /// The file.
        path: String,
        /// What to do.
        advice: &'static str,
    },
    /// The user may not.
    #[error("{address}: {path} cannot be opened by this user: run as root, or give the user that file")]
    Denied {
        /// The device.
        address: PciAddress,
        /// The file.
        path: String,
    },
    /// Interrupts cannot be kept apart.
    #[error(
        "{0}: the host cannot keep a device's interrupts apart (no interrupt remapping): switch it on in the \
         firmware, or, if you trust the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1"
    )]
    NoInterruptRemapping(PciAddress),
    /// It reads as all ones.
    #[error(
        "{0}: it does not answer (all ones): it is without power or failed; a power cycle of the host brings \
         such a device back"
    )]
    Silent(PciAddress),
    /// Some other step did not work.
    #[error("{address}: cannot {what}: {source}")]
    Step {
        /// The device.
        address: PciAddress,
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

struct Bound<'a>(&'a Option<String>);

impl std::fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(driver) => write!(f, "is bound to {driver}"),
            None => write!(f, "is bound to no driver"),
        }
    }
}

impl Error {
    /// Some step that the kernel refused.
    pub(super) fn step(address: PciAddress, what: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Step { address, what, source: source.into() }
    }

    /// A file that could not be opened; `advice` for one that is not there.
    pub(super) fn open(address: PciAddress, path: String, advice: &'static str, error: io::Error) -> Error {
        use io::ErrorKind::{NotFound, PermissionDenied, ResourceBusy};
        match error.kind() {
            // A node without its driver gives ENODEV, which has no kind.
            NotFound => Error::Missing { address, path, advice },
            _ if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Error::Missing { address, path, advice }
            }
            PermissionDenied => Error::Denied { address, path },
            ResourceBusy => Error::Busy { address, path },
            _ => Error::Step { address, what: "open its VFIO file", source: error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_to_do() {
        let address: PciAddress = "01:00.0".parse().unwrap();
        let texts = [
            Error::NotBound { address, driver: Some("nouveau".into()) },
            Error::NotBound { address, driver: None },
            Error::open(address, "/dev/vfio/7".into(), "", io::ErrorKind::PermissionDenied.into()),
            Error::open(address, "/dev/vfio/7".into(), "", io::Error::from_raw_os_error(16)),
            Error::open(
                address,
                "/dev/vfio/vfio".into(),
                "modprobe vfio-pci",
                io::Error::from_raw_os_error(2),
            ),
            Error::step(address, "reset it", io::Error::from_raw_os_error(5)),
        ];
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "0000:01:00.0 is bound to nouveau, not to vfio-pci: `trapline bind 0000:01:00.0` does that",
                "0000:01:00.0 is bound to no driver, not to vfio-pci: `trapline bind 0000:01:00.0` does that",
                "0000:01:00.0: /dev/vfio/7 cannot be opened by this user: run as root, or give the user that file",
                "0000:01:00.0: /dev/vfio/7 is in use, most likely by another virtual machine: stop that first",
                "0000:01:00.0: there is no /dev/vfio/vfio: modprobe vfio-pci",
                "0000:01:00.0: cannot reset it: Input/output error (os error 5)",
            ]
        );
    }
}
