//! The same with QEMU in trapline's place: what fails here is not trapline's.

use anyhow::{Result, ensure};

use super::{Case, Stage, VGA};

pub const CASES: &[Case] = &[Case {
    name: "vfio: QEMU's guest shows on its adapter, is killed, and shows again",
    set: &VGA,
    seconds: 120,
    run: shows,
}];

fn shows(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(0)?;
    let device = format!("vfio-pci,host={},x-vga=on", adapter.function);
    let disk = format!("if=virtio,format=raw,readonly=on,file={}", stage.grub().display());
    for _ in 0..2 {
        let mut guest = stage.qemu(&["-device", &device, "-drive", &disk])?;
        // The menu of the round before stands there until the new guest's firmware sets a mode.
        stage.until_text(&mut guest, &adapter.id, "SeaBIOS (version")?;
        let screen = stage.until_text(&mut guest, &adapter.id, "GNU GRUB")?;
        ensure!(!screen.shows("SeaBIOS"), "the menu stands below the firmware's text");
        let boot = stage.outer.screen("boot")?;
        ensure!(!boot.shows("GNU GRUB"), "the outer machine's own adapter shows it as well");
        guest.kill()?;
    }
    Ok(())
}
