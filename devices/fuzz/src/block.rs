//! virtio-blk: registers and rings of any content; after it all a reset makes the disk work again.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CONFIG, Nobody, Place, Step, drive, sealed};
use arbitrary::Arbitrary;
use trapline_devices::virtio::block::{Block, Disk};
use trapline_io::{Device, Region, Width};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BAR: Region = Region(0);
const PLACES: [Place; 5] = [CONFIG[0], CONFIG[1], (BAR, 0, 0x40), (BAR, 0x1000, 0x2010), (BAR, 0x3000, 0x10)];
const DESCRIPTORS: u16 = 0x1000;
const AVAILABLE: u16 = 0x2000;
const USED: u16 = 0x3000;
const HEADER: u16 = 0x4000;

#[derive(Arbitrary, Debug)]
enum Act {
    Guest(Vec<Step>),
    /// Sets the device up as a driver does, with this queue size and these features.
    Start {
        size: u16,
        features: u32,
    },
    Descriptor {
        index: u8,
        at: u16,
        high: u16,
        length: u32,
        flags: u8,
        next: u8,
    },
    Header {
        kind: u32,
        sector: u64,
    },
    Offer {
        heads: Vec<u8>,
        index: u16,
    },
    Memory {
        at: u16,
        bytes: Vec<u8>,
    },
    Kick,
    Wait,
}

struct Driver {
    block: Block,
    memory: Arc<GuestMemoryMmap>,
}

impl Driver {
    fn put(&mut self, offset: u64, width: Width, value: u64) {
        let _ = self.block.write(BAR, offset, width, value);
    }

    fn store(&self, at: u16, bytes: &[u8]) {
        let _ = self.memory.write(bytes, GuestAddress(at.into()));
    }

    fn start(&mut self, size: u16, features: u32) {
        let _ = self.block.write(Region::CONFIG, 4, Width::B2, 6);
        for status in [0, 1, 3] {
            self.put(0x14, Width::B1, status);
        }
        for (select, bits) in [(0, u64::from(features)), (1, 1)] {
            self.put(0x08, Width::B4, select);
            self.put(0x0c, Width::B4, bits);
        }
        self.put(0x14, Width::B1, 11);
        self.put(0x16, Width::B2, 0);
        self.put(0x18, Width::B2, size.into());
        for (register, at) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
            self.put(register, Width::B8, at.into());
        }
        self.put(0x1c, Width::B2, 1);
        self.put(0x14, Width::B1, 15);
    }

    fn descriptor(&self, index: u8, at: u64, length: u32, flags: u16, next: u16) {
        let parts = [&at.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.store(DESCRIPTORS + 16 * u16::from(index), &parts.concat());
    }

    fn header(&self, kind: u32, sector: u64) {
        self.store(HEADER, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
    }

    fn offer(&self, heads: &[u8], index: u16) {
        let ring: Vec<u8> = heads.iter().flat_map(|head| u16::from(*head).to_le_bytes()).collect();
        self.store(AVAILABLE + 4, &ring);
        self.store(AVAILABLE + 2, &index.to_le_bytes());
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Guest(steps) => drive(&mut self.block, &PLACES, &steps),
            Act::Start { size, features } => self.start(size, features),
            Act::Descriptor { index, at, high, length, flags, next } => {
                let at = u64::from(at) | if high & 0xff == 0 { u64::from(high) << 48 } else { 0 };
                self.descriptor(index, at, length, flags.into(), next.into());
            }
            Act::Header { kind, sector } => self.header(kind & 0xf, sector),
            Act::Offer { heads, index } => self.offer(&heads, index),
            Act::Memory { at, bytes } => self.store(at, &bytes),
            Act::Kick => self.put(0x3000, Width::B2, 0),
            Act::Wait => turns().await,
        }
    }

    /// A driver that keeps the rules reads the first sector, which also ends what was under way.
    async fn check(&mut self) {
        self.block.reset();
        self.store(AVAILABLE, &[0; 0x1000]);
        self.store(USED, &[0; 0x1000]);
        self.start(16, 0);
        self.header(0, 0);
        self.descriptor(0, HEADER.into(), 16, 1, 1);
        self.descriptor(1, 0x8000, 512, 3, 2);
        self.descriptor(2, 0x5000, 1, 2, 0);
        self.offer(&[0], 1);
        self.put(0x3000, Width::B2, 0);
        let start = Instant::now();
        while self.memory.read_obj::<u16>(GuestAddress(u64::from(USED) + 2)).expect("RAM") != 1 {
            assert!(start.elapsed() < Duration::from_secs(8), "the disk does not answer any more");
            turns().await;
        }
        assert_eq!(self.memory.read_obj::<u8>(GuestAddress(0x5000)).expect("RAM"), 0);
    }
}

/// Lets the disk's task and the kernel do something. A thread that only yields never submits to its
/// ring; a request of the target's own makes it.
async fn turns() {
    for _ in 0..4 {
        let _ = tokio_uring::no_op().await;
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(bool, Vec<Act>)>(data) else { return };
    let (read_only, acts) = input;
    let file = sealed(0x1_0000).expect("a file in memory");
    let disk = Disk::open(format!("/proc/self/fd/{}", file.as_raw_fd()), read_only).expect("an image");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).expect("address space");
    let memory = Arc::new(memory);
    let (block, task) = Block::new(disk, Arc::clone(&memory), Arc::new(Nobody));
    let mut driver = Driver { block, memory };
    tokio_uring::start(async move {
        tokio_uring::spawn(task());
        for act in acts {
            driver.act(act).await;
        }
        driver.check().await;
        // The request's last steps come after its answer.
        turns().await;
    });
}
