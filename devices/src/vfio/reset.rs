//! Bringing a device to the state of power-on: by which way, and whether it worked.
//!
//! The kernel resets a function on request if it knows how; how, it says in sysfs. A function level
//! reset is best. A change of power state (D3hot and back) clears less than it should on many display
//! adapters, so a reset of the whole bus is better than that, if all that hangs on the bus is ours.

pub(super) mod bonaire;

use std::fmt;

use crate::pci::PciAddress;

/// How a device is reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel resets the function, in the way that it names.
    Function(String),
    /// The kernel resets the bus, and all these functions with it.
    Bus(Vec<PciAddress>),
    /// The chip's own controller does, in a sequence of its registers: a bus reset does not work on it.
    Own,
    /// The kernel switches the function's power state: what it forgets is the device's to know.
    Power,
    /// Not at all. Why not is told.
    None(String),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Function(how) => write!(f, "function reset ({how})"),
            Method::Bus(all) => write!(f, "bus reset of {}", list(all.iter())),
            Method::Own => write!(f, "by the chip's own controller"),
            Method::Power => write!(f, "power state (D3hot and back), which may leave some state"),
            Method::None(why) => write!(f, "none: {why}"),
        }
    }
}

/// What decides about the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The kernel resets the function on request (`VFIO_DEVICE_FLAGS_RESET`).
    pub kernel: bool,
    /// How, in its order of preference, if it tells.
    pub methods: Option<Vec<String>>,
    /// The function has a function level reset (PCI Express or Advanced Features capability).
    pub flr: bool,
    /// It is a chip that only its own controller can reset ([`bonaire`]).
    pub own: bool,
    /// Going to D3hot and back resets it (No_Soft_Reset is clear).
    pub power: bool,
}

/// What a bus reset would reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// These functions, and all of them are this machine's.
    Ours(Vec<PciAddress>),
    /// Some others too.
    Others(Vec<PciAddress>),
    /// The kernel cannot.
    Impossible,
}

/// The best way.
pub(super) fn plan(facts: &Facts, bus: &Bus) -> Method {
    // What the kernel tells is what it does, whatever the device claims to be able to.
    let kernel = match (&facts.methods, facts.kernel) {
        (_, false) => None,
        (Some(methods), true) => methods.first().cloned(),
        (None, true) if facts.flr => Some("flr".to_owned()),
        (None, true) if facts.power => Some("pm".to_owned()),
        (None, true) => Some("bus".to_owned()),
    };
    match (kernel, bus) {
        (Some(how), _) if how != "pm" => Method::Function(how),
        (None, _) if facts.own => Method::Own,
        (_, Bus::Ours(all)) => Method::Bus(all.clone()),
        (Some(_), _) => Method::Power,
        (None, Bus::Others(others)) => Method::None(format!(
            "a bus reset would also reset {}, which this machine does not have: give the guest those too",
            list(others.iter())
        )),
        (None, Bus::Impossible) => Method::None("neither the function nor its bus can be reset".to_owned()),
    }
}

/// An entry of `struct vfio_pci_hot_reset_info`: a function that a bus reset resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Affected {
    /// Where it is.
    pub address: PciAddress,
    /// Its group, or what iommufd calls it.
    pub owner: u32,
}

/// Which of two numbers an [`Affected`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners<'a> {
    /// Groups, and those that are ours.
    Groups(&'a [u32]),
    /// iommufd's, which knows by itself whether all are ours.
    Iommufd {
        /// It says so.
        all: bool,
    },
}

/// What an iommufd says of a function that it does not know, and of one that does not matter
/// (`VFIO_PCI_DEVID_NOT_OWNED`, `VFIO_PCI_DEVID_OWNED`).
const NOT_OWNED: u32 = u32::MAX;

/// Whether all that a bus reset resets is ours.
pub(super) fn bus(affected: &[Affected], owners: Owners<'_>) -> Bus {
    if affected.is_empty() {
        return Bus::Impossible;
    }
    let foreign = |function: &&Affected| match owners {
        Owners::Groups(ours) => !ours.contains(&function.owner),
        Owners::Iommufd { all } => !all && function.owner == NOT_OWNED,
    };
    let addresses = |of: &mut dyn Iterator<Item = &Affected>| {
        let mut addresses: Vec<PciAddress> = of.map(|function| function.address).collect();
        addresses.sort_unstable();
        addresses
    };
    let others = addresses(&mut affected.iter().filter(foreign));
    let all = addresses(&mut affected.iter());
    match (owners, others.is_empty()) {
        (Owners::Iommufd { all: false }, true) => Bus::Others(all),
        (_, true) => Bus::Ours(all),
        (_, false) => Bus::Others(others),
    }
}

fn list<'a>(addresses: impl Iterator<Item = &'a PciAddress>) -> String {
    addresses.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
