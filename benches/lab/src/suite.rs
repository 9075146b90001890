//! `cargo lab test`: every test there is, and one line of counts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::cases::{self, Lab};
use crate::nested;
use crate::outer::Tree;
use crate::packages::{self, Consent};
use crate::steps::{self, Count};
use crate::tally::{Outcome, Record, Tally};
use crate::workspace::Workspace;

/// Packages that the tests need.
const NEEDED: [packages::Package; 5] =
    [packages::SEABIOS, packages::GRUB_MODULES, packages::GRUB_TOOLS, packages::LINUXBOOT, packages::ACPICA];

/// How many of the slowest parts a whole run names at its end.
const SLOWEST: usize = 10;

/// How many lines of each failure are told again at the end.
const TOLD_AGAIN: usize = 24;

/// Options of `cargo lab test`.
#[derive(clap::Args)]
pub struct Options {
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// Run only the steps and machine cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run the machine cases on this program, without building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How often the case about leaks starts and stops a machine
    #[arg(long, value_name = "N", default_value_t = 50)]
    cycles: u32,
    /// How many seconds a hostile guest has
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    hostile: u64,
    /// List the machine cases and end
    #[arg(long)]
    list: bool,
}

/// How far what runs beside the cases stands back behind them.
const YIELDING: i32 = 10;

/// The step that builds what the machine cases run on.
const BUILD: &str = "release build";

/// One call of cargo.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    count: Count,
}

/// Before the machine cases.
const STEPS: [Step; 2] = [
    Step { name: "format", arguments: &["fmt", "--check"], count: Count::Step },
    Step {
        name: "tests",
        // The bodies of all fuzz targets are among them, two seconds each (`tests/fuzz.rs`).
        // What a passing test prints is shown: the reasons of those that were skipped are in it. Tests
        // with `in_the_lab` in their names are a case of the outer machine.
        arguments: &[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
            "--skip",
            crate::nested::OURS,
        ],
        count: Count::Tests,
    },
];

/// A step beside the machine cases, which leave much of a second processor: none of these looks at a clock, and the
/// cases come first.
struct Beside {
    step: Step,
    /// Its folder. Other flags make other artefacts: each run would build all anew.
    folder: &'static str,
    variables: &'static [(&'static str, &'static str)],
}

const BESIDE: [Beside; 3] = [
    Beside {
        step: Step {
            name: "clippy",
            arguments: &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"],
            count: Count::Step,
        },
        folder: "checks",
        variables: &[],
    },
    Beside {
        step: Step {
            name: "documentation",
            arguments: &["doc", "--workspace", "--no-deps"],
            count: Count::WithoutWarnings,
        },
        folder: "checks",
        variables: &[("RUSTDOCFLAGS", "--deny warnings")],
    },
    Beside {
        step: Step {
            name: "loom",
            arguments: &["test", "--package", "trapline-io", "--release", "--test", "loom_*"],
            count: Count::Tests,
        },
        folder: "loom",
        variables: &[("RUSTFLAGS", "--cfg loom")],
    },
];

/// Runs everything. The exit status says whether all passed, and in CI whether nothing was skipped.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        let names = cases::all().map(|case| case.name).chain(nested::all().map(|case| case.name));
        names.for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let start = Instant::now();
    let workspace = Workspace::find()?;
    packages::ensure(&NEEDED, Consent::of(options.yes))?;
    let logs = workspace.lab()?.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let wanted = |name: &str| options.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let mut record = Record::default();
    let files = workspace.lab()?;
    if wanted("tests") {
        // With the outer machine's packages comes another SeaBIOS, which tests of placement take too. Where they
        // cannot be had, the cases that need them are skipped.
        let fetch = || {
            let fetched = Tree::prepare(&files);
            let _ = fetched.inspect_err(|error| eprintln!("no second SeaBIOS for the tests: {error:#}"));
            Ok(Tally::default().into())
        };
        timed(&mut record, "packages", fetch)?;
    }
    for step in STEPS.iter().filter(|step| wanted(step.name)) {
        let command = workspace.cargo(step.arguments);
        timed(&mut record, step.name, || steps::run(step.name, command, step.count, &logs))?;
    }
    let chosen: Vec<_> = cases::all().filter(|case| wanted(case.name)).collect();
    let named = options.only.iter().flat_map(|_| nested::by_hand());
    let outer: Vec<_> = nested::all().chain(named).filter(|case| wanted(case.name)).collect();
    let beside: Vec<_> = BESIDE.iter().filter(|beside| wanted(beside.step.name)).collect();
    let beside = std::thread::scope(|scope| {
        let beside = scope.spawn(|| all_beside(&beside, &workspace, &logs));
        if !(chosen.is_empty() && outer.is_empty())
            && let Some(lab) = machine_cases(&chosen, options, &workspace, &logs, &mut record)?
        {
            nested::run(&outer, &lab, &files, &mut record);
        }
        beside.join().map_err(|_| anyhow!("the steps beside the cases are lost"))?
    });
    record.append(beside?);
    if options.only.is_none() {
        eprintln!("the slowest parts:");
        record.slowest(SLOWEST).iter().for_each(|line| eprintln!("{line}"));
    }
    let tally = record.tally;
    if tally.failed > 0 {
        eprintln!("what failed:");
        record.failures(TOLD_AGAIN).for_each(|line| eprintln!("  {line}"));
    }
    eprintln!("{:.0} s in all", start.elapsed().as_secs_f64());
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    if strict && tally.skipped > 0 {
        eprintln!("in CI nothing may be skipped");
    }
    println!("{tally}");
    Ok(if tally.is_good(strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One after another, on what the cases leave of the processors.
fn all_beside(chosen: &[&Beside], workspace: &Workspace, logs: &Path) -> Result<Record> {
    // Of this thread alone, and of the processes that it starts. Where it fails, both have a half.
    let _ = rustix::process::nice(YIELDING);
    let mut record = Record::default();
    for Beside { step, folder, variables } in chosen {
        let mut command = workspace.cargo_beside(step.arguments, folder);
        command.envs(variables.iter().copied());
        timed(&mut record, step.name, || steps::run_beside(step.name, command, step.count, logs))?;
    }
    Ok(record)
}

/// Carries out a part of the run and records it.
fn timed(record: &mut Record, name: &str, part: impl FnOnce() -> Result<Outcome>) -> Result<Tally> {
    let start = Instant::now();
    let outcome = part()?;
    let tally = outcome.tally;
    record.note(name, start.elapsed(), outcome);
    Ok(tally)
}

/// Builds the program as users get it, unless there is one, and runs the cases on it one after another. What
/// further cases need is given back, unless the program does not build.
fn machine_cases(
    chosen: &[&cases::Case],
    options: &Options,
    workspace: &Workspace,
    logs: &Path,
    record: &mut Record,
) -> Result<Option<Lab>> {
    let program = match &options.program {
        Some(program) => std::path::absolute(program).context("the program is not named")?,
        None => {
            let build = workspace.cargo(&["build", "--release", "--package", "trapline"]);
            let run = || steps::run(BUILD, build, Count::Step, logs);
            if timed(record, BUILD, run)? != Tally::PASSED {
                return Ok(None);
            }
            workspace.trapline()
        }
    };
    let lab = Lab::prepare(workspace, program, options.cycles, Duration::from_secs(options.hostile))?;
    for case in chosen {
        timed(record, case.name, || Ok(lab.run(case)))?;
    }
    Ok(Some(lab))
}
