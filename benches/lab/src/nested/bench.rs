//! What `cargo lab bench` measures in the outer machine, part by part.
//!
//! An [`Entrant`] is a program with a guest; a round measures every entrant of a part once. Times are taken
//! inside, by `cargo lab stopwatch`, or by the guest itself.
//!
//! | file | part | what |
//! |---|---|---|
//! | [`linux`] | linux, dead | Linux to its first process, with and without a working VGA BIOS |
//! | [`firmware`] | post, grub | SeaBIOS to its boot attempt; GRUB's menu, drawn again and again |
//! | [`access`] | access | single accesses, lines of text, a scrolled line |
//! | [`launch`] | launch | the program's start to the firmware's first byte, by the size of memory |

mod access;
mod firmware;
mod launch;
mod linux;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::Stage;
use super::guest::{PATIENCE, Rom, Time, time};
use crate::bench::table::{Row, Table};
use crate::cases::Lab;
use crate::outer::{Device, Outer, Plan, Tree};

/// One thing that is measured.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it is, for a person.
    pub what: &'static str,
    /// Memory of the outer machine in MiB.
    memory: u32,
    run: fn(&Session<'_>) -> Result<Vec<Table>>,
}

/// All of them, in the order in which they are run.
pub const PARTS: [Part; 6] = [
    Part {
        name: "linux",
        what: "Linux to its first process, console on the adapter",
        memory: USUAL,
        run: linux::alive,
    },
    Part { name: "dead", what: "the same without a working VGA BIOS", memory: USUAL, run: linux::dead },
    Part { name: "post", what: "SeaBIOS, first byte to boot attempt", memory: USUAL, run: firmware::post },
    Part { name: "grub", what: "GRUB's menu, drawn again and again", memory: USUAL, run: firmware::grub },
    Part { name: "access", what: "costs of accesses to the adapter", memory: USUAL, run: access::costs },
    Part {
        name: "launch",
        what: "the program's start to the firmware's first byte, by memory",
        memory: launch::OUTER,
        run: launch::first_byte,
    },
];

/// What came of a part.
pub struct Done {
    /// The tables, with as many rounds as there were.
    pub tables: Vec<Table>,
    /// Whether all of it could be measured.
    pub is_whole: bool,
}

/// Memory of the outer machine in MiB, where no guest is big.
const USUAL: u32 = 4096;
/// Memory of a guest in MiB.
const GUEST: u32 = 512;
/// How often a guest is started: Linux in an emulated machine ends early now and then, in QEMU as well.
const TRIES: u32 = 3;
/// The adapter that is given away.
const ADAPTER: usize = 0;
/// The ROM of every adapter here.
const ROM: &str = "vgabios-stdvga.bin";

/// The ways of trapline's window that are compared.
const AUTO: &str = "trapline --window auto";
const STRICT: &str = "trapline --window strict";
/// What they are compared with.
const QEMU: &str = "QEMU -M pc";

/// What the parts share.
struct Session<'a> {
    stage: Stage<'a>,
    rounds: u16,
    against: &'a [PathBuf],
}

/// A program with a guest, as words of the shell.
struct Entrant {
    name: String,
    command: String,
}

impl Entrant {
    fn new(name: &str, command: String) -> Self {
        Entrant { name: name.into(), command }
    }
}

/// Boots an outer machine and measures; `files` is for packages and for what runs leave. Blocks for minutes.
///
/// A part that cannot be measured is said, and the others go on; without an outer machine there is none.
pub fn run(parts: &[&Part], lab: &Lab, files: &Path, rounds: u16, against: &[PathBuf]) -> Result<Vec<Done>> {
    let tree = Tree::prepare(files)?;
    let memory = parts.iter().map(|part| part.memory).max().unwrap_or(USUAL);
    let plan = Plan { devices: vec![Device::new("VGA")], memory, ..Plan::default() };
    let outer = Outer::boot(&tree, files, &plan)?;
    eprintln!("an outer machine with {memory} MiB: booted ({:.1} s)", outer.boot_time().as_secs_f64());
    let mut done = Vec::new();
    for part in parts {
        // Each measurement has a deadline of its own.
        let deadline = Instant::now() + PATIENCE * TRIES * 16 * u32::from(rounds);
        let stage = Stage::new(&outer, &tree, lab, plan.devices.len(), deadline)?;
        let session = Session { stage, rounds, against };
        match (part.run)(&session).with_context(|| session.stage.state()) {
            Ok(tables) => done.push(Done { tables, is_whole: true }),
            Err(error) => {
                eprintln!("{}: {error:#}", part.name);
                done.push(Done { tables: Vec::new(), is_whole: false });
            }
        }
        ensure!(!outer.has_broken_down(), "the outer machine broke down: nothing of this run counts");
    }
    Ok(done)
}

impl Session<'_> {
    /// The adapter's address, and the ROM that every program gives it.
    fn adapter(&self) -> Result<(String, Rom)> {
        Ok((self.stage.place(ADAPTER)?.function, Rom::File(self.stage.tree.rom(ROM)?)))
    }

    /// Runs every entrant once a round, in turn, and gives for each the results of `measure`.
    fn in_turn<T>(
        &self,
        part: &str,
        entrants: &[Entrant],
        measure: impl Fn(&Entrant) -> Result<T>,
        tell: impl Fn(&T) -> String,
    ) -> Result<Vec<Vec<T>>> {
        let mut all: Vec<Vec<T>> = entrants.iter().map(|_| Vec::new()).collect();
        for round in 1..=self.rounds {
            for (entrant, values) in entrants.iter().zip(&mut all) {
                let value = again(&entrant.name, || measure(entrant))?;
                eprintln!("{part}, round {round}, {}: {}", entrant.name, tell(&value));
                values.push(value);
            }
        }
        Ok(all)
    }

    /// Runs an entrant until the last mark was heard in the pipe of this name.
    fn time(&self, entrant: &Entrant, pipe: &str, marks: &[&str]) -> Result<Time> {
        time(&self.stage, &entrant.command, pipe, marks)
    }
}

/// Tries so long until it succeeds, but not too often.
fn again<T>(name: &str, mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match measure() {
            Ok(value) => return Ok(value),
            Err(error) => eprintln!("{name}: once more, because {error:#}"),
        }
    }
    match measure() {
        Ok(value) => Ok(value),
        Err(error) => bail!("{name}: {error:#}"),
    }
}

/// The rows of a table: one value of each run.
fn rows<T>(entrants: &[Entrant], all: &[Vec<T>], value: impl Fn(&T) -> f64) -> Vec<Row> {
    let values = |of: &Vec<T>| of.iter().map(&value).collect();
    entrants.iter().zip(all).map(|(one, of)| Row { name: one.name.clone(), values: values(of) }).collect()
}
