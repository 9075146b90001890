//! One access as a value of fixed size, and as the words that a lane holds.

use crate::access::{Access, Address, Op, Region, Width};
use crate::addr::{Gpa, Port};
use crate::space::EndpointId;

/// How an access was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// By the vCPU itself.
    Inline,
    /// In its turn of the queue while the vCPU waited, mostly by another thread.
    Queued,
    /// Later, by whoever owned the function then: the vCPU did not wait.
    Posted,
    /// Later, after KVM had collected it without an exit.
    Collected,
    /// By the vCPU, as a change of the map or what may end a shadow.
    Topology,
    /// In the look-up: it was the configuration latch.
    Latch,
    /// By nobody: nothing decodes the address.
    Unclaimed,
}

impl How {
    /// All of them; the place in the list is the number in a record.
    const ALL: [How; 7] =
        [How::Inline, How::Queued, How::Posted, How::Collected, How::Topology, How::Latch, How::Unclaimed];

    /// The name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            How::Inline => "inline",
            How::Queued => "queued",
            How::Posted => "posted",
            How::Collected => "collected",
            How::Topology => "topology",
            How::Latch => "latch",
            How::Unclaimed => "unclaimed",
        }
    }
}

/// One access. All times are nanoseconds of `CLOCK_MONOTONIC`; those that are an `Option` count from
/// `time`, up to four seconds, and are `None` where the access has no such moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the exit came; of a record without a vCPU, when the device began.
    pub time: u64,
    /// When the access asked for its place in the order.
    pub push: Option<u32>,
    /// When the device began.
    pub start: Option<u32>,
    /// When the device was done.
    pub end: Option<u32>,
    /// When the vCPU went back into the guest.
    pub resume: Option<u32>,
    /// Who made it; unknown where it is carried out for another thread.
    pub vcpu: Option<u16>,
    /// Where the guest touched, if that is known.
    pub at: Option<Address>,
    /// Whose region it was.
    pub function: Option<EndpointId>,
    /// What the function saw; the region and offset mean nothing without one.
    pub access: Access,
    /// What was read or written.
    pub value: u64,
    /// How it was carried out.
    pub how: How,
}

/// Words of a record in a lane.
pub(super) const WORDS: usize = 7;

/// No such moment.
const NEVER: u32 = u32::MAX;
/// No such vCPU or function.
const NOBODY: u16 = u16::MAX;

impl Record {
    /// The moment that orders records: when the device began, else when the access asked for its place,
    /// else when the exit came.
    pub fn moment(&self) -> u64 {
        self.time.wrapping_add(self.start.or(self.push).unwrap_or(0).into())
    }

    /// Whether a device saw what this record tells of, just then. A posted write is told twice: by the
    /// vCPU when it went on, and by the owner of the function when the device saw it.
    pub fn reaches_device(&self) -> bool {
        match self.how {
            How::Posted => self.vcpu.is_none(),
            How::Latch | How::Unclaimed => false,
            How::Inline | How::Queued | How::Collected | How::Topology => true,
        }
    }

    pub(super) fn words(&self) -> [u64; WORDS] {
        let (space, address) = match self.at {
            None => (0, 0),
            Some(Address::Port(Port(port))) => (1, port.into()),
            Some(Address::Gpa(Gpa(gpa))) => (2, gpa),
        };
        let is_write = u64::from(self.access.op != Op::Read);
        let flags = space | is_write << 2 | u64::from(self.access.width.bytes().trailing_zeros()) << 3;
        let who = u64::from(self.vcpu.unwrap_or(NOBODY));
        let whose = u64::from(self.function.map_or(NOBODY, |function| function.0));
        let region = u64::from(self.access.region.0);
        [
            self.time,
            address,
            self.access.offset,
            self.value,
            pair(self.push, self.start),
            pair(self.end, self.resume),
            who | whose << 16 | region << 32 | (self.how as u64) << 40 | flags << 48,
        ]
    }

    /// What [`Record::words`] made; words that it never makes give some record all the same.
    pub(super) fn of_words(words: &[u64; WORDS]) -> Record {
        let [time, address, offset, value, push_start, end_resume, rest] = *words;
        let half = |word: u64, high: u32| (word >> (32 * high) & 0xffff_ffff) as u32;
        let moment = |word, high| Some(half(word, high)).filter(|delta| *delta != NEVER);
        let short = |shift: u32| Some((rest >> shift & 0xffff) as u16).filter(|id| *id != NOBODY);
        let flags = rest >> 48;
        let at = match flags & 3 {
            1 => Some(Address::Port(Port((address & 0xffff) as u16))),
            2 => Some(Address::Gpa(Gpa(address))),
            _ => None,
        };
        let width = Width::of(1 << (flags >> 3 & 3)).unwrap_or(Width::B1);
        let op = if flags >> 2 & 1 == 1 { Op::Write(value) } else { Op::Read };
        let how = How::ALL.get((rest >> 40 & 0xff) as usize).copied().unwrap_or(How::Unclaimed);
        Record {
            time,
            push: moment(push_start, 0),
            start: moment(push_start, 1),
            end: moment(end_resume, 0),
            resume: moment(end_resume, 1),
            vcpu: short(0),
            at,
            function: short(16).map(EndpointId),
            access: Access { region: Region((rest >> 32 & 0xff) as u8), width, offset, op },
            value,
            how,
        }
    }
}

fn pair(low: Option<u32>, high: Option<u32>) -> u64 {
    u64::from(low.unwrap_or(NEVER)) | u64::from(high.unwrap_or(NEVER)) << 32
}

/// How long `moment` came after `time`, as a record has it.
pub(super) fn delta(time: u64, moment: Option<u64>) -> Option<u32> {
    let after = moment?.saturating_sub(time);
    Some(u32::try_from(after).unwrap_or(NEVER).min(NEVER - 1))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_is_cut_and_none_stays_none() {
        assert_eq!(delta(5, None), None);
        assert_eq!(delta(5, Some(3)), Some(0));
        assert_eq!(delta(5, Some(12)), Some(7));
        assert_eq!(delta(5, Some(u64::MAX)), Some(u32::MAX - 1));
    }

    #[test]
    fn the_number_of_a_way_is_its_place() {
        for (place, how) in How::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, place);
        }
    }
}
