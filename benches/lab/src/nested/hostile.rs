//! A guest that does anything at random to a function of the host, and the guest after it.

use anyhow::{Result, ensure};

use super::adapters::{ADAPTERS, CIRRUS, STDVGA};
use super::life::greets;
use super::{Case, Stage};
use crate::payload::hostile::{self, BEAT, Spared};

pub const CASES: &[Case] = &[Case {
    name: "vfio: beside a hostile guest another one shows, and after it one on the same adapter",
    set: &ADAPTERS,
    seconds: 240,
    run: attack,
}];

/// How long the guest has, in seconds of the outer machine.
const TIME: &str = "30";
/// What the program's numbers are made of: the same each time, since a machine that emulates its processors is slow.
const SEED: u32 = 0x0b5e_55ed;
/// Its debug console.
const ATTACK: &str = "attack";

fn attack(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let disk = stage.write("hostile.img", &hostile::disk(SEED, Spared::Resets))?;
    let (disk, device) = (disk.to_string_lossy(), &adapter.function);
    let words =
        ["--disk", &*disk, "--device", device, "--cpus", "2", "--debugcon", ATTACK, "--timeout", TIME];
    let mut hostile = stage.machine(&words)?;
    stage.until_said(&mut hostile, ATTACK, hostile::BEGUN)?;
    confined(stage)?;
    let beside = stage.place(CIRRUS)?;
    let devices = [beside.function.clone()];
    stage.terminate(greets(stage, &devices, &beside, "Nothing reaches this one.")?)?;
    ensure!(hostile.status().is_none(), "the hostile guest's machine has ended before the other one showed");
    let ended = hostile.wait(stage.deadline)?;
    // It may have switched itself off.
    ensure!([0, 124].contains(&ended.status), "its status is {}: {}", ended.status, ended.output.trim());
    ensure!(ended.output.len() < 64 << 10, "it said {} bytes", ended.output.len());
    let said = stage.text(ATTACK);
    ensure!(said.contains(char::from(BEAT)), "the guest gave no sign of life");
    let next = greets(stage, std::slice::from_ref(device), &adapter, "The adapter has survived.")?;
    stage.terminate(next).map(drop)
}

/// Every thread of the machine, and of the processes that it has started, is confined.
fn confined(stage: &Stage<'_>) -> Result<()> {
    let busybox = stage.tree.busybox()?;
    let busybox = busybox.display();
    let threads = stage.output(&format!(
        "for process in $({busybox} pidof trapline); do for task in /proc/$process/task/*; do\n\
         echo $({busybox} cat $task/comm) $({busybox} awk '/^Seccomp:/ {{ print $2 }}' $task/status)\ndone; done"
    ))?;
    // The kernel's own are none of ours.
    let ours = || threads.lines().filter(|line| !["iou-", "kvm-"].iter().any(|own| line.starts_with(own)));
    ensure!(ours().all(|line| line.ends_with(" 2")), "not every thread is confined:\n{threads}");
    // Which only a machine with a function of the host has.
    ensure!(ours().any(|line| line == "interrupts 2"), "there is no thread \"interrupts\":\n{threads}");
    Ok(())
}
