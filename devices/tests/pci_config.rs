//! Configuration space against a model that knows every bit by itself.

use proptest::prelude::*;
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity, spec};
use trapline_io::device::Range;
use trapline_io::{Gpa, Port, Span, Width};

/// How one bit answers a write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    ReadOnly,
    Writable,
    OneClears,
}

/// 4096 times 8 bits, each with its rule and its values.
#[derive(Clone)]
struct Bits {
    now: Vec<bool>,
    initial: Vec<bool>,
    rules: Vec<Rule>,
}

impl Bits {
    fn new() -> Bits {
        let size = 4096 * 8;
        Bits { now: vec![false; size], initial: vec![false; size], rules: vec![Rule::ReadOnly; size] }
    }

    fn rule(&mut self, offset: u16, bits: u32, mask: u32, rule: Rule) {
        for bit in 0..bits {
            if mask >> bit & 1 == 1 {
                self.rules[usize::from(offset) * 8 + bit as usize] = rule;
            }
        }
    }

    fn preset(&mut self, offset: u16, bits: u32, value: u32) {
        for bit in 0..bits {
            let at = usize::from(offset) * 8 + bit as usize;
            self.now[at] = value >> bit & 1 == 1;
            self.initial[at] = self.now[at];
        }
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        for bit in 0..8 * width.bytes() {
            let at = usize::from(offset) * 8 + bit;
            let new = value >> bit & 1 == 1;
            match self.rules[at] {
                Rule::ReadOnly => {}
                Rule::Writable => self.now[at] = new,
                Rule::OneClears => self.now[at] &= !new,
            }
        }
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        (0..8 * width.bytes())
            .map(|bit| u32::from(self.now[usize::from(offset) * 8 + bit]) << bit)
            .fold(0, |value, bit| value | bit)
    }
}

const ID: Identity =
    Identity { vendor: 0x1234, device: 0x1111, revision: 2, class: 0x03_0000, subsystem: (0x1af4, 0x1100) };

/// The header that every function has, in the model.
fn header() -> Bits {
    let mut bits = Bits::new();
    bits.preset(0x00, 32, 0x1111_1234);
    bits.preset(0x08, 32, 0x0300_0002);
    bits.preset(0x2c, 32, 0x1100_1af4);
    bits.rule(0x04, 16, 0x0547, Rule::Writable);
    bits.rule(0x0c, 8, 0xff, Rule::Writable);
    bits.rule(0x3c, 8, 0xff, Rule::Writable);
    bits
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, Width, u32),
    Device(u16, u8),
    Reset,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4)]
}

/// An offset near the header as often as far from it, and in bounds for every width.
fn offset() -> impl Strategy<Value = u16> {
    prop_oneof![0..0x100_u16, 0..4093_u16]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (offset(), width(), any::<u32>()).prop_map(|(at, width, value)| Step::Write(at, width, value)),
        2 => (offset(), any::<u8>()).prop_map(|(at, value)| Step::Device(at, value)),
        1 => Just(Step::Reset),
    ]
}

/// A register of the device's own: dword, initial value, and two masks that do not overlap.
fn registers() -> impl Strategy<Value = Vec<(u16, u32, u32, u32)>> {
    let one = (0x10..0x400_u16, any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(|(dword, value, writable, clears)| (dword * 4, value, writable, clears & !writable));
    proptest::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn every_bit_obeys_its_rule(
        registers in registers(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (mut config, mut bits) = (ConfigSpace::new(ID), header());
        for (at, value, writable, clears) in registers {
            config.preset(at, Width::B4, value);
            config.allow(at, Width::B4, writable);
            config.allow_clear(at, Width::B4, clears);
            bits.preset(at, 32, value);
            bits.rule(at, 32, u32::MAX, Rule::ReadOnly);
            bits.rule(at, 32, writable, Rule::Writable);
            bits.rule(at, 32, clears, Rule::OneClears);
        }
        for step in steps {
            match step {
                Step::Write(at, width, value) => {
                    config.write(at, width, value);
                    bits.write(at, width, value);
                    prop_assert_eq!(config.read(at, width), bits.read(at, width));
                }
                Step::Device(at, value) => {
                    config.set(at, Width::B1, value.into());
                    for bit in 0..8 {
                        bits.now[usize::from(at) * 8 + bit] = value >> bit & 1 == 1;
                    }
                }
                Step::Reset => {
                    config.reset();
                    bits.now = bits.initial.clone();
                }
            }
        }
        for at in 0..1024 {
            prop_assert_eq!(config.read(at * 4, Width::B4), bits.read(at * 4, Width::B4));
        }
    }

    #[test]
    fn nothing_panics_whoever_asks(
        at in any::<u16>(),
        far in any::<u64>(),
        value in any::<u32>(),
        size in any::<u64>(),
        index in any::<u8>(),
    ) {
        for mut config in [ConfigSpace::new(ID), ConfigSpace::new_bridge(ID)] {
            for width in [Width::B1, Width::B2, Width::B4, Width::B8] {
                config.preset(at, width, value);
                config.allow(at, width, value);
                config.allow_clear(at, width, value);
                config.set(at, width, value);
                config.write(at, width, value);
                config.read(at, width);
                let _ = config.write_region(far, width, value.into());
                let _ = config.read_region(far, width);
            }
            for kind in KINDS {
                config.add_bar(index, Bar { kind, size });
                config.decoded(index);
            }
        }
    }

    #[test]
    fn sizing_finds_kind_and_size(kind in prop::sample::select(&KINDS), log in 2..64_u32, address in any::<u64>()) {
        let size = 1_u64 << log.clamp(smallest(kind), largest(kind));
        let index = if kind == BarKind::Rom { 6 } else { 2 };
        let at = if kind == BarKind::Rom { 0x30 } else { 0x18 };
        let wide = matches!(kind, BarKind::Memory64 { .. });
        let mut config = ConfigSpace::new(ID);
        config.add_bar(index, Bar { kind, size });
        config.write(spec::COMMAND, Width::B2, 3);

        // Firmware sizes with decode on; nothing may appear on the bus meanwhile.
        let initial = config.read(at, Width::B4);
        config.write(at, Width::B4, u32::MAX);
        prop_assert_eq!(config.decoded(index), None);
        let low = config.read(at, Width::B4);
        config.write(at, Width::B4, initial);
        let mut high = u32::MAX;
        if wide {
            config.write(at + 4, Width::B4, u32::MAX);
            prop_assert_eq!(config.decoded(index), None);
            high = config.read(at + 4, Width::B4);
            config.write(at + 4, Width::B4, 0);
        }
        let mask = if kind == BarKind::Io { !3 } else if kind == BarKind::Rom { !0x7ff } else { !0xf };
        let found = u64::from(high) << 32 | u64::from(low & mask);
        prop_assert_eq!((!found).wrapping_add(1), size);
        prop_assert_eq!(low & !mask & !u32::from(kind == BarKind::Rom), expected_type(kind));

        // And then it puts the BAR somewhere: naturally aligned, and in its own address space.
        let placed = u32::try_from(address & 0xffff_ffff).unwrap() | u32::from(kind == BarKind::Rom);
        config.write(at, Width::B4, placed);
        if wide {
            config.write(at + 4, Width::B4, u32::try_from(address >> 32).unwrap());
        }
        let base = if wide { address } else { address & 0xffff_ffff } & !(size - 1);
        match config.decoded(index) {
            None => prop_assert!(never(kind, base, size), "{base:#x} of {size:#x} is a good place"),
            Some(range) => {
                prop_assert!(!never(kind, base, size), "{base:#x} of {size:#x} is no place");
                let expected = match kind {
                    BarKind::Io => Span::of_len(Port(u16::try_from(base).unwrap()), size).map(Range::Ports),
                    _ => Span::of_len(Gpa(base), size).map(Range::Memory),
                };
                prop_assert_eq!(Some(range), expected);
            }
        }
        config.write(spec::COMMAND, Width::B2, 0);
        prop_assert_eq!(config.decoded(index), None);
    }
}

const KINDS: [BarKind; 6] = [
    BarKind::Io,
    BarKind::Memory32 { prefetchable: false },
    BarKind::Memory32 { prefetchable: true },
    BarKind::Memory64 { prefetchable: false },
    BarKind::Memory64 { prefetchable: true },
    BarKind::Rom,
];

fn smallest(kind: BarKind) -> u32 {
    match kind {
        BarKind::Io => 2,
        BarKind::Rom => 11,
        _ => 4,
    }
}

fn largest(kind: BarKind) -> u32 {
    if matches!(kind, BarKind::Memory64 { .. }) { 63 } else { 31 }
}

fn expected_type(kind: BarKind) -> u32 {
    match kind {
        BarKind::Io => 1,
        BarKind::Memory32 { prefetchable } => u32::from(prefetchable) * 8,
        BarKind::Memory64 { prefetchable } => 4 + u32::from(prefetchable) * 8,
        BarKind::Rom => 0,
    }
}

/// Where a BAR of this size decodes nothing.
fn never(kind: BarKind, base: u64, size: u64) -> bool {
    let last = u128::from(base) + u128::from(size) - 1;
    match kind {
        BarKind::Io => base == 0 || last > 0xffff,
        _ => base == 0 || base <= 0xffff_ffff && last >= 0xffff_ffff || last >= 1 << 52,
    }
}

#[test]
fn a_bridge_takes_bars_only_where_it_has_room() {
    let mut bridge = ConfigSpace::new_bridge(ID);
    let wide = Bar { kind: BarKind::Memory64 { prefetchable: false }, size: 4096 };
    for index in [1, 2, 5, 7, 255] {
        bridge.add_bar(index, wide);
        assert_eq!(bridge.bar(index), None, "{index}");
    }
    bridge.add_bar(0, wide);
    assert_eq!(bridge.bar(0), Some(wide));
    let mut plain = ConfigSpace::new(ID);
    plain.add_bar(5, wide);
    assert_eq!(plain.bar(5), None, "there is no upper half behind the last register");
}
