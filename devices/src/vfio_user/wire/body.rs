//! The fixed parts of payloads, laid out as they are on the wire.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Long, Word};

/// Attributes of a device.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeviceFlags {
    /// `DEVICE_RESET` is understood.
    pub reset: bool,
    /// It is a PCI function.
    pub pci: bool,
    #[bits(30)]
    _reserved: u32,
}

/// Rights and properties of a region.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RegionFlags {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be mapped; a descriptor comes with the answer.
    pub mmap: bool,
    /// Capabilities follow.
    pub caps: bool,
    #[bits(28)]
    _reserved: u32,
}

/// Properties of an interrupt type.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqFlags {
    /// Can signal an eventfd.
    pub eventfd: bool,
    /// Can be masked.
    pub maskable: bool,
    /// Masks itself when it fires.
    pub automasked: bool,
    /// Is set up as a whole.
    pub noresize: bool,
    #[bits(28)]
    _reserved: u32,
}

/// What to do to interrupts, and what comes with the message.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqSetFlags {
    /// No data.
    pub none: bool,
    /// One byte for each interrupt.
    pub bools: bool,
    /// One eventfd for each interrupt.
    pub eventfds: bool,
    /// About masking.
    pub mask: bool,
    /// About unmasking.
    pub unmask: bool,
    /// About firing.
    pub trigger: bool,
    #[bits(26)]
    _reserved: u32,
}

/// What the device may do with mapped memory.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DmaFlags {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
    #[bits(30)]
    _reserved: u32,
}

/// `DEVICE_GET_INFO`, question and answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DeviceInfo {
    /// Bytes of the payload.
    pub argsz: Word,
    /// [`DeviceFlags`].
    pub flags: Word,
    /// How many regions; they are numbered from zero.
    pub regions: Word,
    /// How many interrupt types.
    pub irqs: Word,
}

/// `DEVICE_GET_REGION_INFO`, question and the fixed part of the answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RegionInfo {
    /// Bytes of the payload: most wanted, or needed.
    pub argsz: Word,
    /// [`RegionFlags`].
    pub flags: Word,
    /// Which region.
    pub index: Word,
    /// Where the first capability stands, from the start of this structure; 0 for none.
    pub cap_offset: Word,
    /// Bytes of the region.
    pub size: Long,
    /// What to add to an offset in the region for `mmap`.
    pub offset: Long,
}

/// `DEVICE_GET_IRQ_INFO`, question and answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct IrqInfo {
    /// Bytes of the payload.
    pub argsz: Word,
    /// [`IrqFlags`].
    pub flags: Word,
    /// Which type, numbered as VFIO does: 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request.
    pub index: Word,
    /// How many interrupts of the type.
    pub count: Word,
}

/// The fixed part of `DEVICE_SET_IRQS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct IrqSet {
    /// Bytes of the payload.
    pub argsz: Word,
    /// [`IrqSetFlags`].
    pub flags: Word,
    /// Which type.
    pub index: Word,
    /// The first interrupt of the type.
    pub start: Word,
    /// How many.
    pub count: Word,
}

/// `DMA_MAP`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DmaMap {
    /// Bytes of the payload.
    pub argsz: Word,
    /// [`DmaFlags`].
    pub flags: Word,
    /// Where in the descriptor that comes along, if one does.
    pub offset: Long,
    /// The first address as the device sees it.
    pub address: Long,
    /// Bytes.
    pub size: Long,
}

/// `DMA_UNMAP`, question and answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DmaUnmap {
    /// Bytes of the payload.
    pub argsz: Word,
    /// None are defined.
    pub flags: Word,
    /// The first address.
    pub address: Long,
    /// Bytes.
    pub size: Long,
}

/// The fixed part of `REGION_READ` and `REGION_WRITE`, questions and answers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RegionAccess {
    /// Byte offset in the region.
    pub offset: Long,
    /// Which region.
    pub region: Word,
    /// Bytes of data.
    pub count: Word,
}

/// The fixed part of `DMA_READ` and `DMA_WRITE`, questions and answers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DmaAccess {
    /// The first address as the device sees it.
    pub address: Long,
    /// Bytes of data.
    pub count: Long,
}
