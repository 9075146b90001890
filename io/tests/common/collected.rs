//! A machine whose kernel collects: a ring that tests write as KVM does, and a device that merges.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::feed::{Collected, Feed};
use trapline_io::publish::Published;
use trapline_io::space::{EndpointId, SpaceBuilder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

/// The kernel's ring. A write that finds it full makes the guest exit.
#[derive(Clone)]
pub struct Ring(Arc<ArrayQueue<Trap>>);

impl Ring {
    /// An empty ring of KVM's size.
    pub fn new() -> Ring {
        Ring(Arc::new(ArrayQueue::new(169)))
    }

    /// One that holds as many writes as KVM's places do where each was cut at the end of a page and is handed over in
    /// three pieces.
    pub fn of_pieces() -> Ring {
        Ring(Arc::new(ArrayQueue::new(3 * 169)))
    }

    /// Collects a write to the window or a port of VGA; false if there is no room.
    pub fn write(&self, access: Access) -> bool {
        let at = match u16::try_from(access.offset) {
            Ok(port) => Address::Port(Port(port)),
            Err(_) => Address::Gpa(Gpa(access.offset)),
        };
        self.0.push(Trap { at, width: access.width, op: access.op }).is_ok()
    }
}

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn pop(&self) -> Option<Trap> {
        self.0.pop()
    }
}

/// An active feed from `ring`, and the table that gives window and ports to its only function.
pub fn feed(ring: &Ring) -> (Arc<Feed>, Published) {
    let mut builder = SpaceBuilder::default();
    let window = Range::Memory(Span::new(Gpa(0xa0000), Gpa(0xbffff)).unwrap());
    builder.claim(EndpointId(0), &Claim::region(window, Region::VGA, 0xa0000));
    let ports = Range::Ports(Span::new(Port(0x3b0), Port(0x3df)).unwrap());
    builder.claim(EndpointId(0), &Claim::region(ports, Region::VGA, 0x3b0));
    let space = Published::new(builder.build());
    let feed = Feed::new(Box::new(ring.clone()), &space, EndpointId(0));
    feed.set_active(true);
    (Arc::new(feed), space)
}

/// What a device was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// One access.
    One(Access),
    /// A run of bytes from an offset of the VGA window on.
    Run(u64, Vec<u8>),
}

impl Seen {
    /// The same as what may not be torn apart: writes of memory as single bytes.
    pub fn pieces(&self) -> Vec<Access> {
        let bytes_from = |offset: u64, bytes: &[u8]| {
            let byte = |(at, byte): (u64, &u8)| Access::write(Region::VGA, at, Width::B1, u64::from(*byte));
            (offset..).zip(bytes).map(byte).collect()
        };
        match self {
            Seen::One(Access {
                region: Region::VGA,
                offset: offset @ 0x1_0000..,
                width,
                op: Op::Write(value),
            }) => bytes_from(*offset, &value.to_le_bytes()[..width.bytes()]),
            Seen::One(access) => vec![*access],
            Seen::Run(offset, bytes) => bytes_from(*offset, bytes),
        }
    }
}

/// What a [`Merger`] saw, in order.
pub type Sights = Arc<Mutex<Vec<Seen>>>;

/// Merges in the window; reads give the number of [pieces](Seen::pieces) written so far.
#[derive(Default)]
pub struct Merger {
    /// What it saw.
    pub seen: Sights,
    pieces: u64,
}

impl Merger {
    fn note(&mut self, seen: Seen) {
        self.pieces += seen.pieces().len() as u64;
        self.seen.lock().push(seen);
    }
}

impl Device for Merger {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.seen.lock().push(Seen::One(Access::read(region, offset, width)));
        Ok(self.pieces)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.note(Seen::One(Access::write(region, offset, width, value)));
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }

    fn merges(&self, region: Region, _: u64) -> bool {
        region == Region::VGA
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        assert_eq!(region, Region::VGA);
        assert!(offset >= 0xa0000, "a port was merged");
        assert!(bytes.len() > 1 && offset / 4096 == (offset + bytes.len() as u64 - 1) / 4096);
        self.note(Seen::Run(offset, bytes.to_vec()));
        Ok(())
    }
}
