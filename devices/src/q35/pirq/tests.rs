use proptest::prelude::*;

use super::*;

/// Remembers levels, and refuses to be told what it knows.
#[derive(Default)]
struct Inputs(Mutex<u32>);

impl Gsis for Inputs {
    fn set(&self, gsi: u32, level: bool) {
        let mut levels = self.0.lock();
        assert_ne!(*levels >> gsi & 1 == 1, level, "input {gsi} is told twice");
        *levels ^= 1 << gsi;
    }
}

fn wires() -> (Pirqs, Arc<Inputs>) {
    let inputs = Arc::new(Inputs::default());
    (Pirqs::new(Arc::clone(&inputs) as Arc<dyn Gsis>), inputs)
}

const PINS: [Pin; 4] = [Pin::A, Pin::B, Pin::C, Pin::D];

/// The rule in the words of the platform's description, apart from the table under test.
fn expected_pirq(slot: u8, pin: u8) -> u32 {
    match slot {
        0..=24 => [4, 5, 6, 7][usize::from((slot + pin) & 3)],
        30 => u32::from(4 + pin),
        _ => u32::from(pin),
    }
}

#[test]
fn every_slot_and_pin_reaches_its_input() {
    let (pirqs, inputs) = wires();
    for slot in 0..32 {
        for pin in PINS {
            let line = pirqs.line(slot, pin);
            let bit = 1 << (16 + expected_pirq(slot, pin.index()));
            line.set(true);
            assert_eq!(*inputs.0.lock(), bit, "{slot} {pin:?}");
            assert_eq!(1 << Pirqs::gsi(Pirqs::at_power_on(slot, pin)), bit);
            line.set(false);
            assert_eq!(*inputs.0.lock(), 0);
        }
    }
}

#[test]
fn every_route_reaches_its_isa_interrupt_or_none() {
    let (pirqs, inputs) = wires();
    for pirq in 0..8_u8 {
        // Slot 31 pin n is PIRQA + n, slot 30 PIRQE + n.
        let line = pirqs.line(if pirq < 4 { 31 } else { 30 }, Pin::of(pirq));
        for register in 0..=255_u8 {
            let mut routes = [UNROUTED; 8];
            routes[usize::from(pirq)] = register;
            pirqs.route(routes);
            let isa = matches!(register & 0x8f, 3..=7 | 9..=12 | 14 | 15);
            let both = 1 << (16 + pirq) | if isa { 1 << (register & 0xf) } else { 0 };
            line.set(true);
            assert_eq!(*inputs.0.lock(), both, "{pirq} {register:#x}");
            line.set(false);
            assert_eq!(*inputs.0.lock(), 0);
        }
    }
}

#[test]
fn routing_moves_an_asserted_line() {
    let (pirqs, inputs) = wires();
    let line = pirqs.line(2, Pin::A);
    line.set(true);
    assert_eq!(*inputs.0.lock(), 1 << 22);
    pirqs.route([10, 10, 11, 11, 10, 10, 11, 11]);
    assert_eq!(*inputs.0.lock(), 1 << 22 | 1 << 11);
    pirqs.route([UNROUTED; 8]);
    assert_eq!(*inputs.0.lock(), 1 << 22);
    let other = pirqs.line(31, Pin::D);
    other.set(true);
    assert_eq!(*inputs.0.lock(), 1 << 22 | 1 << 19);
    pirqs.route_slot(31, 0x7210);
    assert_eq!(*inputs.0.lock(), 1 << 22 | 1 << 23);
    pirqs.route_slot(31, 0x6210);
    assert_eq!(*inputs.0.lock(), 1 << 22);
    line.set(false);
    assert_eq!(*inputs.0.lock(), 1 << 22, "still pulled by the other");
    drop(other);
    assert_eq!(*inputs.0.lock(), 0, "a dropped line is released");
}

#[test]
fn wires_are_shared_and_lines_idempotent() {
    let (pirqs, inputs) = wires();
    pirqs.route([10; 8]);
    let lines: Vec<_> = (0..32).flat_map(|slot| PINS.map(|pin| pirqs.line(slot, pin))).collect();
    for line in &lines {
        line.set(true);
        line.set(true);
    }
    assert_eq!(*inputs.0.lock(), 0x00ff_0400);
    let (last, others) = lines.split_last().unwrap();
    for line in others {
        line.set(false);
        line.set(false);
        assert_ne!(*inputs.0.lock() & 1 << 10, 0);
    }
    assert_eq!(*inputs.0.lock(), 1 << 19 | 1 << 10);
    last.set(false);
    assert_eq!(*inputs.0.lock(), 0);
}

#[test]
fn bridges_turn_the_pins() {
    let (pirqs, inputs) = wires();
    for root in 0..32_u8 {
        for device in 0..32_u8 {
            for pin in PINS {
                let line = pirqs.line_behind(&[device, root], pin);
                let turned = (pin.index() + device) & 3;
                line.set(true);
                assert_eq!(*inputs.0.lock(), 1 << (16 + expected_pirq(root, turned)));
            }
        }
    }
    let deep = pirqs.line_behind(&[3, 2, 1, 31], Pin::B);
    deep.set(true);
    assert_eq!(*inputs.0.lock(), 1 << (16 + (1 + 3 + 2 + 1) % 4));
    // Nonsense from a configuration must not be worse than a wrong wire.
    let odd = pirqs.line_behind(&[255, 255], Pin::D);
    odd.set(true);
    pirqs.line_behind(&[], Pin::A).set(true);
}

#[test]
fn the_sci_shares_its_input() {
    let (pirqs, inputs) = wires();
    pirqs.route([9; 8]);
    let line = pirqs.line(31, Pin::A);
    pirqs.set_sci(9, true);
    assert_eq!(*inputs.0.lock(), 1 << 9);
    line.set(true);
    pirqs.set_sci(9, false);
    assert_eq!(*inputs.0.lock(), 1 << 16 | 1 << 9);
    pirqs.set_sci(20, true);
    assert_eq!(*inputs.0.lock(), 1 << 20 | 1 << 16 | 1 << 9);
}

#[test]
fn pirqs_follow_the_route_registers_of_ich9() {
    // Slot 0 INTA# is PIRQE (GSI 20), slot 1 INTA# PIRQF, slot 3 INTB# wraps to PIRQE.
    assert_eq!(
        [
            Pirqs::at_power_on(0, Pin::A),
            Pirqs::at_power_on(1, Pin::A),
            Pirqs::at_power_on(3, Pin::B),
            Pirqs::at_power_on(24, Pin::A)
        ],
        [4, 5, 4, 4]
    );
    assert_eq!(
        [
            Pirqs::at_power_on(31, Pin::A),
            Pirqs::at_power_on(31, Pin::D),
            Pirqs::at_power_on(25, Pin::B),
            Pirqs::at_power_on(29, Pin::A)
        ],
        [0, 3, 1, 0]
    );
    assert_eq!([Pirqs::at_power_on(30, Pin::A), Pirqs::at_power_on(30, Pin::D)], [4, 7]);
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, bool),
    Drop(usize),
    Route([u8; 8]),
    Slot(u8, u16),
    Sci(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_usize, any::<bool>()).prop_map(|(line, level)| Step::Set(line, level)),
        1 => (0..12_usize).prop_map(Step::Drop),
        1 => any::<[u8; 8]>().prop_map(Step::Route),
        1 => (0..40_u8, any::<u16>()).prop_map(|(slot, register)| Step::Slot(slot, register)),
        1 => (0..24_u32, any::<bool>()).prop_map(|(gsi, level)| Step::Sci(gsi, level)),
    ]
}

proptest! {
    #[test]
    fn levels_are_what_all_lines_and_routes_say(
        places in proptest::collection::vec((20..32_u8, 0..4_u8), 12),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (pirqs, inputs) = wires();
        let mut lines: Vec<_> =
            places.iter().map(|(slot, pin)| Some((pirqs.line(*slot, Pin::of(*pin)), false))).collect();
        let mut slots: Vec<[u32; 4]> =
            (0..32).map(|slot| [0, 1, 2, 3].map(|pin| expected_pirq(slot, pin))).collect();
        let (mut routes, mut sci) = ([0x80; 8], 0);
        for step in steps {
            match step {
                Step::Set(line, level) => {
                    if let Some((line, now)) = &mut lines[line] {
                        line.set(level);
                        *now = level;
                    }
                }
                Step::Drop(line) => lines[line] = None,
                Step::Route(registers) => {
                    pirqs.route(registers);
                    routes = registers;
                }
                Step::Slot(slot, register) => {
                    pirqs.route_slot(slot, register);
                    if let Some(pins) = slots.get_mut(usize::from(slot)) {
                        *pins = [0, 1, 2, 3].map(|pin| u32::from(register >> (4 * pin) & 7));
                    }
                }
                Step::Sci(gsi, level) => {
                    pirqs.set_sci(gsi, level);
                    sci = u32::from(level) << gsi;
                }
            }
            let mut expected = sci;
            for ((slot, pin), line) in places.iter().zip(&lines) {
                if !line.as_ref().is_some_and(|(_, level)| *level) {
                    continue;
                }
                let pirq = slots[usize::from(*slot)][usize::from(*pin)];
                expected |= 1 << (16 + pirq);
                let route = routes[pirq as usize];
                if route < 0x80 && matches!(route & 0xf, 3..=7 | 9..=12 | 14 | 15) {
                    expected |= 1 << (route & 0xf);
                }
            }
            prop_assert_eq!(*inputs.0.lock(), expected);
        }
    }
}

#[test]
fn a_follower_is_told_at_once_and_of_every_change_until_it_leaves() {
    let (pirqs, _) = wires();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        move |inputs: super::Inputs| told.lock().push((inputs.io_apic, inputs.isa))
    };
    // Device 0 behind a bridge that is device 2 of the root bus: PIRQG.
    let following = pirqs.follow(&[0, 2], Pin::A, Box::new(listener));
    assert_eq!(*told.lock(), [(22, None)]);
    pirqs.route([10, 10, 11, 11, 10, 10, 11, 11]);
    pirqs.route([10, 10, 11, 11, 10, 10, 11, 5]);
    assert_eq!(*told.lock(), [(22, None), (22, Some(11))], "PIRQH is another's");
    pirqs.route([UNROUTED; 8]);
    drop(following);
    pirqs.route([10; 8]);
    assert_eq!(*told.lock(), [(22, None), (22, Some(11)), (22, None)]);
}

#[test]
fn a_follower_of_a_slot_with_a_route_register_is_told_of_it() {
    let (pirqs, _) = wires();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        move |inputs: super::Inputs| told.lock().push(inputs.io_apic)
    };
    let following = pirqs.follow(&[25], Pin::B, Box::new(listener));
    pirqs.route_slot(25, 0x3270);
    pirqs.route_slot(26, 0);
    assert_eq!(*told.lock(), [17, 23]);
    drop(following);
}
