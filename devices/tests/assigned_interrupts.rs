//! Interrupts, resets and power of an assigned function, in the orders in which SeaBIOS and Linux ask
//! for them.

use trapline_devices::assigned::backend::Signalled::{Msi, Msix};
use trapline_devices::assigned::{Function, Messages, Offered, Options, Placement};
use trapline_devices::pci::Pin;
use trapline_devices::seen::{Life, Mark, Signalling};
use trapline_io::device::{Claim, Range};
use trapline_io::space::{ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Address, Device, Fault, Gpa, Op, Region, Trap, Width};

#[path = "assigned_card/card.rs"]
mod fake;
use fake::{Card, Driver, EXPRESS, Host, MSI, MSIX, POWER, message};

const FEE: u64 = 0xfee0_0000;
const FEE_LOW: u32 = 0xfee0_0000;
const INTX_DISABLE: u16 = 0x400;
const ON: u16 = 0x8000;
const ALL_MASKED: u16 = 0x4000;

fn running(card: &Card, host: &Host) -> Driver {
    let mut driver = Driver::new(card, host);
    driver.set32(0x10, 0xffff_ffff);
    assert_eq!(driver.get32(0x10), 0xffff_8000);
    driver.set32(0x10, 0xe000_0000);
    driver.set16(4, 6);
    card.log();
    driver
}

/// As Linux does: the table is prepared while the function is masked as a whole.
fn enable_msix(driver: &mut Driver) {
    driver.set16(MSIX + 2, ON | ALL_MASKED);
    for vector in 0..fake::VECTORS {
        driver.entry(vector, 3, 1);
    }
    let command = driver.get16(4);
    driver.set16(4, command | INTX_DISABLE);
    driver.set16(MSIX + 2, ON);
}

/// As Linux does when an interrupt is requested: the message, then the mask.
fn request(driver: &mut Driver, vector: u16, data: u32) {
    driver.entry(vector, 0, FEE_LOW);
    driver.entry(vector, 1, 0);
    driver.entry(vector, 2, data);
    driver.entry(vector, 3, 0);
}

#[test]
fn the_line_is_connected_from_the_start() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = Driver::new(&card, &host);
    assert_eq!(card.log(), ["reset", "config 4 = 0", "intx on"]);
    assert_eq!(host.lines(), 1);
    assert_eq!(driver.get16(0x3c), 0x100);
    driver.set16(4, INTX_DISABLE);
    assert_eq!(card.log(), ["config 4 = 400"], "the device keeps it off");
    drop(driver);
    assert_eq!(card.log(), ["intx off", "config 4 = 0"]);
    assert_eq!(host.lines(), 0);
}

#[test]
fn without_a_host_that_takes_them_there_are_no_interrupts() {
    let card = Card::new();
    let mut driver = Driver(Function::open(card.clone(), Options::default()).unwrap());
    assert_eq!(card.log(), ["reset", "config 4 = 0"]);
    assert_eq!(driver.get16(0x3c), 0);
    assert_eq!(driver.0.read(Region::CONFIG, 0x34, Width::B1), Ok(u64::from(POWER)));
    assert_eq!(driver.get16(POWER) >> 8, EXPRESS, "neither MSI nor MSI-X is in the list");
    assert_eq!(driver.0.read(Region(0xf1), 0, Width::B4), Err(Fault::NoRegister));
}

#[test]
fn msix_vectors_are_connected_when_they_are_first_wanted() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    assert_eq!(card.log(), ["intx off", "Msix 0 x1", "config 4 = 402"]);
    assert_eq!((host.lines(), host.routes()), (0, 0));
    request(&mut driver, 0, 0x41);
    request(&mut driver, 2, 0x42);
    assert_eq!(card.log(), ["Msix 2 x1"]);
    assert_eq!(host.routes(), 2, "one for each");
    assert!(card.fire(Msix, 0) && card.fire(Msix, 2) && !card.fire(Msix, 1));
    assert_eq!(host.delivered(), [message(FEE, 0x41), message(FEE, 0x42)]);
    driver.entry(2, 2, 0x43);
    assert!(card.fire(Msix, 2));
    assert_eq!(host.delivered(), [message(FEE, 0x43)], "moved to another processor");
    driver.set16(MSIX + 2, 0);
    assert_eq!(card.log(), ["Msix off", "intx on"]);
    assert_eq!((host.lines(), host.vectors()), (1, 0));
    driver.set16(MSIX + 2, ON);
    assert_eq!(card.log(), ["intx off", "Msix 0 x3"], "the table is as it was left");
}

#[test]
fn a_masked_vector_keeps_its_interrupt() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    request(&mut driver, 0, 0x41);
    request(&mut driver, 66, 0x42);
    driver.entry(66, 3, 1);
    assert!(card.fire(Msix, 66));
    assert_eq!(driver.0.read(Region(0xf2), 8, Width::B8), Ok(4));
    assert_eq!((driver.pending(), host.delivered()), (0, vec![]));
    driver.set16(MSIX + 2, ON | ALL_MASKED);
    assert!(card.fire(Msix, 0));
    assert_eq!(driver.pending(), 1);
    driver.entry(66, 3, 0);
    assert_eq!(host.delivered(), []);
    driver.set16(MSIX + 2, ON);
    assert_eq!(host.delivered(), [message(FEE, 0x41), message(FEE, 0x42)]);
    assert_eq!(driver.pending(), 0);
    assert_eq!(driver.0.write(Region(0xf2), 0, Width::B8, 5), Ok(()));
    assert_eq!(driver.0.read(Region(0xf2), 0x10, Width::B4), Err(Fault::NoRegister));
}

#[test]
fn where_vectors_come_all_at_once_their_number_doubles() {
    let (card, host) = (Card::with(|card| card.irqs.msix_grows = false), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    for vector in 0..6 {
        request(&mut driver, vector, 0x40 + u32::from(vector));
    }
    let log = card.log();
    let log: Vec<_> = log.iter().filter(|line| line.starts_with("Msix")).collect();
    assert_eq!(log, ["Msix 0 x1", "Msix off", "Msix 0 x2", "Msix off", "Msix 0 x4", "Msix off", "Msix 0 x8"]);
    assert_eq!(host.routes(), 6, "what was routed stays");
    assert!((0..6).all(|vector| card.fire(Msix, vector)));
    assert_eq!(host.delivered().len(), 6);
}

#[test]
fn a_host_that_runs_out_keeps_what_is_connected() {
    for grows in [true, false] {
        let card = Card::with(|card| (card.most, card.irqs.msix_grows) = (2, grows));
        let host = Host::new();
        let mut driver = running(&card, &host);
        enable_msix(&mut driver);
        for vector in 0..4 {
            request(&mut driver, vector, 0x40 + u32::from(vector));
        }
        assert!(card.fire(Msix, 0) && card.fire(Msix, 1) && !card.fire(Msix, 2), "grows: {grows}");
        assert_eq!(host.delivered(), [message(FEE, 0x40), message(FEE, 0x41)]);
        assert_eq!(host.vectors(), 2);
        card.log();
        driver.entry(2, 3, 1);
        driver.entry(2, 3, 0);
        assert_eq!(card.log(), [""; 0], "not asked for again and again");
    }
}

#[test]
fn msi_comes_with_several_messages_and_goes_back_to_the_line() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    assert_eq!(driver.get16(MSI + 2), 0x188);
    driver.set32(MSI + 4, FEE_LOW | 3);
    driver.set32(MSI + 8, 0);
    driver.set16(MSI + 12, 0x51);
    driver.set16(MSI + 2, 0x21);
    assert_eq!(card.log(), ["intx off", "Msi 0 x4"]);
    assert!((0..4).all(|vector| card.fire(Msi, vector)));
    let all: Vec<_> = (0x50..0x54).map(|data| message(FEE, data)).collect();
    assert_eq!(host.delivered(), all);
    driver.set32(MSI + 16, 4);
    assert!(card.fire(Msi, 2));
    assert_eq!((host.delivered(), driver.get32(MSI + 20)), (vec![], 4));
    driver.set16(MSI + 12, 0x60);
    driver.set32(MSI + 16, 0);
    assert_eq!((host.delivered(), driver.get32(MSI + 20)), (vec![message(FEE, 0x62)], 0));
    assert_eq!(card.log(), [""; 0], "only routes");
    driver.set16(MSI + 2, 0);
    assert_eq!(card.log(), ["Msi off", "intx on"]);
    assert_eq!((host.vectors(), host.lines()), (0, 1));
    driver.set16(MSI + 2, 0x71);
    assert_eq!(card.log(), ["intx off", "Msi 0 x16"], "more than there are");
}

/// Of eight messages those that card and host both have, in halves.
#[test]
fn msi_makes_do_with_fewer_messages() {
    let few = || Card::with(|card| card.most = 3);
    for (card, host, connected) in [
        (few(), Host::new(), 2),
        (Card::new(), Host::with_at_most(4), 4),
        (Card::new(), Host::with_at_most(0), 0),
    ] {
        let mut driver = running(&card, &host);
        driver.set32(MSI + 4, FEE_LOW);
        driver.set16(MSI + 12, 0x50);
        driver.set16(MSI + 2, 0x31);
        let mut log = vec!["intx off".to_owned()];
        log.extend((connected > 0).then(|| format!("Msi 0 x{connected}")));
        assert_eq!(card.log(), log);
        assert_eq!(host.vectors(), connected);
        if let Some(last) = u16::try_from(connected).unwrap().checked_sub(1) {
            assert!(card.fire(Msi, last));
            assert_eq!(host.delivered(), [message(FEE, 0x50 + u32::from(last))]);
        }
    }
}

#[test]
fn a_vector_lives_on_after_a_message_that_is_none() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    driver.set32(MSI + 4, FEE_LOW);
    driver.set16(MSI + 12, 0x50);
    driver.set16(MSI + 2, 1);
    // Rewritten register by register while it is enabled.
    driver.set32(MSI + 4, 0);
    assert!(card.fire(Msi, 0));
    assert_eq!(host.delivered(), []);
    driver.set32(MSI + 4, FEE_LOW);
    assert_eq!(host.delivered(), [message(FEE, 0x50)], "the same as before");
    assert!(card.fire(Msi, 0));
    assert_eq!(host.delivered(), [message(FEE, 0x50)]);
}

#[test]
fn the_line_is_that_of_the_functions_pin() {
    // The audio function of a display adapter has INTB#.
    let (card, host) = (Card::with(|card| card.config[0x3d] = 2), Host::new());
    let mut driver = running(&card, &host);
    assert_eq!(driver.get16(0x3c), 0x200);
    assert_eq!(*host.pins.lock().unwrap(), [Pin::B]);
}

#[test]
fn a_function_reset_leaves_it_as_at_power_on() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    request(&mut driver, 0, 0x41);
    card.log();
    assert!(driver.0.topology().contains(u64::from(EXPRESS + 8)));
    driver.set16(EXPRESS + 8, 0xa810);
    let control = format!("config {:x} = 0", POWER + 4);
    assert_eq!(card.log(), ["Msix off", "config 88 = a810", &control, "config 4 = 0", "intx on"]);
    assert_eq!((driver.get32(0x10), driver.get16(4), driver.get16(MSIX + 2)), (0, 0, fake::VECTORS - 1));
    assert!(driver.0.claims().ranges.is_empty());
    assert_eq!(driver.0.read(Region(0xf1), 8, Width::B8), Ok(1 << 32), "masked, without a message");
}

#[test]
fn in_d3_nothing_is_decoded_and_all_is_there_again_after_it() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    request(&mut driver, 0, 0x41);
    card.log();
    assert_eq!(driver.get16(POWER + 2), 3, "no power management events");
    let before = driver.0.claims();
    driver.set16(POWER + 4, 0x103);
    assert_eq!(card.log(), [format!("config {:x} = 3", POWER + 4)]);
    assert!(driver.0.claims().ranges.is_empty());
    driver.set16(POWER + 4, 3);
    assert_eq!(card.log(), [""; 0]);
    driver.set16(POWER + 4, 0);
    assert_eq!(card.log(), [format!("config {:x} = 0", POWER + 4)]);
    assert_eq!(driver.0.claims(), before);
    assert!(card.fire(Msix, 0));
    assert_eq!(host.delivered(), [message(FEE, 0x41)]);
}

#[test]
fn a_reset_of_the_machine_takes_everything_down_first() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    driver.0.allow_dma();
    driver.set32(MSI + 4, FEE_LOW);
    driver.set16(MSI + 2, 0x41);
    assert_eq!(card.command(), 6);
    card.log();
    driver.0.reset();
    let control = format!("config {:x} = 0", POWER + 4);
    // Nothing is written before: one that a companion's bus reset reached need not be reset again.
    assert_eq!(card.log(), ["Msi off", "reset", &control, "config 4 = 0", "intx on"]);
    assert_eq!((driver.get16(MSI + 2), driver.get32(MSI + 4), driver.get32(0x10)), (0x188, 0, 0));
    driver.set16(4, 4);
    assert_eq!(card.command(), 4, "its memory is still mapped");
}

/// The kernel refuses messages to a device that sleeps.
#[test]
fn messages_that_are_enabled_in_d3_come_after_it() {
    let kinds = [(Msi, MSI + 2, 1, "Msi 0 x1"), (Msix, MSIX + 2, ON, "Msix 0 x1")];
    for (kind, control, enable, on) in kinds {
        let (card, host) = (Card::new(), Host::new());
        let mut driver = running(&card, &host);
        driver.set32(MSI + 4, FEE_LOW);
        driver.set16(MSI + 12, 0x41);
        request(&mut driver, 0, 0x41);
        driver.set16(POWER + 4, 3);
        driver.set16(control, enable);
        assert_eq!(card.log(), [format!("config {:x} = 3", POWER + 4), "intx off".into()]);
        driver.set16(POWER + 4, 0);
        assert_eq!(card.log(), [format!("config {:x} = 0", POWER + 4), on.into()]);
        assert!(card.fire(kind, 0));
        assert_eq!(host.delivered(), [message(FEE, 0x41)]);
    }
}

/// All else stays as it is until the reset, which finds nothing left to take down.
#[test]
fn a_quiet_function_signals_nothing_before_it_is_reset() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    let control = format!("config {:x} = 0", POWER + 4);
    let enables: [(fn(&mut Driver), _); 3] = [
        (|_| (), "intx off"),
        (|driver| driver.set16(MSI + 2, 0x41), "Msi off"),
        (|driver| enable_msix(driver), "Msix off"),
    ];
    for (enable, off) in enables {
        enable(&mut driver);
        card.log();
        driver.0.quiet();
        assert_eq!(card.log(), [off], "the device is not touched otherwise");
        assert_eq!((host.vectors(), host.lines()), (0, 0));
        driver.0.reset();
        assert_eq!(card.log(), ["reset", &control, "config 4 = 0", "intx on"]);
    }
}

#[test]
fn a_card_that_is_gone_leaves_nothing_hanging() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    enable_msix(&mut driver);
    card.state().dead = true;
    assert_eq!(driver.0.write(Region(0xf1), 12, Width::B4, 0), Err(Fault::Failed));
    driver.0.reset();
    assert_eq!(host.vectors(), 0);
}

fn resolve(claims: &[Claim], gpa: u64, width: Width) -> Option<(Region, u64)> {
    let mut space = SpaceBuilder::default();
    claims.iter().for_each(|claim| space.claim(EndpointId(0), claim));
    let trap = Trap { at: Address::Gpa(Gpa(gpa)), width, op: Op::Read };
    match space.build().resolve(trap, &ConfigLatch::default()) {
        Resolved::Access { access, .. } => Some((access.region, access.offset)),
        _ => None,
    }
}

#[test]
fn the_table_is_an_overlay_and_the_rest_stays_mapped() {
    let (card, host) = (Card::new(), Host::new());
    let driver = running(&card, &host);
    let claims = driver.0.claims().ranges;
    let at = |offset| resolve(&claims, 0xe000_0000 + offset, Width::B4);
    let end = fake::TABLE + 16 * u64::from(fake::VECTORS);
    assert_eq!(at(fake::TABLE - 4), Some((Region(0), fake::TABLE - 4)));
    assert_eq!(at(fake::TABLE), Some((Region(0xf1), 0)));
    assert_eq!(at(end - 4), Some((Region(0xf1), 16 * u64::from(fake::VECTORS) - 4)));
    assert_eq!(at(end), Some((Region(0), end)));
    assert_eq!(at(fake::PENDING + 12), Some((Region(0xf2), 12)));
    assert_eq!(at(fake::PENDING + 16), Some((Region(0), fake::PENDING + 16)));
    let mut space = SpaceBuilder::default();
    claims.iter().for_each(|claim| space.claim(EndpointId(0), claim));
    let space = space.build();
    let direct: Vec<_> =
        space.direct().map(|(span, direct)| (span.first().0 - 0xe000_0000, direct.offset)).collect();
    assert_eq!(direct, [(0, 0), (end, end), (fake::PENDING + 16, fake::PENDING + 16)]);
    assert!(
        space
            .direct()
            .all(|(span, _)| !matches!(at(span.first().0 - 0xe000_0000), Some((Region(0xf1..), _))))
    );
    assert!(claims.iter().any(|claim| matches!(claim.range, Range::Memory(_)) && claim.direct.is_some()));
}

#[test]
fn a_table_that_can_not_be_is_hidden() {
    let change: [fn(&mut Vec<u8>); 5] = [
        |config| config[usize::from(MSIX) + 4] |= 6,
        |config| config[usize::from(MSIX) + 4] |= 1,
        |config| config[usize::from(MSIX) + 6] = 1,
        |config| config[usize::from(MSIX) + 9] = 0x7f,
        |config| config[usize::from(MSIX) + 9] = 0x20,
    ];
    for (number, change) in change.into_iter().enumerate() {
        let card = Card::with(|card| {
            change(&mut card.config);
            if number == 3 {
                card.config[usize::from(MSIX) + 8] = 0xf8;
            }
        });
        let mut driver = Driver::new(&card, &Host::new());
        assert_eq!(driver.get16(POWER) >> 8, EXPRESS, "case {number}");
        driver.set16(MSIX + 2, ON);
        assert!(card.state().msix.is_empty());
    }
}

#[test]
fn the_place_decides_about_the_link() {
    let (card, host) = (Card::new(), Host::new());
    let open = |placement| {
        let options = Options { placement, multifunction: true, ..host.options() };
        let mut driver = Driver(Function::open(card.clone(), options).unwrap());
        (driver.get16(EXPRESS + 2), driver.get16(0x0e))
    };
    assert_eq!(open(Placement::RootBus), (0x92, 0x80));
    assert_eq!(open(Placement::BehindPort), (0x02, 0x80));
}

/// The ids of the capabilities that the guest finds, in their order.
fn capabilities(driver: &mut Driver) -> Vec<u16> {
    let mut at = driver.get16(0x34) & 0xff;
    let mut found = Vec::new();
    while at != 0 && found.len() < 48 {
        let header = driver.get16(at);
        found.push(header & 0xff);
        at = header >> 8;
    }
    found
}

#[test]
fn a_kind_that_is_hidden_is_neither_seen_nor_reached() {
    let kinds = [
        (Messages::Guest, vec![0x01, 0x10, 0x05, 0x11]),
        (Messages::NoMsix, vec![0x01, 0x10, 0x05]),
        (Messages::NoMsi, vec![0x01, 0x10, 0x11]),
        (Messages::Off, vec![0x01, 0x10]),
    ];
    for (messages, shown) in kinds {
        let (card, host) = (Card::new(), Host::new());
        let function = Function::open(card.clone(), Options { messages, ..host.options() }).unwrap();
        let mut driver = Driver(function);
        card.log();
        assert_eq!(capabilities(&mut driver), shown, "{messages:?}");
        let (msi, msix) = (shown.contains(&5), shown.contains(&0x11));
        assert_eq!(driver.0.offered(), Offered { line: true, msi, msix });
        // Who knows where they are finds nothing to enable, and the device sees none of it.
        for at in
            (MSI..MSI + 24).step_by(4).filter(|_| !msi).chain((MSIX..MSIX + 12).step_by(4).filter(|_| !msix))
        {
            driver.set32(at, u32::MAX);
            assert_eq!(driver.get32(at), 0, "{messages:?} at {at:x}");
        }
        assert_eq!(card.log(), [""; 0]);
        driver.set32(0x10, 0xe000_0000);
        driver.set16(4, 6);
        let table = resolve(&driver.0.claims().ranges, 0xe000_0000 + fake::TABLE, Width::B4);
        let expected = if msix { (Region(0xf1), 0) } else { (Region(0), fake::TABLE) };
        assert_eq!(table, Some(expected), "the device's own table is harmless while it is off");
        card.log();
        driver.set16(MSIX + 2, ON);
        let on = if msix { vec!["intx off", "Msix 0 x1"] } else { vec![] };
        assert_eq!(card.log(), on, "{messages:?}");
        driver.0.reset();
        assert_eq!(capabilities(&mut driver), shown, "after a reset");
    }
}

#[test]
fn how_it_interrupts_is_noted() {
    let (card, host) = (Card::new(), Host::new());
    let mut driver = running(&card, &host);
    let seen = std::sync::Arc::clone(driver.0.seen());
    assert_eq!(seen.signalling(), Signalling::Line);
    driver.set16(4, INTX_DISABLE | 6);
    assert_eq!(seen.signalling(), Signalling::Off, "held back in COMMAND");
    driver.set16(4, 6);
    assert_eq!(seen.signalling(), Signalling::Line);
    enable_msix(&mut driver);
    assert_eq!(seen.signalling(), Signalling::Off, "every vector is masked");
    assert!(!seen.has(Life::First, Mark::Msix));
    request(&mut driver, 1, 0x41);
    assert_eq!(seen.signalling(), Signalling::Msix);
    driver.entry(1, 3, 1);
    assert_eq!(seen.signalling(), Signalling::Msix, "a mask is not another way");
    driver.set16(MSIX + 2, 0);
    assert_eq!(seen.signalling(), Signalling::Off, "Linux had the line disabled");
    driver.set32(MSI + 4, FEE_LOW);
    driver.set16(MSI + 12, 0x50);
    driver.set16(MSI + 2, 1);
    assert_eq!(seen.signalling(), Signalling::Msi);
    assert!([Mark::Master, Mark::Msi, Mark::Msix].iter().all(|mark| seen.has(Life::First, *mark)));
    driver.0.reset();
    assert_eq!((seen.signalling(), seen.resets()), (Signalling::Line, 1));
    assert!(!seen.has(Life::Later, Mark::Master));
    driver.set16(4, 6);
    assert!(seen.has(Life::Later, Mark::Master) && !seen.has(Life::Later, Mark::Msi));
    driver.set16(EXPRESS + 8, 0xa810);
    assert!(seen.has(Life::Later, Mark::FunctionReset) && seen.resets() == 1);
}
