use parking_lot::Mutex;
use proptest::prelude::*;
use trapline_io::device::{Claim, Range};
use trapline_io::{Gpa, Port, Span};

use super::*;
use crate::pci::{ConfigSpace, Identity};

const WIDE: u64 = 0x38_4000_0000;
const NARROW: u64 = 0xf600_0000;
const PORTS: u64 = 0xe000;
const ROM: u64 = 0xf700_0000;

/// A mirror of configuration space.
const BACK_DOOR: Region = Region(0xe0);

/// A function with a register of each kind. A write of one to byte 0x40 resets it; byte 0x44 is one while it is quiet.
struct Card(ConfigSpace);

fn space() -> ConfigSpace {
    let id = Identity { vendor: 0x1234, device: 1, revision: 0, class: 0x03_0000, subsystem: (0, 0) };
    let mut space = ConfigSpace::new(id);
    for home in homes(true) {
        space.add_bar(home.index, home.bar);
    }
    space
}

/// Where the host has them; the ROM is anywhere.
fn homes(kept: bool) -> Vec<Home> {
    let home = |index, kind, size, address| Home { index, bar: Bar { kind, size }, address, kept };
    vec![
        home(0, BarKind::Memory32 { prefetchable: false }, 16 << 20, NARROW),
        home(2, BarKind::Memory64 { prefetchable: true }, 256 << 20, WIDE),
        home(4, BarKind::Io, 128, PORTS),
        Home { kept: false, ..home(6, BarKind::Rom, 64 << 10, ROM) },
    ]
}

impl Device for Card {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.0.read_region(offset, width)
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if (offset, value) == (0x40, 1) {
            self.reset();
        }
        self.0.write_region(offset, width, value).map(drop)
    }

    fn changes_map(&self, access: Access) -> bool {
        [Region::CONFIG, BACK_DOOR].contains(&access.region)
    }

    fn quiet(&mut self) {
        self.0.set(0x44, Width::B1, 1);
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn claims(&self) -> Claims {
        let claim = |index| self.0.decoded(index).map(|range| Claim::region(range, Region(index), 0));
        Claims { ranges: (0..7).filter_map(claim).collect(), bridge: None }
    }
}

#[derive(Default)]
struct Reports(Mutex<Vec<String>>);

impl host::Events for Reports {
    fn report(&self, event: Event) {
        if let Event::Failed(text) = event {
            self.0.lock().push(text);
        }
    }
}

fn placed(kept: bool, moves: Moves) -> (Preplaced, Arc<Reports>) {
    let reports = Arc::new(Reports::default());
    let places = Places { bars: homes(kept), windows: None, moves };
    let events: Arc<dyn host::Events> = Arc::clone(&reports) as _;
    (Preplaced::new(Box::new(Card(space())), "0000:01:00.0", &places, events), reports)
}

fn set(device: &mut Preplaced, at: u64, value: u64) {
    device.write(Region::CONFIG, at, Width::B4, value).unwrap();
}

fn get(device: &mut Preplaced, at: u64) -> u64 {
    device.read(Region::CONFIG, at, Width::B4).unwrap()
}

/// Lets it decode ports and memory.
fn enable(device: &mut Preplaced) {
    device.write(Region::CONFIG, 4, Width::B2, 3).unwrap();
}

/// The sizes of all registers, as firmware finds them (PCI 3.0 section 6.2.5.1); 0 for one that is not there.
fn sizes(device: &mut Preplaced) -> [u64; 4] {
    let mut mask = |at| {
        let before = get(device, at);
        set(device, at, u32::MAX.into());
        let read = get(device, at);
        set(device, at, before);
        read
    };
    let narrow = |mask: u64| (!mask & 0xffff_ffff).wrapping_add(1) & 0xffff_ffff;
    let wide = mask(0x18) & !0xf | mask(0x1c) << 32;
    [narrow(mask(0x10) & !0xf), (!wide).wrapping_add(1), narrow(mask(0x20) & !3), narrow(mask(0x30) & !0x7ff)]
}

/// What it decodes, by region.
fn decoded(device: &Preplaced) -> Vec<Range> {
    device.claims().ranges.iter().map(|claim| claim.range).collect()
}

fn at_home() -> Vec<Range> {
    vec![
        Range::Memory(Span::of_len(Gpa(NARROW), 16 << 20).unwrap()),
        Range::Memory(Span::of_len(Gpa(WIDE), 256 << 20).unwrap()),
        Range::Ports(Span::of_len(Port(0xe000), 128).unwrap()),
    ]
}

#[test]
fn a_register_that_is_moved_by_a_back_door_goes_home() {
    for moves in [Moves::Refuse, Moves::Follow, Moves::Stop] {
        let (mut device, reports) = placed(true, moves);
        assert!(device.changes_map(Access::write(BACK_DOOR, 4, Width::B2, 3)));
        device.write(BACK_DOOR, 4, Width::B2, 3).unwrap();
        assert_eq!(decoded(&device), at_home());
        device.write(BACK_DOOR, 0x10, Width::B4, 0xc000_0000).unwrap();
        assert_eq!((decoded(&device), get(&mut device, 0x10)), (at_home(), NARROW));
        assert!(reports.0.lock().is_empty());
    }
}

#[test]
fn firmware_finds_nothing_to_place_and_an_operating_system_everything() {
    for (kept, moves) in
        [(false, Moves::Refuse), (true, Moves::Refuse), (true, Moves::Follow), (true, Moves::Stop)]
    {
        let (mut device, reports) = placed(kept, moves);
        assert_eq!(sizes(&mut device), [0; 4]);
        // As a firmware may, that has sized it.
        set(&mut device, 0x10, 0xc000_0000);
        assert_eq!(get(&mut device, 0x10), NARROW, "a register that is not there takes nothing");
        enable(&mut device);
        assert_eq!(decoded(&device), at_home());
        let all = [16 << 20, 256 << 20, 128, 64 << 10];
        assert_eq!(sizes(&mut device), all);
        assert_eq!((decoded(&device), reports.0.lock().len()), (at_home(), 0));
        assert_eq!(
            [0x10, 0x18, 0x1c, 0x20, 0x30].map(|at| get(&mut device, at)),
            [NARROW, 0x4000_000c, 0x38, PORTS | 1, ROM]
        );
        // Off again the registers stay, and a reset hides their sizes again.
        device.write(Region::CONFIG, 4, Width::B2, 0).unwrap();
        assert_eq!(sizes(&mut device), all);
        device.reset();
        assert_eq!(sizes(&mut device), [0; 4]);
    }
}

#[test]
fn what_is_not_kept_moves_as_ever() {
    let (mut device, reports) = placed(false, Moves::Stop);
    enable(&mut device);
    set(&mut device, 0x10, 0xd000_0000);
    set(&mut device, 0x30, 0xd200_0001);
    assert_eq!((get(&mut device, 0x10), get(&mut device, 0x30)), (0xd000_0000, 0xd200_0001));
    assert_eq!(decoded(&device)[0], Range::Memory(Span::of_len(Gpa(0xd000_0000), 16 << 20).unwrap()));
    assert!(reports.0.lock().is_empty());
}

#[test]
fn a_guest_that_moves_is_refused_followed_or_stopped() {
    for moves in [Moves::Refuse, Moves::Follow, Moves::Stop] {
        let (mut device, reports) = placed(true, moves);
        enable(&mut device);
        // As Linux moves one of 64 bits: with decode off, one half after the other.
        device.write(Region::CONFIG, 4, Width::B2, 0).unwrap();
        set(&mut device, 0x18, 0xc000_000c);
        set(&mut device, 0x1c, 0x39);
        assert!(reports.0.lock().is_empty(), "before it decodes nothing is moved");
        enable(&mut device);
        let moved = Range::Memory(Span::of_len(Gpa(0x39_c000_0000), 256 << 20).unwrap());
        let (read, decodes) = match moves {
            Moves::Refuse => ([0x4000_000c, 0x38], at_home()[1]),
            Moves::Follow => ([0xc000_000c, 0x39], moved),
            Moves::Stop => ([0xc000_000c, 0x39], at_home()[1]),
        };
        assert_eq!([0x18, 0x1c].map(|at| get(&mut device, at)), read, "{moves:?}");
        assert_eq!(decoded(&device)[1], decodes, "{moves:?}");
        let reports = reports.0.lock();
        assert_eq!(reports.len(), usize::from(moves == Moves::Stop));
        for report in reports.iter() {
            for word in ["0000:01:00.0", "BAR 2", "from 0x3840000000", "to 0x39c0000000"] {
                assert!(report.contains(word), "no {word} in: {report}");
            }
        }
    }
}

/// A bus is reset, after which Linux writes back all registers, COMMAND last of all.
#[test]
fn a_guest_that_puts_back_what_it_moved_finds_it_there() {
    for (kept, moves, found) in [
        (false, Moves::Refuse, 0xd000_0000),
        (true, Moves::Follow, 0xd000_0000),
        (true, Moves::Stop, NARROW),
        (true, Moves::Refuse, NARROW),
    ] {
        let (mut device, _) = placed(kept, moves);
        enable(&mut device);
        set(&mut device, 0x10, 0xd000_0000);
        device.reset();
        let before = [0x18, 0x1c, 0x20].map(|at| get(&mut device, at));
        set(&mut device, 0x10, 0xd000_0000);
        for (at, value) in [0x18, 0x1c, 0x20].into_iter().zip(before) {
            set(&mut device, at, value);
        }
        enable(&mut device);
        let narrow = Range::Memory(Span::of_len(Gpa(found), 16 << 20).unwrap());
        assert_eq!(decoded(&device), [narrow, at_home()[1], at_home()[2]], "{kept} {moves:?}");
        assert_eq!(get(&mut device, 0x10), if moves == Moves::Stop { 0xd000_0000 } else { found });
        // A machine that is reset begins at home.
        device.reset();
        enable(&mut device);
        assert_eq!(decoded(&device), at_home());
    }
}

#[test]
fn a_reset_of_the_function_alone_loses_no_address() {
    for moves in [Moves::Refuse, Moves::Follow, Moves::Stop] {
        let (mut device, _) = placed(true, moves);
        enable(&mut device);
        set(&mut device, 0x40, 1);
        assert_eq!(get(&mut device, 0x10), NARROW);
        enable(&mut device);
        assert_eq!(decoded(&device), at_home());
    }
}

#[test]
fn a_function_falls_silent_wherever_it_is_placed() {
    let (mut device, _) = placed(true, Moves::Refuse);
    enable(&mut device);
    device.quiet();
    assert_eq!((get(&mut device, 0x44), decoded(&device)), (1, at_home()));
    device.reset();
    assert_eq!(get(&mut device, 0x44), 0);
}

/// One of the guest's writes.
fn write() -> impl Strategy<Value = (u64, Width, u64)> {
    let bars = prop::sample::select(vec![0x10_u64, 0x18, 0x1c, 0x20]);
    let value = prop_oneof![
        Just(u64::from(u32::MAX)),
        Just(0),
        Just(NARROW),
        Just(WIDE & 0xffff_ffff),
        Just(WIDE >> 32),
        (0_u64..1 << 32),
    ];
    let part = (bars.clone(), 0_u64..4, prop::sample::select(vec![Width::B1, Width::B2]), value.clone());
    let part = part.prop_map(|(at, lane, width, value)| match width {
        Width::B2 => (at + (lane & 2), width, value & 0xffff),
        _ => (at + lane, width, value & 0xff),
    });
    let command = (0_u64..4).prop_map(|value| (4, Width::B2, value));
    prop_oneof![3 => (bars, value).prop_map(|(at, value)| (at, Width::B4, value)), 1 => part, 2 => command]
}

proptest! {
    /// Against a plain configuration space that takes every write.
    #[test]
    fn registers_and_decode_are_what_a_plain_function_has_or_home(
        writes in prop::collection::vec(write(), 0..40),
    ) {
        for moves in [Moves::Refuse, Moves::Follow, Moves::Stop] {
            let (mut device, reports) = placed(true, moves);
            enable(&mut device);
            let mut plain = space();
            for (at, value) in [(0x10, NARROW), (0x18, WIDE & 0xffff_ffff), (0x1c, WIDE >> 32), (0x20, PORTS), (4, 3)] {
                plain.write(at, Width::B4, low(value));
            }
            let (mut left_home, mut sized) = (false, [false; 16]);
            for (at, width, value) in &writes {
                sized[(at / 4) as usize] = (*width, *value) == (Width::B4, u32::MAX.into());
                device.write(Region::CONFIG, *at, *width, *value).unwrap();
                plain.write(u16::try_from(*at).unwrap(), *width, low(*value));
                let theirs: Vec<Range> = (0..6).filter_map(|index| plain.decoded(index)).collect();
                left_home |= [(0, 4..5), (2, 6..8), (4, 8..9)].into_iter().any(|(index, dwords)| {
                    let moved = plain.decoded(index).is_some_and(|range| !at_home().contains(&range));
                    moved && !dwords.into_iter().any(|dword| sized[dword])
                });
                let ours = decoded(&device);
                for (dword, mask) in [(0x10, 0xff00_0000), (0x18, 0xf000_0000), (0x1c, u32::MAX), (0x20, 0xffff_ff80)] {
                    let read = low(get(&mut device, dword.into()));
                    match moves {
                        Moves::Refuse => {
                            let home = match dword { 0x10 => NARROW, 0x18 => WIDE, 0x1c => WIDE >> 32, _ => PORTS };
                            prop_assert!([low(home) & mask, mask].contains(&(read & mask)), "{dword:#x}: {read:#x}");
                        }
                        _ => prop_assert_eq!(read, plain.read(dword, Width::B4), "{:#x}", dword),
                    }
                }
                match moves {
                    Moves::Follow => prop_assert_eq!(ours, theirs),
                    _ => prop_assert!(ours.iter().all(|range| at_home().contains(range)), "{ours:?}"),
                }
            }
            prop_assert_eq!(!reports.0.lock().is_empty(), moves == Moves::Stop && left_home);
        }
    }
}
