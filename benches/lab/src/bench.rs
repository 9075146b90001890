//! `cargo lab bench`: trapline side by side with QEMU on an assigned adapter.
//!
//! All of it happens in one outer machine of the nested laboratory. Programs take turns, so that what
//! else the host does falls on all of them; the processors there are emulated, so that only ratios of
//! medians count. What is measured, and how, stands in [`crate::nested::bench`].
//!
//! | file | what |
//! |---|---|
//! | [`table`] | medians, ratios, limits; as text and as JSON |

pub mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cases::Lab;
use crate::nested::bench::{PARTS, Part};
use crate::packages::{self, Consent};
use crate::workspace::Workspace;
use table::Table;

/// What is needed besides the laboratory's own packages.
const NEEDED: &[packages::Package] =
    &[packages::SEABIOS, packages::LINUXBOOT, packages::GRUB_MODULES, packages::GRUB_TOOLS];

/// Options of `cargo lab bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// How often each thing is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only the parts whose names contain this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write the figures to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Another build of trapline, to be compared with this one in Linux's boot
    #[arg(long, value_name = "PROGRAM")]
    against: Vec<PathBuf>,
    /// List the parts and end
    #[arg(long)]
    list: bool,
}

/// Measures and reports. The exit status says whether every limit that must hold does.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = |part: &&Part| options.only.as_ref().is_none_or(|name| part.name.contains(name.as_str()));
    let parts: Vec<&Part> = PARTS.iter().filter(wanted).collect();
    if options.list {
        PARTS.iter().for_each(|part| println!("{:<8} {}", part.name, part.what));
        return Ok(ExitCode::SUCCESS);
    }
    if parts.is_empty() {
        bail!("no part is named so: see cargo lab bench --list");
    }
    let workspace = Workspace::find()?;
    packages::ensure(NEEDED, Consent::of(options.yes))?;
    workspace.build_trapline()?;
    let lab = Lab::prepare(&workspace, workspace.trapline(), 0, Duration::ZERO)?;
    let done = crate::nested::bench::run(&parts, &lab, &workspace.lab()?, options.rounds, &options.against)?;
    let tables: Vec<&Table> = done.iter().flat_map(|done| &done.tables).collect();
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(file) = &options.json {
        let tables: Vec<_> = tables.iter().map(|table| table.json()).collect();
        let document = json!({ "rounds": options.rounds, "tables": tables });
        std::fs::write(file, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let is_good = done.iter().all(|done| done.is_whole) && tables.iter().all(|table| table.holds());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
