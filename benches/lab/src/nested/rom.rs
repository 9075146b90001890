//! ROMs as cards give them: the own one of an adapter behind a port, and what the boot adapter's firmware
//! left of its.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::adapters::{ADAPTERS, NETWORK, STDVGA};
use super::{Case, Stage};

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: rom dump gives a card's own ROM, by VFIO and by sysfs",
        set: &ADAPTERS,
        seconds: 120,
        run: dumps,
    },
    Case {
        name: "vfio: rom dump and check know the boot adapter's ROM for the copy that was run",
        set: &ADAPTERS,
        seconds: 120,
        run: shadow,
    },
];

fn dumps(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?.function;
    let pristine = stage.tree.rom("vgabios-stdvga.bin")?;
    let wanted = std::fs::read(&pristine).context("the distribution's ROM")?;
    let before = state(stage, &adapter)?;
    for by in ["vfio", "sysfs"] {
        let file = format!("{by}.rom");
        let said = rom(stage, &["dump", &adapter, &file, "--by", by], 0)?;
        ensure!(said.contains("BIOS        runs the image at 0x0"), "of what {by} gives it says:\n{said}");
        let dumped = std::fs::read(stage.file(&file)).with_context(|| file.clone())?;
        ensure!(dumped == wanted, "{by} gives {} bytes that are not the ROM's", dumped.len());
        ensure!(state(stage, &adapter)? == before, "the function is not as it was before {by}");
    }
    let pristine = pristine.to_string_lossy();
    let said = rom(stage, &["check", "vfio.rom", "--device", &adapter, "--against", &pristine], 0)?;
    ensure!(said.contains("it is the untouched image, byte for byte"), "rom check says:\n{said}");
    // One for a network card is none for this adapter, by its ids.
    let network = stage.place(NETWORK)?.function;
    rom(stage, &["dump", &network, "network.rom"], 0)?;
    let said = rom(stage, &["check", "network.rom", "--device", &adapter], 1)?;
    ensure!(said.contains("a card of another vendor than 1234:1111"), "rom check says:\n{said}");
    let said = rom(stage, &["dump", &adapter, "vfio.rom"], 1)?;
    ensure!(said.contains("--force overwrites"), "over a file that is there it says:\n{said}");
    // A run says the same of the ROM that the guest sees.
    let guest = stage.machine(&["--device", &adapter, "--timeout", "1"])?.wait(stage.deadline)?;
    let wanted =
        format!("{adapter}: its ROM: BIOS image of 39 KiB for 1234:1111; a BIOS runs the image at 0x0");
    ensure!(guest.output.contains(&wanted), "a run does not say \"{wanted}\": {}", guest.output);
    Ok(())
}

fn shadow(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.boot_adapter()?;
    let pristine = stage.tree.rom("vgabios-stdvga.bin")?;
    let pristine = pristine.to_string_lossy();
    for by in ["vfio", "sysfs"] {
        let file = format!("{by}.rom");
        let said = rom(stage, &["dump", adapter, &file, "--by", by], 1)?;
        ensure!(said.contains("! stops     it is the copy that the host's firmware"), "{by} says:\n{said}");
        ensure!(stage.file(&file).is_file(), "it was not written all the same");
        // Nothing in it tells where it was read, but an untouched one beside it does.
        rom(stage, &["check", &file], 0)?;
        copy(stage, &file, &pristine)?;
        // No repair makes an untouched one of it.
        let fixed = format!("{by}-fixed.rom");
        rom(stage, &["fix", &file, &fixed], 0)?;
        copy(stage, &fixed, &pristine)?;
    }
    let guest = stage.machine(&["--device", adapter, "--timeout", "1"])?.wait(stage.deadline)?;
    ensure!(guest.output.contains("its ROM is the copy"), "a run does not tell: {}", guest.output);
    ensure!(!guest.output.contains("a BIOS runs"), "a run says that it boots: {}", guest.output);
    Ok(())
}

/// Looks that a ROM is known for a copy that was run, beside the untouched one.
fn copy(stage: &Stage<'_>, file: &str, pristine: &str) -> Result<()> {
    let said = rom(stage, &["check", file, "--against", pristine], 1)?;
    // Lines are broken where they are too long.
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(words.contains("as a copy does that a firmware has run"), "of {file} it says:\n{said}");
    ensure!(said.contains("code and variables of the BIOS image"), "of {file} it says:\n{said}");
    Ok(())
}

/// What `trapline rom` says, which must end with this status.
fn rom(stage: &Stage<'_>, arguments: &[&str], status: i32) -> Result<String> {
    let command = stage.command(&[&["rom"], arguments].concat());
    let ended = stage.start(&format!("exec {command}"))?.wait(stage.deadline)?;
    ensure!(ended.status == status, "{command} ended with {}: {}", ended.status, ended.output.trim());
    Ok(ended.output)
}

/// Whether a function decodes anything, and how it sleeps.
fn state(stage: &Stage<'_>, function: &str) -> Result<String> {
    let folder = Path::new("/sys/bus/pci/devices").join(function);
    stage.output(&format!("cd {}; hexdump -s 4 -n 2 config; cat power/control", folder.display()))
}
