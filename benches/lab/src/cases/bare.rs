//! Programs on the bare machine, as far as they need no assigned function.

use anyhow::{Result, ensure};

use super::{Bench, Case};
use crate::payload::{bare::passed, edu, irqs, movebar};

pub const CASES: &[Case] = &[
    Case { name: "bare: interrupts of the local APIC", seconds: 90, kvm: true, run: interrupts },
    Case { name: "bare: a BAR moves while another processor reads it", seconds: 90, kvm: true, run: moves },
    Case { name: "bare: without its device a program fails", seconds: 90, kvm: true, run: absent },
];

/// Runs the disk to its end and returns the screen.
fn screen(bench: &Bench, disk: &[u8]) -> Result<String> {
    bench.write("bare.img", disk)?;
    bench.machine(&["--disk", "bare.img", "--cpus", "2"])?.wait()?.expect(0)?;
    Ok(bench.screen())
}

fn interrupts(bench: &Bench) -> Result<()> {
    let screen = screen(bench, &irqs::disk())?;
    ensure!(screen.contains("from the second: ok"), "the second processor sent nothing");
    passed(&screen, irqs::NAME)
}

fn moves(bench: &Bench) -> Result<()> {
    passed(&screen(bench, &movebar::disk())?, movebar::NAME)
}

fn absent(bench: &Bench) -> Result<()> {
    let screen = screen(bench, &edu::disk())?;
    ensure!(screen.contains("edu is there: WRONG"), "it does not miss the device");
    ensure!(screen.contains("edu: FAIL") && passed(&screen, edu::NAME).is_err(), "it does not fail");
    Ok(())
}
