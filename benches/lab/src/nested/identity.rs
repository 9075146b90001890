//! Functions whose BARs lie in the guest where the host has them.

use anyhow::{Context, Result, ensure};

use super::adapters::shows_nothing_yet;
use super::devices::{ADAPTER, DEVICES, DISK};
use super::large::MISFITS;
use super::{Case, Stage};
use crate::inner::{self, DONE, RUN_INIT, SAYS, Step};
use crate::payload::{bare::pass, movebar};

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: with identity=on Linux finds the host's addresses, and an adapter and a disk work there",
        set: &DEVICES,
        seconds: 240,
        run: linux,
    },
    Case {
        name: "vfio: a guest that moves a BAR of identity is refused, followed or stopped",
        set: &DEVICES,
        seconds: 240,
        run: moves,
    },
];

/// The BARs of a function of the outer machine that decode something: index, first and last address.
fn bars(stage: &Stage<'_>, function: &str) -> Result<Vec<String>> {
    let text = stage.output(&format!("head -n 6 /sys/bus/pci/devices/{function}/resource"))?;
    let lines = text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    let lines = (0..).zip(lines).map(|(index, line)| format!("{index} {line}"));
    Ok(lines.filter(|line| !line.ends_with(" 0x0000000000000000")).collect())
}

fn linux(stage: &Stage<'_>) -> Result<()> {
    let (adapter, disk) = (stage.place(ADAPTER)?, stage.place(DISK)?);
    shows_nothing_yet(stage, &adapter)?;
    // A card on bus 0, and one behind a port, which must pass on what it keeps.
    let card = format!("{},rom=off", disk.function);
    let devices = ["--device", &adapter.function, "--device", &card, "--identity", "on"];
    let steps = [Step::Console, Step::Addresses, Step::Nvme];
    let mut guest = stage.linux(&devices, &inner::MODULES, &steps, "serial")?;
    stage.until_text(&mut guest, &adapter.id, RUN_INIT)?;
    let screen = stage.until_text(&mut guest, &adapter.id, DONE)?;
    ensure!(screen.shows("Console: colour VGA+ 80x25"), "the adapter is no console:\n{}", screen.text);
    stage.terminate(guest)?;
    let said = stage.text("serial");
    for (function, given) in [(&adapter.function, "0000:00:01.0"), (&disk.function, "0000:01:00.0")] {
        let bars = bars(stage, function)?;
        ensure!(!bars.is_empty(), "{function} has no BARs");
        for bar in bars {
            let line = format!("{SAYS}address {given} {bar}");
            ensure!(said.lines().any(|said| said.trim() == line), "the guest does not say \"{line}\"");
        }
    }
    // Firmware and tables have left these addresses to the BARs.
    for word in MISFITS {
        ensure!(!said.contains(word), "the guest's kernel says \"{word}\"");
    }
    ensure!(said.contains("lab: nvme bytes 8192 x 512"), "the disk does not work");
    Ok(())
}

fn moves(stage: &Stage<'_>) -> Result<()> {
    let function = stage.place(ADAPTER)?.function;
    let bar = bars(stage, &function)?.into_iter().next().context("the adapter has no BAR")?;
    let home = bar.split_whitespace().nth(1).and_then(|first| u64::from_str_radix(&first[2..], 16).ok());
    let home = home.with_context(|| format!("{bar} is no BAR"))?;
    let run = |policy: &str| -> Result<(i32, String, String)> {
        let device = format!("{function},identity={policy}");
        let disk = format!("{},readonly", stage.write("bare.img", &movebar::disk())?.display());
        let own = ["--disk", &disk, "--debugcon", "debug", "--cpus", "2", "--device", &device];
        let ended = stage.machine(&own)?.wait(stage.deadline)?;
        Ok((ended.status, ended.output, stage.text("debug")))
    };
    // The program moves both BARs to and fro a hundred times each; the first move is told, and no other.
    let (status, told, said) = run("follow")?;
    ensure!(status == 0 && said.contains(&pass(movebar::NAME)), "followed, it ends with {status}: {told}");
    let first =
        format!("{function}: the guest moves BAR 0 from {home:#x}, its address on the host, to 0xd0000000");
    ensure!(told.matches(&first).count() == 1, "of the move it says not once \"{first}\": {told}");
    ensure!(told.matches("the guest moves BAR").count() == 2, "there are two BARs: {told}");

    let (status, told, said) = run("refuse")?;
    ensure!(status == 0, "refused, it ends with {status}: {told}");
    let first = format!("{function}: the guest would move BAR 0 to 0xd0000000; it stays at {home:#x}");
    ensure!(told.matches(&first).count() == 1, "of the refusal it says not once \"{first}\": {told}");
    // Nothing is where it was moved to.
    ensure!(said.contains("frame: the value was seen: WRONG"), "the BAR has moved");

    let (status, told, said) = run("stop")?;
    let first =
        format!("{function}: the guest moves BAR 0 from {home:#x}, its address on the host, to 0xd0000000; ");
    ensure!(status == 1 && told.contains(&first), "stopped, it ends with {status}: {told}");
    ensure!(!said.contains("frame: the value was seen"), "the program came to its end");
    Ok(())
}
