//! Guest memory for DMA by functions of the host.
//!
//! The kernel has to find and pin every page before a device may reach it, which takes seconds for a
//! large guest. So a thread does it while the guest already boots: several threads take the pages (that
//! is what takes long), then each piece of RAM is mapped as a whole. Until then the [`Gate`] keeps a vCPU
//! that switches a function's bus mastering on.

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use trapline_devices::host;
use trapline_devices::q35::{self, Ram};
use trapline_devices::vfio::{DmaError, Iommu};
use trapline_io::Gpa;
use trapline_io::device::DirectKind;
use trapline_vcpu::{Slot, World};
use vm_memory::MmapRegion;

use crate::events::{Event, Events};
use crate::sandbox::{Kind, Seccomp};

/// How much memory one thread takes at a time: so that neither the end of the run is kept waiting nor whoever
/// maps memory meanwhile, for which the kernel has one lock per process.
const CHUNK: usize = 4 << 20;
/// How the threads that take memory stand behind the guest's (`setpriority(2)`), which they are not to slow
/// down: who waits for them sleeps.
const NICE: i32 = 10;
/// More threads than this only fight for the kernel's locks.
const MOST_THREADS: usize = 4;

/// Shut until guest memory is mapped. A write that lets a function master the bus waits before it.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    world: OnceLock<Arc<World>>,
}

impl Gate {
    /// Whether it is open. It never shuts again.
    pub fn is_open(&self) -> bool {
        self.open.load(Acquire)
    }

    /// Opens it, and lets those go on who wait.
    pub fn open(&self) {
        self.open.store(true, Release);
        if let Some(world) = self.world.get() {
            world.look_again();
        }
    }

    /// Says whose vCPUs wait before it; before the first of them runs.
    pub fn stand_in(&self, world: &Arc<World>) {
        // A second world would be another machine's.
        let _ = self.world.set(Arc::clone(world));
    }
}

/// Guest memory on its way into an [`Iommu`], or there. Dropping it takes the memory back, which is only
/// right once no device uses it.
#[derive(Debug)]
pub struct Mapping {
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    ram: Ram,
    iommu: Arc<Iommu>,
    /// How many take pages.
    threads: usize,
    begun: AtomicBool,
    stop: AtomicBool,
    /// How many of RAM's pieces are mapped.
    mapped: AtomicUsize,
}

impl Mapping {
    /// Starts the thread that maps all of `ram` from [`Mapping::begin`] on; it opens `gate` when it is done,
    /// or tells `events` why it is not.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn prepare(
        ram: Ram,
        iommu: Arc<Iommu>,
        gate: Arc<Gate>,
        events: Events,
        seccomp: Seccomp,
    ) -> Result<Mapping> {
        let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let work = Arc::new(Work { ram, iommu, threads, begun, stop, mapped: AtomicUsize::new(0) });
        let mine = Arc::clone(&work);
        let thread = std::thread::Builder::new().name("dma".into()).spawn(move || {
            seccomp.confine(Kind::Dma);
            while !mine.begun.load(Acquire) {
                std::thread::park();
            }
            // For this thread and those it starts; refused nowhere, and not needed.
            let _ = rustix::process::setpriority_process(None, NICE);
            match mine.carry_out() {
                Ok(()) => gate.open(),
                Err(_) if mine.stop.load(Relaxed) => {}
                Err(error) => events.push(Event::Guest(host::Event::Failed(failure(&error)))),
            }
        });
        let thread = thread.context("cannot start the thread that maps memory for DMA")?;
        Ok(Mapping { work, thread: Some(thread) })
    }

    /// Begins. While memory is mapped whoever makes a thread or maps anything waits for the same lock of
    /// the kernel's, so this comes when the guest already runs.
    pub fn begin(&self) {
        self.work.begun.store(true, Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Has the thread end soon, if it still works. Does not wait.
    pub fn stop(&self) {
        self.work.stop.store(true, Relaxed);
        self.begin();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that maps memory for DMA panicked");
        }
        self.work.take_back();
    }
}

/// Looks whether the host has `bytes` at all: every page of a guest with functions of the host is taken
/// and kept, so a guest that is too large would have the kernel kill this program, or another.
///
/// # Errors
/// It has less.
pub fn fits(bytes: u64) -> Result<()> {
    let host = rustix::system::sysinfo();
    let total = host.totalram.saturating_mul(host.mem_unit.into());
    ensure!(
        bytes < total,
        "--memory: {} MiB for a guest that is given functions of the host, and the host has {} MiB in all; DMA \
         needs every page of it: give the guest less",
        bytes >> 20,
        total >> 20
    );
    Ok(())
}

fn failure(error: &anyhow::Error) -> String {
    format!("the guest's memory cannot be reached by its devices: {error:#}")
}

impl Work {
    fn carry_out(&self) -> Result<()> {
        let start = Instant::now();
        self.populate()?;
        let populated = start.elapsed();
        for (at, memory) in self.ram.pieces() {
            self.iommu.map(at, memory, 0, memory.size() as u64, &self.stop)?;
            self.mapped.fetch_add(1, Relaxed);
        }
        let (all, populated) = (start.elapsed().as_millis(), populated.as_millis());
        tracing::info!(
            bytes = self.ram.split().total(),
            "guest memory is mapped for DMA after {all} ms, {populated} of them for taking its pages"
        );
        Ok(())
    }

    /// Takes all pages, by several threads.
    fn populate(&self) -> Result<()> {
        let chunks: Vec<(&MmapRegion, Range<usize>)> =
            self.ram.pieces().flat_map(|(_, memory)| chunks(memory)).collect();
        let next = AtomicUsize::new(0);
        let take = || {
            while let Some((memory, range)) = chunks.get(next.fetch_add(1, Relaxed)) {
                if self.stop.load(Relaxed) {
                    return Err(DmaError::Stopped.into());
                }
                q35::populate(memory, range.start, range.len())
                    .context("the host has too little memory for the guest (--memory)")?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            // Fewer of them only take longer.
            let another = |_| std::thread::Builder::new().spawn_scoped(scope, take).ok();
            let others: Vec<_> = (1..self.threads.min(chunks.len())).filter_map(another).collect();
            let mine: Result<()> = take();
            others.into_iter().fold(mine, |done, other| {
                done.and(other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            })
        })
    }

    fn take_back(&self) {
        for (at, memory) in self.ram.pieces().take(self.mapped.load(Relaxed)) {
            // The kernel does this by itself when the last function goes, as when the host takes it back.
            if let Err(error) = self.iommu.unmap(at, memory.size() as u64) {
                tracing::debug!(?at, %error, "guest memory was not unmapped");
            }
        }
    }
}

fn chunks(memory: &Arc<MmapRegion>) -> impl Iterator<Item = (&MmapRegion, Range<usize>)> {
    let size = memory.size();
    (0..size).step_by(CHUNK).map(move |start| (&**memory, start..size.min(start.saturating_add(CHUNK))))
}

/// What brings memory into the reach of functions of the host: their [`Iommu`], or who writes down what it would do.
pub trait Reach: fmt::Debug + Send + Sync {
    /// As [`Iommu::map`], to the end.
    ///
    /// # Errors
    /// As there.
    fn map(&self, at: Gpa, memory: &Arc<MmapRegion>, offset: u64, len: u64) -> Result<(), DmaError>;

    /// As [`Iommu::unmap`].
    ///
    /// # Errors
    /// As there.
    fn unmap(&self, at: Gpa, len: u64) -> Result<(), DmaError>;
}

impl Reach for Iommu {
    fn map(&self, at: Gpa, memory: &Arc<MmapRegion>, offset: u64, len: u64) -> Result<(), DmaError> {
        Iommu::map(self, at, memory, offset, len, &AtomicBool::new(false))
    }

    fn unmap(&self, at: Gpa, len: u64) -> Result<(), DmaError> {
        Iommu::unmap(self, at, len)
    }
}

/// BARs of functions of the host as targets of each other's DMA (peer to peer): what of them is in the guest
/// is in the [`Iommu`] too.
#[derive(Debug)]
pub struct Peers {
    reach: Arc<dyn Reach>,
    /// The memory of those BARs. It goes with its function, not with this.
    shared: Vec<Weak<MmapRegion>>,
    mapped: Vec<Bar>,
    told: bool,
}

/// A part of a BAR in the guest.
#[derive(Clone, Debug)]
struct Bar {
    at: Gpa,
    /// Bytes.
    len: u64,
    memory: Arc<MmapRegion>,
    /// Where in `memory` it begins.
    offset: u64,
}

impl Bar {
    /// What of a BAR a slot holds.
    fn of(slot: &Slot) -> Option<Bar> {
        let len = slot.span.extent().checked_add(1).filter(|_| slot.kind == DirectKind::Bar)?;
        Some(Bar { at: slot.span.first(), len, memory: Arc::clone(&slot.memory), offset: slot.offset })
    }
}

impl PartialEq for Bar {
    fn eq(&self, other: &Bar) -> bool {
        (self.at, self.len, self.offset) == (other.at, other.len, other.offset)
            && Arc::ptr_eq(&self.memory, &other.memory)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.remove_unwanted(&[]);
    }
}

impl Peers {
    /// No BARs yet, and later only those whose memory is `shared`: the memory of a device over a socket is an
    /// ordinary file, as long as its server says, of which the host would have to give and pin every page.
    pub fn new(reach: Arc<dyn Reach>, shared: Vec<Weak<MmapRegion>>) -> Peers {
        Peers { reach, shared, mapped: Vec::new(), told: false }
    }

    /// Brings what is mapped in line with the slots of the guest. What stays where it is is not touched: for a
    /// large BAR that takes as long as a second.
    pub fn follow(&mut self, wanted: &[Slot]) {
        self.remove_unwanted(wanted);
        self.add_missing(wanted);
    }

    /// Takes out what has no slot in `wanted`.
    pub fn remove_unwanted(&mut self, wanted: &[Slot]) {
        let Peers { reach, mapped, .. } = self;
        mapped.retain(|bar| {
            let keep = wanted.iter().filter_map(Bar::of).any(|wanted| wanted == *bar);
            if !keep && let Err(error) = reach.unmap(bar.at, bar.len) {
                tracing::warn!(at = ?bar.at, %error, "a BAR stays mapped for DMA");
            }
            keep
        });
    }

    /// Puts in what of `wanted` is not there. A device whose memory cannot be mapped is none that others
    /// reach, which is told once.
    fn add_missing(&mut self, wanted: &[Slot]) {
        for bar in wanted.iter().filter_map(Bar::of) {
            let shared = self.shared.iter().any(|memory| memory.as_ptr() == Arc::as_ptr(&bar.memory));
            if !shared || self.mapped.contains(&bar) {
                continue;
            }
            match self.reach.map(bar.at, &bar.memory, bar.offset, bar.len) {
                Ok(()) => self.mapped.push(bar),
                Err(error) if !std::mem::replace(&mut self.told, true) => {
                    tracing::warn!(%error, "assigned functions do not reach each other's memory (peer-to-peer DMA)");
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_no_host_holds_is_refused() {
        fits(1 << 20).unwrap();
        let error = fits(1 << 50).unwrap_err().to_string();
        assert!(error.contains("--memory: 1073741824 MiB") && error.contains("less"), "{error}");
    }
}
