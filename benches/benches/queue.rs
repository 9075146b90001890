//! The queue of a function against a `Mutex<VecDeque>` of the same bound, with 1, 2 and 4 producers
//! that push all the time and one consumer that drains all the time. Time per entry, pushed and popped.

use std::collections::VecDeque;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use parking_lot::Mutex;
use trapline_io::queue::{AccessQueue, Entry};
use trapline_io::{Access, Region, Width};

const CAPACITY: usize = 256;

/// What both kinds of queue can do.
trait Bounded: Sync {
    fn push(&self, entry: Entry) -> bool;
    fn pop(&self) -> Option<Entry>;
}

impl Bounded for AccessQueue {
    fn push(&self, entry: Entry) -> bool {
        AccessQueue::push(self, entry).is_ok()
    }
    fn pop(&self) -> Option<Entry> {
        AccessQueue::pop(self)
    }
}

impl Bounded for Mutex<VecDeque<Entry>> {
    fn push(&self, entry: Entry) -> bool {
        let mut entries = self.lock();
        let fits = entries.len() < CAPACITY;
        if fits {
            entries.push_back(entry);
        }
        fits
    }
    fn pop(&self) -> Option<Entry> {
        self.lock().pop_front()
    }
}

/// Sends `total` entries through the queue and gives the time that took.
fn transfer(queue: &dyn Bounded, producers: u64, total: u64) -> Duration {
    let start = Barrier::new(usize::try_from(producers + 1).expect("a handful"));
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let start = &start;
            let share = total / producers + u64::from(producer < total % producers);
            scope.spawn(move || {
                let access = Access::write(Region::VGA, 0xb8000 + producer, Width::B2, producer);
                start.wait();
                for _ in 0..share {
                    while !queue.push(Entry::posted(access)) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        start.wait();
        let begun = Instant::now();
        let mut popped = 0;
        while popped < total {
            match queue.pop() {
                Some(_) => popped += 1,
                None => std::thread::yield_now(),
            }
        }
        begun.elapsed()
    })
}

fn queues(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    for producers in [1, 2, 4] {
        let ours = AccessQueue::new(CAPACITY);
        group.bench_with_input(BenchmarkId::new("array", producers), &producers, |b, &producers| {
            b.iter_custom(|total| transfer(&ours, producers, total));
        });
        let locked = Mutex::new(VecDeque::with_capacity(CAPACITY));
        group.bench_with_input(BenchmarkId::new("mutex", producers), &producers, |b, &producers| {
            b.iter_custom(|total| transfer(&locked, producers, total));
        });
    }
    group.finish();
}

criterion_group!(benches, queues);
criterion_main!(benches);
