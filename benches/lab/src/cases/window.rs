//! The ways of carrying out the legacy window, on the software adapter.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Bench, Case, grub, life};
use crate::machine::text;
use crate::payload::mark;

pub const CASES: &[Case] = &[
    Case {
        name: "window: GRUB's menu is whole, and the same strict and auto",
        seconds: 600,
        kvm: true,
        run: menu,
    },
    Case { name: "window: SeaBIOS's text is the same strict and auto", seconds: 90, kvm: true, run: banner },
    Case { name: "window: while the guest is halted nobody wakes up", seconds: 90, kvm: true, run: idle },
];

/// The first is what the second is held against.
const WAYS: [&str; 2] = ["strict", "auto"];
/// After this a window that nobody uses is at rest.
const SETTLING: Duration = Duration::from_secs(2);
/// For how long wake-ups are counted.
const COUNTED: Duration = Duration::from_secs(3);

fn menu(bench: &Bench) -> Result<()> {
    let [strict, auto] = WAYS.map(|way| grub::look(bench, &["--window", way]));
    same(&strict?, &auto?, "GNU GRUB")
}

fn banner(bench: &Bench) -> Result<()> {
    let shown = |way: &str| -> Result<String> {
        let name = format!("debug-{way}.log");
        let mut machine = bench.machine(&["--debugcon", &name, "--window", way])?;
        machine.until("boot attempt", || text(&bench.file(&name)).contains("No bootable device"))?;
        // What stands in the text that is still to be written is told on the debug port first.
        std::thread::sleep(SETTLING);
        machine.terminate()?;
        machine.wait()?;
        Ok(bench.screen())
    };
    let [strict, auto] = WAYS.map(shown);
    same(&strict?, &auto?, "SeaBIOS (version ")
}

fn same(strict: &str, auto: &str, wanted: &str) -> Result<()> {
    ensure!(strict.contains(wanted), "no \"{wanted}\" on the screen");
    ensure!(strict == auto, "strict the screen shows:\n{strict}\nand auto:\n{auto}");
    Ok(())
}

fn idle(bench: &Bench) -> Result<()> {
    // It halts with interrupts off: a guest's own timers are not the monitor's.
    let disk = bench.write("mark.img", &mark::disk(mark::Then::Halt))?;
    let disk = disk.to_string_lossy();
    let mut machine = bench.machine(&["--disk", &disk, "--serial", "serial.log"])?;
    machine.until("boot sector", || text(&bench.file("serial.log")).as_bytes().contains(&mark::MARK))?;
    std::thread::sleep(SETTLING);
    let before = wake_ups(machine.pid())?;
    std::thread::sleep(COUNTED);
    let after = wake_ups(machine.pid())?;
    machine.terminate()?;
    machine.wait()?;
    let woken: Vec<String> = after
        .iter()
        .filter_map(|(thread, count)| {
            let times = count - before.get(thread).copied().unwrap_or(0).min(*count);
            (times > 0).then(|| format!("{} {times} times", thread.1))
        })
        .collect();
    ensure!(woken.is_empty(), "in {COUNTED:?} woke: {}", woken.join(", "));
    Ok(())
}

/// How often each thread of a process, and of those below it, has gone to sleep so far.
fn wake_ups(pid: u32) -> Result<BTreeMap<(String, String), u64>> {
    let mut found = BTreeMap::new();
    for process in life::children(pid).into_iter().chain([pid]) {
        let folder = format!("/proc/{process}/task");
        for task in std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?.flatten() {
            let status = text(&task.path().join("status"));
            let name = text(&task.path().join("comm")).trim().to_owned();
            let count = switches(&status).with_context(|| format!("no count for {name}"))?;
            found.insert((file_name(&task.path()), name), count);
        }
    }
    ensure!(found.len() > 2, "it has only {} threads", found.len());
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn switches(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_voluntary_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t41\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(switches(status), Some(41));
        assert_eq!(switches("nonvoluntary_ctxt_switches:\t7\n"), None);
    }
}
