//! The 4 KiB of configuration space, as values and masks: what is writable is data, not code.

use trapline_io::device::Range;
use trapline_io::space::DwordSet;
use trapline_io::{Fault, Width};

use super::bar::{Bar, BarKind};
use super::spec::{self, Command};
use super::{Pin, spec::BridgeControl};

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: base class in bits 23:16, then subclass, then programming interface.
    pub class: u32,
    /// Subsystem vendor and device.
    pub subsystem: (u16, u16),
}

const SIZE: usize = 4096;

/// The configuration space of one function.
///
/// Reads and writes are of 1, 2 or 4 bytes. The address space has cut what crosses a dword. What
/// lies beyond the space, whoever asks, is ignored or reads as ones.
#[derive(Clone)]
pub struct ConfigSpace {
    value: Box<[u8; SIZE]>,
    /// Bits that a write sets.
    writable: Box<[u8; SIZE]>,
    /// Bits that a write of one clears.
    clearable: Box<[u8; SIZE]>,
    /// The values after reset.
    initial: Box<[u8; SIZE]>,
    /// Base address registers by index; 6 is the ROM.
    bars: [Option<Bar>; 7],
    bridge: bool,
    /// Where the next capability goes.
    free: u16,
    /// The pointer that is to lead to the next capability.
    tail: u16,
}

impl std::fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = (self.read(spec::VENDOR_ID, Width::B2), self.read(spec::DEVICE_ID, Width::B2));
        write!(f, "ConfigSpace({:04x}:{:04x})", id.0, id.1)
    }
}

impl ConfigSpace {
    /// The dwords of a type 0 header whose writes change the map: COMMAND, BARs, ROM.
    pub const TOPOLOGY: DwordSet = DwordSet::of(&[0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]);
    /// The same for a type 1 header: COMMAND, BARs, bus numbers, windows, ROM, bridge control.
    pub const BRIDGE_TOPOLOGY: DwordSet =
        DwordSet::of(&[0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x38, 0x3c]);

    /// A type 0 header with no BAR and no capability.
    pub fn new(id: Identity) -> ConfigSpace {
        let mut config = ConfigSpace {
            value: Box::new([0; SIZE]),
            writable: Box::new([0; SIZE]),
            clearable: Box::new([0; SIZE]),
            initial: Box::new([0; SIZE]),
            bars: [None; 7],
            bridge: false,
            free: spec::FIRST_CAPABILITY,
            tail: spec::CAPABILITIES,
        };
        config.preset(spec::VENDOR_ID, Width::B2, id.vendor.into());
        config.preset(spec::DEVICE_ID, Width::B2, id.device.into());
        config.preset(spec::REVISION_ID, Width::B4, id.class << 8 | u32::from(id.revision));
        config.preset(spec::SUBSYSTEM_VENDOR_ID, Width::B2, id.subsystem.0.into());
        config.preset(spec::SUBSYSTEM_ID, Width::B2, id.subsystem.1.into());
        let command = Command::from_bits(0x0547);
        config.allow(spec::COMMAND, Width::B2, command.into_bits().into());
        config.allow(spec::CACHE_LINE_SIZE, Width::B1, 0xff);
        config.allow(spec::INTERRUPT_LINE, Width::B1, 0xff);
        config
    }

    /// A type 1 header: bus numbers, 16-bit I/O, 32-bit memory and 64-bit prefetchable windows, all
    /// closed after reset.
    pub fn new_bridge(id: Identity) -> ConfigSpace {
        let mut config = ConfigSpace::new(Identity { subsystem: (0, 0), ..id });
        config.bridge = true;
        config.preset(spec::HEADER_TYPE, Width::B1, 1);
        // The secondary latency timer means nothing on PCI Express and reads as zero.
        config.allow(spec::PRIMARY_BUS, Width::B4, 0x00ff_ffff);
        // I/O base and limit: 16-bit decode (low nibble 0), address bits 15:12.
        config.allow(spec::IO_BASE, Width::B2, 0xf0f0);
        config.allow(spec::MEMORY_BASE, Width::B4, 0xfff0_fff0);
        // The specification leaves the windows' reset values open; zero would be an open window at
        // zero, so all three start closed: base above limit.
        config.preset(spec::IO_BASE, Width::B2, 0x00f0);
        config.preset(spec::MEMORY_BASE, Width::B4, 0x0000_fff0);
        // Prefetchable: 64-bit (low nibble 1).
        config.preset(spec::PREFETCHABLE_BASE, Width::B4, 0x0001_fff1);
        config.allow(spec::PREFETCHABLE_BASE, Width::B4, 0xfff0_fff0);
        config.allow(spec::PREFETCHABLE_BASE_UPPER, Width::B4, u32::MAX);
        config.allow(spec::PREFETCHABLE_BASE_UPPER + 4, Width::B4, u32::MAX);
        let control = BridgeControl::from_bits(0x005f);
        config.allow(spec::BRIDGE_CONTROL, Width::B2, control.into_bits().into());
        config
    }

    /// Sets a register's value, now and after every reset.
    pub fn preset(&mut self, offset: u16, width: Width, value: u32) {
        put(&mut self.value, offset, width, value);
        put(&mut self.initial, offset, width, value);
    }

    /// Lets the guest write these bits.
    pub fn allow(&mut self, offset: u16, width: Width, mask: u32) {
        put(&mut self.writable, offset, width, mask);
    }

    /// Lets the guest clear these bits by writing ones.
    pub fn allow_clear(&mut self, offset: u16, width: Width, mask: u32) {
        put(&mut self.clearable, offset, width, mask);
    }

    /// Sets a register from the device's side, whatever the masks say; a reset undoes it.
    pub fn set(&mut self, offset: u16, width: Width, value: u32) {
        put(&mut self.value, offset, width, value);
    }

    /// Puts a base address register at `index` 0 to 5, or the ROM at 6 ([`BarKind::Rom`]). A bridge
    /// has only 0, 1 and 6, and a 64-bit register needs the one behind it too: others are ignored.
    pub fn add_bar(&mut self, index: u8, bar: Bar) {
        let Some(offset) = self.bar_offset(index) else { return };
        let wide = matches!(bar.kind, BarKind::Memory64 { .. });
        if wide && (index >= 5 || self.bar_offset(index + 1).is_none()) {
            return;
        }
        let bar = bar.expressible();
        self.bars[usize::from(index)] = Some(bar);
        self.preset(offset, Width::B4, bar.type_bits());
        let mask = bar.address_mask();
        let enable = u32::from(bar.kind == BarKind::Rom);
        self.allow(offset, Width::B4, low(mask) | enable);
        if wide {
            self.allow(offset + 4, Width::B4, low(mask >> 32));
        }
    }

    /// Adds a capability to the classic list: `body` is what follows the id and the next pointer,
    /// `writable` the mask of its bits. Gives its offset, or `None` when the list is full.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u16> {
        let at = self.free;
        let end = usize::from(at) + 2 + body.len();
        if end > 0x100 {
            return None;
        }
        self.preset(self.tail, Width::B1, at.into());
        self.preset(at, Width::B1, id.into());
        self.preset(at + 1, Width::B1, 0);
        for (offset, byte) in (at + 2..).zip(body) {
            self.preset(offset, Width::B1, (*byte).into());
        }
        for (offset, mask) in (at + 2..).zip(writable) {
            self.allow(offset, Width::B1, (*mask).into());
        }
        let status = self.read(spec::STATUS, Width::B2) | u32::from(spec::STATUS_CAPABILITIES);
        self.preset(spec::STATUS, Width::B2, status);
        self.tail = at + 1;
        self.free = u16::try_from(end.next_multiple_of(4)).unwrap_or(0x100);
        Some(at)
    }

    /// Says which interrupt pin the function pulls.
    pub fn set_pin(&mut self, pin: Pin) {
        self.preset(spec::INTERRUPT_PIN, Width::B1, u32::from(pin.index()) + 1);
    }

    /// Reads a register; an access beyond the space gives ones.
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        let mut bytes = [0; 4];
        match (self.value.get(lanes(offset, width)), bytes.get_mut(..width.bytes())) {
            (Some(from), Some(to)) => to.copy_from_slice(from),
            _ => return u32::MAX,
        }
        u32::from_le_bytes(bytes)
    }

    /// One byte; ones beyond the space.
    pub fn byte(&self, offset: u16) -> u8 {
        self.value.get(usize::from(offset)).copied().unwrap_or(u8::MAX)
    }

    /// A 16-bit register; ones beyond the space.
    pub fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset.saturating_add(1))])
    }

    /// Serves a read of [`trapline_io::Region::CONFIG`].
    ///
    /// # Errors
    /// [`Fault::BadWidth`] for 8 bytes, [`Fault::NoRegister`] past the 4 KiB.
    pub fn read_region(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        Ok(self.read(register(offset, width)?, width).into())
    }

    /// Serves a write of [`trapline_io::Region::CONFIG`], and gives the register's offset as 16 bits.
    ///
    /// # Errors
    /// As [`Self::read_region`].
    pub fn write_region(&mut self, offset: u64, width: Width, value: u64) -> Result<u16, Fault> {
        let offset = register(offset, width)?;
        self.write(offset, width, low(value));
        Ok(offset)
    }

    /// Carries out a guest's write through the masks.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        if width == Width::B8 || lanes(offset, width).end > SIZE {
            return;
        }
        for (at, new) in lanes(offset, width).zip(value.to_le_bytes()) {
            let (old, writable) = (self.value[at], self.writable[at]);
            self.value[at] = (old & !writable | new & writable) & !(new & self.clearable[at]);
        }
    }

    /// Back to the values at power-on.
    pub fn reset(&mut self) {
        self.value.copy_from_slice(&*self.initial);
    }

    /// The Command register.
    pub fn command(&self) -> Command {
        Command::from_bits(self.word(spec::COMMAND))
    }

    /// What a base address register is.
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.get(usize::from(index)).copied().flatten()
    }

    /// The range that a base address register (6: the ROM) decodes now: none while COMMAND or the
    /// ROM's own bit keeps it off, or while it holds no usable address.
    pub fn decoded(&self, index: u8) -> Option<Range> {
        let (bar, offset) = (self.bar(index)?, self.bar_offset(index)?);
        let low = self.read(offset, Width::B4);
        let command = self.command();
        let on = match bar.kind {
            BarKind::Io => command.io(),
            BarKind::Rom => command.memory() && low & 1 == 1,
            _ => command.memory(),
        };
        let high = match bar.kind {
            BarKind::Memory64 { .. } => self.read(offset + 4, Width::B4),
            _ => 0,
        };
        on.then(|| bar.range(u64::from(high) << 32 | u64::from(low))).flatten()
    }

    fn bar_offset(&self, index: u8) -> Option<u16> {
        match (index, self.bridge) {
            (0..=1, _) | (2..=5, false) => Some(spec::BAR0 + 4 * u16::from(index)),
            (6, false) => Some(spec::ROM_BAR),
            (6, true) => Some(spec::BRIDGE_ROM_BAR),
            _ => None,
        }
    }
}

/// The offset as configuration space has it, if the whole access lies inside.
fn register(offset: u64, width: Width) -> Result<u16, Fault> {
    if width == Width::B8 {
        return Err(Fault::BadWidth);
    }
    let offset = u16::try_from(offset).map_err(|_| Fault::NoRegister)?;
    if lanes(offset, width).end > SIZE { Err(Fault::NoRegister) } else { Ok(offset) }
}

/// Stores the low `width` bytes of `value`, unless they would not fit.
fn put(bytes: &mut [u8; SIZE], offset: u16, width: Width, value: u32) {
    let value = value.to_le_bytes();
    if let (Some(to), Some(from)) = (bytes.get_mut(lanes(offset, width)), value.get(..width.bytes())) {
        to.copy_from_slice(from);
    }
}

fn lanes(offset: u16, width: Width) -> std::ops::Range<usize> {
    usize::from(offset)..usize::from(offset) + width.bytes()
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_io::{Gpa, Span};

    fn adapter() -> ConfigSpace {
        let id = Identity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x03_0000,
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: true }, size: 16 << 20 });
        config.add_bar(2, Bar { kind: BarKind::Memory64 { prefetchable: false }, size: 4096 });
        config.add_bar(6, Bar { kind: BarKind::Rom, size: 64 << 10 });
        config
    }

    #[test]
    fn sizing_shows_kind_and_size() {
        let mut config = adapter();
        for offset in [0x10, 0x18, 0x1c, 0x30, 0x14] {
            config.write(offset, Width::B4, u32::MAX);
        }
        assert_eq!(config.read(0x10, Width::B4), 0xff00_0008);
        assert_eq!(config.read(0x14, Width::B4), 0);
        assert_eq!(config.read(0x18, Width::B4), 0xffff_f004);
        assert_eq!(config.read(0x1c, Width::B4), 0xffff_ffff);
        assert_eq!(config.read(0x30, Width::B4), 0xffff_0001);
    }

    #[test]
    fn a_bar_decodes_when_command_says_so() {
        let mut config = adapter();
        config.write(0x10, Width::B4, 0xe000_0000);
        assert_eq!(config.decoded(0), None);
        config.write(0x04, Width::B2, 2);
        assert_eq!(config.decoded(0), Span::of_len(Gpa(0xe000_0000), 16 << 20).map(Range::Memory));
        config.reset();
        assert_eq!(config.decoded(0), None);
    }

    #[test]
    fn a_byte_write_changes_its_lane_alone() {
        let mut config = adapter();
        config.write(0x13, Width::B1, 0xe1);
        assert_eq!(config.read(0x10, Width::B4), 0xe100_0008);
    }

    #[test]
    fn ones_clear_what_may_be_cleared() {
        let mut config = adapter();
        config.allow_clear(0x06, Width::B2, 0xf900);
        config.set(0x06, Width::B2, 0x2810);
        config.write(0x06, Width::B2, 0x2000);
        assert_eq!(config.read(0x06, Width::B2), 0x0810);
    }
}
