//! A whole Linux in trapline.

use anyhow::{Result, ensure};

use super::{Case, Stage, VGA};

pub const CASES: &[Case] = &[Case {
    name: "vfio: Linux boots without an adapter and switches the machine off",
    set: &VGA,
    seconds: 120,
    run: serial,
}];

fn serial(stage: &Stage<'_>) -> Result<()> {
    let kernel = stage.tree.kernel()?;
    let initramfs = stage.initramfs("echo lab: $(uname -s) > /dev/ttyS0\npoweroff -f")?;
    let words = "console=ttyS0 panic=-1";
    let mut job = stage.machine(&[
        "--device",
        "none",
        "--kernel",
        &kernel.to_string_lossy(),
        "--initrd",
        &initramfs.to_string_lossy(),
        "--append",
        words,
        "--serial",
        "serial",
    ])?;
    stage.until_said(&mut job, "serial", "Run /init as init process")?;
    let ended = job.wait(stage.deadline)?;
    ensure!(ended.status == 0, "trapline ended with status {}: {}", ended.status, ended.output.trim());
    ensure!(stage.text("serial").contains("lab: Linux"), "the first process did not come to its end");
    Ok(())
}
