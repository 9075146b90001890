//! The outer machine itself: what the other cases rely on.

use anyhow::{Context, Result, ensure};

use super::{Case, Stage, VGA};
use crate::outer::Job;

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: the outer machine has KVM, an IOMMU and adapters to give away",
        set: &VGA,
        seconds: 60,
        run: outer,
    },
    Case {
        name: "vfio: commands that start while others end are not lost",
        set: &VGA,
        seconds: 90,
        run: commands,
    },
];

fn outer(stage: &Stage<'_>) -> Result<()> {
    stage.output("exec 3<> /dev/kvm 4<> /dev/vfio/vfio")?;
    let interrupted = stage.start("kill -INT $$; echo survived")?.wait(stage.deadline)?;
    ensure!(interrupted.status == 130, "a command that is interrupted ends with {}", interrupted.status);
    let said = stage.output("dmesg")?;
    for line in
        ["DMAR: Intel(R) Virtualization Technology for Directed I/O", "DMAR-IR: Enabled IRQ remapping"]
    {
        ensure!(said.contains(line), "its kernel does not say \"{line}\"");
    }
    for (number, wanted) in ["vfio-pci", "vfio-pci", "e1000e"].into_iter().enumerate() {
        let function = stage.place(number)?.function;
        let device = format!("/sys/bus/pci/devices/{function}");
        let driver = stage.output(&format!("basename $(readlink {device}/driver)"))?;
        ensure!(driver.trim() == wanted, "{function} has the driver {}, not {wanted}", driver.trim());
        let group = stage.output(&format!("ls {device}/iommu_group/devices"))?;
        ensure!(group.trim() == function, "{function} shares its group: {group}");
        if wanted == "vfio-pci" {
            stage.output(&format!("exec 3<> /dev/vfio/$(basename $(readlink {device}/iommu_group))"))?;
        }
    }
    Ok(())
}

fn commands(stage: &Stage<'_>) -> Result<()> {
    // Two that run side by side: each that ends does so while another is being started.
    let mut before = None;
    for number in 0..50 {
        let job = stage.start(&format!("echo {number}; exit {number}"))?;
        if let Some((wanted, job)) = before.replace((number, job)) {
            ended_with(stage, wanted, job)?;
        }
    }
    if let Some((wanted, job)) = before {
        ended_with(stage, wanted, job)?;
    }
    let mut long = stage.start("sleep 1000")?;
    long.kill()?;
    ensure!(long.status() == Some(137), "a killed command ended with status {:?}", long.status());
    Ok(())
}

fn ended_with(stage: &Stage<'_>, wanted: i32, job: Job<'_>) -> Result<()> {
    let ended = job.wait(stage.deadline).with_context(|| format!("command {wanted}"))?;
    ensure!(ended.status == wanted, "command {wanted} ended with status {}", ended.status);
    ensure!(ended.output.trim() == wanted.to_string(), "command {wanted} said {}", ended.output.trim());
    Ok(())
}
