//! Writes to an assigned function that a driver repeats, and that the kernel makes from then on.

use trapline_devices::assigned::backend::Write;
use trapline_devices::assigned::{Function, Options};
use trapline_io::device::{Claim, Range};
use trapline_io::space::{AddressSpace, EndpointId, SpaceBuilder};
use trapline_io::{Access, Address, Device, Gpa, Region, Span, Width};

#[path = "assigned_card/card.rs"]
mod fake;
use fake::{Card, Driver, Host, MSI, MSIX, POWER, TABLE};

const BAR: Region = Region::bar(0);
const PLACE: u64 = 0xe000_0000;
/// A register on the page of the MSI-X table, behind it: every access to it traps.
const BELL: u64 = TABLE + 0x800;
/// A register on a page that is mapped.
const MAPPED: u64 = 0x100;
const INTX_DISABLE: u16 = 0x400;

/// A function whose device's driver makes up to `room` writes, with decode on and MSI.
fn running(room: usize) -> (Card, Driver) {
    open(room, false)
}

fn open(room: usize, every_write: bool) -> (Card, Driver) {
    let card = Card::with(|state| state.room = room);
    let options = Options { every_write, ..Host::new().options() };
    let mut driver = Driver(Function::open(card.clone(), options).unwrap());
    driver.set32(0x10, 0xe000_0000);
    driver.set16(4, 6);
    driver.set16(MSI + 2, 1);
    card.log();
    (card, driver)
}

fn write(driver: &mut Driver, offset: u64, value: u64, times: usize) {
    for _ in 0..times {
        driver.0.write(BAR, offset, Width::B4, value).unwrap();
    }
}

/// The address space of the function alone.
fn space(driver: &Driver) -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    for claim in driver.0.claims().ranges {
        builder.claim(EndpointId(0), &claim);
    }
    builder.build()
}

/// The registers whose writes signal, with the values.
fn signals(driver: &Driver) -> Vec<(u64, u64)> {
    let space = space(driver);
    let seen = space.signals().map(|(at, signal)| match (at, signal.value) {
        (Address::Gpa(gpa), Some((Width::B4, value))) => (gpa.0, value),
        other => panic!("{other:?}"),
    });
    seen.collect()
}

#[test]
fn the_tenth_write_in_a_row_is_given_to_the_kernel() {
    let (card, mut driver) = running(10);
    write(&mut driver, BELL, 7, 9);
    driver.0.read(BAR, BELL, Width::B4).unwrap();
    write(&mut driver, BELL, 7, 9);
    assert_eq!((card.state().writes.len(), signals(&driver)), (0, vec![]));
    write(&mut driver, BELL, 7, 1);
    assert_eq!(card.state().writes, [Write { region: BAR, offset: BELL, width: Width::B4, value: 7 }]);
    assert_eq!(signals(&driver), [(PLACE + BELL, 7)]);
    // The device saw all ten, and the register is the device's in all other respects.
    assert_eq!(card.log().iter().filter(|line| **line == format!("bar {BELL:x}")).count(), 19);
    let register = Range::Memory(Span::of_len(Gpa(PLACE + BELL), 4).unwrap());
    let of_register = |claim: &&Claim| claim.range == register;
    let plain = Claim::region(register, BAR, BELL).target;
    assert_eq!(driver.0.claims().ranges.iter().find(of_register).map(|claim| claim.target), Some(plain));
    // Another value of the same register beside it.
    write(&mut driver, BELL, 8, 10);
    assert_eq!(signals(&driver), [(PLACE + BELL, 7), (PLACE + BELL, 8)]);
}

/// The map follows a little later, and the kernel takes a write once.
#[test]
fn what_traps_until_the_map_has_followed_is_not_given_again() {
    let (card, mut driver) = running(10);
    write(&mut driver, BELL, 7, 30);
    assert_eq!((card.state().writes.len(), signals(&driver)), (1, vec![(PLACE + BELL, 7)]));
    write(&mut driver, BELL + 4, 7, 10);
    assert_eq!(signals(&driver), [(PLACE + BELL, 7), (PLACE + BELL + 4, 7)]);
}

#[test]
fn the_map_decides_where_it_is() {
    let (card, mut driver) = running(10);
    write(&mut driver, BELL, 7, 10);
    driver.set16(4, 4);
    assert_eq!(signals(&driver), []);
    driver.set32(0x10, 0xe010_0000);
    driver.set16(4, 6);
    assert_eq!(signals(&driver), [(0xe010_0000 + BELL, 7)]);
    assert_eq!(card.state().writes.len(), 1);
    driver.0.reset();
    assert_eq!((card.state().writes.len(), signals(&driver)), (0, vec![]));
}

#[test]
fn with_the_line_in_use_every_write_traps() {
    let (card, mut driver) = running(10);
    assert!(driver.0.topology().contains(u64::from(MSI)), "the change of the ways changes the map");
    write(&mut driver, BELL, 7, 10);
    driver.set16(MSI + 2, 0);
    assert_eq!(signals(&driver), []);
    write(&mut driver, BELL, 9, 30);
    assert_eq!(card.state().writes.len(), 1);
    // The line kept off is as good as none.
    driver.set16(4, 6 | INTX_DISABLE);
    assert_eq!(signals(&driver), [(PLACE + BELL, 7)]);
}

/// Linux writes the control with each message that it moves, and who handles the line in user space keeps it off
/// with each interrupt.
#[test]
fn a_write_that_keeps_the_way_to_interrupt_leaves_the_map_alone() {
    let (_, mut driver) = running(10);
    driver.set16(MSIX + 2, 0);
    let changes = |driver: &Driver, at: u16, width, value| {
        driver.0.changes_map(Access::write(Region::CONFIG, at.into(), width, value))
    };
    // Enable alone counts, in each width, and not how many messages there are.
    for (at, width, kept, lost) in [
        (MSI + 2, Width::B2, 0x0001, 0x0000),
        (MSI + 2, Width::B2, 0x0021, 0x0020),
        (MSI + 2, Width::B1, 0x01, 0x00),
        (MSI, Width::B4, 0x0001_0000, 0x0000_0000),
        (MSIX + 2, Width::B2, 0x4000, 0x8000),
        (4, Width::B2, 0x0406, 0x0404),
        (4, Width::B4, 0xf900_0006, 0xf900_0002),
        (4, Width::B1, 0x46, 0x02),
        (6, Width::B2, 0xf900, 0xf900),
    ] {
        assert!(!changes(&driver, at, width, kept), "{at:x}: {kept:x}");
        assert_eq!(changes(&driver, at, width, lost), kept != lost, "{at:x}: {lost:x}");
    }
    // What is written anew to a base address, or to the power state, may have been elsewhere.
    assert!(changes(&driver, 0x10, Width::B4, 0xe000_0000));
    assert!(changes(&driver, POWER + 4, Width::B2, 0x0008));
    // Of what the kernel writes it matters whether the line is kept off.
    write(&mut driver, BELL, 7, 10);
    assert!(changes(&driver, 4, Width::B2, 0x0406) && !changes(&driver, 4, Width::B2, 0x0006));
}

#[test]
fn a_page_that_is_mapped_stays_whole() {
    let (card, mut driver) = running(10);
    let mapped = |driver: &Driver| space(driver).direct().map(|(span, _)| span).collect::<Vec<_>>();
    let before = mapped(&driver);
    write(&mut driver, MAPPED, 7, 30);
    assert_eq!((card.state().writes.len(), signals(&driver)), (0, vec![]));
    assert_eq!(mapped(&driver), before);
}

#[test]
fn the_kernel_gets_ten_and_a_refusal_is_enough() {
    let (card, mut driver) = running(100);
    for value in 0..30 {
        write(&mut driver, BELL, value, 10);
    }
    assert_eq!((card.state().writes.len(), signals(&driver).len()), (10, 10));

    let (card, mut driver) = running(1);
    write(&mut driver, BELL, 7, 10);
    write(&mut driver, BELL, 8, 10);
    card.log();
    write(&mut driver, BELL, 9, 30);
    assert!(card.log().iter().all(|line| line.starts_with("bar")), "it is not asked again");
    assert_eq!(signals(&driver), [(PLACE + BELL, 7)]);
}

#[test]
fn who_wants_to_see_every_write_does() {
    let (card, mut driver) = open(10, true);
    write(&mut driver, BELL, 7, 30);
    assert_eq!((card.state().writes.len(), signals(&driver)), (0, vec![]));
}

#[test]
fn a_backend_that_makes_no_writes_is_not_asked() {
    let (card, mut driver) = running(0);
    let without = Card::new();
    let plain = Function::open(without, Options::default()).unwrap();
    assert_eq!(driver.0.topology(), plain.topology());
    write(&mut driver, BELL, 7, 30);
    assert!(card.log().iter().all(|line| line.starts_with("bar")));
}
