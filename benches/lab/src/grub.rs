//! A raw disk image with GRUB on it, made as an ordinary user from the distribution's files.
//!
//! ```text
//! sector 0        boot.img with a partition table: loads the core image
//! from sector 1   core image of grub-mkimage: the kernel of GRUB, and what it needs to read the partition
//! from 1 MiB      partition 1: a tar archive with the modules and grub.cfg
//! ```
//!
//! The core image is the only part that GRUB unpacks (LZMA) before anything is seen, and on a host whose
//! KVM emulates every instruction of the guest that is what takes longest: so it holds no more than it
//! must, and all else lies unpacked in the archive, which GRUB reads as a file system.

pub mod redraw;
mod tar;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const FILES: &str = "/usr/lib/grub/i386-pc";
const SECTOR: usize = 512;
/// Where the partition starts.
const PARTITION: usize = 1 << 20;
/// The image's length is a multiple of this.
const UNIT: usize = 4 << 20;
/// In the core image: what reads the partition.
const CORE: [&str; 3] = ["biosdisk", "part_msdos", "tar"];
/// In the archive: what the menu needs. What these need is found in GRUB's own list.
const MODULES: [&str; 6] = ["normal", "echo", "sleep", "halt", "reboot", "iorw"];
/// In the archive: what the menu with Linux needs.
const LINUX_MODULES: [&str; 3] = ["normal", "linux16", "iorw"];

/// The menu, as the tests look for it.
pub const ENTRIES: [&str; 4] =
    ["Say hello", "Wait and come back", "Restart the machine", "Turn the machine off"];
/// What is written to the first serial port when the menu is about to be drawn.
pub const MARK: u8 = b'G';

/// The menu's entry that boots Linux.
pub const LINUX_ENTRY: &str = "Boot Linux from this disk";

/// What GRUB boots.
pub struct Linux<'a> {
    /// A bzImage.
    pub kernel: &'a [u8],
    /// Its initramfs.
    pub initramfs: &'a [u8],
    /// Its command line, without quotation marks.
    pub command_line: &'a str,
}

/// Makes the image at `path`: a menu that waits for a key.
pub fn make(path: &Path) -> Result<()> {
    write(path, &archive(&MODULES, &configuration())?.finish())
}

/// Makes an image at `path` whose menu boots Linux after a second.
pub fn make_linux(path: &Path, linux: &Linux) -> Result<()> {
    let mut archive = archive(&LINUX_MODULES, &linux_configuration(linux.command_line))?;
    archive.add("linux", linux.kernel);
    archive.add("initramfs", linux.initramfs);
    write(path, &archive.finish())
}

fn write(path: &Path, archive: &[u8]) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let core = core_image(folder.path())?;
    let boot = read(&Path::new(FILES).join("boot.img"))?;
    let image = assemble(&boot, &core, archive)?;
    // Beside it and then renamed: a machine that still reads the old image keeps it.
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, image).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {} (package grub-pc-bin)", path.display()))
}

/// Has grub-mkimage join kernel and modules.
fn core_image(folder: &Path) -> Result<Vec<u8>> {
    let core = folder.join("core.img");
    for program in ["grub-mkimage", "grub2-mkimage"] {
        let mut command = Command::new(program);
        command.args(["--format", "i386-pc", "--prefix", "(hd0,msdos1)/grub", "--output"]);
        match command.arg(&core).args(CORE).output() {
            Ok(output) if output.status.success() => return read(&core),
            Ok(output) => bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot run {program}")),
        }
    }
    bail!("there is no grub-mkimage: install the package grub-common")
}

/// Modules and menu, as the partition holds them.
fn archive(modules: &[&str], configuration: &str) -> Result<tar::Archive> {
    let list = |name: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&read(&Path::new(FILES).join(name))?).into_owned())
    };
    let modules = closure(&list("moddep.lst")?, modules);
    let mut archive = tar::Archive::new();
    archive.add("grub/grub.cfg", configuration.as_bytes());
    archive.add("grub/i386-pc/command.lst", commands(&list("command.lst")?, &modules).as_bytes());
    for module in modules {
        let file: PathBuf = Path::new(FILES).join(format!("{module}.mod"));
        archive.add(&format!("grub/i386-pc/{module}.mod"), &read(&file)?);
    }
    Ok(archive)
}

/// `wanted` and all that they depend on by GRUB's list: a module and a colon, then what it needs.
fn closure(list: &str, wanted: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let mut next = 0;
    while let Some(module) = found.get(next).cloned() {
        let needs = list.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == module);
        for need in needs.map_or("", |(_, needs)| needs).split_whitespace() {
            if !found.iter().any(|name| name == need) && !CORE.contains(&need) {
                found.push(need.to_owned());
            }
        }
        next += 1;
    }
    found
}

/// Of GRUB's list of commands (a command and a colon, then its module) those of `modules`: GRUB loads a
/// module when a command of the list is called, and reads the list before it shows anything.
fn commands(list: &str, modules: &[String]) -> String {
    let of_modules = |line: &&str| {
        let module = line.split_once(':').map(|(_, module)| module.trim());
        modules.iter().any(|name| Some(name.as_str()) == module)
    };
    list.lines().filter(of_modules).map(|line| format!("{line}\n")).collect()
}

/// GRUB's script: a menu that waits for a key.
fn configuration() -> String {
    let [hello, wait, restart, off] = ENTRIES;
    format!(
        "set timeout=-1\nset default=0\n\
         menuentry \"{hello}\" {{\n  echo \"Hello from GRUB, by INT 10h, on your adapter.\"\n  sleep 5\n}}\n\
         menuentry \"{wait}\" {{\n  echo \"Waiting\"\n  sleep 2\n}}\n\
         menuentry \"{restart}\" {{\n  reboot\n}}\n\
         menuentry \"{off}\" {{\n  halt\n}}\n\
         outb 0x3f8 {MARK}\n"
    )
}

/// GRUB's script: a menu that boots Linux after a second.
fn linux_configuration(command_line: &str) -> String {
    format!(
        "set timeout=5\nset default=0\n\
         menuentry \"{LINUX_ENTRY}\" {{\n  linux16 /linux {command_line}\n  initrd16 /initramfs\n}}\n\
         outb 0x3f8 {MARK}\n"
    )
}

/// Puts the parts where the boot sector and GRUB look for them.
fn assemble(boot: &[u8], core: &[u8], archive: &[u8]) -> Result<Vec<u8>> {
    if boot.len() != SECTOR || SECTOR + core.len() > PARTITION {
        bail!("GRUB's files have sizes that the image has no room for");
    }
    let mut image = vec![0; (PARTITION + archive.len()).next_multiple_of(UNIT)];
    // boot.img has a floppy's code where the partition table goes.
    image[..446].copy_from_slice(&boot[..446]);
    let entry = partition_entry(image.len() - PARTITION);
    image[446..462].copy_from_slice(&entry);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[SECTOR..SECTOR + core.len()].copy_from_slice(core);
    image[PARTITION..PARTITION + archive.len()].copy_from_slice(archive);
    Ok(image)
}

/// An active partition without a file system that anyone knows, of `length` bytes from 1 MiB.
fn partition_entry(length: usize) -> [u8; 16] {
    let sectors = |bytes: usize| u32::try_from(bytes / SECTOR).expect("a small image").to_le_bytes();
    let mut entry = [0x80, 0xfe, 0xff, 0xff, 0xda, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    entry[8..12].copy_from_slice(&sectors(PARTITION));
    entry[12..16].copy_from_slice(&sectors(length));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_followed_to_their_end_and_named_once() {
        let list = "a: b c\nb: c tar\nc:\nd: a\n";
        assert_eq!(closure(list, &["a"]), ["a", "b", "c"]);
        assert_eq!(closure(list, &["d", "c"]), ["d", "c", "a", "b"]);
        assert_eq!(closure(list, &["unknown"]), ["unknown"]);
    }

    #[test]
    fn only_commands_that_can_be_loaded_are_listed() {
        let list = "*acpi: acpi\n*echo: echo\noutb: iorw\noutw: iorw\n";
        let modules = ["echo".to_owned(), "iorw".to_owned()];
        assert_eq!(commands(list, &modules), "*echo: echo\noutb: iorw\noutw: iorw\n");
    }

    #[test]
    fn the_parts_lie_where_the_boot_sector_looks() {
        let image = assemble(&[0x90; SECTOR], &[1; 700], &[2; 900]).unwrap();
        assert_eq!(image[440..447], [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x80]);
        assert_eq!(image[462..510], [0; 48]);
        assert_eq!((image[511], image[512], image[512 + 700]), (0xaa, 1, 0));
        assert_eq!((image[PARTITION - 1], image[PARTITION]), (0, 2));
        assert!(assemble(&[0; SECTOR], &vec![1; PARTITION], &[]).is_err());
    }
}
