//! What the host's sysfs tells of a function's interrupts, read without the function's token and without waking
//! anybody.

use std::io::Read;

use trapline_devices::pci::PciAddress;
use trapline_devices::pci::spec::{COMMAND, Command, STATUS, STATUS_INTERRUPT};
use trapline_devices::seen::Signalling;

use crate::host::Tree;

/// The interrupts that the host's kernel has taken of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// By which way they are connected now.
    pub(crate) way: Signalling,
    /// How many so far: by messages since those were connected; by a line since the host started, those of
    /// others on the same line too.
    pub(crate) count: u64,
}

/// Two registers of a function itself, not as the guest sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    /// It may master the bus, without which it sends no message.
    pub(crate) master: bool,
    /// It has an interrupt pending inside.
    pub(crate) asserted: bool,
    /// Its line is held back in COMMAND. Unless the guest did that, the host did when the line was
    /// asserted, until the guest acknowledges.
    pub(crate) held: bool,
}

impl Taken {
    /// Reads it: a file for each interrupt of the function.
    pub(crate) fn read(tree: &Tree, address: PciAddress) -> Taken {
        let folder = format!("sys/bus/pci/devices/{address}");
        let messages = tree.names(format!("{folder}/msi_irqs"));
        let Some(first) = messages.first() else {
            let line = tree.text(format!("{folder}/irq")).filter(|irq| irq != "0");
            return line.map_or_else(Taken::default, |irq| Taken {
                way: Signalling::Line,
                count: of_irq(tree, &irq),
            });
        };
        let way = match tree.text(format!("{folder}/msi_irqs/{first}")).as_deref() {
            Some("msi") => Signalling::Msi,
            _ => Signalling::Msix,
        };
        Taken { way, count: messages.iter().map(|irq| of_irq(tree, irq)).sum() }
    }
}

impl Pins {
    /// Reads the device's own registers; `None` where they cannot be read, or the device is gone.
    pub(crate) fn read(tree: &Tree, address: PciAddress) -> Option<Pins> {
        let mut start = [0; 8];
        let path = tree.path(format!("sys/bus/pci/devices/{address}/config"));
        std::fs::File::open(path).ok()?.read_exact(&mut start).ok()?;
        let word = |at: u16| {
            let at = usize::from(at);
            Some(u16::from_le_bytes([*start.get(at)?, *start.get(at + 1)?]))
        };
        let (command, status) = (word(COMMAND)?, word(STATUS)?);
        if (command, status) == (0xffff, 0xffff) {
            return None;
        }
        let command = Command::from_bits(command);
        Some(Pins {
            master: command.bus_master(),
            asserted: status & STATUS_INTERRUPT != 0,
            held: command.interrupt_disable(),
        })
    }
}

/// Whether messages may go from the device to the guest's processor past the host's kernel, which then cannot
/// count them: the processor's virtual interrupt controller and the IOMMU's posting are both in use.
pub(crate) fn are_posted(tree: &Tree) -> bool {
    let on = |file: &str| matches!(tree.text(file).as_deref(), Some("Y" | "1"));
    let iommus = tree.names("sys/class/iommu");
    // Capability register, bit 59: posted interrupts (VT-d 4.1 section 11.4.2).
    let posts = |name: &String| {
        let register = tree.text(format!("sys/class/iommu/{name}/intel-iommu/cap"));
        register.and_then(|cap| u64::from_str_radix(&cap, 16).ok()).is_some_and(|cap| cap >> 59 & 1 == 1)
    };
    let intel = on("sys/module/kvm_intel/parameters/enable_apicv") && iommus.iter().any(posts);
    // AMD's IOMMU tells of it in no file: where the processor's half is on, it is taken to be on.
    let amd = on("sys/module/kvm_amd/parameters/avic") && iommus.iter().any(|name| name.starts_with("ivhd"));
    intel || amd
}

/// How often an interrupt of the host's came, on all processors.
fn of_irq(tree: &Tree, irq: &str) -> u64 {
    let counts = tree.text(format!("sys/kernel/irq/{irq}/per_cpu_count")).unwrap_or_default();
    counts.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const ADDRESS: &str = "0000:01:00.0";

    fn taken(fake: &Fake) -> (Signalling, u64) {
        let Taken { way, count } = Taken::read(fake.tree(), ADDRESS.parse().unwrap());
        (way, count)
    }

    #[test]
    fn interrupts_are_counted_on_all_processors() {
        let fake = Fake::new();
        fake.function(ADDRESS, "8086:10d3", 0x02_0000, Some("vfio-pci"), Some(1));
        assert_eq!(taken(&fake), (Signalling::Off, 0));
        fake.set(ADDRESS, "irq", "0\n");
        assert_eq!(taken(&fake), (Signalling::Off, 0));
        fake.set(ADDRESS, "irq", "21\n");
        fake.write("sys/kernel/irq/21/per_cpu_count", "3,0,4\n");
        assert_eq!(taken(&fake), (Signalling::Line, 7));
        fake.set(ADDRESS, "msi_irqs/55", "msix\n");
        assert_eq!(taken(&fake), (Signalling::Msix, 0), "not counted anywhere");
        fake.write("sys/kernel/irq/55/per_cpu_count", "1,1\n");
        fake.set(ADDRESS, "msi_irqs/56", "msix\n");
        fake.write("sys/kernel/irq/56/per_cpu_count", "0,5\n");
        assert_eq!(taken(&fake), (Signalling::Msix, 7));
    }

    #[test]
    fn the_functions_own_registers_are_told() {
        let fake = Fake::new();
        fake.function(ADDRESS, "8086:10d3", 0x02_0000, Some("vfio-pci"), Some(1));
        let pins = |command: u16, status: u16| {
            let [a, b] = command.to_le_bytes();
            let [c, d] = status.to_le_bytes();
            fake.write(&format!("sys/bus/pci/devices/{ADDRESS}/config"), [0, 0, 0, 0, a, b, c, d]);
            Pins::read(fake.tree(), ADDRESS.parse().unwrap())
        };
        let all = Pins { master: true, asserted: true, held: true };
        assert_eq!(pins(0x0404, 0x0018), Some(all));
        assert_eq!(pins(0x0003, 0x0010), Some(Pins::default()));
        assert_eq!(pins(0xffff, 0xffff), None);
        assert_eq!(Pins::read(fake.tree(), "0000:02:00.0".parse().unwrap()), None);
    }

    #[test]
    fn posted_interrupts_are_known_by_both_halves() {
        let fake = Fake::new();
        assert!(!are_posted(fake.tree()));
        fake.write("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
        fake.write("sys/class/iommu/dmar0/intel-iommu/cap", "8d2078c106f0466\n");
        assert!(are_posted(fake.tree()), "{:x}", 0x8d2_078c_106f_0466_u64 >> 59);
        fake.write("sys/class/iommu/dmar0/intel-iommu/cap", "2078c106f0466\n");
        assert!(!are_posted(fake.tree()));
        fake.write("sys/class/iommu/ivhd0/amd-iommu/cap", "0\n");
        assert!(!are_posted(fake.tree()));
        fake.write("sys/module/kvm_amd/parameters/avic", "1\n");
        assert!(are_posted(fake.tree()));
    }
}
