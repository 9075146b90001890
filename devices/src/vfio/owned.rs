//! What this machine has taken from the host: groups, and the functions that are open.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_GROUP_FLAGS_CONTAINER_SET, VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1v2_IOMMU,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioIommufd};

use super::message::{message, word};
use super::sys::{self, DeviceFile, Group, Question, View};
use super::{Error, sysfs};
use crate::pci::PciAddress;

/// How long the kernel may take to close what a machine had that was just killed, and when that is looked at again:
/// a transfer that is under way keeps the file open in a thread of the kernel's.
const CLOSING: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);

/// The groups and functions of a machine.
#[derive(Debug, Default)]
pub(super) struct Owned {
    groups: Vec<(u32, Group)>,
    functions: Vec<Function>,
    /// Functions that are not open and were reset together with one that is.
    fresh: Vec<PciAddress>,
}

/// A function that is open.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// Where it is.
    pub address: PciAddress,
    /// Its descriptor.
    pub file: DeviceFile,
    /// What iommufd calls it, if it was opened that way.
    pub id: Option<u32>,
    /// It was reset together with another one, and not used since.
    pub fresh: Arc<AtomicBool>,
}

impl Owned {
    /// Opens a function by whichever way `view` is.
    pub fn open(&mut self, address: PciAddress, view: &View) -> Result<Function, Error> {
        if self.functions.iter().any(|function| function.address == address) {
            return Err(Error::Twice(address));
        }
        let deadline = Instant::now() + CLOSING;
        let opened = loop {
            match self.by(address, view) {
                Err(Error::Busy { .. }) if Instant::now() < deadline => std::thread::sleep(AGAIN),
                opened => break opened,
            }
        };
        let (file, id) = opened?;
        let fresh = self.fresh.iter().position(|fresh| *fresh == address);
        let fresh = Arc::new(AtomicBool::new(fresh.map(|place| self.fresh.remove(place)).is_some()));
        let function = Function { address, file, id, fresh };
        self.functions.push(function.clone());
        Ok(function)
    }

    /// A function is closed. Its group stays, so that nobody else takes its companions meanwhile.
    pub fn close(&mut self, address: PciAddress) {
        self.functions.retain(|function| function.address != address);
    }

    /// What KVM is to know of.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let groups = self.groups.iter().map(|(_, group)| group.as_fd());
        let devices = self.functions.iter().filter(|function| function.id.is_some());
        groups.chain(devices.map(|function| function.file.fd().as_fd()))
    }

    /// The groups with their numbers.
    pub fn groups(&self) -> &[(u32, Group)] {
        &self.groups
    }

    /// These were reset together with another one.
    pub fn refreshed(&mut self, others: impl Iterator<Item = PciAddress>) {
        for other in others {
            match self.functions.iter().find(|function| function.address == other) {
                Some(function) => function.fresh.store(true, Relaxed),
                None if self.fresh.contains(&other) => {}
                None => self.fresh.push(other),
            }
        }
    }

    fn by(&mut self, address: PciAddress, view: &View) -> Result<(DeviceFile, Option<u32>), Error> {
        match view {
            View::Container(container) => Ok((self.by_group(address, container)?, None)),
            View::Iommufd(iommufd) => by_cdev(address, iommufd).map(|(file, id)| (file, Some(id))),
        }
    }

    fn by_group(&mut self, address: PciAddress, container: &VfioContainer) -> Result<DeviceFile, Error> {
        let number = sysfs::group(address).ok_or(Error::NoIommu(address))?;
        if !self.groups.iter().any(|(known, _)| *known == number) {
            let group = open_group(address, number)?;
            join(address, &group, container, self.groups.is_empty())?;
            self.groups.push((number, group));
        }
        let group = self.groups.iter().find(|(known, _)| *known == number).map(|(_, group)| group);
        let name = CString::new(address.to_string()).map_err(|_| Error::NoDevice(address))?;
        let device = group.ok_or(Errno::NODEV).and_then(|group| group.device(&name));
        device.map_err(|errno| Error::step(address, "open it", errno))
    }
}

fn open_group(address: PciAddress, number: u32) -> Result<Group, Error> {
    let advice = "load the kernel's module vfio-pci (modprobe), and see that /dev is the host's";
    let group = Group::open(number)
        .map_err(|error| Error::open(address, format!("/dev/vfio/{number}"), advice, error))?;
    let status = group.status().map_err(|errno| Error::step(address, "ask for its group", errno))?;
    if status & VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(not_viable(address, number));
    }
    if status & VFIO_GROUP_FLAGS_CONTAINER_SET != 0 {
        return Err(Error::Busy { address, path: format!("/dev/vfio/{number}") });
    }
    Ok(group)
}

fn not_viable(address: PciAddress, group: u32) -> Error {
    let others = sysfs::in_use(address).into_iter().map(|(name, driver)| format!("{name} ({driver})"));
    Error::NotViable { address, group, others: others.collect::<Vec<_>>().join(", ") }
}

/// Puts a group into the container; with the first one it gets its IOMMU.
fn join(address: PciAddress, group: &Group, container: &VfioContainer, first: bool) -> Result<(), Error> {
    let joined = group.join(container);
    let set =
        joined.and_then(|()| if first { sys::set_iommu(container, VFIO_TYPE1v2_IOMMU) } else { Ok(()) });
    set.map_err(|errno| match errno {
        // The kernel has no other use for this one here, and says more in its log.
        Errno::PERM => Error::NoInterruptRemapping(address),
        errno => Error::step(address, "give its group an IOMMU", errno),
    })
}

fn by_cdev(address: PciAddress, iommufd: &VfioIommufd) -> Result<(DeviceFile, u32), Error> {
    let path = sysfs::cdev(address).unwrap_or_else(|| "/dev/vfio/devices".to_owned());
    let advice = "load the kernel's module vfio-pci (modprobe), and see that /dev is the host's";
    let file = VfioDevice::open_cdev(&sysfs::folder(address)).map_err(|error| match error {
        VfioError::OpenDeviceCdev(error) => Error::open(address, path.clone(), advice, error),
        _ => Error::Missing { address, path: path.clone(), advice },
    })?;
    let device = DeviceFile::of_cdev(file);
    let id = bind(&device, iommufd).map_err(|errno| match errno {
        Errno::PERM => Error::NoInterruptRemapping(address),
        // What stands in the way is that the kernel cannot give all of the group to us.
        Errno::BUSY | Errno::INVAL if !sysfs::in_use(address).is_empty() => {
            not_viable(address, sysfs::group(address).unwrap_or(0))
        }
        // The kernel says so of a device, or a group, that is open elsewhere.
        Errno::BUSY | Errno::INVAL => Error::Busy { address, path },
        errno => Error::step(address, "bind it to an iommufd", errno),
    })?;
    let mut attach = message(&[0, iommufd.ioas().id(), 0]);
    device
        .ask(Question::Attach, &mut attach)
        .map_err(|errno| Error::step(address, "give it a view of memory", errno))?;
    Ok((device, id))
}

/// `struct vfio_device_bind_iommufd`; what iommufd calls the device from now on.
fn bind(device: &DeviceFile, iommufd: &VfioIommufd) -> Result<u32, Errno> {
    let fd = iommufd.iommufd().as_raw_fd().cast_unsigned();
    let mut bind = message(&[0, fd, 0]);
    device.ask(Question::BindIommufd, &mut bind)?;
    word(&bind, 12).ok_or(Errno::INVAL)
}
