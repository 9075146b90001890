//! What a trapline guest sees: PCI configuration, the Q35 platform, virtio, functions given to the
//! guest over vfio-user, and the software VGA adapter.
//!
//! Everything here is a [`trapline_io::Device`]: plain `&mut self` code that the access path calls
//! in order. What a device needs of the host it takes as a trait of [`host`].

pub mod assigned;
pub mod host;
pub mod pci;
pub mod platform;
pub mod q35;
pub mod vfio_user;
pub mod vga;
pub mod virtio;
