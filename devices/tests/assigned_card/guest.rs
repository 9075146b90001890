//! A guest that reaches a card through the address space, as a vCPU does.
#![allow(dead_code, reason = "each test file uses its own part")]

use trapline_devices::assigned::{Backend, Function, Options};
use trapline_io::device::Retire;
use trapline_io::space::{AddressSpace, ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Access, Address, Device, Gpa, Op, Port, Trap, Width};

use crate::adapter::Adapter;
use crate::fake::Driver;

/// Where the guest puts BARs 0 to 5.
const PLACES: [u64; 6] = [0xe000_0000, 0xd000, 0xe100_0000, 0, 0xc000, 0xb000];

/// See the module's page.
pub struct Guest {
    pub driver: Driver<Adapter>,
    pub card: Adapter,
    /// The whole of what was sent by a way that changes the map.
    pub changes: usize,
}

impl Guest {
    /// One that has placed the BARs of a card and lets them decode.
    pub fn of(card: Adapter, options: Options) -> Guest {
        let mut guest =
            Guest { driver: Driver(Function::open(card.clone(), options).unwrap()), card, changes: 0 };
        guest.place();
        guest.card.seen();
        guest.card.written();
        guest
    }

    /// Places the BARs and lets them decode.
    pub fn place(&mut self) {
        for (bar, (place, region)) in (0_u16..).zip(PLACES.into_iter().zip(self.card.regions())) {
            if region.size > 0 {
                // A wide BAR is in place of ports.
                let place = if bar == 1 && !region.mappings.is_empty() { 0xe200_0000 } else { place };
                self.driver.set32(0x10 + 4 * bar, u32::try_from(place).unwrap());
            }
        }
        self.driver.set16(4, 3);
    }

    pub fn space(&self) -> AddressSpace {
        let mut builder = SpaceBuilder::default();
        for claim in self.driver.0.claims().ranges {
            builder.claim(EndpointId(0), &claim);
        }
        builder.build()
    }

    /// As a vCPU does it.
    pub fn access(&mut self, at: Address, width: Width, op: Op) -> u64 {
        match self.space().resolve(Trap { at, width, op }, &ConfigLatch::default()) {
            Resolved::Access { access, retire, .. } => self.carry_out(access, retire),
            Resolved::Split => {
                let half = width.half().unwrap();
                let shift = 8 * half.bytes();
                let part = |shift: usize| match op {
                    Op::Read => Op::Read,
                    Op::Write(value) => Op::Write(value >> shift & half.all_ones()),
                };
                let upper = match at {
                    Address::Port(Port(port)) => {
                        Address::Port(Port(port + u16::try_from(half.bytes()).unwrap()))
                    }
                    Address::Gpa(Gpa(gpa)) => Address::Gpa(Gpa(gpa + half.bytes() as u64)),
                };
                let low = self.access(at, half, part(0));
                low | self.access(upper, half, part(shift)) << shift
            }
            other => panic!("{at:?}: {other:?}"),
        }
    }

    fn carry_out(&mut self, access: Access, retire: Retire) -> u64 {
        let function = &mut self.driver.0;
        let Access { region, offset, width, op } = access;
        let Op::Write(value) = op else { return function.read(region, offset, width).unwrap() };
        let decoded = |function: &Function<Adapter>| {
            let mut ranges = function.claims().ranges;
            ranges.retain(|claim| claim.signals.is_empty());
            ranges
        };
        let before = decoded(function);
        let announced = function.changes_map(access);
        function.write(region, offset, width, value).unwrap();
        // The topology is asked for what it has to know, and only then.
        let changed = before != decoded(function);
        assert!(!changed || announced && retire == Retire::Topology, "{access:?}: {retire:?}");
        self.changes += usize::from(announced);
        0
    }

    pub fn outd(&mut self, port: u64, value: u64) {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B4, Op::Write(value));
    }
    pub fn outw(&mut self, port: u64, value: u64) {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B2, Op::Write(value));
    }
    pub fn ind(&mut self, port: u64) -> u64 {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B4, Op::Read)
    }
    pub fn inb(&mut self, port: u64) -> u64 {
        self.access(Address::Port(Port(port.try_into().unwrap())), Width::B1, Op::Read)
    }
    pub fn load(&mut self, gpa: u64, width: Width) -> u64 {
        self.access(Address::Gpa(Gpa(gpa)), width, Op::Read)
    }
    pub fn store(&mut self, gpa: u64, width: Width, value: u64) {
        self.access(Address::Gpa(Gpa(gpa)), width, Op::Write(value));
    }

    /// Pages of a BAR that are mapped, as first byte and length.
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        self.space().direct().map(|(span, _)| (span.first().0, span.extent() + 1)).collect()
    }
}
