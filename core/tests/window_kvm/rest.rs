//! What a guest has written is shown though it never exits again, and nothing wakes for an idle one.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use trapline::events::{Event, Events};
use trapline::machine::Ending;
use trapline_devices::pci::ConfigSpace;
use trapline_io::window::Mode;

use crate::code::{HALT, ascending, configure, out8, segments};
use crate::double::{Double, Seen, Want};
use crate::rig::{OFF, Rig, TELL, wait, zones};

const SOON: Duration = Duration::from_secs(1);
/// A machine of a busy host gets that long for what must come about, in whatever time.
const LATE: Duration = Duration::from_secs(20);

/// Enough for a burst, then a line, with nothing that exits behind.
fn line(then: &[u8]) -> Vec<Vec<u8>> {
    vec![
        configure(4, 3),
        segments(0xb800),
        ascending(0, 0x100, 100),
        out8(TELL, 0),
        // Until the window is fast the guest goes on with it, so that the last line is not strict:
        // mov dx, TELL; again: mov word [4000], ax; in al, dx; cmp al, 2; jne again
        vec![0xba, 0x04, 0x50, 0xa3, 0xa0, 0x0f, 0xec, 0x3c, 0x02, 0x75, 0xf8],
        ascending(160, 0x700, 80),
        then.to_vec(),
    ]
}

/// Runs a guest that writes a line and does `then`, with `meanwhile` from when it may write the line.
fn run_line(mode: Mode, then: &[u8], meanwhile: impl FnOnce(&Seen, &Events) + Send) -> Ending {
    let (double, seen) = Double::new(Want::Always(mode));
    let code = line(then);
    let code: Vec<&[u8]> = code.iter().map(Vec::as_slice).collect();
    let inside = Arc::clone(&seen);
    let (ending, _) = Rig::new(&code).run(double, ConfigSpace::TOPOLOGY, zones(), move |events, told| {
        assert!(wait(LATE, || told.load(SeqCst) == 1), "the guest never came so far");
        assert!(wait(LATE, || inside.turns.load(SeqCst) > 0), "a burst changes nothing");
        std::thread::sleep(Duration::from_millis(50));
        told.store(2, SeqCst);
        meanwhile(&inside, events);
    });
    let last: Vec<u16> = (0..80).map(|cell| seen.word(0x1_8000 + 160 + 2 * cell)).collect();
    assert_eq!(last, (0x700..0x750).collect::<Vec<u16>>(), "{mode:?}");
    ending
}

fn is_shown(seen: &Seen) -> bool {
    seen.word(0x1_8000 + 160 + 158) == 0x74f
}

#[test]
fn a_halted_guests_line_is_shown_within_a_second() {
    for mode in [Mode::Coalesced, Mode::Shadowed] {
        // Nobody sees when the guest has written it, and it may not run for long: once is enough.
        let soon = (0..10).any(|_| {
            let mut took = Duration::MAX;
            run_line(mode, HALT, |seen, events| {
                let since = Instant::now();
                assert!(wait(LATE, || is_shown(seen)), "{mode:?}: not shown");
                took = since.elapsed();
                events.push(Event::Leave);
            });
            took < SOON
        });
        assert!(soon, "{mode:?}: shown late, again and again");
    }
}

#[test]
fn a_power_off_shows_the_last_line() {
    let off = [out8(OFF, 0), HALT.to_vec()].concat();
    for mode in [Mode::Coalesced, Mode::Shadowed] {
        let ending = run_line(mode, &off, |_, _| {});
        assert_eq!(ending, Ending::PowerOff);
    }
}

#[test]
fn nothing_wakes_for_an_idle_guest() {
    for mode in [Mode::Coalesced, Mode::Shadowed] {
        run_line(mode, HALT, |seen, events| {
            assert!(wait(LATE, || is_shown(seen)));
            // 250 ms, and what a busy host adds.
            let quiet = || {
                let before = seen.ticks.load(SeqCst);
                std::thread::sleep(Duration::from_millis(500));
                seen.ticks.load(SeqCst) == before
            };
            assert!(wait(LATE, quiet), "{mode:?}: the clock goes on and on");
            events.push(Event::Leave);
        });
    }
}
