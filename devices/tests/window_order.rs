//! The order in which a card sees what two vCPUs do, in every mode of the legacy window: one that PCI and
//! x86 allow: reads see the writes before them, and no write passes another. And a proof that the judge can say no.

#[path = "window/card.rs"]
mod card;
#[path = "window/machine.rs"]
mod machine;
#[path = "window/modes.rs"]
mod modes;
#[path = "window/order.rs"]
mod order;
#[path = "window/program.rs"]
mod program;
#[path = "window/record.rs"]
mod record;
#[path = "window/ring.rs"]
mod ring;

use card::Card;
use machine::{Machine, Setting};
use order::Illegal;
use program::{Run, Step, steps};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use ring::Ring;
use trapline_devices::legacy::{Phase, Ways};
use trapline_io::Width;
use trapline_io::endpoint::Service;
use trapline_io::window::Mode;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default)]
struct Flaws {
    ring: ring::Flaw,
    card: card::Flaw,
    machine: machine::Flaw,
}

/// A machine and what is done to it.
#[derive(Clone, Debug)]
struct Case {
    shadowed: bool,
    phase: Phase,
    service: Service,
    queue: usize,
    worker: bool,
    places: usize,
    mode: Mode,
    steps: Vec<Step>,
}

/// What a record came to.
#[derive(Debug)]
enum Verdict {
    Legal,
    Illegal(Illegal),
    /// A load did not give what was stored, or something was left behind.
    Wrong(#[expect(dead_code, reason = "shown to people")] Vec<String>),
}

fn cases() -> impl Strategy<Value = Case> {
    let modes = [Mode::Native, Mode::Resting, Mode::Coalesced, Mode::Shadowed, Mode::Shadowed];
    (
        (prop::bool::weighted(0.8), prop::sample::select(vec![Phase::Auto, Phase::Legacy])),
        prop::sample::select(vec![Service::Inline, Service::Adaptive]),
        prop::sample::select(vec![1_usize, 3, 256]),
        any::<bool>(),
        prop::sample::select(vec![1_usize, 5, 169]),
        prop::sample::select(modes.to_vec()),
        prop::collection::vec(steps(), 1..90),
    )
        .prop_map(|((shadowed, phase), service, queue, worker, places, mode, steps)| Case {
            shadowed,
            phase,
            service,
            queue,
            worker,
            places,
            mode,
            steps,
        })
}

fn judge(case: &Case, flaws: Flaws) -> Verdict {
    let card = Card::new(true, flaws.card);
    let setting = Setting {
        ways: Ways { coalesced: true, shadowed: case.shadowed, phase: case.phase },
        service: case.service,
        queue: case.queue,
        worker: case.worker,
        ring: Ring::new(flaws.ring).with_places(case.places),
        flaw: flaws.machine,
    };
    let mut run = Run::new(card.clone(), Machine::new(card, setting), case.mode);
    for step in &case.steps {
        run.step(*step);
    }
    let (program, record, wrong) = run.end();
    match order::check(&program, &record) {
        Err(illegal) => {
            if std::env::var_os("TRAPLINE_SHOW_ORDER").is_some() {
                for (number, op) in program.iter().enumerate() {
                    eprintln!("{number} {op:x?}");
                }
                for (number, seen) in record.iter().enumerate() {
                    eprintln!("{number} {seen:x?}");
                }
            }
            Verdict::Illegal(illegal)
        }
        Ok(()) if !wrong.is_empty() => Verdict::Wrong(wrong),
        Ok(()) => Verdict::Legal,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_card_sees_an_order_that_pci_and_x86_allow(case in cases()) {
        let verdict = judge(&case, Flaws::default());
        prop_assert!(matches!(verdict, Verdict::Legal), "{:?}", verdict);
    }
}

/// The first illegal record that programs come to on a machine with these flaws. The programs are the same
/// each time.
fn found(flaws: Flaws, wanted: impl Fn(&Illegal) -> bool) -> bool {
    let rng = TestRng::deterministic_rng(Default::default());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = cases();
    (0..300).any(|_| {
        let case = strategy.new_tree(&mut runner).unwrap().current();
        matches!(judge(&case, flaws), Verdict::Illegal(illegal) if wanted(&illegal))
    })
}

#[test]
fn a_drain_that_reorders_is_found_out() {
    let flaws = Flaws { ring: ring::Flaw::NewestFirst, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Reordered(..))));
}

#[test]
fn a_read_that_overtakes_collected_writes_is_found_out() {
    let flaws = Flaws { ring: ring::Flaw::Overlooked, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Reordered(..))));
}

#[test]
fn a_drain_that_loses_is_found_out() {
    let flaws = Flaws { ring: ring::Flaw::Leaking, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Lost(_))));
}

#[test]
fn a_flush_behind_the_start_address_is_found_out() {
    let flaws = Flaws { card: card::Flaw::LateFlush, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Stale(..))));
}

#[test]
fn a_flush_that_is_forgotten_is_found_out() {
    let flaws = Flaws { card: card::Flaw::NoFlush, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Stale(..))));
}

#[test]
fn a_port_that_changes_its_width_is_found_out() {
    let flaws = Flaws { card: card::Flaw::Narrow, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Unknown(_))));
}

#[test]
fn a_map_that_goes_before_what_was_collected_is_found_out() {
    let flaws = Flaws { machine: machine::Flaw::HidesFirst, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Lost(_))));
}

#[test]
fn a_mode_that_ends_without_a_last_look_is_found_out() {
    let flaws = Flaws { machine: machine::Flaw::ForgetsRing, ..Flaws::default() };
    assert!(found(flaws, |illegal| matches!(illegal, Illegal::Lost(_) | Illegal::Reordered(..))));
}

/// What the shadow's own registers are is forgotten with each of these, and a start address shows all text before it.
#[test]
fn no_start_address_passes_text_after_a_write_that_leads_anywhere() {
    let text = Step::Text(0, 0, Width::B2);
    for before in [
        vec![text, Step::Tick(16), Step::Vendor(0)],
        vec![text, Step::Tick(16), Step::Command(0, 3)],
        vec![Step::Beyond(0), Step::Status(0)],
    ] {
        let steps = [before, vec![text, Step::Crtc(0, 0x0c)]].concat();
        let case = Case {
            shadowed: true,
            phase: Phase::Auto,
            service: Service::Inline,
            queue: 256,
            worker: false,
            places: 169,
            mode: Mode::Shadowed,
            steps,
        };
        let verdict = judge(&case, Flaws::default());
        assert!(matches!(verdict, Verdict::Legal), "{case:?}: {verdict:?}");
    }
}
