//! Finding a region by address while a writer exchanges the table.
//!
//! * `cache`: as the vCPUs do it, each through its own view of the published table. Target: at least
//!   3 times as fast as
//! * `rwlock`: the table behind a lock that every look-up takes for reading.
//!
//! Each comes *quiet*, with a *writer active*, one that publishes one table after the other, and
//! *contended*, with a second reader beside a writer that publishes every 100 microseconds. Of two
//! processors that are threads of one core, as on many small machines, the last two see little of
//! what a shared cache line costs.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use parking_lot::RwLock;
use trapline_io::device::{Claim, Range};
use trapline_io::publish::Published;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Address, Gpa, Op, Region, Span, Trap, Width};

const FUNCTIONS: u16 = 24;
const FIRST: u64 = 0xe000_0000;
const STRIDE: u64 = 0x10_0000;

/// Twenty-four functions of three ranges each.
fn table() -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    for id in 0..FUNCTIONS {
        for part in 0..3 {
            let first = Gpa(FIRST + u64::from(id) * STRIDE + part * 0x2000);
            let span = Span::of_len(first, 0x1000).expect("inside the space");
            let claim = Claim::region(Range::Memory(span), Region::bar(1), part * 0x1000);
            builder.claim(EndpointId(id), &claim);
        }
    }
    builder.build()
}

/// A different function each time, as a guest would.
fn trap(turn: u64) -> Trap {
    let function = turn.wrapping_mul(7) % u64::from(FUNCTIONS);
    Trap { at: Address::Gpa(Gpa(FIRST + function * STRIDE + 0x2010)), width: Width::B4, op: Op::Read }
}

/// Looks up over and over.
fn bench_with(c: &mut Criterion, name: &str, mut resolve: impl FnMut(Trap) -> Resolved) {
    let mut turn = 0;
    c.bench_function(name, |b| {
        b.iter(|| {
            turn += 1;
            resolve(black_box(trap(turn)))
        });
    });
}

/// Runs `bench` beside a thread that publishes, with that pause between two tables, and, if there is a
/// pause, one that looks up.
fn beside_others(
    pause: Option<Duration>,
    bench: impl FnOnce(),
    mut look_up: impl FnMut(u64) + Send,
    publish: impl Fn(AddressSpace) + Sync,
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if pause.is_some() {
            scope.spawn(|| {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    look_up(turn);
                }
            });
        }
        scope.spawn(|| {
            let model = table();
            while !stop.load(Ordering::Relaxed) {
                publish(model.clone());
                if let Some(pause) = pause {
                    std::thread::sleep(pause);
                }
            }
        });
        bench();
        stop.store(true, Ordering::Relaxed);
    });
}

fn lookup(c: &mut Criterion) {
    let latch = ConfigLatch::default();
    let published = Published::new(table());
    let locked = RwLock::new(table());

    let mut reader = published.reader();
    bench_with(c, "lookup/cache, quiet", |trap| reader.space().resolve(trap, &latch));
    bench_with(c, "lookup/rwlock, quiet", |trap| locked.read().resolve(trap, &latch));

    let contended = Duration::from_micros(100);
    for (name, pause) in [("writer active", None), ("contended", Some(contended))] {
        let mut other = published.reader();
        beside_others(
            pause,
            || bench_with(c, &format!("lookup/cache, {name}"), |trap| reader.space().resolve(trap, &latch)),
            |turn| {
                black_box(other.space().resolve(trap(turn), &latch));
            },
            |space| published.publish(space),
        );
        beside_others(
            pause,
            || bench_with(c, &format!("lookup/rwlock, {name}"), |trap| locked.read().resolve(trap, &latch)),
            |turn| {
                black_box(locked.read().resolve(trap(turn), &latch));
            },
            |space| *locked.write() = space,
        );
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
