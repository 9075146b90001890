//! A device that answers at once and does nothing, as any other behind the whole access path.
//!
//! It is a VGA compatible PCI function whose registers keep what is written, so that it can be asked what
//! mode it is in, and whose window swallows everything. Behind it there is no screen, no other process and
//! no system call, so what an access takes is what trapline and KVM take. BAR 2 alone is a file, in memory:
//! an access there is one `pread` or `pwrite`, as with the kernel's VFIO.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::{Irqs, Mapping, RegionInfo, Signalled};
use trapline_devices::legacy;
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::{Device, Fault, Region, Width};
use vm_memory::MmapRegion;

/// Bytes of BAR 0: memory that can be mapped.
const MEMORY: u64 = 1 << 20;
/// Bytes of BAR 2, the file, and of BAR 4, the MSI-X table.
const PAGE: u64 = 4096;
/// Where configuration space has the MSI-X capability, and where BAR 4 has the pending bits.
const MSIX: u8 = 0x40;
const PENDING: u32 = 0x800;

/// See the module's page.
pub struct Null {
    regions: Vec<RegionInfo>,
    config: [u8; 256],
    vga: Registers,
    file: FileDevice,
}

impl Null {
    /// A device as at power-on.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Null> {
        let size = usize::try_from(MEMORY).map_err(io::Error::other)?;
        let memory = Arc::new(MmapRegion::new(size).map_err(io::Error::other)?);
        let fd = memfd_create("bench", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, PAGE)?;
        let file = FileRegion { fd: Arc::new(fd), offset: 0, len: PAGE };
        let plain = |size| RegionInfo { size, readable: true, writable: true, mappings: Vec::new() };
        let region = |number| match Region(number) {
            Region::CONFIG => plain(256),
            Region::VGA => plain(legacy::WINDOW.1 + 1),
            region if region == Region::bar(0) => {
                RegionInfo { mappings: vec![Mapping::whole(0, Arc::clone(&memory))], ..plain(MEMORY) }
            }
            region if region == Region::bar(2) || region == Region::bar(4) => plain(PAGE),
            _ => RegionInfo::default(),
        };
        Ok(Null {
            regions: (0..=Region::VGA.0).map(region).collect(),
            config: config(),
            vga: Registers::default(),
            file: FileDevice::new().with_region(Region::bar(2), file),
        })
    }
}

/// Configuration space: a VGA compatible controller with MSI-X.
fn config() -> [u8; 256] {
    let mut config = [0; 256];
    let mut put = |at: u8, bytes: &[u8]| {
        for (place, byte) in config.iter_mut().skip(at.into()).zip(bytes) {
            *place = *byte;
        }
    };
    put(0x00, &[0x34, 0x12, 0x01, 0x00]);
    // Status: it has capabilities.
    put(0x06, &[0x10, 0x00]);
    put(0x08, &[0, 0, 0, 3]);
    // BAR 0 is prefetchable.
    put(0x10, &[8]);
    put(0x34, &[MSIX]);
    put(MSIX, &[0x11, 0, 0, 0]);
    // Table and pending bits are in BAR 4.
    put(MSIX + 4, &4_u32.to_le_bytes());
    put(MSIX + 8, &(PENDING | 4).to_le_bytes());
    config
}

/// The registers of a VGA, as far as they can be read back.
struct Registers {
    misc: u8,
    /// Sequencer, graphics controller, CRTC: the index, and what was written.
    indexed: [(u8, [u8; 256]); 3],
}

impl Default for Registers {
    fn default() -> Registers {
        Registers { misc: 0, indexed: [(0, [0; 256]); 3] }
    }
}

impl Registers {
    /// Which of the indexed ones a port belongs to, and whether it is the data port.
    fn place(&mut self, port: u64) -> Option<(&mut (u8, [u8; 256]), bool)> {
        let which = match port {
            0x3c4 | 0x3c5 => 0,
            0x3ce | 0x3cf => 1,
            0x3b4 | 0x3b5 | 0x3d4 | 0x3d5 => 2,
            _ => return None,
        };
        Some((self.indexed.get_mut(which)?, port & 1 != 0))
    }

    fn read(&mut self, port: u64) -> u8 {
        match (port, self.place(port)) {
            (0x3cc, _) => self.misc,
            (_, Some(((index, values), true))) => values.get(usize::from(*index)).copied().unwrap_or(0),
            (_, Some(((index, _), false))) => *index,
            _ => 0,
        }
    }

    fn write(&mut self, port: u64, value: u8) {
        match (port, self.place(port)) {
            (0x3c2, _) => self.misc = value,
            (_, Some(((index, values), true))) => {
                if let Some(register) = values.get_mut(usize::from(*index)) {
                    *register = value;
                }
            }
            (_, Some(((index, _), false))) => *index = value,
            _ => {}
        }
    }
}

impl Backend for Null {
    fn name(&self) -> &str {
        "the null device"
    }

    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }

    fn resettable(&self) -> bool {
        true
    }

    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::VGA if offset < legacy::WINDOW.0 => {
                let mut bytes = [0; 8];
                for (byte, port) in bytes.iter_mut().zip(offset..).take(width.bytes()) {
                    *byte = self.vga.read(port);
                }
                Ok(u64::from_le_bytes(bytes))
            }
            Region::CONFIG => {
                let mut bytes = [0; 8];
                self.read_bytes(region, offset, bytes.split_at_mut(width.bytes()).0)?;
                Ok(u64::from_le_bytes(bytes))
            }
            region if region == Region::bar(2) => self.file.read(region, offset, width),
            _ => Ok(0),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::VGA if offset < legacy::WINDOW.0 => {
                for (port, byte) in (offset..).zip(value.to_le_bytes()).take(width.bytes()) {
                    self.vga.write(port, byte);
                }
                Ok(())
            }
            region if region == Region::bar(2) => self.file.write(region, offset, width, value),
            _ => Ok(()),
        }
    }

    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        bytes.fill(0);
        if region == Region::CONFIG {
            let skipped = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
            for (place, byte) in bytes.iter_mut().zip(self.config.iter().skip(skipped)) {
                *place = *byte;
            }
        }
        Ok(())
    }

    fn write_bytes(&mut self, _: Region, _: u64, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        self.file.file(region)
    }

    fn reset(&mut self) -> Result<(), Fault> {
        self.vga = Registers::default();
        Ok(())
    }

    fn irqs(&self) -> Irqs {
        Irqs { msix: 1, ..Irqs::default() }
    }

    fn enable_vectors(&mut self, _: Signalled, _: u16, _: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        Ok(())
    }

    fn disable_vectors(&mut self, _: Signalled) -> Result<(), Fault> {
        Ok(())
    }
}
