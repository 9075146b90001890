//! Offsets and bits of configuration space (PCI 3.0 chapter 6, PCI-to-PCI Bridge 1.2 chapter 3).

use bitfield_struct::bitfield;

/// Vendor ID, 16 bits.
pub const VENDOR_ID: u16 = 0x00;
/// Device ID, 16 bits.
pub const DEVICE_ID: u16 = 0x02;
/// Command, 16 bits: [`Command`].
pub const COMMAND: u16 = 0x04;
/// Status, 16 bits.
pub const STATUS: u16 = 0x06;
/// Status: a capability list is present.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Status: the function pulls its interrupt line.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Revision ID, 8 bits; the class code follows in three bytes.
pub const REVISION_ID: u16 = 0x08;
/// Cache Line Size, 8 bits.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Header Type, 8 bits; bit 7 says that the device has several functions.
pub const HEADER_TYPE: u16 = 0x0e;
/// Header Type: several functions.
pub const MULTIFUNCTION: u8 = 0x80;
/// The first base address register.
pub const BAR0: u16 = 0x10;
/// Subsystem Vendor ID of a type 0 header.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID of a type 0 header.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Expansion ROM base address of a type 0 header.
pub const ROM_BAR: u16 = 0x30;
/// Capabilities Pointer, 8 bits.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt Line, 8 bits.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt Pin, 8 bits: 0 none, 1 INTA#.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Type 1 header: primary, secondary and subordinate bus number, secondary latency timer.
pub const PRIMARY_BUS: u16 = 0x18;
/// Type 1 header: I/O base and limit, 8 bits each.
pub const IO_BASE: u16 = 0x1c;
/// Type 1 header: secondary status.
pub const SECONDARY_STATUS: u16 = 0x1e;
/// Type 1 header: memory base and limit, 16 bits each.
pub const MEMORY_BASE: u16 = 0x20;
/// Type 1 header: prefetchable memory base and limit, 16 bits each.
pub const PREFETCHABLE_BASE: u16 = 0x24;
/// Type 1 header: upper half of the prefetchable base, then of the limit.
pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Type 1 header: upper 16 bits of I/O base and limit.
pub const IO_BASE_UPPER: u16 = 0x30;
/// Type 1 header: expansion ROM.
pub const BRIDGE_ROM_BAR: u16 = 0x38;
/// Type 1 header: bridge control, 16 bits: [`BridgeControl`].
pub const BRIDGE_CONTROL: u16 = 0x3e;

/// Power management capability.
pub const CAP_POWER: u8 = 0x01;
/// Message signalled interrupts.
pub const CAP_MSI: u8 = 0x05;
/// Vendor specific capability.
pub const CAP_VENDOR: u8 = 0x09;
/// PCI Express capability.
pub const CAP_EXPRESS: u8 = 0x10;
/// MSI-X.
pub const CAP_MSIX: u8 = 0x11;

/// Command register (PCI 3.0 section 6.2.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// I/O BARs and legacy ports decode.
    pub io: bool,
    /// Memory BARs, ROM and legacy windows decode.
    pub memory: bool,
    /// May master the bus.
    pub bus_master: bool,
    /// Special cycles.
    pub special: bool,
    /// Memory write and invalidate.
    pub invalidate: bool,
    /// VGA palette snoop.
    pub palette_snoop: bool,
    /// Parity error response.
    pub parity: bool,
    _reserved: bool,
    /// SERR# enable.
    pub serr: bool,
    /// Fast back-to-back.
    pub fast_b2b: bool,
    /// INTx is kept off.
    pub interrupt_disable: bool,
    #[bits(5)]
    _reserved2: u8,
}

/// Bridge control register (PCI-to-PCI Bridge 1.2 section 3.2.5.18).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct BridgeControl {
    /// Parity error response.
    pub parity: bool,
    /// SERR# enable.
    pub serr: bool,
    /// ISA enable.
    pub isa: bool,
    /// VGA Enable: legacy VGA goes downstream.
    pub vga: bool,
    /// VGA 16-bit decode.
    pub vga_16bit: bool,
    /// Master abort mode.
    pub master_abort: bool,
    /// Secondary bus reset.
    pub reset: bool,
    #[bits(9)]
    _rest: u16,
}
