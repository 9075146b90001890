//! What a run leaves in its report, of real adapters.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::adapters::ADAPTERS;
use super::{Case, Stage};
use crate::inner::{self, Step};

pub const CASES: &[Case] = &[Case {
    name: "vfio: a report tells of text, mode, driver and interrupts, of a reset and a second start",
    set: &ADAPTERS,
    seconds: 500,
    run: told,
}];

/// The adapter with the most to tell of, in the list of [`ADAPTERS`].
const VIRTIO: usize = 3;
const REPORT: &str = "report.json";

fn told(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(VIRTIO)?.function;
    let steps = [Step::Console, Step::Gpu];
    run(stage, &adapter, &[&steps[..], &[Step::Reset]].concat(), 2).context("the first start")?;
    run(stage, &adapter, &steps, 1).context("the second start")?;
    let text = stage.text(REPORT);
    let report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
    let runs = report["runs"].as_array().context("there are no runs")?;
    ensure!(runs.len() == 2, "{} runs are in it, not two: {text}", runs.len());
    for (number, run) in (1..).zip(runs) {
        let function = &run["functions"][0];
        ensure!(function["ids"] == "1af4:1050", "run {number} is of another: {function}");
        let lives = if number == 1 { vec!["first", "later"] } else { vec!["first"] };
        for life in lives {
            worked(&function[life]).with_context(|| format!("run {number}, {life}: {function}"))?;
        }
        let came = function["interrupts"]["msix"].as_u64().unwrap_or(0);
        ensure!(came > 0 && function["interrupts"]["trouble"].is_null(), "run {number}: {function}");
        ensure!(run["clean"] == true && run["host"]["kernel"].is_string(), "run {number}: {run}");
    }
    ensure!(runs[0]["functions"][0]["resets"].as_u64() >= Some(1), "no reset is told of: {text}");
    let page = stage.text("report.md");
    let printed = stage.output(&stage.command(&["report", REPORT]))?;
    ensure!(page == printed, "the page is not what trapline report prints:\n{page}\nand\n{printed}");
    let line = page.lines().find(|line| line.contains("(1af4:1050) |")).context("no line tells of it")?;
    let worked = "| enabled MSI-X | MSI-X | yes | 2, seen in all |";
    ensure!(line.contains("(1af4:1050) | yes | ") && line.ends_with(worked), "it is: {line}");
    // Paths of files are those of a user.
    for secret in [&*stage.file("").to_string_lossy(), "lab=console"] {
        ensure!(!text.contains(secret) && !page.contains(secret), "\"{secret}\" is told of: {text}");
    }
    Ok(())
}

/// An error unless this life has seen all that the adapter can.
fn worked(life: &Value) -> Result<()> {
    for what in ["rom", "text", "bus_master", "msix"] {
        ensure!(life[what] == true, "\"{what}\" was not seen");
    }
    Ok(())
}

/// Has Linux carry out these steps, `times` times as resets will have it, and ends the run.
fn run(stage: &Stage<'_>, adapter: &str, steps: &[Step], times: usize) -> Result<()> {
    let initramfs = stage.write("initramfs", &inner::initramfs_with(stage.tree, &[inner::VIRTIO_GPU])?)?;
    let serial = format!("serial-{times}");
    let mut guest = stage.machine(&[
        "--device",
        adapter,
        "--kernel",
        &stage.tree.kernel()?.to_string_lossy(),
        "--initrd",
        &initramfs.to_string_lossy(),
        "--append",
        &inner::command_line(steps),
        "--serial",
        &serial,
        "--report",
        REPORT,
    ])?;
    let done = || stage.text(&serial).matches("lab: gpu vectors ").count() >= times;
    guest.until("driver of the adapter", stage.deadline, done)?;
    stage.terminate(guest)?;
    Ok(())
}
