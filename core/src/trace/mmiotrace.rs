//! The text form of Linux' mmiotrace, version 20070824; see [the trace's page](super) for what it says.

use std::collections::BTreeMap;

use trapline_io::access::Op;
use trapline_io::space::EndpointId;
use trapline_io::trace::{How, Record};
use trapline_io::{Address, Region};

use super::digits::{decimal, hex, hex_digits, seconds};
use super::format::{Cast, Format, Lost, Mark, mode_name, region_name};
use super::map::{Change, Map, Mapping};

/// No mapping.
const NO_MAP: u64 = 0;

/// The writer; see the module's page.
#[derive(Debug, Default)]
pub(super) struct Mmiotrace {
    /// The numbers of what is mapped now.
    ids: BTreeMap<Mapping, u64>,
    latest: u64,
}

impl Format for Mmiotrace {
    fn begin(&mut self, _: &Cast, out: &mut Vec<u8>) {
        out.extend_from_slice(b"VERSION 20070824\n");
    }

    fn record(&mut self, record: &Record, _: &Cast, map: &Map, out: &mut Vec<u8>) {
        if !record.reaches_device() && !matches!(record.how, How::Latch | How::Unclaimed) {
            return;
        }
        let letter: &[u8] = if record.access.op == Op::Read { b"R " } else { b"W " };
        let located = || record.function.and_then(|function| map.locate(function, record.access));
        let Some(at) = record.at.or_else(located) else {
            return;
        };
        match at {
            Address::Port(port) => {
                line(out, b"MARK ", record.moment());
                out.extend_from_slice(b" PIO ");
                out.extend_from_slice(letter);
                decimal(out, record.access.width.bytes() as u64);
                out.push(b' ');
                hex(out, port.0.into());
                out.push(b' ');
                hex(out, record.value);
                out.push(b'\n');
            }
            Address::Gpa(gpa) => {
                let id = map.holding(gpa).and_then(|mapping| self.ids.get(mapping)).copied();
                out.extend_from_slice(letter);
                decimal(out, record.access.width.bytes() as u64);
                line(out, b" ", record.moment());
                out.push(b' ');
                decimal(out, id.unwrap_or(NO_MAP));
                out.push(b' ');
                hex(out, gpa.0);
                out.push(b' ');
                hex(out, record.value);
                out.extend_from_slice(b" 0x0 0\n");
            }
        }
    }

    fn mapped(&mut self, time: u64, change: &Change, cast: &Cast, map: &Map, out: &mut Vec<u8>) {
        for gone in &change.gone {
            if let Some(id) = self.ids.remove(gone) {
                line(out, b"UNMAP ", time);
                out.push(b' ');
                decimal(out, id);
                out.extend_from_slice(b" 0x0 0\n");
            }
        }
        for function in &change.functions {
            device(out, *function, cast, map);
        }
        for come in change.come.iter().filter(|mapping| !mapping.in_ports) {
            self.latest += 1;
            self.ids.insert(*come, self.latest);
            line(out, b"MAP ", time);
            out.push(b' ');
            decimal(out, self.latest);
            out.push(b' ');
            hex(out, come.first);
            out.push(b' ');
            // There is no virtual address: the guest's drivers may have several.
            hex(out, 0);
            out.push(b' ');
            hex(out, come.len());
            out.extend_from_slice(b" 0x0 0\n");
        }
    }

    fn marked(&mut self, time: u64, mark: Mark, cast: &Cast, out: &mut Vec<u8>) {
        let text = match mark {
            Mark::Reset => "RESET".to_owned(),
            Mark::Window(function, mode) => {
                let name = cast.function(function).map_or("?", |function| function.name.as_str());
                format!("WINDOW {} {name}", mode_name(mode))
            }
            Mark::Foreign(function, region) => {
                let function = cast.function(function);
                let overlay = function.map_or("?", |function| region_name(function, region));
                format!("FOREIGN {overlay} {}", function.map_or("?", |function| function.name.as_str()))
            }
        };
        line(out, b"MARK ", time);
        out.push(b' ');
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }

    fn lost(&mut self, _: u64, _: Lost, count: u64, _: &Cast, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MARK 0.000000 Lost ");
        decimal(out, count);
        out.extend_from_slice(b" events.\n");
    }

    fn footer(&self) -> &'static [u8] {
        b""
    }
}

fn line(out: &mut Vec<u8>, word: &[u8], time: u64) {
    out.extend_from_slice(word);
    seconds(out, time);
}

/// A function as a line of /proc/bus/pci/devices: address, identity, interrupt, where its six BARs and its
/// ROM lie with the type bits, how long they are, the driver's name. Nothing tells the interrupt and the
/// driver, and of the type bits only the lowest (ports) is told.
fn device(out: &mut Vec<u8>, function: EndpointId, cast: &Cast, map: &Map) {
    let (Some(at), Some(known)) = (map.address_of(function), cast.function(function)) else { return };
    let Some((vendor, device)) = known.id else { return };
    out.extend_from_slice(b"PCIDEV ");
    hex_digits(out, at.0.into(), 4);
    out.push(b' ');
    hex_digits(out, vendor.into(), 4);
    hex_digits(out, device.into(), 4);
    out.extend_from_slice(b" 0");
    let bars = [0, 1, 2, 3, 4, 5, 6].map(Region);
    let bars = bars.map(|bar| map.mapping(function, bar).filter(|_| known.has_bar(bar)));
    for bar in bars {
        out.push(b' ');
        hex_digits(out, bar.map_or(0, |bar| bar.first | u64::from(bar.in_ports)), 1);
    }
    for bar in bars {
        out.push(b' ');
        hex_digits(out, bar.map_or(0, Mapping::len), 1);
    }
    out.extend_from_slice(b" \n");
}
