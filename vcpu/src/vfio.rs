//! KVM is told which VFIO files the machine uses: then it knows whether their DMA keeps the caches
//! coherent, and drivers of mediated devices find the machine.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};

use crate::vm::Vm;

impl Vm {
    /// Tells KVM of a VFIO group, or of a VFIO device that was opened by itself. It is forgotten with
    /// the machine. To be done before a group's first device is opened.
    ///
    /// # Errors
    /// What the kernel said; a kernel without the interface says `ENODEV`.
    pub fn tell_of_vfio(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut device = self.vfio.lock();
        let device = match &mut *device {
            Some(device) => device,
            none => {
                let mut wish =
                    kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, ..Default::default() };
                none.insert(self.fd().create_device(&mut wish)?)
            }
        };
        let number = file.as_raw_fd();
        let add = kvm_device_attr {
            group: KVM_DEV_VFIO_FILE,
            attr: KVM_DEV_VFIO_FILE_ADD.into(),
            addr: std::ptr::from_ref(&number) as u64,
            ..Default::default()
        };
        Ok(device.set_device_attr(&add)?)
    }
}
