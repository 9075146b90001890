//! GRUB, from the disk to the menu and back.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Bench, Case};
use crate::grub::{ENTRIES, MARK};
use crate::machine::Machine;

pub const CASES: &[Case] = &[
    Case { name: "grub: its menu is on the screen", seconds: 120, kvm: true, run: menu },
    Case { name: "grub: keys move the selection", seconds: 120, kvm: true, run: keys },
    Case { name: "grub: it turns the machine off", seconds: 120, kvm: true, run: power_off },
    Case { name: "grub: four processors boot, reset and boot again", seconds: 240, kvm: true, run: reset },
];

/// The keys that open the menu's last entry once it is drawn.
const TURN_OFF: &str = "<wait-text:Turn the machine off><wait:1><down><down><down><enter>";

fn start(bench: &Bench, arguments: &[&str]) -> Result<Machine> {
    let disk = bench.grub().to_string_lossy().into_owned();
    bench.machine(&[&["--disk", &format!("{disk},readonly"), "--serial", "serial.log"], arguments].concat())
}

/// How often GRUB was about to draw its menu.
fn menus(bench: &Bench) -> usize {
    let serial = std::fs::read(bench.file("serial.log")).unwrap_or_default();
    serial.iter().filter(|byte| **byte == MARK).count()
}

/// Waits for the menu and as long again as typing needs, then ends the run.
fn look(bench: &Bench, mut machine: Machine, more: Duration) -> Result<String> {
    machine.until("menu", || menus(bench) > 0)?;
    std::thread::sleep(Duration::from_secs(6) + more);
    machine.terminate()?;
    machine.wait()?;
    Ok(bench.screen())
}

fn menu(bench: &Bench) -> Result<()> {
    let screen = look(bench, start(bench, &[])?, Duration::ZERO)?;
    ensure!(screen.contains("GNU GRUB"), "no headline");
    for entry in ENTRIES {
        ensure!(screen.contains(entry), "no entry \"{entry}\"");
    }
    ensure!(screen.contains(&format!("*{}", ENTRIES[0])), "the first entry is not chosen");
    Ok(())
}

fn keys(bench: &Bench) -> Result<()> {
    let typed = format!("<wait-text:{}><wait:1><down><down><up>", ENTRIES[3]);
    let screen = look(bench, start(bench, &["--keys", &typed])?, Duration::from_secs(4))?;
    ensure!(screen.contains(&format!("*{}", ENTRIES[1])), "the second entry is not chosen");
    Ok(())
}

fn power_off(bench: &Bench) -> Result<()> {
    start(bench, &["--keys", TURN_OFF])?.wait()?.expect(0)
}

fn reset(bench: &Bench) -> Result<()> {
    let restart = "<wait-text:Restart the machine><wait:1><down><down><enter><wait-text:SeaBIOS (version>";
    start(bench, &["--cpus", "4", "--keys", &format!("{restart}{TURN_OFF}")])?.wait()?.expect(0)?;
    ensure!(menus(bench) == 2, "GRUB came to its menu {} times, not twice", menus(bench));
    Ok(())
}
