//! Virtio devices over PCI (Virtual I/O Device specification 1.2): no transitional ones.
//!
//! A device is two halves. The [`trapline_io::Device`] holds the registers and lives on the access
//! path; a [`trapline_io::worker::Task`] serves the queue on a worker's ring. They share a queue that
//! the first sets up and takes away, and the second works through.
//!
//! * [`block`]: a disk in a raw image.
//! * `pci`: configuration space, capabilities and the registers they point to.
//! * `queue`: the virtqueue that both halves share.
//! * `interrupt`: the INTx line and its status register.

pub mod block;
mod interrupt;
mod pci;
mod queue;
