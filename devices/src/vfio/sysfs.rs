//! What the host says of a function in `/sys/bus/pci/devices`.

use std::fs;
use std::path::Path;

use super::{Address, Error};

/// The driver it is bound to.
pub(super) fn driver(address: Address) -> Option<String> {
    link(&address.sysfs().join("driver"))
}

/// Whether it is a virtual function of another one.
pub(super) fn is_virtual(address: Address) -> bool {
    address.sysfs().join("physfn").exists()
}

/// The number of its IOMMU group.
pub(super) fn group(address: Address) -> Option<u32> {
    link(&address.sysfs().join("iommu_group"))?.parse().ok()
}

/// How the kernel resets it, in the order in which it tries; `None` if it does not say (before 5.15).
pub(super) fn reset_methods(address: Address) -> Option<Vec<String>> {
    let text = fs::read_to_string(address.sysfs().join("reset_method")).ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// Its own node, if the kernel offers it as a device besides its group.
pub(super) fn cdev(address: Address) -> Option<String> {
    let entries = fs::read_dir(address.sysfs().join("vfio-dev")).ok()?;
    // The entry is there without CONFIG_VFIO_DEVICE_CDEV too, but is no node of /dev then.
    let node = entries.flatten().find(|entry| entry.path().join("dev").is_file())?;
    Some(format!("/dev/vfio/devices/{}", node.file_name().to_str()?))
}

/// The others of its group that the host uses, with their drivers: what keeps the group from being
/// given away.
pub(super) fn in_use(address: Address) -> Vec<(String, String)> {
    let Ok(members) = fs::read_dir(address.sysfs().join("iommu_group/devices")) else { return Vec::new() };
    let mut found: Vec<_> = members
        .flatten()
        .filter_map(|member| {
            let driver = link(&member.path().join("driver"))?;
            let harmless = driver.contains("vfio") || driver == "pcieport" || driver == "pci-stub";
            (!harmless).then(|| (member.file_name().to_string_lossy().into_owned(), driver))
        })
        .collect();
    found.sort();
    found
}

/// Sees that the function is there and bound to a VFIO driver.
pub(super) fn check(address: Address) -> Result<(), Error> {
    if !address.sysfs().is_dir() {
        return Err(Error::NoDevice(address));
    }
    match driver(address) {
        // Not only vfio-pci itself: there are variants of it for some devices, all so named.
        Some(driver) if driver.contains("vfio") => Ok(()),
        driver => Err(Error::NotBound { address, driver }),
    }
}

/// The last part of where a symbolic link leads.
fn link(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned())
}
