//! Lanes against a queue that forgets nothing, and what a path records of what its guest did.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proptest::prelude::*;
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Range, Retire};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::stages::{Stage, Stages};
use trapline_io::trace::{Filter, How, Lane, Record, Recorder, Rule};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)]
}

fn moment() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(0..u32::MAX)
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        Just(How::Inline),
        Just(How::Queued),
        Just(How::Posted),
        Just(How::Collected),
        Just(How::Topology),
        Just(How::Latch),
        Just(How::Unclaimed)
    ]
}

fn at() -> impl Strategy<Value = Option<Address>> {
    prop_oneof![
        Just(None),
        any::<u16>().prop_map(|port| Some(Address::Port(Port(port)))),
        any::<u64>().prop_map(|gpa| Some(Address::Gpa(Gpa(gpa))))
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let moments = (any::<u64>(), moment(), moment(), moment(), moment());
    let who = (prop::option::of(0..u16::MAX), at(), prop::option::of(0..u16::MAX), how());
    let what = (any::<u8>(), any::<u64>(), width(), any::<u64>(), any::<bool>());
    (moments, who, what).prop_map(|(moments, (vcpu, at, function, how), what)| {
        let (time, push, start, end, resume) = moments;
        let (region, offset, width, value, is_write) = what;
        let op = if is_write { Op::Write(value) } else { Op::Read };
        let access = Access { region: Region(region), width, offset, op };
        let function = function.map(EndpointId);
        Record { time, push, start, end, resume, vcpu, at, function, access, value, how }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Push(Box<Record>),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => record().prop_map(|record| Step::Push(Box::new(record))),
        1 => (0..12_usize).prop_map(Step::Take)
    ]
}

proptest! {
    #[test]
    fn a_lane_is_a_queue_that_counts_what_it_loses(
        capacity in 1..20_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let lane = Lane::new(capacity);
        prop_assert!(lane.capacity() >= capacity);
        let (mut model, mut lost) = (VecDeque::new(), 0);
        for step in steps {
            match step {
                Step::Push(record) if model.len() < lane.capacity() => {
                    prop_assert!(lane.push(&record));
                    model.push_back(*record);
                }
                Step::Push(record) => {
                    prop_assert!(!lane.push(&record));
                    lost += 1;
                }
                Step::Take(most) => {
                    let mut taken = Vec::new();
                    let count = lane.take(most, |record| taken.push(record));
                    prop_assert_eq!(count, taken.len());
                    let expected: Vec<Record> = model.drain(..most.min(model.len())).collect();
                    prop_assert_eq!(taken, expected);
                }
            }
            prop_assert_eq!(lane.lost(), lost);
        }
    }
}

/// Every quarter of a ring wakes the consumer, without anybody waiting for it.
#[test]
fn a_consumer_that_sleeps_is_woken_before_the_ring_is_full() {
    let lane = Arc::new(Lane::new(64));
    lane.wake(std::thread::current());
    let producer = {
        let lane = Arc::clone(&lane);
        std::thread::spawn(move || {
            for number in 0..17 {
                assert!(lane.push(&plain(number)));
            }
        })
    };
    let mut taken = 0;
    while taken < 16 {
        std::thread::park_timeout(std::time::Duration::from_secs(60));
        taken += lane.take(usize::MAX, |_| {});
    }
    producer.join().unwrap();
}

fn plain(time: u64) -> Record {
    Record {
        time,
        push: None,
        start: None,
        end: None,
        resume: None,
        vcpu: Some(0),
        at: None,
        function: None,
        access: Access::read(Region(0), 0, Width::B1),
        value: 0,
        how: How::Unclaimed,
    }
}

/// Reads give the offset.
struct Offsets;

impl Device for Offsets {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        Ok(offset)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        let memory = |first, len| Range::Memory(Span::of_len(Gpa(first), len).unwrap());
        let posted = Claim::region(memory(0x1000, 16), Region::bar(1), 0x20).retire(Retire::Posted);
        let topology = Claim::region(memory(0x2000, 16), Region::bar(2), 0).retire(Retire::Topology);
        Claims {
            ranges: vec![Claim::region(memory(0, 16), Region::bar(0), 0x10), posted, topology],
            bridge: None,
        }
    }
}

/// Carries the write out and nothing else.
struct Plain(Arc<[Arc<Endpoint>]>);

impl Topology for Plain {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        self.0[usize::from(endpoint.0)].call(caller, access);
    }
}

/// A path to [`Offsets`], function 0, recorded in the lane.
fn path(filter: Filter) -> (Path, Arc<Lane>) {
    let completions = Completions::new(1);
    let mut builder = SpaceBuilder::default();
    for claim in Offsets.claims().ranges {
        builder.claim(EndpointId(0), &claim);
    }
    let bell = Arc::new(Doorbell::new().unwrap());
    let endpoint = Endpoint::new("offsets", Box::new(Offsets), completions.clone(), bell);
    let endpoints: Arc<[Arc<Endpoint>]> = Arc::new([Arc::new(endpoint)]);
    let mut caller = completions.caller(CallerId(0)).unwrap();
    let lane = Arc::new(Lane::new(64));
    let recorder = Recorder::of_vcpu(3, Arc::clone(&lane), Arc::new(filter));
    caller.stages = Some(Box::new(Stages::tracing(recorder)));
    let space = Published::new(builder.build());
    let topology = Arc::new(Plain(Arc::clone(&endpoints)));
    (Path::new(space.reader(), Arc::new(ConfigLatch::default()), endpoints, topology, caller), lane)
}

fn trap(gpa: u64, width: Width, op: Op) -> Trap {
    Trap { at: Address::Gpa(Gpa(gpa)), width, op }
}

fn exits(path: &mut Path, traps: &[Trap]) {
    path.caller.exit();
    for trap in traps {
        path.carry_out(*trap);
    }
    path.caller.resume();
}

fn records(lane: &Lane) -> Vec<Record> {
    let mut records = Vec::new();
    lane.take(usize::MAX, |record| records.push(record));
    records
}

#[test]
fn each_access_is_recorded_as_it_was_carried_out() {
    let (mut path, lane) = path(Filter::default());
    exits(&mut path, &[trap(4, Width::B4, Op::Read)]);
    exits(&mut path, &[trap(0x1008, Width::B8, Op::Write(7))]);
    exits(&mut path, &[trap(0x2001, Width::B1, Op::Write(8))]);
    exits(&mut path, &[trap(0x3000, Width::B2, Op::Read)]);
    path.caller.resume();
    let found = records(&lane);
    let seen = |record: &Record| {
        let target = record.function.map(|_| (record.access.region, record.access.offset));
        (record.how, record.at, record.access.width, target, record.value)
    };
    let at = |gpa| Some(Address::Gpa(Gpa(gpa)));
    let expected = [
        (How::Inline, at(4), Width::B4, Some((Region::bar(0), 0x14)), 0x14),
        (How::Posted, at(0x1008), Width::B8, Some((Region::bar(1), 0x28)), 7),
        (How::Topology, at(0x2001), Width::B1, Some((Region::bar(2), 1)), 8),
        (How::Unclaimed, at(0x3000), Width::B2, None, 0xffff),
    ];
    assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), expected);
    assert!(found.iter().all(|record| record.vcpu == Some(3) && record.resume.is_some()));
    assert!(found.is_sorted_by_key(Record::moment));
    let has = |record: &Record| [record.push, record.start, record.end].map(|moment| moment.is_some());
    let moments: Vec<_> = found.iter().map(has).collect();
    assert_eq!(moments, [[true; 3], [true, false, false], [true; 3], [false; 3]]);
    let order = |record: &Record| {
        record.push <= record.start && record.start <= record.end && record.end <= record.resume
    };
    assert!(order(&found[0]) && order(&found[2]));
    let reaching: Vec<bool> = found.iter().map(Record::reaches_device).collect();
    assert_eq!(reaching, [true, false, true, false]);
}

/// An exit of several elements, and an access that two ranges share: each has a record of its own.
#[test]
fn every_part_of_an_exit_is_recorded() {
    let (mut path, lane) = path(Filter::default());
    exits(&mut path, &[trap(0, Width::B1, Op::Write(1)), trap(0, Width::B1, Op::Write(2))]);
    assert_eq!(lane.busy_since(), None);
    exits(&mut path, &[trap(0xe, Width::B4, Op::Write(0x4433_2211))]);
    let found = records(&lane);
    let values: Vec<_> = found.iter().map(|record| (record.access.width, record.value)).collect();
    assert_eq!(values, [(Width::B1, 1), (Width::B1, 2), (Width::B2, 0x2211), (Width::B2, 0x4433)]);
    assert_eq!((found[2].how, found[3].how), (How::Inline, How::Unclaimed));
    assert!(found[0].end < found[1].start, "the second has moments of its own");
}

#[test]
fn an_access_under_way_is_known_and_a_last_one_kept() {
    let (mut path, lane) = path(Filter::default());
    path.caller.exit();
    assert!(lane.busy_since().is_some());
    path.carry_out(trap(0, Width::B1, Op::Read));
    assert_eq!(records(&lane).len(), 0, "the resume is still to come");
    drop(path);
    assert_eq!(records(&lane).len(), 1);
    assert_eq!(lane.busy_since(), None);
}

/// Sees whether a write is known to be under way while it is.
struct Looks {
    lane: Arc<Lane>,
    seen: Arc<AtomicBool>,
}

impl Device for Looks {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        self.seen.store(self.lane.busy_since().is_some(), Relaxed);
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

#[test]
fn a_posted_write_under_way_is_known_too() {
    for filter in
        [Filter::default(), Filter::new(vec![Rule { region: Some(Region::ROM), ..Rule::default() }])]
    {
        let (lane, seen) = (Arc::new(Lane::new(8)), Arc::new(AtomicBool::new(false)));
        let device = Looks { lane: Arc::clone(&lane), seen: Arc::clone(&seen) };
        let bell = Arc::new(Doorbell::new().unwrap());
        let endpoint = Endpoint::new("looks", Box::new(device), Completions::new(1), bell);
        endpoint.record(Recorder::of_function(EndpointId(0), Arc::clone(&lane), Arc::new(filter)));
        endpoint.post(Access::write(Region::bar(1), 0, Width::B1, 7));
        assert!(seen.load(Relaxed), "what is younger than this write would be written before it");
        assert_eq!(lane.busy_since(), None);
    }
}

#[test]
fn what_the_filter_does_not_want_makes_no_record() {
    let rule = Rule { region: Some(Region::bar(1)), ..Rule::default() };
    let (mut path, lane) = path(Filter::new(vec![rule]));
    exits(&mut path, &[trap(0, Width::B1, Op::Read)]);
    exits(&mut path, &[trap(0x1000, Width::B1, Op::Write(9))]);
    exits(&mut path, &[trap(0x9000, Width::B1, Op::Write(9))]);
    assert_eq!(records(&lane).iter().map(|record| record.how).collect::<Vec<_>>(), [How::Posted]);
}

#[test]
fn a_caller_may_be_measured_and_traced_at_once() {
    let lane = Arc::new(Lane::new(8));
    let recorder = Recorder::of_vcpu(0, Arc::clone(&lane), Arc::default());
    let mut both = Stages::new().traced(recorder);
    both.exit();
    both.resume();
    assert_eq!(both.of(Stage::Total).len(), 1);
    let mut traced = Stages::tracing(Recorder::of_vcpu(0, lane, Arc::default()));
    traced.exit();
    traced.resume();
    assert_eq!(traced.of(Stage::Total).len(), 0);
}
