//! Linux, from the program's start to its first process, which the serial line tells.
//!
//! The baseline is trapline itself without any adapter. With a working VGA BIOS Linux scrolls by moving the
//! start address; without one it takes the adapter for a CGA, and scrolls by copying the whole screen.

use anyhow::Result;

use super::super::guest::{Guest, Linux, Rom, SERIAL};
use super::{AUTO, Entrant, GUEST, QEMU, STRICT, Session, rows};
use crate::bench::table::{Ratio, Table};
use crate::inner::{self, RUN_INIT};

/// The baseline.
const ALONE: &str = "trapline, no device";
/// QEMU's own.
const QEMU_ALONE: &str = "QEMU -M pc, no device";

/// With the console on an adapter whose BIOS runs.
pub fn alive(session: &Session<'_>) -> Result<Vec<Table>> {
    let (address, rom) = session.adapter()?;
    let guest = guest(session, inner::command_line(&[]))?.with(&address, rom);
    let mut entrants = entrants(session, &guest)?;
    let alone = self::guest(session, without_screen())?;
    entrants.insert(0, Entrant::new(QEMU_ALONE, alone.qemu(session.stage.tree)?));
    for program in session.against {
        let program = std::path::absolute(program)?;
        let command = guest.trapline(&program, &[])?;
        entrants.push(Entrant::new(&program.display().to_string(), command));
    }
    let ratios = [
        Ratio::new(AUTO, ALONE).at_most(1.10, 1.15),
        Ratio::new(AUTO, QEMU).at_most(0.50, 0.50),
        Ratio::new(AUTO, STRICT),
        Ratio::new(STRICT, QEMU),
        Ratio::new(ALONE, QEMU_ALONE),
        Ratio::new(QEMU, QEMU_ALONE),
    ];
    let others = session.against.iter().map(|program| Ratio::new(AUTO, &program.display().to_string()));
    boots(session, "linux", &entrants, ratios.into_iter().chain(others).collect())
}

/// With the console on an adapter in text mode that has no ROM.
pub fn dead(session: &Session<'_>) -> Result<Vec<Table>> {
    // It has a shadow of its ROM, in which the BIOS has run already: none is the same everywhere.
    let address = session.stage.boot_adapter()?;
    let guest = guest(session, inner::command_line(&[]))?.with(address, Rom::Off);
    let ratios = [
        Ratio::new(AUTO, QEMU).at_most(0.22, 0.22),
        Ratio::new(AUTO, STRICT),
        Ratio::new(STRICT, QEMU),
        Ratio::new(AUTO, ALONE),
    ];
    boots(session, "dead", &entrants(session, &guest)?, ratios.into())
}

fn guest(session: &Session<'_>, words: String) -> Result<Guest> {
    let stage = &session.stage;
    let initramfs = stage.write("initramfs", &inner::initramfs(stage.tree, &[])?)?;
    let linux = Linux { kernel: stage.tree.kernel()?, initramfs, words };
    Ok(Guest { linux: Some(linux), serial: true, ..Guest::new(GUEST) })
}

/// The command line without the screen.
fn without_screen() -> String {
    inner::command_line(&[]).replace("console=tty0 ", "")
}

fn entrants(session: &Session<'_>, guest: &Guest) -> Result<Vec<Entrant>> {
    let program = session.stage.program();
    let alone = self::guest(session, without_screen())?;
    Ok(vec![
        Entrant::new(ALONE, alone.trapline(program, &[])?),
        Entrant::new(AUTO, guest.trapline(program, &["--window", "auto"])?),
        Entrant::new(STRICT, guest.trapline(program, &["--window", "strict"])?),
        Entrant::new(QEMU, guest.qemu(session.stage.tree)?),
    ])
}

fn boots(
    session: &Session<'_>,
    part: &'static str,
    entrants: &[Entrant],
    ratios: Vec<Ratio>,
) -> Result<Vec<Table>> {
    let all = session.in_turn(
        part,
        entrants,
        |entrant| session.time(entrant, SERIAL, &[RUN_INIT]),
        |time| format!("{:.1} s, processor time {:.1} s", time.marks[0], time.processor),
    )?;
    let clock = rows(entrants, &all, |time| time.marks[0]);
    let processor = rows(entrants, &all, |time| time.processor);
    let free = ratios.iter().map(Ratio::unlimited);
    Ok(vec![
        Table::new(part, "processor time of the outer machine for one boot", "s", processor).compare(free),
        Table::new(part, "Linux, from the program's start to the first process", "s", clock).compare(ratios),
    ])
}
