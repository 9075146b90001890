//! A guest that does anything at random to a function of the host, and the guest after it.

use anyhow::{Result, ensure};

use super::adapters::{ADAPTERS, STDVGA};
use super::life::greets;
use super::{Case, Stage};
use crate::payload::hostile::{self, BEAT, Spared};

pub const CASES: &[Case] = &[Case {
    name: "vfio: after a hostile guest the adapter shows the next one",
    set: &ADAPTERS,
    seconds: 240,
    run: attack,
}];

/// How long the guest has, in seconds of the outer machine.
const TIME: &str = "20";
/// What the program's numbers are made of: the same each time, since a machine that emulates its processors is slow.
const SEED: u32 = 0x0b5e_55ed;

fn attack(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let disk = stage.write("hostile.img", &hostile::disk(SEED, Spared::Resets))?;
    let (disk, device) = (disk.to_string_lossy(), &adapter.function);
    let words =
        ["--disk", &*disk, "--device", device, "--cpus", "2", "--debugcon", "debug", "--timeout", TIME];
    let ended = stage.machine(&words)?.wait(stage.deadline)?;
    // It may have switched itself off.
    ensure!([0, 124].contains(&ended.status), "its status is {}: {}", ended.status, ended.output.trim());
    ensure!(ended.output.len() < 64 << 10, "it said {} bytes", ended.output.len());
    let said = stage.text("debug");
    ensure!(said.contains("hostile: seed") && said.contains(char::from(BEAT)), "the guest did not begin");
    let next = greets(stage, std::slice::from_ref(device), &adapter, "The adapter has survived.")?;
    stage.terminate(next).map(drop)
}
