//! The loop of one vCPU.

use std::sync::Arc;
use std::time::Duration;

use trapline_io::path::Path;

use crate::exit;
use crate::kick::OwnedVcpu;
use crate::run::{self, Exit};
use crate::state::State;
use crate::vcpus::Exits;
use crate::world::{Next, World};

/// How often in a row `KVM_RUN` may find no memory behind a slot before that is an error: a slot of a
/// device's memory can vanish under us, which the retry sees as a trap once the slot is gone.
const MEMORY_RETRIES: u32 = 1000;

/// How many of those come at once; the others come a millisecond apart.
const QUICK_RETRIES: u32 = 16;

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
        let world = Arc::clone(&self.world);
        world.arrive(self.index, self.vcpu.immediate_exit().clone());
        let _place = Place { world: &world, index: self.index };
        // A vCPU that can not go on stays parked until it is reset.
        let mut held = false;
        let mut without_memory = 0;
        loop {
            if held || world.wants(self.index) {
                match world.pause(self.index, held) {
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
            let at = match self.step() {
                Ok(()) => {
                    without_memory = 0;
                    continue;
                }
                Err(Trouble::NoMemory(at)) => at,
                Err(Trouble::Shutdown) => {
                    held = true;
                    self.exits.shutdown(self.index);
                    continue;
                }
                Err(Trouble::Failed(text)) => {
                    held = true;
                    self.exits.failed(self.index, &text);
                    continue;
                }
            };
            without_memory += 1;
            if without_memory > MEMORY_RETRIES {
                held = true;
                without_memory = 0;
                let place = at.map_or_else(|| "an unknown address".into(), |gpa| format!("{gpa:?}"));
                self.exits.failed(self.index, &format!("the memory behind {place} is gone (EFAULT)"));
            } else if without_memory > QUICK_RETRIES {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Once into the guest, and what it wanted.
    #[inline]
    fn step(&mut self) -> Result<(), Trouble> {
        let Thread { vcpu, path, .. } = self;
        // Stages: the time of resuming is now, that of the exit right behind the next line.
        let exit = run::enter(vcpu.fd_mut());
        match exit {
            Exit::PortIn { port, size, data } => {
                exit::port_in(port, size, data, |trap| path.carry_out(trap));
            }
            Exit::PortOut { port, size, data } => {
                exit::port_out(port, size, data, |trap| path.carry_out(trap));
            }
            Exit::MemoryRead { gpa, data } => exit::memory_read(gpa, data, |trap| path.carry_out(trap)),
            Exit::MemoryWrite { gpa, data } => exit::memory_write(gpa, data, |trap| path.carry_out(trap)),
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
