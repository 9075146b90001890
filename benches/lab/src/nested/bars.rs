//! BARs that move while another processor reads them.

use anyhow::{Result, ensure};

use super::devices::{ADAPTER, DEVICES, carry_out};
use super::{Case, Stage};
use crate::payload::movebar;

pub const CASES: &[Case] = &[Case {
    name: "vfio: BARs move and memory decode goes on and off, and no stale mapping is read",
    set: &DEVICES,
    seconds: 240,
    run: moves,
}];

fn moves(stage: &Stage<'_>) -> Result<()> {
    let device = stage.place(ADAPTER)?.function;
    let said = carry_out(stage, movebar::NAME, &movebar::disk(), &["--cpus", "2", "--device", &device])?;
    for line in ["frame: the value was seen: ok", "frame: all ones were seen: ok"] {
        ensure!(said.contains(line), "the program does not say \"{line}\"");
    }
    Ok(())
}
