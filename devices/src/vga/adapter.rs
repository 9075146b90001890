//! The adapter as a PCI function.

use std::io;

use trapline_io::device::{Claim, Claims, Device, Direct, DirectKind, Fault, Range};
use trapline_io::{Port, Region, Span, Width};

use super::dispi::Effect;
use super::memory::{self, Window};
use super::snapshot::Publisher;
use super::spec::{self, MMIO_SIZE, ROM_SIZE, VRAM_SIZE};
use super::{Registers, Shared, edid};
use crate::legacy::{self, PORTS, WINDOW};
use crate::pci::{Bar, BarKind, ConfigSpace, Identity};

/// A [`Snapshot`](super::Snapshot) that is always up to date, read-only, [`SCREEN_SIZE`] bytes. A
/// region of this adapter alone, offered by descriptor to whoever shows the screen.
pub const SCREEN: Region = Region(9);
/// Bytes of region [`SCREEN`].
pub const SCREEN_SIZE: usize = 4096;
/// The Bochs index and data ports as a region, for a machine that has the adapter as one of its own
/// functions: offset 0 is port 0x1ce, offset 1 port 0x1cf. Over VFIO there is no such region; there
/// the registers are reached through BAR 2.
pub const DISPI: Region = Region(10);

/// The framebuffer's BAR.
const FRAMEBUFFER: Region = Region::bar(0);
/// The register BAR.
const MMIO: Region = Region::bar(2);
/// Bytes of BAR 2 that repeat the ports from 0x3c0 on.
const MMIO_PORTS_SIZE: u64 = 0x20;
/// Bytes of BAR 2 that hold the Bochs registers.
const MMIO_DISPI_SIZE: u64 = 0x16;
/// Bytes of BAR 2 that hold the EDID.
const MMIO_EDID_SIZE: u64 = 0x180;

/// How many bytes a region of the adapter has, as VFIO tells it; the ports of [`DISPI`] apart.
pub fn region_size(region: Region) -> Option<u64> {
    Some(match region {
        FRAMEBUFFER => VRAM_SIZE as u64,
        MMIO => MMIO_SIZE as u64,
        Region::ROM => ROM_SIZE as u64,
        Region::CONFIG => 4096,
        Region::VGA => WINDOW.1 + 1,
        SCREEN => SCREEN_SIZE as u64,
        DISPI => 4,
        _ => return None,
    })
}

/// The software VGA adapter, 1234:1111: a VGA with 16 MiB of video memory and the Bochs interface.
///
/// ```
/// use trapline_devices::vga::{Adapter, spec};
/// use trapline_io::{Device, Region, Width};
///
/// let mut adapter = Adapter::new(None)?;
/// // Map mask: planes 0 and 1, index and data in one access.
/// adapter.write(Region::VGA, spec::SEQUENCER_INDEX.into(), Width::B2, 0x0302).unwrap();
/// assert_eq!(adapter.read(Region::VGA, spec::SEQUENCER_DATA.into(), Width::B1), Ok(3));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Adapter {
    config: ConfigSpace,
    registers: Registers,
    window: Window,
    framebuffer: Shared,
    screen: Shared,
    publisher: Publisher,
    rom: Option<Box<[u8]>>,
    edid: [u8; edid::SIZE],
}

impl Adapter {
    /// An adapter at power-on, its expansion ROM holding `rom`.
    ///
    /// # Errors
    /// The image is larger than the ROM's 64 KiB, or video memory cannot be had.
    pub fn new(rom: Option<Vec<u8>>) -> io::Result<Adapter> {
        if let Some(image) = rom.as_ref().filter(|image| image.len() > ROM_SIZE) {
            let text = format!("VBIOS image of {} bytes, the ROM has {ROM_SIZE}", image.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let rom = rom.map(|mut image| {
            image.resize(ROM_SIZE, 0xff);
            image.into_boxed_slice()
        });
        let mut adapter = Adapter {
            config: config_space(rom.is_some()),
            registers: Registers::default(),
            window: Window::default(),
            framebuffer: Shared::new("trapline-vram", VRAM_SIZE)?,
            screen: Shared::new_published("trapline-screen", SCREEN_SIZE)?,
            publisher: Publisher::default(),
            rom,
            edid: edid::block(),
        };
        adapter.publisher.start(adapter.screen.bytes(), &adapter.registers);
        Ok(adapter)
    }

    /// Video memory: what BAR 0 is. Its descriptor can be mapped by anybody who has it.
    pub fn framebuffer(&self) -> &Shared {
        &self.framebuffer
    }

    /// The page with an up-to-date snapshot: what region [`SCREEN`] is. Others can only read it.
    pub fn screen(&self) -> &Shared {
        &self.screen
    }

    /// The registers.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_ports(&mut self, first: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        // Nobody keeps an access from the end of all addresses, where there is no next one.
        for (lane, byte) in (0..).zip(&mut bytes[..width.bytes()]) {
            *byte =
                first.checked_add(lane).and_then(port_at).map_or(0xff, |port| self.registers.read_port(port));
        }
        u64::from_le_bytes(bytes)
    }

    fn write_ports(&mut self, first: u64, width: Width, value: u64) {
        let mut colors = false;
        for (lane, byte) in (0..).zip(value.to_le_bytes()).take(width.bytes()) {
            if let Some(port) = first.checked_add(lane).and_then(port_at) {
                self.registers.write_port(port, byte);
                colors |= port == spec::DAC_DATA;
            }
        }
        self.publish(colors);
    }

    /// Brings the snapshot up to date; the DAC's colours only where they may have changed.
    fn publish(&mut self, colors: bool) {
        let end = if colors { size_of::<Registers>() } else { Registers::PALETTE };
        self.publisher.publish(self.screen.bytes(), &self.registers, 0..end);
    }

    fn write_dispi(&mut self, register: u16, value: u16) {
        if let Effect::Clear(bytes) = self.registers.dispi.write(register, value)
            && let Ok(shown) = self.framebuffer.bytes().subslice(0, bytes)
        {
            clear(shown);
        }
        self.publish(false);
    }

    fn read_mmio(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        let last = offset.saturating_add(width.bytes() as u64 - 1);
        let inside = |start: u64, size: u64| offset >= start && last - start < size;
        if inside(spec::MMIO_EDID, MMIO_EDID_SIZE) {
            return Ok(lanes(offset, width, |at| self.edid.get(at).copied().unwrap_or(0)));
        }
        if inside(spec::MMIO_PORTS, MMIO_PORTS_SIZE) {
            return Ok(self.read_ports(mmio_port(offset), width));
        }
        let dispi = &self.registers.dispi;
        if inside(spec::MMIO_DISPI, MMIO_DISPI_SIZE) {
            return Ok(lanes(offset - spec::MMIO_DISPI, width, |at| {
                let register = u16::try_from(at / 2).unwrap_or(u16::MAX);
                dispi.read(register).to_le_bytes()[at & 1]
            }));
        }
        if inside(spec::MMIO_EXTENDED_SIZE, 8) {
            let order = if dispi.big_endian() { spec::BIG_ENDIAN } else { spec::LITTLE_ENDIAN };
            let block = (u64::from(order) << 32 | 8).to_le_bytes();
            let byte = |at: usize| block.get(at).copied().unwrap_or(0xff);
            return Ok(lanes(offset - spec::MMIO_EXTENDED_SIZE, width, byte));
        }
        Err(Fault::NoRegister)
    }

    fn write_mmio(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let last = offset.saturating_add(width.bytes() as u64 - 1);
        let inside = |start: u64, size: u64| offset >= start && last - start < size;
        if inside(spec::MMIO_PORTS, MMIO_PORTS_SIZE) {
            self.write_ports(mmio_port(offset), width, value);
            return Ok(());
        }
        if inside(spec::MMIO_DISPI, MMIO_DISPI_SIZE) {
            if width == Width::B1 || offset & 1 == 1 {
                return Err(Fault::BadWidth);
            }
            let first = u16::try_from((offset - spec::MMIO_DISPI) / 2).map_err(|_| Fault::NoRegister)?;
            for (register, lane) in (first..).zip(value.to_le_bytes().chunks_exact(2)).take(width.bytes() / 2)
            {
                self.write_dispi(register, u16::from_le_bytes([lane[0], lane[1]]));
            }
            return Ok(());
        }
        match (offset, width) {
            (spec::MMIO_BYTE_ORDER, Width::B4) => {
                match u32::try_from(value) {
                    Ok(spec::LITTLE_ENDIAN) => self.registers.dispi.set_big_endian(false),
                    Ok(spec::BIG_ENDIAN) => self.registers.dispi.set_big_endian(true),
                    _ => {}
                }
                self.publish(false);
                Ok(())
            }
            (spec::MMIO_EXTENDED_SIZE | spec::MMIO_BYTE_ORDER, _) => Err(Fault::BadWidth),
            _ => Err(Fault::NoRegister),
        }
    }

    fn read_dispi_port(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let dispi = &self.registers.dispi;
        match (offset, width) {
            (0, Width::B1 | Width::B2) => Ok(dispi.index().into()),
            (1, Width::B1 | Width::B2) => Ok(dispi.read(dispi.index()).into()),
            _ => Err(Fault::BadWidth),
        }
    }

    fn write_dispi_port(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match (offset, width, u16::try_from(value & 0xffff)) {
            (0, Width::B1 | Width::B2, Ok(value)) => self.registers.dispi.set_index(value),
            (1, Width::B2, Ok(value)) => self.write_dispi(self.registers.dispi.index(), value),
            _ => return Err(Fault::BadWidth),
        }
        Ok(())
    }

    /// The claims of the BARs.
    fn claim_bars(&self, ranges: &mut Vec<Claim>) {
        if let Some(range) = self.config.decoded(0) {
            let memory = std::sync::Arc::clone(self.framebuffer.memory());
            let direct = Direct { memory, offset: 0, kind: DirectKind::Bar };
            ranges.push(Claim::region(range, FRAMEBUFFER, 0).direct(direct));
        }
        for (index, region) in [(2, MMIO), (6, Region::ROM)] {
            ranges.extend(self.config.decoded(index).map(|range| Claim::region(range, region, 0)));
        }
    }
}

impl Device for Adapter {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
        match region {
            FRAMEBUFFER => Ok(memory::load(self.framebuffer.bytes(), at, width)),
            MMIO => self.read_mmio(offset, width),
            Region::ROM => match &self.rom {
                Some(rom) => Ok(lanes(offset, width, |at| rom.get(at).copied().unwrap_or(0xff))),
                None => Err(Fault::NoRegister),
            },
            Region::CONFIG => self.config.read_region(offset, width),
            Region::VGA => match window_offset(offset) {
                Some(inside) => {
                    Ok(self.window.read(&self.registers, self.framebuffer.bytes(), inside, width))
                }
                None if port_at(offset).is_some() => Ok(self.read_ports(offset, width)),
                None => Err(Fault::NoRegister),
            },
            SCREEN => Ok(memory::load(self.screen.bytes(), at, width)),
            DISPI => self.read_dispi_port(offset, width),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let value = value & width.all_ones();
        match region {
            FRAMEBUFFER => {
                let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
                memory::store(self.framebuffer.bytes(), at, width, value);
            }
            MMIO => return self.write_mmio(offset, width, value),
            Region::CONFIG => return self.config.write_region(offset, width, value).map(drop),
            Region::VGA => match window_offset(offset) {
                Some(inside) => {
                    self.window.write(&self.registers, self.framebuffer.bytes(), inside, width, value);
                }
                None if port_at(offset).is_some() => self.write_ports(offset, width, value),
                None => return Err(Fault::NoRegister),
            },
            DISPI => return self.write_dispi_port(offset, width, value),
            // Read-only: a bus would drop the write as well.
            Region::ROM | SCREEN => {}
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    /// Video memory keeps what it holds, as a card's does.
    fn reset(&mut self) {
        self.config.reset();
        self.registers = Registers::default();
        self.window = Window::default();
        self.publish(true);
    }

    fn claims(&self) -> Claims {
        let mut ranges = Vec::new();
        self.claim_bars(&mut ranges);
        ranges.extend(legacy::claims(self.config.command()));
        if self.config.command().io() {
            // One more byte than the two ports have, for the 16-bit access to the second.
            let last = Port(spec::DISPI_DATA + 1);
            let ports = Span::new(Port(spec::DISPI_INDEX), last).map(Range::Ports);
            ranges.extend(ports.map(|range| Claim::region(range, DISPI, 0)));
        }
        Claims { ranges, bridge: None }
    }
}

fn config_space(rom: bool) -> ConfigSpace {
    let mut config = ConfigSpace::new(Identity {
        vendor: spec::IDENTITY.0,
        device: spec::IDENTITY.1,
        revision: 2,
        class: 0x03_0000,
        subsystem: (0x1af4, 0x1100),
    });
    config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: true }, size: VRAM_SIZE as u64 });
    config.add_bar(2, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: MMIO_SIZE as u64 });
    if rom {
        config.add_bar(6, Bar { kind: BarKind::Rom, size: ROM_SIZE as u64 });
    }
    config
}

/// The port, if it is one of the VGA's.
fn port_at(offset: u64) -> Option<u16> {
    let port = u16::try_from(offset).ok()?;
    PORTS.iter().any(|(first, last)| (first..=last).contains(&&port)).then_some(port)
}

/// The port that lies at this offset of BAR 2.
fn mmio_port(offset: u64) -> u64 {
    offset - spec::MMIO_PORTS + 0x3c0
}

/// How far into the window an offset of region 8 lies, if it does.
fn window_offset(offset: u64) -> Option<u32> {
    let inside = offset.checked_sub(WINDOW.0)?;
    (offset <= WINDOW.1).then(|| u32::try_from(inside).ok()).flatten()
}

/// A value whose bytes come from ascending places.
fn lanes(first: u64, width: Width, byte: impl Fn(usize) -> u8) -> u64 {
    let mut bytes = [0; 8];
    for (number, lane) in (0..).zip(&mut bytes[..width.bytes()]) {
        let at = first.checked_add(number).and_then(|at| usize::try_from(at).ok());
        *lane = at.map_or(0xff, &byte);
    }
    u64::from_le_bytes(bytes)
}

fn clear(memory: vm_memory::VolatileSlice<'_>) {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = 0;
    while let Ok(rest) = memory.offset(at)
        && !rest.is_empty()
    {
        rest.copy_from(&ZEROS);
        at += ZEROS.len().min(rest.len());
    }
}

#[cfg(test)]
mod tests;
