use trapline_io::device::Range;
use trapline_io::{Gpa, Span};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::super::interrupt::{Interrupt, QUEUE};
use super::*;
use crate::platform::testing::Line;

fn function() -> (Function, Arc<Line>) {
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let line = Arc::new(Line::default());
    let queue = Arc::new(SharedQueue::new(memory, Interrupt::new(line.clone())));
    let kind = Kind { number: 2, class: 0x01_0000, features: 1 << 9, config: (0..64).collect() };
    (Function::new(kind, queue), line)
}

fn get(function: &mut Function, offset: u64, width: Width) -> u64 {
    function.read(Region::CONFIG, offset, width).unwrap()
}

fn put(function: &mut Function, offset: u64, width: Width, value: u64) {
    function.write(Region::CONFIG, offset, width, value).unwrap();
}

/// The capability list as a driver walks it: offset, type, BAR, offset and length of the structure.
fn capabilities(function: &mut Function) -> Vec<(u64, u8, u8, u64, u64)> {
    let mut at = get(function, 0x34, Width::B1);
    let mut found = Vec::new();
    while at != 0 {
        assert_eq!(get(function, at, Width::B1), 9);
        let [kind, bar] = [3, 4].map(|offset| get(function, at + offset, Width::B1).to_le_bytes()[0]);
        let [offset, length] = [8, 12].map(|offset| get(function, at + offset, Width::B4));
        found.push((at, kind, bar, offset, length));
        at = get(function, at + 1, Width::B1);
    }
    found
}

#[test]
fn a_driver_finds_every_structure() {
    let (mut function, _) = function();
    assert_eq!(get(&mut function, 0, Width::B4), 0x1042_1af4);
    assert_eq!(get(&mut function, 8, Width::B4), 0x0100_0001);
    assert_eq!(get(&mut function, 0x3d, Width::B1), 1);
    assert_eq!(get(&mut function, 6, Width::B2) & 0x10, 0x10);
    let found = capabilities(&mut function);
    let places: Vec<_> =
        found.iter().map(|(_, kind, bar, offset, length)| (*kind, *bar, *offset, *length)).collect();
    assert_eq!(
        places,
        [(1, 0, 0, 0x38), (2, 0, 0x3000, 4), (3, 0, 0x1000, 1), (4, 0, 0x2000, 64), (5, 0, 0, 0)]
    );
    let notify = found[1].0;
    assert_eq!(get(&mut function, notify + 2, Width::B1), 20);
    assert_eq!(get(&mut function, notify + 16, Width::B4), 4);
}

#[test]
fn the_bar_is_claimed_where_it_lies() {
    let (mut function, _) = function();
    put(&mut function, 0x10, Width::B4, 0xffff_ffff);
    assert_eq!(get(&mut function, 0x10, Width::B4), 0xffff_c000);
    put(&mut function, 0x10, Width::B4, 0xfebf_0000);
    assert_eq!(function.claims(), Claims::default());
    put(&mut function, 4, Width::B2, 2);
    let range = Range::Memory(Span::of_len(Gpa(0xfebf_0000), 0x4000).unwrap());
    let notify = Range::Memory(Span::of_len(Gpa(0xfebf_3000), 4).unwrap());
    let signal = Signal { event: function.queue.doorbell().unwrap().clone(), value: None };
    let doorbell = Claim::region(notify, Region(0), 0x3000).signal(signal);
    assert_eq!(function.claims().ranges, [doorbell, Claim::region(range, Region(0), 0)]);
    assert!(Function::TOPOLOGY.contains(4) && Function::TOPOLOGY.contains(0x10));
}

#[test]
fn configuration_space_is_a_way_to_the_bar() {
    let (mut function, _) = function();
    let window = capabilities(&mut function)[4].0;
    let point = |function: &mut Function, offset: u64, length: u64| {
        put(function, window + 4, Width::B1, 0);
        put(function, window + 8, Width::B4, offset);
        put(function, window + 12, Width::B4, length);
    };
    // The status, without memory decode.
    point(&mut function, 0x14, 1);
    put(&mut function, window + 16, Width::B1, 3);
    assert_eq!(get(&mut function, window + 16, Width::B1), 3);
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(3));
    // The device configuration, in two widths.
    point(&mut function, 0x2004, 4);
    assert_eq!(get(&mut function, window + 16, Width::B4), 0x0706_0504);
    point(&mut function, 0x2006, 2);
    assert_eq!(get(&mut function, window + 16, Width::B2), 0x0706);
    // What it must not do.
    for (bar, offset, length) in
        [(1, 0, 4), (0, 2, 4), (0, 0x4000, 4), (0, 0xffff_fffc, 4), (0, 0x14, 3), (0, 0, 8), (0, 0, 0)]
    {
        point(&mut function, offset, length);
        put(&mut function, window + 4, Width::B1, bar);
        put(&mut function, window + 16, Width::B4, 0x55);
        assert_eq!(get(&mut function, window + 16, Width::B4), 0x55);
    }
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(3));
    function.reset();
    assert_eq!(get(&mut function, window + 8, Width::B4), 0);
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(0));
}

#[test]
fn the_interrupt_shows_in_status_and_can_be_kept_off() {
    let (mut function, line) = function();
    function.queue.interrupt.raise(QUEUE);
    assert_eq!(get(&mut function, 6, Width::B2) & 8, 8);
    assert!(line.level());
    put(&mut function, 4, Width::B2, 0x406);
    assert!(!line.level());
    assert_eq!(get(&mut function, 4, Width::B4) & 0x0008_0400, 0x0008_0400);
    put(&mut function, 4, Width::B2, 6);
    assert!(line.level());
    assert_eq!(function.read(Region(0), 0x1000, Width::B1), Ok(1));
    assert!(!line.level());
    assert_eq!(get(&mut function, 6, Width::B2) & 8, 0);
    function.queue.interrupt.raise(QUEUE);
    function.reset();
    assert!(!line.level());
}

#[test]
fn features_are_agreed_on_or_not() {
    let (mut function, _) = function();
    let mut put = |offset, width, value| function.write(Region(0), offset, width, value).unwrap();
    put(0x14, Width::B1, 3);
    put(0x08, Width::B4, 0);
    put(0x0c, Width::B4, 1 << 9);
    // Not without VERSION_1.
    put(0x14, Width::B1, 11);
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(3));
    let mut put = |offset, width, value| function.write(Region(0), offset, width, value).unwrap();
    put(0x08, Width::B4, 1);
    put(0x0c, Width::B4, 3);
    // Not with what was not offered.
    put(0x14, Width::B1, 11);
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(3));
    let mut put = |offset, width, value| function.write(Region(0), offset, width, value).unwrap();
    put(0x0c, Width::B4, 1);
    put(0x14, Width::B1, 11);
    assert_eq!(function.read(Region(0), 0x14, Width::B1), Ok(11));
    // And then no more.
    function.write(Region(0), 0x0c, Width::B4, 0).unwrap();
    assert_eq!(function.read(Region(0), 0x0c, Width::B4), Ok(1));
    assert_eq!(function.common.accepted, 1 << 32 | 1 << 9);
}

#[test]
fn there_is_one_queue_and_no_vector() {
    let (mut function, _) = function();
    let get = |function: &mut Function, offset, width| function.read(Region(0), offset, width);
    assert_eq!(get(&mut function, 0x12, Width::B2), Ok(1));
    assert_eq!(get(&mut function, 0x10, Width::B2), Ok(0xffff));
    assert_eq!(get(&mut function, 0x18, Width::B2), Ok(256));
    function.write(Region(0), 0x16, Width::B2, 1).unwrap();
    assert_eq!(get(&mut function, 0x18, Width::B2), Ok(0));
    function.write(Region(0), 0x18, Width::B2, 4).unwrap();
    function.write(Region(0), 0x16, Width::B2, 0).unwrap();
    assert_eq!(get(&mut function, 0x18, Width::B2), Ok(256));
    assert_eq!(get(&mut function, 0x18, Width::B1), Err(Fault::BadWidth));
    assert_eq!(get(&mut function, 0x38, Width::B4), Err(Fault::NoRegister));
}
