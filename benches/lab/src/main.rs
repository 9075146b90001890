//! trapline's laboratory: what a fresh machine needs to try trapline and to test it.
//!
//! * `cargo demo`: installs what is missing, builds, boots SeaBIOS and GRUB, shows the screen.
//! * `cargo lab test`: builds and runs every test and closes with one line of counts.
//! * `cargo lab speed`: boots firmware side by side with QEMU.
//! * `cargo lab bench`: trapline side by side with QEMU on an assigned adapter.
//! * `cargo lab up`: a shell or a command in the outer machine of the nested laboratory.
//! * `cargo lab shot`: what an adapter of the outer machine shows.
//!
//! | file | what |
//! |---|---|
//! | [`workspace`] | the folders of this checkout, and cargo |
//! | [`packages`] | the distribution's packages, asked for and installed |
//! | [`grub`] | a disk image with GRUB, made without root and without mounting |
//! | [`payload`] | small guest programs, and what they must show |
//! | [`demo`] | the demonstration |
//! | [`suite`], [`steps`], [`tally`] | the test run: its steps, how one is run, what is counted |
//! | [`speed`] | firmware, side by side with QEMU |
//! | [`mod@bench`] | an assigned adapter, side by side with QEMU |
//! | [`stopwatch`] | when a program says something |
//! | [`outer`], [`screen`] | the outer machine: a host with KVM, an IOMMU and adapters; what they show |
//! | [`nested`] | the tests that need one |
//! | [`up`], [`shot`] | one at hand |
//! | [`inner`] | the Linux of a guest: an initramfs that carries out steps |
//! | [`machine`], [`cases`] | a running `trapline`, and the tests that need one |

mod bench;
mod cases;
mod demo;
mod grub;
mod inner;
mod machine;
mod nested;
mod outer;
mod packages;
mod payload;
mod screen;
mod shot;
mod speed;
mod steps;
mod stopwatch;
mod suite;
mod tally;
mod up;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// trapline's laboratory.
#[derive(Parser)]
#[command(name = "cargo lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot SeaBIOS and GRUB on the software adapter and show the screen
    Demo(demo::Options),
    /// Build and run every test
    Test(suite::Options),
    /// Boot firmware side by side with QEMU, and look at time, memory and size
    Speed(speed::Options),
    /// Side by side with QEMU on an adapter of the outer machine: boots, accesses, starts
    Bench(bench::Options),
    /// Tell when a program says something (for the other commands)
    #[command(hide = true)]
    Stopwatch(stopwatch::Options),
    /// Boot the outer machine of the nested laboratory; a shell or a command in it
    Up(up::Options),
    /// Boot the outer machine, run a command in it, show an adapter's screen
    Shot(shot::Options),
    /// Write a guest program to a file: a disk that paints (text, planes, chained, linear, modes) or carries out
    /// a program on the bare machine (irqs, edu, movebar, accesses, pam, handover, stranger, hostile), or a kernel
    Payload {
        /// text, planes, chained, linear, modes, irqs, edu, movebar, accesses, pam, handover, stranger, hostile or kernel
        name: String,
        /// The file
        file: PathBuf,
        /// What the hostile program does, as its case told of it
        #[arg(long, default_value = "1", value_parser = seed)]
        seed: u32,
    },
    /// Write the guest's Linux to a folder: initramfs, and grub.img with the kernel, which boots into steps
    Inner {
        /// The folder
        folder: PathBuf,
        /// What the guest does, in this order
        steps: Vec<inner::Step>,
    },
    /// Make the disk image with GRUB
    Grub {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => suite::run(&options),
        Command::Speed(options) => speed::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Stopwatch(options) => stopwatch::run(&options),
        Command::Up(options) => up::run(&options),
        Command::Shot(options) => shot::run(&options),
        Command::Payload { name, file, seed } => write_payload(&name, &file, seed),
        Command::Inner { folder, steps } => inner::write(&folder, &steps),
        Command::Grub { file } => grub::make(&file).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// A number, hexadecimal behind 0x.
fn seed(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16))
}

fn write_payload(name: &str, file: &Path, seed: u32) -> Result<ExitCode> {
    let painter = payload::painter::Mode::ALL.iter().find(|(mode, _)| *mode == name);
    let bytes = match painter {
        Some((_, mode)) => mode.disk(),
        None if name == "modes" => payload::modes::disk(),
        None if name == "kernel" => payload::kernel::image(),
        None if name == "edu" => payload::edu::disk(),
        None if name == "accesses" => payload::accesses::disk(),
        None if name == "movebar" => payload::movebar::disk(),
        None if name == "handover" => payload::handover::disk(),
        None if name == "stranger" => payload::stranger::disk(),
        None if name == "pam" => payload::pam::disk(),
        None if name == "irqs" => payload::irqs::disk(),
        None if name == "hostile" => payload::hostile::disk(seed, payload::hostile::Spared::Nothing),
        None => bail!("there is no payload {name}"),
    };
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}
