//! The guest's address space as one immutable, sorted table.
//!
//! A table is built by [`SpaceBuilder`] from what the functions claim, published by
//! [`crate::publish`], and read by each vCPU without a lock. Overlays, bridge windows and overlaps
//! are all decided when the table is built; a look-up is a binary search and an addition.
//!
//! The table holds [`EndpointId`]s, never devices: a halted vCPU may keep an old table for long.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::access::{Access, Address, Op, Region, Trap, Width};
use crate::addr::{Gpa, Port, Position, Span};
use crate::device::{Direct, Range, Retire, Signal, Target};

mod build;

pub use build::SpaceBuilder;

/// The place of an endpoint in its machine's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// Bus, device and function of a PCI function as one number: bus in bits 15:8, device in bits 7:3,
/// function in bits 2:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigAddress(pub u16);

/// Which of the first 64 configuration dwords change the map when written: bit n stands for the
/// dword at offset 4n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DwordSet(u64);

impl DwordSet {
    /// The dwords that hold these byte offsets; offsets from 0x100 on are never in the set.
    pub const fn of(offsets: &[u8]) -> DwordSet {
        let mut bits = 0;
        let mut i = 0;
        while i < offsets.len() {
            bits |= 1 << (offsets[i] >> 2);
            i += 1;
        }
        DwordSet(bits)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: DwordSet) -> DwordSet {
        DwordSet(self.0 | other.0)
    }

    /// Whether the dword at this byte offset is in the set.
    pub const fn contains(self, offset: u64) -> bool {
        offset < 0x100 && self.0 >> (offset >> 2) & 1 == 1
    }
}

/// The port of the configuration latch.
const CONFIG_ADDRESS: u64 = 0xcf8;

/// The latch behind port 0xcf8: one for the machine, written only by 32-bit accesses.
#[derive(Debug, Default)]
pub struct ConfigLatch(AtomicU32);

impl ConfigLatch {
    /// The value as the guest reads it.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Sets the value; zero at reset.
    pub fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }
}

/// Where a trap leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// To a region of a function.
    Access {
        /// Whose.
        endpoint: EndpointId,
        /// What the device will see.
        access: Access,
        /// When a write retires.
        retire: Retire,
    },
    /// It was the configuration latch; a read gives this value, a write zero.
    Latch(u64),
    /// Nobody decodes it: a write is dropped, a read gives all ones.
    Unclaimed,
    /// It crosses the end of a range: to be done as two accesses of half the width.
    Split,
}

/// A run of addresses with one answer.
#[derive(Clone, Debug)]
struct Piece<A> {
    span: Span<A>,
    /// How far behind the claim's first address the span begins: not zero where something else took
    /// the claim's first addresses.
    skipped: u64,
    endpoint: EndpointId,
    target: Target,
    direct: Option<Direct>,
    /// Of a claim that is in the map as a whole.
    signals: Vec<Signal>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    at: ConfigAddress,
    endpoint: EndpointId,
    topology: DwordSet,
}

/// The table. See the module's page.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    ports: Table<Port>,
    memory: Table<Gpa>,
    functions: Box<[Function]>,
}

impl AddressSpace {
    /// Finds what answers `trap`. Never blocks, locks or allocates; the only thing it may change is
    /// `latch`.
    ///
    /// ```
    /// use trapline_io::device::{Claim, Range};
    /// use trapline_io::space::{ConfigLatch, EndpointId, Resolved, SpaceBuilder};
    /// use trapline_io::{Access, Address, Op, Port, Region, Span, Trap, Width};
    ///
    /// let mut builder = SpaceBuilder::default();
    /// let crtc = Range::Ports(Span::new(Port(0x3d4), Port(0x3d5)).unwrap());
    /// builder.claim(EndpointId(7), &Claim::region(crtc, Region::VGA, 0x3d4));
    /// let space = builder.build();
    ///
    /// let trap = Trap { at: Address::Port(Port(0x3d4)), width: Width::B2, op: Op::Write(0x120e) };
    /// let Resolved::Access { endpoint, access, .. } = space.resolve(trap, &ConfigLatch::default()) else {
    ///     panic!("nothing claims the port");
    /// };
    /// assert_eq!(endpoint, EndpointId(7));
    /// assert_eq!(access, Access::write(Region::VGA, 0x3d4, Width::B2, 0x120e));
    /// ```
    pub fn resolve(&self, trap: Trap, latch: &ConfigLatch) -> Resolved {
        match trap.at {
            Address::Port(port) => match self.ports.find(port) {
                Some(piece) => self.hit(piece, port, trap, latch),
                None => self.ports.miss(port, trap.width),
            },
            Address::Gpa(gpa) => match self.memory.find(gpa) {
                Some(piece) => self.hit(piece, gpa, trap, latch),
                None => self.memory.miss(gpa, trap.width),
            },
        }
    }

    /// The ranges that belong into memory slots, in ascending order.
    pub fn direct(&self) -> impl Iterator<Item = (Span<Gpa>, &Direct)> {
        self.memory.pieces.iter().filter_map(|piece| Some((piece.span, piece.direct.as_ref()?)))
    }

    /// All memory ranges in ascending order, with what is mapped directly there.
    pub fn memory(&self) -> impl Iterator<Item = (Span<Gpa>, Option<&Direct>)> {
        self.memory.pieces.iter().map(|piece| (piece.span, piece.direct.as_ref()))
    }

    /// The eventfds that take the place of writes, each with the address of its register.
    pub fn signals(&self) -> impl Iterator<Item = (Address, &Signal)> {
        let ports = self.ports.signals().map(|(port, signal)| (Address::Port(port), signal));
        ports.chain(self.memory.signals().map(|(gpa, signal)| (Address::Gpa(gpa), signal)))
    }

    /// All ranges with who answers there, the ports first, each kind in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = (Range, EndpointId, Target, Option<&Direct>)> {
        fn parts<A: Position>(piece: &Piece<A>) -> (EndpointId, Target, Option<&Direct>) {
            let target = match piece.target {
                Target::Region { region, offset, retire } => {
                    Target::Region { region, offset: offset.wrapping_add(piece.skipped), retire }
                }
                other => other,
            };
            (piece.endpoint, target, piece.direct.as_ref())
        }
        let ports = self.ports.pieces.iter().map(|piece| {
            let (endpoint, target, direct) = parts(piece);
            (Range::Ports(piece.span), endpoint, target, direct)
        });
        let memory = self.memory.pieces.iter().map(|piece| {
            let (endpoint, target, direct) = parts(piece);
            (Range::Memory(piece.span), endpoint, target, direct)
        });
        ports.chain(memory)
    }

    /// The functions that answer configuration accesses, in the order of their addresses.
    pub fn functions(&self) -> impl Iterator<Item = (ConfigAddress, EndpointId)> {
        self.functions.iter().map(|function| (function.at, function.endpoint))
    }

    /// Which endpoint answers at a configuration address.
    pub fn function(&self, at: ConfigAddress) -> Option<EndpointId> {
        self.lookup(at).map(|function| function.endpoint)
    }

    fn lookup(&self, at: ConfigAddress) -> Option<&Function> {
        let index = self.functions.binary_search_by_key(&at, |function| function.at).ok()?;
        self.functions.get(index)
    }

    fn hit<A: Position>(&self, piece: &Piece<A>, at: A, trap: Trap, latch: &ConfigLatch) -> Resolved {
        let last = trap.width.bytes() as u64 - 1;
        if let (Target::ConfigAddress, Width::B4, CONFIG_ADDRESS) = (piece.target, trap.width, at.raw()) {
            // Exactly the 32-bit access at 0xcf8, whatever byte registers lie on 0xcf9 to 0xcfb.
            return Resolved::Latch(latched(latch, trap.op));
        }
        if piece.span.last().raw() - at.raw() < last {
            return Resolved::Split;
        }
        let inside = piece.skipped.wrapping_add(at.raw() - piece.span.first().raw());
        match piece.target {
            Target::Region { region, offset, retire } => Resolved::Access {
                endpoint: piece.endpoint,
                access: Access {
                    region,
                    width: trap.width,
                    offset: offset.wrapping_add(inside),
                    op: trap.op,
                },
                retire,
            },
            Target::ConfigAddress => Resolved::Unclaimed,
            Target::ConfigData => {
                let latched = latch.get();
                if latched & 1 << 31 == 0 {
                    return Resolved::Unclaimed;
                }
                let function = (latched >> 8 & 0xffff) as u16;
                self.config(ConfigAddress(function), u64::from(latched & 0xfc) | inside & 3, trap)
            }
            Target::Ecam => {
                let function = (inside >> 12 & 0xffff) as u16;
                self.config(ConfigAddress(function), inside & 0xfff, trap)
            }
        }
    }

    fn config(&self, at: ConfigAddress, offset: u64, trap: Trap) -> Resolved {
        if (offset & 3) + trap.width.bytes() as u64 > 4 {
            return Resolved::Split;
        }
        let Some(function) = self.lookup(at) else {
            return Resolved::Unclaimed;
        };
        let retire = if function.topology.contains(offset) { Retire::Topology } else { Retire::Strict };
        Resolved::Access {
            endpoint: function.endpoint,
            access: Access { region: Region::CONFIG, width: trap.width, offset, op: trap.op },
            retire,
        }
    }
}

fn latched(latch: &ConfigLatch, op: Op) -> u64 {
    match op {
        Op::Read => u64::from(latch.get()),
        Op::Write(value) => {
            // Bits 30:24 and 1:0 are reserved and read as zero.
            latch.set((value & 0x80ff_fffc) as u32);
            0
        }
    }
}

/// The pieces of one address space in ascending order.
#[derive(Clone, Debug)]
struct Table<A> {
    /// The first address of each piece: a search touches these alone, a few cache lines.
    firsts: Box<[A]>,
    pieces: Box<[Piece<A>]>,
}

impl<A> Default for Table<A> {
    fn default() -> Table<A> {
        Table { firsts: Box::default(), pieces: Box::default() }
    }
}

impl<A: Position> Table<A> {
    /// The table of sorted pieces that do not overlap.
    fn new(pieces: Vec<Piece<A>>) -> Table<A> {
        let firsts = pieces.iter().map(|piece| piece.span.first()).collect();
        Table { firsts, pieces: pieces.into_boxed_slice() }
    }

    /// How many pieces begin at `at` or below.
    #[inline]
    fn up_to(&self, at: A) -> usize {
        self.firsts.partition_point(|first| *first <= at)
    }

    /// The piece that holds `at`.
    #[inline]
    fn find(&self, at: A) -> Option<&Piece<A>> {
        self.pieces.get(self.up_to(at).checked_sub(1)?).filter(|piece| at <= piece.span.last())
    }

    fn signals(&self) -> impl Iterator<Item = (A, &Signal)> {
        self.pieces.iter().flat_map(|piece| piece.signals.iter().map(|signal| (piece.span.first(), signal)))
    }

    /// Nothing lies at `at`, but a wide access may reach the next piece with its upper bytes.
    fn miss(&self, at: A, width: Width) -> Resolved {
        match self.firsts.get(self.up_to(at)) {
            Some(next) if next.raw() - at.raw() < width.bytes() as u64 => Resolved::Split,
            _ => Resolved::Unclaimed,
        }
    }
}
