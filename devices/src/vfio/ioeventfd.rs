//! Writes to BARs that the kernel makes when an eventfd is signalled (`VFIO_DEVICE_IOEVENTFD` of
//! linux/vfio.h).
//!
//! The kernel makes the write in the thread of who signals, so on the vCPU that wrote to KVM's
//! ioeventfd; only while somebody holds the lock on the function's memory decode (a reset, a change of
//! COMMAND) it leaves the write to a kernel thread. It knows BARs alone, 1 to 4 bytes, nothing over the
//! MSI-X table, and a thousand of them for a device.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use trapline_io::Width;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_IOEVENTFD_8, VFIO_DEVICE_IOEVENTFD_16, VFIO_DEVICE_IOEVENTFD_32, VFIO_DEVICE_IOEVENTFD_64,
};

use super::message::message;
use super::sys::{DeviceFile, Question};

/// The descriptor that takes a write back.
const NONE: i32 = -1;

/// From now on a signal of `event` writes the low `width` bytes of `value` at byte `at` of the device's
/// file.
pub(super) fn connect(
    device: &DeviceFile,
    at: u64,
    width: Width,
    value: u64,
    event: BorrowedFd<'_>,
) -> Result<(), Errno> {
    device.ask(Question::Ioeventfd, &mut order(at, width, value, event.as_raw_fd())).map(drop)
}

/// Takes back what [`connect`] did for the same write.
pub(super) fn disconnect(device: &DeviceFile, at: u64, width: Width, value: u64) -> Result<(), Errno> {
    device.ask(Question::Ioeventfd, &mut order(at, width, value, NONE)).map(drop)
}

/// `struct vfio_device_ioeventfd`.
fn order(at: u64, width: Width, value: u64, event: i32) -> Vec<u8> {
    let size = match width {
        Width::B1 => VFIO_DEVICE_IOEVENTFD_8,
        Width::B2 => VFIO_DEVICE_IOEVENTFD_16,
        Width::B4 => VFIO_DEVICE_IOEVENTFD_32,
        Width::B8 => VFIO_DEVICE_IOEVENTFD_64,
    };
    let halves = |number: u64| [(number & 0xffff_ffff) as u32, (number >> 32) as u32];
    let ([at_low, at_high], [low, high]) = (halves(at), halves(value & width.all_ones()));
    message(&[size, at_low, at_high, low, high, event.cast_unsigned(), 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::message::{long, word};

    #[test]
    fn an_order_is_laid_out_as_the_kernel_reads_it() {
        let order = order(2 << 40 | 0x504, Width::B2, 0x12_0280, 9);
        assert_eq!((order.len(), word(&order, 0), word(&order, 4)), (32, Some(32), Some(2)));
        assert_eq!((long(&order, 8), long(&order, 16)), (Some(2 << 40 | 0x504), Some(0x280)));
        assert_eq!((word(&order, 24), word(&order, 28)), (Some(9), Some(0)));
        let none = super::order(0, Width::B4, 0, NONE);
        assert_eq!((word(&none, 4), word(&none, 24)), (Some(4), Some(u32::MAX)));
    }
}
