//! A function that owns legacy VGA and may be faster than strict, over the software adapter as its card.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use trapline_devices::assigned::backend::{Irqs, Mapping, RegionInfo, Signalled};
use trapline_devices::assigned::{Backend, Function, Options, Vga};
use trapline_devices::legacy::{Phase, Ways};
use trapline_devices::vga::Adapter;
use trapline_io::device::{Claim, DirectKind, Range, Retire, Target};
use trapline_io::space::DwordSet;
use trapline_io::window::Mode;
use trapline_io::{Access, Device, Fault, Gpa, Region, Width};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

#[path = "assigned_card/card.rs"]
mod fake;
use fake::Host;

const WAYS: Ways = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
const MSI: u8 = 0x60;
const DISPI: Region = Region(0xf0);

struct State {
    adapter: Adapter,
    dead: bool,
    /// Writes to the window, runs as one.
    runs: usize,
}

/// The adapter as a card; it says that it has an interrupt line and one message.
#[derive(Clone)]
struct Card {
    state: Arc<Mutex<State>>,
    regions: Arc<[RegionInfo]>,
    line: bool,
    resettable: bool,
}

impl Card {
    fn new(line: bool) -> Card {
        let adapter = Adapter::new(None).unwrap();
        let memory = Arc::clone(adapter.framebuffer().memory());
        let region = |size| RegionInfo { size, readable: true, writable: true, mappings: Vec::new() };
        let mut regions = vec![region(0); 9];
        regions[0] = RegionInfo { mappings: vec![Mapping::whole(0, memory)], ..region(16 << 20) };
        regions[2] = region(4096);
        regions[7] = region(256);
        regions[8] = region(0xc_0000);
        let state = State { adapter, dead: false, runs: 0 };
        Card { state: Arc::new(Mutex::new(state)), regions: regions.into(), line, resettable: true }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the card itself has in its text window.
    fn text(&self, at: u64) -> u64 {
        self.state().adapter.read(Region::VGA, 0xb_8000 + at, Width::B4).unwrap()
    }

    /// Registers of the capability that the adapter does not have.
    fn byte(&self, at: u64) -> Option<u8> {
        match at {
            0x06 => Some(0x10),
            0x34 => Some(MSI),
            0x3d => Some(1),
            0x60 => Some(0x05),
            0x61..0x6a => Some(0),
            _ => None,
        }
        .filter(|_| self.line)
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "software"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn is_dead(&self) -> bool {
        self.state().dead
    }
    fn resettable(&self) -> bool {
        self.resettable
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.state().adapter.read(region, offset, width)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let mut state = self.state();
        state.runs += usize::from(region == Region::VGA && offset >= 0xa_0000);
        state.adapter.write(region, offset, width, value)
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        for (at, byte) in (offset..).zip(bytes) {
            let own = self.byte(at).filter(|_| region == Region::CONFIG);
            *byte = match own {
                Some(byte) => byte,
                None => self.state().adapter.read(region, at, Width::B1)?.to_le_bytes()[0],
            };
        }
        Ok(())
    }
    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut state = self.state();
        state.runs += 1;
        for (at, byte) in (offset..).zip(bytes) {
            state.adapter.write(region, at, Width::B1, (*byte).into())?;
        }
        Ok(())
    }
    fn reset(&mut self) -> Result<(), Fault> {
        self.state().adapter.reset();
        Ok(())
    }
    fn irqs(&self) -> Irqs {
        Irqs { intx: self.line, msi: u16::from(self.line), msix: 0, msix_grows: false }
    }
    fn enable_intx(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_intx(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    fn enable_vectors(&mut self, _: Signalled, _: u16, _: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_vectors(&mut self, _: Signalled) -> Result<(), Fault> {
        Ok(())
    }
}

/// A function, its card, and a clock that is turned by hand.
struct Guest {
    function: Function<Card>,
    card: Card,
    now: Instant,
}

impl Guest {
    fn new(ways: Ways, line: bool) -> Guest {
        Guest::on(Card::new(line), Options { ways, ..Host::new().options() })
    }

    fn on(card: Card, options: Options) -> Guest {
        let function = Function::open(card.clone(), options).unwrap();
        let mut guest = Guest { function, card, now: Instant::now() };
        guest.start();
        guest
    }

    /// As a BIOS: BARs, decode, mode 3.
    fn start(&mut self) {
        self.config(0x10, Width::B4, 0xe000_0000);
        self.config(0x18, Width::B4, 0xe100_0000);
        self.config(0x04, Width::B2, 3);
        self.put(0x3c2, Width::B1, 0x67);
        for both in [0x0300, 0x0302, 0x0204] {
            self.put(0x3c4, Width::B2, both);
        }
        for both in [0x0001, 0x0003, 0x0004, 0x1005, 0x0e06, 0xff08] {
            self.put(0x3ce, Width::B2, both);
        }
    }

    fn config(&mut self, at: u64, width: Width, value: u64) {
        self.function.write(Region::CONFIG, at, width, value).unwrap();
    }

    fn put(&mut self, at: u64, width: Width, value: u64) {
        self.function.write(Region::VGA, at, width, value).unwrap();
    }

    fn beat(&mut self) -> Mode {
        self.now += Duration::from_millis(16);
        let window = self.function.window().unwrap();
        let wish = window.tick(self.now);
        window.turn(wish);
        window.mode()
    }

    /// Writes text until it is shadowed: twice of what is enough, and again where a busy host let this thread
    /// stand still.
    fn shadow(&mut self) {
        let since = Instant::now();
        loop {
            let begun = Instant::now();
            (0..32).for_each(|cell| self.put(0xb_8000 + 2 * cell, Width::B2, 0x0741));
            if begun.elapsed() <= Duration::from_millis(16) {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "never as quick as a burst");
        }
        assert_eq!(self.beat(), Mode::Shadowed);
    }

    /// The RAM that the guest has for its text window.
    fn ram(&self) -> Option<Arc<MmapRegion>> {
        let claims = self.function.claims().ranges;
        let direct = claims.into_iter().filter_map(|claim| claim.direct);
        direct.filter(|direct| direct.kind == DirectKind::Shadow).map(|direct| direct.memory).next()
    }

    fn store(&self, bytes: &[u8]) {
        self.ram().unwrap().as_volatile_slice().write_slice(bytes, 0).unwrap();
    }

    fn admits(&mut self, access: Access) -> bool {
        self.function.window().unwrap().admits(access)
    }

    /// How writes to a BAR retire, and whether any of it is mapped.
    fn bar(&self, index: u8) -> (Retire, bool) {
        let claims = self.function.claims().ranges;
        let of_bar = |claim: &&Claim| matches!(claim.target, Target::Region { region, .. } if region == Region::bar(index));
        let mapped = claims.iter().filter(of_bar).any(|claim| claim.direct.is_some());
        let Some(Claim { target: Target::Region { retire, .. }, .. }) = claims.iter().rfind(of_bar) else {
            panic!("BAR {index} is not decoded")
        };
        (*retire, mapped)
    }
}

const fn word(text: &[u8; 4]) -> u64 {
    u32::from_le_bytes(*text) as u64
}

#[test]
fn without_ways_there_is_no_window_and_the_bars_are_mapped() {
    let mut guest = Guest::new(Ways::default(), false);
    assert!(guest.function.window().is_none());
    assert!(!guest.function.merges(Region::VGA, 0xb_8000));
    assert_eq!((guest.bar(0), guest.bar(2)), ((Retire::Strict, true), (Retire::Strict, false)));
    assert_eq!(guest.function.write_run(Region::VGA, 0xb_8000, b"x"), Err(Fault::NoRegister));
    let card = Card::new(false);
    let other = Options { vga: Vga::Off, ways: WAYS, ..Options::default() };
    let mut function = Function::open(card, other).unwrap();
    assert!(function.window().is_none(), "it owns no window");
}

#[test]
fn in_the_legacy_phase_no_bar_is_mapped_and_its_writes_are_posted() {
    let mut guest = Guest::new(WAYS, false);
    assert_eq!(guest.function.window().unwrap().mode(), Mode::Resting);
    assert_eq!((guest.bar(0), guest.bar(2)), ((Retire::Posted, false), (Retire::Posted, false)));
    guest.shadow();
    assert_eq!((guest.bar(0), guest.bar(2)), ((Retire::Topology, false), (Retire::Topology, false)));
    guest.function.window().unwrap().turn(Mode::Native);
    assert_eq!((guest.bar(0), guest.bar(2)), ((Retire::Strict, true), (Retire::Strict, false)));
}

#[test]
fn nothing_is_posted_while_the_line_may_be_asserted() {
    let mut guest = Guest::new(WAYS, true);
    assert_eq!(guest.bar(0), (Retire::Strict, false));
    guest.config(0x04, Width::B2, 0x403);
    assert_eq!(guest.bar(0), (Retire::Posted, false), "INTx is disabled in COMMAND");
    guest.config(0x04, Width::B2, 3);
    guest.config(u64::from(MSI) + 2, Width::B2, 1);
    assert_eq!(guest.bar(0), (Retire::Posted, false), "it interrupts by messages");
    // So the way to interrupt changes the map.
    let with = DwordSet::of(&[MSI]);
    assert_eq!(guest.function.topology(), guest.function.topology().union(with));
    let without = Guest::new(Ways::default(), true).function.topology();
    assert_ne!(without, without.union(with));
}

#[test]
fn what_is_in_the_shadow_comes_before_all_else() {
    let mut guest = Guest::new(WAYS, false);
    guest.shadow();
    guest.store(b"one ");
    guest.function.read(Region::CONFIG, 0, Width::B4).unwrap();
    assert_eq!(guest.card.text(0), word(b"one "));
    guest.store(b"two ");
    guest.function.read(Region::bar(2), 0x500, Width::B2).unwrap();
    assert_eq!(guest.card.text(0), word(b"two "));
    guest.store(b"tree");
    guest.function.read(DISPI, 0x1cf, Width::B2).unwrap();
    assert_eq!(guest.card.text(0), word(b"tree"));
    guest.store(b"four");
    guest.function.read(Region::VGA, 0x3da, Width::B1).unwrap();
    assert_eq!(guest.card.text(0), word(b"tree"), "no register depends on text");
    guest.beat();
    assert_eq!(guest.card.text(0), word(b"four"));
}

#[test]
fn text_outlives_a_reset_and_the_end() {
    for reset in [true, false] {
        let mut guest = Guest::new(WAYS, false);
        guest.shadow();
        guest.store(b"last");
        if reset {
            guest.function.reset();
            assert!(guest.function.claims().ranges.is_empty() && guest.ram().is_none());
        } else {
            drop(guest.function);
        }
        let mut bytes = [0; 8];
        guest.card.state().adapter.framebuffer().bytes().read_slice(&mut bytes, 0).unwrap();
        // Characters lie in plane 0, attributes in plane 1 of the cell.
        assert_eq!(bytes[..2], *b"la");
    }
}

#[test]
fn bars_and_bochs_registers_end_the_shadow() {
    let mut guest = Guest::new(WAYS, false);
    assert!(guest.admits(Access::write(Region::bar(2), 0x508, Width::B2, 1)), "nothing is shadowed");
    guest.shadow();
    for (region, at) in [(Region::bar(0), 0), (Region::bar(2), 0), (DISPI, 0x1cf)] {
        assert!(!guest.admits(Access::write(region, at, Width::B2, 0)));
        assert!(guest.admits(Access::read(region, at, Width::B2)));
    }
    assert!(guest.admits(Access::write(DISPI, 0x1ce, Width::B2, 4)), "the latch is none of the card's");
    guest.function.window().unwrap().turn(Mode::Coalesced);
    // The card's text is changed behind the window's back: the first cell through the frame buffer.
    guest.function.write(Region::bar(0), 0, Width::B2, 0x1f5a).unwrap();
    guest.shadow();
    assert_eq!(guest.function.read(Region::VGA, 0xb_8000, Width::B2), Ok(0x0741));
    guest.function.window().unwrap().turn(Mode::Coalesced);
    guest.function.write(Region::bar(0), 4 * 100, Width::B2, 0x1f5a).unwrap();
    guest.put(0xb_8000, Width::B2, 0x0742);
    assert_eq!(guest.beat(), Mode::Shadowed);
    assert_eq!(guest.function.read(Region::VGA, 0xb_8000 + 100, Width::B2), Ok(0x1f5a));
    guest.function.window().unwrap().turn(Mode::Coalesced);
    // The Bochs interface has another window, whatever the VGA's registers say.
    for (port, value) in [(0x1ce, 4), (0x1cf, 0x41)] {
        guest.function.write(DISPI, port, Width::B2, value).unwrap();
    }
    guest.put(0xb_8000, Width::B2, 0x0742);
    assert_eq!(guest.beat(), Mode::Coalesced);
}

#[test]
fn a_change_of_decode_or_power_makes_the_card_be_asked_again() {
    let mut guest = Guest::new(WAYS, false);
    guest.shadow();
    guest.function.window().unwrap().turn(Mode::Coalesced);
    assert!(guest.function.merges(Region::VGA, 0xb_8000));
    assert!(!guest.function.merges(Region::bar(0), 0));
    guest.config(0x04, Width::B2, 2);
    assert!(!guest.function.merges(Region::VGA, 0xb_8000));
    // Without its ports it cannot be asked.
    guest.put(0xb_8000, Width::B2, 0x0741);
    assert!(!guest.function.merges(Region::VGA, 0xb_8000));
    guest.config(0x04, Width::B2, 3);
    guest.put(0xb_8000, Width::B2, 0x0741);
    assert!(guest.function.merges(Region::VGA, 0xb_8000));
    // Between the two the card was changed by nobody that this process sees.
    guest.config(0x04, Width::B2, 3);
    guest.card.state().adapter.write(Region::VGA, 0x3ce, Width::B2, 0x0506).unwrap();
    guest.put(0xb_8000, Width::B2, 0x0741);
    assert!(!guest.function.merges(Region::VGA, 0xb_8000));
}

/// A driver that moves its message, or writes COMMAND with what it has, ends no shadow; what decides when writes to
/// BARs retire does, and so does decode.
#[test]
fn a_write_that_changes_nothing_leaves_the_shadow_alone() {
    let mut guest = Guest::new(WAYS, true);
    guest.shadow();
    let changes = |guest: &Guest, at: u64, width, value| {
        guest.function.changes_map(Access::write(Region::CONFIG, at, width, value))
    };
    let control = u64::from(MSI) + 2;
    for (at, kept, lost) in [(4, 0x0003, 0x0001), (4, 0x0103, 0x0403), (control, 0x0000, 0x0001)] {
        assert!(!changes(&guest, at, Width::B2, kept), "{at:x}: {kept:x}");
        assert!(changes(&guest, at, Width::B2, lost), "{at:x}: {lost:x}");
    }
    // The registers are asked for anew behind COMMAND, and text still comes before the start address.
    guest.store(b"Then");
    guest.config(4, Width::B2, 3);
    assert_eq!(guest.card.text(0), word(b"Then"));
    guest.store(b"this");
    guest.put(0x3d4, Width::B2, 0x500c);
    assert_eq!(guest.card.text(0), word(b"this"));
    // A register that the device does not see leads nowhere.
    guest.config(control, Width::B2, 0);
    assert!(
        guest.admits(Access::write(Region::VGA, 0x3d4, Width::B2, 0x510d)),
        "the registers are still known"
    );
}

#[test]
fn every_write_is_seen_by_the_function() {
    let guest = Guest::new(WAYS, false);
    for region in [Region::VGA, Region::bar(0), Region::bar(2)] {
        assert!(guest.function.file(region).is_none());
    }
}

#[test]
fn a_run_is_one_transfer() {
    let mut guest = Guest::new(WAYS, false);
    guest.shadow();
    guest.function.window().unwrap().turn(Mode::Coalesced);
    guest.card.state().runs = 0;
    guest.function.write_run(Region::VGA, 0xb_8000, b"one transfer").unwrap();
    let runs = guest.card.state().runs;
    assert_eq!((runs, guest.card.text(8)), (1, word(b"sfer")));
    for (region, offset) in
        [(Region::VGA, 0xb_ffff), (Region::VGA, 0x3c4), (Region::bar(0), 0), (Region::VGA, u64::MAX)]
    {
        assert_eq!(guest.function.write_run(region, offset, b"no"), Err(Fault::NoRegister), "{offset:x}");
    }
}

#[test]
fn a_card_that_is_gone_holds_nobody_up() {
    let mut guest = Guest::new(WAYS, false);
    guest.shadow();
    guest.store(b"lost");
    guest.card.state().dead = true;
    assert_eq!(guest.function.read(Region::VGA, 0xb_8000, Width::B1), Err(Fault::Failed));
    assert_eq!(guest.function.write_run(Region::VGA, 0xb_8000, b"x"), Err(Fault::Failed));
    guest.beat();
    guest.function.window().unwrap().turn(Mode::Resting);
    guest.function.reset();
    assert_eq!(guest.function.window().unwrap().mode(), Mode::Resting);
}

#[test]
fn the_text_window_is_ram_only_where_memory_is_decoded() {
    let mut guest = Guest::new(WAYS, false);
    guest.shadow();
    let claims = guest.function.claims().ranges;
    let text = claims
        .iter()
        .find(|claim| matches!(claim.range, Range::Memory(span) if span.first() == Gpa(0xb_8000)));
    assert!(text.is_some_and(|claim| claim.direct.is_some()));
    assert_eq!(guest.ram().unwrap().size(), 0x8000);
    guest.config(0x04, Width::B2, 1);
    assert!(guest.ram().is_none());
}

/// Mode 3, text and a letter's shape, by whom the function is not asked.
fn host_console(resettable: bool) -> Card {
    let mut card = Card { resettable, ..Card::new(false) };
    let mut put = |at, width, value| card.write(Region::VGA, at, width, value).unwrap();
    put(0x3c2, Width::B1, 0x67);
    [0x0300, 0x0402, 0x0604].into_iter().for_each(|both| put(0x3c4, Width::B2, both));
    [0x0001, 0x0003, 0x0004, 0x0005, 0x0506, 0xff08].into_iter().for_each(|both| put(0x3ce, Width::B2, both));
    put(0xa_0000 + 32 * 0x41, Width::B4, word(b"bits"));
    [0x0302, 0x0204].into_iter().for_each(|both| put(0x3c4, Width::B2, both));
    [0x1005, 0x0e06].into_iter().for_each(|both| put(0x3ce, Width::B2, both));
    put(0xb_8000, Width::B4, word(b"h\x07o\x07"));
    card
}

#[test]
fn the_hosts_console_is_put_back_on_a_card_that_no_reset_clears() {
    let shape = |card: &mut Card| {
        for (at, both) in [(0x3c4, 0x0604), (0x3ce, 0x0204), (0x3ce, 0x0005), (0x3ce, 0x0506)] {
            card.write(Region::VGA, at, Width::B2, both).unwrap();
        }
        card.read(Region::VGA, 0xa_0000 + 32 * 0x41, Width::B4).unwrap()
    };
    for (resettable, console, back) in [(false, true, true), (false, false, false), (true, true, false)] {
        let mut card = host_console(resettable);
        let options = Options { ways: WAYS, console, ..Host::new().options() };
        let mut guest = Guest::on(card.clone(), options);
        guest.shadow();
        guest.store(b"g\x07");
        guest.put(0x3c4, Width::B2, 0x0f02);
        guest.put(0xb_8000 + 32 * 0x41, Width::B4, 0);
        guest.config(0x04, Width::B2, 0);
        drop(guest);
        let text = card.text(0);
        assert_eq!(text == word(b"h\x07o\x07"), back, "{resettable} {console}: {text:x}");
        assert!(!back || shape(&mut card) == word(b"bits"), "{resettable} {console}");
        assert_eq!(card.read(Region::CONFIG, 4, Width::B2), Ok(0), "it decodes still");
    }
}
