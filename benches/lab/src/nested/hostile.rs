//! A guest that does anything at random to a function of the host, and the guest after it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::adapters::{ADAPTERS, CIRRUS, STDVGA};
use super::life::greets;
use super::stage::TERMINATED;
use super::{Case, Stage};
use crate::payload::hostile::{self, BEAT, Spared};

pub const CASES: &[Case] = &[Case {
    name: "vfio: beside a hostile guest another one shows, and after it one on the same adapter",
    set: &ADAPTERS,
    seconds: 240,
    run: attack,
}];

/// How long the guest has at least.
const TIME: Duration = Duration::from_secs(25);
/// What the program's numbers are made of: the same each time, since a machine that emulates its processors is slow.
const SEED: u32 = 0x0b5e_55ed;
/// Between two looks at its memory.
const LOOK: Duration = Duration::from_secs(1);
/// How much more memory the machine may have at the end, in KiB: queues and rings that a guest fills.
const GAIN: u64 = 24 << 10;
/// Its debug console.
const ATTACK: &str = "attack";

fn attack(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let disk = stage.write("hostile.img", &hostile::disk(SEED, Spared::Resets))?;
    let (disk, device) = (disk.to_string_lossy(), &adapter.function);
    let words = ["--disk", &*disk, "--device", device, "--cpus", "4", "--debugcon", ATTACK];
    let mut hostile = stage.machine(&words)?;
    stage.until_said(&mut hostile, ATTACK, hostile::BEGUN)?;
    let begun = Instant::now();
    confined(stage)?;
    let before = memory_of(stage, device)?;
    let beside = stage.place(CIRRUS)?;
    let devices = [beside.function.clone()];
    stage.terminate(greets(stage, &devices, &beside, "Nothing reaches this one.")?)?;
    let mut after = None;
    while hostile.status().is_none() && begun.elapsed() < TIME {
        after = memory_of(stage, device)?.or(after);
        std::thread::sleep(LOOK);
    }
    if hostile.status().is_none() {
        hostile.terminate()?;
    }
    let ended = hostile.wait(stage.deadline)?;
    ensure!(
        [0, TERMINATED].contains(&ended.status),
        "its status is {}: {}",
        ended.status,
        ended.output.trim()
    );
    // It may have switched itself off before it could be measured.
    match before.zip(after) {
        Some((before, after)) => {
            eprintln!("  {before} KiB in memory, and {after} KiB when it was last seen");
            ensure!(after < before + GAIN, "{after} KiB in memory after {before}");
        }
        None => ensure!(ended.status == 0, "its memory could not be measured"),
    }
    ensure!(ended.output.len() < 64 << 10, "it said {} bytes", ended.output.len());
    let said = stage.text(ATTACK);
    ensure!(said.contains(char::from(BEAT)), "the guest gave no sign of life");
    let next = greets(stage, std::slice::from_ref(device), &adapter, "The adapter has survived.")?;
    stage.terminate(next).map(drop)
}

/// What the machine with this device has in memory, in KiB, while it is there: its own, and the guest's, all of which is
/// pinned when the guest has begun.
fn memory_of(stage: &Stage<'_>, device: &str) -> Result<Option<u64>> {
    let found = stage.output(&format!(
        "awk '/^RssAnon:/ {{ print $2 }}' /proc/$(pgrep -o -f 'trapline run .*{device}')/status 2> /dev/null || :"
    ))?;
    Ok(found.trim().parse().ok())
}

/// Every thread of the machine, and of the processes that it has started, is confined.
fn confined(stage: &Stage<'_>) -> Result<()> {
    let busybox = stage.tree.busybox()?;
    let busybox = busybox.display();
    // One of the kernel's own may end meanwhile.
    let threads = stage.output(&format!(
        "for process in $({busybox} pidof trapline); do for task in /proc/$process/task/*; do\n\
         {busybox} awk '/^Name:/ {{ name = $2 }} /^Seccomp:/ {{ print name, $2 }}' $task/status 2> /dev/null || :\n\
         done; done"
    ))?;
    // The kernel's own are none of ours.
    let ours = || threads.lines().filter(|line| !["iou-", "kvm-"].iter().any(|own| line.starts_with(own)));
    ensure!(ours().all(|line| line.ends_with(" 2")), "not every thread is confined:\n{threads}");
    // Which only a machine with a function of the host has.
    ensure!(ours().any(|line| line == "interrupts 2"), "there is no thread \"interrupts\":\n{threads}");
    Ok(())
}
