//! The common configuration structure (section 4.1.4.3): features, status, and where the rings are.

use trapline_io::{Fault, Width};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};

use super::super::queue::{Rings, SIZE};

/// Bytes that the structure takes.
pub(super) const LENGTH: u32 = 0x38;

/// An MSI-X vector register without a vector.
const NO_VECTOR: u64 = 0xffff;

const DRIVER_OK: u8 = low(VIRTIO_CONFIG_S_DRIVER_OK);
const FEATURES_OK: u8 = low(VIRTIO_CONFIG_S_FEATURES_OK);
const NEEDS_RESET: u8 = low(VIRTIO_CONFIG_S_NEEDS_RESET);

const fn low(bits: u32) -> u8 {
    bits.to_le_bytes()[0]
}

/// What a write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing yet.
    None,
    /// The driver is ready; if the queue is enabled, it is to start.
    Start(Option<Rings>),
    /// The device is to be reset.
    Reset,
}

/// The registers.
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    offered_select: u32,
    accepted_select: u32,
    /// What the driver accepts.
    pub(super) accepted: u64,
    status: u8,
    queue_select: u16,
    rings: Rings,
    enabled: bool,
}

impl Common {
    /// The registers after a reset; `offered` are the features.
    pub(super) fn new(offered: u64) -> Common {
        Common {
            offered,
            offered_select: 0,
            accepted_select: 0,
            accepted: 0,
            status: 0,
            queue_select: 0,
            rings: Rings { size: SIZE, ..Rings::default() },
            enabled: false,
        }
    }

    /// Reads a field. `broken`: the device needs a reset.
    pub(super) fn read(&self, offset: u64, width: Width, broken: bool) -> Result<u64, Fault> {
        if width == Width::B8 {
            let low = self.read(offset, Width::B4, broken)?;
            return Ok(low | self.read(offset + 4, Width::B4, broken)? << 32);
        }
        // There is one queue; others read as not there.
        let is_there = self.queue_select == 0;
        let queue = |value: u64| if is_there { value } else { 0 };
        let half = |value: u64, high: bool| queue(if high { value >> 32 } else { value & 0xffff_ffff });
        let status = self.status | if broken && self.status != 0 { NEEDS_RESET } else { 0 };
        let (value, size) = match offset {
            0x00 => (self.offered_select.into(), Width::B4),
            0x04 => (window(self.offered, self.offered_select), Width::B4),
            0x08 => (self.accepted_select.into(), Width::B4),
            0x0c => (window(self.accepted, self.accepted_select), Width::B4),
            0x10 | 0x1a => (NO_VECTOR, Width::B2),
            0x12 => (1, Width::B2),
            0x14 => (status.into(), Width::B1),
            0x15 => (0, Width::B1),
            0x16 => (self.queue_select.into(), Width::B2),
            0x18 => (queue(self.rings.size.into()), Width::B2),
            0x1c => (queue(self.enabled.into()), Width::B2),
            0x1e => (0, Width::B2),
            0x20 | 0x24 => (half(self.rings.descriptors, offset == 0x24), Width::B4),
            0x28 | 0x2c => (half(self.rings.available, offset == 0x2c), Width::B4),
            0x30 | 0x34 => (half(self.rings.used, offset == 0x34), Width::B4),
            _ => return Err(Fault::NoRegister),
        };
        if size == width { Ok(value) } else { Err(Fault::BadWidth) }
    }

    /// Writes a field.
    pub(super) fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<Effect, Fault> {
        match (offset, width) {
            (0x00, Width::B4) => self.offered_select = word(value),
            (0x08, Width::B4) => self.accepted_select = word(value),
            (0x0c, Width::B4) => self.accept(word(value)),
            (0x14, Width::B1) => return Ok(self.set_status(value.to_le_bytes()[0])),
            (0x16, Width::B2) => self.queue_select = half_word(value),
            (0x18 | 0x1c | 0x20..=0x37, _) => return self.set_queue(offset, width, value),
            // There are no vectors; the rest is read only.
            (0x10 | 0x1a, Width::B2) | (0x04, Width::B4) | (0x12 | 0x1e, Width::B2) | (0x15, Width::B1) => {}
            (0x00..0x38, _) => return Err(Fault::BadWidth),
            _ => return Err(Fault::NoRegister),
        }
        Ok(Effect::None)
    }

    /// Features can be chosen until the driver says that they are.
    fn accept(&mut self, value: u32) {
        if self.status & FEATURES_OK == 0 && self.accepted_select < 2 {
            let shift = 32 * self.accepted_select;
            self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(value) << shift;
        }
    }

    fn set_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let new = value & !self.status;
        self.status = value & !NEEDS_RESET;
        let acceptable = self.accepted & !self.offered == 0 && self.accepted >> VIRTIO_F_VERSION_1 & 1 == 1;
        if new & FEATURES_OK != 0 && !acceptable {
            self.status &= !FEATURES_OK;
        }
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            return Effect::Start(self.enabled.then_some(self.rings));
        }
        Effect::None
    }

    /// The fields of the queue can be set until it is enabled.
    fn set_queue(&mut self, offset: u64, width: Width, value: u64) -> Result<Effect, Fault> {
        if self.queue_select != 0 || self.enabled {
            return Ok(Effect::None);
        }
        let ring = match offset & !7 {
            0x20 => &mut self.rings.descriptors,
            0x28 => &mut self.rings.available,
            0x30 => &mut self.rings.used,
            _ => {
                match (offset, width) {
                    (0x18, Width::B2) => self.rings.size = half_word(value),
                    (0x1c, Width::B2) => self.enabled = value & 1 == 1,
                    _ => return Err(Fault::BadWidth),
                }
                return Ok(Effect::None);
            }
        };
        match (offset & 7, width) {
            (0, Width::B8) => *ring = value,
            (0, Width::B4) => *ring = *ring & !0xffff_ffff | u64::from(word(value)),
            (4, Width::B4) => *ring = *ring & 0xffff_ffff | u64::from(word(value)) << 32,
            _ => return Err(Fault::BadWidth),
        }
        Ok(Effect::None)
    }
}

/// The 32 bits of a feature set that a select register shows.
fn window(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}

fn word(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

fn half_word(value: u64) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}
