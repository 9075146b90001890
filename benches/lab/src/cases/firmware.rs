//! SeaBIOS.

use anyhow::{Result, ensure};

use super::{Bench, Case};
use crate::machine::text;

pub const CASES: &[Case] = &[
    Case { name: "firmware: its banner is on the screen", seconds: 60, kvm: true, run: banner },
    Case { name: "firmware: a time limit ends the run with 124", seconds: 30, kvm: true, run: timeout },
    Case { name: "firmware: four processors are counted", seconds: 60, kvm: true, run: processors },
];

/// Runs SeaBIOS without a disk until it gives up, and returns what it told its debug port.
fn without_a_disk(bench: &Bench, arguments: &[&str]) -> Result<String> {
    let log = bench.file("debug.log");
    let mut machine = bench.machine(&[&["--debugcon", "debug.log"], arguments].concat())?;
    machine.until("boot attempt", || text(&log).contains("No bootable device"))?;
    machine.terminate()?;
    machine.wait()?;
    Ok(text(&log))
}

fn banner(bench: &Bench) -> Result<()> {
    without_a_disk(bench, &[])?;
    let screen = bench.screen();
    for line in ["SeaBIOS (version ", "No bootable device"] {
        ensure!(screen.contains(line), "no \"{line}\" on the screen");
    }
    Ok(())
}

fn timeout(bench: &Bench) -> Result<()> {
    // Its guest gives up on booting and rests, so that nothing else ends the run before the case's own deadline.
    bench.unseen(&["--timeout", "1.5"])?.wait()?.expect(124)
}

fn processors(bench: &Bench) -> Result<()> {
    let log = without_a_disk(bench, &["--cpus", "4"])?;
    let line = log.lines().find(|line| line.contains("Found") && line.contains("cpu(s)"));
    ensure!(line.is_some_and(|line| line.contains("4 cpu(s)")), "SeaBIOS counted: {line:?}");
    Ok(())
}
