//! From a configuration to a running machine, and to its end.
//!
//! * `adapters`: the devices, as parts; `physical`: those of this host, opened by VFIO; `lease`: what of the
//!   host's VGA arbiter one of them is given;
//! * `seats`, `place`: where in the guest each sits;
//! * `identity`: what they keep of the host's addresses; `fit`: how wide the guest's addresses are, so that all
//!   fits;
//! * `ways`: how fast legacy VGA may be;
//! * `serial`: the serial line's ends on the host.

pub(crate) mod adapters;
mod fit;
pub(crate) mod identity;
pub(crate) mod lease;
mod physical;
mod place;
mod seats;
mod serial;
pub(crate) mod ways;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use trapline_devices::pci::Pin;
use trapline_devices::platform::keyboard::{Key, Keys};
use trapline_devices::q35::{Pirqs, Ram, RamSplit};
use trapline_devices::virtio::block::{Block, Disk};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Gpa, Span};
use trapline_vcpu::cpuid::Cpuid;
use trapline_vcpu::{Vm, interrupt_others};

use self::fit::{Bounds, Fit};
use self::ways::Collecting;
use crate::adapter::Process;
use crate::command::say;
use crate::config::{Io, RunConfig, Serial};
use crate::dma::Mapping;
use crate::events::{Event, Events};
use crate::firmware::boot::{Boot, Choices, Target};
use crate::firmware::placement::{self, Function, Version};
use crate::firmware::{igd, image, linux};
use crate::guest::{End, Ends, Guest};
use crate::host::Tree;
use crate::interrupts::watch::Watch;
use crate::machine::{Ending, Machine, Observer};
use crate::outlet;
use crate::parts::Parts;
use crate::platform::{self, KvmGsis, Platform, Wishes};
use crate::report::account::Account;
use crate::sandbox::{Kind, Seccomp};
use crate::screen::Source;
use crate::trace::{Opened, Trace};

/// How long the end of a run waits until the adapter shows all that the guest wrote: a device gives up
/// after 5 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether the machine's thread has ended.
const TICK: Duration = Duration::from_millis(5);
/// The longest time between two tries to wake what keeps it.
const MOST_TICK: Duration = Duration::from_millis(250);
/// How long that is tried.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// A machine that runs, and the thread that watches over it.
struct Running {
    events: Events,
    thread: JoinHandle<()>,
    keys: Keys,
    display: Box<dyn Source>,
    accounts: Vec<Account>,
    /// Closed when the run is over and the adapter shows all that the guest wrote.
    shown: Receiver<()>,
    /// Ends when the machine has closed its connection.
    adapter: Option<Process>,
}

/// The files into which a run writes as it goes, by their options.
fn outputs(config: &RunConfig) -> Vec<(&'static str, &Path)> {
    let line = match &config.serial {
        Serial::File(path) => Some(path.as_path()),
        Serial::Stdio | Serial::None => None,
    };
    let trace = config.trace.as_ref().map(|trace| trace.path.as_path());
    let named = [("serial", line), ("debugcon", config.debugcon.as_deref()), ("trace", trace)];
    named.into_iter().filter_map(|(option, path)| Some((option, path?))).collect()
}

/// Builds the machine that `config` describes and lets it run; `ends` is told when it ends by
/// itself.
///
/// # Errors
/// What is missing or refused, for a person.
pub fn launch(config: &RunConfig, ends: Ends) -> Result<Box<dyn Guest>> {
    let _span = tracing::info_span!("start").entered();
    let firmware = image::firmware(config.firmware.as_deref())?;
    let version = Version::of_image(&firmware.bytes);
    let trace = config.trace.as_ref().map(Opened::create).transpose()?;
    let vm = Arc::new(Vm::new()?);
    let (events, published) = (Events::default(), Published::default());
    let kept = identity::Kept::of(config)?;
    let ram = Ram::around(config.memory, config.pages, kept.spans())?;
    let pirqs = Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm))));
    let debug_console =
        config.debugcon.as_deref().map(|path| serial::to_file("debugcon", path)).transpose()?;
    let line = serial::output(&config.serial)?;
    outlet::apart(&outputs(config))?;
    let Platform { mut parts, keys, serial } = platform::build(Wishes {
        vm: Arc::clone(&vm),
        events: events.clone(),
        ram: ram.clone(),
        firmware: firmware.bytes,
        cpus: config.cpus,
        serial: line,
        debug_console,
        pirqs: pirqs.clone(),
    })?;
    add_disks(config, &ram, &pirqs, &mut parts)?;
    let around = adapters::Machine {
        vm: &vm,
        ram: &ram,
        pirqs: &pirqs,
        events: &events,
        interface: config.vfio,
        kept: &kept,
        tell: say,
        ways: ways::find(config.window, Collecting::of(&vm))?,
        every_write: trace.is_some(),
        seccomp: config.seccomp,
    };
    let mut given = adapters::add(&config.adapters, &around, &mut parts)?;
    let display = given.display();
    let fit = arrange(config, (&vm, &ram, version), &given.reach, &mut parts, &events)?;
    let left = igd::without_stolen(ram.split(), given.graphics.as_ref());
    let linux = kernel(config, left)?;
    let mut items = boot(config, ram.split(), linux, fit, &published)?.into_items()?;
    if let Some(graphics) = &given.graphics {
        igd::add(graphics, &mut items)?;
    }
    parts.push(platform::fw_cfg(items, &ram));
    let (cpus, seccomp) = (config.cpus.into(), config.seccomp);
    let start = |opened: Opened| opened.start(&mut parts, cpus, &config.trace_filters, &published, seccomp);
    let trace = trace.map(start).transpose()?;
    let observer = Observer { probes: trace.as_ref().map(Trace::probes), around: None, seccomp };
    let service = service(config.io);
    let machine = Machine::observed(vm, cpus, service, published, parts, events.clone(), observer)?;
    if let Some(peers) = given.peers {
        machine.share_bars(peers);
    }
    if let (Serial::Stdio, Some(input)) = (&config.serial, serial) {
        serial::feed(input, seccomp)?;
    }
    let (accounts, mapping) = (given.accounts, given.mapping);
    let outside = Outside { mapping, trace, watch: watch(&accounts, seccomp)? };
    let (thread, shown) = start_thread(machine, outside, ends, seccomp)?;
    Ok(Box::new(Running { events, thread, keys, display, accounts, shown, adapter: given.process }))
}

/// Finds out where everything will lie, and how wide the guest's physical addresses are for that; KVM and `parts` are
/// told.
fn arrange(
    config: &RunConfig,
    (vm, ram, version): (&Vm, &Ram, Option<Version>),
    reach: &[Span<Gpa>],
    parts: &mut Vec<Parts>,
    events: &Events,
) -> Result<Fit> {
    let cpuid =
        Cpuid::of_host(vm, config.cpus.into()).context("KVM does not tell its processors' features")?;
    let bounds = Bounds::new(&cpuid, reach, config.phys_bits);
    let (functions, places) = placement::survey(parts);
    let fit = match parts.iter().any(|part| part.keeps.is_some()) {
        true => identity::arrange(parts, (&functions, &places), ram.split(), bounds, events)?,
        false => fit::fit(&functions, ram.split(), version, bounds)?,
    };
    tell_plan(&functions, &fit);
    vm.set_phys_bits(fit.phys_bits);
    Ok(fit)
}

/// Starts to count the interrupts of functions of the host, if there are any.
fn watch(accounts: &[Account], seccomp: Seccomp) -> Result<Option<Watch>> {
    let watched: Vec<_> = accounts.iter().filter_map(Account::watched).collect();
    let watch = (!watched.is_empty()).then(|| Watch::start(Tree::host(), watched, seccomp));
    watch.transpose().context("cannot start the interrupts' thread")
}

/// Starts the thread that watches over the machine; what it gives is closed when the run is over and the adapter shows
/// all that the guest wrote.
fn start_thread(
    machine: Machine,
    outside: Outside,
    ends: Ends,
    seccomp: Seccomp,
) -> Result<(JoinHandle<()>, Receiver<()>)> {
    let (showing, shown) = channel();
    let thread = std::thread::Builder::new()
        .name("machine".into())
        .spawn(move || {
            seccomp.confine(Kind::Machine);
            watch_over(machine, outside, &ends, showing);
        })
        .context("cannot start the machine's thread")?;
    Ok((thread, shown))
}

/// What stands around a machine and ends with it.
struct Outside {
    /// The guest's memory, as functions of the host see it.
    mapping: Option<Mapping>,
    trace: Option<Trace>,
    /// Of the interrupts of functions of the host.
    watch: Option<Watch>,
}

/// Runs the machine to its end, tells of it, and takes it apart: last of all its devices lose sight of
/// the guest's memory.
fn watch_over(mut machine: Machine, outside: Outside, ends: &Ends, showing: Sender<()>) {
    let Outside { mapping, trace, watch } = outside;
    machine.release();
    if let Some(mapping) = &mapping {
        mapping.begin();
    }
    let end = match machine.run_to_the_end(None) {
        Ok(Ending::PowerOff) => End::PowerOff,
        Ok(Ending::Left) => End::Left,
        Ok(Ending::TimedOut) => End::Timeout,
        Err(error) => End::Failed(error.to_string()),
    };
    ends.report(end);
    machine.bring_out();
    drop(showing);
    if let Some(mapping) = &mapping {
        mapping.stop();
    }
    // It counts a last time, while the devices are still open.
    drop(watch);
    machine.stop();
    if let Some(trace) = trace {
        trace.finish();
    }
    drop(mapping);
}

impl Guest for Running {
    fn press(&mut self, key: Key) {
        self.keys.press(key);
    }

    fn screen(&mut self) -> &mut dyn Source {
        &mut *self.display
    }

    fn accounts(&self) -> Vec<Account> {
        self.accounts.clone()
    }

    fn end(&mut self) {
        self.events.push(Event::Leave);
        if let Err(RecvTimeoutError::Timeout) = self.shown.recv_timeout(PATIENCE) {
            tracing::warn!("the adapter does not answer: its screen may lack the last that the guest wrote");
        }
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.events.push(Event::Leave);
        if !ends_within(&self.thread, PATIENCE) {
            // A transfer to a card sleeps in the kernel for as long as another program keeps the host's legacy VGA ranges.
            tracing::warn!(
                "the machine does not come to its end: what is under way with devices is given up"
            );
            if !gives_up(&self.thread)? {
                drop(self.adapter);
                bail!(
                    "the machine's threads do not come to their end and are left behind: what the guest wrote last \
                     to its disks may be lost"
                );
            }
        }
        let joined = self.thread.join();
        drop(self.adapter);
        joined.map_err(|_| anyhow!("the machine's thread panicked; this is a bug in trapline"))
    }
}

/// Interrupts what is under way until a thread has come to its end, or nothing helps.
fn gives_up(thread: &JoinHandle<()>) -> Result<bool> {
    let patience = Instant::now() + LAST_PATIENCE;
    // Who cannot be woken keeps every signal, and of those the host has not too many.
    let mut pause = TICK;
    while !ends_within(thread, pause) && Instant::now() < patience {
        interrupt_others().context("the machine does not end")?;
        pause = (pause * 2).min(MOST_TICK);
    }
    Ok(thread.is_finished())
}

/// Whether a thread comes to its end in this time.
fn ends_within(thread: &JoinHandle<()>, time: Duration) -> bool {
    let patience = Instant::now() + time;
    while !thread.is_finished() && Instant::now() < patience {
        std::thread::sleep(TICK.min(time));
    }
    thread.is_finished()
}

/// Who carries out accesses, in the terms of the access path.
pub(crate) fn service(io: Io) -> Service {
    match io {
        Io::Inline => Service::Inline,
        Io::Uring => Service::Uring,
        Io::Adaptive => Service::Adaptive,
    }
}

/// Adds the disks, in order.
fn add_disks(config: &RunConfig, ram: &Ram, pirqs: &Pirqs, parts: &mut Vec<Parts>) -> Result<()> {
    for (index, wanted) in config.disks.iter().enumerate() {
        let disk = Disk::open(&wanted.path, wanted.readonly).context("--disk")?;
        let devfn = place::disk(index)?;
        let irq = Arc::from(pirqs.line(devfn.device(), Pin::A));
        let (block, task) = Block::new(disk, Arc::clone(ram.guest_memory()), irq);
        let topology = block.topology();
        parts.push(Parts::function(format!("disk{index}"), block, None, devfn, topology).task(task));
    }
    Ok(())
}

/// Where the firmware will put everything, for who looks.
fn tell_plan(functions: &[Function], fit: &Fit) {
    let Some(plan) = &fit.plan else {
        tracing::debug!(phys_bits = fit.phys_bits, "this firmware places BARs in a way that is not known");
        return;
    };
    for placed in &plan.bars {
        let name = functions.get(placed.function).map_or("", |function| &function.name);
        tracing::debug!(function = name, bar = placed.bar, at = ?placed.at, "the firmware will put a BAR there");
    }
    tracing::info!(phys_bits = fit.phys_bits, high = ?plan.high, "all BARs fit");
}

/// What the firmware is told.
fn boot(
    config: &RunConfig,
    ram: RamSplit,
    linux: Option<(linux::Linux, image::Image)>,
    fit: Fit,
    published: &Published,
) -> Result<Boot> {
    let mut order = Vec::new();
    if linux.is_some() {
        order.push(Target::Kernel);
    }
    for index in 0..config.disks.len() {
        order.push(Target::disk(place::disk(index)?.device()));
    }
    let (published, planned) = (published.clone(), fit.plan.and_then(|plan| plan.high));
    Ok(Boot {
        cpus: config.cpus,
        ram,
        reserved: fit.reserved,
        uuid: [0; 16],
        keyboard: true,
        serial: config.serial != Serial::None,
        order,
        choices: Choices::default(),
        linux,
        windows: Box::new(move || platform::windows(&published, planned)),
    })
}

/// The kernel that takes the place of a boot disk in this RAM, and the option ROM that starts it.
fn kernel(config: &RunConfig, ram: RamSplit) -> Result<Option<(linux::Linux, image::Image)>> {
    let Some(wanted) = &config.linux else { return Ok(None) };
    let read = |option: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("--{option} {}", path.display()))
    };
    let kernel = read("kernel", &wanted.kernel)?;
    let initrd = wanted.initrd.as_deref().map(|path| read("initrd", path)).transpose()?;
    let kernel = linux::Linux::new(&kernel, initrd.as_deref(), &wanted.append, ram)
        .with_context(|| format!("--kernel {}", wanted.kernel.display()))?;
    Ok(Some((kernel, image::linuxboot()?)))
}
