//! `cargo lab speed`: how fast firmware runs on the software adapter, side by side with QEMU, and how big
//! trapline is. Assigned adapters are `cargo lab bench`'s.
//!
//! SeaBIOS boots a disk whose boot sector sends one byte to the serial line: from the moment the vCPU
//! is let go to that byte is the *boot*. Programs take turns, so that what else the host does falls on
//! all of them; only ratios of medians count. Two more runs of each, with the debug console on, give
//! the shares of the firmware's stages and the memory in use.
//!
//! | file | what |
//! |---|---|
//! | [`contender`] | the programs that are compared, and how each is started |
//! | [`boot`] | one boot, with the time of everything that is heard of it |
//! | [`stage`] | the firmware's stages in the lines of its debug console |
//! | [`usage`] | memory and processor time of a program, from `/proc` |
//! | [`verdict`] | medians, ratios, limits; as text and as JSON |

mod boot;
mod contender;
mod stage;
pub mod usage;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use self::boot::{Boot, Watched};
use self::contender::Contender;
use self::verdict::{Figures, Report};
use crate::packages::{self, Consent};
use crate::steps;
use crate::workspace::Workspace;

/// Options of `cargo lab speed`.
#[derive(clap::Args)]
pub struct Options {
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// How often each program boots
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write the figures as JSON instead of text
    #[arg(long)]
    json: bool,
    /// Another build of trapline, to be compared with this one (it must log its vCPU's start as this one does)
    #[arg(long, value_name = "PROGRAM")]
    against: Vec<PathBuf>,
}

/// Measures and reports. The exit status says whether the limits hold.
pub fn run(options: &Options) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    packages::ensure(&[packages::SEABIOS, packages::QEMU], Consent::of(options.yes))?;
    workspace.build_trapline()?;
    let firmware = packages::SEABIOS.file().context("SeaBIOS is gone")?;
    let mut contenders = vec![
        Contender::trapline("trapline", workspace.trapline(), firmware),
        Contender::qemu("QEMU -M pc", firmware),
    ];
    for program in &options.against {
        contenders.push(Contender::trapline(&program.display().to_string(), program.clone(), firmware));
    }
    let mut figures: Vec<Figures> =
        contenders.iter().map(|contender| Figures::new(&contender.name)).collect();
    for round in 1..=options.rounds {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            let spinner = steps::watched("booting");
            let boot = one(contender, Watched::Time)?;
            drop(spinner);
            eprintln!("round {round}, {}: {:.3} s", contender.name, boot.time().as_secs_f64());
            figures.add(&boot);
        }
    }
    for (contender, figures) in contenders.iter().zip(&mut figures) {
        figures.stages = stage::shares(&one(contender, Watched::Console)?)?;
        figures.memory = one(contender, Watched::Memory)?.memory;
    }
    let binary = std::fs::metadata(workspace.trapline()).context("the program is gone")?.len();
    let report = Report { figures, binary };
    if options.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(if report.limits().iter().all(|limit| limit.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(contender: &Contender, watched: Watched) -> Result<Boot> {
    Boot::watch(contender, watched).with_context(|| contender.name.clone())
}
