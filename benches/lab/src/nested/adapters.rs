//! Adapters of the outer machine, given to a guest: what stands on their screens.

use anyhow::{Context, Result, ensure};

use super::{Case, Set, Stage};
use crate::grub::LINUX_ENTRY;
use crate::inner::{self, DONE, RUN_INIT, SAYS, Step};
use crate::outer::{Device, Job, Place};
use crate::screen::Screen;

/// What the firmware shows first.
pub const FIRMWARE: &str = "SeaBIOS (version";

/// What the guest's kernel says of a VGA adapter.
const CONSOLE: &str = "lab: Console: colour VGA+ 80x25";

/// Adapters of four kinds, one that has another function beside it, and a network card.
pub static ADAPTERS: Set = Set {
    name: "four kinds of adapters, one with a companion, and a network card",
    devices: |_| {
        let network = ["-netdev", "hubport,id=network,hubid=0"];
        Ok(vec![
            Device::new("VGA"),
            Device::new("cirrus-vga"),
            Device::new("ati-vga,model=rv100"),
            // Without it the device would pass the IOMMU by.
            Device::new("virtio-vga,iommu_platform=on"),
            Device::new("VGA+edu"),
            Device::new("e1000e,netdev=network").with(&network),
        ])
    },
};

/// Their numbers.
pub const STDVGA: usize = 0;
pub const CIRRUS: usize = 1;
const RADEON: usize = 2;
/// The adapter with the most to tell of.
pub const VIRTIO: usize = 3;
/// See [`STDVGA`].
pub const WITH_COMPANION: usize = 4;
/// The network card.
pub const NETWORK: usize = 5;

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: stdvga shows SeaBIOS, GRUB and Linux from a disk",
        set: &ADAPTERS,
        seconds: 240,
        run: stdvga,
    },
    Case {
        name: "vfio: cirrus shows Linux, with a second adapter beside it",
        set: &ADAPTERS,
        seconds: 240,
        run: cirrus,
    },
    Case {
        name: "vfio: a Radeon shows Linux, its ports and its interrupt line work",
        set: &ADAPTERS,
        seconds: 240,
        run: radeon,
    },
    Case {
        name: "vfio: a Radeon's back doors to configuration space show the guest's",
        set: &ADAPTERS,
        seconds: 240,
        run: back_doors,
    },
    Case {
        name: "vfio: a card of two functions stays one, and shows again after a reset of the guest",
        set: &ADAPTERS,
        seconds: 240,
        run: companion,
    },
];

fn stdvga(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    shows_nothing_yet(stage, &adapter)?;
    let disk = stage.file("linux.disk");
    inner::disk(stage.tree, &[Step::Console, Step::Functions], &disk)?;
    let disk = format!("{},readonly", disk.display());
    let mut guest = stage.machine(&["--device", &adapter.function, "--disk", &disk, "--serial", "serial"])?;
    stage.until_text(&mut guest, &adapter.id, FIRMWARE)?;
    stage.until_text(&mut guest, &adapter.id, "GNU GRUB")?;
    let menu = stage.until_text(&mut guest, &adapter.id, LINUX_ENTRY)?;
    ensure!(menu.shows("GNU GRUB") && !menu.shows(FIRMWARE), "this is no menu:\n{}", menu.text);
    let screen = linux(stage, &mut guest, &adapter)?;
    ensure!(screen.shows("function 0000:00:01.0 1234:1111 030000"), "the guest does not list the adapter");
    let boot = stage.outer.screen("boot")?;
    ensure!(!boot.shows(RUN_INIT), "the outer machine's own adapter shows it as well");
    let said = stage.terminate(guest)?;
    ensure!(said.contains("owns legacy VGA"), "trapline does not say who has legacy VGA: {said}");
    Ok(())
}

fn cirrus(stage: &Stage<'_>) -> Result<()> {
    let (adapter, second) = (stage.place(CIRRUS)?, stage.place(RADEON)?);
    shows_nothing_yet(stage, &adapter)?;
    shows_nothing_yet(stage, &second)?;
    let steps = [Step::Console, Step::Functions];
    let mut guest =
        stage.linux(&["--device", &adapter.function, "--device", &second.function], &[], &steps, "serial")?;
    let screen = linux(stage, &mut guest, &adapter)?;
    // Without legacy VGA an adapter is none to the firmware.
    for function in ["1013:00b8 030000", "1002:5159 038000"] {
        ensure!(screen.shows(function), "the guest does not list {function}");
    }
    shows_nothing_yet(stage, &second)?;
    let said = stage.terminate(guest)?;
    ensure!(said.contains("without legacy VGA, which another device owns"), "of the second it says: {said}");
    Ok(())
}

fn radeon(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(RADEON)?;
    shows_nothing_yet(stage, &adapter)?;
    let steps = [Step::Console, Step::Ports];
    let mut guest = stage.linux(&["--device", &adapter.function], &[inner::UIO], &steps, "serial")?;
    let screen = linux(stage, &mut guest, &adapter)?;
    // The bytes of "trap", the lowest first.
    ensure!(screen.shows("scratch 0x70617274"), "what went to a port is not found in memory");
    ensure!(screen.shows("ports vectors IO-APIC"), "its interrupt has no line");
    let line = line(&screen.text, "ports interrupts before ")?;
    ensure!(counts(line)? == (0, 4), "interrupts by its line: {line}");
    stage.terminate(guest)?;
    Ok(())
}

/// The card itself has the addresses that the outer machine gave it.
fn back_doors(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(RADEON)?;
    let steps = [Step::Console, Step::Quirks];
    let mut guest = stage.linux(&["--device", &adapter.function], &[], &steps, "serial")?;
    // Another guest's text stands on the screen.
    stage.until_said(&mut guest, "serial", DONE)?;
    let said = stage.text("serial");
    let (bar, ports) = {
        let both = line(&said, "quirks bar ")?;
        both.split_once(" ports ").with_context(|| format!("no two addresses: {both}"))?
    };
    let ports = ports.trim();
    ensure!(ports.len() == 4 && line(&said, "quirks port 3c3 ")?.trim() == &ports[..2], "{}", said);
    // A 32-bit memory BAR that is prefetchable.
    let register = format!("{}8", bar.trim().strip_suffix('0').context("an odd place for a BAR")?);
    let seen = |way: &str| Ok::<_, anyhow::Error>(line(&said, way)?.trim().to_lowercase());
    for (way, expected) in [
        ("quirks mirror ", format!("0x{register}")),
        ("quirks window ", register.clone()),
        ("quirks without memory ", "0xffffffff".into()),
        ("quirks with memory ", format!("0x{register}")),
    ] {
        ensure!(seen(way)? == expected, "{way}is not {expected}:\n{}", said);
    }
    stage.terminate(guest)?;
    Ok(())
}

/// Linux shows on virtio-vga, by both ways, in a machine with these further arguments.
pub fn virtio(stage: &Stage<'_>, arguments: &[&str]) -> Result<()> {
    let adapter = stage.place(VIRTIO)?;
    shows_nothing_yet(stage, &adapter)?;
    let arguments = [&["--device", &adapter.function], arguments].concat();
    let steps = [Step::Console, Step::Gpu];
    let mut guest = stage.linux(&arguments, &[inner::VIRTIO_GPU], &steps, "serial")?;
    stage.until_text(&mut guest, &adapter.id, FIRMWARE)?;
    let text = stage.until_text(&mut guest, &adapter.id, CONSOLE)?;
    ensure!(text.shows(RUN_INIT) && text.picture.width == 720, "this is no text mode:\n{}", text.text);
    let screen = stage.until_text(&mut guest, &adapter.id, DONE)?;
    ensure!(screen.picture.width > 720, "the driver has set no mode: {} dots a line", screen.picture.width);
    // The kernel's font is not the ROM's, so that not every letter can be read. The line comes there last.
    stage.until_said(&mut guest, "serial", DONE)?;
    let said = stage.text("serial");
    let counted = line(&said, "gpu interrupts before ")?;
    let (before, after) = counts(counted)?;
    ensure!(after > before, "no interrupt came to its driver: {counted}");
    ensure!(said.contains("gpu vectors PCI-MSIX"), "its driver has no MSI-X");
    stage.terminate(guest)?;
    Ok(())
}

fn companion(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(WITH_COMPANION)?;
    let beside = adapter.companion.clone().context("it has no companion")?;
    shows_nothing_yet(stage, &adapter)?;
    let devices = ["--device", &adapter.function, "--device", &beside];
    let mut guest = stage.linux(&devices, &[], &[Step::Console, Step::Functions, Step::Reset], "serial")?;
    for boot in 1..=2 {
        stage.until_text(&mut guest, &adapter.id, FIRMWARE).with_context(|| format!("boot {boot}"))?;
        // It resets right after its last line: what follows it on the screen is black.
        let screen = stage.until_text(&mut guest, &adapter.id, RUN_INIT)?;
        ensure!(!screen.shows(FIRMWARE), "the firmware's text still stands on the screen");
    }
    let twice = || stage.text("serial").matches(CONSOLE).count() >= 2;
    guest.until("VGA adapter found for a second time", stage.deadline, twice)?;
    stage.terminate(guest)?;
    let said = stage.text("serial");
    let slot = said.lines().find_map(|line| {
        let function = line.trim().strip_prefix("lab: function ")?;
        function.strip_suffix(".0 1234:1111 030000")
    });
    let slot = slot.context("the adapter is not function 0 of a card")?;
    let beside = format!("lab: function {slot}.1 1234:11e8 ");
    ensure!(said.contains(&beside), "there is no \"{beside}\"");
    Ok(())
}

/// Waits until Linux has done its steps on a screen on which the firmware showed before.
fn linux(stage: &Stage<'_>, guest: &mut Job<'_>, adapter: &Place) -> Result<Screen> {
    stage.until_text(guest, &adapter.id, RUN_INIT)?;
    let screen = stage.until_text(guest, &adapter.id, DONE)?;
    ensure!(screen.shows(CONSOLE), "the guest's kernel found no VGA adapter:\n{}", screen.text);
    let lines = screen.text.lines();
    let kernel = lines.take_while(|line| !line.contains(RUN_INIT)).filter(|line| line.starts_with('['));
    ensure!(kernel.count() > 3, "there are no lines of the kernel above the last one:\n{}", screen.text);
    Ok(screen)
}

/// An error if something of a guest stands on the screen.
pub fn shows_nothing_yet(stage: &Stage<'_>, adapter: &Place) -> Result<()> {
    let screen = stage.outer.screen(&adapter.id)?;
    for text in [FIRMWARE, "GNU GRUB", "Linux", RUN_INIT] {
        ensure!(!screen.shows(text), "{} shows before there is a guest:\n{}", adapter.id, screen.text);
    }
    Ok(())
}

/// What follows these words in a line.
fn line<'s>(text: &'s str, words: &str) -> Result<&'s str> {
    let start = format!("{SAYS}{words}");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&start));
    line.with_context(|| format!("there is no line \"{start}\""))
}

/// Two counts with "after" between them.
fn counts(line: &str) -> Result<(u64, u64)> {
    let (before, after) = line.split_once(" after ").context("no two counts")?;
    Ok((before.parse()?, after.trim().parse()?))
}
