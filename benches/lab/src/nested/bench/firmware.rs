//! Firmware and a boot loader on the adapter, which both draw by int 10h.

use anyhow::Result;

use super::super::guest::{DEBUG, Guest, SERIAL};
use super::{AUTO, Entrant, GUEST, QEMU, STRICT, Session, rows};
use crate::bench::table::{Ratio, Table};
use crate::grub::redraw;
use crate::payload::mark;

/// What SeaBIOS says when it has read a boot sector.
const BOOT_ATTEMPT: &str = "Booting from 0000:7c00";
/// How often the menu is drawn in one run.
const DRAWN: usize = 3;

/// From the firmware's first byte on the debug console to its boot attempt: POST, the VGA BIOS, the banner.
pub fn post(session: &Session<'_>) -> Result<Vec<Table>> {
    let disk = session.stage.write("mark.disk", &mark::disk(mark::Then::Halt))?;
    let entrants = entrants(session, Guest { disk: Some(disk), debug: true, ..Guest::new(GUEST) })?;
    let all = session.in_turn(
        "post",
        &entrants,
        |entrant| session.time(entrant, DEBUG, &["", BOOT_ATTEMPT]),
        |time| format!("{:.2} s", time.marks[1] - time.marks[0]),
    )?;
    let rows = rows(&entrants, &all, |time| time.marks[1] - time.marks[0]);
    let table =
        Table::new("post", "SeaBIOS on the adapter, from its first byte to its boot attempt", "s", rows);
    Ok(vec![table.compare(ratios())])
}

/// GRUB's menu: drawn whole, then the selection moved up and down.
pub fn grub(session: &Session<'_>) -> Result<Vec<Table>> {
    let disk = session.stage.file("grub.disk");
    redraw::make(&disk, DRAWN + 1)?;
    let entrants = entrants(session, Guest { disk: Some(disk), serial: true, ..Guest::new(GUEST) })?;
    let mark = char::from(redraw::MARK).to_string();
    let marks = [mark.as_str(); DRAWN + 1];
    let one = |marks: &[f64]| (marks[DRAWN] - marks[0]) / DRAWN as f64;
    let all = session.in_turn(
        "grub",
        &entrants,
        |entrant| session.time(entrant, SERIAL, &marks),
        |time| format!("{:.2} s", one(&time.marks)),
    )?;
    let rows = rows(&entrants, &all, |time| one(&time.marks));
    let title = format!("GRUB's menu, drawn once, and {} moves of the selection", redraw::MOVES);
    Ok(vec![Table::new("grub", &title, "s", rows).compare(ratios())])
}

fn entrants(session: &Session<'_>, guest: Guest) -> Result<Vec<Entrant>> {
    let (address, rom) = session.adapter()?;
    let guest = guest.with(&address, rom);
    let program = session.stage.program();
    Ok(vec![
        Entrant::new(AUTO, guest.trapline(program, &["--window", "auto"])?),
        Entrant::new(STRICT, guest.trapline(program, &["--window", "strict"])?),
        Entrant::new(QEMU, guest.qemu(session.stage.tree)?),
    ])
}

fn ratios() -> [Ratio; 3] {
    [Ratio::new(AUTO, QEMU), Ratio::new(AUTO, STRICT), Ratio::new(STRICT, QEMU)]
}
