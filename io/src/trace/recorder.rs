//! The producer's end of a lane.

use std::sync::Arc;

use super::filter::Filter;
use super::lane::Lane;
use super::record::{How, Record, delta};
use crate::access::{Access, Address, Op, Region, Trap};
use crate::space::EndpointId;

/// Makes records and puts them into a lane. One for each vCPU, and one for each function, used by
/// whoever owns it.
#[derive(Debug)]
pub struct Recorder {
    lane: Arc<Lane>,
    filter: Arc<Filter>,
    vcpu: Option<u16>,
    function: Option<EndpointId>,
    /// The latest access of the exit, which still lacks the moment of the resume.
    pending: Option<Record>,
}

/// When an access passed its stages, in nanoseconds of the stages' clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pub(crate) push: Option<u64>,
    pub(crate) start: Option<u64>,
    pub(crate) end: Option<u64>,
}

impl Recorder {
    /// The recorder of a vCPU.
    pub fn of_vcpu(vcpu: u16, lane: Arc<Lane>, filter: Arc<Filter>) -> Recorder {
        Recorder { lane, filter, vcpu: Some(vcpu), function: None, pending: None }
    }

    /// The recorder of what is carried out on a function for nobody who waits.
    pub fn of_function(function: EndpointId, lane: Arc<Lane>, filter: Arc<Filter>) -> Recorder {
        Recorder { lane, filter, vcpu: None, function: Some(function), pending: None }
    }

    /// An exit came.
    pub(crate) fn exit(&mut self, time: u64) {
        self.lane.set_busy(Some(time));
    }

    /// One access of the exit that came at `time` was carried out, or posted.
    pub(crate) fn note(&mut self, time: u64, trap: Trap, done: Done, moments: Moments) {
        self.flush();
        let target = done.target;
        let at = Some(trap.at);
        let of = target.map(|(id, access)| (id, access.region));
        if !self.filter.admits(at, trap.width, of) {
            return;
        }
        let nothing = Access { region: Region(0), width: trap.width, offset: 0, op: trap.op };
        self.pending = Some(Record {
            time,
            push: delta(time, moments.push),
            start: delta(time, moments.start),
            end: delta(time, moments.end),
            resume: None,
            vcpu: self.vcpu,
            at,
            function: target.map(|(id, _)| id),
            access: target.map_or(nothing, |(_, access)| access),
            value: done.value,
            how: done.how,
        });
    }

    /// The guest goes on at `now`.
    pub(crate) fn resume(&mut self, now: u64) {
        if let Some(record) = &mut self.pending {
            record.resume = delta(record.time, Some(now));
        }
        self.flush();
        self.lane.set_busy(None);
    }

    fn flush(&mut self) {
        if let Some(record) = self.pending.take() {
            self.lane.push(&record);
        }
    }

    /// Since when a write for which nobody waits is under way; `None` when it was
    /// [carried out](Recorder::carried_out). By whoever owns the function.
    pub(crate) fn under_way(&self, since: Option<u64>) {
        self.lane.set_busy(since);
    }

    /// A write for which nobody waits was carried out, between these moments; of one that is merged with
    /// others the end is not known. By whoever owns the function.
    pub(crate) fn carried_out(&self, access: Access, how: How, start: u64, end: Option<u64>) {
        let Op::Write(value) = access.op else { return };
        let at = legacy_address(access);
        if !self.filter.admits(at, access.width, self.function.map(|id| (id, access.region))) {
            return;
        }
        self.lane.push(&Record {
            time: start,
            push: None,
            start: Some(0),
            end: delta(start, end),
            resume: None,
            vcpu: None,
            at,
            function: self.function,
            access,
            value,
            how,
        });
    }
}

/// What became of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) target: Option<(EndpointId, Access)>,
    pub(crate) value: u64,
    pub(crate) how: How,
}

/// The guest's address of an access to legacy VGA, whose offsets are the addresses.
fn legacy_address(access: Access) -> Option<Address> {
    if access.region != Region::VGA {
        return None;
    }
    match u16::try_from(access.offset) {
        Ok(port) => Some(Address::Port(crate::Port(port))),
        Err(_) => Some(Address::Gpa(crate::Gpa(access.offset))),
    }
}

/// What the last exit left.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        self.lane.set_busy(None);
    }
}
