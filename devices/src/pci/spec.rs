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
/// Class code: base class and subclass of a VGA compatible controller (PCI 3.0 appendix D).
pub const CLASS_VGA: u32 = 0x0300;
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
/// Where the header ends, and the first capability can be.
pub const FIRST_CAPABILITY: u16 = 0x40;
/// Interrupt Line, 8 bits.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt Pin, 8 bits: 0 none, 1 INTA#.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Type 1 header: primary, secondary and subordinate bus number, secondary latency timer.
pub const PRIMARY_BUS: u16 = 0x18;
/// Type 1 header: I/O base and limit, 8 bits each.
pub const IO_BASE: u16 = 0x1c;
/// Type 1 header: memory base and limit, 16 bits each.
pub const MEMORY_BASE: u16 = 0x20;
/// Type 1 header: prefetchable memory base and limit, 16 bits each.
pub const PREFETCHABLE_BASE: u16 = 0x24;
/// Type 1 header: upper half of the prefetchable base, then of the limit.
pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Type 1 header: expansion ROM.
pub const BRIDGE_ROM_BAR: u16 = 0x38;
/// Type 1 header: bridge control, 16 bits: [`BridgeControl`].
pub const BRIDGE_CONTROL: u16 = 0x3e;

/// Power management capability.
pub const CAP_POWER: u8 = 0x01;
/// Message signalled interrupts.
pub const CAP_MSI: u8 = 0x05;
/// Advanced features (ECN of 2006).
pub const CAP_ADVANCED: u8 = 0x13;
/// Power management capability: PMC, 16 bits, from the capability's start (PCI PM 1.2 section 3.2).
pub const PMC: u16 = 2;
/// Power management capability: PMCSR, 16 bits: [`PowerControl`].
pub const PMCSR: u16 = 4;
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

/// Power management control and status register (PCI PM 1.2 section 3.2.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PowerControl {
    /// 0 for D0 to 3 for D3hot.
    #[bits(2)]
    pub state: u8,
    _reserved: bool,
    /// Going from D3hot to D0 keeps the registers.
    pub no_soft_reset: bool,
    #[bits(4)]
    _reserved2: u8,
    /// PME# may be sent.
    pub pme_enable: bool,
    #[bits(6)]
    _data: u8,
    /// PME# is asserted; a one clears it.
    pub pme_status: bool,
}

/// Registers of the PCI Express capability, from its start, and their bits (PCI Express base
/// specification 5.0 section 7.5.3).
pub mod express {
    /// PCI Express Capabilities, 16 bits: version in 3:0, port type in 7:4, slot implemented 8.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device Capabilities, 32 bits.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device Capabilities: role-based error reporting, which every function since 1.1 has.
    pub const ROLE_BASED_ERRORS: u32 = 1 << 15;
    /// Device Capabilities: the function can be reset by [`FUNCTION_RESET`].
    pub const FUNCTION_RESET_CAPABLE: u32 = 1 << 28;
    /// Device Control, 16 bits.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Device Control: a write of one resets the function; reads as zero.
    pub const FUNCTION_RESET: u16 = 1 << 15;
    /// Device Status, 16 bits.
    pub const DEVICE_STATUS: u16 = 0x0a;
    /// Device Status: errors that a one clears.
    pub const DEVICE_ERRORS: u16 = 0xf;
    /// Link Capabilities, 32 bits: speed in 3:0, width in 9:4.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link Capabilities: Data Link Layer Link Active is reported.
    pub const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
    /// Link Control, 16 bits.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link Control: the link is off; only a downstream port has it.
    pub const LINK_DISABLE: u16 = 1 << 4;
    /// Link Status, 16 bits: speed in 3:0, width in 9:4.
    pub const LINK_STATUS: u16 = 0x12;
    /// Link Status: the reference clock is the slot's.
    pub const SLOT_CLOCK: u16 = 1 << 12;
    /// Link Status: the data link layer is up.
    pub const LINK_ACTIVE: u16 = 1 << 13;
    /// Root Control, 16 bits.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Root Status, 32 bits.
    pub const ROOT_STATUS: u16 = 0x20;
    /// Root Status: a PME arrived; a one clears it.
    pub const PME_STATUS: u32 = 1 << 16;
    /// Link Capabilities 2, 32 bits: supported speeds as a vector from bit 1 on.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link Control 2, 16 bits: target speed in 3:0.
    pub const LINK_CONTROL_2: u16 = 0x30;
    /// The length of the version 2 capability.
    pub const LENGTH: usize = 0x3c;
}
