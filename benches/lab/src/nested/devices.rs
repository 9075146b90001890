//! Devices that are no adapters, driven by QEMU's guest: what fails here is not trapline's.

use anyhow::{Context, Result, ensure};

use super::{Case, Set, Stage};
use crate::inner::{self, DONE, RUN_INIT, SAYS, Step, peers};
use crate::outer::Device;
use crate::payload::{bare::pass, edu};

/// A device with registers and DMA, a disk, and a network with a peer.
const DEVICES: Set = Set {
    name: "edu, nvme and a network",
    devices: |files| {
        let disk = files.join("nvme.img");
        std::fs::write(&disk, contents()).with_context(|| format!("cannot write {}", disk.display()))?;
        Ok(vec![Device::new("edu"), peers::nvme(&disk), peers::network()])
    },
};

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: QEMU's guest drives edu by MSI, INTx and DMA",
        set: &DEVICES,
        seconds: 240,
        run: edu,
    },
    Case {
        name: "vfio: QEMU's guest reads an NVMe disk and exchanges packets",
        set: &DEVICES,
        seconds: 400,
        run: linux,
    },
];

/// What is on the disk: 4 MiB in which every word of 32 bits is another.
fn contents() -> Vec<u8> {
    (0..1_u32 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn edu(stage: &Stage<'_>) -> Result<()> {
    let disk = stage.write("edu.img", &edu::disk())?;
    let device = format!("vfio-pci,host={}", stage.place(0)?.function);
    let disk = format!("if=virtio,format=raw,readonly=on,file={}", disk.display());
    let guest = stage.qemu(&[
        "-device",
        &device,
        "-drive",
        &disk,
        "-debugcon",
        "file:debug",
        "-global",
        "isa-debugcon.iobase=0x402",
    ])?;
    let ended = guest.wait(stage.deadline)?;
    ensure!(ended.status == 0, "QEMU ended with status {}: {}", ended.status, ended.output.trim());
    let said = stage.text("debug");
    for line in ["; MSI: ok", "; INTx: ok", "; DMA round trip: ok", &pass(edu::NAME)] {
        ensure!(said.contains(line), "the program does not say \"{line}\"");
    }
    Ok(())
}

fn linux(stage: &Stage<'_>) -> Result<()> {
    stage.output(&peers::peer_up(stage.tree)?)?;
    let initramfs = stage.write("initramfs", &inner::initramfs(stage.tree)?)?;
    let kernel = stage.tree.kernel()?;
    let disk = format!("vfio-pci,host={}", stage.place(1)?.function);
    let network = format!("vfio-pci,host={}", stage.place(2)?.function);
    let words = inner::command_line(&[Step::Functions, Step::Nvme, Step::Net]);
    let mut guest = stage.qemu(&[
        "-device",
        &disk,
        "-device",
        &network,
        "-kernel",
        &kernel.to_string_lossy(),
        "-initrd",
        &initramfs.to_string_lossy(),
        "-append",
        &words,
        "-serial",
        "file:serial",
    ])?;
    let ping = stage.start(&peers::ping_guest(stage.tree, 300)?)?;
    stage.until_said(&mut guest, "serial", RUN_INIT)?;
    stage.until_said(&mut guest, "serial", DONE)?;
    let pinged = ping.wait(stage.deadline)?;
    ensure!(pinged.status == 0, "the guest answers nothing: {}", pinged.output.trim());
    guest.kill()?;
    let said = stage.text("serial");
    disk_was_read(stage, &said)?;
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "packets of the guest are lost");
    ensure!(interrupts(&said, "net")?, "no interrupt of the network came");
    Ok(())
}

/// Compares what the guest found on the disk with the file.
fn disk_was_read(stage: &Stage<'_>, said: &str) -> Result<()> {
    stage.write("contents", &contents())?;
    let sum = stage.output("sha256sum < contents")?;
    let sum = sum.split_whitespace().next().context("no sum")?;
    ensure!(said.contains(&format!("{SAYS}nvme sha256 {sum}")), "the disk's sum is not {sum}");
    ensure!(interrupts(said, "nvme")?, "no interrupt of the disk came");
    ensure!(said.contains(&format!("{SAYS}nvme vectors PCI-MSIX")), "the disk has no MSI-X");
    Ok(())
}

/// Whether interrupts came between the two counts of a step.
fn interrupts(said: &str, step: &str) -> Result<bool> {
    let start = format!("{SAYS}{step} interrupts before ");
    let line = said.lines().find_map(|line| line.trim().strip_prefix(&start)).context("no count")?;
    let (before, after) = line.split_once(" after ").context("no two counts")?;
    let (before, after): (u64, u64) = (before.parse()?, after.trim().parse()?);
    Ok(after > before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_compared() {
        let said = "lab: nvme interrupts before 13 after 138\r\nlab: net interrupts before 5 after 5\n";
        assert!(interrupts(said, "nvme").unwrap());
        assert!(!interrupts(said, "net").unwrap());
        assert!(interrupts(said, "edu").is_err());
    }

    #[test]
    fn no_two_words_of_the_disk_are_alike() {
        let contents = contents();
        let words: std::collections::BTreeSet<&[u8]> = contents.chunks_exact(4).collect();
        assert_eq!(words.len(), 1 << 20);
    }
}
