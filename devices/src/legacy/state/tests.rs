//! The state against the software adapter.

use proptest::prelude::*;
use trapline_io::Device;

use super::*;
use crate::legacy::testing::Card;

/// A write to ports, as a guest may make it.
type Write = (u64, Width, u64);

fn state(card: &mut Card) -> State {
    State::read(card, true).unwrap().expect("an adapter answers")
}

/// Does a write to the card, and follows it; the card is asked again where it is not known.
fn write(card: &mut Card, state: &mut State, (offset, width, value): Write) {
    card.adapter.write(Region::VGA, offset, width, value).unwrap();
    if !state.follow(offset, width, value)
        && let Ok(Some(read)) = State::read(card, true)
    {
        *state = read;
    }
}

#[test]
fn text_mode_is_plain_text() {
    let mut card = Card::in_text();
    let text = state(&mut card).plain_text().unwrap();
    assert_eq!((text.first, text.last()), (0xb_8000, 0xb_ffff));
    assert_eq!(text.place(0xb_7fff), None);
    assert_eq!((text.place(0xb_8000), text.place(0xb_ffff)), (Some(0), Some(0x7fff)));
    assert_eq!(text.place(0xc_0000), None);
}

#[test]
fn each_register_ends_plain_text() {
    let cases: [(&str, Write, bool); 20] = [
        ("memory off", (0x3c2, Width::B1, 0x65), false),
        ("monochrome ports", (0x3c2, Width::B1, 0x66), true),
        ("reset", (0x3c4, Width::B2, 0x0100), false),
        ("screen off", (0x3c4, Width::B2, 0x2001), true),
        ("map mask", (0x3c4, Width::B2, 0x0402), false),
        ("fonts", (0x3c4, Width::B2, 0x0503), true),
        ("no odd/even", (0x3c4, Width::B2, 0x0604), false),
        ("chain-4", (0x3c4, Width::B2, 0x0a04), false),
        ("set/reset", (0x3ce, Width::B2, 0x0f00), true),
        ("enable set/reset", (0x3ce, Width::B2, 0x0101), false),
        ("rotate", (0x3ce, Width::B2, 0x0103), false),
        ("function", (0x3ce, Width::B2, 0x1803), false),
        ("read map", (0x3ce, Width::B2, 0x0204), false),
        ("write mode", (0x3ce, Width::B2, 0x1105), false),
        ("read mode", (0x3ce, Width::B2, 0x1805), false),
        ("window at a0000", (0x3ce, Width::B2, 0x0406), false),
        ("graphics", (0x3ce, Width::B2, 0x0f06), false),
        ("window at b0000", (0x3ce, Width::B2, 0x0a06), true),
        ("bit mask", (0x3ce, Width::B2, 0x7f08), false),
        ("an index alone", (0x3c4, Width::B1, 0x42), true),
    ];
    for (what, write, plain) in cases {
        let mut card = Card::in_text();
        let mut state = state(&mut card);
        assert!(state.follow(write.0, write.1, write.2), "{what}");
        assert_eq!(state.plain_text().is_some(), plain, "{what}");
    }
}

#[test]
fn a_monochrome_window_is_elsewhere() {
    let mut card = Card::in_text();
    let mut state = state(&mut card);
    let color = state.plain_text();
    assert!(state.follow(0x3ce, Width::B2, 0x0a06));
    let mono = state.plain_text().unwrap();
    assert_eq!((mono.first, mono.last()), (0xb_0000, 0xb_7fff));
    // The other half of memory is another window too.
    assert!(state.follow(0x3ce, Width::B2, 0x0e06) && state.plain_text() == color);
    assert!(state.follow(0x3c2, Width::B1, 0x47) && state.plain_text() != color);
}

#[test]
fn index_and_data_may_come_apart_or_together() {
    let mut card = Card::in_text();
    let before = state(&mut card);
    let ways: [&[Write]; 3] = [
        &[(0x3c4, Width::B1, 2), (0x3c5, Width::B1, 4)],
        &[(0x3c4, Width::B2, 0x0402)],
        // Together with the mask of the DAC.
        &[(0x3c4, Width::B4, 0x0000_0402)],
    ];
    let seen = ways.map(|writes| {
        let mut state = before;
        assert!(writes.iter().all(|(at, width, value)| state.follow(*at, *width, *value)));
        state.sequencer
    });
    assert_eq!(seen, [[3, 0, 4, 0, 2]; 3]);
}

#[test]
fn registers_that_no_vga_has_leave_nothing_known() {
    let mut card = Card::in_text();
    let before = state(&mut card);
    let writes: [Write; 4] = [
        (0x3c4, Width::B2, 0x1205),
        (0x3ce, Width::B2, 0x0009),
        (0x3d4, Width::B2, 0x0019),
        (0x3c3, Width::B1, 1),
    ];
    for (at, width, value) in writes {
        let mut state = before;
        assert!(!state.follow(at, width, value), "{at:x} {value:x}");
    }
    let mut state = before;
    assert!(state.follow(0x3c4, Width::B1, 0xff), "only the index");
    assert!(!state.follow(0x3c5, Width::B1, 0));
}

#[test]
fn the_crt_controller_answers_at_one_address() {
    let mut card = Card::in_text();
    let mut state = state(&mut card);
    assert!(state.follow(0x3d4, Width::B2, 0x120c) && state.follow(0x3d4, Width::B2, 0x340d));
    assert_eq!(state.start(), 0x1234);
    assert!(state.follow(0x3b4, Width::B2, 0x560c));
    assert_eq!(state.start(), 0x1234);
    assert!(state.follow(0x3c2, Width::B1, 0x66) && state.follow(0x3b4, Width::B2, 0x560c));
    assert_eq!(state.start(), 0x5634);
    assert!(beyond_crtc(0x3d4, Width::B2, 0x0019) && beyond_crtc(0x3b4, Width::B1, 0x19));
    assert!(!beyond_crtc(0x3d4, Width::B2, 0x1918) && !beyond_crtc(0x3c4, Width::B1, 0x19));
    assert!(!beyond_crtc(0x3d3, Width::B1, 0x19) && beyond_crtc(0x3d3, Width::B2, 0x1900));
}

#[test]
fn mode_13h_has_independent_lanes_and_planar_modes_have_none() {
    let mut card = Card::in_text();
    card.index_writes(0x3c4, &[3, 1, 0x0f, 0, 0x0e]);
    card.index_writes(0x3ce, &[0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff]);
    let mut chained = state(&mut card);
    assert_eq!((chained.plain_text(), chained.independent()), (None, Some((0xa_0000, 0xa_ffff))));
    assert!(chained.follow(0x3ce, Width::B2, 0x4105));
    assert_eq!(chained.independent(), None, "write mode 1");
    card.index_writes(0x3c4, &[3, 1, 0x0f, 0, 0x06]);
    card.index_writes(0x3ce, &[0, 0, 0, 0, 0, 0, 0x05, 0x0f, 0xff]);
    assert_eq!(state(&mut card).independent(), None);
}

#[test]
fn the_bochs_interface_has_another_window() {
    let mut card = Card::in_text();
    card.adapter.write(Region::bar(2), MMIO_DISPI + 8, Width::B2, 0x41).unwrap();
    let state = state(&mut card);
    assert_eq!((state.plain_text(), state.independent(), state.writes_text()), (None, None, true));
}

#[test]
fn reading_restores_the_index_registers_and_spares_the_flip_flop() {
    let mut card = Card::in_text();
    for (port, index) in [(0x3c4, 0x11), (0x3ce, 0x22), (0x3d4, 0x0e), (0x3c0, 0x05)] {
        card.adapter.write(Region::VGA, port, Width::B1, index).unwrap();
    }
    let before = *card.adapter.registers();
    state(&mut card);
    assert_eq!(*card.adapter.registers(), before);
}

#[test]
fn a_card_that_does_not_answer_has_no_state() {
    let mut card = Card::in_text();
    card.adapter.write(Region::VGA, 0x3c3, Width::B1, 0).unwrap();
    assert_eq!(State::read(&mut card, false), Ok(None));
    card.fails = true;
    assert_eq!(State::read(&mut card, false), Err(Fault::Failed));
}

fn ports() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => prop_oneof![0x3b0..0x3bc_u64, 0x3c0..0x3dc_u64],
        4 => prop::sample::select(vec![0x3c2, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3b4]),
    ]
}

fn any_write() -> impl Strategy<Value = Write> {
    let widths = prop::sample::select(vec![Width::B1, Width::B2, Width::B4]);
    (ports(), widths, any::<u32>()).prop_map(|(port, width, value)| (port, width, value.into()))
}

/// Index and data of a register that counts, with the value that text has in it or another.
fn near_text() -> impl Strategy<Value = Write> {
    let text = vec![
        (0x3c4, 0, 3_u64),
        (0x3c4, 2, 3),
        (0x3c4, 4, 2),
        (0x3ce, 1, 0),
        (0x3ce, 3, 0),
        (0x3ce, 4, 0),
        (0x3ce, 5, 0x10),
        (0x3ce, 6, 0x0e),
        (0x3ce, 6, 0x0a),
        (0x3ce, 8, 0xff),
    ];
    let other = prop_oneof![6 => Just(0), 1 => prop::sample::select(vec![1_u64, 2, 4, 8, 16, 32])];
    (prop::sample::select(text), other)
        .prop_map(|((port, index, value), flip)| (port, Width::B2, (value ^ flip) << 8 | index))
}

proptest! {
    #[test]
    fn what_was_followed_is_what_the_card_has(writes in prop::collection::vec(any_write(), 1..60)) {
        let mut card = Card::in_text();
        let mut followed = state(&mut card);
        for one in writes {
            write(&mut card, &mut followed, one);
            // One that is disabled takes nothing and answers nothing.
            prop_assume!(card.adapter.registers().enable == 1);
        }
        prop_assert_eq!(followed, state(&mut card));
    }

    #[test]
    fn plain_text_is_memory(
        writes in prop::collection::vec(prop_oneof![3 => near_text(), 1 => any_write()], 0..12),
        at in 0..0x8000_u64,
        byte in any::<u8>(),
        width in prop::sample::select(vec![Width::B1, Width::B2, Width::B4, Width::B8]),
    ) {
        let mut card = Card::in_text();
        let mut followed = state(&mut card);
        for one in writes {
            write(&mut card, &mut followed, one);
        }
        prop_assume!(card.adapter.registers().enable == 1);
        let Some(text) = followed.plain_text() else { return Ok(()) };
        for cell in 0..0x4000_u64 {
            let shade = cell.wrapping_mul(0x9e37) & 0xffff;
            card.adapter.write(Region::VGA, text.first + 2 * cell, Width::B2, shade).unwrap();
        }
        let before = window(&mut card, text);
        let at = at & !(width.bytes() as u64 - 1);
        let value = u64::from_le_bytes([byte; 8]) & width.all_ones();
        card.adapter.write(Region::VGA, text.first + at, width, value).unwrap();
        prop_assert_eq!(card.adapter.read(Region::VGA, text.first + at, width).unwrap(), value);
        let mut expected = before;
        expected[usize::try_from(at).unwrap()..][..width.bytes()].fill(byte);
        prop_assert!(window(&mut card, text) == expected);
    }
}

fn window(card: &mut Card, text: Text) -> Vec<u8> {
    let mut bytes = vec![0; 0x8000];
    card.read_bytes(Region::VGA, text.first, &mut bytes).unwrap();
    bytes
}
