//! The ways of carrying out the legacy window: whichever it is, the same stands on the screen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::adapters::{ADAPTERS, CIRRUS, FIRMWARE, STDVGA};
use super::life::greets;
use super::{Case, Stage};
use crate::grub::redraw;
use crate::inner::{self, DONE, Step};
use crate::outer::{Job, Place};
use crate::payload::burst::{self, Pace};
use crate::payload::modes;
use crate::screen::Picture;

/// All of them; the first is what the others are held against.
const WAYS: [&str; 3] = [STRICT, "coalesced", "auto"];
/// The one that leaves nothing out of a trace.
const STRICT: &str = "strict";
/// How long it may take until the screen shows what the guest has written.
const SETTLING: Duration = Duration::from_secs(6);
/// The time between two looks at a screen.
const LOOK: Duration = Duration::from_millis(700);
/// Where the accesses of a guest are written down.
const TRACE: &str = "trace";
/// How often a guest is reset.
const RESETS: usize = 10;

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: fonts, pages, modes and banks look the same in every way of the window",
        set: &ADAPTERS,
        // Its guest is the one that is lost most often, and each loss is waited for as long.
        seconds: 180,
        run: pictures,
    },
    Case {
        name: "vfio: the last of Linux's 500 lines stand on the screen in every way of the window",
        set: &ADAPTERS,
        seconds: 400,
        run: lines,
    },
    Case {
        name: "vfio: without a VGA BIOS Linux scrolls by copying, and its text is right",
        set: &ADAPTERS,
        seconds: 240,
        run: dead,
    },
    Case {
        name: "vfio: GRUB's menu is right after it was drawn many times",
        set: &ADAPTERS,
        seconds: 300,
        run: menu,
    },
    Case {
        name: "vfio: resets and a kill -9 in the middle of bursts of text, and the next guest shows",
        set: &ADAPTERS,
        seconds: 240,
        run: bursts,
    },
    Case {
        name: "vfio: two guests with an adapter each write at the same time, each on its own",
        set: &ADAPTERS,
        seconds: 240,
        run: two,
    },
];

fn pictures(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let mut wanted = Vec::new();
    for way in WAYS {
        let found = pictures_in(stage, &adapter, way, &wanted).with_context(|| format!("--window {way}"))?;
        if wanted.is_empty() {
            wanted = found;
        }
    }
    Ok(())
}

/// The pictures of every step, which must come to be the wanted ones, if there are any.
fn pictures_in(stage: &Stage<'_>, adapter: &Place, way: &str, wanted: &[Picture]) -> Result<Vec<Picture>> {
    let disk = format!("{},readonly", stage.write("modes.disk", &modes::disk())?.display());
    let debug = format!("debug-{way}");
    let devices = ["--device", &adapter.function, "--disk", &disk, "--debugcon", &debug, "--window", way];
    let report = format!("{way}.json");
    let mut guest = stage.answered_machine(&[&devices[..], &["--report", &report]].concat())?;
    let mut pictures = Vec::new();
    for (number, step) in modes::STEPS.iter().enumerate() {
        stage.until_said(&mut guest, &debug, modes::said(step).trim())?;
        let picture =
            settled(stage, &adapter.id, wanted.get(number)).with_context(|| format!("step {step}"))?;
        ensure!(pictures.last() != Some(&picture), "step {step} changes nothing on the screen");
        pictures.push(picture);
        stage.answer(b'.')?;
    }
    let ended = guest.wait(stage.deadline)?;
    ensure!(ended.status == 0, "trapline ended with status {}: {}", ended.status, ended.output.trim());
    let told: serde_json::Value =
        serde_json::from_str(&stage.text(&report)).context("the report is no JSON")?;
    let life = &told["runs"][0]["functions"][0]["first"];
    // Where every access goes straight to the card, nobody looks at what it means.
    let seen = life["text"] == true && life["graphics"] == true;
    ensure!(seen || way == STRICT, "the report tells of no modes: {told}");
    Ok(pictures)
}

/// What a screen shows that is painted no more: the wanted picture, or else the same at two looks.
pub fn settled(stage: &Stage<'_>, id: &str, wanted: Option<&Picture>) -> Result<Picture> {
    let patience = stage.deadline.min(Instant::now() + SETTLING);
    let mut before = stage.outer.screen(id)?.picture;
    loop {
        if wanted == Some(&before) {
            return Ok(before);
        }
        std::thread::sleep(if wanted.is_some() { LOOK / 4 } else { LOOK });
        let now = stage.outer.screen(id)?.picture;
        match wanted {
            None if now == before => return Ok(now),
            Some(wanted) if now != *wanted => {
                ensure!(Instant::now() < patience, "the picture differs: {}", difference(&now, wanted));
            }
            _ => {}
        }
        before = now;
    }
}

/// How two pictures differ, for a person.
fn difference(found: &Picture, wanted: &Picture) -> String {
    let size = |picture: &Picture| (picture.width, picture.height);
    if size(found) != size(wanted) {
        return format!("{:?} dots, and {:?} are wanted", size(found), size(wanted));
    }
    let all = (0..wanted.height).flat_map(|y| (0..wanted.width).map(move |x| (x, y)));
    let wrong: Vec<_> = all.filter(|(x, y)| found.dot(*x, *y) != wanted.dot(*x, *y)).collect();
    format!("{} dots, the first at {:?}", wrong.len(), wrong.first())
}

fn lines(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    for way in WAYS {
        let words = ["--device", &adapter.function, "--window", way, "--trace", TRACE];
        let traced = way == STRICT;
        let mut guest = scrolling(stage, if traced { &words } else { &words[..4] })?;
        shows_last_lines(stage, &mut guest, &adapter.id).with_context(|| format!("--window {way}"))?;
        stage.terminate(guest)?;
        if traced {
            ends_alike(stage)?;
        }
    }
    Ok(())
}

/// What is said where the trace's thread stood still for so long that the trace has gaps: another try may have none.
pub const TRACE_LOST: &str = "the trace has lost accesses";

/// Plays the guest's accesses again, in every way, on the software adapter: what it holds at the end is the same.
fn ends_alike(stage: &Stage<'_>) -> Result<()> {
    // Of the whole workspace, see [`crate::workspace::Workspace::programs`].
    ensure!(!stage.text(TRACE).contains(" Lost "), "{TRACE_LOST}");
    let mut cargo = stage.workspace().cargo(&["test", "--workspace"]);
    cargo.args(["--test", "window_replay", "in_the_lab", "--", "--nocapture"]);
    let played = cargo.env("TRAPLINE_TRACE", stage.file(TRACE)).output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&played.stdout) + String::from_utf8_lossy(&played.stderr);
    ensure!(played.status.success(), "played again, the guest's accesses end differently: {said}");
    ensure!(said.contains("1 passed") && !said.contains("skipped: "), "nothing was played: {said}");
    Ok(())
}

fn dead(stage: &Stage<'_>) -> Result<()> {
    let address = stage.boot_adapter()?;
    let before = stage.outer.screen("boot")?;
    ensure!(before.picture.width == 720, "the outer machine's own adapter is in no text mode");
    ensure!(!before.shows(DONE), "what is waited for stands there already:\n{}", before.text);
    let mut guest = scrolling(stage, &["--device", &format!("{address},rom=off")])?;
    shows_last_lines(stage, &mut guest, "boot")?;
    let said = stage.text("serial");
    ensure!(said.contains("colour *CGA 80x25"), "the guest's kernel found a VGA BIOS");
    stage.terminate(guest)?;
    Ok(())
}

/// Starts Linux, which writes many lines to its screen.
fn scrolling<'a>(stage: &Stage<'a>, devices: &[&str]) -> Result<Job<'a>> {
    stage.linux(devices, &[], &[Step::Console, Step::Scroll], "serial")
}

/// Waits until Linux has written its lines, and compares the whole screen.
fn shows_last_lines(stage: &Stage<'_>, guest: &mut Job<'_>, id: &str) -> Result<()> {
    let mut screen = stage.until_text(guest, id, DONE)?;
    // The last line may be there before it has moved up.
    let patience = Instant::now() + SETTLING;
    // In the line below there is the cursor, which is no character.
    while screen.text.trim_end_matches(['\n', '·']) != inner::last_lines() {
        ensure!(Instant::now() < patience, "these are not the last lines:\n{}", screen.text);
        std::thread::sleep(LOOK / 4);
        screen = stage.outer.screen(id)?;
    }
    Ok(())
}

fn menu(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let mut wanted = None;
    for (way, times) in [(STRICT, 1), ("auto", 4)] {
        let disk = stage.file(&format!("grub-{way}.disk"));
        redraw::make(&disk, times)?;
        let disk = format!("{},readonly", disk.display());
        let serial = format!("serial-{way}");
        let words = ["--device", &adapter.function, "--disk", &disk, "--serial", &serial, "--window", way];
        let traced = way == STRICT;
        let trace: &[&str] = if traced { &["--trace", TRACE] } else { &[] };
        let mut guest = stage.machine(&[&words, trace].concat())?;
        let left = || stage.text(&serial).matches(char::from(redraw::MARK)).count();
        guest.until("last menu", stage.deadline, || left() == times)?;
        stage.until_text(&mut guest, &adapter.id, redraw::FIRST)?;
        let picture =
            settled(stage, &adapter.id, wanted.as_ref()).with_context(|| format!("--window {way}"))?;
        wanted = Some(picture);
        stage.terminate(guest)?;
        if traced {
            ends_alike(stage)?;
        }
    }
    Ok(())
}

fn bursts(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let disk = stage.write("burst.disk", &burst::disk("In bursts.", b'a', Pace::Endless))?;
    let disk = format!("{},readonly", disk.display());
    let words = ["--device", &adapter.function, "--disk", &disk, "--debugcon", "debug"];
    let mut guest = stage.answered_machine(&words)?;
    for boot in 1..=RESETS + 1 {
        let boots = || stage.text("debug").matches("Booting from 0000:7c00").count() == boot;
        guest.until("boot", stage.deadline, boots).with_context(|| format!("boot {boot}"))?;
        bursting(stage, &mut guest, &adapter, b'a').with_context(|| format!("boot {boot}"))?;
        if boot <= RESETS {
            stage.answer(burst::RESET)?;
        }
    }
    // It writes on, and is killed there.
    guest.kill()?;
    let guest = greets(stage, std::slice::from_ref(&adapter.function), &adapter, "After the bursts.")?;
    stage.terminate(guest)?;
    Ok(())
}

fn two(stage: &Stage<'_>) -> Result<()> {
    let mut guests = Vec::new();
    for (number, letter) in [(STDVGA, b'0'), (CIRRUS, b'a')] {
        let adapter = stage.place(number)?;
        let disk =
            stage.write(&format!("burst-{number}.disk"), &burst::disk("In bursts.", letter, Pace::Ticks))?;
        let disk = format!("{},readonly", disk.display());
        let mut guest = stage.machine(&["--device", &adapter.function, "--disk", &disk])?;
        bursting(stage, &mut guest, &adapter, letter)?;
        guests.push((guest, adapter, letter));
    }
    for look in 1..=5 {
        for (guest, adapter, letter) in &mut guests {
            bursting(stage, guest, adapter, *letter)
                .with_context(|| format!("look {look} at {}", adapter.id))?;
        }
    }
    for (mut guest, ..) in guests {
        guest.kill()?;
    }
    Ok(())
}

/// Waits until the screen has the firmware's text, and below it letters from `first` on that change.
pub fn bursting(stage: &Stage<'_>, guest: &mut Job<'_>, adapter: &Place, first: u8) -> Result<()> {
    let mut before = None;
    loop {
        let screen = stage.until_text(guest, &adapter.id, FIRMWARE)?;
        let letters = burst::letters(&screen.text, first);
        if letters.is_some() && before.is_some() && letters != before {
            return Ok(());
        }
        before = letters.or(before);
        ensure!(Instant::now() < stage.deadline, "no letters that change, but:\n{}", screen.text);
        std::thread::sleep(LOOK / 4);
    }
}
