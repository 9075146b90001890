//! An idle guest costs nothing: no thread of the program, nor of its adapter's process, wakes. Needs /dev/kvm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long nothing may wake, of how long it may take until nothing does.
const QUIET: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Firmware that has the adapter decode, writes some screens of text and halts for ever.
fn firmware(folder: &Path) -> PathBuf {
    let mut image = vec![0_u8; 0x1_0000];
    let code = [
        0x66, 0xb8, 0x04, 0x08, 0x00, 0x80, // mov eax, 0x80000804: COMMAND of 00:01.0
        0xba, 0xf8, 0x0c, 0x66, 0xef, // mov dx, 0xcf8; out dx, eax
        0x66, 0xb8, 0x03, 0, 0, 0, // mov eax, 3
        0xba, 0xfc, 0x0c, 0x66, 0xef, // mov dx, 0xcfc; out dx, eax
        0xb8, 0x00, 0xb8, 0x8e, 0xc0, // mov ax, 0xb800; mov es, ax
        0xbd, 0x14, 0x00, // mov bp, 20
        0x31, 0xff, 0xb8, 0x41, 0x07, // again: xor di, di; mov ax, 0x741
        0xb9, 0xd0, 0x07, 0xfc, 0xf3, 0xab, // mov cx, 2000; cld; rep stosw
        0x4d, 0x75, 0xf2, // dec bp; jnz again
        0xfa, 0xf4, 0xeb, 0xfc, // cli; back: hlt; jmp back
    ];
    image[..code.len()].copy_from_slice(&code);
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    let path = folder.join("firmware");
    std::fs::write(&path, image).unwrap();
    path
}

/// How often each thread of these processes gave up its processor, by its name.
fn switches(processes: &[u32]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for process in processes {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for task in tasks.flatten().map(|task| task.path()) {
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let count = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
            found.insert(format!("{} of {}", name.trim(), task.display()), count);
        }
    }
    found
}

fn children(process: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    list.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[test]
fn no_thread_wakes_for_a_guest_that_is_halted() {
    let folder = tempfile::tempdir().unwrap();
    for window in ["strict", "coalesced", "shadowed"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_trapline"));
        program.args(["run", "--screen", "none", "--window", window, "--memory", "16M", "--firmware"]);
        program.arg(firmware(folder.path())).stdin(Stdio::null());
        let running = Running(program.spawn().unwrap());
        let since = Instant::now();
        let mut before = BTreeMap::new();
        loop {
            std::thread::sleep(QUIET);
            let mut processes = children(running.0.id());
            processes.push(running.0.id());
            let now = switches(&processes);
            // The adapter's process and the machine's threads are there.
            if now.len() > 6 && now == before {
                break;
            }
            let awake: Vec<_> = now.iter().filter(|(name, count)| before.get(*name) != Some(count)).collect();
            assert!(since.elapsed() < PATIENCE, "{window}: never quiet, last {awake:?}");
            before = now;
        }
    }
}
