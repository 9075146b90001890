//! The firmware configuration device: numbered items and named files that the guest's firmware
//! reads through ports, or has copied to its memory (QEMU's `docs/specs/fw_cfg.rst`).
//!
//! | port | what |
//! |---|---|
//! | 0x510 | selector, 16 bits, write only |
//! | 0x511 | data, 8 bits, read only: the next byte of the selected item, zero behind its end |
//! | 0x514-0x51b | address of a transfer, 64 bits, big-endian; the write of 0x518 starts it |
//!
//! The machine fills in its [`Items`] before the device is made. The device stays as the machine
//! made it over a reset, but for the selector and for what the guest wrote into writable files.

use std::sync::Arc;

use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};
use vm_memory::GuestMemoryMmap;

use super::isa;

mod dma;
mod items;
#[cfg(test)]
mod tests;

pub use items::{FileError, Items, MakeParts};

/// Numbers of the items that are not files, as the firmwares of PCs know them.
pub mod key {
    /// "QEMU": that this device is there.
    pub const SIGNATURE: u16 = 0x00;
    /// Features, 32 bits: bit 0 the ports, bit 1 transfers to memory.
    pub const FEATURES: u16 = 0x01;
    /// The machine's UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// RAM in bytes, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// 16 bits; other than zero: no screen, output goes to the serial line.
    pub const NO_GRAPHICS: u16 = 0x04;
    /// CPUs that start, 16 bits.
    pub const CPUS: u16 = 0x05;
    /// Where the kernel's protected-mode part is to go, 32 bits; size and data are its fellows.
    pub const KERNEL_ADDRESS: u16 = 0x07;
    /// See [`KERNEL_ADDRESS`].
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Where the initial RAM disk is to go, 32 bits.
    pub const INITRD_ADDRESS: u16 = 0x0a;
    /// See [`INITRD_ADDRESS`].
    pub const INITRD_SIZE: u16 = 0x0b;
    /// 16 bits: 1 has the firmware offer a boot menu.
    pub const BOOT_MENU: u16 = 0x0e;
    /// CPUs that can ever be, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// See [`KERNEL_ADDRESS`].
    pub const KERNEL_DATA: u16 = 0x11;
    /// See [`INITRD_ADDRESS`].
    pub const INITRD_DATA: u16 = 0x12;
    /// Where the kernel's command line is to go, 32 bits.
    pub const CMDLINE_ADDRESS: u16 = 0x13;
    /// See [`CMDLINE_ADDRESS`]; with the NUL that ends it.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// See [`CMDLINE_ADDRESS`].
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Where the kernel's real-mode part is to go, 32 bits.
    pub const SETUP_ADDRESS: u16 = 0x16;
    /// See [`SETUP_ADDRESS`].
    pub const SETUP_SIZE: u16 = 0x17;
    /// See [`SETUP_ADDRESS`].
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of files.
    pub const DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FIRST_FILE: u16 = 0x20;
    /// 32 bits; other than zero: the timer's interrupt reaches the I/O APIC at pin 2.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
const DMA_END: u64 = 12;

/// What a read of the transfer's address gives: that there are transfers.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// The selector's bit that once told writes from reads, and means nothing any more.
const WRITE_CHANNEL: u16 = 0x4000;

/// The device.
pub struct FwCfg {
    items: Items,
    memory: Arc<GuestMemoryMmap>,
    selected: u16,
    /// Of the next byte in the selected item.
    offset: u32,
    /// Upper half of the address of the next transfer.
    dma_high: u32,
}

impl std::fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FwCfg").field("items", &self.items).finish_non_exhaustive()
    }
}

impl FwCfg {
    /// A device that offers `items`; transfers go to and from `memory`, the guest's RAM.
    pub fn new(items: Items, memory: Arc<GuestMemoryMmap>) -> FwCfg {
        FwCfg { items, memory, selected: key::SIGNATURE, offset: 0, dma_high: 0 }
    }

    fn select(&mut self, key: u16) {
        self.selected = key & !WRITE_CHANNEL;
        self.offset = 0;
        self.items.prepare(self.selected);
    }

    fn next_byte(&mut self) -> u8 {
        let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let Some(&byte) = self.items.bytes(self.selected).get(at) else { return 0 };
        self.offset = self.offset.saturating_add(1);
        byte
    }
}

impl Device for FwCfg {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match (offset, width) {
            (DATA, Width::B1) => Ok(self.next_byte().into()),
            (DMA_HIGH..DMA_END, _) => Ok(isa::read(offset - DMA_HIGH, width, |at| {
                usize::try_from(at).ok().and_then(|at| DMA_SIGNATURE.get(at)).copied().unwrap_or(0xff)
            })),
            (SELECTOR | DATA, _) => Err(Fault::BadWidth),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let half = u32::try_from(value & 0xffff_ffff).unwrap_or(0).swap_bytes();
        match (offset, width) {
            (SELECTOR, Width::B2) => {
                self.select(u16::try_from(value & 0xffff).unwrap_or(0));
                Ok(())
            }
            (DMA_HIGH, Width::B4) => {
                self.dma_high = half;
                Ok(())
            }
            (DMA_LOW, Width::B4) => {
                let at = u64::from(self.dma_high) << 32 | u64::from(half);
                self.dma_high = 0;
                self.transfer(at)
            }
            (SELECTOR | DATA | DMA_HIGH..DMA_END, _) => Err(Fault::BadWidth),
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.selected = key::SIGNATURE;
        self.offset = 0;
        self.dma_high = 0;
        self.items.reset();
    }

    fn claims(&self) -> Claims {
        isa::claims(&[(0x510, 0x511, SELECTOR), (0x514, 0x51b, DMA_HIGH)])
    }
}
