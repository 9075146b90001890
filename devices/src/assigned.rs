//! A PCI function that is not emulated here, given to the guest: by vfio-user, later by VFIO.
