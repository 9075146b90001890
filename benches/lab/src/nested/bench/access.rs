//! What accesses cost the guest, measured by the guest ([`accesses`]).

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::super::guest::{DEBUG, Guest};
use super::{Entrant, GUEST, PATIENCE, QEMU, Session, rows};
use crate::bench::table::{Ratio, Table};
use crate::payload::{accesses, bare::pass};

/// The ways of carrying out the window, and their names here.
const WAYS: [&str; 3] = ["strict", "coalesced", "shadowed"];

/// One table for each kind of access.
pub fn costs(session: &Session<'_>) -> Result<Vec<Table>> {
    let (address, rom) = session.adapter()?;
    let disk = session.stage.write("accesses.disk", &accesses::disk())?;
    let guest = Guest { disk: Some(disk), debug: true, ..Guest::new(GUEST) }.with(&address, rom);
    let program = session.stage.program();
    let mut entrants = Vec::new();
    for way in WAYS {
        let command = guest.trapline(program, &["--window", way])?;
        if knows(session, way)? {
            entrants.push(Entrant::new(&ours(way), command));
        }
    }
    entrants.push(Entrant::new(QEMU, guest.qemu(session.stage.tree)?));
    let all = session.in_turn(
        "access",
        &entrants,
        |entrant| one(session, entrant),
        |costs| {
            let told = costs.iter().zip(&accesses::KINDS);
            told.map(|(cost, kind)| format!("{} {:.1} us", kind.name, cost / 1e3))
                .collect::<Vec<_>>()
                .join("; ")
        },
    )?;
    let tables = accesses::KINDS.iter().enumerate().map(|(number, kind)| {
        let rows = rows(&entrants, &all, |costs| costs[number] / 1e3);
        Table::new("access", kind.name, "us", rows).compare(ratios(kind.name))
    });
    Ok(tables.collect())
}

/// Whether this build has this way.
fn knows(session: &Session<'_>, way: &str) -> Result<bool> {
    let words = ["run", "--screen", "none", "--device", "none", "--timeout", "0.1", "--window", way];
    let ended = session.stage.start(&session.stage.command(&words))?.wait(Instant::now() + PATIENCE)?;
    let is_known = ended.status != 2;
    if !is_known {
        eprintln!("access: not with --window {way}: {}", ended.output.trim());
    }
    Ok(is_known)
}

fn ours(way: &str) -> String {
    format!("trapline --window {way}")
}

fn one(session: &Session<'_>, entrant: &Entrant) -> Result<Vec<f64>> {
    // In a folder of the outer machine's own: the shared one is slow.
    let script = format!("cd $(mktemp -d)\n{}\nstatus=$?\ncat {DEBUG}\nexit $status", entrant.command);
    let ended = session.stage.start(&script)?.wait(Instant::now() + PATIENCE)?;
    let said = &ended.output;
    ensure!(ended.status == 0, "it ended with status {}: {}", ended.status, said.trim());
    ensure!(said.contains(&pass(accesses::NAME)), "it does not pass: {}", said.trim());
    accesses::costs(said).with_context(|| format!("it does not tell all costs: {}", said.trim()))
}

/// What is wanted of a kind of access.
fn ratios(kind: &str) -> Vec<Ratio> {
    let [strict, coalesced, shadowed] = WAYS.map(ours);
    let least = Ratio::new(&shadowed, &strict);
    let least = match kind {
        accesses::LINE => least.at_most(0.05, 0.05),
        accesses::SCROLL => least.at_most(0.006, 0.006),
        _ => least,
    };
    vec![
        Ratio::new(&coalesced, &strict),
        least,
        Ratio::new(&strict, QEMU),
        Ratio::new(&coalesced, QEMU),
        Ratio::new(&shadowed, QEMU),
    ]
}
