//! From one phase to the other and back.

use super::*;

impl Rig {
    /// As a driver that leaves the window alone.
    fn bars(&mut self) {
        within(Duration::from_millis(10), || {
            self.owner.phases.window();
            (0..64).for_each(|_| self.owner.bar());
        });
    }
}

#[test]
fn text_in_the_shadow_is_work_with_the_window() {
    let mut rig = Rig::shadowed();
    for count in 0..1000_u64 {
        rig.store(0xb_8000, &count.to_le_bytes());
        rig.owner.flush(&mut rig.card);
        rig.owner.bar();
    }
    assert_eq!(rig.tick(), Mode::Shadowed);
    rig.bars();
    assert_eq!(rig.tick(), Mode::Native);
}

#[test]
fn the_phases_follow_the_guest() {
    let mut rig = within(Duration::from_millis(100), || {
        let mut rig = Rig::new(ALL, Card::in_text());
        rig.burst();
        rig.settle();
        rig.bars();
        assert_eq!(rig.settle(), Mode::Native);
        rig.put(0xb_8000, Width::B2, 0x0741);
        assert!(!rig.owner.merges(0xb_8000));
        assert_eq!(rig.settle(), Mode::Native);
        (0..512).for_each(|_| rig.put(0xb_8000, Width::B2, 0x0742));
        rig
    });
    assert_eq!(rig.settle(), Mode::Coalesced, "what is left of text is read anew");
    rig.put(0xb_8000, Width::B2, 0x0743);
    assert_eq!(rig.settle(), Mode::Shadowed);
    let mut pinned = Rig::new(Ways { phase: Phase::Legacy, ..ALL }, Card::in_text());
    (0..1000).for_each(|_| pinned.owner.bar());
    assert_eq!(pinned.settle(), Mode::Resting);
    pinned.turn(Mode::Native);
    assert_eq!(pinned.owner.mode(), Mode::Resting);
}
