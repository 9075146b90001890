//! A virtio device as a PCI function (section 4.1): one memory BAR with all structures on pages of
//! their own, capabilities that point to them, and a window to the BAR in configuration space for
//! firmware that cannot reach the BAR.

use std::sync::Arc;

use trapline_io::device::{Claim, Claims, Range, Signal};
use trapline_io::space::DwordSet;
use trapline_io::{Device, Fault, Gpa, Region, Span, Width};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::queue::SharedQueue;
use crate::pci::{Bar, BarKind, ConfigSpace, Identity, Pin, spec};
use common::{Common, Effect};

mod common;
#[cfg(test)]
mod tests;

/// The BAR with the structures.
const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x4000;

/// Offsets of the structures in the BAR.
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const PAGE: u64 = 0x1000;

/// Bytes of the notify structure: one register.
const NOTIFY_LENGTH: u32 = 4;

/// Types of structures (section 4.1.4).
mod structure {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI_CONFIG: u8 = 5;
}

/// Vendor of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// The device ID is this and the number of the device type.
const MODERN: u16 = 0x1040;

/// What kind of device it is.
pub(super) struct Kind {
    /// The number of the device type (section 5).
    pub(super) number: u16,
    /// PCI class code.
    pub(super) class: u32,
    /// Features of the type; those of the queue are added.
    pub(super) features: u64,
    /// The device configuration, read only.
    pub(super) config: Vec<u8>,
}

/// The function: configuration space and registers, in front of a queue.
pub(super) struct Function {
    config: ConfigSpace,
    common: Common,
    offered: u64,
    device: Vec<u8>,
    queue: Arc<SharedQueue>,
    /// Offset in configuration space of the capability that is a window to the BAR.
    window: u16,
}

impl Function {
    pub(super) fn new(kind: Kind, queue: Arc<SharedQueue>) -> Function {
        let id = Identity {
            vendor: VENDOR,
            device: MODERN + kind.number,
            revision: 1,
            class: kind.class,
            subsystem: (VENDOR, 0x1100),
        };
        let mut config = ConfigSpace::new(id);
        config.add_bar(BAR, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: BAR_SIZE });
        config.set_pin(Pin::A);
        let mut add = |cap: &Capability| config.add_capability(spec::CAP_VENDOR, &cap.body(), cap.writable);
        let device_length = u32::try_from(kind.config.len()).unwrap_or(u32::MAX);
        let plain =
            |structure, offset, length| Capability { structure, offset, length, extra: &[], writable: &[] };
        add(&plain(structure::COMMON, COMMON, common::LENGTH));
        // One queue: the notify offset is multiplied for nothing, but a driver wants a multiplier.
        add(&Capability { extra: &[4, 0, 0, 0], ..plain(structure::NOTIFY, NOTIFY, NOTIFY_LENGTH) });
        add(&plain(structure::ISR, ISR, 1));
        add(&plain(structure::DEVICE, DEVICE, device_length));
        let window = add(&Capability {
            structure: structure::PCI_CONFIG,
            offset: 0,
            length: 0,
            extra: &[0; 4],
            writable: &WINDOW_WRITABLE,
        });
        let queue_features =
            1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;
        let offered = kind.features | queue_features;
        Function {
            config,
            common: Common::new(offered),
            offered,
            device: kind.config,
            queue,
            window: window.expect("five capabilities of 20 bytes fit into 192"),
        }
    }

    /// The dwords of configuration space whose writes change the map.
    pub(super) const TOPOLOGY: DwordSet = ConfigSpace::TOPOLOGY;

    fn read_bar(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        let inside = offset % PAGE;
        match offset - inside {
            COMMON => self.common.read(inside, width, self.queue.is_broken()),
            ISR if inside == 0 => Ok(self.queue.interrupt.acknowledge().into()),
            DEVICE => {
                let from = usize::try_from(inside).map_err(|_| Fault::NoRegister)?;
                let bytes = self.device.get(from..from + width.bytes()).ok_or(Fault::NoRegister)?;
                Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn write_bar(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let inside = offset % PAGE;
        match offset - inside {
            COMMON => {
                match self.common.write(inside, width, value)? {
                    Effect::None => {}
                    Effect::Reset => self.reset_device(),
                    Effect::Start(rings) => {
                        if let Some(rings) = rings {
                            self.queue.start(rings, self.common.accepted);
                        }
                    }
                }
                Ok(())
            }
            NOTIFY if inside == 0 => {
                self.queue.kick();
                Ok(())
            }
            // The configuration is read only.
            DEVICE => Ok(()),
            _ => Err(Fault::NoRegister),
        }
    }

    /// The notify register in the BAR at `bar`, whose writes need not exit: a kick carries no value.
    fn doorbell(&self, bar: Range) -> Option<Claim> {
        let Range::Memory(bar) = bar else { return None };
        let register = Span::of_len(Gpa(bar.first().0.checked_add(NOTIFY)?), NOTIFY_LENGTH.into())?;
        let signal = Signal { event: Arc::clone(self.queue.doorbell()?), value: None };
        Some(Claim::region(Range::Memory(register), Region::bar(BAR), NOTIFY).signal(signal))
    }

    fn reset_device(&mut self) {
        self.common = Common::new(self.offered);
        self.queue.reset();
    }

    /// Where the window in configuration space points to: offset in the BAR and width.
    fn window_target(&self) -> Option<(u64, Width)> {
        let bar = self.config.read(self.window + 4, Width::B1);
        let offset = u64::from(self.config.read(self.window + 8, Width::B4));
        let length = self.config.read(self.window + 12, Width::B4);
        let width = Width::of(usize::try_from(length).ok()?).filter(|width| *width != Width::B8)?;
        let fits = offset < BAR_SIZE && offset.is_multiple_of(length.into());
        (bar == u32::from(BAR) && fits).then_some((offset, width))
    }

    /// Whether an access touches the data of the window.
    fn is_window_data(&self, offset: u16) -> bool {
        (self.window + 16..self.window + 20).contains(&offset)
    }

    fn read_config(&mut self, offset: u16, width: Width) -> u32 {
        if self.is_window_data(offset)
            && let Some((at, width)) = self.window_target()
        {
            let value = self.read_bar(at, width).unwrap_or(width.all_ones());
            self.config.set(self.window + 16, Width::B4, u32::try_from(value).unwrap_or(u32::MAX));
        }
        let pending = u32::from(spec::STATUS_INTERRUPT) * u32::from(self.queue.interrupt.is_pending());
        let status = self.config.read(spec::STATUS, Width::B2) & !u32::from(spec::STATUS_INTERRUPT);
        self.config.set(spec::STATUS, Width::B2, status | pending);
        self.config.read(offset, width)
    }

    fn write_config(&mut self, offset: u16, width: Width, value: u32) -> Result<(), Fault> {
        self.config.write(offset, width, value);
        let command = self.config.command();
        self.queue.interrupt.set_disabled(command.interrupt_disable());
        self.queue.set_master(command.bus_master());
        if self.is_window_data(offset)
            && let Some((at, width)) = self.window_target()
        {
            let data = u64::from(self.config.read(self.window + 16, Width::B4));
            return self.write_bar(at, width, data & width.all_ones());
        }
        Ok(())
    }
}

/// Of the window's capability the guest writes BAR, offset, length and data.
const WINDOW_WRITABLE: [u8; 18] = {
    let mut mask = [0xff; 18];
    // Length of the capability, type, id and padding.
    (mask[0], mask[1], mask[3], mask[4], mask[5]) = (0, 0, 0, 0, 0);
    mask
};

/// A capability that points to a structure.
struct Capability<'a> {
    structure: u8,
    offset: u64,
    length: u32,
    extra: &'a [u8],
    writable: &'a [u8],
}

impl Capability<'_> {
    /// What follows the id and the pointer.
    fn body(&self) -> Vec<u8> {
        let length = 16 + self.extra.len();
        let mut body = vec![u8::try_from(length).unwrap_or(u8::MAX), self.structure, BAR, 0, 0, 0];
        body.extend(u32::try_from(self.offset).unwrap_or(u32::MAX).to_le_bytes());
        body.extend(self.length.to_le_bytes());
        body.extend(self.extra);
        body
    }
}

impl Device for Function {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => {
                let offset = u16::try_from(offset).map_err(|_| Fault::NoRegister)?;
                Ok(self.read_config(offset, width).into())
            }
            Region(BAR) => self.read_bar(offset, width),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => {
                let offset = u16::try_from(offset).map_err(|_| Fault::NoRegister)?;
                self.write_config(offset, width, u32::try_from(value & 0xffff_ffff).unwrap_or(0))
            }
            Region(BAR) => self.write_bar(offset, width, value),
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.queue.set_master(false);
        self.queue.interrupt.set_disabled(false);
        self.reset_device();
    }

    fn claims(&self) -> Claims {
        let Some(range) = self.config.decoded(BAR) else { return Claims::default() };
        let bar = Claim::region(range, Region::bar(BAR), 0);
        Claims { ranges: self.doorbell(range).into_iter().chain([bar]).collect(), bridge: None }
    }
}
