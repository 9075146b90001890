//! One program, played strict, coalesced and shadowed, leaves the same video memory and registers, and
//! every read gives the same.

use trapline::machine::Ending;
use trapline_devices::legacy::{Phase, Ways};
use trapline_devices::vga::Snapshot;
use trapline_io::endpoint::Service;
use trapline_io::window::Mode;
use vm_memory::{Bytes, VolatileMemory};

use crate::card::Counted;
use crate::code::{HALT, ascending, bytes, configure, copy, in8, out8, out16, segments, sum, times, words};
use crate::rig::{OFF, Rig};

#[path = "../../../devices/tests/window/modes.rs"]
mod modes;
use modes::{MODE_3, MODE_12, MODE_13};

/// Index and data in one write, as a VBIOS does.
fn block(port: u16, values: &[u8]) -> Vec<u8> {
    let pairs = values.iter().zip(0_u16..);
    pairs.flat_map(|(value, index)| out16(port, u16::from(*value) << 8 | index)).collect()
}

fn set(mode: &modes::Mode) -> Vec<u8> {
    let unlocked = out16(0x3d4, 0x0e11);
    let attributes: Vec<u8> =
        (0..16).flat_map(|index| [out8(0x3c0, index), out8(0x3c0, index)].concat()).collect();
    let parts = [
        out8(0x3c2, mode.misc),
        block(0x3c4, &mode.sequencer),
        unlocked,
        block(0x3d4, &mode.crtc),
        block(0x3ce, &mode.graphics),
        in8(0x3da),
        attributes,
        out8(0x3c0, 0x20),
    ];
    parts.concat()
}

fn start(cell: u16) -> Vec<u8> {
    [out16(0x3d4, cell & 0xff00 | 0x0c), out16(0x3d4, cell << 8 | 0x0d)].concat()
}

/// Lines, each followed by a scroll that copies; a page flip; the cursor.
fn text(first: u16) -> Vec<u8> {
    let lines = [
        ascending(24 * 160, first, 80),
        out16(0x3d4, 0x120f),
        copy(0, 160, 24 * 80),
        sum(0, 80),
        words(24 * 160, 0x0720, 80),
        ascending(0x1000, first, 300),
        start(0x800),
        bytes(0x1001, 0x1e, 33),
        start(0),
        sum(0x1000, 300),
    ];
    [segments(0xb800), lines.concat()].concat()
}

/// A font into plane 2 by way of a0000, as a VBIOS loads one, and by way of the text window.
fn font(pattern: u8) -> Vec<u8> {
    let parts = [
        out16(0x3c4, 0x0402),
        out16(0x3c4, 0x0704),
        out16(0x3ce, 0x0204),
        out16(0x3ce, 0x0005),
        segments(0xb800),
        bytes(0x20, pattern, 64),
        out16(0x3ce, 0x0406),
        segments(0xa000),
        bytes(0, pattern, 256),
        sum(0, 40),
        out16(0x3c4, 0x0302),
        out16(0x3c4, 0x0304),
        out16(0x3ce, 0x0004),
        out16(0x3ce, 0x1005),
        out16(0x3ce, 0x0e06),
    ];
    parts.concat()
}

/// Set/reset, bit mask, latches and write modes.
fn planar(color: u8) -> Vec<u8> {
    let color = u16::from(color);
    let parts = [
        set(&MODE_12),
        segments(0xa000),
        out16(0x3ce, color << 8),
        out16(0x3ce, 0x0f01),
        bytes(100, 0xff, 400),
        out16(0x3ce, 0x3c08),
        copy(1000, 100, 50),
        out16(0x3ce, 0x0001),
        out16(0x3ce, 0xff08),
        out16(0x3ce, 0x0105),
        copy(2000, 100, 100),
        out16(0x3ce, 0x0205),
        bytes(3000, 0x05, 99),
        out16(0x3ce, 0x0005),
        out16(0x3c4, 0x0402),
        words(4000, 0xa55a, 100),
        out16(0x3ce, 0x0204),
        sum(4000, 100),
    ];
    parts.concat()
}

fn chained(color: u8) -> Vec<u8> {
    let palette: Vec<u8> = (0..48).flat_map(|value| out8(0x3c9, value)).collect();
    let pixels = [bytes(0, color, 640), ascending(640, 0x1234, 320), copy(9000, 640, 100), sum(9000, 100)];
    [set(&MODE_13), out8(0x3c8, 0), palette, segments(0xa000), pixels.concat()].concat()
}

/// A VBE mode of 256 colours with its banks, and back.
fn banked(color: u8) -> Vec<u8> {
    let dispi = |index: u16, value: u16| [out16(0x1ce, index), out16(0x1cf, value)].concat();
    let bank = |bank: u16, color: u8| {
        [dispi(5, bank), bytes(0, color, 300), ascending(0x8000, u16::from(color), 64), sum(0x8000, 64)]
            .concat()
    };
    let parts = [
        dispi(4, 0),
        dispi(1, 800),
        dispi(2, 600),
        dispi(3, 8),
        dispi(4, 0x01),
        segments(0xa000),
        bank(0, color),
        bank(1, !color),
        bank(3, 0x77),
        dispi(4, 0),
    ];
    parts.concat()
}

fn program() -> Vec<u8> {
    let tour = [
        set(&MODE_3),
        times(2, &text(0x0141)),
        font(0x3c),
        text(0x1e61),
        planar(5),
        set(&MODE_3),
        text(0x2f30),
        chained(0x44),
        banked(0x99),
        set(&MODE_3),
        // Long enough for the shadow to come, and for a screen that is cleared.
        segments(0xb800),
        times(25, &[words(0, 0x0720, 2000), text(0x3041)].concat()),
        font(0xc3),
        text(0x4f50),
    ];
    let begun = [configure(0x10, 0xe000_0000), configure(0x18, 0xe100_0000), configure(4, 3)].concat();
    [begun, tour.concat(), tour.concat(), out8(OFF, 0), HALT.to_vec()].concat()
}

/// What a run leaves.
struct Left {
    memory: Vec<u8>,
    registers: Snapshot,
    read: Vec<u64>,
}

fn play(ways: Ways, service: Service) -> Left {
    let (counted, seen) = Counted::new(ways);
    let (topology, collected) = (counted.function.topology(), counted.function.collected());
    assert_eq!(collected.is_empty(), !ways.coalesced);
    let rig = Rig { service, ..Rig::new(&[&program()]) };
    let (ending, read) = rig.run(counted, topology, collected, |_, _| {});
    assert_eq!(ending, Ending::PowerOff);
    let goal = if ways.shadowed { Mode::Shadowed } else { Mode::Coalesced };
    if ways.coalesced {
        assert!(seen.turns.to(goal) > 0, "{ways:?}, {service:?}: never {goal:?}");
    }
    let mut memory = vec![0; 2 << 20];
    seen.memory.as_volatile_slice().read_slice(&mut memory, 0).unwrap();
    Left { memory, registers: seen.view.snapshot().unwrap(), read }
}

#[test]
fn all_ways_leave_the_same_and_read_the_same() {
    let strict = play(Ways::default(), Service::Adaptive);
    assert!(strict.read.len() > 100 && strict.memory.contains(&0x99));
    for service in [Service::Adaptive, Service::Inline, Service::Uring] {
        for shadowed in [false, true] {
            let left = play(Ways { coalesced: true, shadowed, phase: Phase::Auto }, service);
            let context = format!("{service:?}, shadowed: {shadowed}");
            assert_eq!(left.read, strict.read, "{context}");
            let other = left.memory.iter().zip(&strict.memory).position(|(left, right)| left != right);
            assert_eq!(other, None, "{context}: video memory");
            assert!(left.registers.registers == strict.registers.registers, "{context}: registers");
        }
    }
}
