//! The birth, life and death of a virtual machine.
//!
//! A machine is made of [`Parts`] and knows nothing of what they are. All its threads and
//! descriptors exist before the first vCPU runs: workers first, then vCPU threads, parked. It ends
//! in the reverse order: vCPUs stop, the clock of the legacy window brings out what the guest wrote to it,
//! workers drain and stop, devices are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use trapline_devices::host;
use trapline_io::completion::{Caller, Completions};
use trapline_io::device::Range;
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::path::{self, Path};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigLatch, EndpointId};
use trapline_io::stages::Stages;
use trapline_io::window::Mode;
use trapline_io::worker::{Served, Worker};
use trapline_io::{Gpa, Trap};
use trapline_vcpu::slots::SlotError;
use trapline_vcpu::{Coalesced, Exits, NotParked, Vcpus, Vm, World, ZoneError, Zones};

use crate::dma::{Gate, Peers};
use crate::events::{Event, Events};
use crate::parts::{PartId, Parts, ServedBy};
use crate::sandbox::{Kind, Seccomp};
use crate::topology::map::Node;
use crate::topology::{Collection, Topology, Trouble};
use crate::trace::{Notes, Probes};
use crate::window::{self, Clock};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched itself off.
    PowerOff,
    /// The person in front of it left, or a signal asked for the end.
    Left,
    /// The deadline passed.
    TimedOut,
}

/// Why a machine cannot be made or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vCPUs cannot be made or reset.
    #[error(transparent)]
    Vcpus(#[from] trapline_vcpu::Error),
    /// A memory slot is refused.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// A range whose writes are to be collected is refused.
    #[error(transparent)]
    Zones(#[from] ZoneError),
    /// The vCPUs could not be stopped.
    #[error(transparent)]
    NotParked(#[from] NotParked),
    /// A thread, an eventfd or a ring is refused.
    #[error("cannot start the {thread} thread: {source}; check the limits on processes and open files")]
    Thread {
        /// Which thread.
        thread: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What KVM is to collect is not to be seen.
    #[error("KVM's ring of collected writes cannot be mapped; give --window strict")]
    Ring,
    /// A device or a vCPU failed while the guest ran.
    #[error("{0}")]
    Failed(String),
}

/// All endpoints of a machine; the place in the list is the id.
type Endpoints = Arc<[Arc<Endpoint>]>;

/// Who stands between the vCPUs and the changes of the map, given who carries those out.
pub type Around<'a> = Box<dyn FnOnce(Arc<Topology>, Endpoints) -> Arc<dyn path::Topology> + 'a>;

/// What stands beside a machine: it records accesses, sees changes of the map, confines threads. The machine does the
/// same without.
#[derive(Default)]
pub struct Observer<'a> {
    /// Records of all accesses; made for the same parts and vCPUs.
    pub probes: Option<&'a Probes>,
    /// For who measures, and wants to know of some accesses on the thread that makes them.
    pub around: Option<Around<'a>>,
    /// What becomes of a system call that a thread of the machine has no use for.
    pub seccomp: Seccomp,
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("probes", &self.probes.is_some()).finish_non_exhaustive()
    }
}

/// A machine, its vCPUs not yet running.
pub struct Machine {
    world: Arc<World>,
    // The threads, in the order in which they end. They go before the devices do, which are not to be closed on one of
    // them: it may not be able to.
    /// Those of the functions whose writes KVM may collect.
    clocks: Vec<Clock>,
    vcpus: Vcpus,
    workers: Vec<Worker>,
    /// The functions whose writes KVM may collect.
    windows: Vec<Arc<Endpoint>>,
    topology: Arc<Topology>,
    endpoints: Endpoints,
    latch: Arc<ConfigLatch>,
    events: Events,
    /// The flags of devices that are to give up at the end.
    stopping: Vec<Arc<AtomicBool>>,
    trace: Option<Notes>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("parts", &self.endpoints.len()).finish_non_exhaustive()
    }
}

/// Takes what vCPU threads report to the machine's events, and to its map.
struct Reports {
    events: Events,
    topology: Arc<Topology>,
    seccomp: Seccomp,
}

impl Exits for Reports {
    fn begins(&self, _vcpu: usize) {
        self.seccomp.confine(Kind::Vcpu);
    }

    fn shutdown(&self, _vcpu: usize) {
        // A triple fault resets a PC: the SHUTDOWN cycle pulls the chipset's reset.
        // The other vCPUs are held, as by any reset: they could keep it waiting for as long as they like.
        host::Events::report(&self.events, host::Event::Reset);
    }

    fn failed(&self, vcpu: usize, text: &str) {
        self.events.push(Event::Guest(host::Event::Failed(format!("vcpu{vcpu}: {text}"))));
    }

    fn no_memory(&self, vcpu: usize, at: Option<Gpa>) {
        self.topology.mistrust(vcpu, at);
    }
}

impl Machine {
    /// Puts `parts` together, in the order of their precedence in the address space, with `cpus`
    /// vCPUs of `vm`. The address space is found in `published` from then on.
    ///
    /// # Errors
    /// KVM or the system refuses a resource.
    pub fn new(
        vm: Arc<Vm>,
        cpus: u16,
        service: Service,
        published: Published,
        parts: Vec<Parts>,
        events: Events,
    ) -> Result<Machine, Error> {
        Machine::observed(vm, cpus, service, published, parts, events, Observer::default())
    }

    /// The same for who watches what its vCPUs do.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn observed(
        vm: Arc<Vm>,
        cpus: u16,
        service: Service,
        published: Published,
        parts: Vec<Parts>,
        events: Events,
        observer: Observer<'_>,
    ) -> Result<Machine, Error> {
        let Observer { probes, around, seccomp } = observer;
        let completions = Completions::new(cpus);
        let Wanted { nodes, gates, stopping, windows } = Wanted::by(&parts);
        let (endpoints, workers) = serve(parts, &completions, service, seccomp)?;
        record(&endpoints, probes);
        let world = world(cpus, &events, &gates);
        let (served, parked) = (Arc::clone(&endpoints), Arc::clone(&world));
        let topology = Topology::new(nodes, gates, served, published, parked, &vm, events.clone())?;
        let topology = Arc::new(topology);
        let latch = Arc::new(ConfigLatch::default());
        let changes: Arc<dyn path::Topology> = match around {
            Some(around) => around(topology.clone(), Arc::clone(&endpoints)),
            None => topology.clone(),
        };
        let callers = callers(cpus, &completions, probes);
        let paths = callers.map(|caller| {
            let reader = topology.published().reader();
            Path::new(reader, Arc::clone(&latch), Arc::clone(&endpoints), Arc::clone(&changes), caller)
        });
        let reports = Arc::new(Reports { events: events.clone(), topology: Arc::clone(&topology), seccomp });
        let vcpus = Vcpus::spawn(Arc::clone(&vm), Arc::clone(&world), paths.collect(), reports)?;
        let mut machine = Machine {
            world,
            clocks: Vec::new(),
            windows: Vec::new(),
            vcpus,
            topology,
            endpoints,
            latch,
            workers,
            events,
            stopping,
            trace: probes.map(|probes| probes.notes().clone()),
        };
        if !windows.is_empty() {
            machine.collect(&vm, windows, seccomp)?;
        }
        Ok(machine)
    }

    /// Lets KVM collect writes to these ranges for these functions, as their windows wish; for one at a time.
    fn collect(
        &mut self,
        vm: &Arc<Vm>,
        windows: Vec<(PartId, Vec<Range>)>,
        seccomp: Seccomp,
    ) -> Result<(), Error> {
        let ring = self.vcpus.collected().ok_or(Error::Ring)?;
        let mut collections = Vec::new();
        for (function, ranges) in windows {
            let place = u16::try_from(function).ok().zip(self.endpoints.get(function));
            let Some((id, endpoint)) = place else { continue };
            let (id, ring) = (EndpointId(id), Ring(Arc::clone(&ring)));
            let feed = Arc::new(Feed::new(Box::new(ring), self.topology.published(), id));
            endpoint.feed_from(Arc::clone(&feed));
            let zones = Zones::new(Arc::clone(vm), ranges.clone());
            let (most, trace) = (Mode::Shadowed, self.trace.clone());
            collections.push(Collection { function, id, feed, zones, ranges, most, trace });
            self.windows.push(Arc::clone(endpoint));
        }
        let functions: Vec<PartId> = collections.iter().map(|with| with.function).collect();
        self.topology.collect(collections);
        for (function, endpoint) in functions.into_iter().zip(&self.windows) {
            let topology = Arc::clone(&self.topology);
            let (endpoint, events) = (Arc::clone(endpoint), self.events.clone());
            let clock = Clock::start(topology, function, endpoint, events, seccomp);
            self.clocks.push(clock.map_err(|source| Error::Thread { thread: "vga".into(), source })?);
        }
        Ok(())
    }

    /// The endpoints, in the order of the parts.
    pub fn endpoints(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// Puts what of BARs is in the guest into the reach of other functions' DMA too. Before the machine
    /// runs.
    pub fn share_bars(&self, peers: Peers) {
        self.topology.share_bars(peers);
    }

    /// Lets the vCPUs run; [`Machine::run`] does so too.
    pub fn release(&self) {
        self.world.release();
    }

    /// Lets the vCPUs run, and returns when the run has ended for one of the reasons of [`Ending`]. What
    /// the guest has written to the legacy window is brought out then.
    ///
    /// # Errors
    /// A device or vCPU failed, or a reset could not be carried out. The machine can only be stopped
    /// then.
    pub fn run(&mut self, deadline: Option<Instant>) -> Result<Ending, Error> {
        let ending = self.run_to_the_end(deadline);
        self.bring_out();
        ending
    }

    /// As [`Machine::run`], but what the guest has written last is still to be brought out.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub(crate) fn run_to_the_end(&mut self, deadline: Option<Instant>) -> Result<Ending, Error> {
        self.release();
        let ending = self.run_on(deadline);
        self.give_up();
        ending
    }

    /// From now on a transfer that is interrupted is not begun again.
    fn give_up(&self) {
        for flag in &self.stopping {
            flag.store(true, Relaxed);
        }
    }

    /// Brings out what the guest has written to the legacy window. Waits for the devices' tokens, which who sleeps in a
    /// transfer holds.
    pub(crate) fn bring_out(&self) {
        self.windows.iter().for_each(|function| window::bring_out(function));
    }

    fn run_on(&mut self, deadline: Option<Instant>) -> Result<Ending, Error> {
        loop {
            match self.events.wait(deadline) {
                None => return Ok(Ending::TimedOut),
                Some(Event::Leave) => return Ok(Ending::Left),
                Some(Event::Guest(host::Event::PowerOff)) => return Ok(Ending::PowerOff),
                Some(Event::Guest(host::Event::Failed(text))) => return Err(Error::Failed(text)),
                Some(Event::Guest(host::Event::Reset)) => self.reset()?,
                Some(Event::Guest(host::Event::Claims)) => self.topology.ask_again()?,
            }
        }
    }

    /// Resets everything to its state at power-on, RAM apart: vCPUs and in-kernel controllers, then
    /// devices, whose queued accesses are dropped, and the map follows. The devices are silent before the
    /// first of it: a message that is posted straight into a local APIC would be the new guest's.
    fn reset(&mut self) -> Result<(), Error> {
        let _span = tracing::info_span!("reset").entered();
        let mut guard = self.world.lock();
        let parked = guard.park()?;
        for endpoint in self.endpoints.iter() {
            // What is queued might set interrupts up again.
            endpoint.discard();
            endpoint.with_device(|device| device.quiet());
        }
        self.vcpus.reset(&parked)?;
        self.topology.before_reset()?;
        for endpoint in self.endpoints.iter() {
            endpoint.discard();
            endpoint.with_device(|device| device.reset());
        }
        self.latch.set(0);
        self.topology.after_reset()?;
        // Also what a worker carried out late: it was the old guest's.
        self.events.forget_resets();
        self.world.unhold();
        if let Some(trace) = &self.trace {
            trace.reset();
        }
        tracing::info!("the guest was reset");
        Ok(())
    }

    /// Stops the vCPUs, then the workers; what was queued is carried out. Blocks until every thread
    /// is gone.
    pub fn stop(self) {
        self.give_up();
        self.world.stop();
        if let Err(error) = self.vcpus.join() {
            tracing::error!(%error, "at the end of the run");
        }
        drop(self.clocks);
        for worker in self.workers {
            worker.stop();
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        match trouble {
            Trouble::Slots(error) => error.into(),
            Trouble::Zones(error) => error.into(),
            Trouble::Park(error) => error.into(),
        }
    }
}

/// What the parts want of their machine.
struct Wanted {
    nodes: Vec<Node>,
    gates: Vec<Option<Arc<Gate>>>,
    /// The flags of devices that are to give up at the end.
    stopping: Vec<Arc<AtomicBool>>,
    /// What KVM may collect for which function.
    windows: Vec<(PartId, Vec<Range>)>,
}

impl Wanted {
    fn by(parts: &[Parts]) -> Wanted {
        let windows = parts.iter().enumerate().filter(|(_, part)| !part.collected.is_empty());
        Wanted {
            nodes: parts.iter().map(|part| Node { place: part.place, topology: part.topology }).collect(),
            gates: parts.iter().map(|part| part.dma.clone()).collect(),
            stopping: parts.iter().filter_map(|part| part.stopping.clone()).collect(),
            windows: windows.map(|(id, part)| (id, part.collected.clone())).collect(),
        }
    }
}

/// Where the vCPUs park; `events` holds them for a reset, and whoever waits for a gate waits there.
fn world(cpus: u16, events: &Events, gates: &[Option<Arc<Gate>>]) -> Arc<World> {
    let world = Arc::new(World::new(usize::from(cpus)));
    events.hold_in(Arc::clone(&world));
    for gate in gates.iter().flatten() {
        gate.stand_in(&world);
    }
    world
}

/// The ring of the machine's vCPUs, whose mapping both have.
struct Ring(Arc<Coalesced>);

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn pop(&self) -> Option<Trap> {
        self.0.pop()
    }
}

/// Has what is carried out for nobody who waits recorded, if somebody traces.
fn record(endpoints: &[Arc<Endpoint>], probes: Option<&Probes>) {
    for (endpoint, id) in endpoints.iter().zip(0..) {
        if let Some(recorder) = probes.and_then(|probes| probes.of_function(EndpointId(id))) {
            endpoint.record(recorder);
        }
    }
}

/// The vCPUs as callers of endpoints, each with its recorder if somebody traces.
fn callers(cpus: u16, completions: &Completions, probes: Option<&Probes>) -> impl Iterator<Item = Caller> {
    (0..cpus).filter_map(move |id| {
        let mut caller = completions.caller(CallerId(id))?;
        let recorder = probes.and_then(|probes| probes.of_vcpu(id));
        caller.stages = recorder.map(|recorder| Box::new(Stages::tracing(recorder)));
        Some(caller)
    })
}

/// Makes the endpoints of `parts` and the workers that serve them.
fn serve(
    parts: Vec<Parts>,
    completions: &Completions,
    service: Service,
    seccomp: Seccomp,
) -> Result<(Endpoints, Vec<Worker>), Error> {
    let thread = |name: &str| {
        let thread = name.to_owned();
        move |source| Error::Thread { thread, source }
    };
    let prelude = || Box::new(move || seccomp.confine(Kind::Worker));
    let shared_bell = Arc::new(Doorbell::new().map_err(thread("worker"))?);
    let (mut endpoints, mut workers) = (Vec::new(), Vec::new());
    let (mut served, mut tasks) = (Vec::new(), Vec::new());
    for part in parts {
        let own_bell = match part.served_by {
            ServedBy::Shared => None,
            ServedBy::Own => Some(Arc::new(Doorbell::new().map_err(thread(&part.name))?)),
        };
        let bell = own_bell.as_ref().unwrap_or(&shared_bell);
        let endpoint = Endpoint::new(part.name.clone(), part.device, completions.clone(), Arc::clone(bell));
        let endpoint = Arc::new(endpoint.with_service(service));
        endpoints.push(Arc::clone(&endpoint));
        let this = Served { endpoint, attention: part.attention };
        match own_bell {
            None => {
                served.push(this);
                tasks.extend(part.tasks);
            }
            Some(bell) => {
                let worker = Worker::start_with(&part.name, bell, vec![this], part.tasks, prelude());
                workers.push(worker.map_err(thread(&part.name))?);
            }
        }
    }
    let worker = Worker::start_with("worker", shared_bell, served, tasks, prelude());
    workers.push(worker.map_err(thread("worker"))?);
    Ok((endpoints.into(), workers))
}
