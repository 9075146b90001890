//! The vfio-user protocol, both ends: VFIO's regions, interrupts and DMA over a Unix socket.
//!
//! The protocol is the one that QEMU's `docs/interop/vfio-user.rst` describes, version 0.1. Both
//! ends distrust each other: every byte that arrives is checked in [`wire`] before anything acts on
//! it, and every wait has an end.
//!
//! * [`wire`]: messages as values; pure encoding and decoding.
//! * [`client`]: the end that drives a device.
//! * [`server`]: the end that offers a [`trapline_io::Device`].
//!
//! Not spoken: twin sockets, `REGION_WRITE_MULTI`, region I/O descriptors, migration.

mod channel;
pub mod client;
pub mod server;
pub mod wire;

pub use client::Client;
pub use server::Server;
