//! The display adapters and other devices that a machine is given, as parts.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use trapline_devices::assigned::{self, Backend, Function, Igd, Placement, RomSource};
use trapline_devices::host;
use trapline_devices::legacy::Ways;
use trapline_devices::pci::{Devfn, Link};
use trapline_devices::q35::{Pirqs, Ram, RootPort};
use trapline_devices::vfio::{self, Iommu};
use trapline_devices::vfio_user::client::{Client, Settings};
use trapline_devices::vga;
use trapline_io::{Gpa, Region, Span};
use trapline_vcpu::Vm;

use super::identity::Kept;
use super::lease;
use super::physical::{self, Known, Physical};
use super::place;
use super::seats::{self, Seat, Wish};
use super::ways;
use crate::adapter::{Display, Process};
use crate::config::{Adapters, AssignedDevice, DeviceOrigin, Interface, Rom, Vga};
use crate::dma::{self, Gate, Mapping, Peers};
use crate::events::Events;
use crate::interrupts::FunctionInterrupts;
use crate::parts::{PartId, Parts, ServedBy};
use crate::report::account::Account;
use crate::sandbox::Seccomp;
use crate::screen::{Frame, Source, TextScreen};

/// What a root port says of its link: what a card of these days has.
const LINK: Link = Link { speed: 4, lanes: 16 };

/// What devices of the host need of the machine.
pub(crate) struct Machine<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    pub(crate) ram: &'a Ram,
    pub(crate) pirqs: &'a Pirqs,
    pub(crate) events: &'a Events,
    /// How the kernel's VFIO is used.
    pub(crate) interface: Interface,
    /// What functions keep of the host's addresses.
    pub(crate) kept: &'a Kept,
    /// Tells a person what became of a function.
    pub(crate) tell: fn(&str),
    /// How fast the owner of legacy VGA may be, in whatever phase.
    pub(crate) ways: Ways,
    /// Each write that traps is to go on trapping: somebody watches.
    pub(crate) every_write: bool,
    /// Confines the threads and the process that are started for them.
    pub(crate) seccomp: Seccomp,
}

/// What the adapters leave outside the machine.
pub(crate) struct Given {
    /// What the first function with legacy VGA shows, if one tells.
    display: Option<Box<dyn Source>>,
    /// The software adapter's process.
    pub(crate) process: Option<Process>,
    /// The guest's memory, as functions of the host see it.
    pub(crate) mapping: Option<Mapping>,
    /// BARs for the DMA of other functions, where there are several.
    pub(crate) peers: Option<Peers>,
    /// The addresses that functions of the host reach by DMA, ascending; none where there is no such function.
    pub(crate) reach: Vec<Span<Gpa>>,
    /// Integrated graphics of Intel's, for the firmware.
    pub(crate) graphics: Option<Igd>,
    /// The functions, for who watches them and tells of them.
    pub(crate) accounts: Vec<Account>,
}

/// Connects to the adapters that are wanted, or starts ours, and adds them to `parts`.
pub(crate) fn add(wanted: &Adapters, machine: &Machine<'_>, parts: &mut Vec<Parts>) -> Result<Given> {
    let (reach, graphics, accounts) = (Vec::new(), None, Vec::new());
    let mut given =
        Given { display: None, process: None, mapping: None, peers: None, reach, graphics, accounts };
    match wanted {
        Adapters::None => {}
        Adapters::Software => {
            let (process, socket) = Process::start(machine.seccomp)?;
            given.process = Some(process);
            let function = software(socket, machine)?;
            given.show(&function);
            given.accounts.push(over_socket("the software adapter", &function, (Vga::Auto, false)));
            parts.push(part(function, "adapter0".into(), None, place::adapter(0)?)?);
        }
        Adapters::Given(devices) => add_given(devices, machine, parts, &mut given)?,
    }
    Ok(given)
}

/// A device that answers, and has no place yet.
enum Opened {
    User(Client),
    Host(Physical),
}

/// Adds devices that are somewhere else. All are opened first: where one sits depends on the others.
fn add_given(
    devices: &[AssignedDevice],
    machine: &Machine<'_>,
    parts: &mut Vec<Parts>,
    given: &mut Given,
) -> Result<()> {
    if devices.iter().any(|device| matches!(device.origin, DeviceOrigin::Host(_))) {
        dma::fits(machine.ram.split().total())?;
    }
    let opened = open(devices, machine)?;
    let wishes: Vec<Wish> =
        devices.iter().zip(&opened).map(|(device, opened)| wish(device, opened)).collect();
    let (seats, told) = seats::plan(&wishes)?;
    told.iter().for_each(|line| (machine.tell)(line));
    let gate = Arc::new(Gate::default());
    map_memory(&opened, machine, &gate, given)?;
    let mut of_igd = opened
        .iter()
        .zip(&seats)
        .filter_map(|(opened, seat)| Some((opened.as_host()?.igd.clone()?, seat.card)));
    let (igd, igd_card) = of_igd.next().unzip();
    given.graphics = igd;
    let mut ports = BTreeMap::new();
    let mut has_vga: Vec<bool> = devices.iter().map(|device| device.vga == Vga::On).collect();
    for (((device, opened), seat), index) in devices.iter().zip(opened).zip(seats).zip(0_usize..) {
        let card = place::adapter_beside(seat.card, igd_card)?;
        let parent = seat.behind_port.then(|| {
            let port = || root_port(seat.card, card, parts);
            *ports.entry(seat.card).or_insert_with(port)
        });
        let owned = has_vga.iter().enumerate().any(|(other, has)| other != index && *has);
        let at = At { name: format!("adapter{index}"), parent, card, seat };
        match opened {
            Opened::User(client) => {
                let function = Function::open(client, options(device, owned, seat, machine.ways))?;
                has_vga[index] = function.has_vga();
                given.show(&function);
                given.accounts.push(
                    over_socket("a device over vfio-user", &function, (device.vga, owned)).asked(device),
                );
                tell_rom(&function, &device.origin.to_string(), machine);
                parts.push(part(function, at.name, parent, seat.devfn(card))?);
            }
            Opened::Host(physical) => {
                let (part, has, account) = host_part(physical, device, at, owned, machine)?;
                has_vga[index] = has;
                given.accounts.push(account);
                parts.push(Parts { dma: Some(Arc::clone(&gate)), ..part });
            }
        }
    }
    Ok(())
}

/// What there is to know of a device for its seat.
fn wish(device: &AssignedDevice, opened: &Opened) -> Wish {
    let is_express = |physical: &Physical| physical.device.is_express() && physical.igd.is_none();
    Wish {
        name: device.origin.to_string(),
        host: opened.as_host().map(|physical| physical.known.address),
        express: opened.as_host().is_some_and(is_express),
        root_port: device.root_port,
    }
}

/// Where a device comes to sit.
struct At {
    /// What the machine calls it.
    name: String,
    /// The root port above it.
    parent: Option<PartId>,
    /// The place of its card on bus 0.
    card: Devfn,
    seat: Seat,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seat.behind_port {
            true => write!(f, "behind a root port at 00:{:02x}.0", self.card.device()),
            false => write!(f, "at 00:{:02x}.{}", self.card.device(), self.seat.function),
        }
    }
}

/// Lets functions of the host reach the guest's memory, and each other's.
fn map_memory(opened: &[Opened], machine: &Machine<'_>, gate: &Arc<Gate>, given: &mut Given) -> Result<()> {
    let hosts: Vec<&Physical> = opened.iter().filter_map(Opened::as_host).collect();
    let Some(first) = hosts.first() else { return Ok(()) };
    let iommu = &first.iommu;
    physical::tell_kvm(machine.vm, iommu);
    given.reach = iommu.ranges()?;
    let (ram, events) = (machine.ram.clone(), machine.events.clone());
    let mapping = Mapping::prepare(ram, Arc::clone(iommu), Arc::clone(gate), events, machine.seccomp)?;
    given.mapping = Some(mapping);
    if hosts.len() > 1 {
        let regions = hosts.iter().flat_map(|physical| physical.device.regions());
        let memory = regions.flat_map(|region| &region.mappings).map(|mapping| &mapping.memory);
        given.peers = Some(Peers::new(Arc::<Iommu>::clone(iommu), memory.map(Arc::downgrade).collect()));
    }
    Ok(())
}

/// A function of the host as a part, told to the person; whether it has legacy VGA; and its account. `owned` says
/// that another has it.
fn host_part(
    physical: Physical,
    device: &AssignedDevice,
    at: At,
    owned: bool,
    machine: &Machine<'_>,
) -> Result<(Parts, bool, Account)> {
    let Physical { device: backend, iommu, known, .. } = physical;
    let function = open_host(backend, &known, device, (&at, owned), machine)?;
    let told = Told {
        place: at.to_string(),
        interface: physical::interface(&iommu),
        legacy_vga: physical::legacy(function.legacy_vga(), device.vga, owned),
    };
    (machine.tell)(&told.line(&function, &known, device));
    if !known.shadowed {
        tell_rom(&function, &device.origin.to_string(), machine);
    }
    let account = told.account(&function, &known, device);
    let (has_vga, stopping) = (function.has_vga(), function.backend().stopping());
    // An access to legacy VGA can sleep.
    let served_by = if has_vga { ServedBy::Own } else { ServedBy::Shared };
    let part = part(function, at.name, at.parent, at.seat.devfn(at.card))?;
    let keeps = machine.kept.by(known.address).cloned();
    Ok((Parts { served_by, stopping: Some(stopping), keeps, ..part }, has_vga, account))
}

/// A function of the host as the guest is to see it.
fn open_host(
    mut backend: vfio::Device,
    known: &Known,
    device: &AssignedDevice,
    (at, owned): (&At, bool),
    machine: &Machine<'_>,
) -> Result<Function<vfio::Device>> {
    let path = at.seat.path(at.card);
    let lines = FunctionInterrupts::new(Arc::clone(machine.vm), machine.pirqs.clone(), path);
    let options = assigned::Options {
        interrupts: Some(Arc::new(lines)),
        every_write: machine.every_write,
        console: known.is_console,
        ..options(device, owned, at.seat, machine.ways)
    };
    if known.is_vga && options.vga != assigned::Vga::Off {
        lease::give(&mut backend, device.arbiter, known.rivals, machine.seccomp)?;
    }
    let mut function = Function::open(backend, options)?;
    // The gate keeps bus mastering back, before the write comes here.
    function.allow_dma();
    Ok(function)
}

/// What is told of a function of the host, in words.
struct Told {
    /// Where it sits.
    place: String,
    /// How it is reached.
    interface: &'static str,
    /// What became of its legacy VGA.
    legacy_vga: &'static str,
}

impl Told {
    /// One line, for the person.
    fn line(&self, function: &Function<vfio::Device>, known: &Known, device: &AssignedDevice) -> String {
        let Told { place, interface, legacy_vga } = self;
        let reset = function.backend().method();
        let mut line = format!("{}: {place}, by {interface}; its reset: {reset}", known.name);
        if known.is_vga {
            line.extend(["; ", legacy_vga]);
        }
        if let Some(way) = physical::hidden(device.messages, function.offered()) {
            line.extend(["; ", way]);
        }
        line
    }

    /// The same for a report.
    fn account(&self, function: &Function<vfio::Device>, known: &Known, device: &AssignedDevice) -> Account {
        let mut account = Account::of(&known.name, function).asked(device);
        account.address = Some(known.address);
        account.given = format!("by VFIO ({}), {}", self.interface, self.place);
        account.reset = function.backend().method().to_string();
        account.legacy_vga =
            if known.is_vga { self.legacy_vga.into() } else { "no VGA compatible controller".into() };
        if known.shadowed {
            account.rom = "the copy that the host's firmware has already run".into();
        }
        account
    }
}

/// Tells what the ROM of a function is that the guest sees.
fn tell_rom<B: Backend>(function: &Function<B>, name: &str, machine: &Machine<'_>) {
    if let Some(found) = function.rom_found() {
        (machine.tell)(&format!("{name}: its ROM: {found}"));
    }
}

impl Opened {
    fn as_host(&self) -> Option<&Physical> {
        match self {
            Opened::Host(physical) => Some(physical),
            Opened::User(_) => None,
        }
    }
}

fn open(devices: &[AssignedDevice], machine: &Machine<'_>) -> Result<Vec<Opened>> {
    let mut hosts = physical::Opener::new(machine.interface, machine.events, machine.tell);
    let open = |device: &AssignedDevice| match &device.origin {
        // What goes wrong names the function.
        DeviceOrigin::Host(address) => hosts.open(*address, device.rom == Rom::Device).map(Opened::Host),
        DeviceOrigin::Socket(socket) => {
            let name = socket.display().to_string();
            let client = Client::connect(socket, settings(name, machine.events));
            Ok(Opened::User(client.with_context(|| format!("--device {}", device.origin))?))
        }
    };
    devices.iter().map(open).collect()
}

fn software(socket: UnixStream, machine: &Machine<'_>) -> Result<Function<Client>> {
    let name = "the software adapter";
    let client = Client::over(socket, settings(name.into(), machine.events)).context(name)?;
    Ok(Function::open(client, assigned::Options { ways: machine.ways, ..assigned::Options::default() })?)
}

fn settings(name: String, events: &Events) -> Settings {
    let events: Arc<dyn host::Events> = Arc::new(events.clone());
    Settings { name, events: Some(events), ..Settings::default() }
}

/// How a device is given to the guest; `owned` says that another has legacy VGA.
fn options(device: &AssignedDevice, owned: bool, seat: Seat, ways: Ways) -> assigned::Options {
    assigned::Options {
        ways: ways::in_phase(ways, device.phase),
        vga: match device.vga {
            Vga::On => assigned::Vga::On,
            Vga::Auto if !owned => assigned::Vga::Auto,
            Vga::Off | Vga::Auto => assigned::Vga::Off,
        },
        rom: match &device.rom {
            Rom::Device => RomSource::Device,
            Rom::File(path) => RomSource::File(path.clone()),
            Rom::Off => RomSource::Off,
        },
        placement: if seat.behind_port { Placement::BehindPort } else { Placement::RootBus },
        multifunction: seat.multifunction,
        every_write: false,
        gpudirect_clique: device.gpudirect_clique,
        messages: device.messages,
        console: false,
        interrupts: None,
    }
}

/// What is told of a function that is reached over a socket; `wish` and `owned` as [`physical::legacy`] has them.
fn over_socket(name: &str, function: &Function<Client>, (wish, owned): (Vga, bool)) -> Account {
    let mut account = Account::of(name, function);
    account.given = "over vfio-user".into();
    account.legacy_vga = physical::legacy(function.legacy_vga(), wish, owned).into();
    account
}

/// A root port in a card's place on bus 0.
fn root_port(card: usize, devfn: Devfn, parts: &mut Vec<Parts>) -> PartId {
    let port = RootPort::new(LINK);
    parts.push(Parts::function(format!("root port {card}"), port, None, devfn, RootPort::TOPOLOGY));
    parts.len() - 1
}

/// A function with a worker of its own.
///
/// # Errors
/// Out of descriptors.
pub(crate) fn part<B: Backend + 'static>(
    function: Function<B>,
    name: String,
    parent: Option<PartId>,
    devfn: Devfn,
) -> Result<Parts> {
    let (topology, collected) = (function.topology(), function.collected());
    let attention = function.attention().context("an adapter's descriptors cannot be watched")?;
    let part = Parts::function(name, function, parent, devfn, topology);
    Ok(Parts { served_by: ServedBy::Own, attention, collected, ..part })
}

impl Given {
    /// Takes the screen of `function` if it has legacy VGA, tells what it shows, and is the first.
    fn show(&mut self, function: &Function<Client>) {
        let memories = || function.mapping(vga::SCREEN).zip(function.mapping(Region::bar(0)));
        let view =
            memories().filter(|_| function.has_vga()).and_then(|(screen, bar)| vga::View::new(screen, bar));
        if self.display.is_none() {
            self.display = view.map(|view| Box::new(Display(view)) as Box<dyn Source>);
        }
    }

    /// What a person is shown.
    pub(crate) fn display(&mut self) -> Box<dyn Source> {
        self.display.take().unwrap_or_else(|| Box::new(NoDisplay))
    }
}

/// The screen of a machine without an adapter, or with one that does not tell what it shows.
struct NoDisplay;

impl Source for NoDisplay {
    fn text(&mut self) -> Option<TextScreen> {
        None
    }

    fn frame(&mut self) -> Option<Frame> {
        None
    }
}
