//! A traced guest of a few instructions: each of its accesses stands in the trace once, in order, with
//! its value, in both forms. Needs /dev/kvm.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use trapline::config::{Seccomp, TraceFilter, TraceForm, TraceOutput};
use trapline::events::Events;
use trapline::machine::{Ending, Machine, Observer};
use trapline::parts::{Parts, ServedBy};
use trapline::trace::Opened;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::Devfn;
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::device::{Claim, Claims, Range, Retire};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Device, Fault, Gpa, Port, Region, Span, Width};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const POSTED: u64 = 1000;

/// Memory at a0000 whose bytes are their offsets' low byte; port 0x5000, whose writes are posted and whose
/// reads count them; port 0x5004, which switches off.
struct Target {
    writes: u64,
    events: Events,
}

impl Device for Target {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let byte = |lane: u64| ((offset + lane) & 0xff) << (8 * lane);
        Ok(if region == Region(0) { self.writes } else { (0..width.bytes() as u64).map(byte).sum() })
    }

    fn write(&mut self, region: Region, offset: u64, _: Width, _: u64) -> Result<(), Fault> {
        match (region, offset) {
            (Region(0), 0) => self.writes += 1,
            (Region(0), _) => self.events.report(Event::PowerOff),
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
        let memory = Range::Memory(Span::of_len(Gpa(0xa_0000), 0x1000).unwrap());
        let ranges = vec![
            Claim::region(ports(0x5000, 0x5003), Region(0), 0).retire(Retire::Posted),
            Claim::region(ports(0x5004, 0x5004), Region(0), 4),
            Claim::region(memory, Region(1), 0),
        ];
        Claims { ranges, bridge: None }
    }
}

/// Posts 0 to 999, reads their count, touches memory, a port that nobody has, and switches off.
const CODE: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0xba, 0x00, 0x50, // mov dx, 0x5000
    0xef, // again: out dx, ax
    0x40, // inc ax
    0x3d, 0xe8, 0x03, // cmp ax, 1000
    0x75, 0xf9, // jne again
    0xed, // in ax, dx
    0xb8, 0x00, 0xa0, 0x8e, 0xd8, // mov ax, 0xa000; mov ds, ax
    0xc6, 0x06, 0x10, 0x00, 0x5a, // mov byte [0x10], 0x5a
    0xa1, 0x20, 0x00, // mov ax, [0x20]
    0xba, 0x34, 0x12, 0xec, // mov dx, 0x1234; in al, dx
    0xba, 0x04, 0x50, 0xb0, 0x07, // mov dx, 0x5004; mov al, 7
    0xee, // out dx, al: power off
    0xf4, 0xeb, 0xfd, // hlt; jmp back
];

/// What the guest did: port or memory, write or read, width, address, value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Did {
    in_ports: bool,
    is_write: bool,
    width: u64,
    at: u64,
    value: u64,
}

fn expected() -> Vec<Did> {
    let port = |is_write, width, at, value| Did { in_ports: true, is_write, width, at, value };
    let memory = |is_write, width, at, value| Did { in_ports: false, is_write, width, at, value };
    let mut all: Vec<Did> = (0..POSTED).map(|value| port(true, 2, 0x5000, value)).collect();
    all.extend([
        port(false, 2, 0x5000, POSTED),
        memory(true, 1, 0xa_0010, 0x5a),
        memory(false, 2, 0xa_0020, 0x2120),
        port(false, 1, 0x1234, 0xff),
        port(true, 1, 0x5004, 7),
    ]);
    all
}

/// Whether both are the same; tells the first difference only.
fn assert_same(found: &[Did], expected: &[Did]) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(place) = differs {
        panic!("access {place} is {:x?}, not {:x?}", found[place], expected[place]);
    }
    assert_eq!(found.len(), expected.len());
}

fn firmware() -> Arc<MmapRegion> {
    let image = MmapRegion::new(0x1_0000).unwrap();
    let slice = image.as_volatile_slice();
    slice.write_slice(CODE, 0).unwrap();
    slice.write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    Arc::new(image)
}

/// The text of the trace of one run; nothing without KVM.
fn trace(form: TraceForm, service: Service, filters: &[TraceFilter]) -> Option<String> {
    let vm = match Vm::new() {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let (events, published) = (Events::default(), Published::default());
    let bridge = HostBridge::new(Ram::new(1 << 20).unwrap(), firmware()).unwrap();
    let target = Parts::platform("target", Target { writes: 0, events: events.clone() });
    let mut parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts { served_by: ServedBy::Own, ..target },
    ];
    let opened = Opened::create(&TraceOutput { path: path.clone(), form }).unwrap();
    let trace = opened.start(&mut parts, 1, filters, &published, Seccomp::Off).unwrap();
    let observer = Observer { probes: Some(trace.probes()), ..Observer::default() };
    let mut machine = Machine::observed(vm, 1, service, published, parts, events, observer).unwrap();
    let ending = machine.run(Instant::now().checked_add(Duration::from_secs(60))).unwrap();
    machine.stop();
    trace.finish();
    assert_eq!(ending, Ending::PowerOff);
    Some(read(&path))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A reader of the text, which knows the grammar and takes nothing else.
fn accesses(text: &str) -> Vec<Did> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("VERSION 20070824"));
    let mut mapped: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut all = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["PCIDEV", at, id, irq, ref rest @ ..] => {
                assert_eq!((at.len(), id.len()), (4, 8), "{line}");
                assert_eq!(rest.len(), 7 + 7 + 1, "{line}");
                let numbers = [at, id, irq].into_iter().chain(rest[..14].iter().copied());
                numbers.for_each(|number| {
                    u64::from_str_radix(number, 16).expect(line);
                });
            }
            ["MAP", time, id, first, "0x0", len, "0x0", "0"] => {
                seconds(time);
                mapped.insert(id.parse().unwrap(), (hex(first), hex(len)));
            }
            ["UNMAP", time, id, "0x0", "0"] => {
                seconds(time);
                assert!(mapped.remove(&id.parse().unwrap()).is_some(), "{line}");
            }
            [way @ ("R" | "W"), width, time, id, at, value, "0x0", "0"] => {
                seconds(time);
                let Some((first, len)) = mapped.get(&id.parse().unwrap()) else { panic!("{line}") };
                assert!((*first..first + len).contains(&hex(at)), "{line}");
                all.push(did(false, way, width, at, value));
            }
            ["MARK", time, "PIO", way @ ("R" | "W"), width, at, value] => {
                seconds(time);
                all.push(did(true, way, width, at, value));
            }
            _ => panic!("{line}"),
        }
    }
    all
}

fn did(in_ports: bool, way: &str, width: &str, at: &str, value: &str) -> Did {
    let width = width.parse().unwrap();
    assert!([1, 2, 4, 8].contains(&width));
    Did { in_ports, is_write: way == "W", width, at: hex(at), value: hex(value) }
}

fn hex(number: &str) -> u64 {
    u64::from_str_radix(number.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn seconds(time: &str) -> f64 {
    let (whole, part) = time.split_once('.').unwrap();
    assert!(
        part.len() == 6 && whole.bytes().chain(part.bytes()).all(|digit| digit.is_ascii_digit()),
        "{time}"
    );
    time.parse().unwrap()
}

fn text_holds_each_access(service: Service) {
    let Some(text) = trace(TraceForm::Mmiotrace, service, &[]) else { return };
    assert_same(&accesses(&text), &expected());
    let times = text.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        ["R" | "W", _, time, ..] | ["MARK", time, ..] => Some(seconds(time)),
        _ => None,
    });
    assert!(times.is_sorted());
    assert!(text.contains("PCIDEV 0000 808629c0 0 "), "{text}");
}

#[test]
fn the_text_holds_each_access_that_vcpus_carry_out() {
    text_holds_each_access(Service::Inline);
}

#[test]
fn the_text_holds_each_access_that_the_worker_carries_out() {
    text_holds_each_access(Service::Uring);
}

#[test]
fn the_text_holds_each_access_that_either_carries_out() {
    text_holds_each_access(Service::Adaptive);
}

#[test]
fn the_picture_holds_each_access_and_follows_what_is_posted() {
    let Some(text) = trace(TraceForm::Perfetto, Service::Adaptive, &[]) else { return };
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let row = |process: u64| events.iter().filter(move |event| event["pid"] == process);
    let slices = |process| row(process).filter(|event| event["ph"] == "X");
    let accesses: Vec<Did> = slices(1)
        .map(|event| {
            let args = &event["args"];
            let number = |name: &str| args[name].as_str().map(hex);
            Did {
                in_ports: number("port").is_some(),
                is_write: event["name"].as_str().unwrap().starts_with("write "),
                width: args["width"].as_u64().unwrap(),
                at: number("port").or(number("address")).unwrap(),
                value: number("value").unwrap(),
            }
        })
        .collect();
    assert_same(&accesses, &expected());
    let mut flows: BTreeMap<u64, Vec<(String, f64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "posted" && event["ph"] != "X") {
        let flow = flows.entry(event["id"].as_u64().unwrap()).or_default();
        flow.push((event["ph"].as_str().unwrap().to_owned(), event["ts"].as_f64().unwrap()));
    }
    assert_eq!(flows.len() as u64, POSTED);
    for flow in flows.values() {
        let phases: Vec<&str> = flow.iter().map(|(phase, _)| phase.as_str()).collect();
        assert_eq!(phases, ["s", "t", "f"]);
        assert!(flow.is_sorted_by(|(_, a), (_, b)| a <= b), "{flow:?}");
    }
    let carried_out =
        |process| slices(process).map(|event| event["args"]["value"].clone()).collect::<Vec<_>>();
    assert_eq!(carried_out(2).len() as u64, POSTED);
    assert_eq!(carried_out(2), carried_out(3));
    for event in slices(1) {
        let moment = |name: &str| event["args"][name].as_u64();
        let moments = ["push", "start", "end", "resume"].map(moment);
        assert!(moments.iter().flatten().is_sorted(), "{event}");
    }
    // The one that ended the machine never came back.
    assert!(slices(1).filter(|event| event["args"]["resume"].is_null()).count() <= 1);
}

#[test]
fn a_filter_leaves_the_rest_out() {
    let memory = Span::new(Gpa(0xa_0021), Gpa(0xa_0021));
    let ports = Span::new(Port(0x1234), Port(0x5003));
    let wanted = [
        TraceFilter { memory, ..TraceFilter::default() },
        TraceFilter { ports, function: Some("target".into()), ..TraceFilter::default() },
    ];
    let Some(text) = trace(TraceForm::Mmiotrace, Service::Adaptive, &wanted) else { return };
    let mut expected = expected();
    expected.retain(|did| did.at == 0xa_0020 || did.at == 0x5000);
    assert_same(&accesses(&text), &expected);
}
