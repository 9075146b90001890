//! Birth and death: nothing is left behind, and the adapter's end is the machine's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Bench, Case};
use crate::machine::text;
use crate::speed::usage::Memory;

pub const CASES: &[Case] = &[
    Case {
        name: "life: an adapter that dies ends the machine, although its guest does nothing",
        seconds: 60,
        kvm: true,
        run: adapter,
    },
    Case { name: "life: the monitor's own memory stays small", seconds: 60, kvm: true, run: memory },
    Case { name: "life: many runs leave no process and no file", seconds: 240, kvm: true, run: cycles },
];

fn adapter(bench: &Bench) -> Result<()> {
    let log = bench.file("debug.log");
    let mut machine = bench.machine(&["--debugcon", "debug.log"])?;
    machine.until("boot attempt", || text(&log).contains("No bootable device"))?;
    let children = children(machine.pid());
    ensure!(children.len() == 1, "it has {} processes below it, and one adapter is wanted", children.len());
    let pid = i32::try_from(children[0]).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(pid, Signal::KILL).context("cannot kill the adapter")?;
    // No access of the guest tells of it: only who watches the adapter can end the run before the deadline.
    let ended = machine.wait()?;
    ended.expect(1)?;
    let said = ended.errors.trim();
    ensure!(said.lines().count() == 1 && said.contains("adapter"), "it said: {said}");
    Ok(())
}

/// The processes below one, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
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
    let shared = entries(Path::new("/dev/shm"));
    for cycle in 0..bench.cycles() {
        let ended = bench.unseen(&["--timeout", "0.3"])?.wait()?;
        ended.expect(124).with_context(|| format!("run {cycle}"))?;
    }
    let processes = processes_in(&bench.file(""));
    ensure!(processes.is_empty(), "processes are left: {processes:?}");
    let files = entries(&bench.file("tmp"));
    ensure!(files.is_empty(), "files are left: {files:?}");
    let kept: Vec<_> =
        entries(Path::new("/dev/shm")).into_iter().filter(|name| !shared.contains(name)).collect();
    ensure!(kept.is_empty(), "shared memory is left: {kept:?}");
    Ok(())
}

/// The names in a folder.
fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The guest's RAM is the only mapping of so many KiB and more.
pub const GUEST_MEMORY: u64 = 128 << 10;
/// The most that the monitor may have in memory besides the guest's RAM, in KiB.
const OWN_MEMORY: u64 = 12 << 10;

fn memory(bench: &Bench) -> Result<()> {
    let log = bench.file("debug.log");
    let mut machine = bench.unseen(&["--debugcon", "debug.log"])?;
    machine.until("boot attempt", || text(&log).contains("No bootable device"))?;
    let own = Memory::of_one(machine.pid(), GUEST_MEMORY)?.resident;
    ensure!(own < OWN_MEMORY, "it has {own} KiB in memory, and less than {OWN_MEMORY} are wanted");
    Ok(())
}

/// All processes at work in this folder, whoever is their parent now.
fn processes_in(folder: &Path) -> Vec<u32> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
