//! What devices need of the host, as traits that the machine joins to KVM.

use std::io;
use std::os::fd::BorrowedFd;

use crate::pci::Pin;

/// The interrupt inputs of the machine. In the in-kernel controllers GSI 0 to 15 reach both the
/// 8259 pair and the I/O APIC, 16 to 23 the I/O APIC alone.
pub trait Gsis: Send + Sync {
    /// Sets the level of one input. Never blocks for long; any thread.
    fn set(&self, gsi: u32, level: bool);
}

/// One interrupt line of one device: its own share of a wire that others may pull too.
pub trait IrqLine: Send + Sync {
    /// Asserts or releases the line. Never blocks for long; any thread.
    fn set(&self, level: bool);
}

/// A message signalled interrupt: what a function writes, and where (PCI 3.0 section 6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The address, of which the processors' interrupt controllers know fee00000-feefffff.
    pub address: u64,
    /// The data.
    pub data: u32,
}

/// One message signalled interrupt of an assigned function, delivered without any thread of ours.
///
/// A write to its eventfd delivers the message while there is one. Without one the write is kept: it
/// is delivered once a message is set, as a masked vector's pending bit is.
pub trait Vector: Send + std::fmt::Debug {
    /// The eventfd that the device's interrupt is connected to.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Says what is delivered from now on; `None` while the vector is masked. One or two system
    /// calls; any thread.
    ///
    /// # Errors
    /// The host has no route left, or refuses the message. What was delivered before is not any more.
    fn route(&mut self, message: Option<Message>) -> io::Result<()>;

    /// Whether a write waits for a message.
    fn pending(&self) -> bool;
}

/// A level-triggered interrupt line of an assigned function, asserted and acknowledged without any
/// thread of ours.
pub trait Level: Send + std::fmt::Debug {
    /// The eventfd whose every write asserts the line.
    fn trigger(&self) -> BorrowedFd<'_>;

    /// The eventfd that is written when the guest has acknowledged: the line is released then, and
    /// the device may assert it again.
    fn resample(&self) -> BorrowedFd<'_>;
}

/// Makes the interrupts of one assigned function. Where the line leads is known to who made this.
pub trait Interrupts: Send + Sync {
    /// `count` vectors without a message.
    ///
    /// # Errors
    /// Out of descriptors or routes.
    fn vectors(&self, count: usize) -> io::Result<Vec<Box<dyn Vector>>>;

    /// The INTx line of the function's `pin`; it leads to wherever the chipset routes the pin at any
    /// time, until it is dropped.
    ///
    /// # Errors
    /// Out of descriptors.
    fn line(&self, pin: Pin) -> io::Result<Box<dyn Level>>;
}

/// What the guest, or a device behind it, asks of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ACPI S5: the machine is to be switched off.
    PowerOff,
    /// Port 0xcf9, 0x64 or 0x92: all of the machine is to be reset.
    Reset,
    /// A function claims something else than when it was last asked, and nobody's access says so.
    Claims,
    /// A device cannot go on; the text is for a person and names the device.
    Failed(String),
}

/// Takes events to whoever runs the machine.
pub trait Events: Send + Sync {
    /// Reports `event`. Does not block and does not carry it out: the caller goes on, and its vCPU
    /// is stopped on its way back into the guest.
    fn report(&self, event: Event);
}
