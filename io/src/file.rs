//! A device that is a file: each region a part of it, an access one `pread` or `pwrite`.
//!
//! That is how the kernel's VFIO shows a function. The width of the transfer is the width of the
//! access, so the bus sees the cycle that the guest made.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;

use crate::device::{Claims, Device, Fault};
use crate::{Region, Width};

/// A region of a function as a part of a file.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The file. Shared, since the kernel may still work on it when its device is gone.
    pub fd: Arc<OwnedFd>,
    /// Where in the file the region begins, in bytes.
    pub offset: u64,
    /// How long the region is, in bytes.
    pub len: u64,
}

impl FileRegion {
    /// Where in the file `width` bytes at `offset` of the region lie, if they lie inside it.
    pub fn position(&self, offset: u64, width: Width) -> Option<u64> {
        let end = offset.checked_add(width.bytes() as u64)?;
        if end > self.len {
            return None;
        }
        self.offset.checked_add(offset)
    }
}

/// The first bytes of a value, as the bus carries them.
pub(crate) fn lanes(value: u64, width: Width) -> ([u8; 8], usize) {
    (value.to_le_bytes(), width.bytes())
}

/// A function whose regions are parts of files.
///
/// A transfer that is short or fails is [`Fault::Failed`]. An interrupted one is done again, unless
/// the device was told to give up; after some in a row that came to nothing then, no more are tried: each would
/// sleep until a signal of its own comes.
#[derive(Debug, Default)]
pub struct FileDevice {
    regions: Vec<Option<FileRegion>>,
    stopping: Arc<AtomicBool>,
    /// How many in a row were called off.
    called_off: u32,
}

/// After so many in a row that were called off no more are tried. One may have waited for a moment only, and behind each
/// that fails another one asks whether the device is still there.
const MOST_CALLED_OFF: u32 = 4;

impl FileDevice {
    /// A device without regions.
    pub fn new() -> FileDevice {
        FileDevice::default()
    }

    /// The same device with this region.
    #[must_use]
    pub fn with_region(mut self, region: Region, file: FileRegion) -> FileDevice {
        let index = usize::from(region.0);
        if self.regions.len() <= index {
            self.regions.resize_with(index + 1, || None);
        }
        if let Some(place) = self.regions.get_mut(index) {
            *place = Some(file);
        }
        self
    }

    /// Set by whoever stops the machine: from then on an interrupted transfer is not tried again,
    /// so that a signal gets a thread out of a device that does not answer.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    fn region(&self, region: Region) -> Option<&FileRegion> {
        find(&self.regions, region)
    }
}

fn find(regions: &[Option<FileRegion>], region: Region) -> Option<&FileRegion> {
    regions.get(usize::from(region.0))?.as_ref()
}

/// Where in which file a register is.
fn place(
    regions: &[Option<FileRegion>],
    region: Region,
    offset: u64,
    width: Width,
) -> Result<(&FileRegion, u64), Fault> {
    let file = find(regions, region).ok_or(Fault::NoRegister)?;
    Ok((file, file.position(offset, width).ok_or(Fault::NoRegister)?))
}

/// Repeats `transfer` while it is interrupted, unless `stopping`; it must move exactly `width`. Counts in `called_off`.
fn whole(
    width: Width,
    stopping: &AtomicBool,
    called_off: &mut u32,
    mut transfer: impl FnMut() -> Result<usize, Errno>,
) -> Result<(), Fault> {
    if *called_off >= MOST_CALLED_OFF {
        return Err(Fault::Failed);
    }
    loop {
        match transfer() {
            Ok(moved) if moved == width.bytes() => {
                *called_off = 0;
                return Ok(());
            }
            Err(Errno::INTR) if !stopping.load(Relaxed) => {}
            Err(Errno::INTR) => {
                *called_off += 1;
                return Err(Fault::Failed);
            }
            Ok(_) | Err(_) => return Err(Fault::Failed),
        }
    }
}

impl Device for FileDevice {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let (file, at) = place(&self.regions, region, offset, width)?;
        let mut bytes = [0; 8];
        let (lanes, _) = bytes.split_at_mut(width.bytes());
        let transfer = || rustix::io::pread(file.fd.as_fd(), &mut *lanes, at);
        whole(width, &self.stopping, &mut self.called_off, transfer)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let (file, at) = place(&self.regions, region, offset, width)?;
        let (bytes, len) = lanes(value, width);
        let (lanes, _) = bytes.split_at(len);
        let transfer = || rustix::io::pwrite(file.fd.as_fd(), lanes, at);
        whole(width, &self.stopping, &mut self.called_off, transfer)
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        self.region(region)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
