//! The programs that are compared, each with the same machine: one vCPU, the same firmware and memory,
//! the boot disk on virtio, a VGA adapter, the serial line; no boot menu, no network.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::payload::mark;

/// What the boot sector does after its mark.
pub type Ending = mark::Then;

/// Memory of the guest, in MiB.
pub const MEMORY: u64 = 256;

/// A program that boots a machine.
pub struct Contender {
    /// What it is called in the report.
    pub name: String,
    program: PathBuf,
    firmware: PathBuf,
    /// Which options it knows.
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Trapline,
    Qemu,
}

/// Where one machine finds its disk and leaves what it says.
pub struct Places<'a> {
    /// The disk image.
    pub disk: &'a Path,
    /// The serial line.
    pub serial: &'a Path,
    /// The firmware's debug console, if it is wanted.
    pub console: Option<&'a Path>,
    /// Standard error of a program that tells what it does somewhere else.
    pub errors: std::fs::File,
}

impl Contender {
    /// A build of trapline.
    pub fn trapline(name: &str, program: PathBuf, firmware: &str) -> Contender {
        Contender { name: name.into(), program, firmware: firmware.into(), kind: Kind::Trapline }
    }

    /// The distribution's QEMU.
    pub fn qemu(name: &str, firmware: &str) -> Contender {
        let program = "qemu-system-x86_64".into();
        Contender { name: name.into(), program, firmware: firmware.into(), kind: Kind::Qemu }
    }

    /// The command; what it tells about itself comes out of the pipe that [`Contender::tells_on_stdout`]
    /// names.
    pub fn command(&self, places: Places<'_>) -> std::io::Result<Command> {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Trapline => {
                command.args(["run", "--screen", "none", "--memory", &format!("{MEMORY}M")]);
                command.arg("--firmware").arg(&self.firmware).arg("--disk").arg(places.disk);
                command.arg("--serial").arg(places.serial);
                if let Some(console) = places.console {
                    command.arg("--debugcon").arg(console);
                }
                command.env("TRAPLINE_LOG", "warn,trapline_vcpu=debug");
                command.stdin(Stdio::null()).stdout(places.errors).stderr(Stdio::piped());
            }
            Kind::Qemu => {
                command.args(["-nodefaults", "-no-user-config", "-machine", "pc", "-accel", "kvm"]);
                command.args(["-vga", "std", "-display", "none", "-m", &MEMORY.to_string(), "-S"]);
                command.arg("-bios").arg(&self.firmware);
                command.arg("-drive").arg(with("if=virtio,format=raw,file=", places.disk));
                command.arg("-serial").arg(with("file:", places.serial));
                if let Some(console) = places.console {
                    command.arg("-chardev").arg(with("file,id=console,path=", console));
                    command.args(["-device", "isa-debugcon,iobase=0x402,chardev=console"]);
                }
                command.args(["-qmp", "stdio"]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(places.errors);
            }
        }
        Ok(command)
    }

    /// Whether it tells what it does on standard output, not on standard error.
    pub fn tells_on_stdout(&self) -> bool {
        self.kind == Kind::Qemu
    }

    /// What must be said to it so that its vCPU is let go.
    pub fn starter(&self) -> &'static str {
        match self.kind {
            Kind::Trapline => "",
            Kind::Qemu => "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\"}\n",
        }
    }

    /// Whether a line that it tells says that the vCPU is let go.
    pub fn lets_go(&self, line: &str) -> bool {
        match self.kind {
            Kind::Trapline => line.contains("enters the guest"),
            Kind::Qemu => line.contains("\"RESUME\""),
        }
    }
}

/// An option with a path behind it.
fn with(option: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(option);
    text.push(path);
    text
}
