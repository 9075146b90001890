//! One vCPU's whole way from a trap to its answer.

use std::sync::Arc;

use crate::access::{Access, Address, Op, Trap, Width};
use crate::addr::{Gpa, Port};
use crate::completion::Caller;
use crate::device::Retire;
use crate::endpoint::Endpoint;
use crate::publish::Reader;
use crate::space::{ConfigLatch, EndpointId, Resolved};

/// Carries out the writes that change the map: BARs, COMMAND, bridges, memory.
pub trait Topology: Send + Sync {
    /// Carries out `access`, a write, together with the change of map that follows from it. Called
    /// without any token held; may take the topology mutex and park the other vCPUs.
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access);
}

/// What a vCPU thread needs to answer its exits. One per thread.
pub struct Path {
    space: Reader,
    latch: Arc<ConfigLatch>,
    endpoints: Arc<[Arc<Endpoint>]>,
    topology: Arc<dyn Topology>,
    /// The thread's place among the callers.
    pub caller: Caller,
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Path").field("caller", &self.caller.id()).finish_non_exhaustive()
    }
}

impl Path {
    /// A path of `caller`; the [`EndpointId`]s of the published space index `endpoints`.
    pub fn new(
        space: Reader,
        latch: Arc<ConfigLatch>,
        endpoints: Arc<[Arc<Endpoint>]>,
        topology: Arc<dyn Topology>,
        caller: Caller,
    ) -> Path {
        Path { space, latch, endpoints, topology, caller }
    }

    /// Carries out one trap: the value read, zero for a write, all ones where nothing answers.
    pub fn carry_out(&mut self, trap: Trap) -> u64 {
        let resolved = self.space.space().resolve(trap, &self.latch);
        let value = match resolved {
            Resolved::Access { endpoint, access, retire } => self.submit(endpoint, access, retire),
            Resolved::Latch(value) => value,
            Resolved::Unclaimed if trap.op == Op::Read => trap.width.all_ones(),
            Resolved::Unclaimed => 0,
            Resolved::Split => self.split(trap),
        };
        if let Some(stages) = &mut self.caller.stages {
            stages.note(trap, resolved, value);
        }
        value
    }

    fn submit(&mut self, id: EndpointId, access: Access, retire: Retire) -> u64 {
        let Some(endpoint) = self.endpoints.get(usize::from(id.0)) else {
            return access.width.all_ones();
        };
        match (access.op, retire) {
            (Op::Read, _) | (Op::Write(_), Retire::Strict) => endpoint.call(&mut self.caller, access),
            (Op::Write(_), Retire::Posted) => {
                if let Some(stages) = &mut self.caller.stages {
                    stages.push();
                }
                endpoint.post(access);
                0
            }
            (Op::Write(_), Retire::Topology) => {
                self.topology.change(&mut self.caller, id, access);
                0
            }
        }
    }

    /// The lower half first, as a bus would. What lies past the end of the space answers nothing.
    fn split(&mut self, trap: Trap) -> u64 {
        let Some(half) = trap.width.half() else {
            return trap.width.all_ones();
        };
        let bits = 8 * half.bytes();
        let (low_op, high_op) = match trap.op {
            Op::Read => (Op::Read, Op::Read),
            Op::Write(value) => {
                (Op::Write(value & half.all_ones()), Op::Write(value >> bits & half.all_ones()))
            }
        };
        let low = self.carry_out(Trap { at: trap.at, width: half, op: low_op });
        let high = match behind(trap.at, half) {
            Some(at) => self.carry_out(Trap { at, width: half, op: high_op }),
            None if trap.op == Op::Read => half.all_ones(),
            None => 0,
        };
        low & half.all_ones() | (high & half.all_ones()) << bits
    }
}

/// The address right behind `width` bytes at `at`, if the space has it.
fn behind(at: Address, width: Width) -> Option<Address> {
    match at {
        Address::Port(Port(port)) => {
            port.checked_add(u16::try_from(width.bytes()).ok()?).map(|port| Address::Port(Port(port)))
        }
        Address::Gpa(Gpa(gpa)) => gpa.checked_add(width.bytes() as u64).map(|gpa| Address::Gpa(Gpa(gpa))),
    }
}
