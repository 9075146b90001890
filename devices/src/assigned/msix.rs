//! MSI-X (PCI 3.0 section 6.8.2): the capability, and the table and pending bits as overlays of the
//! BAR that the device has them in.

use trapline_io::{Fault, Region, Width};

use super::config::Config;
use super::registers::{CLASSIC, Registers};
use super::wire::Wire;
use crate::host::Message;
use crate::pci::{BarKind, ConfigSpace, spec};

/// The table and the pending bits as regions of the function.
pub(super) const TABLE: Region = Region(0xf1);
pub(super) const PENDING: Region = Region(0xf2);

/// Registers of the capability, from its start: Message Control and its bits, table, pending bits.
const CONTROL: u16 = 2;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const TABLE_AT: u16 = 4;
const PENDING_AT: u16 = 8;
const LEN: u16 = 12;
/// Bytes of a table entry, and the bit of its last dword that masks it.
const ENTRY: u64 = 16;
const MASKED: u32 = 1;

/// A part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// Which BAR.
    pub bar: u8,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub len: u64,
}

impl Area {
    /// The area that a register of the capability tells of: the BAR in bits 2:0.
    fn of(register: u32, len: u64) -> Area {
        Area { bar: (register & 7) as u8, offset: (register & !7).into(), len }
    }

    fn overlaps(self, other: Area) -> bool {
        let (end, other_end) = (self.offset + self.len, other.offset + other.len);
        self.bar == other.bar && self.offset < other_end && other.offset < end
    }

    /// Whether it lies inside a memory BAR whose region in the device is that long.
    fn is_inside(self, space: &ConfigSpace, sizes: &[u64; 6]) -> bool {
        let memory = space.bar(self.bar).is_some_and(|bar| bar.kind != BarKind::Io);
        let size = sizes.get(usize::from(self.bar)).copied().unwrap_or(0);
        memory && self.offset + self.len <= size
    }
}

/// One vector: its entry of the table, and what connects it.
#[derive(Debug)]
pub(super) struct Entry {
    address: u64,
    data: u32,
    control: u32,
    /// There while the device's interrupt is connected.
    pub wire: Option<Wire>,
}

/// An entry as it is after a reset, connected to nothing.
const INITIAL: Entry = Entry { address: 0, data: 0, control: MASKED, wire: None };

/// See the module's page.
#[derive(Debug)]
pub(super) struct Msix {
    at: u16,
    pub table: Area,
    pub pending: Area,
    /// As many as the guest is offered.
    pub entries: Box<[Entry]>,
}

impl Msix {
    /// Keeps the device's capability at `at` from the guest, which neither sees nor reaches it.
    pub fn hide(config: &mut Config, at: u16) {
        config.keep(at, LEN.min(CLASSIC - at));
    }

    /// Shows the device's capability at `at` with no more than `vectors` vectors.
    ///
    /// # Errors
    /// In words, why the capability is hidden.
    pub fn add(
        config: &mut Config,
        device: &Registers,
        at: u16,
        vectors: u16,
        sizes: &[u64; 6],
    ) -> Result<Msix, &'static str> {
        Msix::hide(config, at);
        if at + LEN > CLASSIC {
            return Err("its capability goes past the end of configuration space");
        }
        let size = (device.word(at + CONTROL) & 0x7ff) + 1;
        let table = Area::of(device.dword(at + TABLE_AT), u64::from(size) * ENTRY);
        let pending = Area::of(device.dword(at + PENDING_AT), u64::from(size).div_ceil(64) * 8);
        let offered = size.min(vectors);
        match () {
            () if offered == 0 => return Err("it cannot be told to signal any"),
            () if !table.is_inside(config.space(), sizes) => return Err("its table is in no memory BAR"),
            () if !pending.is_inside(config.space(), sizes) => {
                return Err("its pending bits are in no memory BAR");
            }
            () if table.overlaps(pending) => return Err("its pending bits lie on its table"),
            () => {}
        }
        config.link(at, spec::CAP_MSIX);
        let space = config.space_mut();
        space.preset(at + CONTROL, Width::B2, (offered - 1).into());
        space.allow(at + CONTROL, Width::B2, (ENABLE | FUNCTION_MASK).into());
        space.preset(at + TABLE_AT, Width::B4, device.dword(at + TABLE_AT));
        space.preset(at + PENDING_AT, Width::B4, device.dword(at + PENDING_AT));
        let entries = (0..offered).map(|_| INITIAL).collect();
        Ok(Msix { at, table, pending, entries })
    }

    /// Whether a register of the capability lies in the dword at `at`.
    pub fn holds(&self, at: u16) -> bool {
        at & !3 == self.at
    }

    /// Whether the guest has enabled it.
    pub fn enabled(&self, space: &ConfigSpace) -> bool {
        space.word(self.at + CONTROL) & ENABLE != 0
    }

    /// Whether the guest masks all vectors at once.
    pub fn masked(&self, space: &ConfigSpace) -> bool {
        space.word(self.at + CONTROL) & FUNCTION_MASK != 0
    }

    /// What vector `index` is to deliver, unless its entry masks it.
    pub fn message(&self, index: usize) -> Option<Message> {
        let entry = self.entries.get(index).filter(|entry| entry.control & MASKED == 0)?;
        Some(Message { address: entry.address & !3, data: entry.data })
    }

    /// Disconnects every vector; the entries stay.
    pub fn disconnect(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.wire = None);
    }

    /// Back to power-on, for a function whose vectors are disconnected.
    pub fn reset(&mut self) {
        self.entries.fill_with(|| INITIAL);
    }

    /// Reads the table, 4 or 8 bytes at a multiple of that.
    pub fn read_table(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let entry = self.entries.get(entry_of(offset, width)?).ok_or(Fault::NoRegister)?;
        let (low, high) = match offset % ENTRY / 8 {
            0 => (entry.address & 0xffff_ffff, entry.address >> 32),
            _ => (entry.data.into(), entry.control.into()),
        };
        match (width, offset % 8) {
            (Width::B8, _) => Ok(high << 32 | low),
            (_, 0) => Ok(low),
            _ => Ok(high),
        }
    }

    /// Writes the table, 4 or 8 bytes at a multiple of that, and gives the number of the entry.
    pub fn write_table(&mut self, offset: u64, width: Width, value: u64) -> Result<usize, Fault> {
        let index = entry_of(offset, width)?;
        let entry = self.entries.get_mut(index).ok_or(Fault::NoRegister)?;
        let dwords = [(value & 0xffff_ffff) as u32, (value >> 32) as u32];
        let first = offset % ENTRY / 4;
        for (register, dword) in (first..).zip(dwords).take(width.bytes() / 4) {
            match register {
                0 => entry.address = entry.address >> 32 << 32 | u64::from(dword),
                1 => entry.address = entry.address & 0xffff_ffff | u64::from(dword) << 32,
                2 => entry.data = dword,
                _ => entry.control = dword & MASKED,
            }
        }
        Ok(index)
    }

    /// Reads pending bits, in any width.
    pub fn read_pending(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let end = offset.checked_add(width.bytes() as u64).filter(|end| *end <= self.pending.len);
        let first = end.and_then(|_| usize::try_from(offset * 8).ok()).ok_or(Fault::NoRegister)?;
        let entries = self.entries.iter().skip(first).take(8 * width.bytes()).enumerate();
        let pending = entries.filter(|(_, entry)| entry.wire.as_ref().is_some_and(Wire::pending));
        Ok(pending.fold(0, |bits, (place, _)| bits | 1 << place))
    }
}

/// The entry that an access to the table is about; only dwords and quadwords are defined.
fn entry_of(offset: u64, width: Width) -> Result<usize, Fault> {
    if width.bytes() < 4 || !offset.is_multiple_of(width.bytes() as u64) {
        return Err(Fault::BadWidth);
    }
    usize::try_from(offset / ENTRY).map_err(|_| Fault::NoRegister)
}
