//! The distribution's packages: what is missing is named, asked for, and installed by apt-get.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A package of Debian and Ubuntu.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Files of which one is there when the package is.
    files: &'static [&'static str],
    /// What it is for.
    why: &'static str,
}

/// SeaBIOS and the VGA BIOS.
pub const SEABIOS: Package = Package {
    name: "seabios",
    files: &["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"],
    why: "the firmware and the adapter's ROM",
};
/// GRUB's modules and boot sectors.
pub const GRUB_MODULES: Package =
    Package { name: "grub-pc-bin", files: &["/usr/lib/grub/i386-pc/boot.img"], why: "the boot loader" };
/// The program that makes GRUB's core image.
pub const GRUB_TOOLS: Package = Package {
    name: "grub-common",
    files: &["/usr/bin/grub-mkimage", "/usr/bin/grub2-mkimage"],
    why: "to make the disk image with the boot loader",
};
/// The option ROM that starts a kernel.
pub const LINUXBOOT: Package = Package {
    name: "qemu-system-data",
    files: &["/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu-kvm/linuxboot_dma.bin"],
    why: "the option ROM behind --kernel",
};
/// The reference compiler of ACPI.
pub const ACPICA: Package =
    Package { name: "acpica-tools", files: &["/usr/bin/iasl"], why: "to check the ACPI tables" };

/// The program that speed is compared with.
pub const QEMU: Package =
    Package { name: "qemu-system-x86", files: &["/usr/bin/qemu-system-x86_64"], why: "to be compared with" };

/// Whether apt-get may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The user said so, or is root.
    Given,
    /// A person must be asked.
    Ask,
}

impl Consent {
    /// Root has agreed by being root, and so has who says `--yes`.
    pub fn of(yes: bool) -> Self {
        if yes || rustix::process::geteuid().is_root() { Consent::Given } else { Consent::Ask }
    }
}

/// Installs those packages of `needed` that are missing, saying which.
pub fn ensure(needed: &[Package], consent: Consent) -> Result<()> {
    let missing: Vec<&Package> = needed.iter().filter(|package| !package.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("These packages of the distribution are missing:");
    for package in &missing {
        eprintln!("  {:<17} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("apt-get install {}", names.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no apt-get: install them in the way of this distribution, then try again");
    }
    if consent == Consent::Ask && !agreed(&by_hand)? {
        bail!("nothing was installed; the command is: sudo {by_hand}");
    }
    install(&names).with_context(|| format!("cannot install them; try it by hand: sudo {by_hand}"))?;
    match needed.iter().find(|package| !package.is_there()) {
        Some(package) => {
            bail!("{} is installed, but none of {} is there", package.name, package.files.join(", "))
        }
        None => Ok(()),
    }
}

impl Package {
    /// Whether one of its files is there, whoever put it there.
    fn is_there(&self) -> bool {
        self.file().is_some()
    }

    /// The first of its files that is there.
    pub fn file(&self) -> Option<&'static str> {
        self.files.iter().copied().find(|file| Path::new(file).exists())
    }
}

/// Asks on the terminal.
fn agreed(command: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask on: run it again with --yes, or as root");
    }
    eprint!("Run `sudo {command}`? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// Installs; where the lists of packages are old or absent, brings them up to date and tries again.
fn install(names: &[&str]) -> Result<()> {
    eprintln!("Installing {}", names.join(", "));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(names);
    if apt_get(&arguments, Stdio::null())? {
        return Ok(());
    }
    eprintln!("Bringing the lists of packages up to date");
    if !apt_get(&["update"], Stdio::inherit())? || !apt_get(&arguments, Stdio::inherit())? {
        bail!("apt-get failed");
    }
    Ok(())
}

/// Runs apt-get as root and tells whether it succeeded; its messages go to `errors`, its report nowhere.
fn apt_get(arguments: &[&str], errors: Stdio) -> Result<bool> {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("env");
        command.arg("DEBIAN_FRONTEND=noninteractive");
        command
    } else {
        let mut command = Command::new("sudo");
        command.args(["env", "DEBIAN_FRONTEND=noninteractive"]);
        command
    };
    command.args(["apt-get", "-qq"]).args(arguments).stdout(Stdio::null()).stderr(errors);
    Ok(command.status().context("cannot run apt-get")?.success())
}
