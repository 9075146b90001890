//! The display adapters of a machine, as parts.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use trapline_devices::assigned::{self, Function, RomSource};
use trapline_devices::host;
use trapline_devices::pci::{Devfn, Link};
use trapline_devices::q35::RootPort;
use trapline_devices::vfio_user::client::{Client, Settings};
use trapline_devices::vga;
use trapline_io::Region;

use super::place;
use crate::adapter::{Display, Process};
use crate::config::{Adapters, AssignedDevice, Rom, Vga};
use crate::events::Events;
use crate::parts::{PartId, Parts, ServedBy};
use crate::screen::{Frame, Source, TextScreen};

/// What a root port says of its link: what a card of these days has.
const LINK: Link = Link { speed: 4, lanes: 16 };

/// What the adapters leave outside the machine.
pub(super) struct Given {
    /// What the owner of legacy VGA shows, if it tells.
    pub(super) display: Box<dyn Source>,
    /// The software adapter's process.
    pub(super) process: Option<Process>,
}

/// Connects to the adapters that are wanted, or starts ours, and adds them to `parts`.
pub(super) fn add(wanted: &Adapters, events: &Events, parts: &mut Vec<Parts>) -> Result<Given> {
    let mut given = Given { display: Box::new(NoDisplay), process: None };
    match wanted {
        Adapters::None => {}
        Adapters::Software => {
            let (process, socket) = Process::start()?;
            given.process = Some(process);
            let function = software(socket, events)?;
            given.show(&function);
            parts.push(part(function, 0, None, place::adapter(0)?)?);
        }
        Adapters::Given(devices) => {
            let mut owned = devices.iter().any(|device| device.vga == Vga::On);
            for (index, device) in devices.iter().enumerate() {
                let name = device.socket.display().to_string();
                let given_as = format!("--device vfio-user:{name}");
                let client = Client::connect(&device.socket, settings(name, events)).context(given_as)?;
                let function = Function::open(client, options(device, owned))?;
                owned |= function.has_vga();
                given.show(&function);
                let mut at = (None, place::adapter(index)?);
                if device.root_port {
                    at = (Some(root_port(index, at.1, parts)), Devfn::default());
                }
                parts.push(part(function, index, at.0, at.1)?);
            }
        }
    }
    Ok(given)
}

fn software(socket: UnixStream, events: &Events) -> Result<Function<Client>> {
    let name = "the software adapter";
    let client = Client::over(socket, settings(name.into(), events)).context(name)?;
    Ok(Function::open(client, assigned::Options::default())?)
}

fn settings(name: String, events: &Events) -> Settings {
    let events: Arc<dyn host::Events> = Arc::new(events.clone());
    Settings { name, events: Some(events), ..Settings::default() }
}

/// How a device is given to the guest; `owned` says that another has legacy VGA.
fn options(device: &AssignedDevice, owned: bool) -> assigned::Options {
    assigned::Options {
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
        ..assigned::Options::default()
    }
}

/// A root port in an adapter's place on bus 0.
fn root_port(index: usize, devfn: Devfn, parts: &mut Vec<Parts>) -> PartId {
    let port = RootPort::new(LINK);
    parts.push(Parts::function(format!("root port {index}"), port, None, devfn, RootPort::TOPOLOGY));
    parts.len() - 1
}

/// A function with a worker of its own: an access to legacy VGA can sleep.
fn part(function: Function<Client>, index: usize, parent: Option<PartId>, devfn: Devfn) -> Result<Parts> {
    let topology = function.topology();
    let attention = function.attention().context("an adapter's connection can not be watched")?;
    let part = Parts::function(format!("adapter{index}"), function, parent, devfn, topology);
    Ok(Parts { served_by: ServedBy::Own, attention, ..part })
}

impl Given {
    /// Takes the screen of `function` if it owns legacy VGA and tells what it shows.
    fn show(&mut self, function: &Function<Client>) {
        let memories = || function.mapping(vga::SCREEN).zip(function.mapping(Region::bar(0)));
        let view =
            memories().filter(|_| function.has_vga()).and_then(|(screen, bar)| vga::View::new(screen, bar));
        if let Some(view) = view {
            self.display = Box::new(Display(view));
        }
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
