//! The guest's Linux: an initramfs whose first process carries out steps and tells what came of them.
//!
//! The steps are words of the kernel's command line, which [`command_line`] makes. Lines that tell of them
//! start with [`SAYS`] and are written to the screen and to the serial line; the last one is [`DONE`],
//! after which the guest waits to be looked at.
//!
//! | step | what is done and told |
//! |---|---|
//! | `Console` | the kernel's console: `colour VGA+ 80x25` on a VGA adapter whose BIOS ran |
//! | `Functions` | address, ids and class of every PCI function |
//! | `Addresses` | what the BARs of every function decode: address, index, first and last address |
//! | `Configuration` | every function's configuration space, on the serial line only |
//! | `Nvme` | the SHA-256 of the first NVMe disk, its interrupts and their kind |
//! | `Net` | link, packets from and to a peer, by an e1000e; its interrupts and their kind |
//! | `Ends` | both ends of the BARs of a function with large ones, before and after a write |
//! | `Ports` | a Radeon by its I/O BAR and its memory, and its interrupt line |
//! | `Quirks` | what a Radeon's back doors to configuration space tell, and a write of COMMAND by one |
//! | `Gpu` | a virtio GPU by its driver, which then has the screen; its interrupts and their kind |
//! | `Drivers` | all drivers of the archive are loaded: which function has which then |
//! | `Scroll` | [`LINES`] numbered lines on the screen, see [`last_lines`] |
//! | `Reset` | the machine is reset, which ends the steps |
//! | `Off` | the machine is turned off, which ends the steps |

pub mod peers;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::grub::{self, Linux};
use crate::outer::Tree;
use crate::outer::archive::Archive;
use crate::workspace::Workspace;

/// What each line starts with.
pub const SAYS: &str = "lab: ";
/// The line after the last step.
pub const DONE: &str = "lab: done";
/// The kernel's line before the first process runs.
pub const RUN_INIT: &str = "Run /init as init process";
/// The guest's address in step [`Step::Net`], and its peer's.
pub const GUEST_ADDRESS: &str = "10.77.0.2";
/// The peer must answer here, and send three echo requests to the guest.
pub const PEER_ADDRESS: &str = "10.77.0.1";

/// How many lines step [`Step::Scroll`] writes.
const LINES: u32 = 500;

/// The first process.
const INIT: &str = include_str!("inner/init.sh");
/// The drivers of steps [`Step::Nvme`] and [`Step::Net`].
pub const MODULES: [&str; 2] = ["nvme", "e1000e"];
/// The driver of step [`Step::Ports`].
pub const UIO: &str = "uio_pci_generic";
/// The driver of step [`Step::Gpu`].
pub const VIRTIO_GPU: &str = "virtio_gpu";

/// One thing that the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Tells the kernel's console.
    Console,
    /// Lists the PCI functions.
    Functions,
    /// Lists what their BARs decode.
    Addresses,
    /// Dumps their configuration spaces.
    Configuration,
    /// Reads an NVMe disk.
    Nvme,
    /// Exchanges packets with a peer.
    Net,
    /// Reads and writes both ends of large BARs.
    Ends,
    /// Drives a Radeon by hand.
    Ports,
    /// Looks at a Radeon's configuration space by ways of its own.
    Quirks,
    /// Drives a virtio GPU.
    Gpu,
    /// Loads all drivers of the archive.
    Drivers,
    /// Scrolls the screen.
    Scroll,
    /// Resets the machine.
    Reset,
    /// Turns the machine off.
    Off,
}

impl Step {
    /// Its word in the command line, which is also a name in the script.
    fn word(self) -> &'static str {
        match self {
            Step::Console => "console",
            Step::Functions => "functions",
            Step::Addresses => "addresses",
            Step::Configuration => "configuration",
            Step::Nvme => "nvme",
            Step::Net => "net",
            Step::Ends => "ends",
            Step::Ports => "ports",
            Step::Quirks => "quirks",
            Step::Gpu => "gpu",
            Step::Drivers => "drivers",
            Step::Scroll => "scroll",
            Step::Reset => "reset",
            Step::Off => "off",
        }
    }
}

/// The kernel's command line: both consoles, the screen being the one that the first process has.
pub fn command_line(steps: &[Step]) -> String {
    let words: Vec<&str> = steps.iter().map(|step| step.word()).collect();
    let steps = if words.is_empty() { "stay".to_owned() } else { words.join(",") };
    format!("console=ttyS0 console=tty0 panic=-1 mitigations=off lab={steps}")
}

/// What the screen of 25 lines must show when [`Step::Scroll`] was the last step: the last of its lines, and
/// [`DONE`]; the cursor is in the line below.
pub fn last_lines() -> String {
    let lines = (LINES - 22..=LINES).map(|line| {
        let digits = line * 7919 % 10007;
        format!("line {line} of {LINES}, {digits:05} {digits:05} {digits:05}\n")
    });
    lines.chain([DONE.to_owned()]).collect()
}

/// The initramfs with these modules, each with what it needs. It is not packed: unpacking costs an emulated processor
/// more than reading.
pub fn initramfs(tree: &Tree, wanted: &[&str]) -> Result<Vec<u8>> {
    let busybox = tree.busybox()?;
    let busybox = std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let modules = tree.modules()?;
    let mut archive = Archive::default();
    archive.folder("bin").folder("modules").file("init", INIT.as_bytes()).file("bin/busybox", &busybox);
    let mut order = String::new();
    for wanted in wanted {
        for module in modules.in_order(&[wanted])? {
            archive.file(&format!("modules/{}.ko", module.name), &module.object);
            order += &format!("{wanted} {}\n", module.name);
        }
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// Writes a disk with GRUB, the kernel and the initramfs, whose menu has one entry that carries out `steps`.
pub fn disk(tree: &Tree, steps: &[Step], path: &Path) -> Result<()> {
    let kernel = tree.kernel()?;
    let kernel = std::fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let initramfs = initramfs(tree, &MODULES)?;
    let linux = Linux { kernel: &kernel, initramfs: &initramfs, command_line: &command_line(steps) };
    grub::make_linux(path, &linux)
}

/// Writes `initramfs` and `grub.img` to a folder, for hand use.
pub fn write(folder: &Path, steps: &[Step]) -> Result<ExitCode> {
    let tree = Tree::prepare(&Workspace::find()?.lab()?)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("initramfs");
    std::fs::write(&file, initramfs(&tree, &MODULES)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    disk(&tree, steps, &folder.join("grub.img"))?;
    println!("--kernel {} --append \"{}\"", tree.kernel()?.display(), command_line(steps));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_in_the_command_line() {
        assert!(command_line(&[Step::Console, Step::Off]).ends_with(" lab=console,off"));
        assert!(command_line(&[]).ends_with(" lab=stay"));
        assert!(command_line(&[]).contains("console=ttyS0 console=tty0 "));
    }

    #[test]
    fn the_script_knows_every_step() {
        let steps = [
            Step::Console,
            Step::Functions,
            Step::Configuration,
            Step::Nvme,
            Step::Net,
            Step::Ends,
            Step::Ports,
            Step::Quirks,
            Step::Gpu,
            Step::Drivers,
            Step::Scroll,
            Step::Reset,
            Step::Off,
        ];
        for step in steps {
            let word = step.word();
            assert!(
                INIT.contains(&format!("\n{word}() {{")) || INIT.contains(&format!("\n    {word}) ")),
                "{word}"
            );
        }
        assert!(INIT.contains(&format!("$(seq {LINES})")) && last_lines().lines().count() == 24);
        let done = DONE.strip_prefix(SAYS).unwrap();
        assert!(INIT.contains(&format!("say \"{done}\"")));
        assert!(INIT.contains(GUEST_ADDRESS) && INIT.contains(PEER_ADDRESS));
    }
}
