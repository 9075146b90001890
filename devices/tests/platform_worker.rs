//! Devices on a real worker: what is fed by other threads reaches the guest, and a disk answers.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trapline_devices::host::{Event, Events, IrqLine};
use trapline_devices::platform::keyboard::{Key, KeyCode, KeyboardController};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::uart::Uart;
use trapline_devices::virtio::block::{Block, Disk};
use trapline_io::completion::{Caller, Completions};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::queue::CallerId;
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Device, Region, Width};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

#[derive(Default)]
struct Line(AtomicBool);

impl Line {
    fn level(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl IrqLine for Line {
    fn set(&self, level: bool) {
        self.0.store(level, Ordering::SeqCst);
    }
}

struct NoEvents;

impl Events for NoEvents {
    fn report(&self, event: Event) {
        panic!("{event:?}");
    }
}

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A guest's thread in front of a device.
struct Guest {
    endpoint: Arc<Endpoint>,
    caller: Caller,
}

impl Guest {
    fn new(device: Box<dyn Device>, bell: &Arc<Doorbell>) -> Guest {
        let completions = Completions::new(1);
        let caller = completions.caller(CallerId(0)).unwrap();
        Guest { endpoint: Arc::new(Endpoint::new("device", device, completions, Arc::clone(bell))), caller }
    }

    fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.endpoint.call(&mut self.caller, Access::read(Region(0), offset, width))
    }

    fn put(&mut self, offset: u64, width: Width, value: u64) {
        self.endpoint.call(&mut self.caller, Access::write(Region(0), offset, width, value));
    }
}

#[test]
fn keys_reach_a_guest_that_waits_for_interrupts() {
    let (bell, line) = (Arc::new(Doorbell::new().unwrap()), Arc::new(Line::default()));
    let (device, keys) = KeyboardController::new(line.clone(), Arc::new(NoEvents)).unwrap();
    let attention = device.attention().unwrap();
    let mut guest = Guest::new(Box::new(device), &bell);
    let served = Served { endpoint: guest.endpoint.clone(), attention: Some(attention) };
    let worker = Worker::start("devices", bell, vec![served], Vec::new()).unwrap();
    // Interrupt on, translation on.
    guest.put(4, Width::B1, 0x60);
    guest.put(0, Width::B1, 0x61);
    (0..5).for_each(|_| assert!(keys.press(Key::new(KeyCode::Enter))));
    for _ in 0..5 {
        for code in [0x1c, 0x9c] {
            wait_until(|| line.level());
            assert_eq!(guest.get(0, Width::B1), code);
        }
    }
    worker.stop();
}

#[test]
fn a_serial_line_goes_both_ways() {
    let (bell, paper) = (Arc::new(Doorbell::new().unwrap()), Paper::default());
    let (device, input) =
        Uart::com1(Output::new(Box::new(paper.clone())), Arc::new(Line::default())).unwrap();
    let attention = device.attention().unwrap();
    let mut guest = Guest::new(Box::new(device), &bell);
    let served = Served { endpoint: guest.endpoint.clone(), attention: Some(attention) };
    let worker = Worker::start("devices", bell, vec![served], Vec::new()).unwrap();
    guest.put(0, Width::B1, u64::from(b'>'));
    wait_until(|| *paper.0.lock().unwrap() == b">");
    assert_eq!(input.send(b"go"), 2);
    for byte in *b"go" {
        wait_until(|| guest.get(5, Width::B1) & 1 == 1);
        assert_eq!(guest.get(0, Width::B1), u64::from(byte));
    }
    worker.stop();
}

#[test]
fn a_disk_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::write(&path, [7; 4096]).unwrap();
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let (bell, line) = (Arc::new(Doorbell::new().unwrap()), Arc::new(Line::default()));
    let (block, task) = Block::new(Disk::open(&path, false).unwrap(), memory.clone(), line.clone());
    let mut guest = Guest::new(Box::new(block), &bell);
    let served = Served { endpoint: guest.endpoint.clone(), attention: None };
    let worker = Worker::start("devices", bell, vec![served], vec![task]).unwrap();

    guest.endpoint.call(&mut guest.caller, Access::write(Region::CONFIG, 4, Width::B2, 6));
    for (offset, width, value) in [
        (0x14, Width::B1, 3),
        (0x08, Width::B4, 1),
        (0x0c, Width::B4, 1),
        (0x14, Width::B1, 11),
        (0x18, Width::B2, 128),
        (0x20, Width::B8, 0x1000),
        (0x28, Width::B8, 0x2000),
        (0x30, Width::B8, 0x3000),
        (0x1c, Width::B2, 1),
        (0x14, Width::B1, 15),
    ] {
        guest.put(offset, width, value);
    }
    // Header, data, status: address, then length, flags and the next in one number.
    let buffers =
        [(0x8000u64, 16u64 | 1 << 32 | 1 << 48), (0x1_0000, 4096 | 3 << 32 | 2 << 48), (0x9000, 1 | 2 << 32)];
    for (at, (address, rest)) in (0x1000..).step_by(16).zip(buffers) {
        memory.write_obj(address, GuestAddress(at)).unwrap();
        memory.write_obj(rest, GuestAddress(at + 8)).unwrap();
    }
    memory.store(1u16, GuestAddress(0x2002), Ordering::Release).unwrap();
    guest.put(0x3000, Width::B2, 0);
    wait_until(|| line.level());
    assert_eq!(memory.load::<u16>(GuestAddress(0x3002), Ordering::Acquire).unwrap(), 1);
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(0x1_0ff0)).unwrap(), [7; 16]);
    worker.stop();
}
