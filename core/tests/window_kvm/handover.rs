//! Two adapters with legacy VGA in one guest, which hands it over from one to the other.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use trapline::machine::Ending;
use trapline_devices::pci::ConfigSpace;
use trapline_io::window::Mode;

use crate::code::{HALT, START_OTHERS, ascending, configure_device, out8, out16, segments, times, words};
use crate::double::{Double, Seen, Want};
use crate::rig::{OFF, Rig, TELL, zones};

const MODES: [Want; 4] = [
    Want::Always(Mode::Resting),
    Want::Always(Mode::Coalesced),
    Want::Always(Mode::Shadowed),
    Want::Alternating,
];
/// The devices of the adapter and of the one beside it.
const ADAPTERS: [u8; 2] = [1, 3];
const OFF_NOW: u32 = 0;
const DECODES: u32 = 3;

fn command(adapter: usize, value: u32) -> Vec<u8> {
    configure_device(ADAPTERS[adapter], 4, value)
}

/// The same words so often that their adapter becomes fast. Inside of another loop: `push bp; ...; pop bp`.
fn long(at: u16, value: u16, count: u16) -> Vec<u8> {
    [vec![0x55], times(12, &words(at, value, count)), vec![0x5d]].concat()
}

fn end() -> Vec<u8> {
    [out8(OFF, 0), HALT.to_vec()].concat()
}

/// Runs a machine with both adapters.
fn run(want: Want, rig: Rig) -> [Arc<Seen>; 2] {
    let ((first, seen), (beside, seen_beside)) = (Double::new(want), Double::new(want));
    let rig = Rig { beside: Some(beside), ..rig };
    let (ending, _) = rig.run(first, ConfigSpace::TOPOLOGY, zones(), |_, _| {});
    assert_eq!(ending, Ending::PowerOff, "{want:?}");
    let both = [seen, seen_beside];
    for seen in &both {
        assert_eq!(seen.wrong.load(SeqCst), 0, "{want:?}: a write while it does not decode");
    }
    both
}

/// The cells of text from `first` on.
fn cells(seen: &Seen, first: usize, count: usize) -> Vec<u16> {
    (first..first + count).map(|cell| seen.word(0x1_8000 + 2 * cell)).collect()
}

#[test]
fn each_has_what_was_written_while_it_was_led_there() {
    for want in MODES {
        // Each writes to lines of its own, long enough to become fast, and hands over in the middle of it.
        let turn = |value: u16| {
            let parts = [
                command(0, DECODES),
                long(0, 0x7777, 400),
                words(0, value, 400),
                command(0, OFF_NOW),
                words(0, 0xbad0, 900),
                command(1, DECODES),
                long(1000, 0x7777, 300),
                words(1000, value + 1, 300),
                command(1, OFF_NOW),
            ];
            parts.concat()
        };
        let rig = Rig::new(&[&segments(0xb800), &times(6, &turn(0x2222)), &turn(0x1111), &end()]);
        let [first, beside] = run(want, rig);
        assert_eq!(cells(&first, 0, 900), [vec![0x1111; 400], vec![0; 500]].concat(), "{want:?}");
        assert_eq!(
            cells(&beside, 0, 900),
            [vec![0; 500], vec![0x1112; 300], vec![0; 100]].concat(),
            "{want:?}"
        );
        assert_eq!((first.regained.load(SeqCst), beside.regained.load(SeqCst)), (6, 7), "{want:?}");
        let fast = want != Want::Always(Mode::Resting);
        for seen in [&first, &beside] {
            assert_eq!(seen.turns.load(SeqCst) > 0, fast, "{want:?}: {}", seen.turns.load(SeqCst));
        }
    }
}

#[test]
fn of_two_that_decode_the_first_on_the_bus_answers_also_if_it_comes_second() {
    for want in MODES {
        // The other one is fast when the first takes the window from it.
        let turn = [
            command(0, OFF_NOW),
            command(1, DECODES),
            long(1000, 0x3333, 300),
            command(0, DECODES),
            long(0, 0x1111, 400),
        ];
        let last = [command(0, OFF_NOW), ascending(1400, 1, 40), out16(0x3d4, 0x0e)];
        let rig = Rig::new(&[&segments(0xb800), &times(5, &turn.concat()), &last.concat(), &end()]);
        let [first, beside] = run(want, rig);
        assert_eq!(cells(&first, 0, 400), vec![0x1111; 400], "{want:?}");
        assert_eq!(cells(&first, 500, 300), vec![0; 300], "{want:?}");
        assert_eq!(cells(&beside, 0, 400), vec![0; 400], "{want:?}");
        assert_eq!(cells(&beside, 500, 200), vec![0x3333; 200], "{want:?}");
        assert_eq!(cells(&beside, 700, 40), (1..=40).collect::<Vec<u16>>(), "{want:?}");
    }
}

#[test]
fn another_vcpus_text_goes_to_one_or_the_other_and_is_never_lost_once_it_is_told() {
    for want in MODES {
        // The first hands over until the second is done; the second writes all the time, and both take it.
        let hand = [
            command(0, OFF_NOW),
            command(1, DECODES),
            command(0, DECODES),
            command(1, OFF_NOW),
            vec![0xba, 0x04, 0x50, 0xec, 0x84, 0xc0, 0x0f, 0x84], // mov dx, TELL; in al, dx; test al, al; jz ...
        ];
        let mut again = hand.concat();
        let back = i16::try_from(again.len() + 2).unwrap().checked_neg().unwrap();
        again.extend(back.to_le_bytes());
        let settled = words(0, 0x4444, 200);
        let first =
            Rig::new(&[&segments(0xb800), &command(0, DECODES), START_OTHERS, &again, &settled, &end()]);
        let rig = first.with(&[&segments(0xb800), &times(30, &words(0, 0x5555, 400)), &out8(TELL, 0), HALT]);
        let [first, beside] = run(want, rig);
        let text = [vec![0x4444; 200], cells(&first, 200, 200)].concat();
        assert_eq!(cells(&first, 0, 400), text, "{want:?}");
        for (seen, from) in [(&first, 200), (&beside, 0)] {
            let only = cells(seen, from, 400 - from);
            assert!(only.iter().all(|cell| [0, 0x5555].contains(cell)), "{want:?}");
        }
    }
}
