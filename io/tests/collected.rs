//! What the kernel has collected comes before what is asked now, in one
//! order with everything else, merged where that changes nothing.
#![cfg(not(loom))]

#[path = "common/collected.rs"]
mod collected;
#[path = "common/rig.rs"]
mod common;

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use collected::{Merger, Ring, Seen, feed};
use common::{Rig, rig};
use parking_lot::Mutex;
use proptest::prelude::*;
use trapline_io::completion::Caller;
use trapline_io::device::Claims;
use trapline_io::endpoint::Service;
use trapline_io::file::FileRegion;
use trapline_io::queue::CallerId;
use trapline_io::ring::{Carriage, probe};
use trapline_io::window::{Mode, Window};
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Device, Fault, Region, Width};

const SERVICES: [Service; 3] = [Service::Inline, Service::Uring, Service::Adaptive];

/// A step of a guest or of its machine.
#[derive(Clone, Copy, Debug)]
enum Step {
    Collect(Access),
    Post(Access),
    Call(Access),
    CallAdmitted(Access),
    Drain,
    WithDevice,
    TryWithDevice,
    Serve,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)]
}

/// A write to VGA: mostly right behind one another, now and then at the end of a page, or a port.
fn write() -> impl Strategy<Value = Access> {
    let memory = (prop_oneof![Just(0xb8000u64), Just(0xa0ff8)], 0..12u64, width(), any::<u64>())
        .prop_map(|(base, at, width, value)| Access::write(Region::VGA, base + at, width, value));
    let port = (0x3d4..0x3d6u64, prop_oneof![Just(Width::B1), Just(Width::B2)], any::<u64>())
        .prop_map(|(port, width, value)| Access::write(Region::VGA, port, width, value));
    prop_oneof![4 => memory, 1 => port]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => write().prop_map(Step::Collect),
        4 => write().prop_map(Step::Post),
        1 => write().prop_map(Step::Call),
        1 => Just(Step::Call(Access::read(Region::VGA, 0x3da, Width::B1))),
        1 => write().prop_map(Step::CallAdmitted),
        1 => Just(Step::Drain),
        1 => Just(Step::WithDevice),
        1 => Just(Step::TryWithDevice),
        2 => Just(Step::Serve),
    ]
}

/// A machine, and all that its guest did so far.
struct Scene {
    rig: Rig,
    ring: Ring,
    seen: collected::Sights,
    caller: Caller,
    issued: Vec<Access>,
}

impl Scene {
    fn new(service: Service, capacity: usize, promised: bool) -> Scene {
        Scene::with(Ring::new(), service, capacity, promised)
    }

    fn with(ring: Ring, service: Service, capacity: usize, promised: bool) -> Scene {
        let device = Merger::default();
        let seen = Arc::clone(&device.seen);
        let rig = rig(device, service, capacity);
        rig.endpoint.feed_from(feed(&ring).0);
        if promised {
            rig.bell.awake();
        }
        let caller = rig.completions.caller(CallerId(0)).unwrap();
        Scene { rig, ring, seen, caller, issued: Vec::new() }
    }

    /// Carries out one step; true if after it everything must have reached the device.
    fn carry_out(&mut self, step: Step) -> bool {
        let endpoint = &self.rig.endpoint;
        match step {
            Step::Collect(access) => {
                self.issued.push(access);
                if !self.ring.write(access) {
                    endpoint.post(access);
                }
                return false;
            }
            Step::Post(access) => {
                self.issued.push(access);
                endpoint.post(access);
                return false;
            }
            Step::Serve => {
                endpoint.serve();
                return false;
            }
            Step::Call(access) => {
                self.issued.push(access);
                endpoint.call(&mut self.caller, access);
            }
            Step::CallAdmitted(access) => {
                self.issued.push(access);
                assert!(endpoint.call_admitted(&mut self.caller, access));
            }
            Step::Drain => endpoint.drain(),
            Step::WithDevice => endpoint.with_device(|_| ()),
            Step::TryWithDevice => assert!(endpoint.try_with_device(|_| ()).is_ok()),
        }
        true
    }

    /// The device saw what was issued, in that order.
    fn check(&self) {
        let pieces = |seen: &[Seen]| seen.iter().flat_map(Seen::pieces).collect::<Vec<_>>();
        let issued: Vec<_> = self.issued.iter().copied().map(Seen::One).collect();
        assert_eq!(pieces(&self.seen.lock()), pieces(&issued));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Any steps: one order, nothing lost, ports alone and as wide as they were ([`Seen::pieces`]).
    #[test]
    fn one_order_for_collected_posted_and_strict(
        service in prop_oneof![Just(Service::Inline), Just(Service::Adaptive)],
        capacity in prop_oneof![Just(1usize), Just(2), Just(5), Just(256)],
        promised in any::<bool>(),
        in_pieces in any::<bool>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let ring = if in_pieces { Ring::of_pieces() } else { Ring::new() };
        let mut scene = Scene::with(ring, service, capacity, promised);
        for step in steps {
            if scene.carry_out(step) {
                scene.check();
            }
        }
        scene.rig.endpoint.drain();
        scene.check();
    }
}

/// A ring full of what KVM cut in pieces holds more writes than it has places, and all come before what asks.
#[test]
fn a_ring_of_pieces_is_empty_before_what_asks() {
    for capacity in [1, 16, 256] {
        let mut scene = Scene::with(Ring::of_pieces(), Service::Adaptive, capacity, true);
        for at in 0..3 * 169 {
            let piece = Access::write(Region::VGA, 0xa0000 + at, Width::B1, at & 0xff);
            assert!(scene.ring.write(piece));
            scene.issued.push(piece);
        }
        scene.carry_out(Step::Call(Access::read(Region::VGA, 0x3da, Width::B1)));
        scene.check();
    }
}

/// A line of text in the ring reaches the device as one run, before the read that asks for it.
#[test]
fn a_line_is_one_run_between_its_neighbours() {
    let mut scene = Scene::new(Service::Adaptive, 256, true);
    let cell = |at: u64| Access::write(Region::VGA, 0xb8000 + 2 * at, Width::B2, 0x0700 | (0x20 + at));
    let cursor = Access::write(Region::VGA, 0x3d4, Width::B2, 0x500f);
    for step in (0..80).map(cell).chain([cursor, cursor]) {
        scene.carry_out(Step::Collect(step));
    }
    scene.carry_out(Step::Call(Access::read(Region::VGA, 0x3da, Width::B1)));
    scene.check();
    let seen = scene.seen.lock();
    assert!(
        matches!(&seen[..], [Seen::Run(0xb8000, bytes), Seen::One(a), Seen::One(b), Seen::One(_)]
        if bytes.len() == 160 && (*a, *b) == (cursor, cursor)),
        "{seen:x?}"
    );
}

/// A guest that keeps writing keeps nobody: one call takes no more than two rings' lengths, though
/// there is always more.
#[test]
fn a_ring_that_never_runs_dry_holds_nobody() {
    struct Endless;
    impl trapline_io::feed::Collected for Endless {
        fn is_empty(&self) -> bool {
            false
        }
        fn pop(&self) -> Option<trapline_io::Trap> {
            let at = trapline_io::Address::Gpa(trapline_io::Gpa(0xb8000));
            Some(trapline_io::Trap { at, width: Width::B1, op: trapline_io::Op::Write(1) })
        }
    }
    for capacity in [1, 16, 256] {
        let scene = Scene::new(Service::Adaptive, capacity, true);
        let (_, space) = feed(&scene.ring);
        let endless =
            trapline_io::feed::Feed::new(Box::new(Endless), &space, trapline_io::space::EndpointId(0));
        endless.set_active(true);
        let rig = rig(Merger::default(), Service::Adaptive, capacity);
        let endless = Arc::new(endless);
        rig.endpoint.feed_from(Arc::clone(&endless));
        let mut caller = rig.completions.caller(CallerId(0)).unwrap();
        rig.endpoint.call(&mut caller, Access::read(Region::VGA, 0x3da, Width::B1));
        let most = trapline_io::feed::RING as u64 + 1;
        assert!((1..=most).contains(&endless.collected()), "{}", endless.collected());
    }
}

/// Has a window that admits writes of even values.
struct Even(Merger);

impl Device for Even {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.0.read(region, offset, width)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.0.write(region, offset, width, value)
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn window(&mut self) -> Option<&mut dyn Window> {
        Some(self)
    }
}

impl Window for Even {
    fn mode(&self) -> Mode {
        Mode::Shadowed
    }
    fn watch(&mut self, _: std::thread::Thread) {}
    fn tick(&mut self, _: Instant) -> Mode {
        Mode::Shadowed
    }
    fn turn(&mut self, _: Mode) {}
    fn regained(&mut self) {}

    fn admits(&self, access: Access) -> bool {
        matches!(access.op, trapline_io::Op::Write(value) if value % 2 == 0)
    }
}

#[test]
fn a_window_is_asked_after_what_was_collected_and_before_the_write() {
    let device = Even(Merger::default());
    let seen = Arc::clone(&device.0.seen);
    let rig = rig(device, Service::Adaptive, 8);
    let ring = Ring::new();
    rig.endpoint.feed_from(feed(&ring).0);
    let mut caller = rig.completions.caller(CallerId(0)).unwrap();
    let port = |value| Access::write(Region::VGA, 0x3c4, Width::B1, value);
    assert!(ring.write(port(1)));
    assert!(!rig.endpoint.call_admitted(&mut caller, port(3)));
    assert_eq!(*seen.lock(), [Seen::One(port(1))], "what came before is done, the write is not");
    assert!(rig.endpoint.call_admitted(&mut caller, port(4)));
    assert_eq!(seen.lock().len(), 2);
}

#[test]
fn what_was_collected_is_discarded_with_the_rest() {
    for capacity in [1, 256] {
        let scene = Scene::new(Service::Adaptive, capacity, true);
        for at in 0..100 {
            assert!(scene.ring.write(Access::write(Region::VGA, 0xb8000 + at, Width::B1, at)));
        }
        scene.rig.endpoint.discard();
        scene.rig.endpoint.drain();
        assert!(scene.seen.lock().is_empty() && !scene.rig.endpoint.has_work());
    }
}

/// A function of which BAR 0 is a file, here a pipe, and the window merges. Whenever something reaches
/// the window, what went into the pipe since the last time is noted.
struct Both {
    bar: FileRegion,
    out: PipeReader,
    merger: Merger,
    piped: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Both {
    fn note_pipe(&mut self) {
        let mut bytes = [0; 4096];
        let len = self.out.read(&mut bytes).unwrap_or(0);
        self.piped.lock().push(bytes[..len].to_vec());
    }
}

impl Device for Both {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::bar(0) {
            let written = rustix::io::write(&self.bar.fd, &value.to_le_bytes()[..width.bytes()]);
            return written.map(|_| ()).map_err(|_| Fault::Failed);
        }
        self.note_pipe();
        self.merger.write(region, offset, width, value)
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn merges(&self, region: Region, offset: u64) -> bool {
        self.merger.merges(region, offset)
    }
    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.note_pipe();
        self.merger.write_run(region, offset, bytes)
    }
    fn file(&self, region: Region) -> Option<&FileRegion> {
        (region == Region::bar(0)).then_some(&self.bar)
    }
}

/// What the window saw, and what went into the pipe before each, when the worker serves the queue in
/// one turn, by batches to the pipe, or else whoever drains it.
fn served(by_worker: bool, writes: &[Access]) -> (Vec<Seen>, Vec<Vec<u8>>) {
    let (out, into) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&out, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert_eq!(probe(&into).unwrap(), Carriage::Inline, "else there are no batches");
    let bar = FileRegion { fd: Arc::new(OwnedFd::from(into)), offset: 0, len: 4096 };
    let device = Both { bar, out, merger: Merger::default(), piped: Arc::default() };
    let (seen, piped) = (Arc::clone(&device.merger.seen), Arc::clone(&device.piped));
    let rig = rig(device, Service::Adaptive, 256);
    let serve = || {
        let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
        Worker::start("test", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap()
    };
    let worker = by_worker.then(serve);
    if !by_worker {
        // Somebody claims to serve the queue, so the writes stay.
        rig.bell.awake();
    }
    rig.endpoint.with_device(|_| writes.iter().for_each(|write| rig.endpoint.post(*write)));
    let begun = Instant::now();
    while by_worker && rig.endpoint.has_work() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    rig.endpoint.drain();
    drop(worker);
    let seen = seen.lock().clone();
    let piped = piped.lock().clone();
    (seen, piped)
}

#[test]
fn a_worker_makes_the_same_runs_in_the_same_order() {
    let bar = |value| Access::write(Region::bar(0), 0, Width::B1, value);
    let cell = |at: u64| Access::write(Region::VGA, 0xb8000 + 2 * at, Width::B2, 0x700 + at);
    let port = Access::write(Region::VGA, 0x3d4, Width::B2, 0x120e);
    let mut writes = vec![bar(1), cell(0), cell(1), bar(2), bar(3), cell(2), cell(3), cell(4), port, port];
    writes.extend([cell(5), bar(4), cell(6), cell(8), port, cell(9), cell(10), bar(5), bar(6)]);
    let (seen, piped) = served(false, &writes);
    assert_eq!(seen.len(), 9, "{seen:x?}");
    assert_eq!(piped.concat(), [1, 2, 3, 4]);
    assert_eq!(served(true, &writes), (seen, piped));
}

/// Two vCPUs hand a baton to and fro; what each writes is collected, posted or strict in turn. Beside
/// them a clock drains. One order, whoever carries it out.
#[test]
fn one_order_with_real_threads() {
    const ROUNDS: u64 = 140;
    for service in SERVICES {
        for (capacity, with_worker) in [(1, false), (1, true), (16, true), (256, false), (256, true)] {
            let scene = Scene::new(service, capacity, false);
            let (rig, ring) = (&scene.rig, &scene.ring);
            let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
            let worker = with_worker
                .then(|| Worker::start("test", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap());
            let baton = AtomicU64::new(0);
            let port = |value| Access::write(Region::VGA, 0x3d4, Width::B2, value);
            std::thread::scope(|scope| {
                for thread in 0..2u16 {
                    let baton = &baton;
                    scope.spawn(move || {
                        let mut caller = rig.completions.caller(CallerId(thread + 1)).unwrap();
                        for round in 0..ROUNDS {
                            let turn = 2 * round + u64::from(thread);
                            while baton.load(Ordering::Acquire) != turn {
                                std::thread::yield_now();
                            }
                            match round % 7 {
                                0 => rig.endpoint.post(port(turn)),
                                1 => _ = rig.endpoint.call(&mut caller, port(turn)),
                                _ if ring.write(port(turn)) => {}
                                _ => rig.endpoint.post(port(turn)),
                            }
                            baton.store(turn + 1, Ordering::Release);
                        }
                    });
                }
                let baton = &baton;
                scope.spawn(move || {
                    while baton.load(Ordering::Acquire) < 2 * ROUNDS {
                        rig.endpoint.drain();
                        std::thread::yield_now();
                    }
                });
            });
            rig.endpoint.drain();
            drop(worker);
            let expected: Vec<_> = (0..2 * ROUNDS).map(|turn| Seen::One(port(turn))).collect();
            assert_eq!(*scene.seen.lock(), expected, "{service:?} {capacity} {with_worker}");
        }
    }
}
