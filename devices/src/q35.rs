//! The Q35 chipset: host bridge, LPC bridge, root ports, interrupt routing.
//!
//! * [`Ram`]: the guest's memory, below and above the 32-bit hole; [`RamSplit`]: how much lies where, and around what.
//! * [`HostBridge`]: the MCH. What the guest sees of RAM and firmware, and the ways to configuration
//!   space, are its claims.
//! * [`Lpc`]: the ICH9's LPC bridge with power management, reset control and chipset registers.
//! * [`Pirqs`]: the wires from the INTx pins of all functions to the interrupt controllers.
//! * [`RootPort`]: a PCI Express root port, the bridge above an adapter.

mod chipset;
mod host_bridge;
mod lpc;
mod pam;
mod pirq;
mod pm;
mod ram;
mod root_port;
mod smram;
mod split;

pub use host_bridge::{FirmwareError, HostBridge};
pub use lpc::Lpc;
pub use pirq::{Following, Inputs, Pirqs};
pub use ram::{Pages, Ram, RamError, populate};
pub use root_port::RootPort;
pub use split::{HIGH_RAM, LOW_RAM_LIMIT, RamSplit};
