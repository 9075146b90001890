//! Devices that are no adapters: a disk, a network card, and one that no operating system knows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Case, Set, Stage};
use crate::inner::{self, DONE, RUN_INIT, SAYS, Step, peers};
use crate::outer::Device;
use crate::payload::{bare::passed, edu};

/// Where the devices of [`DEVICES`] are.
pub const ADAPTER: usize = 0;
pub const EDU: usize = 1;
pub const DISK: usize = 2;
pub const NETWORK: usize = 3;
/// More of [`EDU`], for guests that run at the same time.
pub const MORE: [usize; 2] = [4, 5];

/// An adapter, devices with registers and DMA, a disk, and a network with a peer.
pub static DEVICES: Set = Set { name: "VGA, three edu, nvme and a network", devices };

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: edu interrupts by MSI and INTx and moves memory",
        set: &DEVICES,
        seconds: 240,
        run: edu,
    },
    Case {
        name: "vfio: Linux in huge pages, above 4 GiB too, reads an NVMe disk and exchanges packets",
        set: &DEVICES,
        seconds: 240,
        run: linux,
    },
];

/// Memory of the Linux guest: 256 MiB of it are above 4 GiB, where Linux puts what it reads.
const MEMORY: &str = "3G";
/// The same in pages of 2 MiB.
const PAGES: u32 = 3 << 9;
/// What the disk holds, in pages of 4 KiB.
const CONTENTS: u64 = 4 << 8;

fn devices(files: &Path) -> Result<Vec<Device>> {
    let edu = || Device::new("edu");
    Ok(vec![Device::new("VGA"), edu(), peers::nvme(&disk(files)?), peers::network(), edu(), edu()])
}

/// The file that an NVMe disk has.
pub fn disk(files: &Path) -> Result<PathBuf> {
    let disk = files.join("nvme.img");
    std::fs::write(&disk, contents()).with_context(|| format!("cannot write {}", disk.display()))?;
    Ok(disk)
}

/// What is on the disk: 4 MiB in which every word of 32 bits is another.
fn contents() -> Vec<u8> {
    (0..1_u32 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn edu(stage: &Stage<'_>) -> Result<()> {
    let device = format!("{},msi=guest", stage.place(EDU)?.function);
    let said = carry_out(stage, edu::NAME, &edu::disk(), &["--device", &device])?;
    for line in ["; MSI: ok", "; INTx: ok", "; DMA round trip: ok"] {
        ensure!(said.contains(line), "the program does not say \"{line}\"");
    }
    Ok(())
}

/// Runs a program of the bare machine to its end, at which it must have passed; gives back what it said.
pub fn carry_out(stage: &Stage<'_>, name: &str, disk: &[u8], arguments: &[&str]) -> Result<String> {
    let disk = format!("{},readonly", stage.write("bare.img", disk)?.display());
    let job = stage.machine(&[&["--disk", &disk, "--debugcon", "debug"], arguments].concat())?;
    let ended = job.wait(stage.deadline)?;
    ensure!(ended.status == 0, "trapline ended with status {}: {}", ended.status, ended.output.trim());
    let said = stage.text("debug");
    passed(&said, name)?;
    Ok(said)
}

fn linux(stage: &Stage<'_>) -> Result<()> {
    stage.output(&peers::peer_up(stage.tree)?)?;
    let free = |wanted: u32| {
        let found = stage.output("awk '/^HugePages_Free/ { print $2 }' /proc/meminfo")?;
        ensure!(found.trim() == wanted.to_string(), "{} huge pages are free, not {wanted}", found.trim());
        Ok(())
    };
    let set_aside = "echo 1 > /proc/sys/vm/compact_memory; cd /proc/sys/vm; echo";
    stage.output(&format!(
        "for time in $(seq 20); do echo 3 > /proc/sys/vm/drop_caches; ({set_aside} {PAGES} > nr_hugepages)\n\
         grep -q '^HugePages_Free: *{PAGES}$' /proc/meminfo && break; sleep 1; done"
    ))?;
    free(PAGES).context("the outer machine sets none aside")?;
    let ping = stage.start(&peers::ping_guest(stage.tree, 300)?)?;
    let steps = [Step::Functions, Step::Nvme, Step::Net];
    let linux = stage.linux_arguments(&inner::MODULES, &steps, "serial")?;
    let network = format!("{},msi=guest", stage.place(NETWORK)?.function);
    let memory = ["run", "--screen", "none", "--memory", MEMORY, "--hugepages"];
    let devices = ["--device", &stage.place(DISK)?.function, "--device", &network];
    let arguments = [&memory[..], &devices, &linux.each_ref().map(String::as_str)].concat();
    let mut guest = stage.trapline(&arguments)?;
    stage.until_said(&mut guest, "serial", RUN_INIT)?;
    stage.until_said(&mut guest, "serial", DONE)?;
    let pinged = ping.wait(stage.deadline)?;
    ensure!(pinged.status == 0, "the guest answers nothing: {}", pinged.output.trim());
    free(0).context("while the guest runs")?;
    let told = stage.terminate(guest)?;
    ensure!(!told.contains("as msi="), "it says that interrupts of the guest's are hidden: {told}");
    free(PAGES).context("after its end")?;
    stage.output(&format!("{set_aside} 0 > nr_hugepages"))?;
    let said = stage.text("serial");
    disk_was_read(stage, &said)?;
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "packets of the guest are lost");
    interrupts_came(&said, "net", "PCI-MSIX")
}

/// Compares what the guest found on the disk with the file, and looks at where it put that.
fn disk_was_read(stage: &Stage<'_>, said: &str) -> Result<()> {
    stage.write("contents", &contents())?;
    let sum = stage.output("sha256sum < contents")?;
    let sum = sum.split_whitespace().next().context("no sum")?;
    ensure!(said.contains(&format!("{SAYS}nvme sha256 {sum}")), "the disk's sum is not {sum}");
    let high = value(said, "nvme pages above 4 GiB ")?;
    ensure!(high.parse::<u64>()? >= CONTENTS / 2, "only {high} pages of {CONTENTS} were read to high memory");
    interrupts_came(said, "nvme", "PCI-MSIX")
}

/// An error unless interrupts came between the two counts of a step, all of them of a kind: `PCI-MSIX`, `PCI-MSI-` or
/// `IO-APIC`.
pub fn interrupts_came(said: &str, step: &str, kind: &str) -> Result<()> {
    let counts = value(said, &format!("{step} interrupts before "))?;
    let (before, after) = counts.split_once(" after ").context("no two counts")?;
    let (before, after): (u64, u64) = (before.parse()?, after.trim().parse()?);
    ensure!(after > before, "no interrupt of {step} came: {counts}");
    let vectors = value(said, &format!("{step} vectors "))?;
    let only = vectors.split_whitespace().step_by(2).all(|vector| vector.starts_with(kind));
    ensure!(only && !vectors.is_empty(), "the vectors of {step} are \"{vectors}\"");
    Ok(())
}

/// What stands behind these words in the guest's report.
fn value<'a>(said: &'a str, words: &str) -> Result<&'a str> {
    let start = format!("{SAYS}{words}");
    let line = said.lines().find_map(|line| line.trim().strip_prefix(&start));
    line.with_context(|| format!("the guest does not say \"{words}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_counted_and_of_one_kind() {
        let said = |counts: &str, kind: &str| {
            format!("lab: nvme interrupts before {counts}\r\nlab: nvme vectors {kind}\n")
        };
        let msix = "PCI-MSIX-0000:01:00.0 x2 ";
        assert!(interrupts_came(&said("13 after 138", msix), "nvme", "PCI-MSIX").is_ok());
        assert!(interrupts_came(&said("5 after 5", msix), "nvme", "PCI-MSIX").is_err());
        assert!(
            interrupts_came(&said("5 after 6", &format!("{msix}IO-APIC x1")), "nvme", "PCI-MSIX").is_err()
        );
        assert!(interrupts_came(&said("5 after 6", ""), "nvme", "PCI-MSIX").is_err());
        assert!(interrupts_came(&said("5 after 6", msix), "net", "PCI-MSIX").is_err());
    }

    #[test]
    fn no_two_words_of_the_disk_are_alike() {
        let contents = contents();
        assert_eq!(contents.len() as u64, CONTENTS << 12);
        let words: std::collections::BTreeSet<&[u8]> = contents.chunks_exact(4).collect();
        assert_eq!(words.len(), 1 << 20);
    }
}
