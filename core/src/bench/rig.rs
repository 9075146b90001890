//! A machine around the device that is measured, made anew for each visit.
//!
//! It has a host bridge with little memory and our firmware, the device, and the [`Mark`]; the device is
//! opened as `trapline run` opens it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use trapline_devices::assigned::{self, Function};
use trapline_devices::pci::Devfn;
use trapline_devices::q35::{HostBridge, Pages, Pirqs, Ram};
use trapline_io::endpoint::Service;
use trapline_io::path;
use trapline_io::publish::Published;
use trapline_io::space::EndpointId;
use trapline_vcpu::Vm;
use vm_memory::{MmapRegion, VolatileMemory};

use super::cases::{self, CASES, Case};
use super::mark::{Mark, Marks};
use super::null::Null;
use super::payload::{self, Code};
use super::script::{Pace, Script, Visit};
use super::survey::{self, Survey};
use super::{Device, Way};
use crate::command::say;
use crate::config::{Adapters, Interface};
use crate::events::Events;
use crate::interrupts::FunctionInterrupts;
use crate::launch::adapters;
use crate::launch::identity::Kept;
use crate::machine::{Ending, Machine, Observer};
use crate::parts::{Parts, Place};
use crate::platform::KvmGsis;
use crate::sandbox::Seccomp;
use crate::topology::Topology;

/// The guest's memory in bytes: the payload needs a stack only.
const MEMORY: u64 = 16 << 20;
/// The place of the null device on bus 0.
const NULL: (u8, u8) = (1, 0);
/// What a visit may take beyond its pace: a machine's birth, and a device's reset.
const SLACK: Duration = Duration::from_secs(20);
/// What a repetition of the longest case may take, and how often the guest makes one that the pace does not
/// foresee.
const LONGEST: Duration = Duration::from_secs(2);

/// The parts of a machine, and what must outlive it.
struct Built {
    vm: Arc<Vm>,
    events: Events,
    parts: Vec<Parts>,
    /// Which of them is the device.
    device: usize,
    firmware: Arc<MmapRegion>,
    /// Ends the device's process, and its view of the guest's memory.
    given: Option<adapters::Given>,
}

/// What is needed to make machines around one device.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The device.
    pub device: Device,
    /// How the kernel's VFIO is used.
    pub vfio: Interface,
    /// What becomes of a system call that a thread of the machine has no use for.
    pub seccomp: Seccomp,
}

impl Rig {
    /// Opens the device once and looks what it has.
    ///
    /// # Errors
    /// It cannot be opened, or does not answer.
    pub fn survey(&self) -> Result<Survey> {
        let mut built = self.build(Way::Strict, say)?;
        self.look(&mut built)
    }

    fn look(&self, built: &mut Built) -> Result<Survey> {
        let harmless = !matches!(self.device, Device::Adapters(Adapters::Given(_)));
        let part = built.parts.get_mut(built.device).context("no device")?;
        let devfn = match part.place {
            Place::Pci { devfn, .. } => devfn,
            Place::Platform => Devfn::default(),
        };
        let mut survey = survey::survey(&mut *part.device, devfn, harmless)
            .map_err(|_| anyhow!("{} does not answer", part.name))?;
        if !harmless {
            // Who keeps a file of a function of the host keeps the function from the next machine.
            (survey.vga, survey.trapped) = (None, None);
        }
        Ok(survey)
    }

    /// Makes the parts of a machine whose window is carried out in this way.
    fn build(&self, way: Way, tell: fn(&str)) -> Result<Built> {
        let vm = Arc::new(Vm::new()?);
        let events = Events::default();
        let ram = Ram::of_pages(MEMORY, Pages::Transparent)?;
        let pirqs = Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm))));
        let firmware = Arc::new(MmapRegion::new(payload::SIZE)?);
        let bridge = HostBridge::new(ram.clone(), Arc::clone(&firmware))?;
        let mut parts =
            vec![Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY)];
        let mut given = None;
        match &self.device {
            Device::Null => parts.push(null(&vm, &pirqs, way)?),
            Device::Adapters(wanted) => {
                let around = adapters::Machine {
                    vm: &vm,
                    ram: &ram,
                    pirqs: &pirqs,
                    events: &events,
                    interface: self.vfio,
                    kept: &Kept::default(),
                    tell,
                    ways: way.ways(),
                    every_write: true,
                    seccomp: self.seccomp,
                };
                given = Some(adapters::add(wanted, &around, &mut parts)?);
            }
        }
        let device = parts.len() - 1;
        Ok(Built { vm, events, parts, device, firmware, given })
    }

    /// Runs the cases of these numbers in a new machine. `survey` is what [`Rig::survey`] found of a device
    /// with this rig's shape: in another phase no BAR would be seen as mapped.
    ///
    /// # Errors
    /// The machine cannot be made, or a case does not come to its end.
    pub fn visit(
        &self,
        survey: &Survey,
        way: Way,
        service: Service,
        cases: &[usize],
        pace: Pace,
    ) -> Result<Vec<Visit>> {
        // What there is to tell of the device was told when it was looked at.
        let mut built = self.build(way, |_| {})?;
        // Once more, for the BARs.
        self.look(&mut built)?;
        let entries = write_payload(&built.firmware, survey, cases)?;
        let Built { vm, events, mut parts, firmware: _, device: _, given } = built;
        let script = Arc::new(Mutex::new(Script::new(entries, pace, true)));
        let mark = EndpointId(u16::try_from(parts.len())?);
        parts.push(Parts::platform("mark", Mark::new(Arc::clone(&script), events.clone())));
        let marked = Arc::clone(&script);
        let around = |rest: Arc<Topology>, endpoints| -> Arc<dyn path::Topology> {
            Arc::new(Marks { rest, mark, endpoints, script: marked })
        };
        let published = Published::default();
        let observer = Observer { probes: None, around: Some(Box::new(around)), seccomp: self.seccomp };
        let mut machine = Machine::observed(vm, 1, service, published, parts, events, observer)?;
        if let Some(mapping) = given.as_ref().and_then(|given| given.mapping.as_ref()) {
            mapping.begin();
        }
        let limit = limit(pace, cases.len());
        let ending = machine.run(Instant::now().checked_add(limit));
        machine.stop();
        let mut script = script.lock();
        match ending? {
            Ending::PowerOff => Ok(script.take()),
            _ => bail!("{}", stuck(&script, &way.to_string(), limit)),
        }
    }
}

/// How long a visit of so many cases may take.
pub(super) fn limit(pace: Pace, cases: usize) -> Duration {
    let one = LONGEST + 4 * (pace.warm_up + 2 * pace.slice);
    one.saturating_mul(u32::try_from(cases).unwrap_or(u32::MAX)).saturating_add(SLACK)
}

/// Says which case does not end.
pub(super) fn stuck(script: &Script, way: &str, limit: Duration) -> String {
    let case = script.under_way().and_then(|number| CASES.get(number));
    let name = case.map_or("no case", |case| case.name);
    format!(
        "the guest did not come to its end within {} s: it stands in {name}, window {way}",
        limit.as_secs()
    )
}

/// The null device as a function of the guest's.
fn null(vm: &Arc<Vm>, pirqs: &Pirqs, way: Way) -> Result<Parts> {
    let devfn = Devfn::new(NULL.0, NULL.1).unwrap_or_default();
    let lines = FunctionInterrupts::new(Arc::clone(vm), pirqs.clone(), vec![devfn.device()]);
    let options = assigned::Options {
        ways: way.ways(),
        interrupts: Some(Arc::new(lines)),
        rom: assigned::RomSource::Off,
        ..assigned::Options::default()
    };
    let function = Function::open(Null::new().context("the null device")?, options)?;
    adapters::part(function, "null device".into(), None, devfn)
}

/// Assembles the cases into the firmware; gives numbers and addresses.
pub(super) fn write_payload(
    firmware: &MmapRegion,
    survey: &Survey,
    cases: &[usize],
) -> Result<Vec<(usize, u32)>> {
    let places = survey.places;
    let wanted: Vec<(usize, Case)> =
        cases.iter().filter_map(|number| Some((*number, *CASES.get(*number)?))).collect();
    let codes: Vec<_> =
        wanted.iter().map(|(_, case)| move |code: &mut Code| (case.code)(code, &places)).collect();
    let codes = codes.iter().map(|code| code as &dyn Fn(&mut Code));
    let image = payload::image(|code| cases::first(code, &places), codes)?;
    firmware.as_volatile_slice().copy_from(&image.bytes);
    Ok(wanted.iter().map(|(number, _)| *number).zip(image.entries).collect())
}
