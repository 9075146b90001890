//! Back doors of adapters to configuration space, through the address space as a guest uses them.
//!
//! The first byte chooses the card, each eight bytes behind it are one access. Whatever is done: what changes
//! the map was announced, what a mirror shows is what the guest sees in configuration space, and no card sees a
//! write to a register that is the guest's own.

use trapline_devices::assigned::{Function, Igd, Options};
use trapline_io::device::Claims;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Region, Trap, Width};

use crate::adapter::{Adapter, Bars, IO, MEMORY, NONE, WIDE};

/// A card, and what is to hold for it.
struct Card {
    id: (u16, u16),
    bars: Bars,
    mirror: Mirror,
    /// The host gives an OpRegion with it.
    opregion: bool,
    /// Registers of configuration space that the card must not see written, each with its bytes.
    kept: &'static [(u64, u64)],
}

/// A part of a BAR that shows configuration space.
#[derive(Clone, Copy)]
struct Mirror {
    bar: u16,
    offset: u64,
    /// The byte of configuration space that is the first there, and how many are.
    shown: u16,
    len: u16,
}

impl Mirror {
    /// All of classic configuration space.
    const fn whole(bar: u16, offset: u64) -> Mirror {
        Mirror { bar, offset, shown: 0, len: 0x100 }
    }
}

/// All that there are.
static CARDS: [Card; 6] = [
    Card::ati([(WIDE, 1 << 20), NONE, (WIDE, 0x2_0000), NONE, (IO, 0x100), NONE], Mirror::whole(2, 0x4000)),
    Card::ati([(MEMORY, 1 << 20), (IO, 0x100), (MEMORY, 0x4000), NONE, NONE, NONE], Mirror::whole(2, 0xf00)),
    Card {
        id: (0x10de, 0x1381),
        ..Card::ati(
            [(MEMORY, 1 << 20), (WIDE, 1 << 20), NONE, NONE, NONE, (IO, 0x80)],
            Mirror::whole(0, 0x8_8000),
        )
    },
    Card::igd(0x5916, Mirror { bar: 0, offset: 0x10_80c0, shown: 0x5c, len: 4 }, &[(0xfc, 4), (0x5c, 4)]),
    Card::igd(0x9a49, Mirror { bar: 0, offset: 0x10_80c0, shown: 0xc0, len: 8 }, &[(0xfc, 4), (0xc0, 8)]),
    // Of no generation that is known: without a mirror.
    Card::igd(0x7d55, Mirror { bar: 0, offset: 0x10_80c0, shown: 0xc0, len: 8 }, &[(0xfc, 4)]),
];

impl Card {
    const fn ati(bars: Bars, mirror: Mirror) -> Card {
        Card { id: (0x1002, 0x1381), bars, mirror, opregion: false, kept: &[] }
    }

    const fn igd(device: u16, mirror: Mirror, kept: &'static [(u64, u64)]) -> Card {
        let bars = [(WIDE, 2 << 20), NONE, (WIDE, 1 << 20), NONE, (IO, 0x40), NONE];
        Card { id: (0x8086, device), bars, mirror, opregion: true, kept }
    }

    /// The device; `opregion` is what lies behind the signature of its OpRegion, where it has one.
    fn adapter(&self, opregion: &[u8]) -> Adapter {
        let adapter = Adapter::new(self.id, self.bars);
        if !self.opregion {
            return adapter;
        }
        let contents = [b"IntelGraphicsMem", opregion].concat();
        adapter.with_typed((0x8000_8086, 1), contents.len() as u64, contents)
    }

    /// Of a write that the device saw, whether it was not to.
    fn is_kept(&self, region: Region, at: u64) -> bool {
        let Mirror { bar, offset, shown, len } = self.mirror;
        let holds = |first: u64, len: u64| (first..first + len).contains(&at);
        let mirrored = self.kept.iter().any(|(at, _)| *at == u64::from(shown));
        match region {
            Region::CONFIG => self.kept.iter().any(|(first, len)| holds(*first, *len)),
            _ => mirrored && u16::from(region.0) == bar && holds(offset, len.into()),
        }
    }
}

/// Where each BAR lies at first, as memory and as ports.
fn place(bar: u16) -> (u64, u64) {
    (0xe000_0000 + (u64::from(bar) << 24), 0xa000 + (u64::from(bar) << 12))
}

/// What is worth writing: steps of machines, indexes, registers.
const VALUES: [u64; 12] = [0x338, 0x538, 0x738, 0x1804, 0x1810, 0x4004, 0x4018, 0xf04, 0x8_8004, 1, 3, 0xff];

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some((which, steps)) = data.split_first() else { return };
    let card = &CARDS[usize::from(*which) % CARDS.len()];
    let options = Options { every_write: which & 0x80 != 0, ..Options::default() };
    let mut adapter = card.adapter(steps);
    let found = Igd::of(&mut adapter);
    assert!(found.is_none_or(|igd| igd.opregion.ends_with(steps)));
    let function = Function::open(adapter.clone(), options);
    let mut guest = Guest { function: function.expect("a whole card"), card };
    guest.place();
    for step in steps.chunks_exact(8) {
        guest.step(step);
    }
    let writes = adapter.seen().into_iter().filter(|(write, ..)| *write);
    let written = adapter.written().into_iter().map(|(at, value)| (Region::CONFIG, at, value));
    for (region, at, value) in writes.map(|(_, region, at, value)| (region, at, value)).chain(written) {
        assert!(!card.is_kept(region, at), "the card saw {value:x} at {at:x} of {region:?}");
    }
}

struct Guest {
    function: Function<Adapter>,
    card: &'static Card,
}

/// What is decoded, but for what the kernel was given, which comes and goes by itself.
fn decoded(function: &Function<Adapter>) -> Claims {
    let mut claims = function.claims();
    claims.ranges.retain(|claim| claim.signals.is_empty());
    claims
}

impl Guest {
    /// As firmware does it.
    fn place(&mut self) {
        // A register without a size may be the upper half of the one before.
        for (bar, (kind, _)) in (0..).zip(self.card.bars).filter(|(_, (_, size))| *size > 0) {
            let (memory, ports) = place(bar);
            self.configure(0x10 + 4 * bar, if kind == IO { ports } else { memory });
        }
        self.configure(4, 3);
    }

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
        let mirror = self.card.mirror;
        let width = [Width::B1, Width::B2, Width::B4, Width::B8][usize::from(how & 3)];
        let port = |port: u64| Address::Port(Port((port & 0xffff) as u16));
        let at = match how >> 2 & 7 {
            0 => port([0x3c3, 0x3d0, 0x3d4, 0x3d2, 0x3d1, 0x3d0, 0x3d4, 0x3d3][usize::from(low & 7)]),
            1 => port(ports + (offset & 0x1f)),
            2 => return self.registers(low, width, [a, b, c, d]),
            3 => port(ports + offset),
            4 => Address::Gpa(Gpa(memory + 0x8_8000 + offset % 0x1010)),
            5 => Address::Gpa(Gpa(place(mirror.bar).0 + mirror.offset + u64::from(low) % 0x44)),
            6 => {
                self.function.reset();
                return self.place();
            }
            _ => return self.compare(u16::from(low) & 0xfc & (mirror.len - 1)),
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
            self.carry_out(access);
        }
    }

    fn carry_out(&mut self, access: Access) {
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

    /// A write to configuration space by the front door: those that change the map, and those that may be the
    /// guest's own.
    fn registers(&mut self, low: u8, width: Width, value: [u8; 4]) {
        let first = [0x04, 0x3c, 0x5c, 0xc0, 0xc4, 0xf8, 0xfc, 0x10][usize::from(low & 7)];
        let offset = first + u64::from(low >> 3 & 3);
        let op = Op::Write(u64::from(u32::from_le_bytes(value)) & width.all_ones());
        self.carry_out(Access { region: Region::CONFIG, offset, width, op });
    }

    /// The dword `at` bytes behind the first that the mirror shows is the same by the mirror.
    fn compare(&mut self, at: u16) {
        let Mirror { bar, offset, shown, .. } = self.card.mirror;
        let expected = self.function.read(Region::CONFIG, u64::from(shown + at), Width::B4);
        let base = self.function.read(Region::CONFIG, u64::from(0x10 + 4 * bar), Width::B4);
        let first = (base.unwrap_or(0) & !0xf) + offset;
        let seen = Trap { at: Address::Gpa(Gpa(first + u64::from(at))), width: Width::B4, op: Op::Read };
        let found = self.space().resolve(seen, &ConfigLatch::default());
        if let Resolved::Access { access, .. } = found
            && access.region.0 >= 0xe0
        {
            let shown = self.function.read(access.region, access.offset, access.width);
            assert_eq!(shown, expected, "{at:x}");
        }
    }
}
