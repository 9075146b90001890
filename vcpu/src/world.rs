//! Stopping the world: one topology mutex, and parking every vCPU.
//!
//! A vCPU is *parked* when its thread is outside `KVM_RUN` with no access in hand and will stay so. A
//! vCPU that waits for the topology mutex counts as parked: its access has touched nothing yet.
//! Only the holder of the mutex parks, so there is one park at a time, and two vCPUs that change the
//! map at once cannot wait for each other.
//!
//! ```
//! # use trapline_vcpu::World;
//! let world = World::new(0);
//! let mut guard = world.lock();
//! {
//!     let parked = guard.park()?;
//!     // Change slots of RAM here.
//!     drop(parked); // the vCPUs run on
//! }
//! # Ok::<(), trapline_vcpu::NotParked>(())
//! ```
//!
//! # A write that changes the map
//!
//! On the vCPU that makes it: [`World::lock_on_vcpu`]; if that is [`Overtaken`], return without
//! touching anything. [`WorldGuard::park`], for the registers tell of the change to whoever reads them
//! before the map has it. Publish the map without what the write may take away;
//! [`remove_unwanted`](crate::Slots::remove_unwanted); drain; carry the write out. Then compute the
//! new map, publish, [`add_missing`](crate::Slots::add_missing), and drop what is held.
//!
//! All of it is one mutex over a few words and two condition variables. None of it is on the access
//! path: a vCPU only reads its own flag before each `KVM_RUN`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::kick::{self, ImmediateExit};

mod parked;

pub use parked::{Parked, WorldGuard};

/// How long a vCPU may take to park or to reset itself. An access that takes longer is a device
/// without a deadline, which is a bug; better an error than a machine that hangs for ever. A host that is short of
/// processors or memory may let a thread stand still for seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to wake a vCPU that is to end, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// What one vCPU thread is doing, as far as parking is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    /// There is no thread, or it has ended.
    Vacant,
    /// In the guest, or carrying out an access.
    Running,
    /// Waiting for the topology mutex.
    Waiting,
    /// In [`World::pause`].
    Parked,
}

/// A reset that one vCPU is asked for.
#[derive(Debug, Default)]
enum Errand {
    #[default]
    None,
    Asked,
    Begun,
    Done(Result<(), String>),
}

#[derive(Debug)]
struct Place {
    seat: Seat,
    errand: Errand,
    immediate_exit: Option<ImmediateExit>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    /// Somebody holds the topology mutex.
    locked: bool,
    /// The holder wants all others parked.
    parking: bool,
    /// The vCPUs may run at all.
    released: bool,
    /// The guest asked for something after which it must not go on by itself.
    held: bool,
    /// The vCPUs are to end.
    stopping: bool,
    /// Whoever waits for the topology mutex on a vCPU is sent away.
    turning_away: bool,
    places: Vec<Place>,
}

impl State {
    /// The vCPUs other than `but` whose seat is not `at_rest`.
    fn others(&self, but: Option<usize>, at_rest: impl Fn(Seat) -> bool) -> Vec<usize> {
        let places = self.places.iter().enumerate();
        places.filter(|(i, place)| Some(*i) != but && !at_rest(place.seat)).map(|(i, _)| i).collect()
    }
}

/// A flag of one vCPU on a cache line of its own, since it is read at every exit.
#[derive(Debug)]
#[repr(align(128))]
struct Attention(AtomicBool);

/// What a vCPU thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Enter the guest.
    Run,
    /// Go back to the state at creation, report with [`World::reset_done`], and pause again.
    Reset,
    /// End.
    Stop,
}

/// All vCPUs of a machine, as far as stopping them goes. Shared by `Arc`.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    attention: Box<[Attention]>,
    /// A seat or an errand changed: for whoever waits for vCPUs.
    moved: Condvar,
    /// Something was allowed: for vCPUs that are parked and for whoever waits for the topology mutex.
    allowed: Condvar,
}

/// The access that a vCPU wanted the topology mutex for is void: the machine is being reset or
/// stopped. To be dropped without touching anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine is being reset or stopped")]
pub struct Overtaken;

/// Some vCPUs did not come to rest in time. They were let go again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotParked {
    /// Their numbers.
    pub vcpus: Vec<usize>,
}

impl fmt::Display for NotParked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, vcpu) in self.vcpus.iter().enumerate() {
            write!(f, "{}vcpu{vcpu}", if i == 0 { "" } else { ", " })?;
        }
        write!(f, " did not stop within {} s: a device behind it hangs", PATIENCE.as_secs())
    }
}

impl std::error::Error for NotParked {}

impl World {
    /// The world of a machine with `vcpus` vCPUs, which have no threads yet and may not run yet.
    pub fn new(vcpus: usize) -> World {
        let place = || Place { seat: Seat::Vacant, errand: Errand::None, immediate_exit: None, thread: None };
        World {
            state: Mutex::new(State {
                locked: false,
                parking: false,
                released: false,
                held: false,
                stopping: false,
                turning_away: false,
                places: std::iter::repeat_with(place).take(vcpus).collect(),
            }),
            // Every vCPU starts by pausing.
            attention: std::iter::repeat_with(|| Attention(AtomicBool::new(true))).take(vcpus).collect(),
            moved: Condvar::new(),
            allowed: Condvar::new(),
        }
    }

    /// How many vCPUs the machine has.
    pub fn vcpus(&self) -> usize {
        self.attention.len()
    }

    /// Takes the topology mutex on a thread that is no vCPU's. Waits as long as others hold it. Not to
    /// be called while holding an endpoint's token.
    pub fn lock(&self) -> WorldGuard<'_> {
        let mut state = self.state.lock();
        while state.locked {
            self.allowed.wait(&mut state);
        }
        state.locked = true;
        WorldGuard::of(self, None)
    }

    /// Takes the topology mutex on the thread of a vCPU, which counts as parked while it waits. Not
    /// to be called while holding an endpoint's token.
    ///
    /// # Errors
    /// [`Overtaken`] if the machine is reset or stopped meanwhile: the access is to be dropped.
    pub fn lock_on_vcpu(&self, vcpu: usize) -> Result<WorldGuard<'_>, Overtaken> {
        self.lock_on_vcpu_when(vcpu, || true)
    }

    /// The same, but waits first until `ready` says true, without keeping the mutex from others. Whoever
    /// changes what `ready` says calls [`World::look_again`] afterwards.
    ///
    /// # Errors
    /// As [`World::lock_on_vcpu`].
    pub fn lock_on_vcpu_when(
        &self,
        vcpu: usize,
        ready: impl Fn() -> bool,
    ) -> Result<WorldGuard<'_>, Overtaken> {
        let mut state = self.state.lock();
        while (state.locked || !ready()) && !state.stopping && !state.turning_away {
            self.sit(&mut state, vcpu, Seat::Waiting);
            self.allowed.wait(&mut state);
        }
        self.sit(&mut state, vcpu, Seat::Running);
        if state.stopping || state.turning_away {
            return Err(Overtaken);
        }
        state.locked = true;
        Ok(WorldGuard::of(self, Some(vcpu)))
    }

    /// Has whoever waits in [`World::lock_on_vcpu_when`] ask again. Any thread.
    pub fn look_again(&self) {
        // Between asking and sleeping the waiter holds this lock.
        drop(self.state.lock());
        self.allowed.notify_all();
    }

    /// Lets the vCPUs run, once everything is in place.
    pub fn release(&self) {
        self.state.lock().released = true;
        self.allowed.notify_all();
    }

    /// Keeps every vCPU from entering the guest again, from the exit on that it is in, until
    /// [`World::unhold`]: the guest asked for a reset or for power-off, after which none of its
    /// instructions may run. Does not wait; any thread, also with an endpoint's token held.
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.held = true;
        self.kick(&state, None);
    }

    /// Lets the vCPUs run again, from where they are or from where a reset put them.
    pub fn unhold(&self) {
        self.state.lock().held = false;
        self.allowed.notify_all();
    }

    /// Sends all vCPU threads home, for good. Does not wait; any thread, a vCPU's own included.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.kick(&state, None);
        drop(state);
        self.allowed.notify_all();
    }

    /// Whether [`World::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.state.lock().stopping
    }

    fn sit(&self, state: &mut State, vcpu: usize, seat: Seat) {
        if let Some(place) = state.places.get_mut(vcpu) {
            place.seat = seat;
            self.moved.notify_all();
        }
    }

    /// Makes every vCPU but `but` come out of `KVM_RUN` and ask what is wanted. The reason must be in
    /// `state` already, which the caller holds.
    fn kick(&self, state: &State, but: Option<usize>) {
        for (i, (place, attention)) in state.places.iter().zip(&self.attention).enumerate() {
            if Some(i) == but {
                continue;
            }
            attention.0.store(true, Ordering::Release);
            if let Some(immediate_exit) = &place.immediate_exit {
                immediate_exit.set(true);
            }
            if let (Seat::Running, Some(thread)) = (place.seat, &place.thread) {
                kick::interrupt(thread);
            }
        }
    }

    /// Waits until no vCPU is left in `busy`; gives those that were too slow.
    fn await_vcpus(
        &self,
        state: &mut MutexGuard<'_, State>,
        busy: impl Fn(&State) -> Vec<usize>,
    ) -> Result<(), NotParked> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let vcpus = busy(state);
            if vcpus.is_empty() {
                return Ok(());
            }
            if self.moved.wait_until(state, deadline).timed_out() {
                let vcpus = busy(state);
                return if vcpus.is_empty() { Ok(()) } else { Err(NotParked { vcpus }) };
            }
        }
    }
}

/// What the vCPU threads and their owner call.
impl World {
    /// Whether this vCPU has to call [`World::pause`] before it enters the guest.
    #[inline]
    pub(crate) fn wants(&self, vcpu: usize) -> bool {
        self.attention.get(vcpu).is_none_or(|attention| attention.0.load(Ordering::Acquire))
    }

    /// The vCPU's thread takes its place. `immediate_exit` stays usable until [`World::leave`].
    pub(crate) fn arrive(&self, vcpu: usize, immediate_exit: ImmediateExit) {
        let mut state = self.state.lock();
        if let Some(place) = state.places.get_mut(vcpu) {
            place.immediate_exit = Some(immediate_exit);
        }
        self.sit(&mut state, vcpu, Seat::Running);
    }

    /// The vCPU's thread ends.
    pub(crate) fn leave(&self, vcpu: usize) {
        let mut state = self.state.lock();
        if let Some(place) = state.places.get_mut(vcpu) {
            place.immediate_exit = None;
            if let Errand::Asked | Errand::Begun = place.errand {
                place.errand = Errand::Done(Err("its thread has ended".into()));
            }
        }
        self.sit(&mut state, vcpu, Seat::Vacant);
    }

    /// Parks the vCPU until it may run, must reset itself, or must end. With `held` it may not run
    /// before a reset.
    pub(crate) fn pause(&self, vcpu: usize, held: bool) -> Next {
        let mut state = self.state.lock();
        self.sit(&mut state, vcpu, Seat::Parked);
        loop {
            if state.stopping {
                return Next::Stop;
            }
            let may_run = state.released && !state.parking && !state.held && !held;
            let Some(place) = state.places.get_mut(vcpu) else {
                return Next::Stop;
            };
            if let Errand::Asked = place.errand {
                place.errand = Errand::Begun;
                return Next::Reset;
            }
            if may_run {
                // Under the lock: whoever wants something later sets these again after us.
                if let Some(immediate_exit) = &place.immediate_exit {
                    immediate_exit.set(false);
                }
                if let Some(attention) = self.attention.get(vcpu) {
                    attention.0.store(false, Ordering::Release);
                }
                self.sit(&mut state, vcpu, Seat::Running);
                return Next::Run;
            }
            self.allowed.wait(&mut state);
        }
    }

    /// The vCPU has reset itself, or could not.
    pub(crate) fn reset_done(&self, vcpu: usize, result: Result<(), String>) {
        let mut state = self.state.lock();
        if let Some(place) = state.places.get_mut(vcpu) {
            place.errand = Errand::Done(result);
        }
        self.moved.notify_all();
    }

    /// Keeps the thread of a vCPU, so that it can be kicked and joined.
    pub(crate) fn seat(&self, vcpu: usize, thread: JoinHandle<()>) {
        if let Some(place) = self.state.lock().places.get_mut(vcpu) {
            place.thread = Some(thread);
        }
    }

    /// Waits until the first `vcpus` vCPUs stand parked for the first time.
    pub(crate) fn await_arrival(&self, vcpus: usize) -> Result<(), NotParked> {
        let mut state = self.state.lock();
        self.await_vcpus(&mut state, |state| {
            let places = state.places.iter().enumerate().take(vcpus);
            places.filter(|(_, place)| place.seat != Seat::Parked).map(|(i, _)| i).collect()
        })
    }

    /// Waits for the end of the vCPU's thread, if it had one. False if it ended by a panic.
    pub(crate) fn join(&self, vcpu: usize) -> bool {
        let mut state = self.state.lock();
        // A device that sleeps is left by a signal, which comes for nothing between two of its transfers. Who cannot be
        // woken keeps each, and of those the host has not too many.
        let mut pause = FIRST_PAUSE;
        while let Some(Place { thread: Some(thread), .. }) = state.places.get(vcpu)
            && state.stopping
            && !thread.is_finished()
        {
            kick::interrupt(thread);
            self.moved.wait_for(&mut state, pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        let thread = state.places.get_mut(vcpu).and_then(|place| place.thread.take());
        drop(state);
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

#[cfg(test)]
mod tests;
