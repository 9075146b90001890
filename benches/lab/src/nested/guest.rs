//! A guest of the outer machine, as trapline and as QEMU start it: the same BIOS, memory, function, ROM, disk
//! and kernel, so that what differs is the program.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::outer::{Tree, quoted};
use crate::packages;
use crate::stopwatch;

/// How long one guest may run that is timed.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The serial line and the firmware's debug console, as files in the folder in which the program runs.
pub const SERIAL: &str = "serial";
/// See [`SERIAL`].
pub const DEBUG: &str = "debug";

/// Which expansion ROM the guest finds at its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rom {
    /// None.
    Off,
    /// This file.
    File(PathBuf),
}

/// An assigned function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its address in the outer machine.
    pub address: String,
    /// Its ROM.
    pub rom: Rom,
}

/// A kernel to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// A bzImage.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// Its command line.
    pub words: String,
}

/// What one guest is made of, at paths that the outer machine has too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// Memory in MiB.
    pub memory: u32,
    /// The function that it is given.
    pub function: Option<Function>,
    /// A disk image, which it only reads.
    pub disk: Option<PathBuf>,
    /// A kernel.
    pub linux: Option<Linux>,
    /// Whether its serial line goes to [`SERIAL`].
    pub serial: bool,
    /// Whether its debug console goes to [`DEBUG`].
    pub debug: bool,
}

impl Guest {
    /// One with so much memory in MiB and nothing else.
    pub fn new(memory: u32) -> Self {
        Guest { memory, ..Guest::default() }
    }

    /// The same with an assigned function.
    pub fn with(mut self, address: &str, rom: Rom) -> Self {
        self.function = Some(Function { address: address.to_owned(), rom });
        self
    }

    /// The words of the shell that start it with a build of trapline, with these further arguments.
    pub fn trapline(&self, program: &Path, rest: &[&str]) -> Result<String> {
        let mut words = vec![text(program), "run".into(), "--screen".into(), "none".into()];
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        add("--memory", format!("{}M", self.memory));
        add("--firmware", firmware()?);
        add(
            "--device",
            match &self.function {
                None => "none".into(),
                Some(Function { address, rom: Rom::Off }) => format!("{address},rom=off"),
                Some(Function { address, rom: Rom::File(rom) }) => format!("{address},rom={}", text(rom)),
            },
        );
        if let Some(disk) = &self.disk {
            add("--disk", format!("{},readonly", text(disk)));
        }
        if let Some(linux) = &self.linux {
            add("--kernel", text(&linux.kernel));
            add("--initrd", text(&linux.initramfs));
            add("--append", linux.words.clone());
        }
        if self.serial {
            add("--serial", SERIAL.into());
        }
        if self.debug {
            add("--debugcon", DEBUG.into());
        }
        words.extend(rest.iter().map(ToString::to_string));
        Ok(line(&words))
    }

    /// The same with the tree's QEMU, as its machine `pc`.
    pub fn qemu(&self, tree: &Tree) -> Result<String> {
        let mut words: Vec<String> = tree.qemu()?.iter().map(|word| text(Path::new(word))).collect();
        let own = ["-nodefaults", "-no-user-config", "-machine", "pc", "-accel", "kvm", "-cpu", "host"];
        words.extend(own.map(str::to_owned));
        words.extend(["-vga", "none", "-display", "none"].map(str::to_owned));
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        add("-m", self.memory.to_string());
        add("-bios", firmware()?);
        if let Some(function) = &self.function {
            let rom = match &function.rom {
                Rom::Off => "rombar=0".into(),
                Rom::File(rom) => format!("romfile={}", text(rom)),
            };
            add("-device", format!("vfio-pci,host={},x-vga=on,{rom}", function.address));
        }
        if let Some(disk) = &self.disk {
            add("-drive", format!("if=virtio,format=raw,readonly=on,file={}", text(disk)));
        }
        if let Some(linux) = &self.linux {
            add("-kernel", text(&linux.kernel));
            add("-initrd", text(&linux.initramfs));
            add("-append", linux.words.clone());
        }
        if self.serial {
            add("-serial", format!("file:{SERIAL}"));
        }
        if self.debug {
            add("-chardev", format!("file,id={DEBUG},path={DEBUG}"));
            add("-device", format!("isa-debugcon,iobase=0x402,chardev={DEBUG}"));
        }
        Ok(line(&words))
    }
}

/// The BIOS of this machine, which the outer one sees at the same path.
fn firmware() -> Result<String> {
    Ok(packages::SEABIOS.file().context("SeaBIOS is gone")?.to_owned())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// What one run took.
pub struct Time {
    /// When each mark was heard, in seconds from the start.
    pub marks: Vec<f64>,
    /// Processor time of the outer machine, in seconds.
    pub processor: f64,
}

/// Runs these words of the shell until the last mark was heard in the pipe of this name, and kills what runs.
pub fn time(stage: &Stage<'_>, command: &str, pipe: &str, marks: &[&str]) -> Result<Time> {
    // This program, which the outer machine sees at the same path.
    let own = std::env::current_exe().context("this program has no path")?;
    let script = stopwatch::Options::line(&text(&own), pipe, marks, PATIENCE, command);
    let before = stage.outer.processor_time()?;
    let deadline = stage.deadline.min(Instant::now() + PATIENCE + PATIENCE / 4);
    let ended = stage.start(&script)?.wait(deadline)?;
    ensure!(ended.status == 0, "{}", ended.output.trim());
    let processor = stage.outer.processor_time()?.saturating_sub(before).as_secs_f64();
    Ok(Time { marks: stopwatch::times(&ended.output, marks.len())?, processor })
}
