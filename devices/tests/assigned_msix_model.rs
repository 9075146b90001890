//! MSI-X of an assigned function against a model that keeps nothing but the table.

use std::collections::BTreeSet;

use proptest::prelude::*;
use trapline_devices::assigned::backend::Signalled::Msix;
use trapline_devices::host::Message;
use trapline_io::Device;

#[path = "assigned_card/card.rs"]
mod fake;
use fake::{Card, Driver, Host, MSIX, message};

const VECTORS: u16 = 9;

#[derive(Clone, Debug)]
enum Step {
    Control { on: bool, masked: bool },
    Mask(u16, bool),
    Register(u16, u8, u32),
    Fire(u16),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<bool>(), any::<bool>()).prop_map(|(off, masked)| Step::Control { on: !off, masked }),
        4 => (0..VECTORS, any::<bool>()).prop_map(|(vector, masked)| Step::Mask(vector, masked)),
        5 => (0..VECTORS, 0u8..3, 0u32..8).prop_map(|(vector, at, value)| {
            Step::Register(vector, at, register(at, value))
        }),
        6 => (0..VECTORS).prop_map(Step::Fire),
        1 => Just(Step::Reset),
    ]
}

/// A value for a register: of the addresses most are those of interrupts, and some are not.
fn register(at: u8, value: u32) -> u32 {
    match (at, value) {
        (0, 0) => 0x1000,
        (0, value) => 0xfee0_0000 + 4 * (value & 1),
        (1, value) => u32::from(value == 0),
        (_, value) => value,
    }
}

#[derive(Clone, Copy)]
struct Entry {
    registers: [u32; 3],
    masked: bool,
}

struct Model {
    on: bool,
    masked: bool,
    table: [Entry; VECTORS as usize],
    pending: BTreeSet<u16>,
}

impl Model {
    fn new() -> Model {
        let entry = Entry { registers: [0; 3], masked: true };
        Model { on: false, masked: false, table: [entry; VECTORS as usize], pending: BTreeSet::new() }
    }

    fn open(&self, vector: u16) -> bool {
        let Entry { registers: [low, high, _], masked } = self.table[usize::from(vector)];
        // What is no interrupt is delivered by nobody, and waits as if it were masked.
        self.on && !self.masked && !masked && (high, low >> 20) == (0, 0xfee)
    }

    /// Takes what is delivered now.
    fn deliver(&mut self) -> Vec<Message> {
        let ready: Vec<u16> = self.pending.iter().copied().filter(|vector| self.open(*vector)).collect();
        for vector in &ready {
            self.pending.remove(vector);
        }
        let message = |vector: &u16| {
            let [low, high, data] = self.table[usize::from(*vector)].registers;
            message(u64::from(high) << 32 | u64::from(low), data)
        };
        ready.iter().map(message).collect()
    }
}

fn sorted(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_key(|message| (message.address, message.data));
    messages
}

proptest! {
    #[test]
    fn what_is_masked_is_kept_and_what_is_not_arrives(
        grows in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let card = Card::with(|card| {
            card.irqs.msix_grows = grows;
            card.irqs.msix = VECTORS;
        });
        let host = Host::new();
        let mut driver = Driver::new(&card, &host);
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Control { on, masked } => {
                    driver.set16(MSIX + 2, u16::from(on) << 15 | u16::from(masked) << 14);
                    (model.on, model.masked) = (on, masked);
                }
                Step::Mask(vector, masked) => {
                    driver.entry(vector, 3, masked.into());
                    model.table[usize::from(vector)].masked = masked;
                }
                Step::Register(vector, register, value) => {
                    driver.entry(vector, register.into(), value);
                    model.table[usize::from(vector)].registers[usize::from(register)] = value;
                }
                Step::Fire(vector) => {
                    // A vector that was never connected is masked in the device itself.
                    if card.fire(Msix, vector) {
                        model.pending.insert(vector);
                    }
                }
                Step::Reset => {
                    driver.0.reset();
                    model = Model::new();
                }
            }
            if !model.on {
                model.pending.clear();
            }
            prop_assert_eq!(sorted(host.delivered()), sorted(model.deliver()));
            let bits = model.pending.iter().fold(0, |bits, vector| bits | 1_u64 << vector);
            prop_assert_eq!(driver.pending(), bits);
            for vector in (0..VECTORS).filter(|vector| model.open(*vector)) {
                prop_assert!(card.state().msix.contains_key(&vector), "vector {vector} is not connected");
            }
            prop_assert_eq!(card.state().intx.is_some(), !model.on);
            prop_assert!(!model.on || !card.state().msix.is_empty());
            prop_assert_eq!(host.vectors(), card.state().msix.len());
        }
    }
}
