//! What io_uring and plain transfers do on the real kernel: short transfers, EIO, the order of a batch,
//! and what `O_NONBLOCK` decides. (EINTR, and short writes within a linked run, are tested beside the code.)
//!
//! `/proc/self/mem` stands in for a VFIO device: its file operations have `read` and `write`, but
//! neither `read_iter` nor `write_iter` nor `poll`, which is exactly what makes io_uring punt a
//! request (`loop_rw_iter` in the kernel's `io_uring/rw.c`). A memfd has all of them and shows
//! nothing of the effect.
#![cfg(not(loom))]

#[path = "common/rig.rs"]
mod common;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Rig, rig};
use rustix::fs::{MemfdFlags, OFlags};
use trapline_io::device::Claims;
use trapline_io::endpoint::Service;
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::ring::{Carriage, Way, carriage, probe};
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Device, Fault, Region, Width};
use vm_memory::{FileOffset, MmapRegion};

const BAR: Region = Region::bar(0);

/// A file without `write_iter` and `poll`.
fn own_memory() -> OwnedFd {
    let file = std::fs::File::options().read(true).write(true).open("/proc/self/mem");
    OwnedFd::from(file.expect("/proc/self/mem can be written by its own process"))
}

/// A page of memory followed by one that cannot be touched: transfers across the end are short, those
/// behind it fail with EIO. The second page maps a file past its end.
fn page_with_an_end() -> MmapRegion {
    let fd = rustix::fs::memfd_create("page", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 4096).unwrap();
    let file = FileOffset::new(std::fs::File::from(fd), 0);
    MmapRegion::build(Some(file), 8192, 3, 1).expect("two pages of a one-page file")
}

fn page_region(page: &MmapRegion) -> FileRegion {
    FileRegion { fd: Arc::new(own_memory()), offset: page.as_ptr() as u64, len: 8192 }
}

/// Reads show it: they take the same decision for this file as writes do for VFIO. Writes to it
/// are punted in any case, since files in /proc count as regular ones.
#[test]
fn without_o_nonblock_the_kernel_punts_and_with_it_does_not() {
    let memory = own_memory();
    assert_eq!(carriage(&memory, Way::Read).unwrap(), Carriage::Punted, "as opened");
    let flags = rustix::fs::fcntl_getfl(&memory).unwrap();
    rustix::fs::fcntl_setfl(&memory, flags | OFlags::NONBLOCK).unwrap();
    assert_eq!(carriage(&memory, Way::Read).unwrap(), Carriage::Inline, "with O_NONBLOCK");
}

/// The same with writes, on a character device without `write_iter` and `poll`: the very case of VFIO.
#[test]
fn writes_to_a_device_without_write_iter_follow_rule_6() {
    let file = std::fs::File::options().read(true).write(true).open("/dev/cpu_dma_latency");
    let device = match file {
        Ok(file) => OwnedFd::from(file),
        Err(error) => {
            println!("skipped: /dev/cpu_dma_latency, which only root may open: {error}");
            return;
        }
    };
    assert_eq!(carriage(&device, Way::Write).unwrap(), Carriage::Punted, "as opened");
    assert_eq!(probe(&device).unwrap(), Carriage::Inline, "with O_NONBLOCK");
}

fn is_nonblocking(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn the_probe_leaves_the_flag_where_it_helps() {
    let (_far, near) = rustix::pipe::pipe().unwrap();
    assert_eq!(probe(&near).unwrap(), Carriage::Inline);
    assert!(is_nonblocking(&near));
}

#[test]
fn where_it_punts_all_the_same_the_probe_says_so() {
    let regular = rustix::fs::memfd_create("regular", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(probe(&regular).unwrap(), Carriage::Punted);
    assert!(!is_nonblocking(&regular));
    assert_eq!(probe(own_memory()).unwrap(), Carriage::Punted, "as any regular file");
    let read_only = std::fs::File::open("/proc/self/mem").unwrap();
    assert_eq!(probe(&read_only).unwrap(), Carriage::Punted, "what cannot be told is punted");
}

/// A function whose BAR 0 is a file, and which counts the writes that come by way of its own code.
struct Counting {
    file: FileDevice,
    called: Arc<AtomicUsize>,
}

impl Device for Counting {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.file.read(region, offset, width)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.called.fetch_add(1, Ordering::Relaxed);
        self.file.write(region, offset, width, value)
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn file(&self, region: Region) -> Option<&FileRegion> {
        self.file.file(region)
    }
}

fn batched(region: FileRegion) -> (Rig, Worker, Arc<AtomicUsize>) {
    let called = Arc::new(AtomicUsize::new(0));
    let device = Counting { file: FileDevice::new().with_region(BAR, region), called: Arc::clone(&called) };
    let rig = rig(device, Service::Uring, 256);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let worker = Worker::start("batches", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap();
    (rig, worker, called)
}

/// Waits until the worker has carried everything out.
fn settle(rig: &Rig) {
    while rig.endpoint.has_work() {
        std::thread::yield_now();
    }
    rig.endpoint.with_device(|_| ());
}

/// A pipe takes writes inline, and shows at its other end in which order they were made.
#[test]
fn a_batch_keeps_its_order() {
    let (far, near) = rustix::pipe::pipe().unwrap();
    let (rig, worker, called) = batched(FileRegion { fd: Arc::new(near), offset: 0, len: 8 });
    for n in 0..8000u64 {
        rig.endpoint.post(Access::write(BAR, 0, Width::B4, n));
        if n % 200 == 199 {
            // A full queue would make this thread write, which a pipe refuses at a position.
            settle(&rig);
        }
    }
    worker.stop();
    let mut seen = vec![0; 32_000];
    assert_eq!(rustix::io::read(&far, &mut *seen), Ok(32_000));
    let expected: Vec<u8> = (0..8000u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(seen, expected);
    assert_eq!(rig.endpoint.faults(), 0);
    assert_eq!(called.load(Ordering::Relaxed), 0, "the device's own code was not needed");
}

/// Where the kernel would punt, and so reorder, the worker writes by itself.
#[test]
fn a_file_that_is_punted_gets_plain_writes() {
    let fd = rustix::fs::memfd_create("bar", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 16).unwrap();
    let (rig, worker, called) = batched(FileRegion { fd: Arc::new(fd), offset: 0, len: 16 });
    let mut caller = rig.completions.caller(trapline_io::queue::CallerId(0)).unwrap();
    for n in 0..100 {
        rig.endpoint.post(Access::write(BAR, 0, Width::B8, n));
    }
    assert_eq!(rig.endpoint.call(&mut caller, Access::read(BAR, 0, Width::B8)), 99);
    worker.stop();
    assert_eq!(called.load(Ordering::Relaxed), 100);
}

/// Writes that fail are counted, all others arrive in order. A socket refuses a write at a position.
#[test]
fn a_broken_chain_loses_only_what_failed() {
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = Arc::new(OwnedFd::from(near));
    let (rig, worker, called) = batched(FileRegion { fd: near, offset: 0, len: 16 });
    // The worker comes in when the token is free, and finds the whole batch.
    rig.endpoint.with_device(|_| {
        for (offset, value) in [(0, b'a'), (1, b'x'), (0, b'b'), (0, b'c'), (2, b'y'), (3, b'z'), (0, b'd')] {
            rig.endpoint.post(Access::write(BAR, offset, Width::B1, u64::from(value)));
        }
    });
    settle(&rig);
    worker.stop();
    assert_eq!(rig.endpoint.faults(), 3);
    assert_eq!(called.load(Ordering::Relaxed), 0);
    drop(rig);
    let mut seen = String::new();
    far.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "abcd");
}

#[test]
fn plain_transfers_fail_when_short_or_refused() {
    let page = page_with_an_end();
    let mut device = FileDevice::new().with_region(BAR, page_region(&page));
    assert_eq!(device.write(BAR, 4088, Width::B8, 7), Ok(()));
    assert_eq!(device.read(BAR, 4088, Width::B8), Ok(7));
    assert_eq!(device.write(BAR, 4092, Width::B8, 7), Err(Fault::Failed), "short");
    assert_eq!(device.read(BAR, 4092, Width::B8), Err(Fault::Failed), "short");
    assert_eq!(device.read(BAR, 4096, Width::B1), Err(Fault::Failed), "EIO");
    assert_eq!(device.write(BAR, 4096, Width::B1, 0), Err(Fault::Failed), "EIO");
    assert_eq!(device.read(BAR, 8192, Width::B1), Err(Fault::NoRegister));
    assert_eq!(device.read(BAR, u64::MAX, Width::B8), Err(Fault::NoRegister));
    assert_eq!(device.read(Region::CONFIG, 0, Width::B1), Err(Fault::NoRegister));
}
