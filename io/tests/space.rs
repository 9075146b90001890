//! The address space and the path over it against a model that knows no tables: for each byte of an
//! access it looks through all claims in the order in which they were made.
#![cfg(not(loom))]

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::{Claim, Claims, Range, Retire, Signal, Target};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigAddress, ConfigLatch, DwordSet, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

const ENDPOINTS: u16 = 4;

/// A byte of a device: whose, where.
type Cell = (u16, Region, u64);

/// What the bytes of all devices read as.
fn content((endpoint, region, offset): Cell) -> u8 {
    let mixed = offset ^ u64::from(endpoint) << 40 ^ u64::from(region.0) << 48;
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

type Written = Arc<Mutex<Vec<(Cell, u8)>>>;

/// A device whose every byte can be told from every other.
struct Pattern {
    endpoint: u16,
    written: Written,
}

impl Pattern {
    fn cells(&self, region: Region, offset: u64, width: Width) -> impl Iterator<Item = Cell> + use<> {
        let endpoint = self.endpoint;
        (0..width.bytes() as u64).map(move |byte| (endpoint, region, offset.wrapping_add(byte)))
    }
}

impl Device for Pattern {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        for (byte, cell) in bytes.iter_mut().zip(self.cells(region, offset, width)) {
            *byte = content(cell);
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.written.lock().extend(self.cells(region, offset, width).zip(value.to_le_bytes()));
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// Carries the write out and counts it.
struct Counted {
    endpoints: Arc<[Arc<Endpoint>]>,
    changes: Arc<Mutex<u32>>,
}

impl Topology for Counted {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        *self.changes.lock() += 1;
        self.endpoints[usize::from(endpoint.0)].call(caller, access);
    }
}

/// One call of the builder.
#[derive(Clone, Debug)]
struct Claimed {
    endpoint: u16,
    claim: Claim,
    window: Option<Range>,
}

#[derive(Clone, Debug)]
struct Layout {
    claims: Vec<Claimed>,
    functions: Vec<(ConfigAddress, u16, DwordSet)>,
    latch: u32,
}

/// What one byte of an access leads to.
enum Byte {
    Cell(Cell, Retire),
    Nothing,
}

fn inside(range: Range, at: Address) -> Option<u64> {
    match (range, at) {
        (Range::Ports(span), Address::Port(port)) => span.offset_of(port),
        (Range::Memory(span), Address::Gpa(gpa)) => span.offset_of(gpa),
        _ => None,
    }
}

impl Layout {
    /// The claim that owns an address, and how far behind its start the address lies.
    fn owner(&self, at: Address) -> Option<(&Claimed, u64)> {
        self.claims.iter().find_map(|claimed| {
            if let Some(window) = claimed.window {
                inside(window, at)?;
            }
            Some((claimed, inside(claimed.claim.range, at)?))
        })
    }

    fn config(&self, function: u64, offset: u64) -> Byte {
        // Of two functions at one address the first one stays.
        let found = self.functions.iter().find(|(at, ..)| u64::from(at.0) == function);
        match found {
            Some((_, endpoint, topology)) => {
                let retire = if topology.contains(offset) { Retire::Topology } else { Retire::Strict };
                Byte::Cell((*endpoint, Region::CONFIG, offset), retire)
            }
            None => Byte::Nothing,
        }
    }

    fn byte(&self, at: Address) -> Byte {
        let Some((claimed, from_start)) = self.owner(at) else { return Byte::Nothing };
        match claimed.claim.target {
            Target::Region { region, offset, retire } => {
                Byte::Cell((claimed.endpoint, region, offset.wrapping_add(from_start)), retire)
            }
            Target::ConfigAddress => Byte::Nothing,
            Target::ConfigData if self.latch >> 31 == 0 => Byte::Nothing,
            Target::ConfigData => {
                self.config(u64::from(self.latch >> 8 & 0xffff), u64::from(self.latch & 0xfc) + from_start)
            }
            Target::Ecam => self.config(from_start >> 12, from_start & 0xfff),
        }
    }

    fn is_latch(&self, trap: Trap) -> bool {
        let owner = self.owner(trap.at).map(|(claimed, _)| claimed.claim.target);
        trap.at == Address::Port(Port(0xcf8))
            && trap.width == Width::B4
            && owner == Some(Target::ConfigAddress)
    }

    /// Bytes past the end of the space lead nowhere.
    fn bytes(&self, trap: Trap) -> Vec<Byte> {
        let at = |byte: usize| match trap.at {
            Address::Port(Port(port)) => {
                port.checked_add(u16::try_from(byte).unwrap()).map(|port| Address::Port(Port(port)))
            }
            Address::Gpa(Gpa(gpa)) => gpa.checked_add(byte as u64).map(|gpa| Address::Gpa(Gpa(gpa))),
        };
        (0..trap.width.bytes()).map(|byte| at(byte).map_or(Byte::Nothing, |at| self.byte(at))).collect()
    }

    fn build(&self) -> SpaceBuilder {
        let mut builder = SpaceBuilder::default();
        for Claimed { endpoint, claim, window } in &self.claims {
            match window {
                Some(window) => builder.claim_within(EndpointId(*endpoint), claim, *window),
                None => builder.claim(EndpointId(*endpoint), claim),
            }
        }
        for (at, endpoint, topology) in &self.functions {
            builder.function(*at, EndpointId(*endpoint), *topology);
        }
        builder
    }
}

/// A machine over a layout.
struct Rig {
    path: Path,
    latch: Arc<ConfigLatch>,
    written: Written,
    changes: Arc<Mutex<u32>>,
}

fn rig(layout: &Layout) -> Rig {
    let completions = Completions::new(1);
    let bell = Arc::new(Doorbell::new().unwrap());
    let written = Written::default();
    let endpoints: Arc<[_]> = (0..ENDPOINTS)
        .map(|endpoint| {
            let device = Pattern { endpoint, written: Arc::clone(&written) };
            Arc::new(Endpoint::new("pattern", Box::new(device), completions.clone(), Arc::clone(&bell)))
        })
        .collect();
    let latch = Arc::new(ConfigLatch::default());
    latch.set(layout.latch);
    let changes = Arc::default();
    let topology = Counted { endpoints: Arc::clone(&endpoints), changes: Arc::clone(&changes) };
    let path = Path::new(
        Published::new(layout.build().build()).reader(),
        Arc::clone(&latch),
        endpoints,
        Arc::new(topology),
        completions.caller(CallerId(0)).unwrap(),
    );
    Rig { path, latch, written, changes }
}

const ECAM: u64 = 0xb000_0000;

/// Ports where something happens: both ends of the space, and around the configuration ports.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..24, 0xcf0u16..0xd08, 0xffe8u16..=0xffff]
}

/// The same for memory, with the neighbourhood of two functions' pages in the ECAM window.
fn gpa() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..40,
        u64::MAX - 40..=u64::MAX,
        ECAM - 12..ECAM + 24,
        ECAM + 0x0fe8..ECAM + 0x1018,
        ECAM + 0x8000..ECAM + 0x8040,
        ECAM + 0xffff0..ECAM + 0x100010,
    ]
}

fn ports() -> impl Strategy<Value = Range> {
    (port(), 0u16..20).prop_map(|(first, extent)| {
        Range::Ports(Span::new(Port(first), Port(first.saturating_add(extent))).unwrap())
    })
}

fn memory() -> impl Strategy<Value = Range> {
    (gpa(), prop_oneof![0u64..20, 0u64..0x2000]).prop_map(|(first, extent)| {
        Range::Memory(Span::new(Gpa(first), Gpa(first.saturating_add(extent))).unwrap())
    })
}

fn range() -> impl Strategy<Value = Range> {
    prop_oneof![ports(), memory()]
}

fn target() -> impl Strategy<Value = Target> {
    let retire = prop_oneof![Just(Retire::Strict), Just(Retire::Posted), Just(Retire::Topology)];
    let offset = prop_oneof![0u64..0x4000, Just(u64::MAX - 3)];
    (0u8..3, offset, retire).prop_map(|(region, offset, retire)| Target::Region {
        region: Region(region),
        offset,
        retire,
    })
}

fn claimed() -> impl Strategy<Value = Claimed> {
    let window = prop_oneof![3 => Just(None), 1 => range().prop_map(Some)];
    let plain = (range(), target(), window);
    let config = prop_oneof![
        Just((Range::Ports(Span::new(Port(0xcf8), Port(0xcfb)).unwrap()), Target::ConfigAddress)),
        Just((Range::Ports(Span::new(Port(0xcfc), Port(0xcff)).unwrap()), Target::ConfigData)),
        Just((Range::Memory(Span::of_len(Gpa(ECAM), 1 << 20).unwrap()), Target::Ecam)),
    ];
    let config = config.prop_map(|(range, target)| (range, target, None));
    (0..ENDPOINTS, prop_oneof![2 => plain, 1 => config]).prop_map(|(endpoint, (range, target, window))| {
        Claimed { endpoint, claim: Claim::of(range, target), window }
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    let at = prop_oneof![Just(0u16), Just(1), Just(8), Just(0xff), any::<u16>()].prop_map(ConfigAddress);
    let dwords = prop_oneof![
        Just(DwordSet::default()),
        Just(DwordSet::of(&[4, 0x10, 0x14])),
        Just(DwordSet::of(&[0, 0x24, 0xfc]))
    ];
    let functions = proptest::collection::vec((at, 0..ENDPOINTS, dwords), 0..5);
    let latch = (any::<bool>(), prop_oneof![Just(0u32), Just(1), Just(8), 0u32..0x100], 0u32..64)
        .prop_map(|(enabled, function, dword)| u32::from(enabled) << 31 | function << 8 | dword << 2);
    (proptest::collection::vec(claimed(), 0..12), functions, latch)
        .prop_map(|(claims, functions, latch)| Layout { claims, functions, latch })
}

fn trap(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Trap> {
    let port = (port(), prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4)])
        .prop_map(|(port, width)| (Address::Port(Port(port)), width));
    let width = prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)];
    let gpa = (gpa(), width).prop_map(|(gpa, width)| (Address::Gpa(Gpa(gpa)), width));
    (prop_oneof![port, gpa], op).prop_map(|((at, width), op)| Trap {
        at,
        width,
        op: match op {
            Op::Read => Op::Read,
            Op::Write(value) => Op::Write(value & width.all_ones()),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A read gathers the bytes that the model names; where it names none there are ones.
    #[test]
    fn reads_gather_the_right_bytes(
        layout in layout(),
        traps in proptest::collection::vec(trap(Just(Op::Read)), 1..40),
    ) {
        let mut rig = rig(&layout);
        for trap in traps {
            let mut expected = 0;
            for (place, byte) in layout.bytes(trap).iter().enumerate() {
                let value = match byte {
                    Byte::Cell(cell, _) => content(*cell),
                    Byte::Nothing => 0xff,
                };
                expected |= u64::from(value) << (8 * place);
            }
            if layout.is_latch(trap) {
                expected = u64::from(layout.latch);
            }
            prop_assert_eq!(rig.path.carry_out(trap), expected, "{:?}", trap);
        }
        prop_assert!(rig.written.lock().is_empty());
    }

    /// A write scatters its bytes, lowest address first, to where reads gather them; and the topology is asked
    /// if and only if one of the registers changes the map.
    #[test]
    fn writes_scatter_to_the_right_bytes(
        layout in layout(),
        traps in proptest::collection::vec(trap(any::<u64>().prop_map(Op::Write)), 1..40),
    ) {
        let mut rig = rig(&layout);
        for trap in traps {
            let Op::Write(value) = trap.op else { unreachable!() };
            let (mut expected, mut topology) = (Vec::new(), false);
            for (byte, value) in layout.bytes(trap).into_iter().zip(value.to_le_bytes()) {
                if let Byte::Cell(cell, retire) = byte {
                    expected.push((cell, value));
                    topology |= retire == Retire::Topology;
                }
            }
            if layout.is_latch(trap) {
                (expected, topology) = (Vec::new(), false);
            }
            prop_assert_eq!(rig.path.carry_out(trap), 0);
            prop_assert_eq!(std::mem::take(&mut *rig.written.lock()), expected, "{:?}", trap);
            prop_assert_eq!(std::mem::take(&mut *rig.changes.lock()) > 0, topology, "{:?}", trap);
            if layout.is_latch(trap) {
                prop_assert_eq!(u64::from(rig.latch.get()), value & 0x80ff_fffc);
                rig.latch.set(layout.latch);
            }
        }
    }

    /// An access that lies wholly in one claim is not cut.
    #[test]
    fn what_need_not_be_split_is_not(layout in layout(), trap in trap(Just(Op::Read))) {
        let space = layout.build().build();
        let latch = ConfigLatch::default();
        latch.set(layout.latch);
        let last = trap.width.bytes() as u64 - 1;
        let end = match trap.at {
            Address::Port(Port(port)) => {
                port.checked_add(u16::try_from(last).unwrap()).map(|port| Address::Port(Port(port)))
            }
            Address::Gpa(Gpa(gpa)) => gpa.checked_add(last).map(|gpa| Address::Gpa(Gpa(gpa))),
        };
        let owners: Vec<_> = (0..=last)
            .map(|byte| match (trap.at, end) {
                (Address::Port(Port(port)), Some(_)) => {
                    layout.owner(Address::Port(Port(port + u16::try_from(byte).unwrap())))
                }
                (Address::Gpa(Gpa(gpa)), Some(_)) => layout.owner(Address::Gpa(Gpa(gpa + byte))),
                _ => None,
            })
            .map(|owner| owner.map(|(claimed, _)| std::ptr::from_ref(claimed)))
            .collect();
        let plain = layout
            .owner(trap.at)
            .is_some_and(|(claimed, _)| matches!(claimed.claim.target, Target::Region { .. }));
        let one_owner = end.is_some() && owners.iter().all(|owner| *owner == owners[0]);
        if one_owner && plain {
            let resolved = space.resolve(trap, &latch);
            let whole = matches!(resolved, Resolved::Access { access, .. } if access.width == trap.width);
            prop_assert!(whole, "{resolved:?}");
        }
    }
}

/// A claim that loses its beginning to an overlay still decodes by its own start.
#[test]
fn an_overlay_does_not_move_the_configuration_window() {
    let ecam = Range::Memory(Span::of_len(Gpa(ECAM), 1 << 20).unwrap());
    let overlay = Range::Memory(Span::of_len(Gpa(ECAM), 0x1000).unwrap());
    let mut builder = SpaceBuilder::default();
    builder.claim(EndpointId(0), &Claim::region(overlay, Region::bar(0), 0));
    builder.claim(EndpointId(1), &Claim::of(ecam, Target::Ecam));
    builder.function(ConfigAddress(1), EndpointId(2), DwordSet::default());
    let space = builder.build();
    let trap = Trap { at: Address::Gpa(Gpa(ECAM + 0x1004)), width: Width::B4, op: Op::Read };
    let Resolved::Access { endpoint, access, .. } = space.resolve(trap, &ConfigLatch::default()) else {
        panic!("function 1 is there");
    };
    assert_eq!((endpoint, access.offset), (EndpointId(2), 4));
}

#[test]
fn the_latch_answers_to_one_access_only() {
    let mut builder = SpaceBuilder::default();
    let ports = Range::Ports(Span::new(Port(0xcf8), Port(0xcfb)).unwrap());
    builder.claim(EndpointId(0), &Claim::of(ports, Target::ConfigAddress));
    let space = builder.build();
    let latch = ConfigLatch::default();
    let access = |port, width, op| Trap { at: Address::Port(Port(port)), width, op };
    let whole = space.resolve(access(0xcf8, Width::B4, Op::Write(0xffff_ffff)), &latch);
    assert_eq!(whole, Resolved::Latch(0));
    assert_eq!(latch.get(), 0x80ff_fffc);
    assert_eq!(space.resolve(access(0xcf8, Width::B1, Op::Write(0)), &latch), Resolved::Unclaimed);
    assert_eq!(space.resolve(access(0xcfa, Width::B4, Op::Write(0)), &latch), Resolved::Split);
    assert_eq!(space.resolve(access(0xcf8, Width::B4, Op::Read), &latch), Resolved::Latch(0x80ff_fffc));
}

/// A signal goes with its register: not with a part of it, and not where an earlier claim has the place.
#[test]
fn a_signal_is_in_the_map_with_the_whole_of_its_register() {
    let event = Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap());
    let signal = |value| Signal { event: event.clone(), value };
    let memory = |first, len| Range::Memory(Span::of_len(Gpa(first), len).unwrap());
    let port = Range::Ports(Span::of_len(Port(0x80), 1).unwrap());
    let register = Claim::region(memory(0x1010, 4), Region::bar(0), 0x10);
    let register = register.signal(signal(None)).signal(signal(Some((Width::B4, 7))));
    let bar = Claim::region(memory(0x1000, 0x1000), Region::bar(0), 0);
    let seen = |fill: &dyn Fn(&mut SpaceBuilder)| {
        let mut builder = SpaceBuilder::default();
        fill(&mut builder);
        builder.claim(EndpointId(0), &bar);
        let space = builder.build();
        space.signals().map(|(at, signal)| (at, signal.value)).collect::<Vec<_>>()
    };
    let at = Address::Gpa(Gpa(0x1010));
    let both = [(at, None), (at, Some((Width::B4, 7)))];
    let me = EndpointId(0);
    assert_eq!(seen(&|builder| builder.claim(me, &register)), both);
    assert_eq!(seen(&|builder| builder.claim_within(me, &register, memory(0, 0x1014))), both);
    for window in [memory(0, 0x1013), memory(0x1011, 0x100), memory(0x2000, 4)] {
        assert_eq!(seen(&|builder| builder.claim_within(me, &register, window)), []);
    }
    let taken = Claim::region(memory(0x1013, 1), Region::bar(1), 0);
    let hidden = |builder: &mut SpaceBuilder| {
        builder.claim(EndpointId(1), &taken);
        builder.claim(me, &register);
    };
    assert_eq!(seen(&hidden), []);
    let latch = Claim::region(port, Region::bar(2), 0).signal(signal(None));
    assert_eq!(seen(&|builder| builder.claim(me, &latch)), [(Address::Port(Port(0x80)), None)]);
}
