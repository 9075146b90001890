//! Writes to sysfs by children of the program: what they do, and what becomes of one that hangs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, mknodat};
use rustix::process::{Pid, WaitOptions, waitpid};
use trapline::host::Tree;
use trapline::host::binding::{Children, Kernel, WriteError};

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn children(root: &Path, deadline: Duration) -> Children {
    Children::of(Tree::at(root), PathBuf::from(env!("CARGO_BIN_EXE_trapline")), deadline)
}

#[test]
fn a_child_writes_to_a_file_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut kernel = children(folder.path(), Duration::from_secs(10));
    std::fs::write(folder.path().join("driver_override"), "(null)").unwrap();
    kernel.write("driver_override", "vfio-pci").unwrap();
    // Over what was there, as sysfs takes it: nothing is cut off, nothing created.
    assert_eq!(std::fs::read_to_string(folder.path().join("driver_override")).unwrap(), "vfio-pci");
    let error = kernel.write("missing", "x").unwrap_err();
    assert!(matches!(error, WriteError::Refused(_)), "{error}");
    assert_eq!(error.to_string(), "there is no such file");
    assert!(!folder.path().join("missing").exists());
    kernel.write("driver_override", "-").unwrap();
    kernel.write("driver_override", "\n").unwrap();
}

#[test]
fn a_child_that_hangs_is_left_behind_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    // A pipe that nobody reads: to open it for writing waits without end.
    let pipe = folder.path().join("unbind");
    mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let started = Instant::now();
    let error =
        children(folder.path(), Duration::from_millis(300)).write("unbind", "0000:01:00.0").unwrap_err();
    let WriteError::Hung { pid, .. } = error else { panic!("{error}") };
    assert!((Duration::from_millis(300)..PATIENCE).contains(&started.elapsed()));
    // This one can be killed, and was; where that took longer than it is waited for, it is ours to bury.
    let child = Pid::from_raw(pid.cast_signed()).unwrap();
    while let Ok(None) = waitpid(Some(child), WaitOptions::NOHANG) {
        assert!(started.elapsed() < PATIENCE, "it lives");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_commands_refuse_what_is_not_there_in_one_line() {
    for (arguments, status, words) in [
        (&["bind", "ffff:ff:1f.7"][..], 1, "ffff:ff:1f.7: there is no such PCI function"),
        (&["unbind", "ffff:ff:1f.7"], 1, "ffff:ff:1f.7: there is no such PCI function"),
        (&["devices", "ffff:ff:1f.7"], 1, "ffff:ff:1f.7: there is no such PCI function"),
        (&["bind"], 2, "BDF"),
        (&["bind", "01:00"], 2, "is no PCI address: there is no function behind a dot"),
        (&["devices", "--all", "01:00.0"], 2, "--all"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        let root = rustix::process::geteuid().is_root();
        let words = if status == 1 && !root && arguments[0] != "devices" { "only root" } else { words };
        assert!(text.contains(words) && text.lines().count() == 1, "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn this_hosts_functions_are_told_to_people_and_programs() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&["devices", "--all"]);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let document: serde_json::Value = serde_json::from_str(&run(&["devices", "--all", "--json"])).unwrap();
    for device in document["devices"].as_array().unwrap() {
        assert!(table.contains(device["address"].as_str().unwrap()), "{device}");
    }
    run(&["devices"]);
}
