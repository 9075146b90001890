//! The cases that take an outer machine: VFIO, KVM and the IOMMU of a whole host.
//!
//! A case names the [`Set`] of devices that it needs. All cases of a set share one outer machine, one after
//! another, and leave its devices bound to vfio-pci; after one that failed the machine is booted anew.
//! A machine that has ended, or of which a processor gives no signs of life any more, is no stage for anything, and nor
//! is one on which a case does not come to its end, or a guest runs where no code is: what failed so is run again, on
//! another, twice at most. What else was seen and is wrong is not.

mod adapters;
mod arbiter;
mod bars;
pub mod bench;
mod devices;
mod firmware;
mod guest;
mod host;
mod hostile;
mod identity;
mod interrupts;
mod large;
mod life;
mod linux;
mod peer;
mod report;
mod rom;
mod stage;
mod units;
mod vga;
mod window;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cases::{self, Lab};
use crate::outer::{Device, Outer, Plan, Tree};
use crate::steps;
use crate::tally::{Record, Tally};
use stage::Stage;
pub use units::OURS;

/// One test that needs an outer machine.
pub struct Case {
    /// Its name: vfio, a colon, and what holds.
    pub name: &'static str,
    /// What it needs.
    set: &'static Set,
    /// How long it may take on a machine on which others are at work, and so what one costs that comes to no end:
    /// most take less than a minute.
    seconds: u64,
    run: fn(&Stage<'_>) -> Result<()>,
}

/// The devices of an outer machine.
pub struct Set {
    /// A name for people.
    name: &'static str,
    /// Makes the list; files that devices need go to this folder.
    devices: fn(&Path) -> Result<Vec<Device>>,
}

/// How often a case is run again because its outer machine, or QEMU's translator its guest, was lost.
const REPEATS: usize = 4;
/// The same where it was not over in its time, which takes as long each time.
const LATE_REPEATS: usize = 3;

/// What trapline says of a guest that runs where no code is. QEMU's translator now and then sends one there: its
/// instruction pointer is then one of the outer kernel's, in kvm_amd, as KVM's trace events show. Where KVM can neither
/// run nor emulate that it says so; else the guest faults there for ever, and the case's time runs out. One that we
/// send there will go there on another machine too.
const DERAILED: &str = "KVM internal error 1 (an instruction could not be emulated)";

/// A display adapter, a device that has no driver anywhere, and one that its own driver has.
static VGA: Set = Set {
    name: "VGA, edu and a network adapter behind an IOMMU of 39 bits",
    devices: |_| {
        let adapter = Device::new("VGA").with(&["-global", "intel-iommu.aw-bits=39"]);
        Ok(vec![adapter, Device::new("edu"), Device::new("e1000e").unbound()])
    },
};

/// All of them; those of a set are run together.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        host::CASES,
        peer::CASES,
        firmware::CASES,
        linux::CASES,
        devices::CASES,
        interrupts::CASES,
        report::CASES,
        units::CASES,
        bars::CASES,
        large::CASES,
        identity::CASES,
        adapters::CASES,
        vga::CASES,
        life::CASES,
        window::CASES,
        hostile::CASES,
        arbiter::CASES,
        rom::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Those that are carried out only where they are named.
pub fn by_hand() -> impl Iterator<Item = &'static Case> {
    arbiter::BY_HAND.iter().chain(report::BY_HAND)
}

/// Runs these cases on `lab`'s program. The folder `files` is for packages and for what runs leave.
pub fn run(chosen: &[&Case], lab: &Lab, files: &Path, record: &mut Record) {
    if chosen.is_empty() {
        return;
    }
    let start = Instant::now();
    let prepared = Tree::prepare(files);
    record.note("packages of the outer machine", start.elapsed(), Tally::default().into());
    let tree = match prepared {
        Ok(tree) => tree,
        Err(error) => {
            for case in chosen {
                eprintln!("{}: skipped: {error:#}", case.name);
                record.note(case.name, Duration::ZERO, Tally::SKIPPED.into());
            }
            return;
        }
    };
    let mut rest = chosen.to_vec();
    let mut repeated = Vec::new();
    while let Some(first) = rest.first() {
        let set = first.set;
        let (mut here, others) = rest.into_iter().partition(|case| std::ptr::eq(case.set, set));
        rest = others;
        while !here.is_empty() {
            on_one_machine(set, &mut here, &mut repeated, lab, &tree, files, record);
        }
    }
}

/// Boots an outer machine and takes cases from `here` until one fails or there is none left. `repeated` are the
/// names of those that were put back because their machine broke down.
fn on_one_machine(
    set: &Set,
    here: &mut Vec<&Case>,
    repeated: &mut Vec<&str>,
    lab: &Lab,
    tree: &Tree,
    files: &Path,
    record: &mut Record,
) {
    let start = Instant::now();
    let outer = (set.devices)(files).and_then(|devices| {
        let plan = Plan { devices, ..Plan::default() };
        Outer::boot(tree, files, &plan).map(|outer| (outer, plan.devices.len()))
    });
    let (outer, devices) = match outer {
        Ok(booted) => booted,
        Err(error) => {
            // Its own words are for all cases that needed it.
            eprintln!("an outer machine with {}: {error:#}", set.name);
            let time = start.elapsed();
            for case in here.drain(..) {
                let failed = Err(anyhow::anyhow!("there is no outer machine to run it on"));
                record.note(case.name, time, cases::judge(case.name, time, failed));
            }
            return;
        }
    };
    eprintln!("an outer machine with {}: booted ({:.1} s)", set.name, outer.boot_time().as_secs_f64());
    let mut has_failed = false;
    while !here.is_empty() && !has_failed {
        let case = here.remove(0);
        let spinner = steps::watched(case.name);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(case.seconds);
        let result = Stage::new(&outer, tree, lab, devices, deadline)
            .and_then(|stage| (case.run)(&stage).with_context(|| stage.state()));
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        // A guest that QEMU's translator lost comes to no end; one that we lost will not on another machine either.
        let is_late = Instant::now() >= deadline;
        let has_derailed = [DERAILED, window::TRACE_LOST].iter().any(|words| why(&result).contains(words));
        let is_lost = result.is_err() && (is_late || has_derailed || outer.has_broken_down());
        let repeats = repeated.iter().filter(|name| **name == case.name).count();
        if is_lost && repeats < if is_late { LATE_REPEATS } else { REPEATS } {
            eprintln!(
                "{}: the outer machine broke down; once more, on another ({})",
                case.name,
                why(&result)
            );
            record.note(case.name, start.elapsed(), Tally::default().into());
            repeated.push(case.name);
            here.insert(0, case);
            return;
        }
        let time = start.elapsed();
        let outcome = cases::judge(case.name, time, result);
        has_failed = outcome.tally.failed > 0;
        record.note(case.name, time, outcome);
    }
}

/// The error, without what was to be seen on screens and in files.
fn why(result: &Result<()>) -> String {
    result.as_ref().err().map(|error| error.root_cause().to_string()).unwrap_or_default()
}
