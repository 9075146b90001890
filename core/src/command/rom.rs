//! `trapline rom`: the ROM of a card, read from it, looked at, and put right in a file.
//!
//! Each command says what the ROM is in the words of `trapline_devices::rom::check`, and ends with 0 if the firmware
//! that was named boots on it and with 1 if not.

mod document;
mod page;
mod source;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use trapline_devices::rom::check::{self, About, Report};
use trapline_devices::rom::fix::{self, Wish};
use trapline_devices::rom::{CodeType, Ids, compare};

use super::{Status, print};
use crate::config::{ConfigError, Origin};
use crate::host::{Host, PciAddress, Tree};
use crate::screen::file;
use source::{By, Found, Source};

/// What can be given to `trapline rom`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a card's ROM to a file
    Dump(Dump),
    /// Say what a ROM has in it, and whether a guest boots on it
    Check(Check),
    /// Make a ROM that firmware takes of a dump
    Fix(Fix),
}

/// What can be given to `trapline rom dump`.
#[derive(Debug, clap::Args)]
struct Dump {
    /// A function of this host, as 0000:01:00.0 or 01:00.0, or a file with a ROM in it, such as a whole flash
    #[arg(value_name = "BDF|FILE")]
    source: Source,

    /// Where to write it (- for standard output)
    #[arg(value_name = "OUTPUT|-")]
    output: PathBuf,

    /// How to read a function [default: vfio if vfio-pci has it, else sysfs]
    #[arg(long, value_enum)]
    by: Option<By>,

    /// Only images of these kinds, as they are: bios, uefi, or the number of a code type
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    only: Vec<CodeType>,

    /// All that was read, whatever it is, and not only the images
    #[arg(long, conflicts_with = "only")]
    whole: bool,

    /// Overwrite a file that is there
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    aim: Aim,
}

/// What can be given to `trapline rom check`.
#[derive(Debug, clap::Args)]
struct Check {
    /// A file, or a function of this host
    #[arg(value_name = "FILE|BDF")]
    source: Source,

    /// How to read a function [default: vfio if vfio-pci has it, else sysfs]
    #[arg(long, value_enum)]
    by: Option<By>,

    /// Compare with this untouched image of the same card: is it a copy that a firmware has run?
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,

    /// For programs: JSON, whose names stay
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aim: Aim,
}

/// What can be given to `trapline rom fix`.
#[derive(Debug, clap::Args)]
struct Fix {
    /// The file with a ROM in it
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// Where to write the ROM (- for standard output)
    #[arg(value_name = "OUTPUT|-", required_unless_present = "in_place")]
    output: Option<PathBuf>,

    /// Write it over FILE
    #[arg(long, conflicts_with = "output")]
    in_place: bool,

    /// Only images of these kinds: bios, uefi, or the number of a code type
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    only: Vec<CodeType>,

    /// Overwrite OUTPUT if it is there
    #[arg(long, conflicts_with = "in_place")]
    force: bool,

    #[command(flatten)]
    aim: Aim,
}

/// Whom a ROM is to be for.
#[derive(Debug, clap::Args)]
struct Aim {
    /// The function of this host that it is to be for
    #[arg(long, value_name = "BDF")]
    device: Option<PciAddress>,

    /// The ids that it is to be for, as 10de:1b80
    #[arg(long, value_name = "VENDOR:DEVICE", conflicts_with = "device")]
    ids: Option<String>,

    /// The firmware that is to run it (trapline run boots SeaBIOS, a BIOS)
    #[arg(long = "for", value_enum, value_name = "FIRMWARE", default_value = "bios")]
    firmware: Firmware,
}

/// `--for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Firmware {
    Bios,
    Uefi,
    /// Either of them
    Any,
}

/// Carries the command out.
pub(super) fn rom(arguments: Arguments) -> Result<Status> {
    match arguments.command {
        Command::Dump(arguments) => dump(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Fix(arguments) => fix(&arguments),
    }
}

fn dump(arguments: &Dump) -> Result<Status> {
    let ids = arguments.aim.ids()?;
    room_for(&arguments.output, arguments.force)?;
    let found = arguments.source.read(arguments.by)?;
    let about = found.about(ids);
    let report = check::check(&found.bytes, about);
    let bytes = match arguments.whole {
        true => found.bytes.clone(),
        false => images(&found.bytes, &report, &arguments.only).with_context(|| found.name.clone())?,
    };
    put(&arguments.output, &bytes)?;
    let report = check::check(&bytes, about);
    let name = match arguments.output.to_str() {
        Some("-") => found.name.clone(),
        _ => arguments.output.display().to_string(),
    };
    let head = format!("{name}: {} bytes, read from {}", bytes.len(), found.whence());
    tell(&arguments.output, &page::text(&head, &report, None))?;
    arguments.aim.status(&report)
}

/// The images of the chain in `file`, one behind another as they are; those of `only`, if any are named.
fn images(file: &[u8], report: &Report, only: &[CodeType]) -> Result<Vec<u8>> {
    let start = file.get(report.start..).unwrap_or_default();
    let chosen = report.parts.iter().map(|part| &part.image);
    let chosen = chosen.filter(|image| only.is_empty() || only.contains(&image.code));
    let mut bytes = Vec::new();
    for image in chosen {
        let end = image.offset.saturating_add(image.length).min(start.len());
        bytes.extend_from_slice(start.get(image.offset..end).unwrap_or_default());
    }
    match (bytes.is_empty(), report.remarks.first()) {
        (false, _) => Ok(bytes),
        (true, Some(remark)) if report.parts.is_empty() => {
            bail!("{} (--whole writes what was read all the same)", remark.text)
        }
        (true, _) => bail!("it has no such image: {report}"),
    }
}

fn check(arguments: &Check) -> Result<Status> {
    let ids = arguments.aim.ids()?;
    let pristine = match &arguments.against {
        Some(path) => Some(source::file(path).with_context(|| format!("--against {}", path.display()))?),
        None => None,
    };
    let found = arguments.source.read(arguments.by)?;
    let mut report = check::check(&found.bytes, found.about(ids));
    let comparison = pristine.map(|pristine| {
        let start = check::check(&pristine, About::default()).start;
        let (here, there) = (found.bytes.get(report.start..), pristine.get(start..));
        compare::compare(here.unwrap_or_default(), there.unwrap_or_default())
    });
    comparison.iter().for_each(|comparison| report.compared(comparison));
    let text = match arguments.json {
        true => document::json(&found, &report, comparison.as_ref())?,
        false => {
            let head = match found.how {
                Some(_) => format!("{}: {} bytes, read from {}", found.name, report.size, found.whence()),
                None => format!("{}: {} bytes", found.name, report.size),
            };
            page::text(&head, &report, comparison.as_ref())
        }
    };
    print(&text)?;
    arguments.aim.status(&report)
}

fn fix(arguments: &Fix) -> Result<Status> {
    let ids = arguments.aim.ids()?;
    let output = arguments.output.as_deref().unwrap_or(&arguments.input);
    room_for(output, arguments.force || arguments.in_place)?;
    let name = || arguments.input.display().to_string();
    let input = source::file(&arguments.input).with_context(name)?;
    let fixed = fix::fix(&input, &Wish { ids, keep: arguments.only.clone() }).with_context(name)?;
    if !(arguments.in_place && fixed.rom == input) {
        put(output, &fixed.rom)?;
    }
    let report = check::check(&fixed.rom, About { ids, shadow: false });
    let name = if output == Path::new("-") { &arguments.input } else { output };
    let head =
        format!("{}: {} bytes, made of {}", name.display(), fixed.rom.len(), arguments.input.display());
    let mut text = page::text(&head, &report, None);
    text.push_str(&page::done(&fixed.done));
    tell(output, &text)?;
    arguments.aim.status(&report)
}

impl Aim {
    /// The ids that the ROM is to have, if that was said.
    fn ids(&self) -> Result<Option<Ids>> {
        match (self.device, &self.ids) {
            (Some(address), _) => match Host::read(Tree::host()).function(address) {
                Some(function) => Ok(Some(Ids { vendor: function.vendor, device: function.device })),
                None => Err(unusable(
                    "device",
                    &address.to_string(),
                    "this host has no such function (trapline devices --all lists them)",
                )),
            },
            (None, Some(text)) => {
                let ids = text.split_once(':').and_then(|(vendor, device)| {
                    Some(Ids { vendor: four_digits(vendor)?, device: four_digits(device)? })
                });
                let problem = "give two numbers of four hexadecimal digits, as 10de:1b80";
                ids.map(Some).ok_or_else(|| unusable("ids", text, problem))
            }
            (None, None) => Ok(None),
        }
    }

    /// How the program ends.
    fn status(&self, report: &Report) -> Result<Status> {
        let boots = |firmware| report.verdict(firmware).is_ok();
        let good = match self.firmware {
            Firmware::Bios => boots(check::Firmware::Bios),
            Firmware::Uefi => boots(check::Firmware::Uefi),
            Firmware::Any => boots(check::Firmware::Bios) || boots(check::Firmware::Uefi),
        };
        Ok(if good { Status::Success } else { Status::Unfit })
    }
}

impl Found {
    /// What is known of it besides its bytes; `ids` go before those of the function that it is from.
    fn about(&self, ids: Option<Ids>) -> About {
        About { ids: ids.or(self.ids), shadow: self.shadow }
    }
}

fn four_digits(text: &str) -> Option<u16> {
    let plain = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { u16::from_str_radix(text, 16).ok() } else { None }
}

/// A kind of image.
fn kind(text: &str) -> Result<CodeType, String> {
    let number = match (text, text.strip_prefix("0x")) {
        ("bios", _) => Some(0),
        ("uefi", _) => Some(3),
        (_, Some(digits)) => u8::from_str_radix(digits, 16).ok(),
        (_, None) => text.parse().ok(),
    };
    number
        .map(CodeType::of)
        .ok_or_else(|| "there are bios, uefi, and numbers of code types, as 0xe0".to_owned())
}

fn unusable(option: &str, value: &str, problem: &str) -> anyhow::Error {
    ConfigError::value(&Origin::CommandLine, option, value, problem).into()
}

/// Looks whether a file may be written to `path`, before the ROM is read.
fn room_for(path: &Path, overwrite: bool) -> Result<()> {
    if path == Path::new("-") {
        return Ok(());
    }
    if !overwrite && path.is_file() {
        bail!("{}: there is such a file already, which --force overwrites", path.display());
    }
    file::check(path).map_err(|problem| anyhow!("{}: {problem}", path.display()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        // What follows the last 0x0a would be written when the program ends, where a failure is not seen.
        return out.write_all(bytes).and_then(|()| out.flush()).context("standard output");
    }
    file::replace(path, |out| out.write_all(bytes)).with_context(|| path.display().to_string())
}

/// Says it where the ROM itself does not go.
fn tell(output: &Path, text: &str) -> Result<()> {
    if output == Path::new("-") {
        // A closed standard error is no failure of ours.
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    print(text)
}

#[cfg(test)]
mod tests;
