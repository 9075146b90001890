//! Firmware and a boot loader on an assigned adapter.

use anyhow::{Result, ensure};

use super::{Case, Stage, VGA};

pub const CASES: &[Case] = &[Case {
    name: "vfio: SeaBIOS and GRUB show on the assigned adapter, and again after a kill",
    set: &VGA,
    seconds: 120,
    run: grub,
}];

fn grub(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(0)?;
    let disk = format!("{},readonly", stage.grub().display());
    for _ in 0..2 {
        let mut guest = stage.machine(&["--device", &adapter.function, "--disk", &disk])?;
        // The menu of the round before stands there until the new guest's firmware sets a mode.
        stage.until_text(&mut guest, &adapter.id, "SeaBIOS (version")?;
        stage.until_text(&mut guest, &adapter.id, "GNU GRUB")?;
        ensure!(
            !stage.outer.screen("boot")?.shows("GNU GRUB"),
            "the outer machine's own adapter shows it too"
        );
        guest.kill()?;
    }
    Ok(())
}
