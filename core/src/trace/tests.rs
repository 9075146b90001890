//! The text of both forms for the same scenes, and the order in which the thread writes.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, sync_channel};

use serde_json::{Value, json};
use trapline_io::device::{Claim, Range, Retire};
use trapline_io::space::{AddressSpace, ConfigAddress, DwordSet, SpaceBuilder};
use trapline_io::trace::{How, Lane, Record};
use trapline_io::window::Mode;
use trapline_io::{Access, Address, Gpa, Port, Span};

use super::format::{Lost, Mark};
use super::map::Map;
use super::probes::{Intake, News, Note};
use super::*;

const ADAPTER: EndpointId = EndpointId(1);

fn cast() -> Cast {
    let bars = [true, false, true, false, false, false, true];
    let function = |name: &str, id, bars| Function { name: name.into(), id, bars };
    let functions =
        vec![function("clock", None, [false; 7]), function("adapter \"0\"", Some((0x1234, 0x1111)), bars)];
    Cast { vcpus: 2, functions }
}

/// The adapter at 01:00.0 with its BAR 0 here, BAR 2 behind it with an overlay on its end, and the window.
fn space(bar: u64) -> AddressSpace {
    let memory = |first, len| Range::Memory(Span::of_len(Gpa(first), len).unwrap());
    let ports = Range::Ports(Span::new(Port(0x70), Port(0x71)).unwrap());
    let window = Claim::region(memory(0xa_0000, 0x2_0000), Region::VGA, 0xa_0000).retire(Retire::Posted);
    let mut builder = SpaceBuilder::default();
    builder.function(ConfigAddress(0x100), ADAPTER, DwordSet::default());
    builder.claim(EndpointId(0), &Claim::region(ports, Region(0), 0));
    builder.claim(ADAPTER, &window);
    builder.claim(ADAPTER, &Claim::region(memory(bar + 0x1_0c00, 0x400), Region(0x20), 0));
    builder.claim(ADAPTER, &Claim::region(memory(bar, 0x1_0000), Region::bar(0), 0));
    builder.claim(ADAPTER, &Claim::region(memory(bar + 0x1_0000, 0x1000), Region::bar(2), 0));
    builder.build()
}

fn gpa(gpa: u64) -> Option<Address> {
    Some(Address::Gpa(Gpa(gpa)))
}

fn port(port: u16) -> Option<Address> {
    Some(Address::Port(Port(port)))
}

/// A strict access of vCPU 0 that came at `time`.
fn strict(time: u64, at: Option<Address>, target: Option<(EndpointId, Access)>, value: u64) -> Record {
    let nothing = Access::read(Region(0), 0, Width::B1);
    Record {
        time,
        push: Some(10),
        start: Some(20),
        end: Some(520),
        resume: Some(600),
        vcpu: Some(0),
        at,
        function: target.map(|(function, _)| function),
        access: target.map_or(nothing, |(_, access)| access),
        value,
        how: if target.is_some() { How::Inline } else { How::Unclaimed },
    }
}

/// The two records of a posted write: when vCPU 1 made it, when the device saw it.
fn posted(pushed: u64, seen: u64, at: u64, value: u64) -> [Record; 2] {
    let access = Access::write(Region::VGA, at, Width::B2, value);
    let made = Record {
        vcpu: Some(1),
        start: None,
        end: None,
        how: How::Posted,
        ..strict(pushed, gpa(at), Some((ADAPTER, access)), value)
    };
    let carried_out =
        Record { time: seen, push: None, start: Some(0), end: Some(700), resume: None, vcpu: None, ..made };
    [made, carried_out]
}

/// What a form makes of one scene: everything that can happen, one after the other.
fn scene(format: &mut dyn Format) -> String {
    let (cast, mut map, mut out) = (cast(), Map::default(), Vec::new());
    format.begin(&cast, &mut out);
    let change = map.follow(&space(0xe000_0000), &cast);
    format.mapped(1_500, &change, &cast, &map, &mut out);
    let [made, carried_out] = posted(3_000_000, 4_000_123, 0xb_8000, 0x741);
    let read_bar = Access::read(Region::bar(0), 0x10, Width::B4);
    let late = Access::write(Region::bar(2), 4, Width::B1, 0xff);
    let late = Record { access: late, at: None, value: 0xff, time: 6_000_000, ..carried_out };
    for record in [
        strict(1_000_000, port(0x71), Some((EndpointId(0), Access::read(Region(0), 1, Width::B1))), 0x26),
        strict(2_000_000, gpa(0xe000_0010), Some((ADAPTER, read_bar)), 0xdead_beef),
        strict(2_100_000, gpa(0xfee0_0000), None, 0xff),
        made,
        carried_out,
        late,
    ] {
        format.record(&record, &cast, &map, &mut out);
    }
    format.marked(7_000_000, Mark::Window(ADAPTER, Mode::Shadowed), &cast, &mut out);
    format.lost(7_500_000, Lost::Vcpu(1), 12, &cast, &mut out);
    let change = map.follow(&space(0xd000_0000), &cast);
    format.mapped(8_000_000_000, &change, &cast, &map, &mut out);
    format.marked(9_000_000_000, Mark::Reset, &cast, &mut out);
    out.extend_from_slice(format.footer());
    String::from_utf8(out).unwrap()
}

#[test]
fn the_scene_as_mmiotrace_has_it() {
    let expected = "\
VERSION 20070824
PCIDEV 0100 12341111 0 e0000000 0 e0010000 0 0 0 0 10000 0 1000 0 0 0 0 
MAP 0.000001 1 0xe0000000 0x0 0x10000 0x0 0
MAP 0.000001 2 0xe0010000 0x0 0x1000 0x0 0
MAP 0.000001 3 0xa0000 0x0 0x20000 0x0 0
MAP 0.000001 4 0xe0010c00 0x0 0x400 0x0 0
MARK 0.001000 PIO R 1 0x71 0x26
R 4 0.002000 1 0xe0000010 0xdeadbeef 0x0 0
R 1 0.002100 0 0xfee00000 0xff 0x0 0
W 2 0.004000 3 0xb8000 0x741 0x0 0
W 1 0.006000 2 0xe0010004 0xff 0x0 0
MARK 0.007000 WINDOW shadowed adapter \"0\"
MARK 0.000000 Lost 12 events.
UNMAP 8.000000 1 0x0 0
UNMAP 8.000000 2 0x0 0
UNMAP 8.000000 4 0x0 0
PCIDEV 0100 12341111 0 d0000000 0 d0010000 0 0 0 0 10000 0 1000 0 0 0 0 
MAP 8.000000 5 0xd0000000 0x0 0x10000 0x0 0
MAP 8.000000 6 0xd0010000 0x0 0x1000 0x0 0
MAP 8.000000 7 0xd0010c00 0x0 0x400 0x0 0
MARK 9.000000 RESET
";
    assert_eq!(scene(&mut Mmiotrace::default()), expected);
}

#[test]
fn the_scene_as_perfetto_reads_it() {
    let trace: Value = serde_json::from_str(&scene(&mut Chrome::default())).unwrap();
    assert_eq!(trace["displayTimeUnit"], "ns");
    let (names, events): (Vec<&Value>, Vec<&Value>) =
        trace["traceEvents"].as_array().unwrap().iter().partition(|event| event["ph"] == "M");
    let named = |name: &str, pid, tid| {
        let is = |event: &&&Value| event["args"]["name"] == name;
        names.iter().find(is).is_some_and(|event| event["pid"] == pid && event["tid"] == tid)
    };
    assert!(named("vcpu1", 1, 1) && named("worker of clock", 2, 0) && named("adapter \"0\"", 3, 1));

    let slice = |pid, tid, ts, dur, name: &str, how: &str, args: Value| json!({ "ph": "X", "pid": pid, "tid": tid, "ts": ts, "dur": dur, "name": name, "cat": how, "args": args });
    let read = json!({ "how": "inline", "address": "0xe0000010", "region": "bar0", "offset": "0x10", "width": 4,
        "value": "0xdeadbeef", "push": 10, "start": 20, "end": 520, "resume": 600 });
    let made = json!({ "how": "posted", "address": "0xb8000", "region": "vga", "offset": "0xb8000", "width": 2,
        "value": "0x741", "push": 10, "resume": 600 });
    let seen = json!({ "how": "posted", "address": "0xb8000", "region": "vga", "offset": "0xb8000", "width": 2,
        "value": "0x741", "start": 0, "end": 700 });
    let arrow = |ph: &str, pid, tid, ts| json!({ "ph": ph, "pid": pid, "tid": tid, "ts": ts, "name": "posted", "cat": "posted", "id": 1 });
    let mut end = arrow("f", 3, 1, 4000.123);
    end["bp"] = json!("e");
    let write = "write adapter \"0\" vga";
    let expected = [
        slice(1, 0, 2000.0, 0.6, "read adapter \"0\" bar0", "inline", read),
        slice(1, 1, 3000.0, 0.6, write, "posted", made),
        arrow("s", 1, 1, 3000.01),
        slice(2, 1, 4000.123, 0.7, write, "posted", seen.clone()),
        arrow("t", 2, 1, 4000.123),
        slice(3, 1, 4000.123, 0.7, write, "posted", seen),
        end,
        json!({ "ph": "i", "pid": 1, "tid": 0, "ts": 7000.0, "s": "g", "cat": "machine", "name": "window shadowed",
            "args": { "function": "adapter \"0\"" } }),
        json!({ "ph": "C", "pid": 1, "tid": 0, "ts": 7500.0, "name": "lost", "args": { "vcpu1": 12 } }),
        json!({ "ph": "i", "pid": 1, "tid": 0, "ts": 9_000_000.0, "s": "g", "cat": "machine", "name": "reset" }),
    ];
    let found: Vec<&&Value> = events.iter().filter(|event| expected.contains(event)).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>().iter().collect::<Vec<_>>(), "{events:#?}");
    // The write that came after its mapping is shown where it would have been.
    assert!(events.iter().any(|event| event["args"]["address"] == "0xe0010004" && event["pid"] == 3));
    let maps = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    // Ports are told of here too.
    assert_eq!((maps("map"), maps("unmap")), (4 + 1 + 3, 3));
}

/// A writer whose lanes and notes the test fills, and its file.
struct Rig {
    writer: Writer,
    vcpus: [Arc<Lane>; 2],
    notes: SyncSender<Note>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(form: TraceForm, capacity: usize, filter: Filter) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let vcpus = [(); 2].map(|()| Arc::new(Lane::new(capacity)));
        let (notes, receiver) = sync_channel(8);
        let lanes = vcpus.iter().zip(0..).map(|(lane, id)| (Lost::Vcpu(id), Arc::clone(lane))).collect();
        let lost_notes = Arc::new(AtomicU64::new(0));
        let intake = Intake { filter: Arc::new(filter), lanes, notes: receiver, lost_notes };
        let opened = Opened::create(&TraceOutput { path: path.clone(), form }).unwrap();
        let writer = opened.writer(cast(), intake, Arc::default());
        Rig { writer, vcpus, notes, path, _folder: folder }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }

    /// The ports of the lines, in order.
    fn ports(&self) -> Vec<u64> {
        let text = self.text();
        let ports = text.lines().filter_map(|line| line.split_once(" PIO R 1 0x"));
        ports.map(|(_, rest)| u64::from_str_radix(rest.split(' ').next().unwrap(), 16).unwrap()).collect()
    }
}

/// A read of a port that a device began to answer at `time`, long ago.
fn read_port(at: u16, time: u64) -> Record {
    strict(time.wrapping_sub(20), port(at), None, 0)
}

/// Pushes reads of these ports, as many as find room.
fn fill(lane: &Lane, mut ports: std::ops::Range<u16>) {
    while ports.next().is_some_and(|at| lane.push(&read_port(at, 1)) || lane.lost() > 0) {}
}

#[test]
fn lines_stand_in_the_order_of_the_devices() {
    let mut rig = Rig::new(TraceForm::Mmiotrace, 8, Filter::default());
    let began = trapline_io::stages::now();
    for (vcpu, at, after) in [(1, 1, 1), (1, 3, 3), (0, 2, 2), (0, 4, 4)] {
        rig.vcpus[vcpu].push(&read_port(at, began + after));
    }
    rig.notes.send(Note { time: began + 3, news: News::Mark(Mark::Reset) }).unwrap();
    assert!(rig.writer.turn(false));
    assert_eq!(rig.ports(), [1, 2, 3, 4]);
    let text = rig.text();
    let reset = text.lines().position(|line| line.ends_with("RESET")).unwrap();
    assert_eq!(reset, 3, "{text}");
    assert!(!rig.writer.turn(false));
}

/// The mirror of another function: the first access says so, in front of its line.
#[test]
fn a_look_at_another_functions_configuration_space_is_told_once() {
    let mut rig = Rig::new(TraceForm::Mmiotrace, 8, Filter::default());
    let look = |time| {
        let access = Access::read(Region(0xe7), 0x10, Width::B4);
        strict(time, gpa(0xe008_a010), Some((ADAPTER, access)), 0xfebf_0000)
    };
    assert!(rig.vcpus[0].push(&look(1)) && rig.vcpus[0].push(&look(2)));
    rig.writer.turn(true);
    let text = rig.text();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.contains("0xe008a010") || line.contains("FOREIGN")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].ends_with("FOREIGN audio-config-mirror adapter \"0\""), "{text}");
}

#[test]
fn what_an_older_access_may_still_overtake_waits() {
    let mut rig = Rig::new(TraceForm::Mmiotrace, 8, Filter::default());
    let now = trapline_io::stages::now();
    let recorder = || trapline_io::trace::Recorder::of_vcpu(0, Arc::clone(&rig.vcpus[0]), Arc::default());
    let mut stages = trapline_io::stages::Stages::tracing(recorder());
    stages.exit();
    rig.vcpus[1].push(&read_port(1, now.wrapping_sub(1000)));
    rig.vcpus[1].push(&read_port(3, trapline_io::stages::now()));
    rig.writer.turn(false);
    assert_eq!(rig.ports(), [1], "the second is younger than the access under way");
    rig.vcpus[0].push(&read_port(2, now + 1));
    stages.resume();
    rig.writer.turn(false);
    assert_eq!(rig.ports(), [1, 2, 3]);
}

#[test]
fn losses_are_told_once() {
    let mut rig = Rig::new(TraceForm::Mmiotrace, 4, Filter::default());
    fill(&rig.vcpus[0], 0..10);
    rig.writer.turn(false);
    rig.writer.turn(true);
    assert_eq!(rig.ports(), [0, 1, 2, 3]);
    assert_eq!(rig.text().matches("MARK 0.000000 Lost 6 events.\n").count(), 1);
    assert_eq!(rig.text().matches("Lost").count(), 1);
}

#[test]
fn a_map_that_nobody_met_is_left_out() {
    let mut rig = Rig::new(TraceForm::Mmiotrace, 8, Filter::default());
    let now = trapline_io::stages::now();
    let note = |after, space| {
        let news = News::Map(Arc::new(space));
        rig.notes.send(Note { time: now + after, news }).unwrap();
    };
    note(1, space(0xe000_0000));
    note(2, AddressSpace::default());
    note(3, space(0xd000_0000));
    let configure = Access::write(Region::CONFIG, 4, Width::B2, 2);
    let ecam = strict(now - 18, gpa(0xb010_0004), Some((ADAPTER, configure)), 2);
    rig.vcpus[0].push(&ecam);
    rig.vcpus[0].push(&strict(now, gpa(0xd000_0000), None, 0));
    rig.writer.turn(false);
    let text = rig.text();
    assert!(!text.contains("0xe0000000") && !text.contains("UNMAP"), "{text}");
    assert!(text.contains("MAP 0.") && text.contains(" 1 0xd0000000 "), "{text}");
}

/// A rule on addresses is applied to what an owner carried out for nobody, too.
#[test]
fn addresses_that_become_known_are_filtered() {
    let memory = Span::new(Gpa(0xe000_0000), Gpa(0xe000_0fff));
    let mut rig = Rig::new(TraceForm::Mmiotrace, 8, Filter::new(vec![Rule { memory, ..Rule::default() }]));
    let now = trapline_io::stages::now();
    rig.notes.send(Note { time: now, news: News::Map(Arc::new(space(0xe000_0000))) }).unwrap();
    for offset in [0x10, 0x1010] {
        let access = Access::write(Region::bar(0), offset, Width::B1, 7);
        let [_, carried_out] = posted(now, now + 1, 0, 7);
        rig.vcpus[0].push(&Record { at: None, access, ..carried_out });
    }
    rig.writer.turn(true);
    assert!(rig.text().contains(" 0xe0000010 0x7 ") && !rig.text().contains("0xe0001010"), "{}", rig.text());
}

#[test]
fn a_file_of_json_is_whole_at_any_time() {
    let mut rig = Rig::new(TraceForm::Perfetto, 64, Filter::default());
    let count = |rig: &Rig| {
        let trace: Value = serde_json::from_str(&rig.text()).unwrap();
        trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").count()
    };
    assert_eq!(count(&rig), 0, "also where the machine is never made");
    rig.writer.begin();
    assert_eq!(count(&rig), 0);
    for turn in 1..4 {
        fill(&rig.vcpus[0], 0..5);
        rig.writer.turn(false);
        assert_eq!(count(&rig), 5 * turn);
    }
}

#[test]
fn what_can_not_be_opened_is_said_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let create = |path: PathBuf| {
        let wanted = TraceOutput { path, form: TraceForm::Mmiotrace };
        format!("{:#}", Opened::create(&wanted).unwrap_err())
    };
    let missing = create(folder.path().join("no/trace"));
    assert!(missing.starts_with("--trace ") && missing.ends_with("create it first"), "{missing}");
    let directory = create(folder.path().to_owned());
    assert!(directory.ends_with(": this is a directory"), "{directory}");
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let nobody = create(pipe);
    assert!(nobody.ends_with(": nobody reads this pipe; start its reader first"), "{nobody}");
}

/// The trace ends, the thread does not: it goes on to empty the rings.
#[test]
fn a_full_disk_or_a_reader_that_leaves_ends_the_trace_alone() {
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let gone = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let mut first = true;
    for path in [gone, "/dev/full".into()] {
        let lane = Arc::new(Lane::new(8));
        let (_notes, receiver) = sync_channel(1);
        let lanes = vec![(Lost::Vcpu(0), Arc::clone(&lane))];
        let intake = Intake { filter: Arc::default(), lanes, notes: receiver, lost_notes: Arc::default() };
        let opened = Opened::create(&TraceOutput { path, form: TraceForm::Perfetto }).unwrap();
        let mut writer = opened.writer(cast(), intake, Arc::default());
        writer.begin();
        if std::mem::take(&mut first) {
            let mut start = [0; 64];
            assert_eq!(reader.read(&mut start).unwrap(), 64);
            reader = std::io::pipe().unwrap().0;
        }
        for _ in 0..3 {
            assert!(lane.push(&read_port(1, 1)), "the ring is emptied");
            fill(&lane, 0..7);
            assert!(writer.turn(false));
        }
        assert!(writer.has_failed());
    }
}

#[test]
fn a_filter_names_functions_that_are_there() {
    let part = |name: &str| Parts::platform(name, Nothing);
    let parts = [part("clock"), part("adapter0")];
    let wanted = |name: &str| [TraceFilter { function: Some(name.into()), ..TraceFilter::default() }];
    let found = filter(&wanted("adapter0"), &parts).unwrap();
    assert_eq!(found, Filter::new(vec![Rule { function: Some(ADAPTER), ..Rule::default() }]));
    let error = filter(&wanted("adapter1"), &parts).unwrap_err().to_string();
    assert_eq!(error, "--trace-filter: no function is called \"adapter1\"; there are clock, adapter0");
}

/// What is no PCI function has regions of these numbers, too, which are no BARs.
#[test]
fn a_bar_is_one_of_a_pci_function() {
    let devfn = trapline_devices::pci::Devfn::default();
    let function = |name| Parts::function(name, Nothing, None, devfn, DwordSet::of(&[0x10, 0x18]));
    let parts = [Parts::platform("clock", Nothing), function("adapter0"), function("disk0")];
    let wanted = |name: Option<&str>, bar| TraceFilter {
        function: name.map(str::to_owned),
        bar: Some(bar),
        ..TraceFilter::default()
    };
    let rule = |id| Rule { function: Some(EndpointId(id)), region: Some(Region::bar(2)), ..Rule::default() };
    assert_eq!(filter(&[wanted(None, 2)], &parts).unwrap(), Filter::new(vec![rule(1), rule(2)]));
    assert_eq!(filter(&[wanted(Some("disk0"), 2)], &parts).unwrap(), Filter::new(vec![rule(2)]));
    let error = |wanted| filter(&[wanted], &parts).unwrap_err().to_string();
    assert_eq!(error(wanted(Some("clock"), 0)), "--trace-filter: there is no BAR 0 of clock");
    assert_eq!(error(wanted(None, 5)), "--trace-filter: there is no BAR 5 of any function");
}

struct Nothing;

impl trapline_io::Device for Nothing {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, trapline_io::Fault> {
        Ok(0)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), trapline_io::Fault> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> trapline_io::device::Claims {
        trapline_io::device::Claims::default()
    }
}
