//! KVM for trapline: the virtual machine, its memory slots, its vCPU threads, and stopping them all.
//!
//! ```text
//! Vcpus (one thread each):  KVM_RUN -> exit -> Trap -> io::path::Path -> KVM_RUN
//! World:                    one topology mutex, park() and what wakes a vCPU out of KVM_RUN
//! Slots:                    what of the published address space the guest reaches without a trap
//! Ioeventfds:               what of it signals a device without an exit
//! Zones, Coalesced:         which writes the kernel collects, and the ring that it puts them into
//! Vm:                       the KVM objects: interrupt controllers, timer, clock
//! MessageVector, LevelLine: interrupts of assigned functions, from eventfd to vCPU inside the kernel
//! bare:                     a vCPU without any of it, which a benchmark compares the rest with
//! ```
//!
//! This crate knows `trapline-io` and KVM; it knows no device and no PCI.
//!
//! # Order of a start, and of an end
//!
//! 1. [`Vm::new`], [`World::new`], [`Slots::new`]; the first address space is published and its
//!    slots added.
//! 2. [`Vcpus::spawn`] makes every descriptor and thread; the threads stand parked.
//! 3. [`World::release`] lets them run.
//! 4. [`World::stop`] sends them home, [`Vcpus::join`] waits for it. Slots may go afterwards.
//!
//! # Which thread calls which ioctl
//!
//! The descriptor of a vCPU belongs to its thread, and to nobody else: what must be done to a vCPU
//! from outside ([`Vcpus::reset`]) is an errand that the parked thread carries out itself. Only the
//! byte `immediate_exit` of its shared page is written by others, see the module `kick`.
//!
//! # Unsafe code
//!
//! In `slots` (handing memory to KVM), `kick` (the byte `immediate_exit`), `run` (the element size
//! of string I/O, a field of a C union), `coalesced` (the ring's page), `pit` (`KVM_REINJECT_CONTROL`),
//! `state` (`KVM_SET_XSAVE`) and `eventfd` (lending and borrowing a descriptor); nowhere else.

pub mod bare;
mod chips;
mod coalesced;
pub mod cpuid;
mod eventfd;
pub mod exit;
pub mod ioeventfd;
mod irqfd;
mod kick;
mod pit;
mod routes;
mod run;
pub mod slots;
mod state;
mod thread;
mod vcpus;
mod vfio;
mod vm;
pub mod world;
mod zones;

pub use coalesced::Coalesced;
pub use ioeventfd::{Ioeventfd, Ioeventfds};
pub use irqfd::{LevelLine, LineMover, MessageVector};
pub use kick::interrupt_others;
pub use routes::{Inputs, Message};
pub use slots::{Slot, Slots};
pub use vcpus::{Error, Exits, Vcpus};
pub use vm::{OpenError, Vm};
pub use world::{NotParked, Overtaken, Parked, World, WorldGuard};
pub use zones::{ZoneError, Zones};
