//! What adapters decode by ways of their own: ports that tell where a BAR lies, windows and mirrors that
//! lead to configuration space past the guest's own accesses to it.
//!
//! A card's firmware and drivers use such a back door in place of configuration cycles. On the host it shows
//! the host's addresses, and what is written there moves the host's BARs. So each of these places gets an
//! [`Overlay`], a claim of the function over what lies there, with a region number of its own ([`Region`] 0xe0
//! and up). The address space carves them out when it is built, and nothing else is looked at per access; a
//! page with an overlay is not mapped into the guest, the pages beside it are.
//!
//! [`TABLE`] tells which functions have which. A [`Quirk`] is data and no I/O: it says where an access
//! leads ([`Lead`]), and keeps its state. [`super::Function`] carries that out. What leads to configuration space
//! goes the way of any other access there, so a write of COMMAND or of a BAR through a mirror is a change of
//! the map like the same write by ports 0xcf8 and 0xcfc.

use std::fmt;

use trapline_io::{Fault, Op, Region, Width};

use super::config::Config;
use super::registers::{CLASSIC, EXTENDED, Registers};
use crate::pci::{BarKind, spec};
use crate::vga;

mod ati_mirror;
mod ati_port;
mod ati_window;
pub(super) mod clique;
mod dispi;
mod foreign;
pub mod igd;
mod mirror;
mod nvidia_mirror;
mod nvidia_ports;
mod nvidia_window;
#[cfg(test)]
mod tests;
mod window;

const ATI: u16 = 0x1002;
const INTEL: u16 = 0x8086;
const NVIDIA: u16 = 0x10de;
const DISPLAY: u32 = 0x03;

/// Which functions have a quirk, by their identity, and what makes it if the layout of their BARs is that
/// of a card that has it.
struct Entry {
    name: &'static str,
    vendor: u16,
    device: Option<u16>,
    /// Base class and subclass; the base class alone if it is below 0x100.
    class: Option<u32>,
    /// Only of the function that owns the legacy VGA ranges.
    owns_vga: bool,
    make: fn(&Card<'_>) -> Option<Box<dyn Quirk>>,
}

/// All quirks.
static TABLE: [Entry; 11] = [
    Entry {
        name: "DISPI ports",
        device: Some(vga::spec::IDENTITY.1),
        ..Entry::of_owner(vga::spec::IDENTITY.0, dispi::on)
    },
    Entry { name: "I/O base in port 3c3", ..Entry::of_owner(ATI, ati_port::on) },
    Entry { name: "I/O window to configuration space", ..Entry::of_owner(ATI, ati_window::on) },
    Entry { name: "mirror of configuration space in BAR 2", ..Entry::of_owner(ATI, ati_mirror::on) },
    Entry { name: "window at ports 3d0 and 3d4", ..Entry::of_owner(NVIDIA, nvidia_ports::on) },
    Entry { name: "window in BAR 5", ..Entry::of_owner(NVIDIA, nvidia_window::on) },
    Entry { name: "mirror at 0x88000", ..Entry::of_vga(NVIDIA, nvidia_mirror::on) },
    Entry { name: "mirror at 0x1800", owns_vga: true, ..Entry::of_vga(NVIDIA, nvidia_mirror::legacy_on) },
    Entry { name: "mirror of the audio function", ..Entry::of_vga(NVIDIA, foreign::audio) },
    Entry { name: "mirror of the bridge above", ..Entry::of_vga(NVIDIA, foreign::bridge) },
    Entry { name: "stolen memory in BAR 0", class: Some(DISPLAY), ..Entry::of_vga(INTEL, igd::on) },
];

impl Entry {
    const fn of_owner(vendor: u16, make: fn(&Card<'_>) -> Option<Box<dyn Quirk>>) -> Entry {
        Entry { name: "", vendor, device: None, class: None, owns_vga: true, make }
    }

    const fn of_vga(vendor: u16, make: fn(&Card<'_>) -> Option<Box<dyn Quirk>>) -> Entry {
        let class = Some(spec::CLASS_VGA);
        Entry { class, owns_vga: false, ..Entry::of_owner(vendor, make) }
    }

    fn fits(&self, card: &Card<'_>) -> bool {
        let class = card.class();
        self.vendor == card.vendor()
            && self.device.is_none_or(|device| device == card.device())
            && self.class.is_none_or(|wanted| wanted == class || wanted == class >> 8)
            && (!self.owns_vga || card.owns_vga)
    }
}

/// What is known of a function when its quirks are looked for.
#[derive(Clone, Copy)]
pub(super) struct Card<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// The device's own registers.
    pub registers: &'a Registers,
    /// What the guest sees of them.
    pub config: &'a Config,
    /// Bytes of its regions 0 to 5.
    pub bars: [u64; 6],
    /// It owns the legacy VGA ranges.
    pub owns_vga: bool,
    /// The host gives an OpRegion with it.
    pub opregion: bool,
    /// Somebody watches what the guest does.
    pub traced: bool,
}

impl Card<'_> {
    fn vendor(&self) -> u16 {
        self.registers.word(spec::VENDOR_ID)
    }

    fn device(&self) -> u16 {
        self.registers.word(spec::DEVICE_ID)
    }

    /// Base class and subclass.
    fn class(&self) -> u32 {
        self.registers.dword(spec::REVISION_ID) >> 16
    }

    /// Bytes of configuration space.
    fn config_len(&self) -> u64 {
        if self.registers.extended() { EXTENDED as u64 } else { CLASSIC.into() }
    }

    fn kind(&self, bar: u8) -> Option<BarKind> {
        self.config.space().bar(bar).map(|bar| bar.kind)
    }

    /// Whether that BAR decodes ports, so many at least.
    fn has_ports(&self, bar: u8, len: u64) -> bool {
        self.kind(bar) == Some(BarKind::Io) && self.holds(bar, len)
    }

    /// Whether that BAR decodes memory, so many bytes at least.
    fn has_memory(&self, bar: u8, len: u64) -> bool {
        self.kind(bar).is_some_and(|kind| kind != BarKind::Io) && self.holds(bar, len)
    }

    fn holds(&self, bar: u8, len: u64) -> bool {
        self.bars.get(usize::from(bar)).is_some_and(|size| *size >= len)
    }
}

/// A place of a function as the device has it: the region, and the byte offset in it.
pub(super) type Place = (Region, u64);

/// A range that a quirk answers in place of what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    /// A BAR, or [`Region::VGA`] for ports at fixed addresses.
    pub on: Region,
    /// Offset of its first byte there; of a fixed port its number.
    pub first: u64,
    /// Bytes, or ports.
    pub len: u64,
    /// What its writes may come to.
    pub writes: Writes,
}

/// What a write to an overlay may come to, as far as that can be told beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// It never changes the map.
    Plain,
    /// The same, and it may be as late as a write to the registers of the CRT controller.
    Late,
    /// It is one of configuration space, at this byte for the overlay's first.
    Mirrored(u16),
    /// Its own state decides.
    Latched,
}

/// Where an access to an overlay leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nowhere: a read gives this value.
    Here(u64),
    /// To the device.
    Device(Place),
    /// To configuration space as the guest sees it, from this byte on. A read reaches the device as well, where
    /// it has something there, and gives what configuration space has.
    Config(u16, Beside),
}

/// What the device has to do with an access that leads to configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing.
    Nothing,
    /// It sees the access too, and what it reads is dropped.
    Sees(Place),
    /// It does not see the write. Made there it would do the same, as far as configuration space is the
    /// device's.
    Alike(Place),
}

/// What a function does by ways of its own. One such value for each of its overlays' regions.
pub(super) trait Quirk: fmt::Debug + Send {
    /// The number under which the overlays are reached.
    fn region(&self) -> Region;

    /// The ranges, the same all the time. An access to one is at the offset that it has there.
    fn overlays(&self) -> Vec<Overlay>;

    /// Where an access leads, in the state that it finds.
    ///
    /// # Errors
    /// Nothing is decoded there, or not in this width.
    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault>;

    /// The access is made: the state follows. Called for those that lead nowhere too.
    fn pass(&mut self, offset: u64, width: Width, op: Op) {
        let _ = (offset, width, op);
    }

    /// Back to power-on.
    fn reset(&mut self) {}
}

/// The quirks of one function.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    list: Vec<Box<dyn Quirk>>,
}

impl Quirks {
    /// Those of the table that the function has, told to the log.
    pub fn of(card: &Card<'_>) -> Quirks {
        let mut quirks = Quirks::default();
        for entry in TABLE.iter().filter(|entry| entry.fits(card)) {
            if let Some(quirk) = (entry.make)(card) {
                tracing::info!(
                    device = card.name,
                    quirk = entry.name,
                    "it has a way of its own, which is led here"
                );
                quirks.list.push(quirk);
            }
        }
        quirks
    }

    /// Whether it has that one.
    pub fn has(&self, region: Region) -> bool {
        self.get(region).is_some()
    }

    /// All overlays with the regions that answer.
    pub fn overlays(&self) -> impl Iterator<Item = (Region, Overlay)> {
        self.list
            .iter()
            .flat_map(|quirk| quirk.overlays().into_iter().map(|overlay| (quirk.region(), overlay)))
    }

    /// Where an access leads; nothing changes.
    pub fn lead(&self, region: Region, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        self.get(region).ok_or(Fault::NoRegister)?.lead(offset, width, op)
    }

    /// The same, and the access is made.
    pub fn follow(&mut self, region: Region, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        let mut quirks = self.list.iter_mut();
        let quirk = quirks.find(|quirk| quirk.region() == region).ok_or(Fault::NoRegister)?;
        let lead = quirk.lead(offset, width, op);
        quirk.pass(offset, width, op);
        lead
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.list.iter_mut().for_each(|quirk| quirk.reset());
    }

    fn get(&self, region: Region) -> Option<&dyn Quirk> {
        self.list.iter().find(|quirk| quirk.region() == region).map(AsRef::as_ref)
    }
}

/// The regions of overlays: those of quirks, then those of MSI-X.
pub(super) mod regions {
    use trapline_io::Region;

    pub const ATI_PORT: Region = Region(0xe0);
    pub const ATI_WINDOW: Region = Region(0xe1);
    pub const ATI_MIRROR: Region = Region(0xe2);
    pub const NVIDIA_PORTS: Region = Region(0xe3);
    pub const NVIDIA_WINDOW: Region = Region(0xe4);
    pub const NVIDIA_MIRROR: Region = Region(0xe5);
    pub const NVIDIA_LEGACY_MIRROR: Region = Region(0xe6);
    pub const AUDIO_MIRROR: Region = Region(0xe7);
    pub const BRIDGE_MIRROR: Region = Region(0xe8);
    pub const IGD_MIRROR: Region = Region(0xe9);
    pub const DISPI: Region = Region(0xf0);

    /// Whether a region is a quirk's.
    pub const fn is_quirk(region: Region) -> bool {
        region.0 >= ATI_PORT.0 && region.0 <= DISPI.0
    }
}

/// What an overlay of an assigned function is called, in a trace: of quirks and of MSI-X.
pub fn overlay_name(region: Region) -> Option<&'static str> {
    Some(match region {
        regions::ATI_PORT => "port-3c3",
        regions::ATI_WINDOW | regions::NVIDIA_WINDOW => "config-window",
        regions::ATI_MIRROR | regions::NVIDIA_MIRROR | regions::NVIDIA_LEGACY_MIRROR => "config-mirror",
        regions::NVIDIA_PORTS => "ports-3d0",
        regions::AUDIO_MIRROR => "audio-config-mirror",
        regions::BRIDGE_MIRROR => "bridge-config-mirror",
        regions::IGD_MIRROR => "stolen-memory-mirror",
        regions::DISPI => "dispi",
        super::msix::TABLE => "msix-table",
        super::msix::PENDING => "msix-pending",
        _ => return None,
    })
}

/// Whether that overlay shows the configuration space of *another* function, as the host has it: nothing is led
/// from there, and what it tells the guest is not true for the guest.
pub fn is_foreign(region: Region) -> bool {
    matches!(region, regions::AUDIO_MIRROR | regions::BRIDGE_MIRROR)
}
