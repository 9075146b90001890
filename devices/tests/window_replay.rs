//! What a guest does ends alike however it is carried out: strict, coalesced, shadowed. Every read gives the
//! same, and video memory, registers and screen are the same in the end.

#[path = "window/card.rs"]
mod card;
#[path = "window/drivers.rs"]
mod drivers;
#[path = "window/guest.rs"]
mod guest;
#[path = "window/machine.rs"]
mod machine;
#[path = "window/mmiotrace.rs"]
mod mmiotrace;
#[path = "window/modes.rs"]
mod modes;
#[path = "window/play.rs"]
mod play;
#[path = "window/record.rs"]
mod record;
#[path = "window/ring.rs"]
mod ring;

use drivers::actions;
use guest::{Guest, TEXT};
use modes::{MODE_3, MODE_7, MODE_12, MODE_13};
use play::{Clock, Event, Manner, Outcome, difference, play, screen};
use proptest::prelude::*;
use trapline_io::{Address, Op, Port, Trap, Width};

/// Plays `guest` in every way, and compares.
fn alike(name: &str, guest: &Guest) {
    let found = play::differences(&guest.events, true, 0x5eed);
    assert!(found.is_empty(), "{name}: {found:#?}");
}

/// As a VGA BIOS's power-on self-test leaves it: mode 3 with its font, and messages.
fn firmware() -> Guest {
    let mut guest = Guest::default();
    guest.set_mode(&MODE_3);
    guest.load_font(true, 256);
    for line in ["SeaBIOS", "Machine UUID", "", "Booting from ROM..", "No bootable device."] {
        guest.bios_line(line);
    }
    guest
}

#[test]
fn firmware_ends_alike() {
    alike("firmware", &firmware());
}

#[test]
fn a_boot_loader_ends_alike() {
    let mut guest = firmware();
    for chosen in [0, 1, 2, 1] {
        guest.menu(chosen);
    }
    alike("boot loader", &guest);
}

/// More lines than text memory holds, so that the screen comes to its end and is copied.
#[test]
fn a_kernels_console_ends_alike() {
    let mut guest = firmware();
    guest.probe_text();
    guest.load_font(false, 256);
    for number in 0..400 {
        guest.kernel_line(number, 20 + number % 60);
    }
    alike("console", &guest);
}

#[test]
fn modes_one_after_the_other_end_alike() {
    let mut guest = firmware();
    for mode in [&MODE_12, &MODE_3, &MODE_13, &MODE_7, &MODE_3] {
        guest.set_mode(mode);
        for at in (0..0x2000).step_by(3) {
            guest.store(0xa_0000 + at, Width::B1, at);
            guest.store(0xb_8000 + at, Width::B2, at);
        }
        for at in (0..0x400).step_by(5) {
            guest.load(0xb_8000 + at, Width::B4);
        }
        guest.read_palette(0, 16);
    }
    guest.kernel_line(7, 70);
    alike("modes", &guest);
}

#[test]
fn banks_and_a_linear_frame_buffer_end_alike() {
    let mut guest = firmware();
    for bpp in [8, 32, 4] {
        guest.set_bochs((640, 480), bpp, 0);
        for bank in 0..4_u16 {
            guest.bochs(5, bank);
            for at in (0..0x1_0000).step_by(513) {
                guest.store(0xa_0000 + at, Width::B4, at * 77 + u64::from(bank));
            }
            guest.load(0xa_0000, Width::B8);
            guest.store(guest::BAR_0 + u64::from(bank) * 0x1_0000, Width::B8, 0x0123_4567_89ab_cdef);
        }
        guest.bochs(4, 0);
        guest.set_mode(&MODE_3);
        guest.load_font(true, 64);
        guest.kernel_line(bpp.into(), 80);
    }
    alike("banks", &guest);
}

/// Pages flipped by the start address while the other one is drawn, single cells read back.
#[test]
fn pages_of_text_end_alike() {
    let mut guest = firmware();
    for page in 0..40_u64 {
        let first = page % 4 * 0x1000;
        for cell in 0..2000 {
            guest.store(TEXT + first + 2 * cell, Width::B2, (page << 8) + cell % 251);
        }
        guest.load(TEXT + first + page * 2, Width::B2);
        guest.two_halves(0x0c, first / 2);
        guest.two_halves(0x0e, first / 2 + page);
    }
    alike("pages", &guest);
}

/// The screen of each of these is seen, not only what it is made of.
#[test]
fn screens_are_alike() {
    let mut guest = firmware();
    for number in 0..30 {
        guest.kernel_line(number, 79);
    }
    let mut game = firmware();
    game.set_mode(&MODE_13);
    for at in (0..64_000).step_by(4) {
        game.store(0xa_0000 + at, Width::B4, at * 0x0101_3377);
    }
    for events in [guest.events, game.events] {
        let (strict, _, card) = play(&events, true, Manner::strict());
        let seen = screen(&card);
        assert!(seen.rgb.iter().any(|byte| *byte != seen.rgb[0]), "a screen with something on it");
        for manner in Manner::fast(9) {
            let (outcome, _, card) = play(&events, true, manner);
            assert_eq!(difference(&strict, &outcome), None, "{manner:?}");
            assert!(screen(&card) == seen, "{manner:?}");
        }
    }
}

/// The fast ways are taken, or all of the above would prove nothing.
#[test]
fn text_is_shadowed_and_the_rest_collected() {
    let mut guest = firmware();
    for number in 0..100 {
        guest.kernel_line(number, 80);
    }
    let (_, [slot, collected, trapped], _) = play(&guest.events, true, Manner::strict());
    assert_eq!((slot, collected), (0, 0));
    let all = trapped;
    let (_, [slot, collected, trapped], _) = play(&guest.events, true, Manner::coalesced(Clock::Never));
    assert_eq!(slot, 0);
    assert!(collected > all / 2, "{collected} of {all} collected, {trapped} trapped");
    let (_, [slot, collected, trapped], _) = play(&guest.events, true, Manner::shadowed(Clock::AtTraps));
    assert!(slot > all * 3 / 4, "{slot} of {all} in the shadow, {collected} collected, {trapped} trapped");
}

/// What a comparison has to notice, it does.
#[test]
fn a_difference_is_told() {
    let guest = firmware();
    let (strict, ..) = play(&guest.events, true, Manner::strict());
    let without = |left_out: &dyn Fn(&Event) -> bool| {
        let last = guest.events.iter().rposition(left_out).unwrap();
        let mut events = guest.events.clone();
        events.remove(last);
        difference(&strict, &play(&events, true, Manner::strict()).0)
    };
    let text =
        |event: &Event| matches!(event, Event::Access(Trap { width: Width::B1, at: Address::Gpa(_), .. }));
    let register =
        |event: &Event| matches!(event, Event::Access(Trap { at: Address::Port(Port(0x3c9)), .. }));
    let read = |event: &Event| matches!(event, Event::Access(Trap { op: Op::Read, .. }));
    for left_out in [&text as &dyn Fn(&Event) -> bool, &register, &read] {
        assert!(without(left_out).is_some());
    }
    let mut other: Outcome = play(&guest.events, true, Manner::strict()).0;
    assert_eq!(difference(&strict, &other), None);
    other.vram[0x1234] ^= 1;
    assert!(difference(&strict, &other).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_drivers_do_ends_alike(
        from_text in prop::bool::weighted(0.8),
        actions in prop::collection::vec(actions(), 1..24),
        seed in any::<u64>(),
    ) {
        let mut guest = Guest::brief();
        if from_text {
            guest.set_mode(&MODE_3);
        }
        for action in &actions {
            guest.act(action);
        }
        let found = play::differences(&guest.events, true, seed);
        prop_assert!(found.is_empty(), "{:#?}", found);
    }
}

/// A trace as `trapline run --window strict --trace FILE` writes it.
#[test]
fn a_trace_is_read() {
    let text = "VERSION 20070824\n\
        PCIDEV 0010 12341111 0 e0000000 0 e1000000 0 0 0 0 1000000 0 1000 0 0 0 0 \n\
        MARK 0.000001 PIO W 4 0xcf8 0x80001004\n\
        MARK 0.000002 PIO W 2 0xcfc 0x3\n\
        MARK 0.000002 PIO W 4 0xcf8 0x80000004\n\
        MARK 0.000002 PIO W 2 0xcfc 0x3\n\
        MAP 0.104311 4 0xe0000000 0x0 0x1000000 0x0 0\n\
        R 2 0.200001 4 0xe0000500 0xb0c5 0x0 0\n\
        W 1 0.200013 7 0xb8000 0x41 0x0 0\n\
        W 4 0.200013 0 0xfed00000 0x41 0x0 0\n\
        MARK 0.400000 PIO W 1 0x3c4 0x2\n\
        MARK 0.400000 PIO W 1 0x80 0x2\n\
        MARK 0.500000 WINDOW native adapter0\n";
    let events = mmiotrace::read(text).unwrap();
    assert_eq!(events.len(), 4, "{events:x?}");
    assert!(matches!(events[0], Event::Config(access) if access.offset == 4));
    assert_eq!(mmiotrace::read("MARK 0.000000 Lost 12 events.").unwrap_err().0, 1);
    assert_eq!(mmiotrace::read("VERSION 20070824\nR 3 1.0 0 0x0 0x0 0x0 0").unwrap_err().0, 2);
}

/// Plays a trace that was taken of a run: `TRAPLINE_TRACE` names the file.
#[test]
fn a_trace_taken_in_the_lab_ends_alike() {
    let Some(path) = std::env::var_os("TRAPLINE_TRACE") else {
        eprintln!("skipped: TRAPLINE_TRACE names no trace, taken with --window strict");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let events = mmiotrace::read(&text).unwrap();
    println!("{} accesses to the adapter", events.len());
    for manner in Manner::fast(0x5eed) {
        let (_, [slot, collected, trapped], _) = play(&events, false, manner);
        println!("{slot} in the shadow, {collected} collected, {trapped} trapped: {manner:?}");
    }
    let found = play::differences(&events, false, 0x5eed);
    assert!(found.is_empty(), "{found:#?}");
}
