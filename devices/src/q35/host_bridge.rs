//! The memory controller hub, 8086:29c0 at 00:00.0 (Intel 3 Series Express chipset datasheet, "DRAM
//! Controller Registers (D0:F0)").
//!
//! Its claims are the guest's memory: RAM, the shadowed area below 1 MiB, the firmware's flash, and
//! the ways to configuration space. Add it to the machine first, so that it wins where a BAR overlaps
//! RAM or an interrupt controller. It never claims the legacy VGA window but while SMRAM is open: the
//! window belongs to the adapter whether or not there is a system management mode.
//!
//! There is no system management mode here, so TSEG and the closed SMRAM hide nothing (see [`smram`]).
//!
//! Each segment that PAM rules is one memory slot, or part of one. Where reads go to ROM and writes to RAM the
//! slot is a read-only one of the ROM, whose writes trap, and are stored to the RAM that is under it.

use std::sync::Arc;

use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range, Target};
use trapline_io::space::DwordSet;
use trapline_io::{Device, Fault, Gpa, Port, Region, Span, Width};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::pam::{self, Shadow};
use super::ram::Ram;
use super::smram::{self, ESMRAMC, Open, SMRAM};
use super::split::HIGH_RAM;
use crate::pci::{ConfigSpace, Identity, spec};

/// Extended TSEG size, 16 bits: a register without effect, so that a query reads back what it wrote.
const EXT_TSEG: u16 = 0x50;
/// PCI Express register range base address, 64 bits.
const PCIEXBAR: u16 = 0x60;
/// PCIEXBAR after reset: the usual base, off.
const PCIEXBAR_RESET: u32 = 0xb000_0000;

/// Regions of the host bridge besides configuration space: the memory behind trapped accesses.
mod region {
    use trapline_io::Region;
    /// RAM below 4 GiB, by address.
    pub const RAM: Region = Region(0);
    /// RAM from 4 GiB on, by offset from there.
    pub const HIGH_RAM: Region = Region(1);
    /// RAM below 4 GiB whose writes are dropped.
    pub const SHADOW: Region = Region(2);
    /// The firmware image.
    pub const FLASH: Region = Region(3);
    /// Zeros, by offset from 0xc0000.
    pub const BLANK: Region = Region(4);
    /// Nothing: what the interrupt controllers in the host's kernel have not answered before.
    pub const RESERVED: Region = Region(5);
    // 6 to 8 mean something in every PCI function.
    /// The firmware image to reads; writes go to the RAM below 1 MiB that it covers.
    pub const FLASH_OVER_RAM: Region = Region(9);
    /// The same with zeros.
    pub const BLANK_OVER_RAM: Region = Region(10);
}

/// Where the legacy VGA window begins.
const WINDOW: u64 = 0xa_0000;
/// Where the area that PAM rules begins, right behind it.
const SHADOWED: u64 = 0xc_0000;
/// Where it ends.
const MIB: u64 = 0x10_0000;
/// The length of that area.
const BLANK_SIZE: usize = 0x4_0000;
/// How much of the firmware's end shows below 1 MiB.
const LOW_FIRMWARE: u64 = 0x2_0000;
/// The largest firmware: it ends at 4 GiB and must stay clear of the interrupt controllers.
const LARGEST_FIRMWARE: u64 = 16 << 20;
/// What the interrupt controllers decode, first and last address, and what the host's kernel keeps for
/// itself on some processors. The chipset sends none of it to a BAR.
const RESERVED: [(u64, u64); 3] =
    [(0xfec0_0000, 0xfec0_0fff), (0xfee0_0000, 0xfeef_ffff), (0xfeff_c000, 0xfeff_ffff)];
/// Memory slots are made of pages.
const PAGE: u64 = 4096;

/// Why a firmware image cannot be put into the machine.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// Its size fits no flash.
    #[error("a firmware image of {0} bytes: it must be a multiple of 4096, at most 16 MiB, and not empty")]
    Size(u64),
    /// There is no address space for the empty area below it.
    #[error("cannot map the option ROM area")]
    Map(#[source] MmapRegionError),
}

/// The host bridge with all of the guest's memory.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
    ram: Ram,
    firmware: Arc<MmapRegion>,
    blank: Arc<MmapRegion>,
}

/// A run of guest addresses that one piece of host memory answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    span: Span<Gpa>,
    region: Region,
    offset: u64,
}

impl HostBridge {
    /// The dwords whose writes change the map: PCIEXBAR, PAM, SMRAM.
    pub const TOPOLOGY: DwordSet = DwordSet::of(&[0x60, 0x64, 0x90, 0x94, 0x9c]);

    /// A host bridge for this RAM, with `firmware` ending at 4 GiB and its last 128 KiB at 1 MiB. The
    /// firmware is never written, so a read-only mapping will do.
    ///
    /// # Errors
    /// [`FirmwareError`] if the image is no whole number of pages, or too large.
    pub fn new(ram: Ram, firmware: Arc<MmapRegion>) -> Result<HostBridge, FirmwareError> {
        let size = firmware.size() as u64;
        if size == 0 || !size.is_multiple_of(PAGE) || size > LARGEST_FIRMWARE {
            return Err(FirmwareError::Size(size));
        }
        let blank = MmapRegion::new(BLANK_SIZE).map_err(FirmwareError::Map)?;
        Ok(HostBridge { config: config(), ram, firmware, blank: Arc::new(blank) })
    }

    /// What of the window for configuration space by memory is open.
    fn ecam(&self) -> Option<Span<Gpa>> {
        let low = self.config.read(PCIEXBAR, Width::B4);
        let high = self.config.read(PCIEXBAR + 4, Width::B4);
        let len: u64 = match (low & 1, low >> 1 & 3) {
            (1, 0) => 256 << 20,
            (1, 1) => 128 << 20,
            (1, 2) => 64 << 20,
            _ => return None,
        };
        let base = u64::from(high) << 32 | u64::from(low);
        Span::of_len(Gpa(base & !(len - 1)), len)
    }

    /// Where the RAM under the legacy VGA window is seen.
    fn smram(&self) -> Open {
        smram::open(self.config.read(SMRAM, Width::B1), self.config.read(ESMRAMC, Width::B1))
    }

    /// All memory in ascending order, neighbours merged below 1 MiB. The RAM from 1 MiB on stays a
    /// run of its own, so that a change of PAM leaves its slot alone.
    fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::with_capacity(20);
        let top = if self.smram() == Open::Window { SHADOWED } else { WINDOW };
        push(&mut runs, 0, top, region::RAM, 0);
        for segment in pam::segments() {
            let end = segment.first + segment.len;
            match segment.shadow(|at| self.config.read(at, Width::B1)) {
                Shadow::Ram => push(&mut runs, segment.first, end, region::RAM, segment.first),
                Shadow::ReadRam => push(&mut runs, segment.first, end, region::SHADOW, segment.first),
                Shadow::Rom => self.rom(&mut runs, segment.first, end, [region::BLANK, region::FLASH]),
                Shadow::WriteRam => {
                    let over_ram = [region::BLANK_OVER_RAM, region::FLASH_OVER_RAM];
                    self.rom(&mut runs, segment.first, end, over_ram);
                }
            }
        }
        let rest = |first: u64, end: u64, region, offset| Run::new(first, end, region, offset);
        runs.extend(rest(MIB, self.ram.split().low, region::RAM, MIB));
        let high = if self.smram() == Open::High { SHADOWED - WINDOW } else { 0 };
        runs.extend(rest(smram::HIGH, smram::HIGH + high, region::RAM, WINDOW));
        let flash = HIGH_RAM - self.firmware.size() as u64;
        runs.extend(rest(flash, HIGH_RAM, region::FLASH, 0));
        for (at, memory) in self.ram.high() {
            let end = at.0.saturating_add(memory.size() as u64);
            runs.extend(rest(at.0, end, region::HIGH_RAM, at.0 - HIGH_RAM));
        }
        runs
    }

    /// What lies under the shadowed area: the end of the firmware, and nothing below that; in these two
    /// regions, that of nothing first.
    fn rom(&self, runs: &mut Vec<Run>, first: u64, end: u64, [blank, flash]: [Region; 2]) {
        let size = self.firmware.size() as u64;
        let start = MIB - size.min(LOW_FIRMWARE);
        let border = start.clamp(first, end);
        push(runs, first, border, blank, first - SHADOWED);
        push(runs, border, end, flash, (size + border).saturating_sub(MIB));
    }

    fn claim(&self, run: Run) -> Option<Claim> {
        let (memory, kind, offset) = self.memory(run.region, run.offset)?;
        let direct = Direct { memory: Arc::clone(memory), offset, kind };
        Some(Claim::region(Range::Memory(run.span), run.region, run.offset).direct(direct))
    }

    /// The host memory at an offset of a region, whether the guest may write it, and the offset in it.
    fn memory(&self, region: Region, offset: u64) -> Option<(&Arc<MmapRegion>, DirectKind, u64)> {
        match region {
            region::RAM => Some((self.ram.low(), DirectKind::Ram, offset)),
            region::HIGH_RAM => {
                let at = HIGH_RAM.checked_add(offset)?;
                let (first, memory) = self.ram.high().iter().rev().find(|(first, _)| first.0 <= at)?;
                Some((memory, DirectKind::Ram, at - first.0))
            }
            region::SHADOW => Some((self.ram.low(), DirectKind::Rom, offset)),
            region::FLASH | region::FLASH_OVER_RAM => Some((&self.firmware, DirectKind::Rom, offset)),
            region::BLANK | region::BLANK_OVER_RAM => Some((&self.blank, DirectKind::Rom, offset)),
            _ => None,
        }
    }

    /// The address of the RAM that a ROM covers at `offset` of a region, where writes go there.
    fn covered(&self, region: Region, offset: u64) -> Option<u64> {
        let at = match region {
            region::FLASH_OVER_RAM => offset.checked_add(MIB)?.checked_sub(self.firmware.size() as u64)?,
            region::BLANK_OVER_RAM => offset.checked_add(SHADOWED)?,
            _ => return None,
        };
        (SHADOWED..MIB).contains(&at).then_some(at)
    }

    /// A write to memory that trapped.
    fn write_memory(&self, region: Region, offset: u64, width: Width, value: u64) -> Option<()> {
        match region {
            region::FLASH_OVER_RAM | region::BLANK_OVER_RAM => {
                store(self.ram.low(), self.covered(region, offset)?, width, value)
            }
            _ => match self.memory(region, offset)? {
                (memory, DirectKind::Ram, offset) => store(memory, offset, width, value),
                // Nothing is wrong with a write to a ROM; it changes nothing.
                _ => Some(()),
            },
        }
    }

    /// A write of configuration space, with the lock that outlives it.
    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let before = self.config.read(SMRAM, Width::B2);
        self.config.write_region(offset, width, value)?;
        let written = self.config.read(SMRAM, Width::B2);
        self.config.set(SMRAM, Width::B2, smram::settled(before, written));
        Ok(())
    }
}

impl Run {
    /// The addresses from `first` up to `end`, if there are any.
    fn new(first: u64, end: u64, region: Region, offset: u64) -> Option<Run> {
        let span = Span::of_len(Gpa(first), end.checked_sub(first)?)?;
        Some(Run { span, region, offset })
    }
}

/// Adds a run, or prolongs the last one if it goes on there.
fn push(runs: &mut Vec<Run>, first: u64, end: u64, region: Region, offset: u64) {
    let Some(run) = Run::new(first, end, region, offset) else { return };
    if let Some(last) = runs.last_mut() {
        let len = last.span.extent() + 1;
        let adjoins = last.span.first().0 + len == first && last.offset + len == offset;
        if last.region == region && adjoins {
            last.span = Span::new(last.span.first(), run.span.last()).unwrap_or(last.span);
            return;
        }
    }
    runs.push(run);
}

fn config() -> ConfigSpace {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x29c0,
        revision: 0,
        class: 0x06_0000,
        // SeaBIOS takes the machine for a virtual one, and asks it for its configuration, by this.
        subsystem: (0x1af4, 0x1100),
    });
    // Memory decode and bus mastering cannot be switched off.
    config.preset(spec::COMMAND, Width::B2, 0x0006);
    config.allow(spec::COMMAND, Width::B2, 0x0100);
    config.allow(spec::CACHE_LINE_SIZE, Width::B1, 0);
    config.allow(spec::INTERRUPT_LINE, Width::B1, 0);
    config.allow(EXT_TSEG, Width::B2, 0xffff);
    config.preset(PCIEXBAR, Width::B4, PCIEXBAR_RESET);
    config.allow(PCIEXBAR, Width::B4, 0xfc00_0007);
    config.allow(PCIEXBAR + 4, Width::B4, 0x0000_000f);
    config.allow(pam::PAM0, Width::B4, pam::WRITABLE[0]);
    config.allow(pam::PAM0 + 4, Width::B4, pam::WRITABLE[1]);
    config.preset(SMRAM, Width::B1, smram::SMRAM_RESET);
    config.allow(SMRAM, Width::B1, smram::SMRAM_WRITABLE);
    config.preset(ESMRAMC, Width::B1, smram::ESMRAMC_RESET);
    config.allow(ESMRAMC, Width::B1, smram::ESMRAMC_WRITABLE);
    config
}

fn port(first: u16, last: u16, target: Target) -> Option<Claim> {
    let range = Range::Ports(Span::new(Port(first), Port(last))?);
    Some(Claim::of(range, target))
}

/// Reads little-endian bytes of memory that the guest may be writing.
fn load(memory: &MmapRegion, offset: u64, width: Width) -> Option<u64> {
    let at = usize::try_from(offset).ok()?;
    let slice = memory.get_slice(at, width.bytes()).ok()?;
    match width {
        Width::B1 => slice.read_obj::<u8>(0).ok().map(u64::from),
        Width::B2 => slice.read_obj::<u16>(0).ok().map(u64::from),
        Width::B4 => slice.read_obj::<u32>(0).ok().map(u64::from),
        Width::B8 => slice.read_obj::<u64>(0).ok(),
    }
}

fn store(memory: &MmapRegion, offset: u64, width: Width, value: u64) -> Option<()> {
    let at = usize::try_from(offset).ok()?;
    let slice = memory.get_slice(at, width.bytes()).ok()?;
    let bytes = value.to_le_bytes();
    match width {
        Width::B1 => slice.write_obj(bytes[0], 0).ok(),
        Width::B2 => slice.write_obj((value & 0xffff) as u16, 0).ok(),
        Width::B4 => slice.write_obj((value & 0xffff_ffff) as u32, 0).ok(),
        Width::B8 => slice.write_obj(value, 0).ok(),
    }
}

impl Device for HostBridge {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG {
            return self.config.read_region(offset, width);
        }
        let (memory, _, offset) = self.memory(region, offset).ok_or(Fault::NoRegister)?;
        load(memory, offset, width).ok_or(Fault::NoRegister)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::CONFIG {
            return self.write_config(offset, width, value);
        }
        self.write_memory(region, offset, width, value).ok_or(Fault::NoRegister)
    }

    /// The registers go back to power-on, so the BIOS area shows the pristine flash again; RAM keeps
    /// what it holds.
    fn reset(&mut self) {
        self.config.reset();
    }

    /// The configuration windows and the interrupt controllers', then memory in ascending order.
    fn claims(&self) -> Claims {
        // The latch is reached by a 32-bit access at its first byte alone; the bytes behind it are
        // other people's registers (0xcf9 is the LPC bridge's).
        let latch = port(0xcf8, 0xcf8, Target::ConfigAddress);
        let data = port(0xcfc, 0xcff, Target::ConfigData);
        let ecam = self.ecam().map(|span| Claim::of(Range::Memory(span), Target::Ecam));
        let mut ranges: Vec<Claim> = [latch, data, ecam].into_iter().flatten().collect();
        let reserved = RESERVED.iter().filter_map(|(first, last)| Span::new(Gpa(*first), Gpa(*last)));
        ranges.extend(reserved.map(|span| Claim::region(Range::Memory(span), region::RESERVED, 0)));
        ranges.extend(self.runs().into_iter().filter_map(|run| self.claim(run)));
        Claims { ranges, bridge: None }
    }
}

#[cfg(test)]
mod tests;
