//! A whole benchmark: rounds, variants, visits; and the report of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use trapline_io::endpoint::Service;
use trapline_io::stages::{Stage, Stages};
use trapline_vcpu::Vm;

use super::cases::{CASES, Case, Reach};
use super::report::{self, CaseReport, FORMAT, Measured, Report};
use super::rig::Rig;
use super::script::{Pace, Visit, median};
use super::survey::Survey;
use super::{Device, Way, bare, host};
use crate::config::{Adapters, Interface};
use crate::launch::ways::{self, Collecting};
use crate::sandbox::Seccomp;

/// How long a variant warms up in which every access is the same.
const WARM_UP: Duration = Duration::from_millis(4);
/// The same where the machine changes its mode with what the guest does: some beats of its clock.
const WARM_UP_MODES: Duration = Duration::from_millis(60);

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device.
    pub device: Device,
    /// How the kernel's VFIO is used.
    pub vfio: Interface,
    /// The filters of the machine's threads: their cost is in what is measured.
    pub seccomp: Seccomp,
    /// How the window is carried out; the baselines come by themselves.
    pub windows: Vec<Way>,
    /// Who carries accesses out.
    pub services: Vec<Service>,
    /// Numbers of [`CASES`].
    pub cases: Vec<usize>,
    /// How often all is repeated, at least once.
    pub rounds: u32,
    /// How long one measurement is.
    pub slice: Duration,
}

/// A way, and who carries accesses out if anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    way: Way,
    service: Option<Service>,
}

impl Variant {
    fn pace(self, slice: Duration) -> Pace {
        let warm_up = match self.way {
            Way::Bare | Way::BareFile | Way::File | Way::Strict => WARM_UP,
            Way::Dropped | Way::Coalesced | Way::Shadowed => WARM_UP_MODES,
        };
        Pace { warm_up, slice }
    }
}

/// What one variant of one case gave, round by round.
#[derive(Default)]
struct Found {
    ns: Vec<f64>,
    best_ns: Option<f64>,
    guest_ns: Vec<f64>,
    recorded: u64,
    stages: Option<Box<Stages>>,
}

impl Found {
    fn add(&mut self, case: &Case, visit: Visit) {
        let of_one = |ns: f64| ns / f64::from(case.times);
        self.ns.push(of_one(visit.ns));
        self.guest_ns.push(of_one(visit.guest_ns));
        let best = of_one(visit.best_ns);
        self.best_ns = Some(self.best_ns.map_or(best, |known| known.min(best)));
        self.recorded += u64::from(visit.recorded) * u64::from(case.times);
        match (&mut self.stages, visit.stages) {
            (Some(all), Some(more)) => all.merge(&more),
            (all @ None, more) => *all = more,
            (Some(_), None) => {}
        }
    }
}

/// Measures, and tells `progress` which round and variant begins.
///
/// # Errors
/// The device cannot be had, KVM refuses something, or a guest hangs.
pub fn run(plan: &Plan, mut progress: impl FnMut(u32, &str)) -> Result<Report> {
    let collecting = Collecting::of(&Vm::new()?);
    for window in plan.windows.iter().filter_map(|way| way.window()) {
        ways::find(window, collecting)?;
    }
    let rig = Rig { device: plan.device.clone(), vfio: plan.vfio, seccomp: plan.seccomp };
    let null = Rig { device: Device::Null, ..rig.clone() };
    let survey = rig.survey()?;
    let available: Vec<usize> =
        plan.cases.iter().copied().filter(|number| is_available(*number, &survey)).collect();
    if available.is_empty() {
        bail!("none of these cases can be measured with this device");
    }
    let variants = variants(plan, &survey);
    let mut found: BTreeMap<(usize, usize), Found> = BTreeMap::new();
    for round in 1..=plan.rounds.max(1) {
        for (index, variant) in variants.iter().enumerate() {
            let pace = variant.pace(plan.slice);
            let cases: Vec<usize> =
                available.iter().copied().filter(|number| suits(*number, *variant, &survey)).collect();
            if cases.is_empty() {
                continue;
            }
            progress(round, &label(*variant));
            let visits = match (variant.way, variant.service) {
                (Way::Bare, _) => bare::visit(&survey, false, &cases, pace)?,
                (Way::BareFile, _) => bare::visit(&survey, true, &cases, pace)?,
                (Way::File, _) => bare::transfers(&survey, &cases, pace),
                (Way::Dropped, service) => {
                    null.visit(&survey, Way::Dropped, service.unwrap_or_default(), &cases, pace)?
                }
                (way, service) => rig.visit(&survey, way, service.unwrap_or_default(), &cases, pace)?,
            };
            for visit in visits {
                if let Some(case) = CASES.get(visit.case) {
                    found.entry((visit.case, index)).or_default().add(case, visit);
                }
            }
        }
    }
    Ok(make_report(plan, &survey, &variants, &found))
}

fn is_available(number: usize, survey: &Survey) -> bool {
    CASES.get(number).is_some_and(|case| case.needs.missing(&survey.places).is_none())
}

/// The baselines that there are for this device, and what was asked for.
fn variants(plan: &Plan, survey: &Survey) -> Vec<Variant> {
    let baseline = |way| Variant { way, service: None };
    let mut variants = vec![baseline(Way::Bare)];
    if survey.vga.is_some() || survey.trapped.is_some() {
        variants.extend([Way::File, Way::BareFile].map(baseline));
    }
    for service in &plan.services {
        let with = |way| Variant { way, service: Some(*service) };
        // Right before what is compared with it.
        let mut floor = Some(Way::Dropped).filter(|_| plan.device != Device::Null);
        for way in &plan.windows {
            if *way > Way::Strict {
                variants.extend(floor.take().map(with));
            }
            variants.push(with(*way));
        }
    }
    variants
}

/// Whether a case says anything in this variant.
fn suits(number: usize, variant: Variant, survey: &Survey) -> bool {
    let Some(case) = CASES.get(number) else { return false };
    match variant.way {
        // What a bare loop can do are accesses that trap.
        Way::Bare => case.reach != Reach::Nothing || ["nop", "exit", "config-read"].contains(&case.name),
        Way::BareFile => match case.reach {
            Reach::Nothing => false,
            Reach::Vga => survey.vga.is_some(),
            Reach::Trapped => survey.trapped.is_some(),
        },
        Way::File => bare::transfer(case, survey).is_some(),
        Way::Dropped => case.reach == Reach::Vga,
        Way::Strict | Way::Coalesced | Way::Shadowed => true,
    }
}

fn label(variant: Variant) -> String {
    match variant.service {
        Some(service) => format!("{} {}", variant.way, service_name(service)),
        None => variant.way.to_string(),
    }
}

/// As `--io` calls it.
pub const fn service_name(service: Service) -> &'static str {
    match service {
        Service::Inline => "inline",
        Service::Uring => "uring",
        Service::Adaptive => "adaptive",
    }
}

/// What a person would call the device.
fn device_name(device: &Device) -> String {
    match device {
        Device::Null => "null device".into(),
        Device::Adapters(Adapters::Software) => "software adapter".into(),
        Device::Adapters(Adapters::None) => "none".into(),
        Device::Adapters(Adapters::Given(devices)) => {
            let names: Vec<String> = devices.iter().map(|device| device.origin.to_string()).collect();
            names.join(", ")
        }
    }
}

fn make_report(
    plan: &Plan,
    survey: &Survey,
    variants: &[Variant],
    found: &BTreeMap<(usize, usize), Found>,
) -> Report {
    let mut facts = host::facts(Path::new("/"));
    host::kvm(&mut facts);
    facts.insert("--seccomp".into(), plan.seccomp.word().into());
    let case_report = |number: &usize| {
        let case = CASES.get(*number)?;
        let measured = variants
            .iter()
            .enumerate()
            .filter_map(|(index, variant)| Some(measured(*variant, found.get(&(*number, index))?)));
        let mut measured: Vec<Measured> = measured.collect();
        add_ratios(&mut measured);
        Some(CaseReport {
            name: case.name.into(),
            what: case.what.into(),
            accesses: case.accesses,
            not_available: case.needs.missing(&survey.places).map(str::to_owned),
            variants: measured,
        })
    };
    Report {
        format: FORMAT,
        trapline: env!("CARGO_PKG_VERSION").into(),
        device: device_name(&plan.device),
        rounds: plan.rounds.max(1),
        slice_ms: plan.slice.as_secs_f64() * 1e3,
        host: facts,
        cases: plan.cases.iter().filter_map(case_report).collect(),
    }
}

fn measured(variant: Variant, found: &Found) -> Measured {
    let middle = |numbers: &[f64]| median(&mut numbers.to_vec()).unwrap_or_default();
    let exits = found.stages.as_ref().filter(|_| found.recorded > 0).map(|stages| {
        // A count of exits, and of what was repeated: far below what a float tells apart.
        #[expect(clippy::cast_precision_loss)]
        let exits = stages.of(Stage::Total).len() as f64 / found.recorded as f64;
        exits
    });
    Measured {
        window: variant.way.name().into(),
        io: variant.service.map(|service| service_name(service).into()),
        ns: middle(&found.ns),
        best_ns: found.best_ns.unwrap_or_default(),
        guest_ns: middle(&found.guest_ns),
        rounds: found.ns.clone(),
        ratios: BTreeMap::new(),
        exits,
        stages: found.stages.as_ref().map(|stages| report::times(stages)).unwrap_or_default(),
    }
}

/// Ratios to the baselines, and to the other ways with the same `io`. The null device, where it is the floor,
/// is compared with nothing.
fn add_ratios(measured: &mut [Measured]) {
    let all = measured.to_vec();
    for it in measured.iter_mut().filter(|it| it.io.is_some() && it.window != Way::Dropped.name()) {
        for other in all.iter().filter(|other| other.window != it.window) {
            if other.io.is_none() || other.io == it.io {
                let mut ratios: Vec<f64> =
                    it.rounds.iter().zip(&other.rounds).map(|(mine, theirs)| mine / theirs).collect();
                if let Some(ratio) = median(&mut ratios).filter(|ratio| ratio.is_finite()) {
                    it.ratios.insert(other.window.clone(), ratio);
                }
            }
        }
    }
}
