//! The world without KVM: threads that behave as vCPUs do.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{sleep, spawn};

use super::*;

/// Threads that "enter the guest" again and again, as the loop of a vCPU does.
struct Fakes {
    world: Arc<World>,
    inside: Arc<AtomicU32>,
    entries: Arc<AtomicU32>,
    resets: Arc<AtomicU32>,
}

impl Fakes {
    /// Each takes the topology mutex at every `every`th entry; 0 means never.
    fn start(vcpus: usize, every: u32) -> Fakes {
        let fakes = Fakes {
            world: Arc::new(World::new(vcpus)),
            inside: Arc::default(),
            entries: Arc::default(),
            resets: Arc::default(),
        };
        for vcpu in 0..vcpus {
            let world = fakes.world.clone();
            let (inside, entries, resets) =
                (fakes.inside.clone(), fakes.entries.clone(), fakes.resets.clone());
            fakes.world.begin(vcpu);
            let thread = spawn(move || {
                loop {
                    if world.wants(vcpu) {
                        match world.pause(vcpu, false) {
                            Next::Run => {}
                            Next::Stop => break,
                            Next::Reset => {
                                resets.fetch_add(1, SeqCst);
                                world.reset_done(vcpu, Ok(()));
                                continue;
                            }
                        }
                    }
                    inside.fetch_add(1, SeqCst);
                    let entry = entries.fetch_add(1, SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                    if every > 0 && entry.is_multiple_of(every) {
                        change(&world, Some(vcpu), &inside);
                    }
                }
                world.leave(vcpu);
            });
            fakes.world.seat(vcpu, thread);
        }
        fakes.world.await_arrival(vcpus).unwrap();
        fakes
    }

    fn stop(self) {
        self.world.stop();
        for vcpu in 0..self.world.vcpus() {
            assert!(self.world.join(vcpu));
        }
        assert_eq!(self.inside.load(SeqCst), 0);
    }
}

impl World {
    /// The thread of this vCPU is about to exist.
    fn begin(&self, vcpu: usize) {
        kick::install_handler();
        self.sit(&mut self.state.lock(), vcpu, Seat::Running);
    }
}

/// Parks, and looks whether anybody is inside.
fn change(world: &World, vcpu: Option<usize>, inside: &AtomicU32) {
    let guard = vcpu.map_or_else(|| Ok(world.lock()), |vcpu| world.lock_on_vcpu(vcpu));
    let Ok(mut guard) = guard else { return };
    let parked = guard.park().unwrap();
    for _ in 0..10 {
        assert_eq!(inside.load(SeqCst), 0, "a vCPU runs while parked");
        std::thread::yield_now();
    }
    drop(parked);
}

#[test]
fn nobody_runs_before_the_release_or_while_parked() {
    let fakes = Fakes::start(3, 0);
    sleep(Duration::from_millis(20));
    assert_eq!(fakes.entries.load(SeqCst), 0);
    change(&fakes.world, None, &fakes.inside);
    fakes.world.release();
    for _ in 0..200 {
        let before = fakes.entries.load(SeqCst);
        change(&fakes.world, None, &fakes.inside);
        while fakes.entries.load(SeqCst) == before {
            std::thread::yield_now();
        }
    }
    fakes.stop();
}

#[test]
fn many_changers_take_turns() {
    let fakes = Fakes::start(4, 3);
    fakes.world.release();
    let others: Vec<_> = (0..2)
        .map(|_| {
            let (world, inside) = (fakes.world.clone(), fakes.inside.clone());
            spawn(move || (0..200).for_each(|_| change(&world, None, &inside)))
        })
        .collect();
    for other in others {
        other.join().unwrap();
    }
    fakes.stop();
}

#[test]
fn a_reset_reaches_every_vcpu_once_even_those_that_wait_for_the_mutex() {
    let fakes = Fakes::start(4, 2);
    fakes.world.release();
    for round in 1..=100 {
        let mut guard = fakes.world.lock();
        let parked = guard.park().unwrap();
        parked.reset_vcpus().unwrap().unwrap();
        assert_eq!(fakes.resets.load(SeqCst), 4 * round);
    }
    fakes.stop();
}

#[test]
fn a_stop_ends_those_who_wait_and_those_who_are_parked() {
    for _ in 0..50 {
        let fakes = Fakes::start(4, 1);
        fakes.world.release();
        let world = fakes.world.clone();
        let mut guard = world.lock();
        let parked = guard.park().unwrap();
        fakes.stop();
        drop(parked);
        assert_eq!(world.lock_state(), (false, true));
        drop(guard);
        assert!(world.lock_on_vcpu(0).is_err(), "nothing changes after a stop");
    }
}

impl World {
    /// Whether a park is wanted, and whether the mutex is held.
    fn lock_state(&self) -> (bool, bool) {
        let state = self.state.lock();
        (state.parking, state.locked)
    }
}

#[test]
fn the_message_names_all_that_are_late() {
    let late = NotParked { vcpus: vec![0, 3] };
    assert_eq!(late.to_string(), "vcpu0, vcpu3 did not stop within 20 s: a device behind it hangs");
}

/// A vCPU that waits for `ready` on its way to the topology mutex, and whether it got it.
fn waits(fakes: &Fakes, ready: &Arc<AtomicU32>) -> std::thread::JoinHandle<bool> {
    let (world, ready) = (fakes.world.clone(), ready.clone());
    world.begin(1);
    spawn(move || {
        let got = world.lock_on_vcpu_when(1, || ready.load(SeqCst) == 1).is_ok();
        world.leave(1);
        got
    })
}

/// One vCPU that runs, and the place of another.
fn one_of_two() -> Fakes {
    let fakes = Fakes { world: Arc::new(World::new(2)), ..Fakes::start(0, 0) };
    fakes.world.release();
    fakes
}

#[test]
fn who_waits_for_something_counts_as_parked_and_keeps_nobody_out() {
    let (fakes, ready) = (one_of_two(), Arc::new(AtomicU32::new(0)));
    let waiter = waits(&fakes, &ready);
    for _ in 0..20 {
        change(&fakes.world, None, &fakes.inside);
        sleep(Duration::from_millis(1));
    }
    assert!(!waiter.is_finished());
    // Ready while somebody else has the mutex: it waits on.
    let guard = fakes.world.lock();
    ready.store(1, SeqCst);
    fakes.world.look_again();
    sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    drop(guard);
    assert!(waiter.join().unwrap());
}

#[test]
fn a_stop_or_a_reset_ends_the_waiting() {
    let (fakes, ready) = (one_of_two(), Arc::new(AtomicU32::new(0)));
    let waiter = waits(&fakes, &ready);
    sleep(Duration::from_millis(10));
    let mut guard = fakes.world.lock();
    let parked = guard.park().unwrap();
    parked.reset_vcpus().unwrap().unwrap();
    drop(parked);
    drop(guard);
    assert!(!waiter.join().unwrap(), "its write was the old guest's");

    let waiter = waits(&fakes, &ready);
    sleep(Duration::from_millis(10));
    fakes.world.stop();
    assert!(!waiter.join().unwrap());
}

#[test]
fn a_vcpu_comes_out_of_one_call_after_another() {
    use rustix::event::{EventfdFlags, eventfd};

    let world = Arc::new(World::new(1));
    let never = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let read = Arc::clone(&never);
    world.begin(0);
    let inside = Arc::clone(&world);
    let thread = spawn(move || {
        kick::admit();
        // An access that is two transfers, of which each needs its signal.
        for _ in 0..2 {
            let _ = rustix::io::read(&*read, &mut [0; 8]);
        }
        inside.leave(0);
    });
    world.seat(0, thread);
    let late = spawn(move || {
        // So that this ends, whatever is wrong.
        for _ in 0..2 {
            sleep(Duration::from_secs(20));
            let _ = rustix::io::write(&*never, &1_u64.to_ne_bytes());
        }
    });
    sleep(Duration::from_millis(50));
    let since = Instant::now();
    world.stop();
    assert!(world.join(0));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    drop(late);
}
