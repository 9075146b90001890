//! Configuration space beside two plain models: bytes with masks, and base address registers as the specification
//! has them.

use arbitrary::Arbitrary;
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_io::device::Range;
use trapline_io::{Fault, Width};

/// Where registers of the device's own begin, of which the model knows all.
const OWN: u16 = 0x100;
const SIZE: usize = 0x1000;
/// COMMAND, with its bits for ports and memory; the first base address register, and the ROM's.
const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const ROM: u16 = 0x30;

#[derive(Arbitrary, Debug)]
enum Act {
    /// The device lays out a register.
    Lay {
        at: u16,
        value: u8,
        writable: u8,
        clearable: u8,
    },
    Write {
        at: u16,
        width: u8,
        value: u32,
    },
    /// A base address register, or COMMAND, as firmware writes them.
    Program {
        index: u8,
        value: u32,
    },
    Reset,
}

/// The bytes from [`OWN`] on.
struct Model {
    value: [u8; SIZE],
    initial: [u8; SIZE],
    writable: [u8; SIZE],
    clearable: [u8; SIZE],
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<([Option<(u8, u8)>; 7], bool, Vec<Act>)>(data) else { return };
    let (bars, bridge, acts) = input;
    let id = Identity { vendor: 0x1234, device: 0x5678, revision: 1, class: 0x03_0000, subsystem: (1, 2) };
    let mut config = if bridge { ConfigSpace::new_bridge(id) } else { ConfigSpace::new(id) };
    for (index, (kind, size)) in (0..).zip(bars).filter_map(|(index, bar)| Some((index, bar?))) {
        config.add_bar(index, Bar { kind: kind_of(kind), size: 1 << (size & 63) });
    }
    let mut model = Model { value: [0; SIZE], initial: [0; SIZE], writable: [0; SIZE], clearable: [0; SIZE] };
    for act in acts {
        carry_out(&mut config, &mut model, act);
        (0..8).for_each(|index| check_bar(&config, index));
    }
    let all = (OWN..0x1000).map(|at| config.byte(at));
    assert!(all.eq(model.value[usize::from(OWN)..].iter().copied()), "a register is not as it was written");
    assert_eq!(config.read(0, Width::B4), 0x5678_1234, "who it is has changed");
    assert_eq!(config.read_region(0x1000, Width::B1), Err(Fault::NoRegister));
}

fn carry_out(config: &mut ConfigSpace, model: &mut Model, act: Act) {
    match act {
        Act::Lay { at, value, writable, clearable } => {
            let at = OWN + at % (0x1000 - OWN);
            config.preset(at, Width::B1, value.into());
            config.allow(at, Width::B1, writable.into());
            config.allow_clear(at, Width::B1, clearable.into());
            let at = usize::from(at);
            (model.value[at], model.initial[at]) = (value, value);
            (model.writable[at], model.clearable[at]) = (writable, clearable);
        }
        Act::Write { at, width, value } => {
            let width = super::width(width);
            let at = at % 0x1100;
            let done = config.write_region(at.into(), width, value.into());
            let end = usize::from(at) + width.bytes();
            assert_eq!(done.is_ok(), width != Width::B8 && end <= SIZE);
            if done.is_ok() {
                model.write(usize::from(at), &value.to_le_bytes()[..width.bytes()]);
            }
        }
        Act::Program { index, value } => {
            let at = [COMMAND, BAR0, 0x14, 0x18, 0x1c, 0x20, 0x24, ROM][usize::from(index & 7)];
            config.write(at, Width::B4, value);
        }
        Act::Reset => {
            config.reset();
            model.value = model.initial;
        }
    }
}

impl Model {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        for (at, new) in (at..).zip(bytes).filter(|(at, _)| *at >= usize::from(OWN)) {
            for bit in (0..8).map(|bit| 1 << bit) {
                if new & bit != 0 && self.clearable[at] & bit != 0 {
                    self.value[at] &= !bit;
                } else if self.writable[at] & bit != 0 {
                    self.value[at] = self.value[at] & !bit | new & bit;
                }
            }
        }
    }
}

fn kind_of(any: u8) -> BarKind {
    let prefetchable = any & 0x80 != 0;
    match any & 3 {
        0 => BarKind::Io,
        1 => BarKind::Memory32 { prefetchable },
        2 => BarKind::Memory64 { prefetchable },
        _ => BarKind::Rom,
    }
}

/// What a base address register decodes is what it holds, where its size puts it, and only while COMMAND says so.
fn check_bar(config: &ConfigSpace, index: u8) {
    let Some(range) = config.decoded(index) else { return };
    let bar = config.bar(index).expect("it decodes");
    let command = config.read(COMMAND, Width::B2);
    // The ROM of a bridge is elsewhere.
    let bridge = config.byte(0x0e) & 0x7f == 1;
    let at = if index < 6 { BAR0 + 4 * u16::from(index) } else { if bridge { 0x38 } else { ROM } };
    let low = u64::from(config.read(at, Width::B4));
    let high = match bar.kind {
        BarKind::Memory64 { .. } => u64::from(config.read(at + 4, Width::B4)),
        _ => 0,
    };
    let (first, last, bit) = match range {
        Range::Ports(span) => (u64::from(span.first().0), u64::from(span.last().0), 1),
        Range::Memory(span) => (span.first().0, span.last().0, 2),
    };
    assert_eq!(matches!(range, Range::Ports(_)), bar.kind == BarKind::Io, "{bar:?}");
    assert_ne!(command & bit, 0, "{bar:?} decodes while it is off");
    assert_eq!(first, (high << 32 | low) & !(bar.size - 1), "{bar:?}");
    assert!(first != 0 && last - first == bar.size - 1, "{bar:?}: {range:?}");
    assert!(!(first..=last).contains(&0xffff_ffff) && last < 1 << 52, "{bar:?}: {range:?}");
    assert!(bar.kind != BarKind::Rom || low & 1 == 1);
}
