//! A device reached through a [`Backend`], as a PCI function of the guest.
//!
//! Configuration space is virtual (see [`super`]'s `config`), BARs lead to the device's regions, mapped
//! into the guest where the backend has a mapping. Nothing here assumes whose device it is.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range};
use trapline_io::file::FileRegion;
use trapline_io::space::DwordSet;
use trapline_io::{Device, Fault, Gpa, Region, Span, Width};
use vm_memory::MmapRegion;

use super::backend::Backend;
use super::config::{self, CLASS_VGA, Config};
use super::quirks::{DISPI, Dispi, Reached};
use super::rom::Rom;
use crate::legacy;
use crate::pci::spec::{self, Command};

pub use super::rom::Source as RomSource;

/// Memory slots have whole pages.
const PAGE: u64 = 4096;

/// Whether the function owns the legacy VGA ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vga {
    /// If it is a VGA compatible controller and its backend forwards them.
    #[default]
    Auto,
    /// Yes; an error where the backend cannot.
    On,
    /// No.
    Off,
}

/// How a device is given to the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Legacy VGA.
    pub vga: Vga,
    /// The expansion ROM.
    pub rom: RomSource,
}

/// Why a device cannot be given to the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device does not even answer.
    #[error("{device}: its configuration space cannot be read")]
    Config {
        /// Its name.
        device: String,
    },
    /// The device could not be brought to a known state.
    #[error("{device}: it cannot be reset")]
    Reset {
        /// Its name.
        device: String,
    },
    /// It is a bridge, or nothing.
    #[error("no PCI function with a type 0 header: vendor {vendor:04x}, header type {header}")]
    NotAFunction {
        /// What its Vendor ID register holds.
        vendor: u16,
        /// What its Header Type register holds.
        header: u8,
    },
    /// A base address register that cannot be.
    #[error("BAR {index} of {size:#x} bytes does not fit its kind")]
    Bar {
        /// Which one.
        index: u8,
        /// The size of its region.
        size: u64,
    },
    /// Legacy VGA was asked for.
    #[error("{device}: vga=on, but it does not forward legacy VGA (no VGA region)")]
    NoVga {
        /// Its name.
        device: String,
    },
    /// The ROM file cannot be read.
    #[error("cannot read the ROM file {path}")]
    RomFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The ROM file is none.
    #[error("the ROM file {path} {what}")]
    RomImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No memory for the ROM.
    #[error("out of memory for the ROM")]
    OutOfMemory,
}

/// See the module's page.
#[derive(Debug)]
pub struct Function<B> {
    backend: B,
    config: Config,
    rom: Option<Rom>,
    vga: bool,
    dispi: Option<Dispi>,
    /// Whether the device reaches guest memory, so that it may master the bus.
    dma: bool,
}

impl<B: Backend> Function<B> {
    /// Resets the device if it can be reset, and reads its configuration space and ROM.
    ///
    /// # Errors
    /// The device does not answer, or is not what `options` ask for.
    pub fn open(mut backend: B, options: Options) -> Result<Function<B>, Error> {
        let device = backend.name().to_owned();
        if backend.resettable() && backend.reset().is_err() {
            return Err(Error::Reset { device });
        }
        let mut header = [0; config::SIZE];
        if backend.read_bytes(Region::CONFIG, 0, &mut header).is_err() {
            return Err(Error::Config { device });
        }
        let sizes = std::array::from_fn(|index| backend.regions().get(index).map_or(0, |region| region.size));
        let rom = Rom::load(&options.rom, &mut backend)?;
        let mut config = Config::new(&header, &sizes, rom.as_ref().map(Rom::size))?;
        let vga = wants_vga(&backend, &config, options.vga)?;
        if !vga {
            config.be_no_vga();
        }
        let dispi = Dispi::of(
            config::word(&header, spec::VENDOR_ID),
            config::word(&header, spec::DEVICE_ID),
            backend.region(Region::bar(2)).size,
        );
        Ok(Function { backend, config, rom, vga, dispi, dma: false })
    }

    /// The dwords of configuration space whose writes change the map.
    pub fn topology(&self) -> DwordSet {
        self.config.topology()
    }

    /// Whether it owns the legacy VGA ranges.
    pub fn has_vga(&self) -> bool {
        self.vga
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The mapping that covers a whole region, if there is one: so the host sees a frame buffer, or
    /// what a device shows in a region of its own.
    pub fn mapping(&self, region: Region) -> Option<Arc<MmapRegion>> {
        let region = self.backend.region(region);
        let first = region.mappings.first().filter(|mapping| mapping.offset == 0)?;
        // Of a larger piece of memory the rest may not be touched, which no caller could know.
        let whole = first.at == 0 && first.len == first.memory.size() as u64;
        (whole && first.len >= region.size).then(|| Arc::clone(&first.memory))
    }

    /// A descriptor that becomes readable when [`Device::attend`] is to be called.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn attention(&self) -> std::io::Result<Option<OwnedFd>> {
        self.backend.attention()
    }

    /// From now on the guest may let the device master the bus: its memory is mapped for DMA. Until
    /// then that bit of COMMAND is kept from the device.
    pub fn allow_dma(&mut self) {
        if !std::mem::replace(&mut self.dma, true) {
            // A device that is gone says so by itself.
            let _ = self.forward_command();
        }
    }

    fn forward_command(&mut self) -> Result<(), Fault> {
        let command = self.config.space().command();
        let command = command.with_bus_master(command.bus_master() && self.dma);
        let value = u64::from(command.into_bits());
        self.backend.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, value)
    }

    fn read_config(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        let at = config_offset(offset, width)?;
        let Function { backend, config, .. } = self;
        config.read(at, width, || backend.read(Region::CONFIG, offset, width))
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let at = config_offset(offset, width)?;
        if self.config.write(at, width, value) {
            self.backend.write(Region::CONFIG, offset, width, value)?;
        }
        let command = spec::COMMAND..spec::COMMAND + 2;
        if command.contains(&at) { self.forward_command() } else { Ok(()) }
    }

    fn claim_bar(&self, index: u8, ranges: &mut Vec<Claim>) {
        let Some(range) = self.config.decoded(index) else { return };
        let region = Region::bar(index);
        if let Range::Memory(bar) = range
            && self.backend.region(region).writable
            && bar.first().0.is_multiple_of(PAGE)
        {
            for mapping in &self.backend.region(region).mappings {
                let first = bar.first().0.checked_add(mapping.offset).map(Gpa);
                let span = first.and_then(|first| Span::of_len(first, mapping.len));
                let Some(span) = span.and_then(|span| span.intersection(bar)) else { continue };
                let memory = Arc::clone(&mapping.memory);
                let direct = Direct { memory, offset: mapping.at, kind: DirectKind::Bar };
                ranges.push(Claim::region(Range::Memory(span), region, mapping.offset).direct(direct));
            }
        }
        ranges.push(Claim::region(range, region, 0));
    }

    fn claim_rom(&self, ranges: &mut Vec<Claim>) {
        let (Some(rom), Some(range)) = (&self.rom, self.config.decoded(6)) else { return };
        let direct = Direct { memory: Arc::clone(rom.memory()), offset: 0, kind: DirectKind::Rom };
        ranges.push(Claim::region(range, Region::ROM, 0).direct(direct));
    }

    fn claim_legacy(&self, command: Command, ranges: &mut Vec<Claim>) {
        if command.io() && self.dispi.is_some() {
            ranges.extend(Dispi::claim());
        }
        if self.vga {
            ranges.extend(legacy::claims(command));
        }
    }
}

impl<B: Backend> Device for Function<B> {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if self.backend.is_dead() {
            return Err(Fault::Failed);
        }
        match region {
            Region::CONFIG => self.read_config(offset, width),
            Region::ROM => self.rom.as_ref().ok_or(Fault::NoRegister)?.read(offset, width),
            DISPI => {
                let dispi = self.dispi.as_mut().ok_or(Fault::NoRegister)?;
                match dispi.reach(offset, width, None)? {
                    Reached::Latch(value) => Ok(value),
                    Reached::Bar2(at) => self.backend.read(Region::bar(2), at, width),
                }
            }
            _ if self.backend.region(region).holds(offset, width) => self.backend.read(region, offset, width),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if self.backend.is_dead() {
            return Err(Fault::Failed);
        }
        match region {
            Region::CONFIG => self.write_config(offset, width, value),
            DISPI => {
                let dispi = self.dispi.as_mut().ok_or(Fault::NoRegister)?;
                match dispi.reach(offset, width, Some(value))? {
                    Reached::Latch(_) => Ok(()),
                    Reached::Bar2(at) => self.backend.write(Region::bar(2), at, width, value),
                }
            }
            Region::ROM => Err(Fault::NoRegister),
            _ if self.backend.region(region).holds(offset, width) => {
                self.backend.write(region, offset, width, value)
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some(dispi) = &mut self.dispi {
            dispi.reset();
        }
        // A device that is gone says so by itself; one that refuses keeps its state, and at least
        // decodes nothing and masters no bus.
        if self.backend.resettable() {
            let _ = self.backend.reset();
        }
        let _ = self.forward_command();
    }

    fn claims(&self) -> Claims {
        let mut ranges = Vec::new();
        if !self.config.asleep() {
            self.claim_legacy(self.config.space().command(), &mut ranges);
        }
        for bar in 0..6 {
            self.claim_bar(bar, &mut ranges);
        }
        self.claim_rom(&mut ranges);
        Claims { ranges, bridge: None }
    }

    fn attend(&mut self) {
        self.backend.attend();
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        // Everything else here is more than the bytes of the device.
        if region == Region::VGA { self.backend.file(region) } else { None }
    }
}

fn wants_vga<B: Backend>(backend: &B, config: &Config, wish: Vga) -> Result<bool, Error> {
    let region = backend.region(Region::VGA);
    let forwarded = region.readable && region.writable && region.size > legacy::WINDOW.1;
    let class = config.space().read(spec::REVISION_ID, Width::B4) >> 16;
    match wish {
        Vga::Off => Ok(false),
        Vga::Auto => Ok(forwarded && class == CLASS_VGA),
        Vga::On if forwarded => Ok(true),
        Vga::On => Err(Error::NoVga { device: backend.name().to_owned() }),
    }
}

/// The offset of an access that lies in configuration space and crosses no dword.
fn config_offset(offset: u64, width: Width) -> Result<u16, Fault> {
    match u16::try_from(offset) {
        Ok(at) if at < 4096 && usize::from(at & 3) + width.bytes() <= 4 => Ok(at),
        Ok(at) if at < 4096 => Err(Fault::BadWidth),
        _ => Err(Fault::NoRegister),
    }
}
