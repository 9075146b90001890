//! The host's PCI functions, as sysfs tells of them: what can be given to a guest, what stands in the
//! way, and giving it to the driver that lets a guest have it.
//!
//! * [`tree`]: the files that all of this is read from, of this host or of a test;
//! * [`function`], [`resource`], [`names`]: a function, its BARs and ROM, what it is called;
//! * [`environment`], [`framebuffer`]: IOMMU, VFIO, KVM, limits; what the host's console holds;
//! * [`usage`]: what the host itself does with a function;
//! * [`obstacle`]: what stands in the way, in words;
//! * [`report`]: all of that for programs;
//! * [`binding`]: to vfio-pci and back;
//! * [`rom`]: a ROM by sysfs.
//!
//! Reading changes nothing and wakes no device, except [`rom`], which wakes its function, lets it decode memory, and
//! undoes both. What a process without rights may not read (addresses in `/proc/iomem`, other users' open files) is
//! taken as not being there.
//!
//! ```no_run
//! use trapline::host::{Host, Tree};
//! let host = Host::read(Tree::host());
//! for function in host.functions().iter().filter(|function| function.is_display()) {
//!     println!("{} {}", function.address, host.name_of(function));
//!     for obstacle in host.obstacles_of(function) {
//!         println!("  {}", obstacle.text);
//!     }
//! }
//! ```

pub mod binding;
pub mod environment;
#[cfg(test)]
pub(crate) mod fake;
pub mod framebuffer;
pub mod function;
pub mod names;
pub mod obstacle;
pub mod report;
pub mod resource;
pub mod rom;
pub mod tree;
pub mod usage;

pub use environment::Environment;
pub use function::Function;
pub use names::Names;
pub use obstacle::{Kind, Obstacle};
pub use trapline_devices::pci::{AddressError, PciAddress};
pub use tree::Tree;

/// The functions of a host and what it offers, as they were when they were read.
#[derive(Debug)]
pub struct Host {
    tree: Tree,
    functions: Vec<Function>,
    environment: Environment,
    names: Names,
}

impl Host {
    /// Reads the host of which `tree` tells. A host without PCI has no functions.
    pub fn read(tree: Tree) -> Host {
        let addresses = tree.names(function::DEVICES).into_iter().filter_map(|name| name.parse().ok());
        let mut functions: Vec<Function> =
            addresses.filter_map(|address| Function::read(&tree, address)).collect();
        functions.sort_by_key(|function| function.address);
        let environment = Environment::read(&tree);
        let names = Names::of(&tree);
        Host { tree, functions, environment, names }
    }

    /// All functions, bridges too, by address.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function at an address.
    pub fn function(&self, address: PciAddress) -> Option<&Function> {
        self.functions.iter().find(|function| function.address == address)
    }

    /// The other functions of a function's IOMMU group, by address.
    pub fn companions<'a>(&'a self, function: &'a Function) -> impl Iterator<Item = &'a Function> {
        let others = self.functions.iter().filter(|other| other.address != function.address);
        others.filter(|other| function.group.is_some() && other.group == function.group)
    }

    /// What the host offers.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Names of vendors, devices and classes.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The files that all of this was read from.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What a person would call a function: vendor and device, or its class where pci.ids knows neither.
    pub fn name_of(&self, function: &Function) -> String {
        let vendor = self.names.vendor(function.vendor);
        match (vendor, self.names.device(function.vendor, function.device)) {
            (Some(vendor), Some(device)) => format!("{vendor} {device}"),
            (Some(vendor), None) => format!("{vendor} device {:04x}", function.device),
            (None, _) => self.class_of(function),
        }
    }

    /// A function's class in words.
    pub fn class_of(&self, function: &Function) -> String {
        self.class_name(function.base_class(), (function.class >> 8 & 0xff) as u8)
    }

    /// Base class and subclass in words.
    pub fn class_name(&self, base: u8, sub: u8) -> String {
        let known = self.names.class(base, sub).map(str::to_owned);
        known.unwrap_or_else(|| {
            class_words(base, sub).map_or_else(|| format!("class {base:02x}{sub:02x}"), str::to_owned)
        })
    }
}

/// The classes that matter most, for a system without pci.ids.
fn class_words(base: u8, sub: u8) -> Option<&'static str> {
    Some(match (base, sub) {
        (0x00 | 0xff, _) => "Unclassified device",
        (0x01, 0x06) => "SATA controller",
        (0x01, 0x08) => "Non-Volatile memory controller",
        (0x01, _) => "Storage controller",
        (0x02, 0x00) => "Ethernet controller",
        (0x02, _) => "Network controller",
        (0x03, 0x00) => "VGA compatible controller",
        (0x03, 0x02) => "3D controller",
        (0x03, _) => "Display controller",
        (0x04, 0x03) => "Audio device",
        (0x06, 0x00) => "Host bridge",
        (0x06, 0x01) => "ISA bridge",
        (0x06, 0x04) => "PCI bridge",
        (0x0c, 0x03) => "USB controller",
        (0x0c, 0x05) => "SMBus",
        _ => return None,
    })
}
