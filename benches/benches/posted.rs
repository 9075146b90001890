//! What the owner of legacy VGA costs: posting beside a worker, the kernel's ring in front of a queue,
//! and a file behind it by each way of service.
//!
//! * `vCPU`: the vCPU's part of an access, with and without a feed from a ring that is empty. Targets:
//!   80 ns for a posted write while the worker is awake, 60 ns for a strict read of a null device.
//! * `ring of 169`: a full ring into the queue and out of it, to a device that merges and one that
//!   does not. A line of text is 80 writes of two bytes.
//! * `file`: one read, and a burst of 64 posted writes with a read behind them, of a region that is
//!   part of a file (`/dev/zero`, the cheapest there is), by the vCPU and through the worker, which
//!   has gone to sleep before each.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::ring::{Carriage, probe};
use trapline_io::space::{EndpointId, SpaceBuilder};
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Region, Span, Trap, Width};

const WINDOW: u64 = 0xb8000;

/// KVM's ring holds as many.
const RING: usize = 169;

/// Longer than a worker looks out for more.
const REST: Duration = Duration::from_micros(200);

/// Fewer than a queue holds.
const BURST: usize = 64;

/// Answers at once.
struct Null {
    merges: bool,
}

impl Device for Null {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        Ok(offset)
    }
    fn write(&mut self, _: Region, offset: u64, _: Width, value: u64) -> Result<(), Fault> {
        black_box((offset, value));
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn merges(&self, _: Region, _: u64) -> bool {
        self.merges
    }
    fn write_run(&mut self, _: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        black_box((offset, bytes));
        Ok(())
    }
}

/// A ring of ascending text cells that fills itself when told.
#[derive(Clone, Default)]
struct Cells(Arc<AtomicUsize>);

impl Collected for Cells {
    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
    fn pop(&self) -> Option<Trap> {
        let left = self.0.load(Ordering::Relaxed);
        let at = Address::Gpa(Gpa(WINDOW + 2 * (RING - left.min(RING)) as u64));
        self.0.store(left.checked_sub(1)?, Ordering::Release);
        Some(Trap { at, width: Width::B2, op: Op::Write(0x0720) })
    }
}

struct Rig {
    endpoint: Arc<Endpoint>,
    bell: Arc<Doorbell>,
    caller: Caller,
    cells: Cells,
}

fn rig(device: impl Device + 'static, service: Service, fed: bool) -> Rig {
    let completions = Completions::new(1);
    let bell = Arc::new(Doorbell::new().expect("an eventfd"));
    let endpoint = Endpoint::new("bench", Box::new(device), completions.clone(), Arc::clone(&bell));
    let endpoint = Arc::new(endpoint.with_service(service));
    let cells = Cells::default();
    if fed {
        let mut builder = SpaceBuilder::default();
        let window = Range::Memory(Span::of_len(Gpa(WINDOW), 0x8000).expect("inside the space"));
        builder.claim(EndpointId(0), &Claim::region(window, Region::VGA, WINDOW));
        let space = Published::new(builder.build());
        let feed = Feed::new(Box::new(cells.clone()), &space, EndpointId(0));
        feed.set_active(true);
        endpoint.feed_from(Arc::new(feed));
    }
    let caller = completions.caller(CallerId(0)).expect("there is one");
    Rig { endpoint, bell, caller, cells }
}

impl Rig {
    fn worker(&self) -> Worker {
        let served = Served { endpoint: Arc::clone(&self.endpoint), attention: None };
        Worker::start("bench", Arc::clone(&self.bell), vec![served], Vec::new()).expect("a worker")
    }
}

fn cell(n: u64) -> Access {
    Access::write(Region::VGA, WINDOW + 2 * n, Width::B2, 0x0720)
}

/// Time that the vCPU spends on `writes` posted writes, in bursts that `settle` follows.
fn posting(rig: &Rig, writes: u64, mut settle: impl FnMut(&Endpoint)) -> Duration {
    let mut spent = Duration::ZERO;
    for burst in (0..writes).step_by(BURST) {
        let begun = Instant::now();
        for n in 0..(writes - burst).min(BURST as u64) {
            rig.endpoint.post(black_box(cell(n)));
        }
        spent += begun.elapsed();
        settle(&rig.endpoint);
    }
    spent
}

fn vcpu(c: &mut Criterion) {
    let mut group = c.benchmark_group("vCPU");
    for (feed, fed) in [("no feed", false), ("feed idle", true)] {
        let mut rig = rig(Null { merges: true }, Service::Adaptive, fed);
        let read = Access::read(Region::VGA, WINDOW, Width::B1);
        group.bench_function(format!("strict read, {feed}"), |b| {
            b.iter(|| rig.endpoint.call(&mut rig.caller, black_box(read)));
        });
        rig.bell.awake();
        group.bench_function(format!("posted write, {feed}"), |b| {
            b.iter_custom(|writes| posting(&rig, writes, Endpoint::drain));
        });
        rig.bell.leave();
        let worker = rig.worker();
        group.bench_function(format!("posted write beside a worker, {feed}"), |b| {
            b.iter_custom(|writes| {
                // The worker looks out for more after a burst, so it is awake for the next.
                posting(&rig, writes, |endpoint| {
                    while endpoint.has_work() {
                        std::hint::spin_loop();
                    }
                })
            });
        });
        worker.stop();
    }
    group.finish();
}

fn full_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring of 169");
    group.throughput(Throughput::Elements(RING as u64));
    for (name, merges) in [("merged", true), ("one by one", false)] {
        let rig = rig(Null { merges }, Service::Adaptive, true);
        group.bench_function(format!("collected and drained, {name}"), |b| {
            b.iter(|| {
                rig.cells.0.store(RING, Ordering::Release);
                rig.endpoint.drain();
            });
        });
    }
    group.finish();
}

/// A function whose BAR 0 is a part of a file that takes and gives anything.
fn file() -> FileDevice {
    let zero = std::fs::File::options().read(true).write(true).open("/dev/zero").expect("/dev/zero");
    let region = FileRegion { fd: Arc::new(OwnedFd::from(zero)), offset: 0, len: 0x1_0000 };
    if !matches!(probe(&*region.fd), Ok(Carriage::Inline)) {
        println!("file: this kernel hands writes to its pool, so the worker makes no batches");
    }
    FileDevice::new().with_region(Region::bar(0), region)
}

/// How long `count` turns take, each after a rest in which the worker falls asleep. Only some are made,
/// since the rests take so much longer.
fn rested(count: u64, mut turn: impl FnMut()) -> Duration {
    let made = count.min(20);
    let mut spent = Duration::ZERO;
    for _ in 0..made {
        std::thread::sleep(REST);
        let begun = Instant::now();
        turn();
        spent += begun.elapsed();
    }
    spent.mul_f64(count as f64 / made as f64)
}

fn files(c: &mut Criterion) {
    let mut group = c.benchmark_group("file");
    for (name, service) in [("by the vCPU", Service::Inline), ("through the worker", Service::Uring)] {
        let mut rig = rig(file(), service, false);
        let worker = rig.worker();
        let read = Access::read(Region::bar(0), 16, Width::B4);
        group.bench_function(format!("read {name}"), |b| {
            b.iter_custom(|reads| {
                rested(reads, || {
                    black_box(rig.endpoint.call(&mut rig.caller, read));
                })
            });
        });
        group.bench_function(format!("64 posted writes {name}"), |b| {
            b.iter_custom(|bursts| {
                rested(bursts, || {
                    for n in 0..BURST as u64 {
                        rig.endpoint.post(Access::write(Region::bar(0), 4 * n, Width::B4, n));
                    }
                    rig.endpoint.call(&mut rig.caller, read);
                })
            });
        });
        worker.stop();
    }
    group.finish();
}

criterion_group!(benches, vcpu, full_ring, files);
criterion_main!(benches);
