//! What the host says of a function in `/sys/bus/pci/devices`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, driver};
use crate::pci::PciAddress;

/// Its folder.
pub(super) fn folder(address: PciAddress) -> PathBuf {
    PathBuf::from(format!("/sys/bus/pci/devices/{address}"))
}

/// The driver it is bound to.
fn bound_to(address: PciAddress) -> Option<String> {
    link(&folder(address).join("driver"))
}

/// Whether it is a virtual function of another one.
pub(super) fn is_virtual(address: PciAddress) -> bool {
    folder(address).join("physfn").exists()
}

/// The number of its IOMMU group.
pub(super) fn group(address: PciAddress) -> Option<u32> {
    link(&folder(address).join("iommu_group"))?.parse().ok()
}

/// How the kernel resets it, in the order in which it tries; `None` if it does not say (before 5.15).
pub(super) fn reset_methods(address: PciAddress) -> Option<Vec<String>> {
    let text = fs::read_to_string(folder(address).join("reset_method")).ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// Its own node, if the kernel offers it as a device besides its group.
pub(super) fn cdev(address: PciAddress) -> Option<String> {
    let entries = fs::read_dir(folder(address).join("vfio-dev")).ok()?;
    // The entry is there without CONFIG_VFIO_DEVICE_CDEV too, but is no node of /dev then.
    let node = entries.flatten().find(|entry| entry.path().join("dev").is_file())?;
    Some(format!("/dev/vfio/devices/{}", node.file_name().to_str()?))
}

/// The others of its group that the host uses, with their drivers: what keeps the group from being
/// given away.
pub(super) fn in_use(address: PciAddress) -> Vec<(String, String)> {
    let Ok(members) = fs::read_dir(folder(address).join("iommu_group/devices")) else { return Vec::new() };
    let mut found: Vec<_> = members
        .flatten()
        .filter_map(|member| {
            let driver = link(&member.path().join("driver"))?;
            driver::holds_group(&driver).then(|| (member.file_name().to_string_lossy().into_owned(), driver))
        })
        .collect();
    found.sort();
    found
}

/// Sees that the function is there and bound to a VFIO driver.
pub(super) fn check(address: PciAddress) -> Result<(), Error> {
    if !folder(address).is_dir() {
        return Err(Error::NoDevice(address));
    }
    match bound_to(address) {
        Some(driver) if driver::gives_away(&driver) => Ok(()),
        driver => Err(Error::NotBound { address, driver }),
    }
}

/// The last part of where a symbolic link leads.
fn link(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned())
}
