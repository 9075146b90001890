//! What is in the lanes of a traced machine is what its device saw, in the same order: inline, queued,
//! posted, collected, merged and in batches alike.
#![cfg(not(loom))]

#[path = "common/collected.rs"]
mod collected;
#[path = "common/rig.rs"]
mod common;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use collected::{Merger, Ring, Seen, feed};
use common::{Rig, rig};
use proptest::prelude::*;
use trapline_io::completion::Caller;
use trapline_io::device::{Claim, Range, Retire};
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::stages::Stages;
use trapline_io::trace::{How, Lane, Record, Recorder};
use trapline_io::worker::{Served, Worker};
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Region, Span, Trap, Width};

const FUNCTION: EndpointId = EndpointId(0);

struct Fixed;

impl Topology for Fixed {
    fn change(&self, _: &mut Caller, _: EndpointId, _: Access) {}
}

/// A function with the window, posted, and ports, strict; one vCPU; a ring.
struct Scene {
    rig: Rig,
    path: Path,
    ring: Ring,
    seen: collected::Sights,
    /// First that of the function: where two moments are the same it came first.
    lanes: [Arc<Lane>; 2],
}

impl Scene {
    fn new(service: Service) -> Scene {
        let device = Merger::default();
        let (seen, ring) = (Arc::clone(&device.seen), Ring::new());
        let (rig, path, lanes) = traced(device, service, 8);
        rig.endpoint.feed_from(feed(&ring).0);
        Scene { rig, path, ring, seen, lanes }
    }

    fn exit(&mut self, trap: Trap) {
        self.path.caller.exit();
        self.path.carry_out(trap);
        self.path.caller.resume();
    }
}

/// The window posted and ports strict as regions of `device`; lanes of the function and of vCPU 0.
fn traced(device: impl Device + 'static, service: Service, capacity: usize) -> (Rig, Path, [Arc<Lane>; 2]) {
    let rig = rig(device, service, capacity);
    let lanes = [(); 2].map(|()| Arc::new(Lane::new(4096)));
    rig.endpoint.record(Recorder::of_function(FUNCTION, Arc::clone(&lanes[0]), Arc::default()));
    let mut caller = rig.completions.caller(CallerId(0)).unwrap();
    let recorder = Recorder::of_vcpu(0, Arc::clone(&lanes[1]), Arc::default());
    caller.stages = Some(Box::new(Stages::tracing(recorder)));
    let mut builder = SpaceBuilder::default();
    let window = Range::Memory(Span::new(Gpa(0xa_0000), Gpa(0xb_ffff)).unwrap());
    builder.claim(FUNCTION, &Claim::region(window, Region::VGA, 0xa_0000).retire(Retire::Posted));
    let ports = Range::Ports(Span::new(Port(0x3c0), Port(0x3df)).unwrap());
    builder.claim(FUNCTION, &Claim::region(ports, Region::VGA, 0x3c0));
    let space = Published::new(builder.build());
    let endpoints: Arc<[Arc<Endpoint>]> = Arc::new([Arc::clone(&rig.endpoint)]);
    let path =
        Path::new(space.reader(), Arc::new(ConfigLatch::default()), endpoints, Arc::new(Fixed), caller);
    (rig, path, lanes)
}

/// All records that reach the device, in its order.
fn order(lanes: &[Arc<Lane>]) -> Vec<Record> {
    let mut all = Vec::new();
    for lane in lanes {
        lane.take(usize::MAX, |record| all.push(record));
        assert_eq!(lane.lost(), 0);
    }
    all.retain(Record::reaches_device);
    all.sort_by_key(Record::moment);
    all
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Collect(Access),
    Post(Access),
    Call(Op),
    Serve,
    Drain,
}

/// A write to the window: mostly right behind one another.
fn write() -> impl Strategy<Value = Access> {
    let width = prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)];
    (0..12_u64, width, any::<u64>())
        .prop_map(|(at, width, value)| Access::write(Region::VGA, 0xb_8000 + at, width, value))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => write().prop_map(Step::Collect),
        4 => write().prop_map(Step::Post),
        2 => (0..256_u64).prop_map(|value| Step::Call(Op::Write(value))),
        1 => Just(Step::Call(Op::Read)),
        1 => Just(Step::Serve),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn the_trace_has_what_the_device_saw(
        steps in prop::collection::vec(step(), 0..60),
        service in prop_oneof![Just(Service::Inline), Just(Service::Adaptive), Just(Service::Uring)],
        promised: bool,
    ) {
        let mut scene = Scene::new(service);
        if promised {
            // Somebody will serve the queue: the test does, now and then.
            scene.rig.bell.awake();
        }
        // A call that only a worker answers would wait for one.
        let calls = !promised || service != Service::Uring;
        let (mut collected, mut posted) = (0, 0);
        for step in steps {
            match step {
                Step::Collect(access) => collected += usize::from(scene.ring.write(access)),
                Step::Post(access) => {
                    let at = Address::Gpa(Gpa(access.offset));
                    scene.exit(Trap { at, width: access.width, op: access.op });
                    posted += 1;
                }
                Step::Call(op) if calls => scene.exit(Trap { at: Address::Port(Port(0x3c4)), width: Width::B1, op }),
                Step::Call(_) => {}
                Step::Serve => {
                    scene.rig.endpoint.serve();
                }
                Step::Drain => scene.rig.endpoint.drain(),
            }
        }
        scene.rig.bell.leave();
        scene.rig.endpoint.drain();
        let records = order(&scene.lanes);
        let pieces = |access: Access| Seen::One(access).pieces();
        let traced: Vec<Access> = records.iter().flat_map(|record| pieces(record.access)).collect();
        let seen: Vec<Access> = scene.seen.lock().iter().flat_map(Seen::pieces).collect();
        prop_assert_eq!(traced, seen);
        let count = |how| records.iter().filter(|record| record.how == how).count();
        prop_assert_eq!((count(How::Collected), count(How::Posted)), (collected, posted));
    }
}

/// What a vCPU waits for while another thread carries it out.
#[test]
fn a_queued_access_is_told_apart() {
    let (device, _) = common::Journal::new(std::time::Duration::ZERO);
    let (rig, mut path, lanes) = traced(device, Service::Uring, 8);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let worker = Worker::start("queued", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap();
    path.caller.exit();
    path.carry_out(Trap { at: Address::Port(Port(0x3c0)), width: Width::B1, op: Op::Read });
    path.caller.resume();
    worker.stop();
    let records = order(&lanes);
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].how, records[0].vcpu), (How::Queued, Some(0)));
    assert!(records[0].push <= records[0].start && records[0].start <= records[0].end);
}

/// What the worker gives to the kernel in batches does not pass the device.
#[test]
fn writes_that_leave_in_batches_are_recorded() {
    let fd = rustix::fs::memfd_create("traced", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 0xc_0000).unwrap();
    let fd: Arc<OwnedFd> = Arc::new(fd);
    let region = FileRegion { fd: Arc::clone(&fd), offset: 0, len: 0xc_0000 };
    let device = FileDevice::new().with_region(Region::VGA, region);
    let (rig, mut path, lanes) = traced(device, Service::Adaptive, 256);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let worker = Worker::start("batches", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap();
    for value in 0..100 {
        path.caller.exit();
        path.carry_out(Trap { at: Address::Gpa(Gpa(0xa_0000)), width: Width::B2, op: Op::Write(value) });
        path.caller.resume();
    }
    worker.stop();
    let records = order(&lanes);
    assert_eq!(records.iter().map(|record| record.value).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert!(records.iter().all(|record| record.how == How::Posted && record.vcpu.is_none()));
    assert!(records.iter().all(|record| record.at == Some(Address::Gpa(Gpa(0xa_0000)))));
}
