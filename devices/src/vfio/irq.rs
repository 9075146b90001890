//! Interrupts: what a device has, and connecting them to eventfds.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
};

use super::message::{message, word};
use super::sys::{DeviceFile, Question};
use crate::assigned::backend::Irqs;

/// Kinds of interrupts (`VFIO_PCI_*_IRQ_INDEX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Index {
    /// The pin.
    Intx = 0,
    /// MSI.
    Msi = 1,
    /// MSI-X.
    Msix = 2,
    /// The device failed (PCI Express advanced error reporting).
    Error = 3,
    /// The host wants the device back.
    Request = 4,
}

/// How many interrupts of a kind there are, and `VFIO_IRQ_INFO_*`; none where the kernel does not
/// know the kind.
pub(super) fn count(device: &DeviceFile, index: Index) -> (u16, u32) {
    let mut question = message(&[0, index as u32, 0]);
    if device.ask(Question::Irq, &mut question).is_err() {
        return (0, 0);
    }
    let count = word(&question, 12).unwrap_or(0);
    (u16::try_from(count).unwrap_or(u16::MAX), word(&question, 4).unwrap_or(0))
}

/// What the device can signal to the guest.
pub(super) fn learn(device: &DeviceFile) -> Irqs {
    let (msix, flags) = count(device, Index::Msix);
    Irqs {
        intx: count(device, Index::Intx).0 > 0,
        msi: count(device, Index::Msi).0,
        msix,
        msix_grows: flags & VFIO_IRQ_INFO_NORESIZE == 0,
    }
}

/// `struct vfio_irq_set` with descriptors.
fn set(action: u32, index: Index, start: u32, fds: &[BorrowedFd<'_>]) -> Vec<u8> {
    let count = u32::try_from(fds.len()).unwrap_or(0);
    let mut words = vec![action | VFIO_IRQ_SET_DATA_EVENTFD, index as u32, start, count];
    words.extend(fds.iter().map(|fd| fd.as_raw_fd().cast_unsigned()));
    message(&words)
}

/// Connects the interrupts from `start` on to these eventfds.
///
/// # Errors
/// [`Errno::NOSPC`] if the host has fewer interrupts to give; nothing is connected then.
pub(super) fn connect(
    device: &DeviceFile,
    index: Index,
    start: u32,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut order = set(VFIO_IRQ_SET_ACTION_TRIGGER, index, start, fds);
    match device.ask(Question::SetIrqs, &mut order)? {
        0 => Ok(()),
        _ => Err(Errno::NOSPC),
    }
}

/// From now on a write to `fd` unmasks INTx.
pub(super) fn connect_unmask(device: &DeviceFile, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut order = set(VFIO_IRQ_SET_ACTION_UNMASK, Index::Intx, 0, &[fd]);
    device.ask(Question::SetIrqs, &mut order).map(drop)
}

/// Disconnects all interrupts of a kind and disables it.
pub(super) fn disconnect(device: &DeviceFile, index: Index) -> Result<(), Errno> {
    let mut order = message(&[VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE, index as u32, 0, 0]);
    device.ask(Question::SetIrqs, &mut order).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_order_is_laid_out_as_the_kernel_reads_it() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let order = set(VFIO_IRQ_SET_ACTION_TRIGGER, Index::Msix, 5, &[file.as_fd(), file.as_fd()]);
        let fd = file.as_raw_fd().cast_unsigned();
        let words: Vec<u32> = (0..7).map(|at| word(&order, at * 4).unwrap()).collect();
        assert_eq!(words, [28, 0x24, 2, 5, 2, fd, fd]);
        assert_eq!(order.len(), 28);
    }
}
