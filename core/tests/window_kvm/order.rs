//! What changes the map and what is on its way to the window: nothing is lost, nothing comes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use trapline::machine::Ending;
use trapline_devices::pci::ConfigSpace;
use trapline_io::window::Mode;

use crate::code::{
    HALT, START_OTHERS, ascending, bytes, configure, configure_device, out8, out16, segments, times, words,
};
use crate::double::{Double, Want};
use crate::rig::{OFF, RESET, Rig, TELL, wait, zones};
use crate::rival::Rival;

const MODES: [Want; 3] = [Want::Always(Mode::Coalesced), Want::Always(Mode::Shadowed), Want::Alternating];

/// Waits until the switch was told `count` times: `mov dx, TELL; again: in al, dx; cmp al, count; jb again`.
fn await_told(count: u8) -> Vec<u8> {
    vec![0xba, 0x04, 0x50, 0xec, 0x3c, count, 0x72, 0xfb]
}

fn end() -> Vec<u8> {
    [out8(OFF, 0), HALT.to_vec()].concat()
}

#[test]
fn no_write_reaches_a_card_that_does_not_decode() {
    for want in MODES {
        let (double, seen) = Double::new(want);
        // What is written while decode is off must never come, and all that is written before must.
        let body = |value: u16| {
            let parts = [
                words(0, value, 160),
                configure(4, 1),
                words(0, 0xbad0, 100),
                configure(0x10, 0xe000_0000),
                words(400, 0xbad1, 100),
                configure(4, 3),
                words(800, value, 100),
                configure(0x10, 0xe100_0000),
            ];
            parts.concat()
        };
        let rig = Rig::new(&[
            &configure(4, 3),
            &segments(0xb800),
            &times(100, &body(0x2222)),
            &body(0x1111),
            &words(2000, 0x3333, 7),
            &end(),
        ]);
        let (ending, _) = rig.run(double, ConfigSpace::TOPOLOGY, zones(), |_, _| {});
        assert_eq!(ending, Ending::PowerOff, "{want:?}");
        assert_eq!(seen.wrong.load(SeqCst), 0, "{want:?}");
        let cells =
            |first: usize, count: usize| (first..first + count).map(|cell| seen.word(0x1_8000 + 2 * cell));
        assert!(cells(0, 160).all(|cell| cell == 0x1111), "{want:?}");
        assert!(cells(160, 240).all(|cell| cell == 0), "{want:?}");
        assert!(cells(400, 100).all(|cell| cell == 0x1111), "{want:?}");
        assert!(cells(1000, 7).all(|cell| cell == 0x3333), "{want:?}");
        assert!(seen.turns.load(SeqCst) > 0, "{want:?}: all was strict");
    }
}

#[test]
fn another_vcpus_text_is_whole_while_registers_are_written() {
    for want in MODES {
        let (double, seen) = Double::new(want);
        // The first moves the BAR and writes COMMAND with what is there, until the other is done.
        let registers = [
            configure(0x10, 0xe000_0000),
            configure(4, 3),
            configure(0x10, 0xe100_0000),
            vec![0xba, 0x04, 0x50, 0xec, 0x84, 0xc0, 0x74], // mov dx, TELL; in al, dx; test al, al; jz ...
        ];
        let mut again = registers.concat();
        let back = i8::try_from(again.len() + 1).unwrap().checked_neg().unwrap();
        again.push(back.to_le_bytes()[0]);
        let first = Rig::new(&[&configure(4, 3), START_OTHERS, &again, &end()]);
        let pages = |first: u16| -> Vec<u8> {
            (0..8).flat_map(|page| ascending(page * 0x1000, first + page * 0x800, 0x800)).collect()
        };
        let rig = first.with(&[
            &segments(0xb800),
            &times(3, &pages(0x5001)),
            &pages(0x4001),
            &pages(1),
            &out8(TELL, 0),
            HALT,
        ]);
        let (ending, _) = rig.run(double, ConfigSpace::TOPOLOGY, zones(), |_, _| {});
        assert_eq!(ending, Ending::PowerOff, "{want:?}");
        for cell in 0..0x4000_u16 {
            assert_eq!(seen.word(0x1_8000 + 2 * usize::from(cell)), cell + 1, "{want:?}");
        }
    }
}

#[test]
fn registers_that_leave_text_end_the_shadow_first() {
    for want in MODES {
        let (double, seen) = Double::new(want);
        let body = [
            words(0, 0x1111, 300),
            out16(0x3c4, 0x0402),
            bytes(0, 0x55, 256),
            out16(0x3c4, 0x0302),
            words(0, 0x2222, 300),
            out8(0x3c4, 2),
            out8(0x3c5, 4),
            bytes(256, 0x66, 256),
            out8(0x3c5, 3),
        ];
        let rig = Rig::new(&[&configure(4, 3), &segments(0xb800), &times(150, &body.concat()), &end()]);
        let (ending, _) = rig.run(double, ConfigSpace::TOPOLOGY, zones(), |_, _| {});
        assert_eq!(ending, Ending::PowerOff, "{want:?}");
        assert!((0..300).all(|cell| seen.word(0x1_8000 + 2 * cell) == 0x2222), "{want:?}");
        let font = seen.font.lock();
        assert!(font[0x1_8000..0x1_8100].iter().all(|byte| *byte == 0x55), "{want:?}");
        assert!(font[0x1_8100..0x1_8200].iter().all(|byte| *byte == 0x66), "{want:?}");
        assert!(font[0x1_8200..].iter().all(|byte| *byte == 0), "{want:?}");
    }
}

#[test]
fn a_reset_in_the_middle_of_a_burst_leaves_nothing_of_it() {
    for want in MODES {
        let (double, seen) = Double::new(want);
        // A cell of RAM says which time it is: written forward to the reset, then nothing but a tell.
        let burst =
            [configure(4, 3), segments(0xb800), times(300, &words(0, 0xdead, 400)), out8(RESET, 0)].concat();
        let skip = i16::try_from(burst.len()).unwrap().to_le_bytes();
        let rig = Rig::new(&[
            &[0x31, 0xc0, 0x8e, 0xd8, 0x83, 0x3e, 0x00, 0x10, 0x00], // xor ax, ax; mov ds, ax; cmp word [0x1000], 0
            &[0xc7, 0x06, 0x00, 0x10, 0x01, 0x00],                   // mov word [0x1000], 1
            &[0x0f, 0x85, skip[0], skip[1]],                         // jne behind the burst
            &burst,
            &configure(4, 3),
            &out8(TELL, 0),
            &await_told(2),
            &end(),
        ]);
        let inside = Arc::clone(&seen);
        let (ending, _) = rig.run(double, ConfigSpace::TOPOLOGY, zones(), move |_, told| {
            assert!(wait(Duration::from_secs(30), || told.load(SeqCst) == 1), "no reset");
            // What the old burst left on its way would come now.
            std::thread::sleep(Duration::from_millis(100));
            assert!(inside.cells.lock().iter().all(|byte| *byte == 0));
            told.store(2, SeqCst);
        });
        assert_eq!(ending, Ending::PowerOff, "{want:?}");
        assert_eq!(seen.resets.load(SeqCst), 1);
        assert!(seen.turns.load(SeqCst) > 0, "{want:?}: all was strict");
    }
}

#[test]
fn the_shadow_comes_and_goes_a_thousand_times_under_load() {
    let (double, seen) = Double::new(Want::Alternating);
    // Each word is read back; one that is not what was written is told.
    let mut check = vec![0xbf, 0x00, 0x00, 0xb9, 0x00, 0x08]; // mov di, 0; mov cx, 0x800
    check.extend([
        0x89, 0x0d, // again: mov [di], cx
        0x39, 0x0d, // cmp [di], cx
        0x75, 0x0a, // jne lost
        0x83, 0xc7, 0x02, // add di, 2
        0xe2, 0xf5, // loop again
        0xeb, 0x08, // jmp done
    ]);
    check.extend([0x90, 0x90, 0x90]);
    check.extend([0xba, 0x06, 0x50, 0xee, 0xf4]); // lost: mov dx, RESET; out dx, al; hlt
    let stop = [0xba_u8, 0x04, 0x50, 0xec, 0x84, 0xc0, 0x0f, 0x84]; // mov dx, TELL; in al, dx; test al, al; jz ...
    let mut again = check.clone();
    again.extend(stop);
    let back = -i16::try_from(again.len() + 2).unwrap();
    again.extend(back.to_le_bytes());
    let other = [segments(0xba00), again.clone(), HALT.to_vec()];
    let other: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
    let rig = Rig::new(&[&configure(4, 3), START_OTHERS, &segments(0xb800), &again, &end()]).with(&other);
    let inside = Arc::clone(&seen);
    let (ending, _) = rig.run(double, ConfigSpace::TOPOLOGY, zones(), move |_, told| {
        let often = wait(Duration::from_secs(50), || {
            inside.wake();
            inside.shadows.load(SeqCst) >= 1000
        });
        assert!(often, "{} times only", inside.shadows.load(SeqCst));
        told.store(1, SeqCst);
    });
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(seen.resets.load(SeqCst), 0, "a word that was written was not read back");
    for cell in 0..0x800_u16 {
        assert_eq!(seen.word(0x1_8000 + 2 * usize::from(cell)), 0x800 - cell);
        assert_eq!(seen.word(0x1_a000 + 2 * usize::from(cell)), 0x800 - cell);
    }
}

#[test]
fn another_functions_bar_in_the_window_gets_its_own_writes() {
    for want in MODES {
        let (double, seen) = Double::new(want);
        let (rival, written) = Rival::new();
        let round = [
            segments(0xb800),
            times(100, &words(0, 0x1111, 400)),
            configure_device(2, 0x10, 0xa_0000),
            configure_device(2, 4, 2),
            segments(0xa000),
            ascending(0, 0x100, 64),
            configure_device(2, 4, 0),
            segments(0xb800),
            words(0, 0x2222, 400),
        ];
        let again: Vec<u8> = (0..5).flat_map(|_| round.concat()).collect();
        let rig = Rig::new(&[&configure(4, 3), &again, &end()]);
        let (ending, _) =
            Rig { rival: Some(rival), ..rig }.run(double, ConfigSpace::TOPOLOGY, zones(), |_, _| {});
        assert_eq!(ending, Ending::PowerOff, "{want:?}");
        let expected: Vec<u64> = (0..5).flat_map(|_| 0x100..0x140).collect();
        assert_eq!(*written.lock(), expected, "{want:?}");
        assert!((0..400).all(|cell| seen.word(0x1_8000 + 2 * cell) == 0x2222), "{want:?}");
        assert!(seen.turns.load(SeqCst) > 0, "{want:?}: all was strict");
    }
}

/// Waits for a byte of RAM, writes 64 words to the window, and says so in another: it never exits.
fn write_when_asked() -> Vec<u8> {
    let await_asked = [
        0x31, 0xc0, 0x8e, 0xe0, // xor ax, ax; mov fs, ax
        0x64, 0x80, 0x3e, 0x00, 0x10, 0x01, // again: cmp byte fs:[1000], 1
        0x75, 0xf8, // jne again
    ];
    let tell = [0x64, 0xc6, 0x06, 0x02, 0x10, 0x01]; // mov byte fs:[1002], 1
    [segments(0xa000), await_asked.to_vec(), ascending(0, 1, 64), tell.to_vec(), HALT.to_vec()].concat()
}

/// Asks for that and waits until it is done, without an exit either.
const ASK: [u8; 18] = [
    0x31, 0xc0, 0x8e, 0xe0, // xor ax, ax; mov fs, ax
    0x64, 0xc6, 0x06, 0x00, 0x10, 0x01, // mov byte fs:[1000], 1
    0x64, 0x80, 0x3e, 0x02, 0x10, 0x01, // again: cmp byte fs:[1002], 1
    0x75, 0xf8, // jne again
];

/// What is collected before a function is switched on was written where the map led until then.
#[test]
fn what_another_vcpu_writes_before_a_bar_comes_is_not_the_bars() {
    for _ in 0..8 {
        let (double, seen) = Double::new(Want::Always(Mode::Coalesced));
        let rig = Rig::new(&[
            &configure(4, 3),
            &configure_device(2, 0x10, 0xa_0000),
            START_OTHERS,
            &segments(0xb800),
            &out8(TELL, 0),
            &write_until(2),
            &ASK,
            &configure_device(2, 4, 2),
            &end(),
        ]);
        let (rival, written) = Rival::new();
        let inside = Arc::clone(&seen);
        let rig = Rig { rival: Some(rival), ..rig.with(&[&write_when_asked()]) };
        let (ending, _) =
            rig.run(double, ConfigSpace::TOPOLOGY, zones(), move |_, told| {
                assert!(
                    wait(Duration::from_secs(20), || inside.turns.load(SeqCst) > 0 && told.load(SeqCst) == 1)
                );
                told.store(2, SeqCst);
            });
        assert_eq!(ending, Ending::PowerOff);
        assert_eq!(*written.lock(), [0; 0]);
        assert!((0..64).all(|cell| seen.word(2 * usize::from(cell)) == cell + 1));
    }
}

/// Writes a word of the window again and again until the switch says so.
fn write_until(told: u8) -> Vec<u8> {
    // mov dx, TELL; again: mov word [4000], ax; in al, dx; cmp al, told; jne again
    vec![0xba, 0x04, 0x50, 0xa3, 0xa0, 0x0f, 0xec, 0x3c, told, 0x75, 0xf8]
}

#[test]
fn a_wish_that_was_refused_comes_true_when_nothing_is_in_its_way_any_more() {
    let (double, seen) = Double::new(Want::Always(Mode::Shadowed));
    let (rival, _) = Rival::new();
    seen.calls_once.store(true, SeqCst);
    let rig = Rig::new(&[
        &configure(4, 3),
        &configure_device(2, 0x10, 0xa_0000),
        &configure_device(2, 4, 2),
        &segments(0xb800),
        &out8(TELL, 0),
        &write_until(2),
        &configure_device(2, 4, 0),
        &out8(TELL, 0),
        &write_until(4),
        &end(),
    ]);
    let inside = Arc::clone(&seen);
    let (ending, _) =
        Rig { rival: Some(rival), ..rig }.run(double, ConfigSpace::TOPOLOGY, zones(), move |_, told| {
            let late = Duration::from_secs(20);
            assert!(wait(late, || inside.turns.load(SeqCst) > 0 && told.load(SeqCst) == 1));
            assert_eq!(inside.shadows.load(SeqCst), 0, "another function is in the way");
            told.store(2, SeqCst);
            assert!(wait(late, || told.load(SeqCst) == 3));
            assert!(wait(late, || inside.shadows.load(SeqCst) > 0), "strict for ever");
            told.store(4, SeqCst);
        });
    assert_eq!(ending, Ending::PowerOff);
}
