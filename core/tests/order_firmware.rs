//! A real firmware's doings with the software adapter, traced while it runs strictly, and played again in
//! every way in which the legacy window can be carried out: all end alike. Needs /dev/kvm and SeaBIOS.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[path = "../../devices/tests/window/card.rs"]
mod card;
#[path = "../../devices/tests/window/machine.rs"]
mod machine;
#[path = "../../devices/tests/window/mmiotrace.rs"]
mod mmiotrace;
#[path = "../../devices/tests/window/play.rs"]
mod play;
#[path = "../../devices/tests/window/record.rs"]
mod record;
#[path = "../../devices/tests/window/ring.rs"]
mod ring;

/// How long the firmware may take: it is a matter of a second where nothing else runs.
const BOOT: Duration = Duration::from_secs(120);
/// The last words of a firmware that found nothing to boot.
const END: &str = "No bootable device";

/// What has to be there, or why there is nothing to be done.
fn missing() -> Option<&'static str> {
    const IMAGES: [&str; 2] = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Some("/dev/kvm cannot be opened");
    }
    let none = !IMAGES.iter().any(|image| Path::new(image).exists());
    (none || trapline_devices::vga::find_rom().is_err()).then_some("the package seabios is not installed")
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trapline"))
        .args(["run", "--memory", "64M", "--screen", "none", "--serial", "none", "--window", "strict"])
        .args(["--timeout", "180", "--trace"])
        .arg(folder.join("trace"))
        .arg("--debugcon")
        .arg(folder.join("log"))
        .stdin(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Lets the firmware come to its end, or to the end of the time that it has.
fn boot(folder: &Path) -> String {
    let mut child = start(folder);
    let log = || std::fs::read(folder.join("log")).unwrap_or_default();
    let deadline = Instant::now() + BOOT;
    while Instant::now() < deadline && !String::from_utf8_lossy(&log()).contains(END) {
        assert!(child.try_wait().unwrap().is_none(), "the machine ended by itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
    std::fs::read_to_string(folder.join("trace")).unwrap()
}

#[test]
fn a_firmwares_doings_end_alike_in_every_way() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let events = mmiotrace::read(&boot(folder.path()))
        .unwrap_or_else(|error| panic!("line {} of the trace is none", error.0));
    // A mode set alone writes 16,384 cells.
    assert!(events.len() > 16_000, "{} accesses to the adapter", events.len());
    let found = play::differences(&events, false, 0x5eed);
    assert!(found.is_empty(), "{found:#?}");
    let (_, [slot, collected, _], _) =
        play::play(&events, false, play::Manner::shadowed(play::Clock::AtTraps));
    assert!(slot > 8_000 && collected > 500, "{slot} in the shadow, {collected} collected");
}
