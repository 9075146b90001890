//! What a machine leaves for a report: the functions that its guest was given, and what is noted of them while it
//! runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use trapline_devices::assigned::{self, Backend, Messages, Offered};
use trapline_devices::pci::PciAddress;
use trapline_devices::rom::Ids;
use trapline_devices::seen::{Life, Mark, Seen};

use super::{Function, Interrupts, NO_ROM, Run};
use crate::bench;
use crate::config::size::shown;
use crate::config::{Adapters, AssignedDevice, Disk, Identity, Pages, Rom, RunConfig, Words};
use crate::host::Host;
use crate::host::resource::{HostBar, HostBarKind};
use crate::interrupts::watch::{Found, Watched};

/// What is told of the host, by the names that the benchmark has for it.
const HOST: [&str; 5] = ["kernel", "processor", "virtual machine", "IOMMU", "KVM module"];

/// A function that a guest has. Clones share what is noted.
#[derive(Clone, Debug)]
pub struct Account {
    /// What messages call it; no name of a file.
    pub(crate) name: String,
    /// Where it is on the host, if it is a function of it.
    pub(crate) address: Option<PciAddress>,
    /// How it is reached, and where in the guest it sits.
    pub(crate) given: String,
    /// How the host resets it, and whether it owns legacy VGA.
    pub(crate) reset: String,
    pub(crate) legacy_vga: String,
    /// What the ROM that the guest sees holds.
    pub(crate) rom: String,
    /// Its own options, where they are not the default.
    pub(crate) options: Vec<String>,
    pub(crate) shown: Messages,
    ids: (Ids, u32),
    offered: Offered,
    sees_window: bool,
    seen: Arc<Seen>,
    found: Arc<Mutex<Found>>,
}

impl Account {
    /// Of a function under this name; all else is to be filled in.
    pub(crate) fn of<B: Backend>(name: &str, function: &assigned::Function<B>) -> Account {
        Account {
            name: name.to_owned(),
            address: None,
            given: String::new(),
            reset: String::new(),
            legacy_vga: String::new(),
            options: Vec::new(),
            shown: Messages::Guest,
            rom: function.rom_report().map_or_else(|| NO_ROM.into(), ToString::to_string),
            ids: function.ids(),
            offered: function.offered(),
            sees_window: function.sees_window(),
            seen: Arc::clone(function.seen()),
            found: Arc::default(),
        }
    }

    /// One that nobody has, with the ids of an 82574L.
    #[cfg(test)]
    pub(crate) fn example() -> Account {
        Account {
            name: "a device over vfio-user".into(),
            address: None,
            given: String::new(),
            reset: String::new(),
            legacy_vga: String::new(),
            options: Vec::new(),
            shown: Messages::Guest,
            rom: NO_ROM.into(),
            ids: (Ids { vendor: 0x8086, device: 0x10d3 }, 0x02_0000),
            offered: Offered::default(),
            sees_window: false,
            seen: Arc::default(),
            found: Arc::default(),
        }
    }

    /// The same with the options of its device.
    pub(crate) fn asked(self, device: &AssignedDevice) -> Account {
        Account { options: of_device(device), shown: device.messages, ..self }
    }

    /// What is to be watched of it, if the host has its interrupts.
    pub(crate) fn watched(&self) -> Option<Watched> {
        Some(Watched {
            name: self.name.clone(),
            address: self.address?,
            seen: Arc::clone(&self.seen),
            offered: self.offered,
            shown: self.shown,
            found: Arc::clone(&self.found),
        })
    }

    /// What became of it.
    fn told(&self, host: &Host) -> Function {
        let (ids, class) = self.ids;
        let there = self.address.and_then(|address| host.function(address));
        let [_, base, sub, _] = class.to_be_bytes();
        let resets = self.seen.resets();
        Function {
            name: there.map_or_else(|| self.name.clone(), |function| host.name_of(function)),
            class_name: host.class_name(base, sub),
            ids: ids.to_string(),
            class: format!("{class:06x}"),
            given: self.given.clone(),
            options: self.options.clone(),
            bars: there.map(|function| function.bars.iter().map(bar).collect()).unwrap_or_default(),
            rom: self.rom.clone(),
            reset: self.reset.clone(),
            legacy_vga: self.legacy_vga.clone(),
            resets,
            first: self.life(Life::First),
            later: (resets > 0).then(|| self.life(Life::Later)),
            interrupts: self.interrupts(),
        }
    }

    fn life(&self, life: Life) -> super::Life {
        let has = |mark| self.seen.has(life, mark);
        let shown = |mark| self.sees_window.then(|| has(mark));
        super::Life {
            rom: has(Mark::Rom),
            text: shown(Mark::Text),
            graphics: shown(Mark::Graphics),
            bars: shown(Mark::Native),
            bus_master: has(Mark::Master),
            msi: has(Mark::Msi),
            msix: has(Mark::Msix),
            function_reset: has(Mark::FunctionReset),
        }
    }

    fn interrupts(&self) -> Interrupts {
        let Offered { line, msi, msix } = self.offered;
        let ways = [("INTx", line), ("MSI", msi), ("MSI-X", msix)];
        let found = self.found.lock().clone();
        Interrupts {
            offered: ways.into_iter().filter(|(_, there)| *there).map(|(way, _)| way.to_owned()).collect(),
            intx: found.line,
            msi: found.msi,
            msix: found.msix,
            posted: found.posted,
            trouble: found.told,
        }
    }
}

/// A run of `config` that ended in these words, on `host`, for which the machine left `accounts`.
pub(crate) fn run(config: &RunConfig, (end, clean): (&str, bool), accounts: &[Account], host: &Host) -> Run {
    let mut facts: BTreeMap<String, String> = bench::host::facts(&host.tree().path(""));
    facts.retain(|name, _| HOST.contains(&name.as_str()));
    Run {
        trapline: env!("CARGO_PKG_VERSION").to_owned(),
        host: facts,
        options: of_run(config),
        end: end.to_owned(),
        clean,
        functions: accounts.iter().map(|account| account.told(host)).collect(),
    }
}

/// The options of a run that matter to what its functions do, without names of files.
fn of_run(config: &RunConfig) -> Vec<String> {
    let disk = |disk: &Disk| if disk.readonly { "--disk FILE,readonly" } else { "--disk FILE" };
    let sizes = [format!("--cpus {}", config.cpus), format!("--memory {}M", config.memory >> 20)];
    let files = [
        (config.adapters == Adapters::None, "--device none"),
        (config.firmware.is_some(), "--firmware FILE"),
        (config.linux.is_some(), "--kernel FILE"),
        (config.trace.is_some(), "--trace FILE"),
        (config.pages != Pages::default(), "--hugepages"),
    ];
    let files = files.into_iter().filter_map(|(is_given, option)| is_given.then_some(option));
    let words = [
        ("--io", config.io.unusual()),
        ("--vfio", config.vfio.unusual()),
        ("--window", config.window.unusual()),
        ("--seccomp", config.seccomp.unusual()),
        ("--identity", (config.identity != Identity::Off).then(|| config.identity.word())),
    ];
    let words = words.into_iter().filter_map(|(option, word)| Some(format!("{option} {}", word?)));
    let bits = config.phys_bits.map(|bits| format!("--phys-bits {bits}"));
    let files = files.chain(config.disks.iter().map(disk)).map(str::to_owned);
    sizes.into_iter().chain(files).chain(words).chain(bits).collect()
}

/// The options of a device, without names of files.
fn of_device(device: &AssignedDevice) -> Vec<String> {
    let rom = match device.rom {
        Rom::Device => None,
        Rom::File(_) => Some("FILE"),
        Rom::Off => Some("off"),
    };
    let words = [
        ("vga", device.vga.unusual()),
        ("rom", rom),
        ("root-port", device.root_port.map(Words::word)),
        ("msi", device.messages.unusual()),
        ("phase", device.phase.unusual()),
        ("arbiter", device.arbiter.unusual()),
        ("identity", device.identity.map(Identity::word)),
    ];
    let words = words.into_iter().filter_map(|(option, word)| Some(format!("{option}={}", word?)));
    words.chain(device.gpudirect_clique.map(|clique| format!("gpudirect-clique={clique}"))).collect()
}

/// A base address register in words.
fn bar(bar: &HostBar) -> String {
    let kind = match bar.kind {
        HostBarKind::Io => "ports",
        HostBarKind::Memory32 => "32-bit memory",
        HostBarKind::Memory64 => "64-bit memory",
    };
    let prefetchable = if bar.prefetchable { ", prefetchable" } else { "" };
    format!("{}: {} of {kind}{prefetchable}", bar.index, shown(bar.size))
}
