//! Functions of the host, opened by VFIO.

use std::sync::Arc;

use anyhow::Result;
use trapline_devices::assigned::{Igd, LegacyVga, Messages, Offered};
use trapline_devices::host;
use trapline_devices::vfio::{Device, Iommu, Settings};
use trapline_vcpu::Vm;

use crate::config::{Interface, Vga};
use crate::events::Events;
use crate::host::{Host, PciAddress, Tree};

/// A function that is open, and has no place in the guest yet.
pub(super) struct Physical {
    pub(super) device: Device,
    pub(super) iommu: Arc<Iommu>,
    /// What firmware has to know of it, if it is integrated graphics of Intel's.
    pub(super) igd: Option<Igd>,
    pub(super) known: Known,
}

/// What the host knows of a function.
pub(super) struct Known {
    pub(super) address: PciAddress,
    /// Whether it is a VGA compatible controller.
    pub(super) is_vga: bool,
    /// How many other VGA compatible controllers the host has.
    pub(super) rivals: usize,
    /// Whether the host's firmware, and then its console, showed on it.
    pub(super) is_console: bool,
    /// Its own ROM is the copy that the host's firmware has run, which was told.
    pub(super) shadowed: bool,
    /// Its address and what a person would call it.
    pub(super) name: String,
}

/// Opens functions of the host for one machine.
pub(super) struct Opener {
    iommu: Arc<Iommu>,
    settings: Settings,
    tell: fn(&str),
    /// Read with the first.
    host: Option<Host>,
}

impl Opener {
    /// Opens nothing yet; `tell` is for what a person has to know.
    pub(super) fn new(interface: Interface, events: &Events, tell: fn(&str)) -> Opener {
        let events: Arc<dyn host::Events> = Arc::new(events.clone());
        Opener { iommu: Iommu::new(interface), settings: Settings { events: Some(events) }, tell, host: None }
    }

    /// Opens the function at `address`; `own_rom` says that the guest is to see its own ROM. What then
    /// keeps its screen dark or slow is told.
    pub(super) fn open(&mut self, address: PciAddress, own_rom: bool) -> Result<Physical> {
        let host = self.host.get_or_insert_with(|| Host::read(Tree::host()));
        unseen(host, address, own_rom).iter().for_each(|line| (self.tell)(line));
        let known = Known::of(host, address, own_rom);
        let mut device = Device::open(address, &self.iommu, self.settings.clone())?;
        let igd = Igd::of(&mut device);
        let iommu = Arc::clone(&self.iommu);
        Ok(Physical { device, iommu, igd, known })
    }
}

impl Known {
    fn of(host: &Host, address: PciAddress, own_rom: bool) -> Known {
        let function = host.function(address);
        let others = host.functions().iter().filter(|other| other.is_vga() && other.address != address);
        let rom = function.and_then(|function| function.rom);
        Known {
            address,
            is_vga: function.is_some_and(crate::host::Function::is_vga),
            rivals: others.count(),
            is_console: function.is_some_and(|function| function.boot_vga),
            shadowed: own_rom && rom.is_some_and(|rom| rom.shadow),
            name: match function {
                Some(function) => format!("{address} ({})", host.name_of(function)),
                None => address.to_string(),
            },
        }
    }
}

/// What is in the way of a function and shows in no error, a line each.
fn unseen(host: &Host, address: PciAddress, own_rom: bool) -> Vec<String> {
    let Some(function) = host.function(address) else { return Vec::new() };
    let found = host.unseen_by_run(function, own_rom);
    found.iter().map(|obstacle| format!("{address}: {}", obstacle.text)).collect()
}

/// Tells KVM of what is open. A guest runs without that too, as a rule.
pub(super) fn tell_kvm(vm: &Vm, iommu: &Iommu) {
    let told = iommu.kvm_files().and_then(|files| {
        use std::os::fd::AsFd;
        files.iter().try_for_each(|file| vm.tell_of_vfio(file.as_fd()))
    });
    if let Err(error) = told {
        tracing::warn!(%error, "KVM was not told of the assigned functions; caches may not be kept coherent");
    }
}

/// What became of a VGA adapter's legacy ranges, for a person; `wish` is what was asked for, and `owned`
/// says that another device has them.
pub(super) fn legacy(became: LegacyVga, wish: Vga, owned: bool) -> &'static str {
    match became {
        LegacyVga::Owned if owned => {
            "has legacy VGA as others do, while the guest leads it there by COMMAND and VGA Enable"
        }
        LegacyVga::Owned => "owns legacy VGA, by which firmware and boot loaders show text",
        LegacyVga::Off if wish == Vga::Off => "without legacy VGA, as vga=off says",
        LegacyVga::Off if owned => "without legacy VGA, which another device owns",
        LegacyVga::Off | LegacyVga::NotVga => "without legacy VGA",
        LegacyVga::NoRegion => {
            "without legacy VGA, which the host's kernel does not give (vfio-pci's parameter disable_vga, or \
             CONFIG_VFIO_PCI_VGA): its screen stays dark until a driver of the guest takes it over"
        }
    }
}

/// What the guest does not see of a function's interrupts, as was asked for; for a person.
pub(super) fn hidden(wish: Messages, offered: Offered) -> Option<&'static str> {
    let nothing = offered == Offered::default();
    Some(match wish {
        Messages::Guest => return None,
        Messages::NoMsix => "without MSI-X, as msi=no-msix says",
        Messages::NoMsi => "without MSI, as msi=no-msi says",
        Messages::Off if nothing => "without any interrupt: it has no line, and msi=off takes its messages",
        Messages::Off => "by its INTx line alone, as msi=off says",
    })
}

/// What the kernel's VFIO is used by.
pub(super) fn interface(iommu: &Iommu) -> &'static str {
    match iommu.interface() {
        Interface::Iommufd => "iommufd",
        Interface::Group | Interface::Auto => "its VFIO group",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_shadowed_rom_is_told_of_unless_another_is_given() {
        let fake = Fake::new();
        let address = "0000:01:00.0";
        fake.function(address, "1234:1111", 0x03_0000, Some("vfio-pci"), Some(3));
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let shadow = "0x00000000000c0000 0x00000000000dffff 0x0000000000000212\n";
        fake.set(address, "resource", &(none.repeat(6) + shadow));
        let host = Host::read(fake.tree().clone());
        let address: PciAddress = address.parse().unwrap();
        let told = unseen(&host, address, true);
        assert!(
            told[0].starts_with("0000:01:00.0: its ROM is the copy") && told[0].contains("rom=FILE"),
            "{told:?}"
        );
        assert!(told.len() == 1 && unseen(&host, address, false).is_empty());
        assert!(unseen(&host, "0000:02:00.0".parse().unwrap(), true).is_empty());
    }
}
