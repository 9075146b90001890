//! Legacy VGA: what hides it from a guest, two adapters in one guest, and one that somebody has left in another state.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::adapters::{ADAPTERS, CIRRUS, FIRMWARE, STDVGA, WITH_COMPANION, shows_nothing_yet};
use super::devices::carry_out;
use super::{Case, Stage};
use crate::outer::Place;
use crate::payload::{handover, pam, stranger};

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: PAM and SMRAM in every state, and the window is the assigned adapter's",
        set: &ADAPTERS,
        seconds: 240,
        run: states,
    },
    Case {
        name: "vfio: a guest hands legacy VGA over between two adapters behind root ports",
        set: &ADAPTERS,
        seconds: 240,
        run: hands_over,
    },
    Case {
        name: "vfio: an adapter that was left in another state, and cannot be reset, shows its BIOS's text",
        set: &ADAPTERS,
        seconds: 240,
        run: left_strange,
    },
];

/// How long it may take until the screens show what the guest has written.
const SETTLING: Duration = Duration::from_secs(30);
/// Between two looks at one.
const LOOK: Duration = Duration::from_millis(200);
/// Dots of a screen in text mode.
const TEXT: (usize, usize) = (720, 400);
/// The grey of text, and its background.
const GREY: [u8; 3] = [0xa8; 3];
const BLACK: [u8; 3] = [0; 3];

fn states(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let said = carry_out(stage, pam::NAME, &pam::disk(), &["--device", &adapter.function])?;
    let line = format!("{}: ok", pam::WINDOW);
    ensure!(said.contains(&line), "the program does not say \"{line}\"");
    Ok(())
}

/// Waits until the screen is right: what was collected last is brought out within a beat.
fn shown(stage: &Stage<'_>, place: &Place, number: usize) -> Result<()> {
    let patience = Instant::now() + SETTLING;
    loop {
        let screen = stage.outer.screen(&place.id)?;
        match handover::shows(&screen.text, number) {
            Ok(()) => return Ok(()),
            Err(wrong) => {
                ensure!(Instant::now() < patience, "{}: {wrong}:\n{}", place.id, screen.text);
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn hands_over(stage: &Stage<'_>) -> Result<()> {
    let both = [stage.place(STDVGA)?, stage.place(CIRRUS)?];
    let disk = format!("{},readonly", stage.write("handover.disk", &handover::disk())?.display());
    let [first, second] = both.each_ref().map(|place| format!("{},vga=on,root-port=on", place.function));
    for way in ["strict", "auto"] {
        let debug = format!("debug-{way}");
        let words = ["--device", &first, "--device", &second, "--disk", &disk, "--debugcon", &debug];
        let mut guest = stage.machine(&[&words[..], &["--window", way]].concat())?;
        stage.until_said(&mut guest, &debug, handover::DONE)?;
        for (number, place) in both.iter().enumerate() {
            shown(stage, place, number).with_context(|| format!("--window {way}"))?;
        }
        let said = stage.terminate(guest)?;
        ensure!(said.matches("has legacy VGA as others do").count() == 2, "it says of them: {said}");
        ensure!(said.matches("decode legacy VGA at once").count() == 1, "it does not warn once: {said}");
    }
    Ok(())
}

fn left_strange(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(WITH_COMPANION)?;
    let beside = adapter.companion.clone().context("it has no companion")?;
    // The host keeps the other function, so that nobody can reset their bus.
    stage.output(&format!("echo {beside} > /sys/bus/pci/drivers/vfio-pci/unbind"))?;
    let done = shows_text_all_the_same(stage, &adapter);
    stage.output(&format!("echo {beside} > /sys/bus/pci/drivers/vfio-pci/bind"))?;
    done
}

fn shows_text_all_the_same(stage: &Stage<'_>, adapter: &Place) -> Result<()> {
    let disk = format!("{},readonly", stage.write("stranger.disk", &stranger::disk())?.display());
    let mut guest =
        stage.machine(&["--device", &adapter.function, "--disk", &disk, "--debugcon", "debug"])?;
    stage.until_said(&mut guest, "debug", stranger::DONE)?;
    guest.kill()?;
    let left = stage.outer.screen(&adapter.id)?.picture;
    ensure!(left.width != TEXT.0, "it was left with {} dots in a row", left.width);
    shows_nothing_yet(stage, adapter)?;
    let disk = format!("{},readonly", stage.grub().display());
    let mut guest = stage.machine(&["--device", &adapter.function, "--disk", &disk])?;
    let screen = stage.until_text(&mut guest, &adapter.id, FIRMWARE)?;
    let picture = &screen.picture;
    ensure!((picture.width, picture.height) == TEXT, "{}x{} dots", picture.width, picture.height);
    let dots = (0..picture.height).flat_map(|y| (0..picture.width).map(move |x| (x, y)));
    let odd = dots.map(|(x, y)| picture.dot(x, y)).find(|dot| *dot != GREY && *dot != BLACK);
    ensure!(odd.is_none(), "its palette is not that of text: {odd:?}");
    let boot = stage.outer.screen("boot")?;
    ensure!(!boot.shows("Booting from Hard Disk"), "the outer machine's own adapter shows it as well");
    let said = stage.terminate(guest)?;
    ensure!(said.contains("its reset: none"), "it could be reset: {said}");
    Ok(())
}
