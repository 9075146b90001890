//! Machines that nobody would think of.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use trapline_devices::pci::{Bar, BarKind};

use crate::model::{Shape, Spot};
use crate::rig::{Machine, span};

fn bar() -> impl Strategy<Value = Bar> {
    let io = (2..9_u32).prop_map(|n| Bar { kind: BarKind::Io, size: 1 << n });
    let narrow = (any::<bool>(), 4..28_u32)
        .prop_map(|(prefetchable, n)| Bar { kind: BarKind::Memory32 { prefetchable }, size: 1 << n });
    let wide = (any::<bool>(), 12..39_u32).prop_map(|(prefetchable, n)| {
        // One that is not prefetchable has to lie low behind a port.
        let n = if prefetchable { n } else { n.min(30) };
        Bar { kind: BarKind::Memory64 { prefetchable }, size: 1 << n }
    });
    prop_oneof![1 => io, 2 => narrow, 4 => wide]
}

fn shape() -> impl Strategy<Value = Shape> {
    let spot = prop_oneof![
        3 => Just(Spot::Root),
        3 => any::<bool>().prop_map(|hot_plug| Spot::Port { hot_plug }),
        2 => Just(Spot::Sibling),
    ];
    let rom =
        proptest::option::weighted(0.3, (11..22_u32).prop_map(|n| Bar { kind: BarKind::Rom, size: 1 << n }));
    (spot, proptest::collection::vec(bar(), 0..4), rom)
        .prop_map(|(spot, bars, rom)| Shape { spot, bars: bars.into_iter().chain(rom).collect() })
}

/// So many, the same in every run.
pub fn machines(count: usize) -> Vec<Machine> {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let memory = prop::sample::select(vec![1_u64 << 30, 4 << 30, 9 << 30]);
    let bits = prop::sample::select(vec![36_u8, 39, 40, 41, 46, 52]);
    let hole = any::<bool>();
    let machine = (memory, bits, hole, proptest::collection::vec(shape(), 1..8)).prop_map(
        |(memory, phys_bits, hole, mut shapes)| {
            // Nobody stands before the first.
            if shapes[0].spot == Spot::Sibling {
                shapes[0].spot = Spot::Root;
            }
            let reserved = if hole { vec![span(0xfd_0000_0000, 12 << 30)] } else { Vec::new() };
            Machine { memory, phys_bits, reserved, shapes }
        },
    );
    (0..count).map(|_| machine.new_tree(&mut runner).unwrap().current()).collect()
}
