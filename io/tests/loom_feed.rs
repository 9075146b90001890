//! Collected writes under every order of the threads' steps: whoever asks the function something sees
//! every write that it knows to have been made, whichever thread took that out of the ring, and each
//! is done once, in its maker's order.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p trapline-io --release --test loom_feed`
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::thread;
use trapline_io::completion::Completions;
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::rounds::Rounds;
use trapline_io::space::{EndpointId, SpaceBuilder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Region, Span, Trap, Width};

/// See `loom_endpoint`.
const PREEMPTIONS: usize = 2;

const SERVICES: [Service; 3] = [Service::Inline, Service::Uring, Service::Adaptive];

const WINDOW: u64 = 0xb8000;

/// Every write in order; a read tells how many there were. See `loom_endpoint`.
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

/// KVM's ring: the kernel moves `last` under a lock of its own, we move `first`. It never comes round
/// in these tests.
struct Ring {
    entries: [AtomicU64; 4],
    first: AtomicU32,
    last: AtomicU32,
    kernel: loom::sync::Mutex<()>,
}

impl Ring {
    fn new() -> Arc<Ring> {
        Arc::new(Ring {
            entries: std::array::from_fn(|_| AtomicU64::new(0)),
            first: AtomicU32::new(0),
            last: AtomicU32::new(0),
            kernel: loom::sync::Mutex::new(()),
        })
    }

    /// The kernel collects a write of the guest.
    fn write(&self, value: u64) {
        let _kernel = self.kernel.lock().unwrap();
        let last = self.last.load(Ordering::Relaxed);
        self.entries[last as usize].store(value, Ordering::Relaxed);
        self.last.store(last + 1, Ordering::Release);
    }
}

/// The machine's end of the ring.
struct Mapped(Arc<Ring>);

impl Collected for Mapped {
    fn is_empty(&self) -> bool {
        self.0.last.load(Ordering::Acquire) == self.0.first.load(Ordering::Acquire)
    }

    fn pop(&self) -> Option<Trap> {
        let first = self.0.first.load(Ordering::Relaxed);
        if first == self.0.last.load(Ordering::Acquire) {
            return None;
        }
        let value = self.0.entries[first as usize].load(Ordering::Relaxed);
        self.0.first.store(first + 1, Ordering::Release);
        Some(Trap { at: Address::Gpa(Gpa(WINDOW)), width: Width::B8, op: Op::Write(value) })
    }
}

#[derive(Clone)]
struct Rig {
    endpoint: Arc<Endpoint>,
    completions: Completions,
    bell: Arc<Doorbell>,
    ring: Arc<Ring>,
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
        let mut builder = SpaceBuilder::default();
        let window = Range::Memory(Span::of_len(Gpa(WINDOW), 0x8000).unwrap());
        builder.claim(EndpointId(0), &Claim::region(window, Region::VGA, WINDOW));
        let ring = Ring::new();
        let space = Published::new(builder.build());
        let feed = Feed::new(Box::new(Mapped(Arc::clone(&ring))), &space, EndpointId(0));
        feed.set_active(true);
        endpoint.feed_from(Arc::new(feed));
        Rig { endpoint: Arc::new(endpoint), completions, bell, ring, log }
    }

    fn call(&self, caller: u16, access: Access) -> u64 {
        self.endpoint.call(&mut self.completions.caller(CallerId(caller)).unwrap(), access)
    }

    /// What one maker's writes were, in the order in which the device saw them.
    fn of(&self, tens: u64) -> Vec<u64> {
        self.log.lock().unwrap().iter().copied().filter(|value| value / 10 == tens).collect()
    }
}

fn write(value: u64) -> Access {
    Access::write(Region::VGA, WINDOW, Width::B8, value)
}

fn read() -> Access {
    Access::read(Region::VGA, WINDOW, Width::B8)
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

/// Both read; the one knows of its own collected write, the other of it once it was told. Either may
/// have taken the write out while the other comes.
fn told(rig: &Rig) {
    let told = Arc::new(AtomicBool::new(false));
    let maker = {
        let (rig, told) = (rig.clone(), Arc::clone(&told));
        thread::spawn(move || {
            rig.ring.write(1);
            told.store(true, Ordering::Release);
            assert_eq!(rig.call(1, read()), 1, "a read overtook a write of its own maker");
        })
    };
    let knew = told.load(Ordering::Acquire);
    let seen = rig.call(0, read());
    assert!(!knew || seen == 1, "a read overtook a write that its maker knew of");
    maker.join().unwrap();
}

#[test]
fn a_read_sees_what_was_collected() {
    for service in SERVICES {
        for capacity in [1, 2] {
            check(service, capacity, PREEMPTIONS + 1, told);
        }
    }
}

/// As above where what is taken out is two writes and the queue holds one.
#[test]
fn what_finds_no_room_is_not_overtaken() {
    for service in SERVICES {
        check(service, 1, PREEMPTIONS, |rig| {
            rig.ring.write(10);
            let other = {
                let rig = rig.clone();
                thread::spawn(move || {
                    rig.ring.write(11);
                    assert_eq!(rig.call(1, read()), 2);
                })
            };
            assert!(rig.call(0, read()) >= 1);
            other.join().unwrap();
            assert_eq!(rig.of(1), [10, 11]);
        });
    }
}

/// Two makers whose writes are collected, posted and strict in turn.
#[test]
fn two_makers_keep_their_orders() {
    for service in SERVICES {
        for capacity in [1, 2] {
            check(service, capacity, PREEMPTIONS, |rig| {
                let other = {
                    let rig = rig.clone();
                    thread::spawn(move || {
                        rig.ring.write(10);
                        assert_eq!(rig.call(1, write(11)), 0);
                    })
                };
                rig.ring.write(20);
                rig.endpoint.post(write(21));
                rig.ring.write(22);
                rig.endpoint.drain();
                assert_eq!(rig.of(2), [20, 21, 22]);
                other.join().unwrap();
                assert_eq!(rig.of(1), [10, 11]);
            });
        }
    }
}

/// A clock that waits for no token, beside a maker.
#[test]
fn a_clock_drains_beside_a_maker() {
    for capacity in [1, 2] {
        check(Service::Adaptive, capacity, PREEMPTIONS, |rig| {
            let clock = {
                let rig = rig.clone();
                thread::spawn(move || {
                    let _ = rig.endpoint.try_with_device(|_| ());
                })
            };
            rig.ring.write(10);
            rig.ring.write(11);
            let mut caller = rig.completions.caller(CallerId(0)).unwrap();
            assert!(rig.endpoint.call_admitted(&mut caller, write(12)));
            assert_eq!(rig.of(1), [10, 11, 12]);
            clock.join().unwrap();
        });
    }
}

/// Something is posted beside a worker, which collects nothing itself, and goes in the end.
#[test]
fn a_worker_serves_what_others_took_out() {
    for service in SERVICES {
        check(service, 1, PREEMPTIONS, |rig| {
            let rounds = Rounds::begin(Arc::clone(&rig.bell), vec![Arc::clone(&rig.endpoint)]);
            let worker = thread::spawn(move || {
                rounds.serve();
                rounds.finish();
            });
            rig.ring.write(10);
            rig.endpoint.post(write(11));
            assert_eq!(rig.call(0, write(12)), 0);
            worker.join().unwrap();
            assert_eq!(*rig.log.lock().unwrap(), [10, 11, 12]);
        });
    }
}
