//! A function has one order, nothing overtakes an earlier write, and nothing blocks for good: the queue's part of that,
//! with real threads, in every way of service, with and without a worker, with a roomy queue and one that is always full.
#![cfg(not(loom))]

#[path = "common/rig.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Broken, Journal, Rig, numbered, rig, values_of};
use trapline_io::endpoint::Service;
use trapline_io::queue::CallerId;
use trapline_io::stages::Stage;
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Region, Width};

const SERVICES: [Service; 3] = [Service::Inline, Service::Uring, Service::Adaptive];

fn worker(rig: &Rig) -> Worker {
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    Worker::start("test worker", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap()
}

fn every_way(test: impl Fn(Service, usize, bool)) {
    for service in SERVICES {
        for capacity in [1, 2, 256] {
            for with_worker in [false, true] {
                test(service, capacity, with_worker);
            }
        }
    }
}

/// A write that one thread made and told another of is seen before what that other one writes then.
#[test]
fn one_function_has_one_order() {
    const ROUNDS: u64 = 300;
    every_way(|service, capacity, with_worker| {
        let (device, log) = Journal::new(Duration::ZERO);
        let rig = rig(device, service, capacity);
        let worker = with_worker.then(|| worker(&rig));
        // Even numbers are the first thread's turn, odd ones the second's: a baton between vCPUs.
        let baton = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (rig, baton) = (&rig, &baton);
                scope.spawn(move || {
                    let mut caller = rig.completions.caller(CallerId(thread)).unwrap();
                    for round in 0..ROUNDS {
                        let turn = 2 * round + u64::from(thread);
                        while baton.load(Ordering::Acquire) != turn {
                            std::thread::yield_now();
                        }
                        let write = numbered(0, turn);
                        if round % 3 == 0 {
                            rig.endpoint.call(&mut caller, write);
                        } else {
                            rig.endpoint.post(write);
                        }
                        baton.store(turn + 1, Ordering::Release);
                    }
                });
            }
        });
        drop(worker);
        let seen = values_of(&log, 0);
        assert_eq!(seen, (0..2 * ROUNDS).collect::<Vec<_>>(), "{service:?} {capacity} {with_worker}");
    });
}

/// Nothing is lost or done twice when producers run against each other.
#[test]
fn each_producer_keeps_its_order_under_contention() {
    const WRITES: u64 = 2000;
    every_way(|service, capacity, with_worker| {
        let (device, log) = Journal::new(Duration::ZERO);
        let rig = rig(device, service, capacity);
        let worker = with_worker.then(|| worker(&rig));
        std::thread::scope(|scope| {
            for producer in 0..3u16 {
                let rig = &rig;
                scope.spawn(move || {
                    let mut caller = rig.completions.caller(CallerId(producer)).unwrap();
                    for n in 0..WRITES {
                        if n % 50 == 0 {
                            rig.endpoint.call(&mut caller, numbered(u64::from(producer), n));
                        } else {
                            rig.endpoint.post(numbered(u64::from(producer), n));
                        }
                    }
                });
            }
        });
        drop(worker);
        for producer in 0..3 {
            let expected: Vec<_> = (0..WRITES).collect();
            assert_eq!(values_of(&log, producer), expected, "{service:?} {capacity} {with_worker}");
        }
        assert!(!rig.endpoint.has_work());
    });
}

/// A read answers with the number of writes that the device has seen: all that were posted before.
#[test]
fn a_read_never_overtakes_a_posted_write() {
    for pause in [Duration::ZERO, Duration::from_micros(300)] {
        every_way(|service, capacity, with_worker| {
            let (device, _) = Journal::new(pause);
            let rig = rig(device, service, capacity);
            let worker = with_worker.then(|| worker(&rig));
            let mut caller = rig.completions.caller(CallerId(0)).unwrap();
            let mut written = 0;
            for burst in [1, 0, 3, 17] {
                for n in 0..burst {
                    rig.endpoint.post(numbered(0, n));
                }
                written += burst;
                let read = rig.endpoint.call(&mut caller, Access::read(Region::bar(0), 0, Width::B8));
                assert_eq!(read, written, "{service:?} {capacity} {with_worker}");
            }
            drop(worker);
        });
    }
}

/// A change of the device waits for what was posted before, as a read does.
#[test]
fn the_device_is_changed_after_what_was_posted() {
    every_way(|service, capacity, with_worker| {
        let (device, log) = Journal::new(Duration::from_micros(50));
        let rig = rig(device, service, capacity);
        let worker = with_worker.then(|| worker(&rig));
        for n in 0..20 {
            rig.endpoint.post(numbered(0, n));
        }
        assert_eq!(rig.endpoint.with_device(|_| log.lock().len()), 20);
        drop(worker);
    });
}

#[test]
fn a_failed_access_reads_all_ones_and_is_counted() {
    every_way(|service, capacity, with_worker| {
        let rig = rig(Broken, service, capacity);
        let worker = with_worker.then(|| worker(&rig));
        let mut caller = rig.completions.caller(CallerId(0)).unwrap();
        let read = |width| Access::read(Region::bar(0), width as u64, width);
        assert_eq!(rig.endpoint.call(&mut caller, read(Width::B1)), 0xff);
        assert_eq!(rig.endpoint.call(&mut caller, read(Width::B2)), 0xffff);
        assert_eq!(rig.endpoint.call(&mut caller, read(Width::B4)), 0xffff_ffff);
        assert_eq!(rig.endpoint.call(&mut caller, read(Width::B8)), u64::MAX);
        assert_eq!(rig.endpoint.call(&mut caller, numbered(0, 1)), 0);
        rig.endpoint.post(numbered(0, 2));
        rig.endpoint.drain();
        assert_eq!(rig.endpoint.faults(), 6, "{service:?} {capacity} {with_worker}");
        drop(worker);
    });
}

/// Whoever carries an access out, its caller learns when that was.
#[test]
fn the_stages_of_an_access_add_up() {
    const PAUSE: Duration = Duration::from_millis(2);
    every_way(|service, capacity, with_worker| {
        let (device, _) = Journal::new(PAUSE);
        let rig = rig(device, service, capacity);
        let worker = with_worker.then(|| worker(&rig));
        let mut caller = rig.completions.caller(CallerId(0)).unwrap();
        caller.stages = Some(Box::default());
        for _ in 0..3 {
            caller.exit();
            rig.endpoint.call(&mut caller, Access::read(Region::bar(0), 0, Width::B8));
            caller.resume();
        }
        let stages = caller.stages.take().unwrap();
        for stage in Stage::ALL {
            assert_eq!(stages.of(stage).len(), 3, "{service:?} {with_worker} {stage:?}");
        }
        // The histograms keep two digits.
        let least = |stage| Duration::from_nanos(stages.of(stage).min());
        assert!(least(Stage::Device) >= PAUSE * 98 / 100);
        assert!(least(Stage::Total) >= least(Stage::Device));
        drop(worker);
    });
}

#[test]
fn what_is_discarded_is_answered_and_not_done() {
    let (device, log) = Journal::new(Duration::ZERO);
    let rig = rig(device, Service::Adaptive, 8);
    // Somebody claims to serve the queue and does not, so the writes stay.
    rig.bell.awake();
    rig.endpoint.post(numbered(0, 1));
    rig.endpoint.discard();
    assert!(!rig.endpoint.has_work());
    assert!(log.lock().is_empty());
}

/// Callers at work while the worker stops and another starts: nothing is lost, nobody waits for ever.
#[test]
fn workers_come_and_go_under_load() {
    const WRITES: u64 = 4000;
    for service in SERVICES {
        let (device, log) = Journal::new(Duration::ZERO);
        let rig = rig(device, service, 16);
        std::thread::scope(|scope| {
            let producers: Vec<_> = (0..2u16)
                .map(|producer| {
                    let rig = &rig;
                    scope.spawn(move || {
                        let mut caller = rig.completions.caller(CallerId(producer)).unwrap();
                        for n in 0..WRITES {
                            if n % 5 == 0 {
                                rig.endpoint.call(&mut caller, numbered(u64::from(producer), n));
                            } else {
                                rig.endpoint.post(numbered(u64::from(producer), n));
                            }
                        }
                    })
                })
                .collect();
            while producers.iter().any(|producer| !producer.is_finished()) {
                let worker = worker(&rig);
                std::thread::sleep(Duration::from_micros(500));
                worker.stop();
            }
        });
        for producer in 0..2 {
            assert_eq!(values_of(&log, producer), (0..WRITES).collect::<Vec<_>>(), "{service:?}");
        }
    }
}
