//! `cargo lab shot`: what an adapter of the outer machine shows while a command runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::outer::{Outer, Tree, in_place, quoted};
use crate::steps::{self, Count};
use crate::tally::Tally;
use crate::up::Machine;
use crate::workspace::Workspace;

/// Options of `cargo lab shot`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    machine: Machine,
    /// Whose screen: d1, d2, ... in the order of the devices, or boot
    #[arg(long, default_value = "d1")]
    on: String,
    /// Write the picture to this file
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Wait until the screen shows this
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    /// Wait so long at most, or just so long without --until
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    after: u64,
    /// What to run inside meanwhile, in this folder; without it, trapline boots GRUB on the first device
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The time between two looks at the screen. One that does not change meanwhile is painted.
const LOOK: Duration = Duration::from_millis(700);

/// Boots, runs the command, prints the text of the screen.
pub fn run(options: &Options) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let lab = workspace.lab()?;
    let tree = Tree::prepare(&lab)?;
    let (command, until) = match options.command.as_slice() {
        [] => (grub(&workspace)?, Some("GNU GRUB")),
        words => (in_place(&words.join(" "))?, None),
    };
    let until = options.until.as_deref().or(until);
    let outer = Outer::boot(&tree, &lab, &options.machine.plan())?;
    let mut job = outer.start(&command)?;
    let end = Instant::now() + Duration::from_secs(options.after);
    let mut before = String::new();
    let (screen, is_good) = loop {
        let screen = outer.screen(&options.on)?;
        let is_seen = until.is_some_and(|text| screen.shows(text));
        // What is seen may be the first line of a screen that is still being painted.
        let is_whole = is_seen && screen.text == before;
        if is_whole || Instant::now() > end || job.status().is_some() {
            break (screen, is_seen || until.is_none());
        }
        before = screen.text;
        std::thread::sleep(LOOK);
    };
    if let Some(file) = &options.out {
        screen.picture.save(file)?;
    }
    println!("{}", screen.text);
    let said = job.output();
    if !said.trim().is_empty() {
        eprintln!("The command said: {}", said.trim());
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that boots GRUB from its disk, with the program as it is built now.
fn grub(workspace: &Workspace) -> Result<String> {
    let lab = workspace.lab()?;
    let image = lab.join("grub.img");
    crate::grub::make(&image)?;
    let build = workspace.cargo(&["build", "--release", "--package", "trapline"]);
    let logs = lab.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let built = steps::run("release build", build, Count::Step, &logs)?;
    anyhow::ensure!(built.tally == Tally::PASSED, "trapline cannot be built");
    let program = quoted(&workspace.trapline().to_string_lossy());
    let disk = quoted(&format!("{},readonly", image.display()));
    Ok(format!("exec {program} run --screen none --device 0000:01:00.0 --disk {disk}"))
}
