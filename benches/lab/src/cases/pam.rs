//! PAM and SMRAM on the bare machine, and on QEMU's machine of the same name.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Bench, Case};
use crate::machine::text;
use crate::outer::Tree;
use crate::payload::bare::passed;
use crate::payload::pam;

pub const CASES: &[Case] = &[
    Case { name: "pam: every state of every segment, and of SMRAM", seconds: 400, kvm: true, run: states },
    Case { name: "pam: QEMU's q35 without SMM hides the window", seconds: 120, kvm: false, run: qemu },
];

/// The disk, and what the program says.
const DISK: &str = "pam.img";
const DEBUG: &str = "debug";

fn states(bench: &Bench) -> Result<()> {
    bench.write(DISK, &pam::disk())?;
    bench.machine(&["--disk", DISK, "--debugcon", DEBUG])?.wait()?.expect(0)?;
    let said = text(&bench.file(DEBUG));
    count("trapline", &said);
    // It stands on the adapter's screen, too.
    [&said, &bench.screen()].into_iter().try_for_each(|text| passed(text, pam::NAME))
}

/// The same program there. That it fails is what this project's README says of it: when it passes, that is to be
/// changed.
fn qemu(bench: &Bench) -> Result<()> {
    let tree = Tree::prepare(&bench.lab.workspace.lab()?)?;
    let disk = bench.write(DISK, &pam::disk())?;
    let words = tree.qemu()?;
    let (program, rest) = words.split_first().context("no QEMU")?;
    let mut command = Command::new(program);
    command.args(rest).args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-machine", "q35,smm=off", "-accel", "tcg", "-m", "256", "-vga", "none", "-device", "VGA"]);
    command.args(["-drive", &format!("if=virtio,format=raw,readonly=on,file={}", disk.display())]);
    command.args(["-chardev", &format!("file,id=console,path={DEBUG}")]);
    command.args(["-device", "isa-debugcon,iobase=0x402,chardev=console"]).current_dir(bench.file("."));
    bench.ends(command)?.expect(0)?;
    let said = text(&bench.file(DEBUG));
    count("QEMU -M q35,smm=off", &said);
    ensure!(
        said.contains(&format!("{}: FAIL", pam::NAME)),
        "QEMU's guest finds nothing wrong, or has no verdict"
    );
    ensure!(said.contains(&format!("{}: WRONG", pam::WINDOW)), "QEMU shows the adapter in the window now");
    Ok(())
}

/// Tells how many of the checks that matter most were good.
fn count(who: &str, said: &str) {
    for what in [pam::WINDOW, pam::WRITE_RAM] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(what)).collect();
        let good = lines.iter().filter(|line| line.ends_with(": ok")).count();
        eprintln!("  {who}: {what}: {good} of {}", lines.len());
    }
}
