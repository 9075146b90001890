//! The program's start to the firmware's first byte, with much and with little memory to be mapped for DMA.
//!
//! The outer machine's own memory is taken from this one when it is first touched, which costs seconds and
//! is not what is to be measured: each entrant runs once before it counts.

use anyhow::Result;

use super::super::guest::{DEBUG, Guest};
use super::{Entrant, QEMU, Session, again, rows};
use crate::bench::table::{Ratio, Table};

/// Memory of the outer machine in MiB: the biggest guest, and room.
pub const OUTER: u32 = 10240;
/// Memory of the guests in MiB.
const SIZES: [u32; 3] = [512, 2048, 6144];

/// The names of the programs, without their memory.
const WITH: &str = "trapline";
const WITHOUT: &str = "trapline, no device";
const QEMU_WITHOUT: &str = "QEMU -M pc, no device";

/// All sizes, with the adapter and without it.
pub fn first_byte(session: &Session<'_>) -> Result<Vec<Table>> {
    SIZES.into_iter().map(|size| one_size(session, size)).collect()
}

fn one_size(session: &Session<'_>, size: u32) -> Result<Table> {
    let (address, rom) = session.adapter()?;
    let (program, tree) = (session.stage.program(), session.stage.tree);
    let without = Guest { debug: true, ..Guest::new(size) };
    let with = without.clone().with(&address, rom);
    let entrants = [
        Entrant::new(WITHOUT, without.trapline(program, &[])?),
        Entrant::new(WITH, with.trapline(program, &[])?),
        Entrant::new(QEMU_WITHOUT, without.qemu(tree)?),
        Entrant::new(QEMU, with.qemu(tree)?),
    ];
    for entrant in &entrants {
        again(&entrant.name, || session.time(entrant, DEBUG, &[""]))?;
    }
    let part = format!("launch, {size} MiB");
    let all = session.in_turn(
        &part,
        &entrants,
        |entrant| {
            // Large pages, which a host that has just been started has, and one in use may not have.
            session.stage.output("echo 1 > /proc/sys/vm/compact_memory")?;
            session.time(entrant, DEBUG, &[""])
        },
        |time| format!("{:.3} s", time.marks[0]),
    )?;
    let rows = rows(&entrants, &all, |time| time.marks[0]);
    let title = format!("from the program's start to the firmware's first byte with {size} MiB");
    let ratios = [
        Ratio::new(WITH, WITHOUT).at_most(1.3, 1.3),
        Ratio::new(WITH, QEMU),
        Ratio::new(QEMU, QEMU_WITHOUT),
        Ratio::new(WITHOUT, QEMU_WITHOUT),
    ];
    Ok(Table::new("launch", &title, "s", rows).compare(ratios))
}
