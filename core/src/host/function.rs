//! One PCI function of the host, as sysfs has it.

use serde::{Serialize, Serializer};
use trapline_devices::pci::spec::CLASS_VGA;
use trapline_devices::vfio::driver;

use super::PciAddress;
use super::resource::{self, HostBar, HostRom};
use super::tree::Tree;

/// The folder of all functions.
pub(super) const DEVICES: &str = "sys/bus/pci/devices";
/// Base class of bridges.
const BRIDGE: u8 = 0x06;
/// Base class of display controllers.
const DISPLAY: u8 = 0x03;
/// Where the header type is in configuration space, and its bit that is no type.
const HEADER_TYPE: usize = 0x0e;
const MULTIFUNCTION: u8 = 0x80;

/// A function as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it sits.
    pub address: PciAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem Vendor ID and Subsystem ID.
    pub subsystem: (u16, u16),
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// Header type, without the bit for several functions: 0 of an endpoint, 1 of a bridge to another bus.
    pub header: u8,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, if that was set.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its base address registers.
    pub bars: Vec<HostBar>,
    /// Its ROM.
    pub rom: Option<HostRom>,
    /// Whether the host's firmware showed itself on it.
    pub boot_vga: bool,
    /// How the kernel can reset it.
    pub reset: Reset,
    /// D0 to D3cold, or unknown.
    pub power: Option<String>,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// Its PCI Express link.
    pub link: Option<HostLink>,
    /// SR-IOV: virtual functions that are switched on.
    pub virtual_functions: u32,
}

/// How the kernel can reset a function by itself. (VFIO can also reset a whole bus, if all functions
/// there are given away together.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// In these ways, the first one first: `flr`, `pm`, `bus` and others.
    Methods(Vec<String>),
    /// In some way; a kernel before 5.15 does not say which.
    Unnamed,
    /// In none.
    None,
}

/// A PCI Express link, in the kernel's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostLink {
    /// As in `8.0 GT/s PCIe`.
    pub speed: String,
    /// Lanes.
    pub width: u32,
    /// The most that the function can.
    pub max_speed: String,
    /// The most that the function can.
    pub max_width: u32,
}

impl Function {
    /// Reads a function; `None` where there is none.
    pub fn read(tree: &Tree, address: PciAddress) -> Option<Function> {
        let at = |name: &str| format!("{DEVICES}/{address}/{name}");
        let id = |name: &str| tree.hex(at(name)).and_then(|id| u16::try_from(id).ok());
        let (bars, rom) = resource::parse(&tree.text(at("resource")).unwrap_or_default());
        let node: Option<i32> = tree.parse(at("numa_node"));
        Some(Function {
            address,
            vendor: id("vendor")?,
            device: id("device")?,
            subsystem: (id("subsystem_vendor").unwrap_or(0), id("subsystem_device").unwrap_or(0)),
            class: tree.hex(at("class")).unwrap_or(0),
            header: header(tree, &at("config")),
            driver: tree.link(at("driver")),
            driver_override: tree
                .text(at("driver_override"))
                .filter(|name| name != "(null)" && !name.is_empty()),
            group: tree.link(at("iommu_group")).and_then(|group| group.parse().ok()),
            bars,
            rom,
            boot_vga: tree.text(at("boot_vga")).is_some_and(|text| text == "1"),
            reset: Reset::read(tree, &at("reset_method"), &at("reset")),
            power: tree.text(at("power_state")),
            numa_node: node.and_then(|node| u32::try_from(node).ok()),
            link: HostLink::read(tree, &at),
            virtual_functions: tree.parse(at("sriov_numvfs")).unwrap_or(0),
        })
    }

    /// Base class.
    pub fn base_class(&self) -> u8 {
        (self.class >> 16 & 0xff) as u8
    }

    /// Whether it is a bridge of any kind: to another bus, or the host's, or one to ISA. None of them is
    /// ever given away.
    pub fn is_bridge(&self) -> bool {
        self.header != 0 || self.base_class() == BRIDGE
    }

    /// Whether it is a display controller.
    pub fn is_display(&self) -> bool {
        self.base_class() == DISPLAY
    }

    /// Whether it is a VGA compatible controller.
    pub fn is_vga(&self) -> bool {
        self.class >> 8 == CLASS_VGA
    }

    /// Whether a driver has it that gives it away: vfio-pci, or one of its variants.
    pub fn is_given(&self) -> bool {
        self.driver.as_deref().is_some_and(driver::gives_away)
    }

    /// Whether its driver keeps others of its IOMMU group from being given away. A function without a
    /// driver does not, nor does a bridge's port driver, which does no DMA of its own.
    pub fn holds_group(&self) -> bool {
        self.driver.as_deref().is_some_and(driver::holds_group)
    }
}

/// The header type; an endpoint's if it cannot be read.
fn header(tree: &Tree, config: &str) -> u8 {
    let mut bytes = [0; HEADER_TYPE + 1];
    let read = std::fs::File::open(tree.path(config))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match (read, bytes[HEADER_TYPE]) {
        // All ones: the function sleeps in D3cold.
        (Ok(()), header) if header != 0xff => header & !MULTIFUNCTION,
        _ => 0,
    }
}

impl Reset {
    fn read(tree: &Tree, methods: &str, reset: &str) -> Reset {
        let names = tree.text(methods).unwrap_or_default();
        let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        match names.is_empty() {
            false => Reset::Methods(names),
            true if tree.has(reset) && !tree.has(methods) => Reset::Unnamed,
            true => Reset::None,
        }
    }
}

impl Serialize for Reset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reset::Methods(names) => names.serialize(serializer),
            Reset::Unnamed => ["unnamed"].serialize(serializer),
            Reset::None => [(); 0].serialize(serializer),
        }
    }
}

impl HostLink {
    fn read(tree: &Tree, at: &impl Fn(&str) -> String) -> Option<HostLink> {
        let max_width = tree.parse(at("max_link_width")).filter(|width| (1..=32).contains(width))?;
        Some(HostLink {
            speed: tree.text(at("current_link_speed"))?,
            width: tree.parse(at("current_link_width"))?,
            max_speed: tree.text(at("max_link_speed"))?,
            max_width,
        })
    }
}
