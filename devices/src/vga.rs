//! The software VGA adapter, compatible with Bochs VBE: 1234:1111.
//!
//! [`Adapter`] is a PCI function like any other, and knows nothing of KVM or of sockets: the same
//! code is a function of an in-process machine and what a vfio-user server offers. Its parts are
//! those of the VGA of 1987, one file each ([`Sequencer`], [`Crtc`], [`Graphics`], [`Attribute`],
//! [`Dac`], the four planes behind the window), and [`Dispi`], the interface that Bochs added.
//!
//! # The planes in video memory
//! The planes are the first 256 KiB of video memory, interleaved: byte `4 * cell + plane`. What
//! stands in a plane is where a VGA has it: odd/even addressing clears bit 0 of the cell, chain-4
//! clears bits 1:0, and the CRT controller's byte, word and doubleword modes find it again. While
//! the Bochs interface is enabled at 8 bits per pixel or more, the window is a 64 KiB bank of video
//! memory taken as plain bytes.
//!
//! # Seeing the screen
//! [`scanout`] is a pure function of a [`Snapshot`] of the registers and of video memory. The adapter
//! keeps a snapshot up to date in a page of its own ([`Adapter::screen`], region [`SCREEN`]), so that
//! whoever holds the two descriptors has the screen, in this process or another ([`View`]), without
//! disturbing the device.

mod adapter;
mod attribute;
mod crtc;
mod dac;
mod dispi;
pub mod edid;
mod graphics;
mod memory;
mod ports;
mod registers;
mod rom;
pub mod scanout;
mod sequencer;
mod shared;
mod snapshot;
pub mod spec;
mod view;

pub use adapter::{Adapter, DISPI, SCREEN, SCREEN_SIZE, region_size};
pub use attribute::Attribute;
pub use crtc::Crtc;
pub use dac::Dac;
pub use dispi::{Dispi, Layout, MAXIMA};
pub use graphics::Graphics;
pub use registers::Registers;
pub use rom::{RomMissing, find_rom};
pub use sequencer::Sequencer;
pub use shared::Shared;
pub use snapshot::{Malformed, Snapshot};
pub use view::View;
