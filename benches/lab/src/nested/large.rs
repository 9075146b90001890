//! A function with BARs that are larger than the outer machine, given to a guest.

use anyhow::{Result, ensure};

use super::{Case, Stage, VGA};
use crate::inner::{DONE, SAYS, Step};

pub const CASES: &[Case] = &[Case {
    name: "vfio: Linux uses BARs of 128 and 188 GiB where SeaBIOS has put them, for which an IOMMU is too narrow",
    set: &VGA,
    seconds: 240,
    run: large,
}];

/// The server of the function, an example of the devices.
const SERVER: &str = "large_bars";
/// Its socket: the shared folder has none.
const SOCKET: &str = "/tmp/large.sock";
/// What Linux says where a BAR lies outside of the windows of its bridge, or where something else lies.
pub const MISFITS: [&str; 3] = ["can't claim BAR", "no compatible bridge window", "address conflict"];
/// What the guest finds: the sizes of the registers, and a dword at an offset before and after a write.
const FOUND: [&str; 7] = [
    "ends 0 size 0x2000000000 above 4 GiB 1",
    // The marks of the server's memory, which is the guest's then.
    "ends 0 at 0x0 before 0x6C696E65 after 0x12345678",
    "ends 0 at 0x1ffffffff8 before 0x776F7264 after 0x12345678",
    "ends 2 size 0x4000000000 above 4 GiB 1",
    // The server gives back inverted what it was given.
    "ends 2 at 0x0 before 0xFFFFFFFF after 0xEDCBA987",
    "ends 2 at 0x2f00effff8 before 0xFFFFFFFF after 0xEDCBA987",
    // Behind the end of the region there is nothing.
    "ends 2 at 0x3ffffffff8 before 0xFFFFFFFF after 0xFFFFFFFF",
];

fn large(stage: &Stage<'_>) -> Result<()> {
    let servers = stage.workspace().programs(&["build", "--workspace", "--example", SERVER], &[SERVER])?;
    let mut server = stage.start(&format!("exec {} {SOCKET}", servers[0].display()))?;
    stage.output(&format!("while [ ! -S {SOCKET} ]; do sleep 1; done"))?;
    let device = format!("vfio-user:{SOCKET},root-port=on");
    let rest = ["--device", &device, "--debugcon", "debug"];
    beside_one_of_the_host(stage, &rest)?;
    let mut guest = stage.linux(&rest, &[], &[Step::Functions, Step::Ends], "serial")?;
    stage.until_said(&mut guest, "serial", DONE)?;
    stage.terminate(guest)?;
    server.kill()?;
    let said = stage.text("serial");
    ensure!(
        said.contains("processor 40 bits physical"),
        "the guest has not as many addresses as the processor"
    );
    for found in FOUND {
        ensure!(said.contains(&format!("{SAYS}{found}")), "the guest does not say \"{found}\"");
    }
    // Linux was content with what firmware and tables say.
    for word in MISFITS {
        ensure!(!said.contains(word), "the guest's kernel says \"{word}\"");
    }
    ensure!(stage.text("debug").contains("PCI: map device"), "the firmware says nothing of what it did");
    Ok(())
}

/// With a function of the host beside it the guest has the IOMMU's 39 bits, not the processor's 40, and that is told
/// at the start.
fn beside_one_of_the_host(stage: &Stage<'_>, arguments: &[&str]) -> Result<()> {
    let adapter = format!("{},rom=off", stage.place(0)?.function);
    let refused = stage.machine(&[arguments, &["--device", &adapter]].concat())?.wait(stage.deadline)?;
    let said = refused.output.trim();
    ensure!(refused.status == 1, "it ends with status {}: {said}", refused.status);
    for words in [
        "does not fit: ",
        "with 39 bits guest physical addresses end at 0x8000000000",
        "the processor has 40 bits and the IOMMU 39: --phys-bits 40",
    ] {
        ensure!(said.contains(words), "it does not say \"{words}\": {said}");
    }
    Ok(())
}
