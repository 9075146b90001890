//! `trapline bench`: measures, and tells it to people and to files.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use trapline_io::endpoint::Service;

use super::{Status, log, print};
use crate::bench::cases::{self, CASES};
use crate::bench::measure::{self, Plan};
use crate::bench::report::Report;
use crate::bench::{Device, Way, compare, html, table};
use crate::config::{Adapters, ConfigError, Options, Origin, RunConfig};
use crate::screen::file;

/// What can be given to `trapline bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is measured: null (a device that does nothing), software, or as for trapline run: a PCI address of
    /// this host, vfio-user:SOCKET [default: software]
    #[arg(long, value_name = "DEVICE[,OPTION..]")]
    device: Option<String>,

    /// How functions of this host are reached: by VFIO groups, by iommufd, or by what is there [default: auto]
    #[arg(long, value_name = "auto|group|iommufd")]
    vfio: Option<String>,

    /// What becomes of a system call that a thread of trapline has no use for, as for trapline run [default: on]
    #[arg(long, value_name = "on|log|off")]
    seccomp: Option<String>,

    /// How the legacy VGA window is carried out; may be repeated [default: all three]
    #[arg(long, value_enum, value_delimiter = ',')]
    window: Vec<Window>,

    /// Who carries accesses out; may be repeated [default: adaptive]
    #[arg(long, value_enum, value_delimiter = ',')]
    io: Vec<Io>,

    /// Every window under every --io
    #[arg(long, conflicts_with_all = ["window", "io"])]
    all: bool,

    /// Only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,

    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long one measurement takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slice: u32,

    /// Write the report to this file as JSON (- for standard output, in place of the table)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Write the report to this file as one HTML page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Compare with a report that --json wrote before
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

impl Arguments {
    fn json_to_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

/// `--window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Window {
    Strict,
    Coalesced,
    Shadowed,
}

/// `--io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    Inline,
    Uring,
    Adaptive,
}

impl From<Window> for Way {
    fn from(window: Window) -> Way {
        match window {
            Window::Strict => Way::Strict,
            Window::Coalesced => Way::Coalesced,
            Window::Shadowed => Way::Shadowed,
        }
    }
}

impl From<Io> for Service {
    fn from(io: Io) -> Service {
        match io {
            Io::Inline => Service::Inline,
            Io::Uring => Service::Uring,
            Io::Adaptive => Service::Adaptive,
        }
    }
}

/// Measures and reports.
pub(super) fn bench(arguments: &Arguments) -> Result<Status> {
    let _log = log::start();
    let plan = plan(arguments)?;
    plan.seccomp.prepare();
    check_outputs(arguments)?;
    let old = arguments.compare.as_deref().map(read_report).transpose()?;
    let report = measure::run(&plan, progress(plan.rounds));
    clear_progress();
    let report = report?;
    if arguments.json_to_stdout() {
        print(&report.to_json()?)?;
    } else {
        print(&table::text(&report))?;
        if let Some(old) = &old {
            print(&format!("\n{}", compare::text(old, &report)))?;
        }
    }
    if let Some(path) = arguments.json.as_deref().filter(|_| !arguments.json_to_stdout()) {
        write("json", path, &report.to_json()?)?;
    }
    if let Some(path) = &arguments.html {
        write("html", path, &html::page(&report, old.as_ref()))?;
    }
    Ok(Status::Success)
}

/// Looks whether there will be a place for all that is asked for: better now than after minutes.
fn check_outputs(arguments: &Arguments) -> Result<()> {
    let json = arguments.json.as_deref().filter(|_| !arguments.json_to_stdout());
    for (option, path) in [("json", json), ("html", arguments.html.as_deref())] {
        if let Some(path) = path {
            file::check(path).map_err(|problem| anyhow!("--{option} {}: {problem}", path.display()))?;
        }
    }
    if let Some(path) = arguments.compare.as_deref()
        && arguments.json_to_stdout()
        && arguments.html.is_none()
    {
        let problem = "the comparison stands below the table or in the page; give --html or --json FILE";
        return Err(unusable("compare", &path.display().to_string(), problem));
    }
    Ok(())
}

/// The guest of the benchmark sets up no bridge, behind which it would find nothing.
fn without_root_ports(adapters: &mut Adapters) -> Result<()> {
    let Adapters::Given(devices) = adapters else { return Ok(()) };
    for device in devices {
        if device.root_port.replace(false) == Some(true) {
            let problem = "the benchmark's guest sets up no bridge; leave root-port=on out";
            return Err(unusable("device", &device.origin.to_string(), problem));
        }
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    let device = arguments.device.as_deref();
    let named: Vec<String> =
        device.filter(|name| !["null", "software"].contains(name)).map(str::to_owned).into_iter().collect();
    let (vfio, seccomp) = (arguments.vfio.clone(), arguments.seccomp.clone());
    let options = Options { device: named, vfio, seccomp, ..Options::default() };
    let mut config = RunConfig::new(options, None)?;
    without_root_ports(&mut config.adapters)?;
    if config.adapters == Adapters::None {
        return Err(unusable(
            "device",
            "none",
            "there is nothing to measure; give null, a device that does nothing",
        ));
    }
    let device = if device == Some("null") { Device::Null } else { Device::Adapters(config.adapters) };
    let chosen = |given: &[Window]| match given {
        [] => Window::value_variants().iter().copied().map(Way::from).collect(),
        given => given.iter().copied().map(Way::from).collect::<Vec<Way>>(),
    };
    let services: Vec<Io> = match (arguments.all, arguments.io.as_slice()) {
        (true, _) => Io::value_variants().to_vec(),
        (false, []) => vec![Io::Adaptive],
        (false, given) => given.to_vec(),
    };
    Ok(Plan {
        device,
        vfio: config.vfio,
        seccomp: config.seccomp,
        windows: chosen(&arguments.window),
        services: services.into_iter().map(Service::from).collect(),
        cases: chosen_cases(&arguments.only)?,
        rounds: arguments.rounds,
        slice: Duration::from_millis(arguments.slice.into()),
    })
}

/// Numbers of the cases of these names, of all where there are none; in the order of the table.
fn chosen_cases(names: &[String]) -> Result<Vec<usize>> {
    let mut numbers = Vec::new();
    for name in names {
        match cases::named(name) {
            Some(number) => numbers.push(number),
            None => {
                let all: Vec<&str> = CASES.iter().map(|case| case.name).collect();
                let problem = format!("there is no such case; there are {}", all.join(", "));
                return Err(unusable("only", name, &problem));
            }
        }
    }
    if numbers.is_empty() {
        numbers = (0..CASES.len()).collect();
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn unusable(option: &str, value: &str, problem: &str) -> anyhow::Error {
    ConfigError::value(&Origin::CommandLine, option, value, problem).into()
}

fn read_report(path: &Path) -> Result<Report> {
    let what = || format!("--compare {}", path.display());
    let text = fs::read_to_string(path).with_context(what)?;
    Report::from_json(&text).with_context(what)
}

fn write(option: &str, path: &Path, text: &str) -> Result<()> {
    file::replace(path, |out| out.write_all(text.as_bytes()))
        .with_context(|| format!("--{option} {}", path.display()))
}

/// Tells a person who waits at a terminal what is going on.
fn progress(rounds: u32) -> impl FnMut(u32, &str) {
    let terminal = io::stderr().is_terminal();
    move |round, variant| {
        if terminal {
            // Nobody can be told that this cannot be told.
            let _ = write!(io::stderr(), "\r\x1b[Kround {round} of {rounds}: {variant}");
        }
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

#[cfg(test)]
mod tests;
