//! The access path without an exit around it: look-up, endpoint, null device, answer.
//!
//! * `read`, `strict write`: trap to value, uncontended, carried out by the caller. Target: 60 ns.
//! * `posted write`: trap to queue with a worker awake; the drains between bursts are not counted.
//! * `queued read`: the parts that a contended access adds, push, pop and completion.
//! * `read with stages`: the same read with every stage measured; `traced read`: with a record of it in
//!   a lane, to be compared with `read between two exits`, which does neither.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Range, Retire};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::{AccessQueue, CallerId, Entry};
use trapline_io::space::{ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::stages::Stages;
use trapline_io::trace::{Lane, Recorder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

/// Answers at once.
struct Null;

impl Device for Null {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        Ok(offset)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

struct Fixed;

impl Topology for Fixed {
    fn change(&self, _: &mut Caller, _: EndpointId, _: Access) {}
}

const ENDPOINTS: u16 = 24;

/// How many writes fit a queue with room to spare.
const BURST: usize = 200;

/// A machine of the usual size: some twenty functions with a few ranges each.
fn machine() -> (Path, Arc<[Arc<Endpoint>]>, Arc<Doorbell>) {
    let completions = Completions::new(2);
    let bell = Arc::new(Doorbell::new().expect("an eventfd"));
    let mut builder = SpaceBuilder::default();
    for id in 0..ENDPOINTS {
        let ports = Span::of_len(Port(0x1000 + id * 0x20), 0x10).expect("inside the space");
        let bar = Gpa(0xe000_0000 + u64::from(id) * 0x10_0000);
        builder.claim(EndpointId(id), &Claim::region(Range::Ports(ports), Region::bar(0), 0));
        for page in 0..3 {
            let span = Span::of_len(Gpa(bar.0 + page * 0x2000), 0x1000).expect("inside the space");
            let retire = if page == 2 { Retire::Posted } else { Retire::Strict };
            let claim = Claim::region(Range::Memory(span), Region::bar(1), page * 0x1000).retire(retire);
            builder.claim(EndpointId(id), &claim);
        }
    }
    let endpoint =
        |id| Endpoint::new(format!("null{id}"), Box::new(Null), completions.clone(), Arc::clone(&bell));
    let endpoints: Arc<[_]> = (0..ENDPOINTS).map(|id| Arc::new(endpoint(id))).collect();
    let path = Path::new(
        Published::new(builder.build()).reader(),
        Arc::new(ConfigLatch::default()),
        Arc::clone(&endpoints),
        Arc::new(Fixed),
        completions.caller(CallerId(0)).expect("there are two"),
    );
    (path, endpoints, bell)
}

fn trap(page: u64, op: Op) -> Trap {
    Trap { at: Address::Gpa(Gpa(0xe000_0010 + 7 * 0x10_0000 + page * 0x2000)), width: Width::B4, op }
}

fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("path");
    let (mut path, endpoints, bell) = machine();
    group.bench_function("read", |b| b.iter(|| path.carry_out(black_box(trap(0, Op::Read)))));
    group.bench_function("strict write", |b| b.iter(|| path.carry_out(black_box(trap(0, Op::Write(5))))));
    bell.awake();
    group.bench_function("posted write", |b| {
        b.iter_custom(|writes| {
            let mut posting = Duration::ZERO;
            for burst in (0..writes).step_by(BURST) {
                let begun = Instant::now();
                for _ in 0..(writes - burst).min(BURST as u64) {
                    path.carry_out(black_box(trap(2, Op::Write(5))));
                }
                posting += begun.elapsed();
                endpoints.iter().for_each(|endpoint| endpoint.drain());
            }
            posting
        });
    });
    bell.leave();
    path.caller.stages = Some(Box::new(Stages::new()));
    group.bench_function("read with stages", |b| {
        b.iter(|| {
            path.caller.exit();
            let value = path.carry_out(black_box(trap(0, Op::Read)));
            path.caller.resume();
            value
        });
    });
    let lane = Arc::new(Lane::new(1 << 15));
    let recorder = Recorder::of_vcpu(0, Arc::clone(&lane), Arc::default());
    path.caller.stages = Some(Box::new(Stages::tracing(recorder)));
    group.bench_function("traced read", |b| {
        b.iter_custom(|reads| {
            let mut reading = Duration::ZERO;
            for burst in (0..reads).step_by(lane.capacity() / 2) {
                let begun = Instant::now();
                for _ in 0..(reads - burst).min(lane.capacity() as u64 / 2) {
                    path.caller.exit();
                    black_box(path.carry_out(black_box(trap(0, Op::Read))));
                    path.caller.resume();
                }
                reading += begun.elapsed();
                lane.take(usize::MAX, |record| {
                    black_box(record);
                });
            }
            reading
        });
    });
    assert_eq!(lane.lost(), 0);
    path.caller.stages = None;
    group.bench_function("read between two exits", |b| {
        b.iter(|| {
            path.caller.exit();
            let value = path.carry_out(black_box(trap(0, Op::Read)));
            path.caller.resume();
            value
        });
    });
    group.finish();
}

fn pieces(c: &mut Criterion) {
    let mut group = c.benchmark_group("path parts");
    let queue = AccessQueue::new(256);
    let completions = Completions::new(1);
    let completion = completions.of(CallerId(0)).expect("there is one");
    let access = Access::read(Region::bar(1), 16, Width::B4);
    group.bench_function("push, pop and completion", |b| {
        b.iter(|| {
            completion.begin();
            let _ = queue.push(black_box(Entry { waiter: Some(CallerId(0)), ..Entry::posted(access) }));
            if let Some(entry) = queue.pop() {
                completion.complete(entry.access.offset);
            }
            completion.poll()
        });
    });
    group.finish();
}

criterion_group!(benches, uncontended, pieces);
criterion_main!(benches);
