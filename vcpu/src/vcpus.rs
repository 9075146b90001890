//! The vCPUs of a machine: made together, started together, reset and joined together.

use std::sync::Arc;

use trapline_io::Gpa;
use trapline_io::path::Path;
use vmm_sys_util::errno;

use crate::coalesced::Coalesced;
use crate::cpuid::Cpuid;
use crate::kick::{self, OwnedVcpu};
use crate::state::{State, StateError};
use crate::thread::Thread;
use crate::vm::Vm;
use crate::world::{NotParked, Parked, World};

/// What the vCPUs have to tell the machine. Called on vCPU threads with nothing locked; must not wait
/// for a vCPU (no park, no join): it notes the event for another thread.
pub trait Exits: Send + Sync {
    /// The vCPU's thread has begun; nothing was done yet. It may give up what a vCPU has no use for.
    fn begins(&self, vcpu: usize) {
        let _ = vcpu;
    }

    /// A triple fault. The vCPU stays parked until it is reset or stopped.
    fn shutdown(&self, vcpu: usize);

    /// KVM cannot run the vCPU; `text` says what KVM said. The vCPU stays parked until it is reset
    /// or stopped.
    fn failed(&self, vcpu: usize, text: &str);

    /// The memory behind a slot stays away, at `at` if the kernel tells. Called once or more before the
    /// vCPU gives up: if the slot is removed, the access traps. May take the topology mutex.
    fn no_memory(&self, vcpu: usize, at: Option<Gpa>) {
        let _ = (vcpu, at);
    }
}

/// Why the vCPUs could not be made or reset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More vCPUs than KVM can have.
    #[error("{asked} vCPUs asked for: this kernel's KVM has at most {most}")]
    TooMany {
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        most: usize,
    },
    /// [`World::new`] was told another number.
    #[error("{paths} access paths for a world of {seats} vCPUs")]
    Count {
        /// How many paths were given.
        paths: usize,
        /// How many vCPUs the world has.
        seats: usize,
    },
    /// The kernel's list of processor features could not be read.
    #[error("KVM does not tell which processor features it supports: {0}")]
    Features(#[source] errno::Error),
    /// A vCPU could not be made.
    #[error("KVM could not make vcpu{vcpu}: {source}")]
    Make {
        /// Its number.
        vcpu: usize,
        /// What the kernel said.
        source: errno::Error,
    },
    /// A vCPU could not be set up.
    #[error("vcpu{vcpu} could not be set up: {source}")]
    SetUp {
        /// Its number.
        vcpu: usize,
        /// What failed.
        source: StateError,
    },
    /// A thread could not be made.
    #[error("the thread of vcpu{vcpu} could not be started: {source}")]
    Thread {
        /// The number of its vCPU.
        vcpu: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// Some vCPUs did not answer.
    #[error(transparent)]
    NotParked(#[from] NotParked),
    /// Some vCPUs could not be reset.
    #[error("vcpu{vcpu} could not be reset: {text}")]
    Reset {
        /// The first of them.
        vcpu: usize,
        /// What it said.
        text: String,
    },
    /// The interrupt controllers, the timer or the clock could not be reset.
    #[error("the interrupt controllers could not be reset: {0}")]
    Chips(#[source] errno::Error),
    /// A reset was asked for on a vCPU thread, or with another machine's world parked.
    #[error("a reset needs all vCPUs of its own machine parked, by a thread that is no vCPU's")]
    WrongThread,
    /// A vCPU thread ended by a panic, which is a bug.
    #[error("the thread of vcpu{0} panicked")]
    Panicked(usize),
}

/// The vCPU threads, called `vcpu0` and so on. Dropping this stops and joins them.
#[derive(Debug)]
pub struct Vcpus {
    vm: Arc<Vm>,
    world: Arc<World>,
    collected: Option<Arc<Coalesced>>,
}

impl Vcpus {
    /// Makes one vCPU and its thread for each path. They stand parked until [`World::release`]; vCPU
    /// 0 starts at the reset vector, the others wait for INIT and SIPI.
    ///
    /// # Errors
    /// See [`Error`]; threads that were started already are gone then.
    pub fn spawn(
        vm: Arc<Vm>,
        world: Arc<World>,
        paths: Vec<Path>,
        exits: Arc<dyn Exits>,
    ) -> Result<Vcpus, Error> {
        let count = paths.len();
        if count != world.vcpus() {
            return Err(Error::Count { paths: count, seats: world.vcpus() });
        }
        let most = vm.max_vcpus();
        if count > most {
            return Err(Error::TooMany { asked: count, most });
        }
        kick::install_handler();
        let cpuid = Cpuid::of_host(&vm, count).map_err(Error::Features)?;
        let mut made = Vec::with_capacity(count);
        for vcpu in 0..count {
            made.push(make(&vm, vcpu, &cpuid)?);
        }
        let collected = made.first().and_then(|(vcpu, _)| ring(&vm, vcpu)).map(Arc::new);
        // From here on a failure drops this, which stops and joins what was started.
        let vcpus = Vcpus { vm, world, collected };
        for (index, (path, (vcpu, at_creation))) in paths.into_iter().zip(made).enumerate() {
            let world = Arc::clone(&vcpus.world);
            let exits = Arc::clone(&exits);
            let thread = Thread { index, vcpu, path, world, exits, at_creation };
            let started = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || thread.run())
                .map_err(|source| Error::Thread { vcpu: index, source })?;
            vcpus.world.seat(index, started);
        }
        vcpus.world.await_arrival(count)?;
        Ok(vcpus)
    }

    /// The ring of the writes that KVM collects, which [`crate::Zones`] say; `None` if this KVM cannot.
    pub fn collected(&self) -> Option<Arc<Coalesced>> {
        self.collected.clone()
    }

    /// Brings every vCPU, the interrupt controllers, the timer and the clock back to what they were
    /// when they were made; what a vCPU was doing is thrown away. The vCPUs run on from the reset
    /// vector when `parked` is dropped.
    ///
    /// Devices are to be reset after this: a vCPU that was sent away from the topology mutex may
    /// carry out the rest of a split access before it parks.
    ///
    /// # Errors
    /// [`Error::WrongThread`] if a vCPU's own thread parked the others: its access is not finished.
    /// Otherwise what went wrong; the machine cannot go on then.
    pub fn reset(&self, parked: &Parked<'_>) -> Result<(), Error> {
        if parked.initiator().is_some() || !parked.is_of(&self.world) {
            return Err(Error::WrongThread);
        }
        if let Err(failed) = parked.reset_vcpus()?
            && let Some((vcpu, text)) = failed.into_iter().next()
        {
            return Err(Error::Reset { vcpu, text });
        }
        self.vm.reset_chips().map_err(Error::Chips)
    }

    /// Waits for the end of all vCPU threads, which [`World::stop`] brings about. Their paths are
    /// dropped then. Not to be called on a vCPU thread.
    ///
    /// # Errors
    /// [`Error::Panicked`] if one ended by a panic.
    pub fn join(self) -> Result<(), Error> {
        self.join_all()
    }

    fn join_all(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for vcpu in 0..self.world.vcpus() {
            if !self.world.join(vcpu) {
                result = Err(Error::Panicked(vcpu));
            }
        }
        result
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.world.stop();
        if let Err(error) = self.join_all() {
            tracing::error!(%error, "vCPU thread");
        }
    }
}

/// The machine's ring, which every vCPU has. Without it all writes trap, as on a kernel that has none.
fn ring(vm: &Vm, vcpu: &OwnedVcpu) -> Option<Coalesced> {
    let mapped = Coalesced::of_vcpu(vcpu.fd(), vm.ring_offset()?);
    mapped.inspect_err(|error| tracing::warn!(%error, "KVM collects no writes")).ok()
}

/// Makes one vCPU and gives it its features; its state then is that of power-on.
pub(crate) fn make(vm: &Vm, vcpu: usize, cpuid: &Cpuid) -> Result<(OwnedVcpu, State), Error> {
    let fd = vm.fd().create_vcpu(vcpu as u64).map_err(|source| Error::Make { vcpu, source })?;
    let state = State::at_creation(vm, &fd, &cpuid.of_vcpu(vcpu, fd.get_tsc_khz().ok()))
        .map_err(|source| Error::SetUp { vcpu, source })?;
    Ok((OwnedVcpu::new(fd), state))
}
