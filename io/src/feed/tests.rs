use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::addr::Span;
use crate::device::{Claim, Range};
use crate::space::SpaceBuilder;

/// A ring whose other end the test holds.
#[derive(Clone, Default)]
struct Ring(Arc<std::sync::Mutex<VecDeque<Trap>>>);

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
    fn pop(&self) -> Option<Trap> {
        self.0.lock().unwrap().pop_front()
    }
}

const OWNER: EndpointId = EndpointId(1);

fn memory(first: u64, last: u64) -> Range {
    Range::Memory(Span::new(Gpa(first), Gpa(last)).unwrap())
}

fn ports(first: u16, last: u16) -> Range {
    Range::Ports(Span::new(Port(first), Port(last)).unwrap())
}

/// The owner's window in two parts and its CRTC; a neighbour at 0xc0000.
fn space() -> SpaceBuilder {
    let mut builder = SpaceBuilder::default();
    for (first, last) in [(0xa0000, 0xb7fff), (0xb8000, 0xbffff)] {
        builder.claim(OWNER, &Claim::region(memory(first, last), Region::VGA, first));
    }
    builder.claim(OWNER, &Claim::region(ports(0x3d4, 0x3d5), Region::VGA, 0x3d4));
    builder.claim(EndpointId(0), &Claim::region(memory(0xc0000, 0xc0fff), Region::bar(0), 0));
    builder
}

fn feed() -> (Feed, Ring, Published) {
    let ring = Ring::default();
    let published = Published::new(space().build());
    let feed = Feed::new(Box::new(ring.clone()), &published, OWNER);
    feed.set_active(true);
    (feed, ring, published)
}

fn at_memory(gpa: u64, width: Width, value: u64) -> Trap {
    Trap { at: Address::Gpa(Gpa(gpa)), width, op: Op::Write(value) }
}

fn at_port(port: u16, width: Width, value: u64) -> Trap {
    Trap { at: Address::Port(Port(port)), width, op: Op::Write(value) }
}

/// All that a collection without limits pushes.
fn all(feed: &Feed) -> Vec<Access> {
    let mut pushed = Vec::new();
    assert!(feed.collect(&mut RING.clone(), |access| {
        pushed.push(access);
        true
    }));
    pushed
}

fn vga(offset: u64, width: Width, value: u64) -> Access {
    Access::write(Region::VGA, offset, width, value)
}

#[test]
fn writes_come_out_in_order_as_the_owner_sees_them() {
    let (feed, ring, _) = feed();
    assert!(feed.is_idle());
    ring.0.lock().unwrap().extend([
        at_memory(0xb8000, Width::B2, 0x741),
        at_port(0x3d4, Width::B2, 0x120e),
        at_memory(0xa0000, Width::B1, 0x55),
    ]);
    assert!(!feed.is_idle());
    let expected =
        [vga(0xb8000, Width::B2, 0x741), vga(0x3d4, Width::B2, 0x120e), vga(0xa0000, Width::B1, 0x55)];
    assert_eq!(all(&feed), expected);
    assert!(feed.is_idle());
    assert_eq!((feed.collected(), feed.strays()), (3, 0));
}

#[test]
fn a_write_across_two_ranges_is_cut() {
    let (feed, ring, _) = feed();
    ring.0.lock().unwrap().extend([
        at_memory(0xb7ffd, Width::B8, 0x8877_6655_4433_2211),
        // Half of this one is nobody's.
        at_port(0x3d5, Width::B2, 0xabcd),
        // And of this one a neighbour's.
        at_memory(0xbfffc, Width::B8, 0x8877_6655_4433_2211),
    ]);
    let expected = [
        vga(0xb7ffd, Width::B2, 0x2211),
        vga(0xb7fff, Width::B1, 0x33),
        vga(0xb8000, Width::B1, 0x44),
        vga(0xb8001, Width::B4, 0x8877_6655),
        vga(0x3d5, Width::B1, 0xcd),
        vga(0xbfffc, Width::B4, 0x4433_2211),
    ];
    assert_eq!(all(&feed), expected);
    assert_eq!(feed.strays(), 1);
}

#[test]
fn the_current_table_decides() {
    let (feed, ring, published) = feed();
    ring.0.lock().unwrap().extend([at_memory(0xb8000, Width::B1, 1), at_port(0x3d4, Width::B1, 2)]);
    let mut moved = SpaceBuilder::default();
    moved.claim(OWNER, &Claim::region(ports(0x3d4, 0x3d5), Region::VGA, 0x3d4));
    published.publish(moved.build());
    assert_eq!(all(&feed), [vga(0x3d4, Width::B1, 2)]);
    assert_eq!(feed.strays(), 0, "what nobody decodes is no stray");
}

#[test]
fn what_finds_no_room_is_kept_and_comes_first() {
    let (feed, ring, _) = feed();
    ring.0
        .lock()
        .unwrap()
        .extend([at_memory(0xb7fff, Width::B2, 0x2211), at_memory(0xa0000, Width::B1, 0x33)]);
    let mut pushed = Vec::new();
    for (round, whole) in [false, false, true].into_iter().enumerate() {
        assert!(!feed.is_idle(), "the ring may be empty, but something is left");
        let mut room = 1;
        let done = feed.collect(&mut RING.clone(), |access| {
            let fits = room > 0;
            if fits {
                room -= 1;
                pushed.push(access);
            }
            fits
        });
        assert_eq!(done, whole, "round {round}");
    }
    assert!(feed.is_idle());
    let expected =
        [vga(0xb7fff, Width::B1, 0x11), vga(0xb8000, Width::B1, 0x22), vga(0xa0000, Width::B1, 0x33)];
    assert_eq!(pushed, expected);
}

#[test]
fn an_inactive_feed_gives_what_is_left_and_leaves_the_ring_alone() {
    let (feed, ring, _) = feed();
    ring.0.lock().unwrap().extend([at_memory(0xa0000, Width::B1, 1), at_memory(0xa0001, Width::B1, 2)]);
    assert!(!feed.collect(&mut RING.clone(), |_| false));
    feed.set_active(false);
    assert!(!feed.is_active() && !feed.is_idle());
    assert_eq!(all(&feed), [vga(0xa0000, Width::B1, 1)]);
    assert!(feed.is_idle());
    assert_eq!(ring.0.lock().unwrap().len(), 1);
}

#[test]
fn a_budget_bounds_what_is_taken() {
    let (feed, ring, _) = feed();
    let writes = |n: u64| (0..n).map(|at| at_memory(0xa0000 + at, Width::B1, at & 0xff));
    ring.0.lock().unwrap().extend(writes(1600));
    assert_eq!(all(&feed).len(), RING);
    assert_eq!(all(&feed).len(), RING);
    assert_eq!(all(&feed).len(), 1600 - 2 * RING);
}

#[test]
fn what_is_no_write_of_the_window_reaches_nobody() {
    let (feed, ring, published) = feed();
    let mut builder = space();
    builder.claim(OWNER, &Claim { range: ports(0xcf8, 0xcff), ..config_address() });
    let ecam = Claim {
        range: memory(0xe000_0000, 0xefff_ffff),
        target: crate::device::Target::Ecam,
        direct: None,
        signals: Vec::new(),
    };
    builder.claim(OWNER, &ecam);
    builder.function(crate::space::ConfigAddress(0), OWNER, crate::space::DwordSet::default());
    published.publish(builder.build());
    ring.0.lock().unwrap().extend([
        at_port(0xcf8, Width::B4, 0x8000_0000),
        at_memory(0xe000_0004, Width::B4, 7),
        at_memory(u64::MAX, Width::B8, 7),
        at_port(u16::MAX, Width::B4, 7),
        Trap { op: Op::Read, ..at_port(0x3d4, Width::B1, 0) },
    ]);
    assert_eq!(all(&feed), []);
    assert_eq!(feed.strays(), 2);
}

fn config_address() -> Claim {
    Claim {
        range: ports(0xcf8, 0xcfb),
        target: crate::device::Target::ConfigAddress,
        direct: None,
        signals: Vec::new(),
    }
}
