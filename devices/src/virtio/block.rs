//! A virtio disk in a raw image (section 5.2): read, write, flush and identify, several requests at a
//! time, on a worker's io_uring.
//!
//! What a guest may rely on. A request that is answered with "ok" was carried out whole: short
//! transfers are continued, everything else is an I/O error to the guest. A flush is answered when
//! all writes answered before it are on the medium. A guest that does not know flushes gets each
//! write answered only then. After a flush has failed nobody knows which writes are lost, so all
//! writes and flushes fail from then on. A reset of the device makes what is under way void; the
//! writes among it end before the next request begins, so that an old write cannot overtake a new one.

use std::sync::Arc;

use trapline_io::device::Claims;
use trapline_io::space::DwordSet;
use trapline_io::worker::Task;
use trapline_io::{Device, Fault, Region, Width};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
};
use vm_memory::GuestMemoryMmap;

use super::interrupt::Interrupt;
use super::pci::{Function, Kind};
use super::queue::{SIZE, SharedQueue};
use crate::host::IrqLine;

mod disk;
mod request;
mod serve;
#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskError};

/// Device type (section 5.2.1).
const BLOCK: u16 = 2;
/// PCI class: mass storage controller, SCSI.
const CLASS: u32 = 0x01_0000;
/// Bytes of a sector, and the unit of all offsets.
const SECTOR: u32 = 512;

/// The registers of the disk, an endpoint's device.
pub struct Block {
    function: Function,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").finish_non_exhaustive()
    }
}

impl Block {
    /// A function 1af4:1042 with `disk` behind it, and the task that does the disk's work, to be given
    /// to a worker. Requests reach `memory`, the guest's RAM; `irq` is the INTA# of the function.
    pub fn new(disk: Disk, memory: Arc<GuestMemoryMmap>, irq: Arc<dyn IrqLine>) -> (Block, Task) {
        let queue = Arc::new(SharedQueue::new(memory, Interrupt::new(irq)));
        let kind = Kind { number: BLOCK, class: CLASS, features: features(&disk), config: config(&disk) };
        let function = Function::new(kind, Arc::clone(&queue));
        (Block { function }, serve::task(disk, queue))
    }

    /// The dwords of configuration space whose writes change the map.
    pub fn topology(&self) -> DwordSet {
        Function::TOPOLOGY
    }
}

fn features(disk: &Disk) -> u64 {
    let read_only = u64::from(disk.is_read_only()) << VIRTIO_BLK_F_RO;
    1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH | read_only
}

/// The device configuration (section 5.2.4): capacity, most buffers of a request, sector size. There
/// is no geometry and no limit to a buffer's size; both read as zero, and so does what follows.
fn config(disk: &Disk) -> Vec<u8> {
    let mut config = vec![0; 0x40];
    // A request also has a header and a status.
    let most_buffers = u32::from(SIZE) - 2;
    config[0..8].copy_from_slice(&disk.sectors().to_le_bytes());
    config[12..16].copy_from_slice(&most_buffers.to_le_bytes());
    config[20..24].copy_from_slice(&SECTOR.to_le_bytes());
    config
}

impl Device for Block {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.function.read(region, offset, width)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.function.write(region, offset, width, value)
    }

    fn reset(&mut self) {
        self.function.reset();
    }

    fn claims(&self) -> Claims {
        self.function.claims()
    }
}
