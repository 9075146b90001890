//! The loop of one vCPU.

use std::sync::Arc;
use std::time::Duration;

use trapline_io::Trap;
use trapline_io::path::Path;

use crate::exit;
use crate::kick::{self, OwnedVcpu};
use crate::run::{self, Exit};
use crate::state::State;
use crate::vcpus::Exits;
use crate::world::{Next, World};

/// How often in a row `KVM_RUN` may find no memory behind a slot before that is an error: a slot of a
/// device's memory can vanish under us, which the retry sees as a trap once the slot is gone.
const MEMORY_RETRIES: u32 = 1000;

/// How many of those come at once; the others come a millisecond apart.
const QUICK_RETRIES: u32 = 16;

/// After so many the machine is told, so that it takes the slot away: a device may keep its memory for
/// long.
const RETRIES_TO_TELL: u32 = 50;

/// Memory that was not there, time after time.
#[derive(Debug, Default)]
struct LostMemory {
    times: u32,
}

impl LostMemory {
    /// Whether it is time to tell that the memory stays away.
    fn is_worth_telling(&self) -> bool {
        self.times > 0 && self.times.is_multiple_of(RETRIES_TO_TELL)
    }

    /// It was not there again: how long to wait before the next try, or `None` to give up.
    fn again(&mut self) -> Option<Duration> {
        self.times += 1;
        if self.times > MEMORY_RETRIES {
            self.times = 0;
            return None;
        }
        let later = self.times > QUICK_RETRIES;
        Some(Duration::from_millis(u64::from(later)))
    }
}

/// All that a vCPU thread owns.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) vcpu: OwnedVcpu,
    pub(crate) path: Path,
    pub(crate) world: Arc<World>,
    pub(crate) exits: Arc<dyn Exits>,
    pub(crate) at_creation: State,
}

/// The thread's place in the world: given back whatever ends the thread, before its descriptor.
struct Place<'a> {
    world: &'a World,
    index: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.world.leave(self.index);
    }
}

impl Thread {
    /// Runs the vCPU until the world stops.
    pub(crate) fn run(mut self) {
        kick::admit();
        self.exits.begins(self.index);
        let world = Arc::clone(&self.world);
        world.arrive(self.index, self.vcpu.immediate_exit().clone());
        let _place = Place { world: &world, index: self.index };
        // A vCPU that cannot go on stays parked until it is reset.
        let mut held = false;
        let mut lost = LostMemory::default();
        let mut entered = false;
        loop {
            if held || world.wants(self.index) {
                match world.pause(self.index, held) {
                    // For whoever measures how long a guest takes.
                    Next::Run if !std::mem::replace(&mut entered, true) => {
                        tracing::debug!(vcpu = self.index, "enters the guest");
                    }
                    Next::Run => {}
                    Next::Stop => return,
                    Next::Reset => {
                        let done = self.at_creation.restore(&mut self.vcpu);
                        held = done.is_err();
                        world.reset_done(self.index, done.map_err(|error| error.to_string()));
                        continue;
                    }
                }
            }
            match self.step() {
                Ok(()) => lost.times = 0,
                Err(trouble) => held = self.is_stuck(trouble, &mut lost),
            }
        }
    }

    /// Reports what cannot go on; waits a little and goes on where that may help. True if the vCPU
    /// must not enter the guest again before a reset.
    #[cold]
    fn is_stuck(&self, trouble: Trouble, lost: &mut LostMemory) -> bool {
        match trouble {
            Trouble::Shutdown => self.exits.shutdown(self.index),
            Trouble::Failed(text) => self.exits.failed(self.index, &text),
            Trouble::NoMemory(at) => {
                if let Some(wait) = lost.again() {
                    if lost.is_worth_telling() {
                        self.exits.no_memory(self.index, at);
                    }
                    if !wait.is_zero() {
                        std::thread::sleep(wait);
                    }
                    return false;
                }
                let place = at.map_or_else(|| "an unknown address".into(), |gpa| format!("{gpa:?}"));
                let text = format!("the memory behind {place} is gone (KVM_RUN says EFAULT)");
                self.exits.failed(self.index, &text);
            }
        }
        true
    }

    /// Once into the guest, and what it wanted.
    #[inline]
    fn step(&mut self) -> Result<(), Trouble> {
        let Thread { index, vcpu, path, world, .. } = self;
        path.caller.resume();
        let exit = run::enter(vcpu.fd_mut());
        if exit.is_access() {
            path.caller.exit();
        }
        // One exit may be a thousand accesses, and a device may take seconds for each.
        let carry_out = |trap: Trap| match world.wants(*index) && world.stopping() {
            true => trap.width.all_ones(),
            false => path.carry_out(trap),
        };
        match exit {
            Exit::PortIn { port, size, data } => exit::port_in(port, size, data, carry_out),
            Exit::PortOut { port, size, data } => exit::port_out(port, size, data, carry_out),
            Exit::MemoryRead { gpa, data } => exit::memory_read(gpa, data, carry_out),
            Exit::MemoryWrite { gpa, data } => exit::memory_write(gpa, data, carry_out),
            Exit::Interrupted => {}
            Exit::Shutdown => return Err(Trouble::Shutdown),
            Exit::NoMemory(at) => return Err(Trouble::NoMemory(at)),
            Exit::Failed(text) => return Err(Trouble::Failed(text)),
        }
        Ok(())
    }
}

/// Why the vCPU does not simply go on.
enum Trouble {
    Shutdown,
    NoMemory(Option<trapline_io::Gpa>),
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_memory_is_tried_for_a_second_and_no_longer() {
        let mut lost = LostMemory::default();
        for _ in 0..2 {
            let waits: Vec<Duration> = std::iter::from_fn(|| lost.again()).collect();
            assert_eq!(waits.len(), 1000);
            assert!(waits[..16].iter().all(Duration::is_zero));
            assert!(waits.iter().sum::<Duration>() < Duration::from_secs(1));
        }
    }
}
