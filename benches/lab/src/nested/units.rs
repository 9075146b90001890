//! Tests of the crates that need functions bound to vfio-pci, run where there are some.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::devices::{ADAPTER, DEVICES, DISK, EDU, NETWORK};
use super::{Case, Stage};

/// What the names of such tests contain.
pub const OURS: &str = "in_the_lab";

pub const CASES: &[Case] = &[Case {
    name: "vfio: the crates' own tests on functions of the host",
    set: &DEVICES,
    seconds: 600,
    run: units,
}];

/// Pages of 2 MiB that a test wants to have.
const PAGES: u32 = 2;

fn units(stage: &Stage<'_>) -> Result<()> {
    let programs = built(stage)?;
    let places = [EDU, DISK, NETWORK, ADAPTER].into_iter().map(|number| Ok(stage.place(number)?.function));
    let functions = places.collect::<Result<Vec<_>>>()?.join(" ");
    stage.output(&format!("echo {PAGES} > /proc/sys/vm/nr_hugepages"))?;
    for program in programs {
        let command = format!(
            "TRAPLINE_VFIO='{functions}' {program} {OURS} --test-threads=1 --show-output",
            program = program.display()
        );
        let ended = stage.start(&command)?.wait(stage.deadline)?;
        let said = ended.output.trim();
        ensure!(ended.status == 0, "{} ended with status {}: {said}", program.display(), ended.status);
        ensure!(!said.contains("skipped: "), "a test was skipped: {said}");
        ensure!(!said.contains("test result: ok. 0 passed"), "{} has no such test", program.display());
    }
    stage.output("echo 0 > /proc/sys/vm/nr_hugepages").map(drop)
}

/// Builds the tests of the devices, unless that was done, and finds them.
fn built(stage: &Stage<'_>) -> Result<Vec<PathBuf>> {
    let mut cargo = stage.workspace().cargo(&["test", "--package", "trapline-devices", "--lib"]);
    cargo.args(["--test", "assigned_vfio", "--no-run", "--message-format", "json"]);
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the tests cannot be built: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs: Vec<PathBuf> =
        messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect();
    if programs.len() != 2 {
        bail!("cargo built {} test programs, not 2", programs.len());
    }
    Ok(programs)
}
