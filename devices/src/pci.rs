//! PCI as every function of this machine has it: configuration space, BARs, capabilities, and addresses that
//! no firmware gave; and where a function of the host sits.

mod address;
mod bar;
mod caps;
mod config;
mod preplaced;
pub mod spec;
mod windows;

pub use address::{AddressError, PciAddress};
pub use bar::{Bar, BarKind};
pub use caps::{Express, Link, PortType, Power, capabilities};
pub use config::{ConfigSpace, Identity};
pub use preplaced::{Home, Moves, Places, Preplaced};
pub use windows::Windows;

/// A line of the four that a PCI function may pull (PCI 3.0 section 2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// INTA#
    A,
    /// INTB#
    B,
    /// INTC#
    C,
    /// INTD#
    D,
}

impl Pin {
    /// 0 for A to 3 for D; the Interrupt Pin register holds one more.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The pin with this index, counted modulo four.
    pub const fn of(index: u8) -> Pin {
        match index & 3 {
            0 => Pin::A,
            1 => Pin::B,
            2 => Pin::C,
            _ => Pin::D,
        }
    }

    /// The pin of a bridge that this pin of `device` behind it comes out at (PCI-to-PCI Bridge 1.2
    /// section 9.1).
    #[must_use]
    pub const fn swizzle(self, device: u8) -> Pin {
        Pin::of(self.index() + (device & 3))
    }
}

/// A device and function number: device in bits 7:3, function in bits 2:0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devfn(u8);

impl Devfn {
    /// `device` 0 to 31, `function` 0 to 7.
    pub const fn new(device: u8, function: u8) -> Option<Devfn> {
        if device < 32 && function < 8 { Some(Devfn(device << 3 | function)) } else { None }
    }
    /// As the bus has it.
    pub const fn raw(self) -> u8 {
        self.0
    }
    /// 0 to 31.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }
    /// 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}
