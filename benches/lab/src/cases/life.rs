//! Birth and death: nothing is left behind, and the adapter's end is the machine's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Bench, Case};
use crate::machine::text;

pub const CASES: &[Case] = &[
    Case {
        name: "life: an adapter that dies ends the machine within a second",
        seconds: 60,
        kvm: true,
        run: adapter,
    },
    Case { name: "life: 50 runs leave no process and no file", seconds: 240, kvm: true, run: cycles },
];

/// How often a machine is started and stopped.
const CYCLES: usize = 50;

fn adapter(bench: &Bench) -> Result<()> {
    let log = bench.file("debug.log");
    let mut machine = bench.machine(&["--debugcon", "debug.log"])?;
    machine.until("boot attempt", || text(&log).contains("No bootable device"))?;
    let children = children(machine.pid());
    ensure!(children.len() == 1, "it has {} processes below it, and one adapter is wanted", children.len());
    let pid = i32::try_from(children[0]).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(pid, Signal::KILL).context("cannot kill the adapter")?;
    let killed = Instant::now();
    let ended = machine.wait()?;
    let time = killed.elapsed();
    ended.expect(1)?;
    ensure!(time < Duration::from_secs(1), "it took {:.2} s", time.as_secs_f64());
    let said = ended.errors.trim();
    ensure!(said.lines().count() == 1 && said.contains("adapter"), "it said: {said}");
    Ok(())
}

/// The processes below one, of all its threads.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut found: Vec<u32> = tasks
        .flat_map(|task| {
            let listed = text(&task.path().join("children"));
            listed.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        })
        .collect();
    found.sort_unstable();
    found
}

fn cycles(bench: &Bench) -> Result<()> {
    for cycle in 0..CYCLES {
        let ended = bench.machine(&["--timeout", "0.3"])?.wait()?;
        ended.expect(124).with_context(|| format!("run {cycle}"))?;
    }
    let processes = processes_of(bench.trapline());
    ensure!(processes.is_empty(), "processes are left: {processes:?}");
    let mut files: Vec<String> = std::fs::read_dir(bench.file("tmp"))
        .context("no temporary folder")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    ensure!(files.is_empty(), "files are left: {files:?}");
    Ok(())
}

/// All processes that run this program, whoever started them.
fn processes_of(program: &Path) -> Vec<u32> {
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
