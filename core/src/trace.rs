//! `--trace FILE`: every access that left the guest, written down while it runs.
//!
//! # Who writes
//!
//! Each vCPU, and whoever owns a function, puts records of fixed size into a ring of its own
//! ([`trapline_io::trace`]). A thread called `trace` takes them out, puts them in order and writes the file.
//! It is a thread of its own and not a task of the worker: a file may block for as long as its disk or the
//! reader of a pipe likes, and numbers become text at the cost of a processor; posted writes, disks and
//! timers must not wait for either. It sleeps until a quarter of a ring is full, or 50 ms, or a second where
//! the guest is idle. What finds its ring full is lost, counted, and told in the file.
//!
//! Records come out in the order in which the devices saw them ([`trapline_io::trace::Record::moment`]),
//! across vCPUs. To that end nothing is written that is younger than an access which is still under way. If one
//! takes so long that 262,144 records wait behind it, the oldest of them are written.
//!
//! A trace holds what *traps* or is collected: what the guest does to RAM, to a BAR that is mapped into it, to the
//! shadow of the text window, leaves no trace, and neither does the kick of a disk's queue, which KVM takes. With
//! `--window strict` all of the window is in it.
//!
//! # The text form
//!
//! That of Linux' mmiotrace, `VERSION 20070824` (Documentation/trace/mmiotrace.rst), for its readers. All times
//! are seconds since the trace began, with six decimals; what has no meaning here (programme counter, process,
//! virtual address) is zero.
//!
//! ```text
//! VERSION 20070824
//! PCIDEV 0008 12341111 0 e0000000 0 febf0000 0 0 0 0 1000000 0 1000 0 0 0 0
//! MAP 0.104311 4 0xe0000000 0x0 0x1000000 0x0 0
//! R 2 0.200001 5 0xfebf0500 0xb0c5 0x0 0
//! W 1 0.200013 7 0xb8000 0x41 0x0 0
//! UNMAP 0.300000 4 0x0 0
//! MARK 0.400000 PIO W 1 0x3c4 0x2
//! MARK 0.400002 PIO R 1 0x3c5 0xf
//! MARK 0.500000 WINDOW shadowed adapter0
//! MARK 0.600000 RESET
//! MARK 0.000000 Lost 12 events.
//! ```
//!
//! * `R` and `W` are accesses to memory: width in bytes, time, number of the mapping or 0, guest physical address,
//!   value.
//! * `MARK time PIO R|W width 0xport 0xvalue` is an access to a port, which mmiotrace cannot express. Width,
//!   port and value are as in `R` and `W`.
//! * `MAP` tells where a region of a function begins to lie, with its number; `UNMAP` that it no longer does. A
//!   region that changes its place has both. One that comes and goes without an access to memory in between is
//!   left out.
//! * `PCIDEV` stands before the first `MAP` of a PCI function, and again where its BARs come to lie elsewhere.
//! * `MARK time FOREIGN overlay function` tells that the guest uses configuration space of another function through
//!   a mirror in this one, for the first time (`audio-config-mirror`, `bridge-config-mirror`): nothing leads to the
//!   guest's own from there, so what it finds are the host's addresses.
//! * `MARK time WINDOW mode function` tells how the legacy window is carried out from here on, `MARK time RESET`
//!   that the machine was reset.
//!
//! Each access has one line. The lines of accesses to one function stand in the order in which the function
//! saw them, and so do those of one vCPU, but for writes that were collected or posted: these stand where the
//! function saw them. So `R`, `W` and `PIO` lines in the order of the file are all that is needed to do the same
//! again. An access that two ranges share, or an instruction that moves several elements, has a line for each
//! access that came of it.
//!
//! # The form of ui.perfetto.dev
//!
//! Chrome's JSON. A row for each vCPU shows its exits, from `KVM_RUN` to `KVM_RUN`; the arguments of each give
//! address, function, region, offset, width, value, how it was carried out, and the moments `push`, `start`,
//! `end` and `resume` in nanoseconds after the exit. What was posted or collected is shown twice more where it
//! was carried out: in the row of the function's worker and in that of the device, with an arrow from the vCPU
//! that posted it.
//! Changes of the map, of the window's mode and resets are instants; losses are a counter. A regular file is whole
//! JSON after every piece that is written, also when the program is killed.
//!
//! # Which accesses
//!
//! [`TraceFilter`] has the syntax of `--trace-filter`. Rules are applied before a record is made; where an owner
//! of a function does not know the guest's address, a rule on addresses is applied when it is written.

mod chrome;
mod digits;
mod format;
mod map;
mod mmiotrace;
mod probes;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use trapline_io::publish::Published;
use trapline_io::space::EndpointId;
use trapline_io::trace::{Filter, Rule};
use trapline_io::{Region, Width};

use self::chrome::Chrome;
use self::format::{Cast, Format, Function};
use self::mmiotrace::Mmiotrace;
use self::probes::Intake;
pub use self::probes::{Notes, Probes};
use self::sink::Sink;
use self::writer::Writer;
use crate::config::{TraceFilter, TraceForm, TraceOutput};
use crate::parts::{Parts, Place};
use crate::sandbox::{Kind, Seccomp};

/// How long the end of a run waits for the rest of its trace.
const FINISH: Duration = Duration::from_secs(10);

/// A file that waits for its machine.
#[derive(Debug)]
pub struct Opened {
    sink: Sink,
    form: TraceForm,
}

impl Opened {
    /// Creates the file of a trace, or empties it. A machine that is never made leaves a whole file too.
    ///
    /// # Errors
    /// For a person: the file cannot be written.
    pub fn create(wanted: &TraceOutput) -> Result<Opened> {
        let sink = Sink::create(&wanted.path)?;
        if wanted.form == TraceForm::Perfetto {
            sink.hold(chrome::NOTHING)?;
        }
        Ok(Opened { sink, form: wanted.form })
    }

    /// Starts the thread that writes. `parts` are those of the machine in their order, with `cpus` vCPUs and
    /// its map in `published`; before the machine is made of them.
    ///
    /// # Errors
    /// A filter names a function that is not there; no thread can be started.
    pub fn start(
        self,
        parts: &mut [Parts],
        cpus: u16,
        filters: &[TraceFilter],
        published: &Published,
        seccomp: Seccomp,
    ) -> Result<Trace> {
        let filter = Arc::new(filter(filters, parts)?);
        let cast = Cast { vcpus: cpus, functions: parts.iter_mut().map(describe).collect() };
        let (probes, intake) = Probes::new(parts, cpus, filter);
        let notes = probes.notes().clone();
        published.watch(move |space| notes.map(space));
        let stopping = Arc::new(AtomicBool::new(false));
        let (done, finished) = sync_channel(1);
        let path = self.sink.path().to_owned();
        let writer = self.writer(cast, intake, Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name("trace".into())
            .spawn(move || {
                seccomp.confine(Kind::Trace);
                writer.run();
                let _ = done.send(());
            })
            .context("cannot start the thread that writes the trace")?;
        let thread = thread.thread().clone();
        probes.wake(&thread);
        Ok(Trace { probes, stopping, thread, finished: Some(finished), path })
    }

    fn writer(self, cast: Cast, intake: Intake, stopping: Arc<AtomicBool>) -> Writer {
        let format: Box<dyn Format> = match self.form {
            TraceForm::Perfetto => Box::<Chrome>::default(),
            TraceForm::Mmiotrace => Box::<Mmiotrace>::default(),
        };
        Writer::new(self.sink, format, cast, intake, stopping)
    }
}

/// A trace that is being written. Dropping it finishes it.
#[derive(Debug)]
pub struct Trace {
    probes: Probes,
    stopping: Arc<AtomicBool>,
    thread: Thread,
    finished: Option<Receiver<()>>,
    path: PathBuf,
}

impl Trace {
    /// Where the machine puts its records.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Writes what is left, when all who make records have stopped. Blocks, for ten seconds at most.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(finished) = self.finished.take() else { return };
        self.stopping.store(true, Release);
        self.thread.unpark();
        if let Err(RecvTimeoutError::Timeout) = finished.recv_timeout(FINISH) {
            let (path, seconds) = (self.path.display(), FINISH.as_secs());
            tracing::error!("--trace {path}: nothing takes the rest within {seconds} s; it is incomplete");
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a trace says of a function.
fn describe(part: &mut Parts) -> Function {
    let is_pci = matches!(part.place, Place::Pci { .. });
    let id = is_pci.then(|| part.device.read(Region::CONFIG, 0, Width::B4).unwrap_or(u64::MAX));
    let id = id.map(|id| ((id & 0xffff) as u16, (id >> 16 & 0xffff) as u16));
    // A base address register is among the configuration dwords that change the map.
    let registers: [u64; 7] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30];
    let bars = registers.map(|offset| is_pci && part.topology.contains(offset));
    Function { name: part.name.clone(), id, bars }
}

/// The filter, with functions by their numbers. A BAR is that of functions which may have one: what is no
/// PCI function numbers its regions as it likes.
fn filter(wanted: &[TraceFilter], parts: &[Parts]) -> Result<Filter> {
    let mut rules = Vec::new();
    for wanted in wanted {
        let function = wanted.function.as_deref().map(|name| number_of(name, parts)).transpose()?;
        let rule = |function, bar: Option<u8>| Rule {
            function,
            region: bar.map(Region::bar),
            ports: wanted.ports,
            memory: wanted.memory,
        };
        let Some(bar) = wanted.bar else {
            rules.push(rule(function, None));
            continue;
        };
        let of = (0..)
            .map(EndpointId)
            .zip(parts)
            .filter(|(id, part)| function.is_none_or(|function| function == *id) && has_bar(part, bar));
        let known = rules.len();
        rules.extend(of.map(|(id, _)| rule(Some(id), Some(bar))));
        if rules.len() == known {
            let whose = wanted.function.as_deref().unwrap_or("any function");
            bail!("--trace-filter: there is no BAR {bar} of {whose}");
        }
    }
    Ok(Filter::new(rules))
}

/// Whether the dword of a base address register is among those that change the map.
fn has_bar(part: &Parts, bar: u8) -> bool {
    matches!(part.place, Place::Pci { .. }) && part.topology.contains(0x10 + 4 * u64::from(bar))
}

fn number_of(name: &str, parts: &[Parts]) -> Result<EndpointId> {
    let place = parts.iter().position(|part| part.name == name);
    match place.and_then(|place| u16::try_from(place).ok()) {
        Some(place) => Ok(EndpointId(place)),
        None => {
            let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
            bail!("--trace-filter: no function is called {name:?}; there are {}", names.join(", "))
        }
    }
}
