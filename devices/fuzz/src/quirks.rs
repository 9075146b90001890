//! Back doors of adapters to configuration space, through the address space as a guest uses them.
//!
//! The first byte chooses the card, each eight bytes behind it are one access. Whatever is done: what changes
//! the map was announced, and what a mirror shows of the BARs is the guest's.

use trapline_devices::assigned::{Function, Options};
use trapline_io::device::Claims;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Region, Trap, Width};

use crate::adapter::{Adapter, Bars, IO, MEMORY, NONE, WIDE};

/// Vendors with their BARs, and where configuration space is in one: the BAR, and the offset.
const CARDS: [(u16, Bars, (u16, u64)); 3] = [
    (0x1002, [(WIDE, 1 << 20), NONE, (WIDE, 0x2_0000), NONE, (IO, 0x100), NONE], (2, 0x4000)),
    (0x1002, [(MEMORY, 1 << 20), (IO, 0x100), (MEMORY, 0x4000), NONE, NONE, NONE], (2, 0xf00)),
    (0x10de, [(MEMORY, 1 << 20), (WIDE, 1 << 20), NONE, NONE, NONE, (IO, 0x80)], (0, 0x8_8000)),
];

/// Where each BAR lies at first, as memory and as ports.
fn place(bar: u16) -> (u64, u64) {
    (0xe000_0000 + (u64::from(bar) << 24), 0xa000 + (u64::from(bar) << 12))
}

/// What is worth writing: steps of machines, indexes, registers.
const VALUES: [u64; 12] = [0x338, 0x538, 0x738, 0x1804, 0x1810, 0x4004, 0x4018, 0xf04, 0x8_8004, 1, 3, 0xff];

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some((which, steps)) = data.split_first() else { return };
    let (vendor, bars, mirror) = CARDS[usize::from(*which) % CARDS.len()];
    let options = Options { every_write: which & 0x80 != 0, ..Options::default() };
    let function = Function::open(Adapter::new((vendor, 0x1381), bars), options);
    let mut guest = Guest { function: function.expect("a whole card"), mirror };
    for (bar, (kind, _)) in (0..).zip(bars) {
        let (memory, ports) = place(bar);
        guest.configure(0x10 + 4 * bar, if kind == IO { ports } else { memory });
    }
    guest.configure(4, 3);
    for step in steps.chunks_exact(8) {
        guest.step(step);
    }
}

struct Guest {
    function: Function<Adapter>,
    mirror: (u16, u64),
}

/// What is decoded, but for what the kernel was given, which comes and goes by itself.
fn decoded(function: &Function<Adapter>) -> Claims {
    let mut claims = function.claims();
    claims.ranges.retain(|claim| claim.signals.is_empty());
    claims
}

impl Guest {
    fn configure(&mut self, at: u16, value: u64) {
        let _ = self.function.write(Region::CONFIG, at.into(), Width::B4, value);
    }

    fn space(&self) -> AddressSpace {
        let mut builder = SpaceBuilder::default();
        self.function.claims().ranges.iter().for_each(|claim| builder.claim(EndpointId(0), claim));
        builder.build()
    }

    fn step(&mut self, step: &[u8]) {
        let &[how, bar, low, high, a, b, c, d] = step else { return };
        let (bar, offset) = (u16::from(bar % 6), u64::from(low) | u64::from(high) << 8);
        let (memory, ports) = place(bar);
        let width = [Width::B1, Width::B2, Width::B4, Width::B8][usize::from(how & 3)];
        let port = |port: u64| Address::Port(Port((port & 0xffff) as u16));
        let at = match how >> 2 & 7 {
            0 => port([0x3c3, 0x3d0, 0x3d4, 0x3d2][usize::from(low & 3)]),
            1 | 2 => port(ports + (offset & 0x1f)),
            3 => port(ports + offset),
            4 => Address::Gpa(Gpa(memory + 0x8_8000 + offset % 0x1010)),
            5 => Address::Gpa(Gpa(place(self.mirror.0).0 + self.mirror.1 + u64::from(low) % 0x44)),
            6 => return self.function.reset(),
            _ => return self.compare(u16::from(low) & 0xfc),
        };
        let value = match how >> 5 {
            0..3 => None,
            3 => Some(u64::from_le_bytes([a, b, c, d, a, b, c, d])),
            _ => Some(VALUES[usize::from(a) % VALUES.len()]),
        };
        let op = value.map_or(Op::Read, |value| Op::Write(value & width.all_ones()));
        self.access(Trap { at, width, op });
    }

    /// As a vCPU does it; what is cut is another access.
    fn access(&mut self, trap: Trap) {
        if let Resolved::Access { access, .. } = self.space().resolve(trap, &ConfigLatch::default()) {
            let Access { region, offset, width, op } = access;
            match op {
                Op::Read => drop(self.function.read(region, offset, width)),
                Op::Write(value) => {
                    let (announced, before) = (self.function.changes_map(access), decoded(&self.function));
                    let _ = self.function.write(region, offset, width, value);
                    assert!(announced || before == decoded(&self.function), "{access:?} was not announced");
                }
            }
        }
    }

    /// A dword of configuration space is the same by the mirror.
    fn compare(&mut self, at: u16) {
        let (bar, first) = self.mirror;
        let expected = self.function.read(Region::CONFIG, at.into(), Width::B4);
        let base =
            self.function.read(Region::CONFIG, u64::from(0x10 + 4 * bar), Width::B4).unwrap_or(0) & !0xf;
        let seen =
            Trap { at: Address::Gpa(Gpa(base + first + u64::from(at))), width: Width::B4, op: Op::Read };
        let found = self.space().resolve(seen, &ConfigLatch::default());
        if let Resolved::Access { access, .. } = found
            && access.region.0 >= 0xe0
        {
            let shown = self.function.read(access.region, access.offset, access.width);
            assert_eq!(shown, expected, "{at:x}");
        }
    }
}
