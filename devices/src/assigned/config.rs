//! The configuration space that the guest sees of an assigned function: the header emulated, the
//! capabilities chosen and shaped, device-specific registers passed on.

use trapline_io::device::Range;
use trapline_io::space::DwordSet;
use trapline_io::{Fault, Width};

use super::error::Error;
use super::express;
use super::extended;
use super::header;
use super::options::Placement;
use super::registers::{CLASSIC, EXTENDED, Registers};
use crate::pci::spec::{self, PowerControl};
use crate::pci::{Bar, BarKind, ConfigSpace};

/// Capabilities that are not shown, since they speak of slots and bridges, or place BARs elsewhere:
/// slot identification, hot swap, debug port, resource control, hot-plug controller, enhanced
/// allocation, flattening portal bridge.
const HIDDEN: [u8; 7] = [0x04, 0x06, 0x0a, 0x0b, 0x0c, 0x14, 0x15];
/// Power management: its bytes, and what is shown of PMC: version and device-specific initialisation,
/// neither D1 and D2 nor power management events (PCI Power Management 1.2, section 3.2).
const POWER_LEN: u16 = 8;
const POWER_CAPS: u16 = 0x0027;
const NO_SOFT_RESET: u16 = 1 << 3;
/// Advanced features: bytes, and the control register with its reset bit.
const ADVANCED_LEN: u16 = 6;
const ADVANCED_CONTROL: u16 = 4;
/// Advanced features, third byte of the dword: transactions pending and function level reset are there.
const ADVANCED_RESETS: u8 = 3;

/// What of the device is shown, besides its registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Where it sits.
    pub placement: Placement,
    /// Function 0 of several.
    pub multifunction: bool,
    /// Its INTx reaches the guest.
    pub intx: bool,
    /// Its region sizes 0 to 5.
    pub bars: [u64; 6],
    /// The size of its ROM, a power of two.
    pub rom: Option<u64>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Config {
    space: ConfigSpace,
    /// Bits that the device itself answers.
    answered: Box<[u8; EXTENDED]>,
    /// Bytes whose writes the device sees.
    taken: Box<[bool; EXTENDED]>,
    /// Offset of the power management capability.
    power: Option<u16>,
    /// Bits that reset the function when a one is written: byte offset and mask.
    resets: [Option<(u16, u8)>; 2],
    /// The next pointer that is to lead to the next capability.
    tail: u16,
    /// Offsets of the capabilities of message signalled interrupts, which others shape and add.
    pub msi: Option<u16>,
    pub msix: Option<u16>,
}

impl Config {
    /// The space of a device with these registers.
    pub fn new(device: &Registers, shape: &Shape) -> Result<Config, Error> {
        let mut space = header::space(device, shape)?;
        if let Some(size) = shape.rom {
            space.add_bar(6, Bar { kind: BarKind::Rom, size });
        }
        let mut config = Config {
            space,
            answered: Box::new([0; EXTENDED]),
            taken: Box::new([false; EXTENDED]),
            power: None,
            resets: [None; 2],
            tail: spec::CAPABILITIES,
            msi: None,
            msix: None,
        };
        let last = if device.extended() { EXTENDED } else { CLASSIC.into() };
        let first = spec::FIRST_CAPABILITY;
        config.pass(first, u16::try_from(last).unwrap_or(CLASSIC) - first);
        config.pass(spec::STATUS, 2);
        // Whether there are capabilities is known here.
        config.answered[usize::from(spec::STATUS)] &= 0xef;
        config.add_capabilities(device, shape.placement);
        Ok(config)
    }

    /// A VGA compatible controller that does not own the legacy ranges tells the guest that it is
    /// another display controller: a BIOS goes by the class, would take the first VGA for its own, and
    /// run its ROM on the registers of whoever owns them.
    pub fn be_no_vga(&mut self) {
        let class = self.space.read(spec::REVISION_ID, Width::B4);
        if class >> 16 == spec::CLASS_VGA {
            let other = header::CLASS_DISPLAY_OTHER << 16 | class & 0xff;
            self.space.preset(spec::REVISION_ID, Width::B4, other);
        }
    }

    /// The guest's view, where it is emulated.
    pub fn space(&self) -> &ConfigSpace {
        &self.space
    }

    /// The same, to be changed.
    pub fn space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.space
    }

    /// The dwords whose writes change the map: those of the header, the power state, and resets.
    pub fn topology(&self) -> DwordSet {
        let resets = self.resets.iter().flatten().map(|(at, _)| *at);
        let others = self.power_control().into_iter().chain(resets);
        others
            .filter_map(|at| u8::try_from(at).ok())
            .fold(ConfigSpace::TOPOLOGY, |set, at| set.union(DwordSet::of(&[at])))
    }

    /// The dwords whose writes choose between the line and messages.
    pub fn messages(&self) -> DwordSet {
        let places = self.msi.into_iter().chain(self.msix).filter_map(|at| u8::try_from(at).ok());
        places.fold(DwordSet::default(), |set, at| set.union(DwordSet::of(&[at])))
    }

    /// Offset of the power state, if the function has one.
    pub fn power_control(&self) -> Option<u16> {
        self.power.map(|at| at + spec::PMCSR)
    }

    /// Whether all of these bytes are the device's, to read and to write.
    pub fn is_device(&self, offset: u16, width: Width) -> bool {
        let bytes = usize::from(offset)..usize::from(offset) + width.bytes();
        let taken = self.taken.get(bytes.clone()).is_some_and(|taken| taken.iter().all(|taken| *taken));
        taken && self.answered.get(bytes).is_some_and(|bits| bits.iter().all(|bits| *bits == 0xff))
    }

    /// Whether the device sees any of these bytes when they are written.
    pub fn takes(&self, offset: u16, width: Width) -> bool {
        self.taken.iter().skip(offset.into()).take(width.bytes()).any(|taken| *taken)
    }

    /// Whether a byte is the id of one of the message signalled interrupts' capabilities, or its pointer to the
    /// next: those never change.
    pub fn heads_messages(&self, offset: u16) -> bool {
        self.msi.into_iter().chain(self.msix).any(|at| offset == at || offset == at + 1)
    }

    /// Of a byte of the dwords of [`Config::messages`], the bits that choose: the Enable bit of each.
    pub fn chooses(&self, offset: u16) -> Option<u8> {
        let of = |at: Option<u16>, bits: [u8; 4]| bits.get(usize::from(offset.checked_sub(at?)?)).copied();
        of(self.msi, [0, 0, 1, 0]).or_else(|| of(self.msix, [0, 0, 0, 0x80]))
    }

    /// The power state: 0 for D0, 3 for D3hot.
    pub fn power_state(&self) -> u8 {
        self.power_control().map_or(0, |at| PowerControl::from_bits(self.space.word(at)).state())
    }

    /// Whether the guest has put the function into D3hot, where it decodes nothing.
    pub fn asleep(&self) -> bool {
        self.power_state() == 3
    }

    /// What a base address register decodes now.
    pub fn decoded(&self, index: u8) -> Option<Range> {
        if self.asleep() { None } else { self.space.decoded(index) }
    }

    /// A read; `device` is asked for it where the device answers some of the bits.
    pub fn read(
        &self,
        offset: u16,
        width: Width,
        device: impl FnOnce() -> Result<u64, Fault>,
    ) -> Result<u64, Fault> {
        let emulated = u64::from(self.space.read(offset, width));
        let start = usize::from(offset);
        let lanes = self.answered.iter().skip(start).take(width.bytes()).enumerate();
        let mask = lanes.fold(0, |mask, (lane, bits)| mask | u64::from(*bits) << (8 * lane));
        if mask == 0 {
            return Ok(emulated & width.all_ones());
        }
        Ok(emulated & !mask & width.all_ones() | device()? & mask)
    }

    /// A write; `device` is given the part of it that the device must see.
    ///
    /// # Errors
    /// The device's; the emulated part is done all the same.
    pub fn write(
        &mut self,
        offset: u16,
        width: Width,
        value: u64,
        mut device: impl FnMut(u16, Width, u64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let before = self.power_state();
        self.space.write(offset, width, (value & 0xffff_ffff) as u32);
        self.settle_power(before);
        self.hand_on(offset, width, value, &mut device)
    }

    /// Whether a write asks for a reset of the function.
    pub fn resets(&self, offset: u16, width: Width, value: u64) -> bool {
        let bytes = value.to_le_bytes();
        let mut written = (offset..).zip(bytes).take(width.bytes());
        written.any(|(at, byte)| {
            self.resets.iter().flatten().any(|(reset, mask)| *reset == at && byte & mask != 0)
        })
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.space.reset();
    }

    /// Gives the device the widest parts of a write whose every byte it takes.
    fn hand_on(
        &self,
        offset: u16,
        width: Width,
        value: u64,
        device: &mut impl FnMut(u16, Width, u64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut lanes = self.taken.iter().skip(offset.into()).take(width.bytes());
        if lanes.clone().all(|taken| *taken) {
            return device(offset, width, value & width.all_ones());
        }
        let half = match width {
            Width::B4 => Width::B2,
            Width::B2 => Width::B1,
            _ => return Ok(()),
        };
        if !lanes.any(|taken| *taken) {
            return Ok(());
        }
        let upper = offset.saturating_add(if half == Width::B2 { 2 } else { 1 });
        let first = self.hand_on(offset, half, value, device);
        first.and(self.hand_on(upper, half, value >> (8 * half.bytes()), device))
    }

    /// D1 and D2 are not there: a write that asks for them leaves the state as it was.
    fn settle_power(&mut self, before: u8) {
        let Some(at) = self.power_control().filter(|_| matches!(self.power_state(), 1 | 2)) else { return };
        let control = PowerControl::from_bits(self.space.word(at)).with_state(before);
        self.space.set(at, Width::B2, control.into_bits().into());
    }

    /// Shows the device's capability list less what is hidden, each capability in its own shape.
    fn add_capabilities(&mut self, device: &Registers, placement: Placement) {
        let mut express = false;
        for (at, id) in device.capabilities() {
            match id {
                spec::CAP_MSI if self.msi.is_none() => self.msi = Some(at),
                spec::CAP_MSIX if self.msix.is_none() => self.msix = Some(at),
                spec::CAP_POWER if self.power.is_none() && self.add_power(device, at) => {}
                spec::CAP_EXPRESS if !express => express = express::add(self, device, at, placement),
                spec::CAP_MSI | spec::CAP_MSIX | spec::CAP_POWER | spec::CAP_EXPRESS => self.keep(at, 2),
                spec::CAP_ADVANCED => self.add_advanced(device, at),
                id if HIDDEN.contains(&id) => self.keep(at, 2),
                id => self.link(at, id),
            }
        }
        if device.extended() {
            let shown = express && placement == Placement::BehindPort;
            extended::add(self, device, shown);
        }
    }

    fn add_power(&mut self, device: &Registers, at: u16) -> bool {
        if at + POWER_LEN > CLASSIC {
            return false;
        }
        self.keep(at, POWER_LEN);
        self.link(at, spec::CAP_POWER);
        let (caps, control) = (device.word(at + spec::PMC), device.word(at + spec::PMCSR));
        self.space.preset(at + spec::PMC, Width::B2, (caps & POWER_CAPS).into());
        self.space.preset(at + spec::PMCSR, Width::B2, (control & NO_SOFT_RESET).into());
        self.space.allow(at + spec::PMCSR, Width::B2, 3);
        self.power = Some(at);
        true
    }

    fn add_advanced(&mut self, device: &Registers, at: u16) {
        self.link(at, spec::CAP_ADVANCED);
        if at + ADVANCED_LEN <= CLASSIC && device.byte(at + 3) & ADVANCED_RESETS == ADVANCED_RESETS {
            self.resets_on(at + ADVANCED_CONTROL, 1);
        }
    }

    /// A one in these bits of a byte resets the function from now on.
    pub fn resets_on(&mut self, at: u16, mask: u8) {
        if let Some(free) = self.resets.iter_mut().find(|reset| reset.is_none()) {
            *free = Some((at, mask));
        }
    }

    /// Puts a capability at the end of the list.
    pub fn link(&mut self, at: u16, id: u8) {
        self.keep(at, 2);
        self.space.preset(self.tail, Width::B1, at.into());
        self.space.preset(at, Width::B2, id.into());
        self.tail = at + 1;
        let status = self.space.read(spec::STATUS, Width::B2) | u32::from(spec::STATUS_CAPABILITIES);
        self.space.preset(spec::STATUS, Width::B2, status);
    }

    /// Keeps bytes from the device: they are answered here.
    pub fn keep(&mut self, at: u16, len: u16) {
        self.passing(at, len, 0, false);
    }

    /// Lets the device answer and take bytes.
    pub fn pass(&mut self, at: u16, len: u16) {
        self.passing(at, len, 0xff, true);
    }

    /// Lets the device answer bytes, and keeps writes from it.
    pub fn show(&mut self, at: u16, len: u16) {
        self.passing(at, len, 0xff, false);
    }

    fn passing(&mut self, at: u16, len: u16, answered: u8, taken: bool) {
        let range = usize::from(at)..EXTENDED.min(usize::from(at) + usize::from(len));
        self.answered.get_mut(range.clone()).unwrap_or_default().fill(answered);
        self.taken.get_mut(range).unwrap_or_default().fill(taken);
    }
}

#[cfg(test)]
mod tests;
