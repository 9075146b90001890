//! The hand-over of accesses under every order of the threads' steps: nothing lost, nothing done
//! twice, nobody waiting for ever (loom reports that as a deadlock), one order for all producers.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p trapline-io --release --test loom_endpoint`
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use trapline_io::completion::Completions;
use trapline_io::device::Claims;
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::queue::CallerId;
use trapline_io::rounds::Rounds;
use trapline_io::{Access, Device, Fault, Region, Width};

/// How often a thread may be interrupted where it would not give way by itself. With 2 all tests of
/// this file take about 20 seconds of one processor, nearly all of it in `two_producers_and_a_worker`
/// (and those of `loom_doorbell` 4); with 3 that one alone takes many minutes.
const PREEMPTIONS: usize = 2;

const SERVICES: [Service; 3] = [Service::Inline, Service::Uring, Service::Adaptive];

/// Every write in order; a read tells how many there were. A plain std lock: it is only touched with
/// the token held, and loom need not see it.
#[derive(Default)]
struct Journal(Arc<Mutex<Vec<u64>>>);

impl Device for Journal {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, value: u64) -> Result<(), Fault> {
        self.0.lock().unwrap().push(value);
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

#[derive(Clone)]
struct Rig {
    endpoint: Arc<Endpoint>,
    completions: Completions,
    bell: Arc<Doorbell>,
    log: Arc<Mutex<Vec<u64>>>,
}

impl Rig {
    fn new(service: Service, capacity: usize) -> Rig {
        let completions = Completions::new(2);
        let bell = Arc::new(Doorbell::new().unwrap());
        let device = Journal::default();
        let log = Arc::clone(&device.0);
        let endpoint = Endpoint::new("loom", Box::new(device), completions.clone(), Arc::clone(&bell))
            .with_service(service)
            .with_capacity(capacity);
        Rig { endpoint: Arc::new(endpoint), completions, bell, log }
    }

    fn call(&self, caller: u16, access: Access) -> u64 {
        self.endpoint.call(&mut self.completions.caller(CallerId(caller)).unwrap(), access)
    }
}

fn write(value: u64) -> Access {
    Access::write(Region::bar(0), 0, Width::B8, value)
}

fn read() -> Access {
    Access::read(Region::bar(0), 0, Width::B8)
}

/// What [`trapline_io::worker`] does, on a thread of loom's.
struct Worker {
    thread: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    bell: Arc<Doorbell>,
}

impl Worker {
    fn start(rig: &Rig) -> Worker {
        let rounds = Rounds::begin(Arc::clone(&rig.bell), vec![Arc::clone(&rig.endpoint)]);
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, bell) = (Arc::clone(&stopping), Arc::clone(&rig.bell));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if rounds.serve() {
                    continue;
                }
                if rounds.may_sleep() {
                    bell.wait();
                    rounds.woken();
                } else {
                    thread::yield_now();
                }
            }
            rounds.finish();
        });
        Worker { thread, stopping, bell: Arc::clone(&rig.bell) }
    }

    fn ask(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.wake();
    }

    fn stop(self) {
        self.ask();
        self.thread.join().unwrap();
    }
}

fn check(
    service: Service,
    capacity: usize,
    preemptions: usize,
    scene: impl Fn(&Rig) + Sync + Send + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || scene(&Rig::new(service, capacity)));
}

/// One thread posts and tells; the other, if told, reads: it must see the write done.
fn told(rig: &Rig) {
    let told = Arc::new(AtomicBool::new(false));
    let poster = {
        let (rig, told) = (rig.clone(), Arc::clone(&told));
        thread::spawn(move || {
            rig.endpoint.post(write(1));
            told.store(true, Ordering::Release);
        })
    };
    let knew = told.load(Ordering::Acquire);
    let seen = rig.call(0, read());
    assert!(!knew || seen == 1, "a read overtook a write that its maker knew of");
    poster.join().unwrap();
}

/// Two producers of two accesses each. Afterwards everything is done once, each one's in its order.
fn contended(rig: &Rig) {
    let other = {
        let rig = rig.clone();
        thread::spawn(move || {
            rig.endpoint.post(write(10));
            assert_eq!(rig.call(1, write(11)), 0);
        })
    };
    assert_eq!(rig.call(0, write(20)), 0);
    rig.endpoint.post(write(21));
    other.join().unwrap();
}

fn assert_done_once(rig: &Rig) {
    let log = rig.log.lock().unwrap();
    let of = |tens: u64| log.iter().copied().filter(|value| value / 10 == tens).collect::<Vec<_>>();
    assert_eq!(log.len(), 4);
    assert_eq!(of(1), [10, 11]);
    assert_eq!(of(2), [20, 21]);
}

#[test]
fn a_read_sees_what_it_was_told_of() {
    for service in SERVICES {
        check(service, 2, PREEMPTIONS + 1, told);
    }
}

#[test]
fn a_read_sees_what_it_was_told_of_with_a_worker() {
    for service in SERVICES {
        for capacity in [1, 2] {
            check(service, capacity, PREEMPTIONS, |rig| {
                let worker = Worker::start(rig);
                told(rig);
                worker.stop();
            });
        }
    }
}

#[test]
fn two_producers_without_a_worker() {
    for service in SERVICES {
        for capacity in [1, 2] {
            check(service, capacity, PREEMPTIONS + 1, |rig| {
                contended(rig);
                assert_done_once(rig);
            });
        }
    }
}

#[test]
fn two_producers_and_a_worker() {
    let ways = [(Service::Inline, 2), (Service::Uring, 1), (Service::Adaptive, 1), (Service::Adaptive, 2)];
    for (service, capacity) in ways {
        check(service, capacity, PREEMPTIONS, |rig| {
            let worker = Worker::start(rig);
            contended(rig);
            worker.stop();
            assert_done_once(rig);
        });
    }
}

/// The worker stops while a caller counts on it.
#[test]
fn a_worker_stops_under_a_caller() {
    for service in SERVICES {
        check(service, 1, PREEMPTIONS, |rig| {
            let worker = Worker::start(rig);
            let caller = {
                let rig = rig.clone();
                thread::spawn(move || {
                    rig.endpoint.post(write(10));
                    assert_eq!(rig.call(1, read()), 1);
                })
            };
            worker.stop();
            caller.join().unwrap();
            assert_eq!(*rig.log.lock().unwrap(), [10]);
        });
    }
}

/// One caller counts on the worker while the other holds the token and the worker goes: the worker
/// must wait for that token.
#[test]
fn a_worker_stops_between_two_callers() {
    for service in SERVICES {
        check(service, 2, PREEMPTIONS, |rig| {
            let worker = Worker::start(rig);
            let other = {
                let rig = rig.clone();
                thread::spawn(move || assert_eq!(rig.call(1, write(10)), 0))
            };
            worker.ask();
            assert_eq!(rig.call(0, write(20)), 0);
            other.join().unwrap();
            worker.stop();
            assert_eq!(rig.log.lock().unwrap().len(), 2);
        });
    }
}
