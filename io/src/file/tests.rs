use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::*;

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal<Info>(_: i32, _: *mut Info, _: *mut std::ffi::c_void) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// A read that sleeps until somebody signals the event, and is interrupted meanwhile: five times, or, where
/// it is to `stop`, until it does. (No file that everybody may open sleeps in a `pread`, so this is a `read`
/// in the loop of all transfers.)
fn interrupted(stop: bool) -> Result<(), Fault> {
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let stopping = Arc::new(AtomicBool::new(stop));
    let before = SIGNALS.load(Ordering::SeqCst);
    let read = {
        let event = Arc::clone(&event);
        move || whole(Width::B8, &stopping, &mut 0, || rustix::io::read(&event, &mut [0; 8]))
    };
    let reading = std::thread::spawn(read);
    let begun = Instant::now();
    // The first may come before the read, and interrupt nothing.
    while !reading.is_finished() && (stop || SIGNALS.load(Ordering::SeqCst) < before + 5) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the signals do nothing");
        // Long enough for the thread to sleep in the read again.
        std::thread::sleep(Duration::from_millis(10));
        let _ = reading.kill(SIGRTMIN());
    }
    assert_eq!(reading.is_finished(), stop);
    rustix::io::write(&*event, &42u64.to_ne_bytes()).unwrap();
    reading.join().unwrap()
}

#[test]
fn an_interrupted_transfer_is_done_again_unless_stopping() {
    register_signal_handler(SIGRTMIN(), count_signal).unwrap();
    assert_eq!(interrupted(false), Ok(()));
    assert_eq!(interrupted(true), Err(Fault::Failed));
}

#[test]
fn after_some_that_were_called_off_no_more_are_tried() {
    let (mut tried, mut called_off) = (0, 0);
    let mut transfer = |stop, result| {
        let transfer = || {
            tried += 1;
            result
        };
        let done = whole(Width::B1, &AtomicBool::new(stop), &mut called_off, transfer);
        (done, tried)
    };
    for tries in 1..MOST_CALLED_OFF {
        assert_eq!(transfer(true, Err(Errno::INTR)), (Err(Fault::Failed), tries));
    }
    // One that comes about ends the row, one that fails by itself does not count.
    assert_eq!(transfer(true, Ok(1)), (Ok(()), MOST_CALLED_OFF));
    assert_eq!(transfer(true, Err(Errno::IO)), (Err(Fault::Failed), MOST_CALLED_OFF + 1));
    for tries in 1..=MOST_CALLED_OFF {
        assert_eq!(transfer(true, Err(Errno::INTR)), (Err(Fault::Failed), MOST_CALLED_OFF + 1 + tries));
    }
    assert_eq!(transfer(true, Ok(1)), (Err(Fault::Failed), 2 * MOST_CALLED_OFF + 1), "it is not tried");
}

#[test]
fn a_region_ends_where_it_ends() {
    let fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let region = FileRegion { fd: Arc::clone(&fd), offset: 1 << 40, len: 16 };
    assert_eq!(region.position(8, Width::B8), Some((1 << 40) + 8));
    assert_eq!(region.position(9, Width::B8), None);
    assert_eq!(region.position(u64::MAX, Width::B1), None);
    let far = FileRegion { fd, offset: u64::MAX, len: 16 };
    assert_eq!(far.position(1, Width::B1), None);
}
