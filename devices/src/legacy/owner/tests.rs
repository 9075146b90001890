//! The owner against the software adapter, and against the same adapter used strictly.

use trapline_io::device::{Range, Retire, Target};
use trapline_io::{Device, Fault, Width};
use vm_memory::{Bytes, VolatileMemory};

use super::*;
use crate::legacy::testing::Card;

mod phases;
mod same_as_strict;
mod seen;

const ALL: Ways = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
const BEAT: Duration = Duration::from_millis(16);

/// Does it until it took no longer than this, since a busy host lets threads stand still.
fn within<T>(span: Duration, mut what: impl FnMut() -> T) -> T {
    let since = Instant::now();
    loop {
        let begun = Instant::now();
        let done = what();
        if begun.elapsed() <= span {
            return done;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "never within {span:?}");
    }
}

/// An owner whose card decodes, and a clock for it.
struct Rig {
    owner: Owner,
    card: Card,
    now: Instant,
}

impl Rig {
    fn new(ways: Ways, card: Card) -> Rig {
        let mut owner = Owner::new(ways, true).unwrap();
        owner.decode(true);
        Rig { owner, card, now: Instant::now() }
    }

    /// One in text mode that has turned to the shadow.
    fn shadowed() -> Rig {
        let mut rig = Rig::new(ALL, Card::in_text());
        rig.burst();
        assert_eq!(rig.settle(), Mode::Shadowed);
        rig.card.seen.clear();
        rig
    }

    fn put(&mut self, offset: u64, width: Width, value: u64) {
        self.owner.write(&mut self.card, offset, width, value).unwrap();
    }

    fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.owner.read(&mut self.card, offset, width).unwrap()
    }

    /// What the card itself has there.
    fn on_card(&mut self, offset: u64, width: Width) -> u64 {
        self.card.adapter.read(Region::VGA, offset, width).unwrap()
    }

    fn burst(&mut self) {
        within(BURST.1, || {
            self.owner.traffic.burst.clear();
            (0..16).for_each(|cell| self.put(0xb_8000 + 2 * cell, Width::B2, 0x0741));
        });
    }

    fn tick(&mut self) -> Mode {
        self.now += BEAT;
        self.owner.tick(&mut self.card, self.now)
    }

    fn turn(&mut self, to: Mode) {
        self.owner.turn(&mut self.card, to, self.now);
    }

    /// A beat, and the turn that it wishes for.
    fn settle(&mut self) -> Mode {
        let wish = self.tick();
        self.turn(wish);
        self.owner.mode()
    }

    /// As the guest's own store, without any exit.
    fn store(&self, offset: u64, bytes: &[u8]) {
        let ram = self.owner.shadow.as_ref().unwrap().memory();
        ram.as_volatile_slice().write_slice(bytes, usize::try_from(offset - 0xb_8000).unwrap()).unwrap();
    }

    /// As a vCPU does a write that may end the shadow.
    fn put_admitted(&mut self, offset: u64, width: Width, value: u64) {
        if !self.owner.admits(Access::write(Region::VGA, offset, width, value)) {
            self.turn(Mode::Coalesced);
        }
        self.put(offset, width, value);
    }
}

#[test]
fn a_strict_function_has_none() {
    assert!(Owner::new(Ways::default(), false).is_none());
    assert!(Owner::new(Ways { phase: Phase::Native, ..ALL }, false).is_none());
}

#[test]
fn text_is_shadowed_once_there_is_enough_of_it() {
    let mut rig = Rig::new(ALL, Card::in_text());
    assert_eq!((rig.owner.mode(), rig.tick()), (Mode::Resting, Mode::Resting));
    rig.put(0xb_8000, Width::B2, 0x0741);
    assert_eq!(rig.tick(), Mode::Resting);
    rig.burst();
    assert_eq!(rig.settle(), Mode::Shadowed);
    assert_eq!(rig.get(0xb_8002, Width::B2), 0x0741, "the shadow starts with what the card has");
    rig.store(0xb_8000, &[0x42, 0x17]);
    assert_eq!((rig.get(0xb_8000, Width::B2), rig.on_card(0xb_8000, Width::B2)), (0x1742, 0x0741));
    assert_eq!(rig.tick(), Mode::Shadowed);
    assert_eq!(rig.on_card(0xb_8000, Width::B2), 0x1742);
}

#[test]
fn an_idle_guest_has_no_clock_and_the_next_burst_reads_nothing_back() {
    let mut rig = Rig::shadowed();
    let beats = (1..100).find(|_| rig.settle() == Mode::Resting).unwrap();
    assert!((16..=18).contains(&beats), "{beats}");
    rig.put(0xb_8000, Width::B2, 0x1f43);
    assert_eq!(rig.on_card(0xb_8000, Width::B2), 0x1f43);
    // Reading it back would fail.
    rig.burst();
    rig.put(0xb_8006, Width::B2, 0x1f44);
    assert_eq!(rig.tick(), Mode::Shadowed);
    rig.card.fails = true;
    rig.turn(Mode::Shadowed);
    rig.card.fails = false;
    assert_eq!((rig.owner.mode(), rig.get(0xb_8006, Width::B2)), (Mode::Shadowed, 0x1f44));
}

#[test]
fn a_guest_that_only_stores_into_the_shadow_is_not_idle() {
    let mut rig = Rig::shadowed();
    for beat in 0..60 {
        rig.store(0xb_8000, &[beat]);
        assert_eq!(rig.settle(), Mode::Shadowed);
    }
}

#[test]
fn a_start_address_comes_behind_the_text() {
    let mut rig = Rig::shadowed();
    rig.store(0xb_8100, &[0x58, 0x07]);
    rig.put(0x3d4, Width::B2, 0x500e);
    assert_eq!(rig.card.take().len(), 1, "the cursor may pass");
    rig.put(0x3d4, Width::B2, 0x500d);
    let seen: Vec<u64> = rig.card.take().into_iter().map(|(_, offset, _)| offset).collect();
    assert_eq!(seen, [0xb_8100, 0x3d4]);
    rig.store(0xb_8100, &[0x59]);
    rig.put(0x3d4, Width::B2, 0x500d);
    assert_eq!(rig.card.take().len(), 1, "the same address shows nothing else");
}

#[test]
fn what_ends_plain_text_is_not_admitted() {
    let rig = Rig::shadowed();
    let admitted = |offset, width, value| rig.owner.admits(Access::write(Region::VGA, offset, width, value));
    for (offset, value) in [(0x3c4, 0x2001), (0x3c4, 0x0302), (0x3ce, 0xff08), (0x3c4, 0x0007_0001)] {
        assert!(admitted(offset, Width::B2, value), "{offset:x} {value:x}");
    }
    assert!(admitted(0x3c2, Width::B1, 0x67) && admitted(0x3c2, Width::B1, 0x63));
    assert!(admitted(0xa_0000, Width::B4, 0) && admitted(0x3c4, Width::B1, 0x88));
    for (offset, value) in
        [(0x3c4, 0x0402), (0x3ce, 0x0506), (0x3c4, 0x1206), (0x3ce, 0x0009), (0x3c4, 0x0100)]
    {
        assert!(!admitted(offset, Width::B2, value), "{offset:x} {value:x}");
    }
    assert!(!admitted(0x3c2, Width::B1, 0x65) && !admitted(0x3c3, Width::B1, 1));
    assert!(rig.owner.admits(Access::read(Region::VGA, 0x3c3, Width::B1)));
}

#[test]
fn a_font_comes_and_goes_without_reading_text_back() {
    let mut rig = Rig::shadowed();
    rig.store(0xb_8000, b"x\x07y\x07");
    for (offset, value) in
        [(0x3c4, 0x0402), (0x3c4, 0x0704), (0x3ce, 0x0204), (0x3ce, 0x0005), (0x3ce, 0x0406)]
    {
        rig.put_admitted(offset, Width::B2, value);
    }
    assert_eq!(rig.settle(), Mode::Coalesced);
    assert!(!rig.owner.merges(0xa_0000));
    (0..64).for_each(|at| rig.put(0xa_0000 + at, Width::B1, at ^ 0x55));
    for (offset, value) in
        [(0x3c4, 0x0302), (0x3c4, 0x0304), (0x3ce, 0x0004), (0x3ce, 0x1005), (0x3ce, 0x0e06)]
    {
        rig.put_admitted(offset, Width::B2, value);
    }
    assert!(rig.owner.shadow.as_ref().is_some_and(|_| rig.owner.merges(0xb_8000)));
    rig.card.fails = true;
    assert_eq!(rig.settle(), Mode::Shadowed);
    assert_eq!(rig.get(0xb_8000, Width::B4), 0x0779_0778);
}

#[test]
fn a_register_of_the_crtc_that_no_vga_has_pins_the_run() {
    let mut rig = Rig::shadowed();
    rig.put(0x3d4, Width::B1, 0x19);
    rig.store(0xb_8000, b"late");
    assert_eq!(rig.settle(), Mode::Coalesced);
    assert_eq!(rig.on_card(0xb_8000, Width::B4), 0x6574_616c);
    rig.owner.reset();
    rig.owner.decode(true);
    rig.burst();
    assert_eq!(rig.settle(), Mode::Coalesced);
}

#[test]
fn text_written_until_the_machine_turns_is_not_lost() {
    let mut rig = Rig::shadowed();
    rig.store(0xb_8000, b"one ");
    // Index and data of such a register came late, out of the ring.
    rig.put(0x3d4, Width::B2, 0x0019);
    rig.store(0xb_8000, b"two ");
    rig.turn(Mode::Coalesced);
    assert_eq!(rig.on_card(0xb_8000, Width::B4), u64::from(u32::from_le_bytes(*b"two ")));
}

#[test]
fn a_window_that_cannot_be_read_is_not_asked_for_again_and_again() {
    let mut rig = Rig::new(ALL, Card::in_text());
    rig.burst();
    assert_eq!(rig.tick(), Mode::Shadowed);
    rig.card.fails = true;
    rig.owner.disturbed();
    rig.owner.learn(&mut rig.card);
    rig.turn(Mode::Shadowed);
    assert_eq!((rig.owner.mode(), rig.tick()), (Mode::Resting, Mode::Coalesced));
    rig.card.fails = false;
    rig.owner.disturbed();
    rig.burst();
    assert_eq!(rig.settle(), Mode::Shadowed);
}

#[test]
fn a_guest_that_makes_it_be_read_back_all_the_time_has_no_shadow_for_a_while() {
    let mut rig = Rig::shadowed();
    let ended = |rig: &mut Rig| {
        rig.turn(Mode::Coalesced);
        rig.owner.disturbed();
        rig.put(0xb_8000, Width::B2, 0x0741);
        rig.settle() == Mode::Shadowed
    };
    let again = (0..20).take_while(|_| ended(&mut rig)).count();
    assert_eq!(again, 7, "and one before");
    let beats = (0..100).take_while(|_| !ended(&mut rig)).count();
    assert!((60..64).contains(&beats), "{beats}");
    // Fonts need no reading back.
    let mut rig = Rig::shadowed();
    for _ in 0..20 {
        rig.put_admitted(0x3c4, Width::B2, 0x0402);
        rig.put_admitted(0x3c4, Width::B2, 0x0302);
        assert_eq!(rig.settle(), Mode::Shadowed);
    }
}

#[test]
fn a_port_written_while_nothing_is_known_may_lead_to_other_memory() {
    let mut rig = Rig::shadowed();
    rig.turn(Mode::Resting);
    // The Command register was written.
    rig.owner.decode(true);
    rig.put(0x3d4, Width::B2, 0x500e);
    assert!(rig.owner.shadow.as_ref().unwrap().is_known());
    // The other half of memory.
    rig.put(0x3c2, Width::B1, 0x47);
    assert!(!rig.owner.shadow.as_ref().unwrap().is_known());
    rig.burst();
    assert_eq!(rig.settle(), Mode::Shadowed);
    assert_eq!(rig.get(0xb_8100, Width::B8), rig.on_card(0xb_8100, Width::B8));
}

#[test]
fn a_shadow_that_can_not_start_leaves_no_wish_that_nobody_hears() {
    let mut rig = Rig::new(ALL, Card::in_text());
    rig.owner.watch(std::thread::current());
    rig.burst();
    assert_eq!(rig.tick(), Mode::Shadowed);
    rig.owner.disturbed();
    rig.owner.learn(&mut rig.card);
    rig.owner.called = false;
    rig.card.fails = true;
    rig.turn(Mode::Shadowed);
    assert!(rig.owner.called, "at rest nothing ticks by itself");
    assert_eq!(rig.settle(), Mode::Coalesced);
}

#[test]
fn a_wish_that_is_not_fulfilled_ends_with_the_traffic() {
    let mut rig = Rig::new(ALL, Card::in_text());
    rig.burst();
    assert_eq!(rig.tick(), Mode::Shadowed);
    let beats = (1..100).find(|_| rig.tick() == Mode::Resting).unwrap();
    assert!((15..=17).contains(&beats), "{beats}");
    rig.burst();
    assert_eq!(rig.settle(), Mode::Shadowed);
}

#[test]
fn a_guest_that_ends_and_starts_the_shadow_without_pause_has_none_for_a_while() {
    let mut rig = Rig::shadowed();
    let again = |rig: &mut Rig, beat: Duration| {
        rig.put_admitted(0x3c4, Width::B2, 0x0402);
        rig.put_admitted(0x3c4, Width::B2, 0x0302);
        rig.now += beat;
        let wish = rig.owner.tick(&mut rig.card, rig.now);
        rig.turn(wish);
        rig.owner.mode() == Mode::Shadowed
    };
    let starts = (0..1000).take_while(|_| again(&mut rig, Duration::ZERO)).count();
    assert_eq!(starts, 127, "and one before");
    let beats = (0..100).take_while(|_| !again(&mut rig, BEAT)).count();
    assert!((60..64).contains(&beats), "{beats}");
    // Once for each beat is what a program may do.
    assert!((0..1000).all(|_| again(&mut rig, BEAT)));
}

#[test]
fn text_that_moves_unseen_is_shadowed_anew() {
    let mut rig = Rig::shadowed();
    // The other page, by a register of the vendor's.
    rig.card.adapter.write(Region::VGA, 0x3c2, Width::B1, 0x47).unwrap();
    rig.owner.disturbed();
    assert_eq!([rig.settle(), rig.settle()], [Mode::Coalesced, Mode::Shadowed]);
    rig.store(0xb_8000, &[0x42, 0x17]);
    rig.tick();
    assert_eq!(rig.on_card(0xb_8000, Width::B2), 0x1742);
}

#[test]
fn the_clock_is_called_once_until_it_ticks() {
    let mut rig = Rig::new(ALL, Card::in_text());
    let (sender, calls) = std::sync::mpsc::channel();
    let clock = std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_secs(20));
            if sender.send(()).is_err() {
                break;
            }
        }
    });
    rig.owner.watch(clock.thread().clone());
    rig.put(0xb_8000, Width::B2, 0);
    assert!(!rig.owner.called, "it rests");
    rig.burst();
    assert!(rig.owner.called);
    calls.recv_timeout(Duration::from_secs(20)).unwrap();
    // Another wish in the same beat.
    rig.put(0x3ce, Width::B2, 0x0506);
    assert_eq!(rig.settle(), Mode::Coalesced);
    assert!(!rig.owner.called);
    rig.put(0x3ce, Width::B2, 0x0e06);
    assert!(rig.owner.called);
    drop(calls);
    clock.thread().unpark();
    clock.join().unwrap();
}

#[test]
fn only_what_is_allowed_is_wished_for() {
    let coalesced = Ways { shadowed: false, ..ALL };
    let mut rig = Rig::new(coalesced, Card::in_text());
    rig.burst();
    assert_eq!(rig.settle(), Mode::Coalesced);
    rig.turn(Mode::Shadowed);
    assert_eq!(rig.owner.mode(), Mode::Coalesced);
    let mut rig = Rig::new(Ways { coalesced: false, ..ALL }, Card::in_text());
    rig.burst();
    assert_eq!(rig.settle(), Mode::Resting);
    rig.turn(Mode::Coalesced);
    rig.turn(Mode::Shadowed);
    assert_eq!(rig.owner.mode(), Mode::Resting);
}

#[test]
fn runs_are_one_write_where_bytes_are_independent() {
    let mut rig = Rig::new(ALL, Card::in_text());
    rig.burst();
    rig.turn(Mode::Coalesced);
    assert!(rig.owner.merges(0xb_8000) && rig.owner.merges(0xb_ffff));
    assert!(!rig.owner.merges(0xb_7fff) && !rig.owner.merges(0x3d4));
    rig.card.seen.clear();
    rig.owner.write_run(&mut rig.card, 0xb_8003, b"trapline").unwrap();
    assert_eq!(rig.card.take(), [(Region::VGA, 0xb_8003, b"trapline".to_vec())]);
    assert_eq!(rig.on_card(0xb_8003, Width::B8), u64::from_le_bytes(*b"trapline"));
    // What nobody promised is carried out all the same.
    rig.owner.write_run(&mut rig.card, 0xb_7ffe, b"over").unwrap();
    assert_eq!(rig.card.take().len(), 4);
    rig.turn(Mode::Shadowed);
    assert_eq!(rig.get(0xb_8000, Width::B8), rig.on_card(0xb_8000, Width::B8));
    rig.owner.write_run(&mut rig.card, 0xb_8000, b"ram").unwrap();
    assert!(rig.card.take().is_empty());
    rig.owner.forget();
    assert!(!rig.owner.merges(0xb_8000), "nothing is known");
}

fn retire(claims: &[Claim], at: u64) -> Option<Retire> {
    let holds = |claim: &&Claim| match claim.range {
        Range::Ports(span) => (u64::from(span.first().0)..=span.last().0.into()).contains(&at),
        Range::Memory(span) => (span.first().0..=span.last().0).contains(&at),
    };
    let Target::Region { offset, retire, region: Region::VGA } = claims.iter().find(holds)?.target else {
        return None;
    };
    assert!(offset <= at);
    Some(retire)
}

#[test]
fn claims_by_mode() {
    let both = Command::new().with_io(true).with_memory(true);
    let mut rig = Rig::new(ALL, Card::in_text());
    assert_eq!(rig.owner.claims(both), crate::legacy::claims(both).collect::<Vec<_>>());
    rig.burst();
    rig.turn(Mode::Coalesced);
    let claims = rig.owner.claims(both);
    for at in [0xa_0000, 0xb_8000, 0xb_ffff, 0x3c0, 0x3d4, 0x3d5, 0x3b5, 0x3c9] {
        assert_eq!(retire(&claims, at), Some(Retire::Posted), "{at:x}");
    }
    for at in [0x3c2, 0x3c3, 0x3c4, 0x3cf, 0x3c7, 0x3ca, 0x3da] {
        assert_eq!(retire(&claims, at), Some(Retire::Strict), "{at:x}");
    }
    assert_eq!((retire(&claims, 0x3bc), claims.iter().any(|claim| claim.direct.is_some())), (None, false));
    rig.turn(Mode::Shadowed);
    let claims = rig.owner.claims(both);
    for at in [0x3c2, 0x3c3, 0x3c4, 0x3c5, 0x3ce, 0x3cf] {
        assert_eq!(retire(&claims, at), Some(Retire::Topology), "{at:x}");
    }
    let shadow = claims.iter().find(|claim| claim.direct.is_some()).unwrap();
    assert_eq!(
        shadow.range,
        Range::Memory(
            trapline_io::Span::new(trapline_io::Gpa(0xb_8000), trapline_io::Gpa(0xb_ffff)).unwrap()
        )
    );
    assert_eq!(rig.owner.claims(Command::new()), []);
    assert!(rig.owner.claims(Command::new().with_io(true)).iter().all(|claim| claim.direct.is_none()));
    let mut rig = Rig::new(Ways { shadowed: false, ..ALL }, Card::in_text());
    rig.turn(Mode::Coalesced);
    assert_eq!(retire(&rig.owner.claims(both), 0x3c4), Some(Retire::Posted));
}

#[test]
fn a_card_that_fails_holds_nobody_up() {
    let mut rig = Rig::shadowed();
    rig.card.fails = true;
    rig.store(0xb_8000, b"lost");
    assert_eq!(rig.owner.write(&mut rig.card, 0x3c4, Width::B2, 0x0402), Err(Fault::Failed));
    rig.settle();
    rig.turn(Mode::Resting);
    assert_eq!(rig.owner.mode(), Mode::Resting);
    assert_eq!(rig.owner.read(&mut rig.card, 0xb_8000, Width::B1), Err(Fault::Failed));
}

#[test]
fn a_guest_that_comes_back_soon_rests_later_the_next_time() {
    let (mut traffic, mut now) = (Traffic::new(), Instant::now());
    let mut pause = |traffic: &mut Traffic, millis| {
        traffic.active = true;
        traffic.rest(now);
        now += Duration::from_millis(millis);
        traffic.wake(now);
        traffic.idle.as_millis()
    };
    let taken = [100, 400, 900, 2000, 4000].map(|millis| pause(&mut traffic, millis));
    assert_eq!(taken, [500, 1000, 2000, 4000, 4000]);
    assert_eq!(pause(&mut traffic, 4001), 250);
    assert_eq!(pause(&mut traffic, 251), 250);
}
