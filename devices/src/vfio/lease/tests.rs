use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::terms::AWAY;
use super::*;
use crate::vfio::arbiter::Legacy;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Lock,
    Unlock,
    HandOver,
}

/// An arbiter that tells what it is asked, and lets a lock wait for `free`.
struct Fake {
    told: Sender<Said>,
    free: Option<Receiver<()>>,
    gone: bool,
}

impl Fake {
    fn say(&self, what: Said) -> io::Result<()> {
        let _ = self.told.send(what);
        if self.gone { Err(io::Error::from_raw_os_error(19)) } else { Ok(()) }
    }
}

impl Legacy for Fake {
    fn lock(&mut self) -> io::Result<()> {
        self.say(Said::Lock)?;
        if let Some(free) = &self.free {
            let _ = free.recv();
        }
        Ok(())
    }
    fn unlock(&mut self) -> io::Result<()> {
        self.say(Said::Unlock)
    }
    fn hand_over(&mut self) -> io::Result<()> {
        self.say(Said::HandOver)
    }
}

struct Rig {
    word: Word,
    bell: UnixStream,
    told: Receiver<Said>,
    keeper: JoinHandle<io::Result<()>>,
}

impl Rig {
    fn new(free: Option<Receiver<()>>, gone: bool) -> Rig {
        let (bell, theirs) = UnixStream::pair().unwrap();
        let word = Word::new().unwrap();
        let (tell, told) = channel();
        let other = word.twin();
        let keeper = std::thread::spawn(move || {
            let mut fake = Fake { told: tell, free, gone };
            keeper::keep(&other, OwnedFd::from(theirs).as_fd(), &mut fake)
        });
        Rig { word, bell, told, keeper }
    }

    /// As [`Lease::used`].
    fn used(&self) {
        if self.word.used() {
            (&self.bell).write_all(&[0]).unwrap();
        }
    }

    /// As the end of [`Lease`], which waits.
    fn end(&self) {
        self.bell.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn die(&self) {
        self.bell.shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn next(&self) -> Said {
        self.told.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_burst_has_a_lease_and_the_console_the_rest() {
    let rig = Rig::new(None, false);
    assert!(rig.told.recv_timeout(Duration::from_millis(20)).is_err(), "nobody used it");
    rig.used();
    assert_eq!([rig.next(), rig.next(), rig.next()], [Said::Lock, Said::Unlock, Said::HandOver]);
    // From sleep again.
    rig.used();
    assert_eq!(rig.next(), Said::Lock);
    rig.end();
    // It may have been given up meanwhile, on a busy machine even to the console.
    let said: Vec<Said> = rig.told.iter().collect();
    let (rest, end) = said.split_at(said.len().saturating_sub(2));
    assert_eq!(end, [Said::Unlock, Said::HandOver], "{said:?}");
    let given_up = [Said::Unlock, Said::HandOver];
    assert!(rest.is_empty() || rest == [Said::Unlock, Said::Lock] || rest.starts_with(&given_up), "{said:?}");
    rig.keeper.join().unwrap().unwrap();
}

#[test]
fn at_the_end_the_ranges_are_taken_once_more_where_a_reset_may_have_kept_them_from_the_console() {
    let rig = Rig::new(None, false);
    rig.used();
    assert_eq!([rig.next(), rig.next(), rig.next()], [Said::Lock, Said::Unlock, Said::HandOver]);
    rig.end();
    assert_eq!([rig.next(), rig.next(), rig.next()], [Said::Lock, Said::Unlock, Said::HandOver]);
    rig.keeper.join().unwrap().unwrap();
    assert!(rig.told.recv().is_err(), "more is said");
}

#[test]
fn the_ranges_are_not_taken_for_a_card_that_was_never_used() {
    for end in [Rig::end, Rig::die] {
        let rig = Rig::new(None, false);
        end(&rig);
        assert_eq!(rig.next(), Said::HandOver);
        rig.keeper.join().unwrap().unwrap();
        assert!(rig.told.recv().is_err(), "more is said");
    }
}

#[test]
fn who_never_stops_gives_it_up_again_and_again() {
    let rig = Rig::new(None, false);
    // How long each takes is for the terms' own tests: this thread may not run for as long. Nor for so long at a
    // time that the console has the ranges meanwhile, which is not before they were unused for AWAY.
    let (mut last, mut was_away) = (Instant::now(), false);
    let mut next = || {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            rig.used();
            was_away |= last.elapsed() >= AWAY;
            last = now;
            match rig.told.recv_timeout(Duration::from_micros(100)) {
                Ok(Said::HandOver) if was_away || last.elapsed() >= AWAY => {
                    (last, was_away) = (Instant::now(), false);
                }
                Ok(told) => return told,
                Err(_) => assert!(begun.elapsed() < PATIENCE, "nothing is said"),
            }
        }
    };
    for _ in 0..5 {
        assert_eq!([next(), next()], [Said::Lock, Said::Unlock]);
    }
}

#[test]
fn a_machine_that_dies_while_its_keeper_waits_leaves_no_lock_and_the_ranges_to_the_console() {
    let (free, wait) = channel();
    let rig = Rig::new(Some(wait), false);
    rig.used();
    assert_eq!(rig.next(), Said::Lock);
    rig.die();
    assert!(rig.told.recv_timeout(Duration::from_millis(20)).is_err(), "it waits for the lock");
    let given = Instant::now();
    free.send(()).unwrap();
    assert_eq!([rig.next(), rig.next()], [Said::Unlock, Said::HandOver]);
    // The kernel has closed the card meanwhile.
    assert_eq!(rig.next(), Said::Lock);
    assert!(given.elapsed() >= keeper::CLOSED);
    free.send(()).unwrap();
    assert_eq!([rig.next(), rig.next()], [Said::Unlock, Said::HandOver]);
    rig.keeper.join().unwrap().unwrap();
}

#[test]
fn without_its_card_the_keeper_ends_and_nobody_rings() {
    let rig = Rig::new(None, true);
    rig.used();
    assert_eq!(rig.next(), Said::Lock);
    assert_eq!(rig.keeper.join().unwrap().unwrap_err().raw_os_error(), Some(19));
    assert!(!rig.word.used() || !rig.word.used(), "at most one ring more");
    assert!(!rig.word.used());
}

#[test]
fn a_lease_whose_keeper_is_gone_or_stuck_hinders_nobody() {
    let arbiter = || Arbiter::blind(File::open("/dev/null").unwrap(), "0000:01:00.0".parse().unwrap());
    for (program, argument) in [("true", ""), ("sleep", "1000")] {
        let mut command = Command::new(program);
        command.arg(argument);
        let mut lease = Lease::start(command, arbiter()).unwrap();
        for _ in 0..100_000 {
            lease.used();
        }
        let begun = Instant::now();
        let id = lease.keeper.id();
        // The one that sleeps must be ended by somebody.
        let left = lease.keeper.try_wait();
        drop(lease);
        assert!(begun.elapsed() < PATIENCE);
        if matches!(left, Ok(None)) && program == "sleep" {
            let id = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        }
    }
}
