//! What a run leaves in its report, of real adapters.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::adapters::{self, ADAPTERS, VIRTIO};
use super::{Case, Set, Stage, devices};
use crate::inner::{self, DONE, SAYS, Step, peers};
use crate::outer::Device;
use crate::payload::{bare, edu};

pub const CASES: &[Case] = &[Case {
    name: "vfio: virtio-vga shows Linux, by legacy VGA and by its driver with MSI-X, and a report tells of it",
    set: &ADAPTERS,
    seconds: 600,
    run: told,
}];

/// What the README tells of: it takes long, and what it finds is to be looked at.
pub const BY_HAND: &[Case] = &[Case {
    name: "by hand: reports of every device of the laboratory",
    set: &ALL,
    seconds: 3000,
    run: told_of_all,
}];

/// Every kind of device that the laboratory has.
static ALL: Set = Set {
    name: "five kinds of adapters, edu, nvme and a network",
    devices: |files| {
        Ok(vec![
            Device::new("VGA"),
            Device::new("cirrus-vga"),
            Device::new("ati-vga,model=rv100"),
            Device::new("virtio-vga,iommu_platform=on"),
            Device::new("bochs-display"),
            Device::new("edu"),
            peers::nvme(&devices::disk(files)?),
            peers::network(),
        ])
    },
};

/// What Linux is to do with each device of [`ALL`], and by which driver. Its `radeon` hangs on QEMU's model, without
/// trapline too. Of edu no system knows anything: it has a program of its own.
const USES: [Option<(Step, &str)>; 8] = [
    Some((Step::Drivers, "bochs")),
    Some((Step::Drivers, "cirrus")),
    Some((Step::Ports, inner::UIO)),
    Some((Step::Drivers, "virtio_gpu")),
    Some((Step::Drivers, "bochs")),
    None,
    Some((Step::Nvme, "nvme")),
    Some((Step::Net, "e1000e")),
];

const REPORT: &str = "report.json";

fn told(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(VIRTIO)?.function;
    adapters::virtio(stage, &["--report", REPORT]).context("the first start")?;
    with_a_reset(stage, &adapter).context("the second start")?;
    let text = stage.text(REPORT);
    let report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
    let runs = report["runs"].as_array().context("there are no runs")?;
    ensure!(runs.len() == 2, "{} runs are in it, not two: {text}", runs.len());
    for (number, run) in (1..).zip(runs) {
        let function = &run["functions"][0];
        ensure!(function["ids"] == "1af4:1050", "run {number} is of another: {function}");
        let lives = if number == 1 { vec!["first"] } else { vec!["first", "later"] };
        for life in lives {
            worked(&function[life]).with_context(|| format!("run {number}, {life}: {function}"))?;
        }
        let came = function["interrupts"]["msix"].as_u64().unwrap_or(0);
        ensure!(came > 0 && function["interrupts"]["trouble"].is_null(), "run {number}: {function}");
        ensure!(run["clean"] == true && run["host"]["kernel"].is_string(), "run {number}: {run}");
    }
    ensure!(runs[1]["functions"][0]["resets"].as_u64() >= Some(1), "no reset is told of: {text}");
    let page = stage.text("report.md");
    let printed = stage.output(&stage.command(&["report", REPORT]))?;
    ensure!(page == printed, "the page is not what trapline report prints:\n{page}\nand\n{printed}");
    let line = page
        .lines()
        .find(|line| line.contains("(1af4:1050, class 030000) |"))
        .context("no line tells of it")?;
    let worked = "| enabled MSI-X | MSI-X | yes | 2, seen in all |";
    ensure!(
        line.contains("(1af4:1050, class 030000) | yes | yes | ") && line.ends_with(worked),
        "it is: {line}"
    );
    // Paths of files are those of a user.
    for secret in [&*stage.file("").to_string_lossy(), "lab=console"] {
        ensure!(!text.contains(secret) && !page.contains(secret), "\"{secret}\" is told of: {text}");
    }
    Ok(())
}

/// An error unless this life has seen all that the adapter can.
fn worked(life: &Value) -> Result<()> {
    for what in ["rom", "text", "bus_master", "msix"] {
        ensure!(life[what] == true, "\"{what}\" was not seen");
    }
    Ok(())
}

/// Has the driver of Linux use the adapter, before a reset and after it.
fn with_a_reset(stage: &Stage<'_>, adapter: &str) -> Result<()> {
    let (steps, serial) = ([Step::Console, Step::Gpu, Step::Reset], "serial-2");
    let rest = ["--device", adapter, "--report", REPORT];
    let mut guest = stage.linux(&rest, &[inner::VIRTIO_GPU], &steps, serial)?;
    let done = || stage.text(serial).matches("lab: gpu vectors ").count() >= 2;
    guest.until("driver of the adapter", stage.deadline, done)?;
    stage.terminate(guest)?;
    Ok(())
}

/// Two starts of each device, in the first of which the guest resets itself; prints the table of all reports, and
/// leaves them in the folder `reports` of the laboratory.
fn told_of_all(stage: &Stage<'_>) -> Result<()> {
    let folder = stage.workspace().lab()?.join("reports");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    stage.output(&peers::peer_up(stage.tree)?)?;
    let mut pings = stage.start(&format!("while :; do {}; done", peers::ping_guest(stage.tree, 3000)?))?;
    let mut reports = Vec::new();
    for (number, usage) in USES.into_iter().enumerate() {
        let device = stage.place(number)?.function;
        let report = format!("{number}.json");
        for start in 1..=2 {
            match usage {
                Some((step, driver)) => linux(stage, &device, (step, driver), start, &report),
                None => program(stage, &device, start, &report),
            }
            .with_context(|| format!("device {number}, start {start}"))?;
        }
        for name in [&report, &format!("{number}.md")] {
            std::fs::copy(stage.file(name), folder.join(name)).with_context(|| format!("no {name}"))?;
        }
        reports.push(report);
    }
    pings.kill()?;
    let files: Vec<&str> = reports.iter().map(String::as_str).collect();
    let page = stage.output(&stage.command(&[&["report"], files.as_slice()].concat()))?;
    std::fs::write(folder.join("all.md"), &page).context("no page of them all")?;
    page.lines()
        .filter(|line| line.starts_with('|'))
        .take(USES.len() + 2)
        .for_each(|line| println!("{line}"));
    println!("{}", folder.display());
    Ok(())
}

/// Linux has its driver use the device; in the first start it then resets the machine and does it again.
fn linux(
    stage: &Stage<'_>,
    device: &str,
    (step, driver): (Step, &str),
    start: usize,
    report: &str,
) -> Result<()> {
    let serial = format!("{report}-{start}");
    let first = [Step::Console, step, Step::Reset];
    let steps = if start == 1 { &first[..] } else { &first[..2] };
    let mut guest = stage.linux(&["--device", device, "--report", report], &[driver], steps, &serial)?;
    // Either is said whatever came of the step.
    let (last, times) = if start == 1 { ("lab: reset", 2) } else { (DONE, 1) };
    let done = || stage.text(&serial).matches(last).count() >= times;
    guest.until("end of the steps", stage.deadline, done)?;
    for line in stage.text(&serial).lines().filter(|line| line.starts_with(SAYS)) {
        eprintln!("  {driver}, start {start}: {}", line.trim());
    }
    stage.terminate(guest)?;
    Ok(())
}

/// The program that drives edu, twice in the first start.
fn program(stage: &Stage<'_>, device: &str, start: usize, report: &str) -> Result<()> {
    let disk = if start == 1 { edu::endless_disk() } else { edu::disk() };
    let disk = format!("{},readonly", stage.write("edu.disk", &disk)?.display());
    let said = format!("{report}-{start}");
    let rest = ["--device", device, "--report", report, "--disk", &disk, "--debugcon", &said];
    let mut guest = stage.machine(&rest)?;
    let verdicts = || stage.text(&said).matches(&bare::pass(edu::NAME)).count();
    if start == 1 {
        guest.until("second verdict", stage.deadline, || verdicts() >= 2)?;
        stage.terminate(guest)?;
    } else {
        let ended = guest.wait(stage.deadline)?;
        ensure!(ended.status == 0 && verdicts() == 1, "it ends with {}: {}", ended.status, ended.output);
    }
    Ok(())
}
