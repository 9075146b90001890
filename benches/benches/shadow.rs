//! A flush of the text window's shadow over a card that is memory: nothing changed, one line of text, the
//! whole screen, and all 32 KiB; with a copy and a comparison of the same size beside it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::RegionInfo;
use trapline_devices::legacy::shadow::{LEN, Shadow};
use trapline_io::{Fault, Region, Width};
use vm_memory::{Bytes, VolatileMemory};

const FIRST: u64 = 0xb_8000;

/// A card whose window is memory.
struct Memory(Vec<u8>);

impl Memory {
    fn at(&mut self, offset: u64, len: usize) -> Result<&mut [u8], Fault> {
        let first = offset.checked_sub(FIRST).and_then(|first| usize::try_from(first).ok());
        first.and_then(|first| self.0.get_mut(first..first + len)).ok_or(Fault::NoRegister)
    }
}

impl Backend for Memory {
    fn name(&self) -> &str {
        "memory"
    }
    fn regions(&self) -> &[RegionInfo] {
        &[]
    }
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Err(Fault::NoRegister)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }
    fn read_bytes(&mut self, _: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.at(offset, bytes.len()).map(|window| bytes.copy_from_slice(window))
    }
    fn write_bytes(&mut self, _: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.at(offset, bytes.len()).map(|window| window.copy_from_slice(bytes))
    }
}

/// Changes so many bytes from the window's start, or none, and flushes.
fn flush(c: &mut Criterion) {
    let mut group = c.benchmark_group("shadow");
    for (name, changed) in [("unchanged", 0), ("line", 160), ("screen", 4000), ("everything", LEN)] {
        let mut card = Memory(vec![0x20; LEN]);
        let mut shadow = Shadow::new().expect("32 KiB");
        shadow.start(&mut card, FIRST).expect("memory");
        let ram = shadow.memory().clone();
        let lines = [vec![0x41; changed], vec![0x42; changed]];
        let mut turn = 0;
        group.throughput(Throughput::Bytes(LEN as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                turn ^= 1;
                ram.as_volatile_slice().write_slice(&lines[turn], 0).expect("it fits");
                black_box(shadow.flush(&mut card, FIRST)).expect("memory")
            });
        });
        assert!(card.0[..changed].iter().all(|byte| *byte == lines[turn][0]));
    }
    let (from, mut to, other) = (vec![1_u8; LEN], vec![0_u8; LEN], vec![1_u8; LEN]);
    group.bench_function("copy and compare", |b| {
        b.iter(|| {
            to.copy_from_slice(black_box(&from));
            black_box(&to) == black_box(&other)
        });
    });
    group.finish();
}

criterion_group!(benches, flush);
criterion_main!(benches);
