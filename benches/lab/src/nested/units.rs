//! Tests of the crates that need functions bound to vfio-pci, run where there are some.

use anyhow::{Result, ensure};

use super::devices::{ADAPTER, DEVICES, DISK, EDU, NETWORK};
use super::{Case, Stage};

/// What the names of such tests contain.
pub const OURS: &str = "in_the_lab";

pub const CASES: &[Case] = &[Case {
    name: "vfio: the crates' own tests on functions of the host",
    set: &DEVICES,
    seconds: 600,
    run: units,
}];

/// Pages of 2 MiB that a test wants to have.
const PAGES: u32 = 2;

fn units(stage: &Stage<'_>) -> Result<()> {
    let words = ["test", "--workspace", "--no-run"];
    let programs = stage.workspace().programs(&words, &["trapline_devices", "assigned_vfio"])?;
    let places = [EDU, DISK, NETWORK, ADAPTER].into_iter().map(|number| Ok(stage.place(number)?.function));
    let functions = places.collect::<Result<Vec<_>>>()?.join(" ");
    stage.output(&format!("echo {PAGES} > /proc/sys/vm/nr_hugepages"))?;
    for program in programs {
        let command = format!(
            "TRAPLINE_VFIO='{functions}' {program} {OURS} --test-threads=1 --show-output",
            program = program.display()
        );
        let ended = stage.start(&command)?.wait(stage.deadline)?;
        let said = ended.output.trim();
        ensure!(ended.status == 0, "{} ended with status {}: {said}", program.display(), ended.status);
        ensure!(!said.contains("skipped: "), "a test was skipped: {said}");
        ensure!(!said.contains("test result: ok. 0 passed"), "{} has no such test", program.display());
    }
    stage.output("echo 0 > /proc/sys/vm/nr_hugepages").map(drop)
}
