//! Functions of the host, opened by VFIO.

use std::sync::Arc;

use anyhow::Result;
use trapline_devices::assigned::LegacyVga;
use trapline_devices::host;
use trapline_devices::vfio::{Device, Iommu, Settings};
use trapline_vcpu::Vm;

use crate::command::say;
use crate::config::{Interface, Rom, Vga};
use crate::events::Events;
use crate::host::{Function, Host, PciAddress, Tree};

/// A function that is open, and has no place in the guest yet.
pub(super) struct Physical {
    pub(super) device: Device,
    pub(super) iommu: Arc<Iommu>,
    /// Whether it is a VGA compatible controller.
    pub(super) is_vga: bool,
    /// Its address and what a person would call it.
    pub(super) name: String,
}

/// Opens functions of the host for one machine.
pub(super) struct Opener {
    iommu: Arc<Iommu>,
    settings: Settings,
    /// Read with the first.
    host: Option<Host>,
}

impl Opener {
    /// Opens nothing yet.
    pub(super) fn new(interface: Interface, events: &Events) -> Opener {
        let events: Arc<dyn host::Events> = Arc::new(events.clone());
        Opener { iommu: Iommu::new(interface), settings: Settings { events: Some(events) }, host: None }
    }

    /// Opens the function at `address`; tells of a ROM that the guest is to see and that shows nothing.
    pub(super) fn open(&mut self, address: PciAddress, rom: &Rom) -> Result<Physical> {
        let host = self.host.get_or_insert_with(|| Host::read(Tree::host()));
        let function = host.function(address);
        let is_vga = function.is_some_and(Function::is_vga);
        let name = match function {
            Some(function) => format!("{address} ({})", host.name_of(function)),
            None => address.to_string(),
        };
        let shadowed = function.filter(|_| *rom == Rom::Device).and_then(Function::shadowed_rom);
        let device = Device::open(address, &self.iommu, self.settings.clone())?;
        if let Some(obstacle) = shadowed {
            say(&format!("{name}: {}", obstacle.text));
        }
        Ok(Physical { device, iommu: Arc::clone(&self.iommu), is_vga, name })
    }
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
        LegacyVga::Owned => "owns legacy VGA, so firmware and boot loader show on its screen",
        LegacyVga::Off if wish == Vga::Off => "without legacy VGA, as vga=off says",
        LegacyVga::Off if owned => "without legacy VGA, which another device owns",
        LegacyVga::Off | LegacyVga::NotVga => "without legacy VGA",
        LegacyVga::NoRegion => {
            "without legacy VGA, which the host's kernel does not give (vfio-pci's parameter disable_vga, or \
             CONFIG_VFIO_PCI_VGA): its screen stays dark until a driver of the guest takes it over"
        }
    }
}

/// What the kernel's VFIO is used by.
pub(super) fn interface(iommu: &Iommu) -> &'static str {
    match iommu.interface() {
        Interface::Iommufd => "iommufd",
        Interface::Group | Interface::Auto => "its VFIO group",
    }
}
