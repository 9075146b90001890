//! A device reached through a [`Backend`], as a PCI function of the guest.
//!
//! Configuration space is virtual (see [`super`]'s `config`), BARs lead to the device's regions, mapped
//! into the guest where the backend has a mapping. Nothing here assumes whose device it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trapline_io::device::{Claims, Range};
use trapline_io::file::FileRegion;
use trapline_io::space::DwordSet;
use trapline_io::window::Window;
use trapline_io::{Access, Device, Fault, Op, Region, Width};
use vm_memory::MmapRegion;

use super::backend::{Backend, Write};
use super::config::{Config, Shape};
use super::interrupts::{Interrupts, Offered};
use super::msix::{self, Msix};
use super::quirks::{Card, Quirks, clique, igd, regions};
use super::registers::Registers;
use super::repeats::Repeats;
use super::rom::Rom;
use crate::legacy::picture::Picture;
use crate::legacy::{self, Owner, Ways};
use crate::pci::spec;
use crate::rom::Ids;
use crate::rom::check::Report;
use crate::seen::{Mark, Seen};

pub use super::error::Error;
pub use super::options::{CLIQUE_LARGEST, LegacyVga, Messages, Options, Placement, Vga};
pub use super::rom::Source as RomSource;

mod claims;
mod console;
mod overlaid;
mod repeated;
mod window;

/// See the module's page.
#[derive(Debug)]
pub struct Function<B: Backend> {
    backend: B,
    config: Config,
    interrupts: Interrupts,
    rom: Option<Rom>,
    vga: LegacyVga,
    quirks: Quirks,
    /// Legacy VGA, if it is owned and may be faster than strict.
    owner: Option<Owner>,
    /// What the host's console showed.
    picture: Option<Picture>,
    repeats: Repeats,
    seen: Arc<Seen>,
    /// Whether the device reaches guest memory, so that it may master the bus.
    dma: bool,
}

impl<B: Backend> Function<B> {
    /// Resets the device if it can be reset, reads its configuration space and ROM, and connects its
    /// interrupt line.
    ///
    /// # Errors
    /// The device does not answer, or is not what `options` ask for.
    pub fn open(mut backend: B, options: Options) -> Result<Function<B>, Error> {
        let registers = read_anew(&mut backend)?;
        let rom = Rom::load(&options.rom, &mut backend)?;
        let shape = shape(&backend, &options, rom.as_ref());
        let mut config = Config::new(&registers, &shape)?;
        let seen = Arc::new(Seen::default());
        let (wanted, bars) = ((options.interrupts, options.messages), shape.bars);
        let interrupts = Interrupts::new(&mut config, &registers, &backend, wanted, Arc::clone(&seen), &bars);
        if let Some(clique) = options.gpudirect_clique {
            clique::add(&mut config, &registers, clique)
                .map_err(|why| Error::Clique { device: backend.name().to_owned(), why })?;
        }
        let opregion = igd::adopt(&mut config, &registers, &backend);
        let vga = legacy_vga(&backend, &config, options.vga)?;
        let owns_vga = vga == LegacyVga::Owned;
        if !owns_vga {
            config.be_no_vga();
        }
        let (name, registers, traced) = (backend.name(), &registers, options.every_write);
        let card = Card { name, registers, config: &config, bars, owns_vga, opregion, traced };
        let quirks = Quirks::of(&card);
        let owner = if owns_vga { owner(options.ways, &quirks, &seen) } else { None };
        let repeats = Repeats::of(&backend, !options.every_write);
        let (picture, dma) = (None, false);
        let mut function =
            Function { backend, config, interrupts, rom, vga, quirks, owner, picture, repeats, seen, dma };
        if owns_vga && options.console {
            function.take_picture();
        }
        // One that cannot be reset may decode and master the bus still; one that is gone says so by itself.
        let _ = function.forward_command();
        function.settle_interrupts();
        Ok(function)
    }

    /// The dwords of configuration space whose writes change the map. Where writes to BARs may be
    /// posted, or are the kernel's to make, that depends on how it interrupts.
    pub fn topology(&self) -> DwordSet {
        let late = self.owner.is_some() || self.backend.takes_writes();
        let late = late && self.config.space().byte(spec::INTERRUPT_PIN) != 0;
        let ways = if late { self.config.messages() } else { DwordSet::default() };
        self.config.topology().union(ways)
    }

    /// The ranges whose writes KVM may collect for it before they are carried out, each a zone of its own:
    /// none where its legacy window is strict, or another's.
    pub fn collected(&self) -> Vec<Range> {
        self.owner.as_ref().map(legacy::Owner::collected).unwrap_or_default()
    }

    /// Whether it owns the legacy VGA ranges.
    pub fn has_vga(&self) -> bool {
        self.vga == LegacyVga::Owned
    }

    /// The same with the reason why not.
    pub fn legacy_vga(&self) -> LegacyVga {
        self.vga
    }

    /// What is seen of it while a guest has it.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Whether what the guest does with the legacy VGA ranges is seen: not where they are strict.
    pub fn sees_window(&self) -> bool {
        self.owner.is_some()
    }

    /// The ways to interrupt that the guest sees.
    pub fn offered(&self) -> Offered {
        self.interrupts.offered(self.config.space())
    }

    /// What the ROM that the guest sees holds, if it sees one.
    pub fn rom_report(&self) -> Option<&Report> {
        self.rom.as_ref().map(Rom::report)
    }

    /// Its ids and its class code (base class, subclass, programming interface), as the guest sees them.
    pub fn ids(&self) -> (Ids, u32) {
        let space = self.config.space();
        let class = space.read(spec::REVISION_ID, Width::B4) >> 8;
        (Ids { vendor: space.word(spec::VENDOR_ID), device: space.word(spec::DEVICE_ID) }, class)
    }

    /// Where its ROM comes from, a file by its name, what it is and what becomes of it, in one line; `None` if the
    /// guest sees none.
    pub fn rom_found(&self) -> Option<String> {
        self.rom.as_ref().map(Rom::found)
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

    /// The power state as the guest has set it; power management events are not offered.
    fn forward_power(&mut self, at: u16) -> Result<(), Fault> {
        let state = u64::from(self.config.power_state());
        self.backend.write(Region::CONFIG, at.into(), Width::B2, state)
    }

    fn msix(&self) -> Result<&Msix, Fault> {
        self.interrupts.msix.as_ref().ok_or(Fault::NoRegister)
    }

    fn settle_interrupts(&mut self) {
        if !self.backend.is_dead() {
            self.interrupts.settle(self.config.space(), &mut self.backend);
        }
    }

    /// A read, wherever it leads.
    fn load(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => self.read_config(offset, width),
            Region::ROM => self.rom.as_ref().ok_or(Fault::NoRegister)?.read(offset, width),
            msix::TABLE => self.msix()?.read_table(offset, width),
            msix::PENDING => self.msix()?.read_pending(offset, width),
            _ if self.backend.region(region).holds(offset, width) => {
                self.note_read(region, offset, width);
                self.backend.read(region, offset, width)
            }
            _ => self.read_overlaid(region, offset, width),
        }
    }

    /// A write, wherever it leads.
    fn store(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.write_config(offset, width, value),
            msix::TABLE => {
                let Function { backend, config, interrupts, .. } = self;
                interrupts.write_table(config.space(), backend, offset, width, value)
            }
            // Pending bits are the device's to set.
            msix::PENDING => Ok(()),
            Region::ROM => Err(Fault::NoRegister),
            _ if self.backend.region(region).holds(offset, width) => {
                self.backend.write(region, offset, width, value)?;
                if region < Region::ROM {
                    self.note_write(Write { region, offset, width, value });
                }
                Ok(())
            }
            _ => self.write_overlaid(region, offset, width, value),
        }
    }

    fn read_config(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        let at = config_offset(offset, width)?;
        self.interrupts.refresh(&mut self.config, at);
        let Function { backend, config, .. } = self;
        config.read(at, width, || backend.read(Region::CONFIG, offset, width))
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let at = config_offset(offset, width)?;
        if self.config.resets(at, width, value) {
            return self.function_reset(at, width, value);
        }
        let state = self.config.power_state();
        let mut done = self.pass_on(at, width, value);
        let power = self.config.power_state() != state;
        if let Some(control) = self.config.power_control().filter(|_| power) {
            done = done.and(self.forward_power(control));
        }
        if (spec::COMMAND..spec::COMMAND + 2).contains(&at) {
            done = done.and(self.forward_command());
            self.note_command();
        }
        self.follow_config(at, power || self.config.takes(at, width));
        let woken = state != 0 && self.config.power_state() == 0;
        if woken {
            self.interrupts.ask_again();
        }
        if woken || self.interrupts.depend_on(at) {
            self.settle_interrupts();
        }
        done
    }

    /// COMMAND was written.
    fn note_command(&self) {
        if self.config.space().command().bus_master() {
            self.seen.note(Mark::Master);
        }
        self.interrupts.note(self.config.space());
    }

    fn pass_on(&mut self, at: u16, width: Width, value: u64) -> Result<(), Fault> {
        let Function { backend, config, .. } = self;
        config.write(at, width, value, |at, width, value| {
            backend.write(Region::CONFIG, at.into(), width, value)
        })
    }

    /// The guest resets this function alone (PCI Express base specification 5.0 section 6.6.2): the
    /// device does it on the write, and all that is kept here follows.
    fn function_reset(&mut self, at: u16, width: Width, value: u64) -> Result<(), Fault> {
        self.interrupts.disconnect(&mut self.backend);
        self.seen.note(Mark::FunctionReset);
        let done = self.pass_on(at, width, value);
        self.start_over();
        self.settle_interrupts();
        done
    }

    /// All that is kept here as at power-on, and the device told: it decodes nothing and masters no bus.
    fn start_over(&mut self) {
        self.config.reset();
        self.interrupts.reset();
        self.repeats.reset(&mut self.backend);
        self.quirks.reset();
        // A device that is gone says so by itself.
        if let Some(control) = self.config.power_control() {
            let _ = self.forward_power(control);
        }
        let _ = self.forward_command();
        self.disturb();
        self.decode_anew();
    }
}

impl<B: Backend> Drop for Function<B> {
    /// Leaves the device without interrupts, decode and bus mastering.
    fn drop(&mut self) {
        self.settle_window();
        self.interrupts.disconnect(&mut self.backend);
        self.picture_back();
        self.config.reset();
        let _ = self.forward_command();
    }
}

impl<B: Backend> Device for Function<B> {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if self.backend.is_dead() {
            return Err(Fault::Failed);
        }
        if self.owner.is_some() {
            self.watched_read(region, offset, width)
        } else {
            self.load(region, offset, width)
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if self.backend.is_dead() {
            return Err(Fault::Failed);
        }
        if self.owner.is_some() {
            self.watched_write(region, offset, width, value)
        } else {
            self.store(region, offset, width, value)
        }
    }

    fn quiet(&mut self) {
        self.interrupts.disconnect(&mut self.backend);
    }

    fn reset(&mut self) {
        self.settle_window();
        self.interrupts.disconnect(&mut self.backend);
        self.seen.reset();
        // Before anything is written: what a bus reset of its companion has just reset is not reset
        // again, unless it was used.
        if self.backend.resettable() {
            // One that refuses keeps what lies behind its registers; there is nothing to be done.
            let _ = self.backend.reset();
        }
        self.start_over();
        if let Some(owner) = &mut self.owner {
            owner.reset();
            self.backend.post(false);
        }
        self.settle_interrupts();
    }

    fn claims(&self) -> Claims {
        Claims { ranges: self.ranges(), bridge: None }
    }

    fn changes_map(&self, access: Access) -> bool {
        let Op::Write(value) = access.op else { return false };
        let at = self.config_written(access);
        at.is_some_and(|at| self.config_changes_map(at, access.width, value))
    }

    fn attend(&mut self) {
        self.backend.attend();
    }

    fn merges(&self, region: Region, offset: u64) -> bool {
        region == Region::VGA && self.owner.as_ref().is_some_and(|owner| owner.merges(offset))
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.watched_run(region, offset, bytes)
    }

    fn window(&mut self) -> Option<&mut dyn Window> {
        if self.owner.is_some() { Some(self) } else { None }
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        if self.owner.is_some() {
            // Each access has a meaning for the window.
            return None;
        }
        let plain = region == Region::VGA || region < Region::ROM;
        if plain { self.backend.file(region) } else { None }
    }
}

/// The registers of a device as after power-on, if it can be reset.
fn read_anew<B: Backend>(backend: &mut B) -> Result<Registers, Error> {
    if backend.resettable() && backend.reset().is_err() {
        return Err(Error::Reset { device: backend.name().to_owned() });
    }
    Registers::read(backend).map_err(|_| Error::Config { device: backend.name().to_owned() })
}

/// What configuration space is to have besides what the registers say.
fn shape<B: Backend>(backend: &B, options: &Options, rom: Option<&Rom>) -> Shape {
    Shape {
        placement: options.placement,
        multifunction: options.multifunction,
        intx: options.interrupts.is_some() && backend.irqs().intx,
        bars: std::array::from_fn(|index| backend.regions().get(index).map_or(0, |region| region.size)),
        rom: rom.map(Rom::size),
    }
}

/// What looks after legacy VGA that may be faster than strict, and notes in `seen` what the guest does there.
fn owner(ways: Ways, quirks: &Quirks, seen: &Arc<Seen>) -> Option<Owner> {
    let mut owner = Owner::new(ways, quirks.has(regions::DISPI))?;
    owner.note_in(Arc::clone(seen));
    Some(owner)
}

fn legacy_vga<B: Backend>(backend: &B, config: &Config, wish: Vga) -> Result<LegacyVga, Error> {
    let region = backend.region(Region::VGA);
    let forwarded = region.readable && region.writable && region.size > legacy::WINDOW.1;
    let class = config.space().read(spec::REVISION_ID, Width::B4) >> 16;
    match wish {
        Vga::Off => Ok(LegacyVga::Off),
        Vga::Auto if class != spec::CLASS_VGA => Ok(LegacyVga::NotVga),
        Vga::Auto | Vga::On if forwarded => Ok(LegacyVga::Owned),
        Vga::Auto => Ok(LegacyVga::NoRegion),
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
