//! Interrupts by the kind that `msi=` leaves, and those that are of no use.

use anyhow::{Context, Result, ensure};

use super::devices::{DEVICES, EDU, MORE, NETWORK, carry_out, interrupts_came};
use super::{Case, Stage};
use crate::inner::{self, DONE, Step, peers};
use crate::outer::Job;
use crate::payload::edu;
use crate::payload::edu::lies::{self, Lie};

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: edu and e1000e interrupt by the kind that msi= leaves",
        set: &DEVICES,
        seconds: 400,
        run: kinds,
    },
    Case {
        name: "vfio: interrupts that never come, never end or are never served are named",
        set: &DEVICES,
        seconds: 240,
        run: lying,
    },
];

/// What `msi=` says, and what Linux then has of an e1000e, which has MSI-X, MSI and a pin. With `msi=guest` it and edu
/// have cases of their own, see [`super::devices`].
///
/// Without MSI-X its driver goes to the line, though there be MSI: so it does on the outer machine itself, where it
/// says that its test of MSI failed. edu shows that MSI alone works.
const KINDS: [(&str, &str); 3] = [("no-msi", "PCI-MSIX"), ("no-msix", "IO-APIC"), ("off", "IO-APIC")];

fn kinds(stage: &Stage<'_>) -> Result<()> {
    for (option, shown) in [("no-msix", "; MSI: ok"), ("off", "no MSI capability")] {
        program(stage, option, shown)?;
    }
    stage.output(&peers::peer_up(stage.tree)?)?;
    for (option, kind) in KINDS {
        network(stage, option, kind).with_context(|| format!("with msi={option}"))?;
    }
    Ok(())
}

fn program(stage: &Stage<'_>, option: &str, shown: &str) -> Result<()> {
    let device = format!("{},msi={option}", stage.place(EDU)?.function);
    let said = carry_out(stage, edu::NAME, &edu::disk(), &["--device", &device])?;
    for line in [shown, "; INTx: ok"] {
        ensure!(said.contains(line), "with msi={option} the program does not say \"{line}\"");
    }
    Ok(())
}

/// Linux drives the network card with this option.
fn network(stage: &Stage<'_>, option: &str, kind: &str) -> Result<()> {
    let ping = stage.start(&peers::ping_guest(stage.tree, 200)?)?;
    let device = format!("{},rom=off,msi={option}", stage.place(NETWORK)?.function);
    let mut guest = stage.linux(&["--device", &device], &inner::MODULES, &[Step::Net], option)?;
    stage.until_said(&mut guest, option, DONE)?;
    let pinged = ping.wait(stage.deadline)?;
    let told = stage.terminate(guest)?;
    let said = stage.text(option);
    ensure!(pinged.status == 0, "the guest answers nothing: {}", pinged.output.trim());
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "packets of the guest are lost");
    ensure!(told.contains(&format!("as msi={option} says")), "it says: {told}");
    interrupts_came(&said, "net", kind)
}

/// A device that lies in a way, how it is given, and what is told of it.
struct Liar {
    device: usize,
    lie: Lie,
    option: &'static str,
    told: &'static str,
    advice: &'static str,
}

const LIARS: [Liar; 3] = [
    Liar {
        device: EDU,
        lie: Lie::Silent,
        option: "msi=guest",
        told: "enabled its MSI 31 s ago and none has come",
        advice: "give msi=off",
    },
    Liar {
        device: MORE[0],
        lie: Lie::Unserved,
        option: "msi=guest",
        told: "its INTx line is asserted without end",
        advice: "its driver in the guest",
    },
    Liar {
        device: MORE[1],
        lie: Lie::Storm,
        option: "msi=off",
        told: "its INTx line is asserted without end",
        advice: "give msi=guest",
    },
];

/// Each in a guest of its own, all at the same time: what takes long is that they are looked at for half a minute.
fn lying(stage: &Stage<'_>) -> Result<()> {
    let guests = LIARS.each_ref().map(|liar| liar.start(stage));
    // The storm, which began last and is told of first, takes time from the others.
    for (liar, guest) in LIARS.iter().zip(guests).rev() {
        liar.is_told(stage, guest?).with_context(|| format!("{:?}", liar.lie))?;
    }
    Ok(())
}

impl Liar {
    /// Starts its guest and waits until the device is as it is to be.
    fn start<'a>(&self, stage: &Stage<'a>) -> Result<Job<'a>> {
        let log = format!("{:?}", self.lie);
        let disk = stage.write(&format!("{log}.disk"), &lies::disk(self.lie))?;
        let disk = format!("{},readonly", disk.display());
        let device = format!("{},{}", stage.place(self.device)?.function, self.option);
        let mut guest = stage.machine(&["--disk", &disk, "--device", &device, "--debugcon", &log])?;
        stage.until_said(&mut guest, &log, lies::READY)?;
        Ok(guest)
    }

    /// Waits until the program has said what is wrong, which it must have said once at its end.
    fn is_told(&self, stage: &Stage<'_>, mut guest: Job<'_>) -> Result<()> {
        guest_says(&mut guest, stage, self.told)?;
        let said = stage.terminate(guest)?;
        ensure!(said.contains(self.advice), "it says, without \"{}\": {said}", self.advice);
        ensure!(said.matches("WARN").count() == 1, "it is told of more than once: {said}");
        Ok(())
    }
}

/// Waits until the program itself has said something.
fn guest_says(guest: &mut Job<'_>, stage: &Stage<'_>, what: &str) -> Result<()> {
    while !guest.output().contains(what) {
        ensure!(guest.status().is_none(), "it ended before it said \"{what}\": {}", guest.output());
        ensure!(!stage.left().is_zero(), "it does not say \"{what}\" in time: {}", guest.output());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}
