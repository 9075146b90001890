//! A small device to be served: a frame buffer, registers, a ROM, legacy VGA and a blob.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use trapline_devices::host::{Event, Events};
use trapline_devices::vfio_user::server::{Description, IrqType, Memory, RegionDescription, Server, Stop};
use trapline_io::device::Claims;
use trapline_io::{Access, Device, Fault, Op, Region, Width};

pub const FRAME_BUFFER: u64 = 64 << 10;
pub const BLOB: u64 = 3001;

/// Registers are what was written last; from 0x800 on there are none, and 8 bytes are too wide.
pub struct Toy {
    pub registers: Vec<u8>,
    pub config: [u8; 256],
    pub vga: Vec<u8>,
    pub seen: Arc<Mutex<Vec<Access>>>,
    pub resets: u32,
}

impl Toy {
    pub fn new() -> Toy {
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0x34, 0x12, 0x11, 0x11]);
        config[0x08..0x0c].copy_from_slice(&[2, 0, 0, 3]);
        config[0x10] = 0x08;
        config[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x00, 0x11]);
        Toy { registers: vec![0; 4096], config, vga: vec![0; 0xc_0000], seen: Arc::default(), resets: 0 }
    }

    fn bytes(&mut self, region: Region) -> &mut [u8] {
        match region.0 {
            2 => &mut self.registers,
            7 => &mut self.config,
            8 => &mut self.vga,
            _ => &mut [],
        }
    }
}

pub fn blob() -> Vec<u8> {
    (0..BLOB).map(|at| (at * 7 % 251) as u8).collect()
}

pub fn rom() -> Vec<u8> {
    let mut rom = vec![0x90; 5000];
    rom[..3].copy_from_slice(&[0x55, 0xaa, 10]);
    rom
}

fn part_of(source: &[u8], offset: u64, width: Width) -> Result<u64, Fault> {
    let at = usize::try_from(offset).unwrap();
    let part = source.get(at..at + width.bytes()).ok_or(Fault::NoRegister)?;
    let mut bytes = [0; 8];
    bytes[..part.len()].copy_from_slice(part);
    Ok(u64::from_le_bytes(bytes))
}

impl Device for Toy {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.seen.lock().unwrap().push(Access::read(region, offset, width));
        match region.0 {
            6 => part_of(&rom(), offset, width),
            9 => part_of(&blob(), offset, width),
            2 if offset >= 0x800 => Err(Fault::NoRegister),
            2 if width == Width::B8 => Err(Fault::BadWidth),
            _ => part_of(self.bytes(region), offset, width),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.seen.lock().unwrap().push(Access::write(region, offset, width, value));
        if region.0 == 2 && offset >= 0x800 {
            return Err(Fault::NoRegister);
        }
        let at = usize::try_from(offset).unwrap();
        let part = self.bytes(region).get_mut(at..at + width.bytes()).ok_or(Fault::NoRegister)?;
        part.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }

    fn reset(&mut self) {
        self.registers.fill(0);
        self.resets += 1;
    }

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

pub fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("toy", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, len).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

pub fn description(frame_buffer: Memory) -> Description {
    let none = RegionDescription::default;
    Description {
        regions: vec![
            RegionDescription::memory(FRAME_BUFFER, frame_buffer),
            none(),
            RegionDescription::registers(4096),
            none(),
            none(),
            none(),
            RegionDescription::read_only(5000),
            RegionDescription::registers(256),
            RegionDescription::registers(0xc_0000),
            RegionDescription::read_only(BLOB),
        ],
        irqs: vec![IrqType::default(), IrqType::default(), IrqType { count: 20, ..IrqType::default() }],
        resettable: true,
    }
}

pub fn sealed() -> Memory {
    Memory { file: Arc::new(memfd(FRAME_BUFFER, SealFlags::SHRINK)), offset: 0, areas: None }
}

/// A toy served on a socket of its own; stopped when dropped.
pub struct Served {
    pub path: PathBuf,
    pub stop: Stop,
    pub seen: Arc<Mutex<Vec<Access>>>,
    pub thread: Option<JoinHandle<Toy>>,
    _directory: tempfile::TempDir,
}

impl Served {
    pub fn new() -> Served {
        Served::with(description(sealed()))
    }

    pub fn with(description: Description) -> Served {
        Served::of(description, Toy::new())
    }

    pub fn of(description: Description, mut toy: Toy) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("toy.sock");
        let server = Server::bind(&path, description).unwrap();
        let (stop, seen) = (server.stop_handle(), Arc::clone(&toy.seen));
        let thread = std::thread::spawn(move || {
            server.run(&mut toy).unwrap();
            toy
        });
        Served { path, stop, seen, thread: Some(thread), _directory: directory }
    }

    pub fn end(&mut self) -> Option<Toy> {
        self.stop.stop();
        self.thread.take().map(|thread| thread.join().unwrap())
    }

    /// What the device saw since the last call.
    pub fn seen(&self) -> Vec<Access> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// What it saw of writes to one region.
    pub fn writes(&self, region: u8) -> Vec<(u64, u64)> {
        let of_region = |access: Access| match access.op {
            Op::Write(value) if access.region.0 == region => Some((access.offset, value)),
            _ => None,
        };
        self.seen().into_iter().filter_map(of_region).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps what is reported.
#[derive(Default)]
pub struct Reports(pub Mutex<Vec<Event>>);

impl Events for Reports {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Reports {
    pub fn failures(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let text = |event: &Event| match event {
            Event::Failed(text) => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }
}
