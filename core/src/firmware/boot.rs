//! All that the firmware reads, as the items of the fw_cfg device.

use trapline_devices::platform::fw_cfg::{FileError, Items, key};
use trapline_devices::q35::RamSplit;
use trapline_io::{Gpa, Span};

use super::acpi::{self, Platform, Windows};
use super::e820;
use super::image::Image;
use super::linux::Linux;
use super::smbios;

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
    /// What is no place for anything above 4 GiB.
    pub reserved: Vec<Span<Gpa>>,
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
    ///
    /// # Errors
    /// A file of more than 4 GiB.
    pub fn into_items(self) -> Result<Items, FileError> {
        let mut items = Items::new();
        self.add_numbers(&mut items);
        items.add_file("etc/e820", e820::table(self.ram, &self.reserved))?;
        let smbios = smbios::build(self.ram, self.cpus, self.uuid);
        items.add_file(smbios::ANCHOR, smbios.anchor)?;
        items.add_file(smbios::TABLES, smbios.tables)?;
        self.add_wishes(&mut items)?;
        let platform = Platform {
            cpus: self.cpus,
            ram: self.ram,
            windows: Windows::default(),
            keyboard: self.keyboard,
            serial: self.serial,
        };
        add_tables(platform, self.windows, &mut items)?;
        if let Some((linux, rom)) = self.linux {
            items.add_file(LINUXBOOT, rom.bytes)?;
            linux.add_items(&mut items);
        }
        Ok(items)
    }

    fn add_numbers(&self, items: &mut Items) {
        let cpus = u16::from(self.cpus).to_le_bytes();
        items.set(key::UUID, self.uuid);
        items.set(key::RAM_SIZE, self.ram.total().to_le_bytes());
        items.set(key::NO_GRAPHICS, 0u16.to_le_bytes());
        items.set(key::CPUS, cpus);
        items.set(key::MAX_CPUS, cpus);
        // As the MADT says.
        items.set(key::IRQ0_OVERRIDE, 1u32.to_le_bytes());
        items.set(key::BOOT_MENU, u16::from(self.choices.menu.is_some()).to_le_bytes());
    }

    fn add_wishes(&self, items: &mut Items) -> Result<(), FileError> {
        let choices = &self.choices;
        items.add_file("etc/boot-fail-wait", choices.retry.unwrap_or(u32::MAX).to_le_bytes())?;
        items.add_file("etc/optionroms-checksum", u64::from(choices.rom_checksums).to_le_bytes())?;
        if let Some(wait) = choices.menu {
            items.add_file("etc/boot-menu-wait", wait.to_le_bytes())?;
        }
        if !self.order.is_empty() {
            let lines: Vec<String> = self.order.iter().map(Target::path).collect();
            items.add_file("bootorder", format!("{}\0", lines.join("\n")))?;
        }
        Ok(())
    }
}

/// The ACPI files; only the tables depend on the windows, and their length does not.
fn add_tables(
    platform: Platform,
    windows: Box<dyn Fn() -> Windows + Send>,
    items: &mut Items,
) -> Result<(), FileError> {
    let first = acpi::build(&platform);
    let build = move || acpi::build(&Platform { windows: windows(), ..platform }).tables;
    items.add_file(acpi::LOADER, first.loader)?;
    items.add_file(acpi::RSDP, first.rsdp)?;
    items.add_made_file(acpi::TABLES, first.tables.len(), build)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> Boot {
        Boot {
            cpus: 2,
            ram: RamSplit::of(1 << 30),
            reserved: Vec::new(),
            uuid: [7; 16],
            keyboard: true,
            serial: false,
            order: vec![Target::Kernel, Target::disk(3)],
            choices: Choices { menu: Some(100), ..Choices::default() },
            linux: None,
            windows: Box::new(|| Windows { high: Span::of_len(Gpa(1 << 40), 1 << 30), ..Windows::default() }),
        }
    }

    fn file(items: &mut Items, name: &str) -> Vec<u8> {
        let key = items.key_of(name).expect("the file is there");
        items.contents(key).to_vec()
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
    fn the_firmware_is_told_what_the_machine_is() {
        let mut items = boot().into_items().unwrap();
        assert_eq!(items.contents(key::CPUS), [2, 0]);
        assert_eq!(items.contents(key::BOOT_MENU), [1, 0]);
        assert_eq!(items.contents(key::RAM_SIZE), (1u64 << 30).to_le_bytes());
        assert_eq!(file(&mut items, "etc/boot-menu-wait"), [100, 0]);
        assert_eq!(file(&mut items, "etc/boot-fail-wait"), [0xff; 4]);
        let order = b"/rom@genroms/linuxboot_dma.bin\n/pci@i0cf8/scsi@3/disk@0,0\0";
        assert_eq!(file(&mut items, "bootorder"), order);
    }

    #[test]
    fn the_tables_are_built_with_the_windows_of_the_moment() {
        let mut items = boot().into_items().unwrap();
        let tables = file(&mut items, acpi::TABLES);
        let window = (1u64 << 40).to_le_bytes();
        assert!(tables.windows(8).any(|bytes| bytes == window));
        assert!(!file(&mut items, acpi::LOADER).is_empty());
    }

    #[test]
    fn the_tables_length_does_not_depend_on_the_windows() {
        let platform = |windows| Platform {
            cpus: 2,
            ram: RamSplit::of(1 << 30),
            windows,
            keyboard: true,
            serial: false,
        };
        let later = Windows { high: Span::of_len(Gpa(1 << 40), 1 << 30), ..Windows::default() };
        let [first, later] =
            [Windows::default(), later].map(|windows| acpi::build(&platform(windows)).tables);
        assert_eq!(first.len(), later.len(), "the directory tells the length beforehand");
    }
}
