//! Resetting a bus with all that hangs on it (`VFIO_DEVICE_PCI_HOT_RESET`).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{VFIO_PCI_HOT_RESET_FLAG_DEV_ID, VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED};

use super::message::{message, put, word};
use super::owned::Owned;
use super::reset::{self, Affected, Bus, Owners};
use super::sys::{DeviceFile, Question};
use crate::pci::PciAddress;

/// The fixed part of `struct vfio_pci_hot_reset_info`, and an entry.
const FIXED: usize = 12;
const ENTRY: usize = 8;
/// More functions than hang on a bus, with all that a slot's bridges have.
const MOST: usize = 1024;

/// Whom a reset of the bus of `device` would reset.
pub(super) fn affected(device: &DeviceFile, owned: &Owned) -> Bus {
    let Some((flags, all)) = ask(device) else { return Bus::Impossible };
    let groups: Vec<u32> = owned.groups().iter().map(|(number, _)| *number).collect();
    let owners = if flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID != 0 {
        Owners::Iommufd { all: flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED != 0 }
    } else {
        Owners::Groups(&groups)
    };
    reset::bus(&all, owners)
}

fn ask(device: &DeviceFile) -> Option<(u32, Vec<Affected>)> {
    let mut answer = vec![0; FIXED + MOST * ENTRY];
    let size = u32::try_from(answer.len()).ok()?;
    put(&mut answer, 0, size);
    device.ask(Question::HotResetInfo, &mut answer).ok()?;
    Some(decode(&answer))
}

fn decode(answer: &[u8]) -> (u32, Vec<Affected>) {
    let count = word(answer, 8).unwrap_or(0) as usize;
    let entry = |place: usize| {
        let at = FIXED + place * ENTRY;
        let owner = word(answer, at)?;
        let [low, high, bus, function] = word(answer, at + 4)?.to_le_bytes();
        let domain = u32::from(u16::from_le_bytes([low, high]));
        let address = PciAddress::new(domain, bus, function >> 3, function & 7)?;
        Some(Affected { address, owner })
    };
    (word(answer, 4).unwrap_or(0), (0..count).map_while(entry).collect())
}

/// Resets the bus. All that [`affected`] tells must be ours.
pub(super) fn carry_out(device: &DeviceFile, owned: &Owned) -> Result<(), Errno> {
    let (_, all) = ask(device).ok_or(Errno::NODEV)?;
    // With groups the kernel wants to see those of the functions, and no others. An iommufd knows its
    // devices.
    let affected = |number: u32| all.iter().any(|function| function.owner == number);
    let groups = owned.groups().iter().filter(|(number, _)| affected(*number));
    let groups: Vec<u32> = groups.map(|(_, group)| group.as_fd().as_raw_fd().cast_unsigned()).collect();
    let mut words = vec![0, u32::try_from(groups.len()).unwrap_or(0)];
    words.extend(groups);
    device.ask(Question::HotReset, &mut message(&words)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_as_the_kernel_writes_it() {
        let mut answer = message(&[0, 2, 13, 0x0001_0000, 14, 0x0902_0001]);
        answer.extend([0; 8]);
        let (flags, all) = decode(&answer);
        assert_eq!(flags, 0);
        let seen: Vec<(String, u32)> = all.iter().map(|one| (one.address.to_string(), one.owner)).collect();
        assert_eq!(seen, [("0000:01:00.0".to_owned(), 13), ("0001:02:01.1".to_owned(), 14)]);
    }
}
