//! Any guest, and any turns of the machine: reads, registers and memory are those of a card that is used
//! strictly.

use proptest::prelude::*;

use super::*;

/// What a guest does, and the machine meanwhile.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, Width, u64),
    Get(u64, Width),
    Run(u64, Vec<u8>),
    /// A register of the Bochs interface, in BAR 2.
    Bochs(u64, u16),
    /// All of a mode's registers that the window depends on.
    Mode(&'static [u64]),
    Beat,
    Turn(Mode),
}

/// Sequencer 0, 2 and 4, then graphics 1, 3, 4, 5, 6 and 8, each with its index: plain text, fonts, planes,
/// chain-4.
const MODES: [&[u64]; 4] = [
    &[0x0300, 0x0302, 0x0204, 0x0001, 0x0003, 0x0004, 0x1005, 0x0e06, 0xff08],
    &[0x0300, 0x0402, 0x0604, 0x0001, 0x0003, 0x0204, 0x0005, 0x0406, 0xff08],
    &[0x0300, 0x0f02, 0x0604, 0x0001, 0x0003, 0x0004, 0x0005, 0x0506, 0xff08],
    &[0x0300, 0x0f02, 0x0e04, 0x0001, 0x0003, 0x0004, 0x4005, 0x0506, 0xff08],
];

fn step() -> impl Strategy<Value = Step> {
    let width = || prop::sample::select(vec![Width::B1, Width::B2, Width::B4]);
    let window =
        || prop_oneof![3 => 0xb_8000..0xb_8040_u64, 2 => 0xa_0000..0xa_0040_u64, 1 => 0xa_0000..0xb_fff8_u64];
    let port = prop_oneof![
        3 => prop::sample::select(vec![0x3c2, 0x3c4, 0x3ce, 0x3d4, 0x3b4, 0x3c5, 0x3cf]),
        1 => 0x3c0..0x3dc_u64,
    ];
    let register = prop::sample::select(vec![
        (0x3c4, 0x0302),
        (0x3c4, 0x0f02),
        (0x3c4, 0x0402),
        (0x3c4, 0x0204),
        (0x3c4, 0x0604),
        (0x3c4, 0x0e04),
        (0x3ce, 0x1005),
        (0x3ce, 0x0005),
        (0x3ce, 0x0105),
        (0x3ce, 0x0e06),
        (0x3ce, 0x0506),
        (0x3ce, 0x0a06),
        (0x3ce, 0x0004),
        (0x3ce, 0x0001),
        (0x3ce, 0x0003),
        (0x3ce, 0xff08),
        (0x3c4, 0x0300),
        (0x3d4, 0x120c),
        (0x3c2, 0x67),
        (0x3c2, 0x66),
        (0x3c2, 0x47),
    ]);
    let mode = prop::sample::select(vec![
        Mode::Shadowed,
        Mode::Shadowed,
        Mode::Shadowed,
        Mode::Coalesced,
        Mode::Resting,
        Mode::Native,
    ]);
    prop_oneof![
        10 => (window(), width(), any::<u32>()).prop_map(|(at, width, value)| Step::Put(at, width, u64::from(value) & width.all_ones())),
        4 => (window(), width()).prop_map(|(at, width)| Step::Get(at, width)),
        3 => (window(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Step::Run(at, bytes)),
        6 => register.prop_map(|(port, value)| Step::Put(port, if port == 0x3c2 { Width::B1 } else { Width::B2 }, value)),
        2 => (port, width(), any::<u32>()).prop_map(|(port, width, value)| Step::Put(port, width, u64::from(value) & width.all_ones())),
        1 => (0..11_u64, 0..0x42_u16).prop_map(|(register, value)| Step::Bochs(register, value)),
        6 => prop::sample::select(vec![0, 0, 1, 2, 3]).prop_map(|mode| Step::Mode(MODES[mode])),
        3 => Just(Step::Beat),
        5 => mode.prop_map(Step::Turn),
    ]
}

/// One step, or what leaves text and comes back: another mode, a write to the cells that text has too, and
/// text again, in any modes of the machine.
fn scene() -> impl Strategy<Value = Vec<Step>> {
    let there = (1..4_usize, 0..0x40_u64, any::<u8>(), any::<bool>());
    let scene = there.prop_map(|(mode, at, value, shadowed)| {
        let first = if shadowed { Mode::Shadowed } else { Mode::Coalesced };
        vec![
            Step::Mode(MODES[0]),
            Step::Turn(first),
            Step::Put(0xb_8000 + at, Width::B1, value.into()),
            Step::Mode(MODES[mode]),
            Step::Put(0xa_0000 + at, Width::B2, u64::from(value) * 0x0103),
            Step::Mode(MODES[0]),
            Step::Turn(Mode::Shadowed),
            Step::Get(0xb_8000 + at, Width::B4),
            Step::Get(0xb_8000 + (at & !3), Width::B4),
        ]
    });
    prop_oneof![8 => step().prop_map(|step| vec![step]), 1 => scene]
}

/// The same guest on a card that is used strictly.
struct Both {
    rig: Rig,
    strict: Card,
}

impl Both {
    fn turn(&mut self, to: Mode) {
        let was = self.rig.owner.mode();
        self.rig.turn(to);
        if was == Mode::Shadowed && self.rig.owner.mode() != was {
            // Reads of the shadow loaded no latches: what a guest that relies on them does first.
            for card in [&mut self.rig.card, &mut self.strict] {
                let _ = card.adapter.read(Region::VGA, 0xb_8000, Width::B1);
            }
        }
    }

    fn put(&mut self, offset: u64, width: Width, value: u64) {
        if !self.rig.owner.admits(Access::write(Region::VGA, offset, width, value)) {
            self.turn(Mode::Coalesced);
        }
        let done = self.rig.owner.write(&mut self.rig.card, offset, width, value);
        assert_eq!(done, self.strict.adapter.write(Region::VGA, offset, width, value));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(offset, width, value) => self.put(offset, width, value),
            Step::Get(offset, width) => {
                let seen = self.rig.owner.read(&mut self.rig.card, offset, width);
                assert_eq!(seen, self.strict.adapter.read(Region::VGA, offset, width), "{offset:x}");
            }
            Step::Run(offset, bytes) => {
                let bytes = &bytes[..bytes.len().min(usize::try_from(0xc_0000 - offset).unwrap())];
                self.rig.owner.write_run(&mut self.rig.card, offset, bytes).unwrap();
                self.strict.write_bytes(Region::VGA, offset, bytes).unwrap();
            }
            Step::Bochs(register, value) => {
                if self.rig.owner.mode() == Mode::Shadowed {
                    self.turn(Mode::Coalesced);
                }
                self.rig.owner.flush(&mut self.rig.card);
                for card in [&mut self.rig.card, &mut self.strict] {
                    card.adapter
                        .write(Region::bar(2), 0x500 + 2 * register, Width::B2, value.into())
                        .unwrap();
                }
                self.rig.owner.disturbed();
            }
            Step::Mode(registers) => {
                for (place, both) in registers.iter().enumerate() {
                    self.put(if place < 3 { 0x3c4 } else { 0x3ce }, Width::B2, *both);
                }
            }
            Step::Beat => {
                let wish = self.rig.tick();
                self.turn(wish);
            }
            Step::Turn(mode) => self.turn(mode),
        }
    }
}

fn planes(card: &Card) -> Vec<u8> {
    let mut bytes = vec![0; 0x4_0000];
    card.adapter.framebuffer().bytes().copy_to(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_guest_can_tell_it_from_a_strict_one(scenes in prop::collection::vec(scene(), 1..80)) {
        let mut both = Both { rig: Rig::new(ALL, Card::in_text()), strict: Card::in_text() };
        for step in scenes.into_iter().flatten() {
            both.step(step);
        }
        both.turn(Mode::Resting);
        prop_assert_eq!(both.rig.card.adapter.registers(), both.strict.adapter.registers());
        prop_assert!(planes(&both.rig.card) == planes(&both.strict));
    }
}
