//! The two ways to a view of memory: which one is used, and what it reaches.

use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use rustix::io::Errno;
use trapline_io::{Gpa, Span};
use vfio_ioctls::{VfioContainer, VfioError, VfioIommufd};

use super::dma::DmaError;
use super::message::{self, capabilities, long, word};
use super::sys::{self, View};
use super::{Error, Interface, sysfs};
use crate::pci::PciAddress;

/// `VFIO_IOMMU_INFO_CAPS`
const INFO_CAPS: u32 = 1 << 1;
/// `VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE`
const CAP_IOVA_RANGE: u32 = 1;
/// The fixed part of `struct vfio_iommu_type1_info`.
const FIXED: usize = 24;

const CONTAINER: &str = "/dev/vfio/vfio";
const IOMMU: &str = "/dev/iommu";

/// Opens the view that is asked for, or the better one that the first device can use.
pub(super) fn open(address: PciAddress, wish: Interface) -> Result<View, Error> {
    let view = match wish {
        Interface::Group => container(address)?,
        Interface::Iommufd => iommufd(address)?,
        Interface::Auto => match iommufd(address) {
            Ok(view) => view,
            Err(error) => {
                tracing::debug!("no iommufd: {error}");
                container(address)?
            }
        },
    };
    let name = match &view {
        View::Container(_) => "groups and a container (/dev/vfio)",
        View::Iommufd(_) => "iommufd (/dev/iommu)",
    };
    tracing::info!("VFIO by {name}");
    Ok(view)
}

fn container(address: PciAddress) -> Result<View, Error> {
    let advice = "load the kernel's modules vfio-pci and vfio_iommu_type1 (modprobe)";
    VfioContainer::new(None).map(View::Container).map_err(|error| match error {
        VfioError::OpenContainer(error) => Error::open(address, CONTAINER.to_owned(), advice, error),
        _ => Error::Missing { address, path: format!("IOMMU of type 1 behind {CONTAINER}"), advice },
    })
}

fn iommufd(address: PciAddress) -> Result<View, Error> {
    if sysfs::cdev(address).is_none() {
        let path = sysfs::folder(address).join("vfio-dev").display().to_string();
        let advice = "this kernel offers the device only by its group (no CONFIG_VFIO_DEVICE_CDEV): leave --vfio \
                      iommufd out";
        return Err(Error::Missing { address, path, advice });
    }
    let fd = IommuFd::new().map_err(|error| match error {
        IommufdError::OpenIommufd(error) => {
            Error::open(address, IOMMU.to_owned(), "load the kernel's module iommufd (modprobe)", error)
        }
        error => Error::step(address, "open /dev/iommu", std::io::Error::other(error)),
    })?;
    VfioIommufd::new(Arc::new(fd), None, None)
        .map(View::Iommufd)
        .map_err(|error| Error::step(address, "make an I/O address space", std::io::Error::other(error)))
}

/// The addresses that devices can reach, ascending.
pub(super) fn ranges(view: &View) -> Result<Vec<Span<Gpa>>, DmaError> {
    let found = match view {
        View::Container(container) => {
            message::ask(&[0; FIXED], |message| sys::iommu_info(container, message).map(|()| 0))
                .map(|answer| decode(&answer))
        }
        View::Iommufd(iommufd) => sys::ioas_ranges(iommufd)
            .map(|found| found.iter().filter_map(|range| span(range.first, range.last)).collect()),
    };
    found.map_err(|errno: Errno| DmaError::Ranges { reason: errno.to_string() })
}

fn span(first: u64, last: u64) -> Option<Span<Gpa>> {
    Span::new(Gpa(first), Gpa(last))
}

/// `struct vfio_iommu_type1_info` and the capabilities behind it. A kernel that does not tell ranges
/// (before 5.4) is taken to reach everything.
fn decode(answer: &[u8]) -> Vec<Span<Gpa>> {
    let flags = word(answer, 4).unwrap_or(0);
    let first = if flags & INFO_CAPS != 0 { word(answer, 16).unwrap_or(0) } else { 0 };
    let mut list = capabilities(answer, first, FIXED).into_iter();
    let Some((_, at)) = list.find(|(id, _)| *id == CAP_IOVA_RANGE) else {
        return span(0, u64::MAX).into_iter().collect();
    };
    let count = word(answer, at + 8).unwrap_or(0) as usize;
    let range = |place: usize| {
        let at = at + 16 + place * 16;
        span(long(answer, at)?, long(answer, at + 8)?)
    };
    (0..count).map_while(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(caps: &[u32]) -> Vec<u8> {
        let mut words = vec![INFO_CAPS, 0, 0, u32::try_from(FIXED).unwrap(), 0];
        words.extend(caps);
        message::message(&words)
    }

    #[test]
    fn ranges_are_found_among_capabilities() {
        let caps = [
            // At 24: another one (migration), then the ranges at 40.
            2,
            40,
            0,
            0,
            1,
            0,
            2,
            0,
            0,
            0,
            0xfedf_ffff,
            0,
            0xfef0_0000,
            0,
            0xffff_ffff,
            0x7f,
        ];
        let found = decode(&answer(&caps));
        assert_eq!(found, [span(0, 0xfedf_ffff).unwrap(), span(0xfef0_0000, 0x7f_ffff_ffff).unwrap()]);
        // A count that the answer does not hold.
        assert_eq!(decode(&answer(&[1, 0, u32::MAX, 0, 0, 0, 1, 0])).len(), 1);
    }

    #[test]
    fn a_kernel_that_tells_nothing_reaches_everything() {
        assert_eq!(decode(&message::message(&[0; 5])), [span(0, u64::MAX).unwrap()]);
        assert_eq!(decode(&answer(&[7, 0])), [span(0, u64::MAX).unwrap()]);
    }
}
