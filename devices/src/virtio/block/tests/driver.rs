//! A driver for the disk, and a thread that serves it as a worker would.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vm_memory::{Bytes, GuestAddress};

use super::super::*;
use crate::platform::testing::Line;

pub(super) const BAR: Region = Region(0);
/// Where the driver of the tests keeps its things.
pub(super) const DESCRIPTORS: u64 = 0x1000;
pub(super) const AVAILABLE: u64 = 0x3000;
pub(super) const USED: u64 = 0x4000;
pub(super) const INDIRECT: u64 = 0x6000;
pub(super) const HEADER: u64 = 0x8000;
pub(super) const STATUS: u64 = 0x9000;
pub(super) const DATA: u64 = 0x10_0000;
pub(super) const RAM: usize = 8 << 20;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const TABLE: u16 = 4;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const IDENTIFY: u32 = 8;

pub(super) const OK: u8 = 0;
pub(super) const IO_ERROR: u8 = 1;
pub(super) const UNSUPPORTED: u8 = 2;
/// What the driver puts where the status will be.
pub(super) const UNTOUCHED: u8 = 0xee;

/// A thread with the disk's task on a runtime of its own, as a worker has it.
pub(super) struct Bench {
    pub(super) block: Block,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) line: Arc<Line>,
    next: u16,
    size: u16,
    worker: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Bench {
    pub(super) fn new(disk: Disk) -> Bench {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap());
        let line = Arc::new(Line::default());
        let (block, task) = Block::new(disk, memory.clone(), line.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio_uring::start(async move {
                tokio_uring::spawn(task());
                let _ = stopped.await;
            });
        });
        let mut bench = Bench { block, memory, line, next: 0, size: 0, worker: Some((stop, thread)) };
        bench.block.write(Region::CONFIG, 0x10, Width::B4, 0xfebf_0000).unwrap();
        // Memory decode and bus mastering.
        bench.block.write(Region::CONFIG, 4, Width::B2, 6).unwrap();
        bench
    }

    /// Brings the device up as a driver that accepts `features` besides VERSION_1.
    pub(super) fn started(disk: Disk, features: u64) -> Bench {
        let mut bench = Bench::new(disk);
        bench.start(features, 64);
        bench
    }

    pub(super) fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.block.read(BAR, offset, width).unwrap()
    }

    pub(super) fn put(&mut self, offset: u64, width: Width, value: u64) {
        self.block.write(BAR, offset, width, value).unwrap();
    }

    pub(super) fn start(&mut self, features: u64, size: u16) {
        self.put(0x14, Width::B1, 0);
        self.put(0x14, Width::B1, 3);
        for (select, bits) in [(0, features & 0xffff_ffff), (1, features >> 32 | 1)] {
            self.put(0x08, Width::B4, select);
            self.put(0x0c, Width::B4, bits);
        }
        self.put(0x14, Width::B1, 11);
        assert_eq!(self.get(0x14, Width::B1), 11);
        self.put(0x16, Width::B2, 0);
        self.put(0x18, Width::B2, size.into());
        self.put(0x20, Width::B8, DESCRIPTORS);
        self.put(0x28, Width::B4, AVAILABLE);
        self.put(0x30, Width::B4, USED);
        self.put(0x1c, Width::B2, 1);
        self.memory.write_slice(&[0; 0x4000], GuestAddress(DESCRIPTORS)).unwrap();
        self.next = 0;
        self.size = size;
        self.put(0x14, Width::B1, 15);
    }

    pub(super) fn descriptor(&self, table: u64, index: u16, at: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(table + 16 * u64::from(index))).unwrap();
    }

    /// Lays out a chain of `buffers` (address, length, whether the device writes) from `first` on.
    pub(super) fn chain(&self, table: u64, first: u16, buffers: &[(u64, u32, bool)]) {
        for (index, &(at, len, write)) in (first..).zip(buffers) {
            let last = index - first + 1 == u16::try_from(buffers.len()).unwrap();
            let flags = if write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.descriptor(table, index, at, len, flags, index + 1);
        }
    }

    pub(super) fn header(&self, at: u64, kind: u32, sector: u64) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes a chain available without a kick.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + 2 * u64::from(self.next % self.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.next = self.next.wrapping_add(1);
        self.memory.store(self.next, GuestAddress(AVAILABLE + 2), Ordering::Release).unwrap();
    }

    pub(super) fn kick(&mut self) {
        self.put(0x3000, Width::B2, 0);
    }

    /// Kicks as the kernel does, where it knows the doorbell.
    pub(super) fn signal(&mut self) {
        let claims = self.block.claims();
        let signal = claims.ranges.iter().flat_map(|claim| &claim.signals).next().expect("a doorbell");
        rustix::io::write(&signal.event, &1_u64.to_ne_bytes()).unwrap();
    }

    pub(super) fn used(&self) -> u16 {
        self.memory.load(GuestAddress(USED + 2), Ordering::Acquire).unwrap()
    }

    pub(super) fn wait_until(&mut self, mut done: impl FnMut(&mut Bench) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "the device did not answer");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// One request with one data buffer at [`DATA`]: gives the status and the length in the used ring.
    pub(super) fn request(&mut self, kind: u32, sector: u64, len: u32) -> (u8, u32) {
        let data = (DATA, len, kind != OUT);
        let mut buffers = vec![(HEADER, 16, false), data, (STATUS, 1, true)];
        buffers.retain(|buffer| buffer.1 > 0);
        self.header(HEADER, kind, sector);
        self.chain(DESCRIPTORS, 0, &buffers);
        self.submit()
    }

    /// Submits the chain at descriptor 0 and waits.
    pub(super) fn submit(&mut self) -> (u8, u32) {
        self.memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        let slot = self.next % self.size;
        self.offer(0);
        self.kick();
        let next = self.next;
        self.wait_until(|bench| bench.used() == next);
        let entry = GuestAddress(USED + 4 + 8 * u64::from(slot));
        assert_eq!(self.memory.read_obj::<u32>(entry).unwrap(), 0);
        let len = self.memory.read_obj(GuestAddress(entry.0 + 4)).unwrap();
        (self.memory.read_obj(GuestAddress(STATUS)).unwrap(), len)
    }

    pub(super) fn fill(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.worker.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

pub(super) struct Image {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Image {
    /// An image of `sectors`, each byte the number of its sector.
    pub(super) fn new(sectors: usize) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let bytes: Vec<u8> = (0..sectors * 512).map(|at| (at / 512).to_le_bytes()[0]).collect();
        fs::write(&path, bytes).unwrap();
        Image { _dir: dir, path }
    }

    pub(super) fn open(&self, read_only: bool) -> Disk {
        Disk::open(&self.path, read_only).unwrap()
    }
}
