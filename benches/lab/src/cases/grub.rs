//! GRUB, from the disk to the menu and back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, Case};
use crate::grub::{ENTRIES, MARK};
use crate::machine::Machine;

pub const CASES: &[Case] = &[
    Case {
        name: "grub: keys move the selection, and its last entry is power-off",
        seconds: 300,
        kvm: true,
        run: keys,
    },
    Case { name: "grub: four processors boot, reset and boot again", seconds: 480, kvm: true, run: reset },
];

/// Keys that go from the first entry of the menu down to the entry with this number and open it. Each
/// key waits until the one before it has moved the selection, which GRUB marks with a star.
fn choose(entry: usize) -> String {
    let steps: Vec<String> = ENTRIES.iter().take(entry + 1).map(|name| selected(name)).collect();
    steps.join("<down>") + "<enter>"
}

fn selected(entry: &str) -> String {
    format!("<wait-text:*{entry}>")
}

fn start(bench: &Bench, arguments: &[&str]) -> Result<Machine> {
    let disk = bench.grub().to_string_lossy().into_owned();
    bench.machine(&[&["--disk", &format!("{disk},readonly"), "--serial", "serial.log"], arguments].concat())
}

/// How often GRUB was about to draw its menu.
fn menus(bench: &Bench) -> usize {
    let serial = std::fs::read(bench.file("serial.log")).unwrap_or_default();
    serial.iter().filter(|byte| **byte == MARK).count()
}

/// Boots to the menu, waits as long as drawing it may take on a machine that took so long until then, ends the run, and
/// gives back the screen, on which the whole menu is.
pub fn look(bench: &Bench, arguments: &[&str]) -> Result<String> {
    // What an earlier run said is not this one's; there may be none.
    let _ = std::fs::remove_file(bench.file("serial.log"));
    let begun = Instant::now();
    let mut machine = start(bench, arguments)?;
    machine.until("menu", || menus(bench) > 0)?;
    std::thread::sleep(begun.elapsed().max(Duration::from_secs(8)));
    machine.terminate()?;
    machine.wait()?;
    let screen = bench.screen();
    ensure!(screen.contains("GNU GRUB"), "no headline");
    for entry in ENTRIES {
        ensure!(screen.contains(entry), "no entry \"{entry}\"");
    }
    ensure!(screen.contains(&format!("*{}", ENTRIES[0])), "the first entry is not chosen");
    Ok(screen)
}

fn keys(bench: &Bench) -> Result<()> {
    // Down, down, up, and then to the end: each step is seen before the next.
    let [hello, wait, restart, _] = ENTRIES.map(selected);
    let typed = format!("{hello}<down>{wait}<down>{restart}<up>{wait}<up>{}", choose(3));
    start(bench, &["--keys", &typed])?.wait()?.expect(0)
}

fn reset(bench: &Bench) -> Result<()> {
    let keys = format!("{}<wait-text:SeaBIOS (version>{}", choose(2), choose(3));
    start(bench, &["--cpus", "4", "--keys", &keys])?.wait()?.expect(0)?;
    ensure!(menus(bench) == 2, "GRUB came to its menu {} times, not twice", menus(bench));
    Ok(())
}
