//! Flushes against a card that is a piece of memory, and a guest that writes whenever it likes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::assigned::backend::RegionInfo;

const FIRST: u64 = 0xb_8000;

/// A card whose text window is memory, and a guest that writes while the card is written.
struct Card {
    window: Vec<u8>,
    runs: Vec<Range<usize>>,
    reads: usize,
    fails: bool,
    /// What the guest does while the card takes a run, one thing for each.
    meanwhile: VecDeque<(usize, Vec<u8>)>,
    ram: Option<Arc<MmapRegion>>,
}

impl Card {
    fn new() -> Card {
        let window = (0..LEN).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        let (runs, meanwhile) = (Vec::new(), VecDeque::new());
        Card { window, runs, reads: 0, fails: false, meanwhile, ram: None }
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "memory"
    }
    fn regions(&self) -> &[RegionInfo] {
        &[]
    }
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Err(Fault::NoRegister)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        assert_eq!((region, offset), (Region::VGA, FIRST));
        self.reads += 1;
        bytes.copy_from_slice(&self.window);
        if self.fails { Err(Fault::Failed) } else { Ok(()) }
    }
    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        assert_eq!(region, Region::VGA);
        let at = usize::try_from(offset - FIRST).unwrap();
        self.runs.push(at..at + bytes.len());
        if let (Some(ram), Some((place, bytes))) = (&self.ram, self.meanwhile.pop_front()) {
            let _ = ram.as_volatile_slice().write(&bytes, place);
        }
        if self.fails {
            // Half of it arrives.
            let half = bytes.len() / 2;
            self.window[at..at + half].copy_from_slice(&bytes[..half]);
            return Err(Fault::Failed);
        }
        self.window[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A started shadow, and its card.
fn started() -> (Shadow, Card) {
    let (mut shadow, mut card) = (Shadow::new().unwrap(), Card::new());
    shadow.start(&mut card, FIRST).unwrap();
    card.ram = Some(Arc::clone(shadow.memory()));
    (shadow, card)
}

fn contents(shadow: &Shadow) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    shadow.ram().copy_to(&mut bytes);
    bytes
}

#[test]
fn a_start_reads_the_window_back_once() {
    let (mut shadow, mut card) = started();
    assert_eq!(contents(&shadow), card.window);
    shadow.note(8, &[1, 2]);
    card.window[8..10].copy_from_slice(&[1, 2]);
    shadow.start(&mut card, FIRST).unwrap();
    assert_eq!((card.reads, contents(&shadow) == card.window), (1, true));
    shadow.forget();
    card.window[0] ^= 0xff;
    shadow.start(&mut card, FIRST).unwrap();
    assert_eq!((card.reads, contents(&shadow) == card.window), (2, true));
    shadow.forget();
    card.fails = true;
    assert_eq!(shadow.start(&mut card, FIRST), Err(Fault::Failed));
    card.fails = false;
    shadow.start(&mut card, FIRST).unwrap();
    assert_eq!(card.reads, 4, "what a failed read left is not taken for the card's");
}

#[test]
fn close_changes_leave_as_one_run_and_far_ones_apart() {
    let (mut shadow, mut card) = started();
    assert_eq!(shadow.flush(&mut card, FIRST), Ok(false));
    for place in [0, 15, 31, 300, 0x7fff] {
        shadow.store(place, &[shadow.load(place, Width::B1).to_le_bytes()[0] ^ 1]);
    }
    assert_eq!(shadow.flush(&mut card, FIRST), Ok(true));
    assert_eq!(card.runs, [0..32, 300..301, 0x7fff..0x8000]);
    assert_eq!(shadow.flush(&mut card, FIRST), Ok(false));
}

#[test]
fn after_a_failure_everything_is_sent() {
    let (mut shadow, mut card) = started();
    let before = contents(&shadow);
    shadow.store(100, &[0xee; 40]);
    card.fails = true;
    assert_eq!(shadow.flush(&mut card, FIRST), Err(Fault::Failed));
    // The guest takes it back: the RAM is as if nothing had been sent.
    shadow.store(100, &before[100..140]);
    assert!(card.window != before);
    card.fails = false;
    assert_eq!(shadow.flush(&mut card, FIRST), Ok(true));
    assert_eq!(card.window, before);
}

#[test]
fn accesses_beyond_the_end_are_ones_and_dropped() {
    let (shadow, _) = started();
    shadow.store(LEN - 1, &[0x12, 0x34]);
    assert_eq!(shadow.load(LEN - 1, Width::B2), 0xff12);
    assert_eq!(shadow.load(LEN, Width::B4), 0xffff_ffff);
    assert_eq!(shadow.load(usize::MAX, Width::B8), u64::MAX);
}

/// Writes that overlap often, of text and of lines.
fn guest_write() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let place = prop_oneof![0..400_usize, 0..LEN];
    (place, prop::collection::vec(any::<u8>(), 1..40))
}

#[derive(Clone, Debug)]
enum Step {
    Guest((usize, Vec<u8>)),
    /// A flush, and what the guest does meanwhile.
    Flush(Vec<(usize, Vec<u8>)>),
    /// A flush that fails.
    Failed,
    /// It rests, and starts again after strict writes.
    Rest(Vec<(usize, Vec<u8>)>),
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(guest_write(), 0..4);
    prop_oneof![
        6 => guest_write().prop_map(Step::Guest),
        3 => writes().prop_map(Step::Flush),
        1 => Just(Step::Failed),
        1 => writes().prop_map(Step::Rest),
    ]
}

/// Each run of the last flush starts and ends with a change, and has no long gap of none.
fn check_runs(runs: &[Range<usize>], before: &[u8], after: &[u8]) {
    for run in runs {
        let changed: Vec<usize> = run.clone().filter(|at| before[*at] != after[*at]).collect();
        assert_eq!((changed.first(), changed.last()), (Some(&run.start), Some(&(run.end - 1))));
        assert!(changed.windows(2).all(|pair| pair[1] - pair[0] <= GAP));
    }
    assert!(runs.windows(2).all(|pair| pair[0].end + GAP <= pair[1].start));
}

fn rest(shadow: &mut Shadow, card: &mut Card, writes: Vec<(usize, Vec<u8>)>) {
    // All vCPUs are parked: nobody writes meanwhile.
    card.meanwhile.clear();
    shadow.flush(card, FIRST).unwrap();
    assert_eq!(contents(shadow), card.window);
    for (place, bytes) in writes {
        let bytes = &bytes[..bytes.len().min(LEN - place)];
        card.window[place..place + bytes.len()].copy_from_slice(bytes);
        shadow.note(place, bytes);
    }
    let reads = card.reads;
    shadow.start(card, FIRST).unwrap();
    assert_eq!((card.reads, contents(shadow) == card.window), (reads, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_card_ends_with_what_the_guest_wrote(steps in prop::collection::vec(step(), 1..60)) {
        let (mut shadow, mut card) = started();
        for step in steps {
            match step {
                Step::Guest((place, bytes)) => shadow.store(place, &bytes),
                Step::Flush(meanwhile) => {
                    let (before, whole) = (card.window.clone(), !shadow.known);
                    card.runs.clear();
                    card.meanwhile = meanwhile.into();
                    shadow.flush(&mut card, FIRST).unwrap();
                    if !whole {
                        check_runs(&card.runs, &before, &card.window);
                    }
                }
                Step::Failed => {
                    card.fails = true;
                    let _ = shadow.flush(&mut card, FIRST);
                    card.fails = false;
                }
                Step::Rest(writes) => rest(&mut shadow, &mut card, writes),
            }
        }
        card.meanwhile.clear();
        shadow.flush(&mut card, FIRST).unwrap();
        prop_assert!(card.window == contents(&shadow));
        prop_assert_eq!(shadow.flush(&mut card, FIRST), Ok(false));
    }
}
