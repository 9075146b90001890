//! What is noted of what the guest shows.

use super::*;
use crate::seen::{Life, Mark, Seen};

#[test]
fn what_the_guest_shows_is_noted_once_it_uses_the_window() {
    let mut rig = Rig::new(ALL, Card::in_text());
    let seen = Arc::new(Seen::default());
    rig.owner.note_in(Arc::clone(&seen));
    let has = |mark| seen.has(Life::First, mark);
    rig.put(0x3c8, Width::B1, 0);
    assert!(!has(Mark::Text), "registers alone show nothing");
    rig.put(0xb_8000, Width::B2, 0x0741);
    assert!(has(Mark::Text) && !has(Mark::Graphics));
    // Graphics register 6: graphics, the window at 0xa0000.
    rig.put(0x3ce, Width::B2, 0x0506);
    rig.put(0xa_0000, Width::B1, 1);
    assert!(has(Mark::Graphics) && !has(Mark::Native));
    rig.turn(Mode::Native);
    assert!(has(Mark::Native));
}
