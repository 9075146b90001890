//! Linux's start on an assigned adapter, side by side with QEMU: not a measurement, which is
//! `cargo lab bench`, but a look whether something is grossly slow.

use anyhow::{Result, ensure};

use super::devices::{ADAPTER, DEVICES};
use super::guest::{Guest, Linux, Rom, SERIAL, time};
use super::{Case, Stage};
use crate::inner::{self, RUN_INIT};

pub const CASES: &[Case] = &[Case {
    name: "vfio: Linux starts on an adapter not much later than with QEMU",
    set: &DEVICES,
    seconds: 240,
    run: pair,
}];

/// A case fails only beyond this many times QEMU's time: one pair on a busy host is no measurement.
const GROSS: f64 = 1.5;

fn pair(stage: &Stage<'_>) -> Result<()> {
    let linux = Linux {
        kernel: stage.tree.kernel()?,
        initramfs: stage.write("initramfs", &inner::initramfs(stage.tree)?)?,
        words: inner::command_line(&[]),
    };
    let rom = Rom::File(stage.tree.rom("vgabios-stdvga.bin")?);
    let guest = Guest { linux: Some(linux), serial: true, ..Guest::new(512) };
    let guest = guest.with(&stage.place(ADAPTER)?.function, rom);
    let trapline = time(stage, &guest.trapline(stage.program(), &[])?, SERIAL, &[RUN_INIT])?;
    let qemu = time(stage, &guest.qemu(stage.tree)?, SERIAL, &[RUN_INIT])?;
    let (ours, theirs) = (trapline.marks[0], qemu.marks[0]);
    let (ratio, processor) = (ours / theirs, trapline.processor / qemu.processor);
    let said = format!(
        "trapline {ours:.1} s, QEMU {theirs:.1} s: {ratio:.2} times; processor time {processor:.2} times"
    );
    eprintln!("{said}");
    ensure!(ratio < GROSS, "{said}");
    Ok(())
}
