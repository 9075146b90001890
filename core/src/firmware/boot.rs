//! All that the firmware reads, as a list of fw_cfg items.
//!
//! The fw_cfg device itself adds the signature, the interface version and the file directory.

use std::fmt;

use super::acpi::{self, Platform, Windows};
use super::e820::{self, RamSplit};
use super::image::Image;
use super::linux::Linux;
use super::smbios;

/// The numbered items of fw_cfg that are filled in here.
pub struct Key;

#[expect(missing_docs, reason = "the names are those of the fw_cfg specification")]
impl Key {
    pub const UUID: u16 = 0x02;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NO_GRAPHIC: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const KERNEL_ADDR: u16 = 0x07;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_ADDR: u16 = 0x0a;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_ADDR: u16 = 0x13;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_ADDR: u16 = 0x16;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// How the guest asks for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// By its number.
    Key(u16),
    /// By the number that the file directory gives for this name, at most 55 bytes.
    File(String),
}

/// The bytes of an item.
pub enum Content {
    /// Known now.
    Bytes(Vec<u8>),
    /// Built whenever the guest selects the item.
    OnSelect {
        /// The length of what `build` returns, which the file directory tells beforehand.
        len: usize,
        /// Returns `len` bytes; called on a vCPU thread.
        build: Box<dyn Fn() -> Vec<u8> + Send>,
    },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Content::OnSelect { len, .. } => write!(f, "{len} bytes, built on select"),
        }
    }
}

/// One item.
#[derive(Debug)]
pub struct Item {
    /// How the guest asks for it.
    pub name: Name,
    /// What it gets.
    pub content: Content,
}

impl Item {
    /// A numbered item.
    pub fn key(key: u16, bytes: impl Into<Vec<u8>>) -> Self {
        Item { name: Name::Key(key), content: Content::Bytes(bytes.into()) }
    }

    /// A file.
    pub fn file(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Item { name: Name::File(name.into()), content: Content::Bytes(bytes.into()) }
    }
}

/// Something that the firmware can start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A disk controller: device and function numbers from bus 0 on, the bridges above it first.
    Disk(Vec<(u8, u8)>),
    /// The option ROM that starts a kernel.
    Kernel,
}

impl Target {
    /// A disk controller in a slot of bus 0, function 0.
    pub fn disk(slot: u8) -> Self {
        Target::Disk(vec![(slot, 0)])
    }

    /// The OpenFirmware path by which SeaBIOS knows it.
    ///
    /// ```
    /// use trapline::firmware::boot::Target;
    /// assert_eq!(Target::disk(4).path(), "/pci@i0cf8/scsi@4/disk@0,0");
    /// ```
    pub fn path(&self) -> String {
        let route = match self {
            Target::Kernel => return format!("/rom@{LINUXBOOT}"),
            Target::Disk(route) => route,
        };
        let mut path = String::from("/pci@i0cf8");
        for (depth, (device, function)) in route.iter().enumerate() {
            let kind = if depth + 1 == route.len() { "scsi" } else { "pci-bridge" };
            path += &format!("/{kind}@{device:x}");
            if *function != 0 {
                path += &format!(",{function:x}");
            }
        }
        path + "/disk@0,0"
    }
}

/// File name of the option ROM that starts a kernel.
pub const LINUXBOOT: &str = "genroms/linuxboot_dma.bin";

/// What the firmware does by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// How long the firmware offers its boot menu, in milliseconds; `None` for not at all.
    pub menu: Option<u16>,
    /// How long it waits before it starts again when nothing can be booted, in milliseconds; `None` for ever.
    pub retry: Option<u32>,
    /// Whether option ROMs must have a right checksum; images that were taken from a running machine have not.
    pub rom_checksums: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Choices { menu: None, retry: None, rom_checksums: true }
    }
}

/// A machine as its firmware is to see it.
pub struct Boot {
    /// Processors, all running when the firmware counts them.
    pub cpus: u8,
    /// Where RAM lies.
    pub ram: RamSplit,
    /// The machine's identity, as SMBIOS prints it.
    pub uuid: [u8; 16],
    /// An i8042 with a keyboard is there.
    pub keyboard: bool,
    /// A UART is there at port 0x3f8.
    pub serial: bool,
    /// What to start from, best first.
    pub order: Vec<Target>,
    /// What the firmware does by itself.
    pub choices: Choices,
    /// A kernel, and the option ROM that starts it.
    pub linux: Option<(Linux, Image)>,
    /// Asked for the BARs' windows each time that the guest reads the ACPI tables, on a vCPU thread.
    pub windows: Box<dyn Fn() -> Windows + Send>,
}

impl Boot {
    /// All items for fw_cfg.
    pub fn into_items(self) -> Vec<Item> {
        let mut items = self.numbers();
        items.push(Item::file("etc/e820", e820::table(self.ram)));
        let smbios = smbios::build(self.ram, self.cpus, self.uuid);
        items.push(Item::file(smbios::ANCHOR, smbios.anchor));
        items.push(Item::file(smbios::TABLES, smbios.tables));
        items.extend(self.wishes());
        let platform = Platform {
            cpus: self.cpus,
            ram: self.ram,
            windows: Windows::default(),
            keyboard: self.keyboard,
            serial: self.serial,
        };
        items.extend(tables(platform, self.windows));
        if let Some((linux, rom)) = self.linux {
            items.push(Item::file(LINUXBOOT, rom.bytes));
            items.extend(linux.into_items());
        }
        items
    }

    fn numbers(&self) -> Vec<Item> {
        let cpus = u16::from(self.cpus);
        vec![
            Item::key(Key::UUID, self.uuid),
            Item::key(Key::RAM_SIZE, self.ram.total().to_le_bytes()),
            Item::key(Key::NO_GRAPHIC, 0u16.to_le_bytes()),
            Item::key(Key::NB_CPUS, cpus.to_le_bytes()),
            Item::key(Key::MAX_CPUS, cpus.to_le_bytes()),
            // The timer's interrupt reaches the I/O APIC at pin 2, as the MADT says.
            Item::key(Key::IRQ0_OVERRIDE, 1u32.to_le_bytes()),
            Item::key(Key::BOOT_MENU, u16::from(self.choices.menu.is_some()).to_le_bytes()),
        ]
    }

    fn wishes(&self) -> Vec<Item> {
        let choices = &self.choices;
        let mut items = vec![
            Item::file("etc/boot-fail-wait", choices.retry.unwrap_or(u32::MAX).to_le_bytes()),
            Item::file("etc/optionroms-checksum", u64::from(choices.rom_checksums).to_le_bytes()),
        ];
        if let Some(wait) = choices.menu {
            items.push(Item::file("etc/boot-menu-wait", wait.to_le_bytes()));
        }
        if !self.order.is_empty() {
            let lines: Vec<String> = self.order.iter().map(Target::path).collect();
            items.push(Item::file("bootorder", format!("{}\0", lines.join("\n"))));
        }
        items
    }
}

/// The ACPI files; only the tables depend on the windows, and their length does not.
fn tables(platform: Platform, windows: Box<dyn Fn() -> Windows + Send>) -> [Item; 3] {
    let first = acpi::build(&platform);
    let build = move || acpi::build(&Platform { windows: windows(), ..platform }).tables;
    let content = Content::OnSelect { len: first.tables.len(), build: Box::new(build) };
    [
        Item::file(acpi::LOADER, first.loader),
        Item::file(acpi::RSDP, first.rsdp),
        Item { name: Name::File(acpi::TABLES.into()), content },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use trapline_io::{Gpa, Span};

    fn boot() -> Boot {
        Boot {
            cpus: 2,
            ram: RamSplit::of(1 << 30),
            uuid: [7; 16],
            keyboard: true,
            serial: false,
            order: vec![Target::Kernel, Target::disk(3)],
            choices: Choices { menu: Some(100), ..Choices::default() },
            linux: None,
            windows: Box::new(|| Windows { high: Span::of_len(Gpa(1 << 40), 1 << 30), ..Windows::default() }),
        }
    }

    fn bytes(items: &[Item], name: &Name) -> Vec<u8> {
        let item = items.iter().find(|item| item.name == *name).expect("the item is there");
        match &item.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::OnSelect { len, build } => {
                let bytes = build();
                assert_eq!(bytes.len(), *len, "the directory tells the length beforehand");
                bytes
            }
        }
    }

    fn file(items: &[Item], name: &str) -> Vec<u8> {
        bytes(items, &Name::File(name.into()))
    }

    #[test]
    fn paths_name_bridges_and_functions() {
        assert_eq!(
            Target::Disk(vec![(0x1c, 2), (0, 0)]).path(),
            "/pci@i0cf8/pci-bridge@1c,2/scsi@0/disk@0,0"
        );
        assert_eq!(Target::Kernel.path(), "/rom@genroms/linuxboot_dma.bin");
    }

    #[test]
    fn every_name_is_there_once_and_fits_the_directory() {
        let items = boot().into_items();
        let mut seen = HashSet::new();
        for item in &items {
            assert!(seen.insert(format!("{:?}", item.name)), "{:?} twice", item.name);
            if let Name::File(name) = &item.name {
                assert!(name.len() < 56);
            }
        }
        assert_eq!(bytes(&items, &Name::Key(Key::NB_CPUS)), [2, 0]);
        assert_eq!(bytes(&items, &Name::Key(Key::BOOT_MENU)), [1, 0]);
        assert_eq!(file(&items, "etc/boot-menu-wait"), [100, 0]);
        assert_eq!(file(&items, "etc/boot-fail-wait"), [0xff; 4]);
        let order = b"/rom@genroms/linuxboot_dma.bin\n/pci@i0cf8/scsi@3/disk@0,0\0";
        assert_eq!(file(&items, "bootorder"), order);
    }

    #[test]
    fn the_tables_are_built_with_the_windows_of_the_moment() {
        let items = boot().into_items();
        let tables = file(&items, acpi::TABLES);
        let window = (1u64 << 40).to_le_bytes();
        assert!(tables.windows(8).any(|bytes| bytes == window));
        assert!(!file(&items, acpi::LOADER).is_empty());
    }
}
