//! Adapters and disks: a name and options, separated by commas.

use std::fmt;
use std::path::PathBuf;

use trapline_devices::assigned::CLIQUE_LARGEST;

use super::error::Shown;
use super::identity::{self, Identity};
use super::words::Words;
use super::{Messages, Phase, Window};
use crate::host::{AddressError, PciAddress};

/// The display adapters of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// The software adapter, in its own process, started and ended with the machine.
    Software,
    /// Those named, in this order; never empty, and none named twice.
    Given(Vec<AssignedDevice>),
    /// None at all.
    None,
}

impl Adapters {
    /// Whether all devices are functions of this host, so that only a card itself can show what the guest
    /// shows.
    pub fn only_cards_show(&self) -> bool {
        let host = |device: &AssignedDevice| matches!(device.origin, DeviceOrigin::Host(_));
        matches!(self, Adapters::Given(devices) if devices.iter().all(host))
    }
}

/// Where a device that is given to the guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOrigin {
    /// A PCI function of the host, bound to vfio-pci.
    Host(PciAddress),
    /// The Unix socket of a vfio-user server.
    Socket(PathBuf),
}

impl fmt::Display for DeviceOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceOrigin::Host(address) => write!(f, "{address}"),
            DeviceOrigin::Socket(socket) => write!(f, "vfio-user:{}", socket.display()),
        }
    }
}

/// One device that is somewhere else and is given to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedDevice {
    /// Where it is.
    pub origin: DeviceOrigin,
    /// Whether it owns the legacy VGA addresses.
    pub vga: Vga,
    /// Its expansion ROM.
    pub rom: Rom,
    /// Whether it sits behind a PCI Express root port of its own instead of on bus 0; `None` is what
    /// suits it.
    pub root_port: Option<bool>,
    /// Which message signalled interrupts the guest sees of those that it has.
    pub messages: Messages,
    /// What it may be fast at, if it owns legacy VGA: the window at 0xa0000 or its BARs.
    pub phase: Phase,
    /// Where its BARs lie; `None` is as the run has it.
    pub identity: Option<Identity>,
    /// Display adapters of NVIDIA's with the same number, 0 to 15, may reach each other directly (GPUDirect
    /// peer-to-peer): their driver is told so.
    pub gpudirect_clique: Option<u8>,
    /// Whether bursts of accesses to legacy VGA have a lease from the host's arbiter, if it owns legacy VGA.
    pub arbiter: Arbitration,
}

/// Whether a function of the host has a lease on the host's legacy VGA ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbitration {
    /// It does.
    On,
    /// It does not: each access is arbitrated by itself.
    Off,
    /// It does where the host has other VGA adapters, and an arbiter.
    Auto,
}

/// Whether an adapter decodes the legacy VGA addresses. Several may, if it is said of each: the guest hands the
/// addresses over from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vga {
    /// It does.
    On,
    /// It does not.
    Off,
    /// The first that can does, if none was told to.
    Auto,
}

/// Where an adapter's expansion ROM comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rom {
    /// The device's own.
    Device,
    /// This file.
    File(PathBuf),
    /// The guest sees none.
    Off,
}

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The raw image.
    pub path: PathBuf,
    /// Whether the guest is kept from writing.
    pub readonly: bool,
}

/// What one `--device` says.
pub(super) enum Choice {
    Device(AssignedDevice),
    None,
}

/// What may stand behind a device's name.
const OPTIONS: &str = "vga=, rom=, root-port=, msi=, phase=, identity=, gpudirect-clique= and arbiter=";

const FORMS: &str = "give the PCI address of a function of this host, as 0000:01:00.0 (trapline devices lists them), \
                     vfio-user:SOCKET, or none for a machine without an adapter";

/// Parses `none`, or a PCI address (with or without `vfio:` before it) or `vfio-user:SOCKET` with options.
pub(super) fn device(text: &str) -> Result<Choice, String> {
    let parts = split(text);
    let (name, options) = parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    if name == "none" {
        return match options {
            [] => Ok(Choice::None),
            _ => Err("none takes no options".into()),
        };
    }
    let mut wishes = Wishes::default();
    options.iter().try_for_each(|option| wishes.take(option))?;
    wishes.of(parse_origin(name)?).map(Choice::Device)
}

/// What stands behind a device's name, each option once at most.
#[derive(Default)]
struct Wishes {
    vga: Option<Vga>,
    rom: Option<Rom>,
    root_port: Option<bool>,
    messages: Option<Messages>,
    phase: Option<Phase>,
    identity: Option<Identity>,
    clique: Option<u8>,
    arbiter: Option<Arbitration>,
}

impl Wishes {
    /// One option, as it is written.
    fn take(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "vga" => set(&mut self.vga, key, word(key, value)?),
            "rom" => set(&mut self.rom, key, parse_rom(value)?),
            "root-port" => set(&mut self.root_port, key, word(key, value)?),
            "msi" => set(&mut self.messages, key, word(key, value)?),
            "phase" => set(&mut self.phase, key, word(key, value)?),
            "identity" => set(&mut self.identity, key, parse_identity(value)?),
            "gpudirect-clique" => set(&mut self.clique, key, parse_clique(value)?),
            "arbiter" => set(&mut self.arbiter, key, word(key, value)?),
            _ => Err(format!("{} is no option of a device; there are {OPTIONS}", Shown(key))),
        }
    }

    /// The device there, if it can have what is wished for.
    fn of(self, origin: DeviceOrigin) -> Result<AssignedDevice, String> {
        if let DeviceOrigin::Socket(_) = origin {
            if let Some(Identity::On(_)) = self.identity {
                return Err(format!(
                    "{origin} is no function of this host, so that it has no addresses there; leave identity= out"
                ));
            }
            if self.arbiter == Some(Arbitration::On) {
                return Err(format!(
                    "{origin} is no function of this host, so that the host's arbiter does not know it; leave arbiter= \
                     out"
                ));
            }
        }
        Ok(AssignedDevice {
            origin,
            vga: self.vga.unwrap_or(Vga::DEFAULT),
            rom: self.rom.unwrap_or(Rom::Device),
            root_port: self.root_port,
            messages: self.messages.unwrap_or(Messages::DEFAULT),
            phase: self.phase.unwrap_or(Phase::DEFAULT),
            identity: self.identity,
            gpudirect_clique: self.clique,
            arbiter: self.arbiter.unwrap_or(Arbitration::DEFAULT),
        })
    }
}

/// Why a device's phase cannot go together with what was asked for the window, if it cannot.
pub(super) fn misfit(adapters: &Adapters, window: Window) -> Option<String> {
    let Adapters::Given(devices) = adapters else { return None };
    let (bad, reason) = match window {
        Window::Strict => (Phase::Legacy, "strict and phase=legacy"),
        Window::Coalesced => (Phase::Native, "coalesced and phase=native"),
        Window::Shadowed => (Phase::Native, "shadowed and phase=native"),
        Window::Auto => return None,
    };
    let device = devices.iter().find(|device| device.vga != Vga::Off && device.phase == bad)?;
    Some(format!("{reason} (of {}) exclude each other; leave one of them out", device.origin))
}

fn parse_origin(name: &str) -> Result<DeviceOrigin, String> {
    let address =
        |text: &str| text.parse().map(DeviceOrigin::Host).map_err(|error: AddressError| error.to_string());
    match (name.strip_prefix("vfio-user:"), name.strip_prefix("vfio:")) {
        (Some(socket), _) => path(socket, "vfio-user: needs the path of a socket").map(DeviceOrigin::Socket),
        (None, Some(text)) => address(text),
        // What has no colon and no dot in the right places was not meant as an address.
        (None, None) if looks_like_address(name) => address(name),
        (None, None) => Err(format!("{} is no device; {FORMS}", Shown(name))),
    }
}

/// Whether `text` is made of what addresses are made of, right or wrong.
fn looks_like_address(text: &str) -> bool {
    text.contains(':') && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
}

/// Parses `FILE` or `FILE,readonly`.
pub(super) fn disk(text: &str) -> Result<Disk, String> {
    let parts = split(text);
    let (name, options) = parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    let mut readonly = None;
    for option in options {
        match option.as_str() {
            "readonly" => set(&mut readonly, "readonly", true)?,
            _ => {
                return Err(format!(
                    "{} is no option of a disk; there is readonly (a comma in a file's name is written twice)",
                    Shown(option)
                ));
            }
        }
    }
    Ok(Disk { path: path(name, "the file is not named")?, readonly: readonly.unwrap_or(false) })
}

/// Takes a path as it is; only an empty one and one with a NUL are refused.
pub(super) fn path(text: &str, if_empty: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err(if_empty.into());
    }
    if text.contains('\0') {
        return Err("a path cannot hold a NUL".into());
    }
    Ok(PathBuf::from(text))
}

/// Cuts at single commas; two stand for one that belongs to the text.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match parts.last_mut() {
            Some(part) if c != ',' => part.push(c),
            Some(part) if chars.next_if_eq(&',').is_some() => part.push(','),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// Fills `slot` once.
pub(super) fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is given twice")),
    }
}

fn word<T: Words>(key: &str, text: &str) -> Result<T, String> {
    T::parse_of(&format!("{key}="), text).map_err(|problem| format!("{key}={text} is {problem}"))
}

fn parse_identity(text: &str) -> Result<Identity, String> {
    identity::parse(text).map_err(|problem| format!("identity={text} is {problem}"))
}

fn parse_clique(text: &str) -> Result<u8, String> {
    let clique = text.parse().ok().filter(|clique| *clique <= CLIQUE_LARGEST);
    clique.ok_or_else(|| {
        format!("gpudirect-clique={} is none; give a number from 0 to {CLIQUE_LARGEST}", Shown(text))
    })
}

fn parse_rom(text: &str) -> Result<Rom, String> {
    match text {
        "off" => Ok(Rom::Off),
        _ => path(text, "rom= needs a file, or off").map(Rom::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_signalled_interrupts_are_hidden_by_name() {
        let messages = |text: &str| match device(text) {
            Ok(Choice::Device(device)) => Ok(device.messages),
            Ok(Choice::None) => Err("no device".into()),
            Err(problem) => Err(problem),
        };
        for (text, expected) in [
            ("01:00.0", Messages::Guest),
            ("01:00.0,msi=guest", Messages::Guest),
            ("01:00.0,msi=no-msix", Messages::NoMsix),
            ("vfio-user:/a,msi=no-msi", Messages::NoMsi),
            ("01:00.0,vga=off,msi=off", Messages::Off),
        ] {
            assert_eq!(messages(text), Ok(expected), "{text}");
        }
        let problem = messages("01:00.0,msi=on").unwrap_err();
        assert!(problem.ends_with("give msi=guest, msi=no-msix, msi=no-msi or msi=off"), "{problem}");
        assert_eq!(messages("01:00.0,msi=off,msi=off"), Err("msi is given twice".into()));
    }

    #[test]
    fn a_lease_is_wanted_or_not() {
        let cases =
            [("", Arbitration::Auto), (",arbiter=on", Arbitration::On), (",arbiter=off", Arbitration::Off)];
        for (text, wish) in cases {
            let Ok(Choice::Device(device)) = device(&format!("01:00.0{text}")) else { panic!("{text}") };
            assert_eq!(device.arbiter, wish, "{text}");
        }
        for (text, problem) in [
            ("01:00.0,arbiter=always", "give arbiter=on, arbiter=off or arbiter=auto"),
            (
                "vfio-user:/socket,arbiter=on",
                "vfio-user:/socket is no function of this host, so that the host's arbiter does not know it; leave arbiter= out",
            ),
        ] {
            assert!(device(text).is_err_and(|error| error.contains(problem)), "{text}");
        }
    }
}
