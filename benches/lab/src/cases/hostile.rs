//! Guests that want the monitor to fall over, and what is around it should it do so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::life::{GUEST_MEMORY, children};
use super::{Bench, Case};
use crate::machine::{Machine, text};
use crate::payload::hostile::{self, BEAT, Spared};
use crate::speed::usage::Memory;

pub const CASES: &[Case] = &[
    Case { name: "hostile: every thread is confined", seconds: 60, kvm: true, run: confined },
    Case {
        name: "hostile: four processors do anything at random",
        seconds: 120,
        kvm: true,
        run: |bench| attack(bench, Spared::Resets),
    },
    Case {
        name: "hostile: the same, resets and power-off too",
        seconds: 120,
        kvm: true,
        run: |bench| attack(bench, Spared::Nothing),
    },
];

/// How often the monitor is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the debug console may go without a word, besides the time of some boots: the guest may well reset the
/// machine.
const SILENCE: Duration = Duration::from_secs(10);
const BOOTS: u32 = 4;
/// How much memory of its own, in KiB, a process may gain once it is warm: the adapter's memory is touched page by
/// page, and is 16 MiB.
const GAIN: u64 = 24 << 10;
/// How many descriptors it may gain: a function's vectors come and go with its guest's driver.
const MORE_FILES: usize = 32;
/// The most that it may say, in bytes.
const LOG: usize = 64 << 10;

fn confined(bench: &Bench) -> Result<()> {
    let log = bench.file("debug.log");
    bench.write("disk.img", &[0; 512])?;
    let arguments = ["--debugcon", "debug.log", "--disk", "disk.img", "--trace", "t.json", "--cpus", "2"];
    let mut machine = bench.unseen(&arguments)?;
    machine.until("boot attempt", || text(&log).contains("No bootable device"))?;
    let pids = [vec![machine.pid()], children(machine.pid())].concat();
    ensure!(pids.len() == 2, "it has {} processes, and two are wanted", pids.len());
    for pid in pids {
        for (name, state) in threads(pid) {
            ensure!(state == "2", "the thread {name:?} is not confined (Seccomp: {state})");
        }
    }
    let names: Vec<String> = threads(machine.pid()).into_iter().map(|(name, _)| name).collect();
    for wanted in ["vcpu0", "vcpu1", "worker", "adapter0", "vga", "trace", "machine", "signals"] {
        ensure!(names.iter().any(|name| name == wanted), "there is no thread {wanted} among {names:?}");
    }
    machine.terminate()?;
    machine.wait()?.expect(128 + 15)
}

/// Name and state of confinement of each thread; the kernel's own for io_uring are none of ours.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = tasks.map(|task| text(&task.path().join("status")));
    let field = |status: &str, name: &str| -> Option<String> {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let thread = |status: String| Some((field(&status, "Name:")?, field(&status, "Seccomp:")?));
    status.filter_map(thread).filter(|(name, _)| !name.starts_with("iou-")).collect()
}

/// What is measured of a process that must not grow.
#[derive(Clone, Copy, Debug)]
struct Size {
    memory: u64,
    files: usize,
}

impl Size {
    fn of(pid: u32) -> Option<Size> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let memory = Memory::of_one(pid, GUEST_MEMORY).ok()?.resident;
        let files = std::fs::read_dir(process.join("fd")).ok()?.count();
        Some(Size { memory, files }).filter(|size| size.memory > 0)
    }

    fn check(self, first: Size) -> Result<()> {
        let gain = self.memory.saturating_sub(first.memory);
        ensure!(gain <= GAIN, "it has gained {gain} KiB: {first:?}, then {self:?}");
        let more = self.files.saturating_sub(first.files);
        ensure!(more <= MORE_FILES, "it has {more} descriptors more: {first:?}, then {self:?}");
        Ok(())
    }
}

/// Runs machines with a hostile guest until its time is over. A guest may switch itself off, or lose its own code and
/// say so; then there is another, of another seed.
fn attack(bench: &Bench, spared: Spared) -> Result<()> {
    let over = Instant::now() + bench.hostile();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let mut seed = now.subsec_nanos();
    let (mut lives, mut begun, mut signs) = (0, 0, 0);
    while let Some(left) = over.checked_duration_since(Instant::now()).filter(|left| left.as_secs() >= 1) {
        seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(1);
        lives += 1;
        eprintln!("  guest {lives}: seed {seed:#x}");
        let said =
            live(bench, seed, spared, left).with_context(|| format!("seed {seed:#x}, guest {lives}"))?;
        begun += said.matches(hostile::BEGUN).count();
        signs += beats(&said);
    }
    eprintln!("  begun {begun} times, {signs} signs of life");
    ensure!(begun > 0, "no guest has begun");
    // One that resets the machine may do so before the first, again and again: it is the same each time.
    ensure!(signs > 0 || spared == Spared::Nothing, "no guest gave a sign of life");
    Ok(())
}

/// The life of one guest, and what came from its debug console.
fn live(bench: &Bench, seed: u32, spared: Spared, left: Duration) -> Result<String> {
    bench.write("hostile.img", &hostile::disk(seed, spared))?;
    // The console is emptied when it is opened.
    let (log, timeout) = (bench.file("debug.log"), left.as_secs_f64().to_string());
    let (kept, serial) = (["--debugcon", "debug.log"], ["--serial", "serial.log"]);
    let machine = ["--disk", "hostile.img", "--cpus", "4", "--timeout", &timeout];
    let mut machine = bench.unseen(&[&kept[..], &serial, &machine].concat())?;
    let watched = watch(&mut machine, &log, left);
    let ended = machine.wait()?;
    watched?;
    if ![0, 124].contains(&ended.code()) {
        bail!("it ended with status {}; it said: {}", ended.code(), ended.errors.trim());
    }
    ensure!(ended.errors.len() <= LOG, "it said {} bytes", ended.errors.len());
    Ok(text(&log))
}

/// Looks after the machine until it ends.
fn watch(machine: &mut Machine, log: &Path, left: Duration) -> Result<()> {
    let warm = Instant::now() + left / 3;
    let start = Instant::now();
    let (mut first, mut heard, mut written) = (Vec::new(), Instant::now(), 0);
    // How long the first boot took, on a host that may have much else to do.
    let mut boot = None;
    while !machine.has_ended()? {
        std::thread::sleep(LOOK);
        let now = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
        if now != written {
            (written, heard) = (now, Instant::now());
        }
        if boot.is_none() && text(log).contains(hostile::BEGUN) {
            boot = Some(start.elapsed());
        }
        let silence = boot.is_some_and(|boot| heard.elapsed() > SILENCE + boot * BOOTS);
        ensure!(!silence, "nothing comes from the debug console any more");
        let pids = [vec![machine.pid()], children(machine.pid())].concat();
        let sizes: Vec<Size> = pids.into_iter().filter_map(Size::of).collect();
        if Instant::now() < warm || first.len() != sizes.len() {
            first = sizes;
            continue;
        }
        sizes.iter().zip(&first).try_for_each(|(now, first)| now.check(*first))?;
    }
    Ok(())
}

/// How often the guest has said that it lives.
fn beats(said: &str) -> usize {
    said.matches(char::from(BEAT)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_an_error() {
        let first = Size { memory: 1000, files: 20 };
        assert!(Size { memory: 1000 + GAIN, files: 20 + MORE_FILES }.check(first).is_ok());
        assert!(Size { memory: 1001 + GAIN, files: 20 }.check(first).is_err());
        assert!(Size { memory: 1000, files: 21 + MORE_FILES }.check(first).is_err());
        assert!(Size { memory: 10, files: 1 }.check(first).is_ok());
    }

    #[test]
    fn threads_are_read_from_the_process() {
        let found = threads(std::process::id());
        assert!(
            !found.is_empty() && found.iter().all(|(_, state)| ["0", "1", "2"].contains(&state.as_str()))
        );
    }
}
