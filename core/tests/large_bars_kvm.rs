//! The program and a device with a BAR of 256 GiB behind a socket: it is placed where the program said, or
//! refused with the sum. Needs /dev/kvm and SeaBIOS.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_devices::vfio_user::server::{Description, IrqType, RegionDescription, Server};
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

const SIZE: u64 = 256 << 30;

struct Large(ConfigSpace);

impl Large {
    fn new() -> Large {
        let id = Identity {
            vendor: 0x1b36,
            device: 0x00fe,
            revision: 0,
            class: 0x12_0000,
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory64 { prefetchable: true }, size: SIZE });
        Large(config)
    }

    fn description() -> Description {
        let mut regions = vec![RegionDescription::default(); 9];
        regions[0] = RegionDescription::registers(SIZE);
        regions[7] = RegionDescription::registers(4096);
        Description { regions, irqs: vec![IrqType::default(); 5], resettable: true }
    }
}

impl Device for Large {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.0.read_region(offset, width) } else { Ok(0) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::CONFIG { self.0.write_region(offset, width, value).map(drop) } else { Ok(()) }
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// What the firmware says right after it has placed everything.
const DONE: &str = "cpu(s) max supported";

/// Runs the program with the device until it ends by itself, or its firmware has placed everything.
fn run(folder: &Path, socket: &Path, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trapline"))
        .args([
            "run",
            "--memory",
            "64M",
            "--screen",
            "none",
            "--debugcon",
            "log",
            "--timeout",
            "120",
            "--device",
        ])
        .arg(format!("vfio-user:{}", socket.display()))
        .args(arguments)
        .current_dir(folder)
        .env("TRAPLINE_LOG", "trapline::launch=debug")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    while child.try_wait().unwrap().is_none() {
        if log(folder).contains(DONE) {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn log(folder: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join("log")).unwrap_or_default()).into_owned()
}

#[test]
fn a_large_bar_is_placed_as_it_was_told_or_refused() {
    let there = |path: &str| std::fs::File::options().read(true).write(true).open(path).is_ok();
    if !there("/dev/kvm") || !Path::new("/usr/share/seabios/bios-256k.bin").exists() {
        println!("skipped: /dev/kvm cannot be opened, or the package seabios is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let server = Server::bind(&socket, Large::description()).unwrap();
    let stop = server.stop_handle();
    std::thread::scope(|scope| {
        scope.spawn(|| server.run(&mut Large::new()).unwrap());
        let refused = run(folder.path(), &socket, &["--phys-bits", "38"]);
        let placed = run(folder.path(), &socket, &[]);
        stop.stop();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        for words in ["above 4 GiB does not fit", "with 38 bits", "0x4000000000", "adapter0 BAR 0 256 GiB"] {
            assert!(said.contains(words), "{said}");
        }
        let said = String::from_utf8(placed.stderr).unwrap();
        let told = said.lines().find(|line| line.contains("bar=0 at=Memory(")).expect(&said);
        let (_, place) = told.split_once("at=Memory(0x").unwrap();
        let (first, _) = place.split_once('-').unwrap();
        let log = log(folder.path());
        let wanted = format!("bar 0, addr {first}, size 4000000000");
        assert!(log.contains(&wanted), "no \"{wanted}\" in\n{log}");
    });
}
