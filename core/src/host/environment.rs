//! What the host as a whole offers: IOMMU, VFIO, KVM, limits.

use rustix::fs::{Access, access};

use super::framebuffer::{self, Framebuffer};
use super::tree::Tree;

/// The module of the driver that gives functions away.
const MODULE: &str = "sys/module/vfio_pci";
/// Bit of a process's capabilities: it may lock any amount of memory.
const CAP_IPC_LOCK: u32 = 14;

/// The host without its functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The IOMMU.
    pub iommu: Iommu,
    /// Whether interrupts of devices are remapped, so that a guest cannot make one up.
    pub interrupt_remapping: bool,
    /// Whether the host's administrator allows assignment without that.
    pub unsafe_interrupts: bool,
    /// The driver.
    pub vfio_pci: VfioPci,
    /// `/dev/vfio/vfio`, or `/dev/iommu`.
    pub vfio_node: Node,
    /// `/dev/kvm`.
    pub kvm_node: Node,
    /// The most memory that this process may lock, in bytes; `None` is no limit.
    pub memlock: Option<u64>,
    /// Who of the host shows something in a BAR; none if this process may not know.
    pub framebuffers: Vec<Framebuffer>,
}

/// Whether there is an IOMMU, and if not, what is known of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// Functions are in groups.
    On,
    /// The firmware describes one, the kernel does not use it.
    Unused {
        /// It is Intel's.
        intel: bool,
    },
    /// The firmware describes none.
    Missing {
        /// The processor is Intel's.
        intel: bool,
    },
}

/// The driver vfio-pci.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfioPci {
    /// It is there.
    Loaded {
        /// Whether it forwards legacy VGA.
        legacy_vga: LegacyVga,
    },
    /// It can be loaded.
    Available,
    /// The kernel has none.
    Missing,
}

/// Whether vfio-pci forwards legacy VGA (region 8) of adapters that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyVga {
    /// It does.
    On,
    /// Its parameter `disable_vga` is set.
    Disabled,
    /// The kernel was built without `CONFIG_VFIO_PCI_VGA`.
    NotBuilt,
}

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// It may be read and written.
    Usable,
    /// It may not.
    Forbidden,
    /// It is not there.
    Missing,
}

impl Environment {
    /// Reads what the host tells.
    pub fn read(tree: &Tree) -> Environment {
        Environment {
            iommu: Iommu::read(tree),
            interrupt_remapping: remaps_interrupts(&tree.text("proc/interrupts").unwrap_or_default()),
            unsafe_interrupts: ["vfio_iommu_type1", "iommufd"].iter().any(|module| {
                tree.text(format!("sys/module/{module}/parameters/allow_unsafe_interrupts")).as_deref()
                    == Some("Y")
            }),
            vfio_pci: VfioPci::read(tree),
            vfio_node: match Node::read(tree, "dev/vfio/vfio") {
                Node::Missing => Node::read(tree, "dev/iommu"),
                node => node,
            },
            kvm_node: Node::read(tree, "dev/kvm"),
            memlock: memlock(tree),
            framebuffers: framebuffer::read(tree),
        }
    }
}

impl Iommu {
    fn read(tree: &Tree) -> Iommu {
        let table = |name: &str| tree.has(format!("sys/firmware/acpi/tables/{name}"));
        if !tree.names("sys/kernel/iommu_groups").is_empty() {
            Iommu::On
        } else if table("DMAR") || table("IVRS") {
            Iommu::Unused { intel: table("DMAR") }
        } else {
            let processor = tree.text("proc/cpuinfo").unwrap_or_default();
            Iommu::Missing { intel: processor.contains("GenuineIntel") }
        }
    }
}

impl VfioPci {
    fn read(tree: &Tree) -> VfioPci {
        if !tree.has("sys/bus/pci/drivers/vfio-pci") {
            return if is_available(tree) { VfioPci::Available } else { VfioPci::Missing };
        }
        // The kernel has the parameter only if it was built with the option.
        let legacy_vga = match tree.text(format!("{MODULE}/parameters/disable_vga")).as_deref() {
            Some("N") => LegacyVga::On,
            Some(_) => LegacyVga::Disabled,
            None => LegacyVga::NotBuilt,
        };
        VfioPci::Loaded { legacy_vga }
    }
}

/// Whether modprobe would find the module, as far as its list can be read.
fn is_available(tree: &Tree) -> bool {
    let Some(release) = tree.text("proc/sys/kernel/osrelease") else { return true };
    let list = |name: &str| tree.text(format!("lib/modules/{release}/{name}"));
    list("modules.dep").is_none_or(|modules| modules.contains("/vfio-pci.ko"))
}

/// Linux names the controller of a remapped interrupt with IR- before it.
fn remaps_interrupts(interrupts: &str) -> bool {
    interrupts.split_whitespace().any(|word| word.starts_with("IR-"))
}

impl Node {
    /// Looks at a node with this process's rights.
    pub(super) fn read(tree: &Tree, path: &str) -> Node {
        let path = tree.path(path);
        match access(&path, Access::EXISTS) {
            Err(_) => Node::Missing,
            Ok(()) if access(&path, Access::READ_OK | Access::WRITE_OK).is_ok() => Node::Usable,
            Ok(()) => Node::Forbidden,
        }
    }
}

/// The limit on locked memory; none for a process that may lock what it wants.
fn memlock(tree: &Tree) -> Option<u64> {
    let status = tree.text("proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    if capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1) {
        return None;
    }
    let limits = tree.text("proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    // The soft limit, or "unlimited".
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    #[test]
    fn the_reason_for_a_missing_iommu_is_told_apart() {
        let fake = Fake::new();
        assert_eq!(Iommu::read(fake.tree()), Iommu::Missing { intel: false });
        fake.write("proc/cpuinfo", "vendor_id : GenuineIntel\n");
        assert_eq!(Iommu::read(fake.tree()), Iommu::Missing { intel: true });
        fake.write("sys/firmware/acpi/tables/IVRS", "");
        assert_eq!(Iommu::read(fake.tree()), Iommu::Unused { intel: false });
        fake.write("sys/kernel/iommu_groups/0/type", "DMA\n");
        assert_eq!(Iommu::read(fake.tree()), Iommu::On);
    }

    #[test]
    fn the_driver_tells_whether_it_forwards_vga() {
        let fake = Fake::new();
        fake.write("proc/sys/kernel/osrelease", "6.12\n");
        assert_eq!(VfioPci::read(fake.tree()), VfioPci::Available, "nothing says that there is none");
        fake.write("lib/modules/6.12/modules.dep", "kernel/drivers/net/e1000e.ko:\n");
        assert_eq!(VfioPci::read(fake.tree()), VfioPci::Missing);
        fake.write("lib/modules/6.12/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/a.ko\n");
        assert_eq!(VfioPci::read(fake.tree()), VfioPci::Available);
        fake.write("sys/bus/pci/drivers/vfio-pci/bind", "");
        let loaded = |legacy_vga| VfioPci::Loaded { legacy_vga };
        assert_eq!(VfioPci::read(fake.tree()), loaded(LegacyVga::NotBuilt));
        fake.write("sys/module/vfio_pci/parameters/disable_vga", "N\n");
        assert_eq!(VfioPci::read(fake.tree()), loaded(LegacyVga::On));
        fake.write("sys/module/vfio_pci/parameters/disable_vga", "Y\n");
        assert_eq!(VfioPci::read(fake.tree()), loaded(LegacyVga::Disabled));
    }

    #[test]
    fn remapped_interrupts_have_a_controller_of_that_name() {
        assert!(!remaps_interrupts(
            "  24:  1  0  IO-APIC  5-edge  ACPI:Ged\n  25:  0  PCI-MSIX-0000:00:01.0  eth0\n"
        ));
        assert!(remaps_interrupts("  25:  0  0  IR-PCI-MSI-0000:00:1f.2  0-edge  ahci\n"));
    }

    #[test]
    fn the_limit_counts_only_without_the_capability() {
        let fake = Fake::new();
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        fake.write("proc/self/limits", limits);
        fake.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n");
        assert_eq!(memlock(fake.tree()), Some(8 << 20));
        fake.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
        assert_eq!(memlock(fake.tree()), None);
        fake.write("proc/self/status", "CapEff:\t0000000000000000\n");
        fake.write("proc/self/limits", limits.replace("8388608  ", "unlimited"));
        assert_eq!(memlock(fake.tree()), None);
    }
}
