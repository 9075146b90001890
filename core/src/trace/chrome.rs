//! The JSON form of Chrome's trace viewer, which ui.perfetto.dev reads too; see
//! [the trace's page](super) for what it shows.

use std::collections::{BTreeMap, VecDeque};

use trapline_io::Address;
use trapline_io::access::{Access, Op};
use trapline_io::space::EndpointId;
use trapline_io::trace::{How, Record};

use super::digits::{decimal, hex, microseconds};
use super::format::{Cast, Format, Function, Lost, Mark, mode_name, region_name};
use super::map::{Change, Map};

/// The "processes" of the picture.
const VCPUS: u64 = 1;
const WORKERS: u64 = 2;
const DEVICES: u64 = 3;

/// A trace of nothing; shorter than what [`Chrome`] begins with.
pub(super) const NOTHING: &[u8] = b"{\"traceEvents\":[\n]}\n";

/// The most posted writes of one function that wait for their second record: more than its queue holds.
const POSTED_MOST: usize = 4096;
/// How far a second record may be searched for, where records between were lost.
const SEARCHED_MOST: usize = 64;

/// The writer; see the module's page.
#[derive(Debug, Default)]
pub(super) struct Chrome {
    posted: BTreeMap<EndpointId, VecDeque<(Access, u64)>>,
    flows: u64,
    /// Totals by the names of their counters.
    lost: BTreeMap<String, u64>,
}

impl Format for Chrome {
    fn begin(&mut self, cast: &Cast, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
        name(out, "process_name", (VCPUS, 0), "vCPUs");
        for (process, title) in [(WORKERS, "posted and collected writes"), (DEVICES, "devices")] {
            out.extend_from_slice(b",\n");
            name(out, "process_name", (process, 0), title);
        }
        for vcpu in 0..cast.vcpus {
            out.extend_from_slice(b",\n");
            name(out, "thread_name", (VCPUS, vcpu.into()), &format!("vcpu{vcpu}"));
        }
        for (function, thread) in cast.functions.iter().zip(0_u64..) {
            for (process, title) in [(WORKERS, "worker of "), (DEVICES, "")] {
                out.extend_from_slice(b",\n");
                name(out, "thread_name", (process, thread), &format!("{title}{}", function.name));
            }
        }
    }

    fn record(&mut self, record: &Record, cast: &Cast, map: &Map, out: &mut Vec<u8>) {
        match (record.vcpu, record.function) {
            (Some(vcpu), _) => self.by_vcpu(vcpu, record, cast, map, out),
            (None, Some(function)) => self.by_owner(function, record, cast, map, out),
            (None, None) => {}
        }
    }

    fn mapped(&mut self, time: u64, change: &Change, cast: &Cast, _: &Map, out: &mut Vec<u8>) {
        for (mappings, what) in [(&change.gone, "unmap"), (&change.come, "map")] {
            for mapping in mappings {
                instant(out, time, what);
                out.extend_from_slice(b",\"args\":{\"function\":");
                function_name(out, mapping.function, cast);
                if let Some(function) = cast.function(mapping.function) {
                    text_argument(out, "region", region_name(function, mapping.region));
                }
                text_argument(out, "space", if mapping.in_ports { "ports" } else { "memory" });
                hex_argument(out, "first", mapping.first);
                hex_argument(out, "len", mapping.len());
                out.extend_from_slice(b"}}");
            }
        }
    }

    fn marked(&mut self, time: u64, mark: Mark, cast: &Cast, out: &mut Vec<u8>) {
        match mark {
            Mark::Reset => {
                instant(out, time, "reset");
                out.push(b'}');
            }
            Mark::Window(function, mode) => {
                instant(out, time, &format!("window {}", mode_name(mode)));
                out.extend_from_slice(b",\"args\":{\"function\":");
                function_name(out, function, cast);
                out.extend_from_slice(b"}}");
            }
            Mark::Foreign(function, region) => {
                let overlay = cast.function(function).map_or("?", |it| region_name(it, region));
                instant(out, time, &format!("foreign {overlay}"));
                out.extend_from_slice(b",\"args\":{\"function\":");
                function_name(out, function, cast);
                out.extend_from_slice(b"}}");
            }
        }
    }

    fn lost(&mut self, time: u64, lost: Lost, count: u64, cast: &Cast, out: &mut Vec<u8>) {
        let whose = match lost {
            Lost::Vcpu(vcpu) => format!("vcpu{vcpu}"),
            Lost::Function(function) => cast.function(function).map_or("?", |it| it.name.as_str()).to_owned(),
            Lost::Events => "events".to_owned(),
        };
        let total = self.lost.entry(whose).or_default();
        *total = total.saturating_add(count);
        event(out, b'C', (VCPUS, 0), time);
        out.extend_from_slice(b",\"name\":\"lost\",\"args\":{");
        for (place, (whose, total)) in self.lost.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"" } else { b"," });
            text(out, whose);
            out.push(b':');
            decimal(out, *total);
        }
        out.extend_from_slice(b"}}");
    }

    fn footer(&self) -> &'static [u8] {
        b"\n]}\n"
    }
}

impl Chrome {
    /// What a vCPU did, from its exit to its way back; of a posted write, where the arrow begins.
    fn by_vcpu(&mut self, vcpu: u16, record: &Record, cast: &Cast, map: &Map, out: &mut Vec<u8>) {
        let lane = (VCPUS, vcpu.into());
        let end = record.resume.or(record.end).or(record.push).unwrap_or(0);
        slice(out, lane, record.time, end.into(), record, cast, map);
        if let (How::Posted, Some(function)) = (record.how, record.function) {
            self.flows += 1;
            let waiting = self.posted.entry(function).or_default();
            if waiting.len() >= POSTED_MOST {
                waiting.pop_front();
            }
            waiting.push_back((record.access, self.flows));
            flow(out, b's', lane, record.moment(), self.flows);
        }
    }

    /// What the owner of a function carried out, twice: as its work, and as the device's.
    fn by_owner(&mut self, function: EndpointId, record: &Record, cast: &Cast, map: &Map, out: &mut Vec<u8>) {
        let thread = function.0.into();
        let length = record.end.unwrap_or(0).into();
        let arrow = match record.how {
            How::Posted => self.arrow(function, record.access),
            _ => None,
        };
        for (process, phase) in [(WORKERS, b't'), (DEVICES, b'f')] {
            slice(out, (process, thread), record.time, length, record, cast, map);
            if let Some(arrow) = arrow {
                flow(out, phase, (process, thread), record.time, arrow);
            }
        }
    }

    /// The number that the write got when it was posted. Those before it that have not come were lost.
    fn arrow(&mut self, function: EndpointId, access: Access) -> Option<u64> {
        let waiting = self.posted.get_mut(&function)?;
        let place = waiting.iter().take(SEARCHED_MOST).position(|(posted, _)| *posted == access)?;
        waiting.drain(..place);
        waiting.pop_front().map(|(_, arrow)| arrow)
    }
}

/// Begins an event: all but its name and what its phase wants.
fn event(out: &mut Vec<u8>, phase: u8, (process, thread): (u64, u64), time: u64) {
    out.extend_from_slice(b",\n{\"ph\":\"");
    out.push(phase);
    out.extend_from_slice(b"\",\"pid\":");
    decimal(out, process);
    out.extend_from_slice(b",\"tid\":");
    decimal(out, thread);
    out.extend_from_slice(b",\"ts\":");
    microseconds(out, time);
}

fn slice(
    out: &mut Vec<u8>,
    lane: (u64, u64),
    time: u64,
    length: u64,
    record: &Record,
    cast: &Cast,
    map: &Map,
) {
    event(out, b'X', lane, time);
    out.extend_from_slice(b",\"dur\":");
    microseconds(out, length);
    let is_read = record.access.op == Op::Read;
    out.extend_from_slice(if is_read { b",\"name\":\"read " } else { b",\"name\":\"write " });
    let function = record.function.and_then(|function| cast.function(function));
    match function {
        Some(function) => {
            inner_text(out, &function.name);
            out.push(b' ');
            out.extend_from_slice(region_name(function, record.access.region).as_bytes());
        }
        None => out.extend_from_slice(record.how.name().as_bytes()),
    }
    out.extend_from_slice(b"\",\"cat\":\"");
    out.extend_from_slice(record.how.name().as_bytes());
    out.extend_from_slice(b"\",\"args\":{\"how\":\"");
    out.extend_from_slice(record.how.name().as_bytes());
    out.push(b'"');
    arguments(out, record, function, map);
    out.extend_from_slice(b"}}");
}

fn arguments(out: &mut Vec<u8>, record: &Record, function: Option<&Function>, map: &Map) {
    let located = || record.function.and_then(|function| map.locate(function, record.access));
    match record.at.or_else(located) {
        Some(Address::Port(port)) => hex_argument(out, "port", port.0.into()),
        Some(Address::Gpa(gpa)) => hex_argument(out, "address", gpa.0),
        None => {}
    }
    if let Some(function) = function {
        text_argument(out, "region", region_name(function, record.access.region));
        hex_argument(out, "offset", record.access.offset);
    }
    argument(out, "width");
    decimal(out, record.access.width.bytes() as u64);
    hex_argument(out, "value", record.value);
    for (moment, after) in
        [("push", record.push), ("start", record.start), ("end", record.end), ("resume", record.resume)]
    {
        if let Some(after) = after {
            argument(out, moment);
            decimal(out, after.into());
        }
    }
}

/// A point of an arrow, within the slice of `lane` that begins or lies at `time`.
fn flow(out: &mut Vec<u8>, phase: u8, lane: (u64, u64), time: u64, id: u64) {
    event(out, phase, lane, time);
    out.extend_from_slice(b",\"name\":\"posted\",\"cat\":\"posted\",\"id\":");
    decimal(out, id);
    out.extend_from_slice(if phase == b'f' { b",\"bp\":\"e\"}" } else { b"}" });
}

/// A moment of the whole machine; the event is not closed.
fn instant(out: &mut Vec<u8>, time: u64, what: &str) {
    event(out, b'i', (VCPUS, 0), time);
    out.extend_from_slice(b",\"s\":\"g\",\"cat\":\"machine\",\"name\":");
    text(out, what);
}

/// An event that names a process or a thread.
fn name(out: &mut Vec<u8>, what: &str, (process, thread): (u64, u64), title: &str) {
    out.extend_from_slice(b"{\"ph\":\"M\",\"pid\":");
    decimal(out, process);
    out.extend_from_slice(b",\"tid\":");
    decimal(out, thread);
    out.extend_from_slice(b",\"name\":");
    text(out, what);
    out.extend_from_slice(b",\"args\":{\"name\":");
    text(out, title);
    out.extend_from_slice(b"}}");
}

fn function_name(out: &mut Vec<u8>, function: EndpointId, cast: &Cast) {
    text(out, cast.function(function).map_or("?", |function| function.name.as_str()));
}

fn argument(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A number as a string: JSON has no hexadecimal, and loses bits of wide ones.
fn hex_argument(out: &mut Vec<u8>, name: &str, number: u64) {
    argument(out, name);
    out.push(b'"');
    hex(out, number);
    out.push(b'"');
}

fn text_argument(out: &mut Vec<u8>, name: &str, value: &str) {
    argument(out, name);
    text(out, value);
}

/// A string with its quotes.
fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    inner_text(out, value);
    out.push(b'"');
}

/// A string without them; what JSON does not take is left out.
fn inner_text(out: &mut Vec<u8>, value: &str) {
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push(b'\\');
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
