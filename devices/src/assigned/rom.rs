//! The expansion ROM: read once, then plain memory behind the ROM base address register.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trapline_io::{Fault, Region, Width};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::backend::Backend;
use super::function::Error;

/// The largest image taken; the PCI firmware specification allows no larger base address register.
const MAX: u64 = 16 << 20;
/// A memory slot has whole pages.
const PAGE: usize = 4096;
/// What an image starts with (PCI Firmware 3.3, section 5.1).
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Where the ROM comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The device's own.
    #[default]
    Device,
    /// This file.
    File(PathBuf),
    /// There is none.
    Off,
}

/// An image, filled with ones up to a power of two.
#[derive(Clone, Debug)]
pub(super) struct Rom(Arc<MmapRegion>);

impl Rom {
    /// Reads the image from where it comes. A device without a usable ROM has none; a file must be
    /// one.
    pub fn load(source: &Source, backend: &mut dyn Backend) -> Result<Option<Rom>, Error> {
        match source {
            Source::Off => Ok(None),
            Source::File(path) => from_file(path).map(Some),
            Source::Device => Ok(from_device(backend)),
        }
    }

    fn new(image: &[u8]) -> Option<Rom> {
        let size = image.len().max(PAGE).next_power_of_two();
        let memory = MmapRegion::new(size).ok()?;
        let bytes = memory.get_slice(0, size).ok()?;
        bytes.write_slice(image, 0).ok()?;
        bytes.write_slice(&vec![0xff; size - image.len()], image.len()).ok()?;
        Some(Rom(Arc::new(memory)))
    }

    /// Bytes; a power of two, at least a page.
    pub fn size(&self) -> u64 {
        self.0.size() as u64
    }

    pub fn memory(&self) -> &Arc<MmapRegion> {
        &self.0
    }

    pub fn read(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        let offset = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
        let (used, _) = bytes.split_at_mut(width.bytes());
        let source = self.0.get_slice(offset, used.len()).map_err(|_| Fault::NoRegister)?;
        source.read_slice(used, 0).map_err(|_| Fault::NoRegister)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn from_device(backend: &mut dyn Backend) -> Option<Rom> {
    let region = backend.region(Region::ROM);
    let size = region.size;
    if size == 0 || !region.readable {
        return None;
    }
    let mut image = vec![0xff; usize::try_from(size.min(MAX)).ok()?];
    let device = backend.name().to_owned();
    if backend.read_bytes(Region::ROM, 0, &mut image).is_err() {
        tracing::warn!(device, "its ROM cannot be read; the guest sees none (rom=FILE gives one)");
        return None;
    }
    if !image.starts_with(&SIGNATURE) {
        tracing::warn!(device, "its ROM does not start with 55 aa; the guest sees none (rom=FILE gives one)");
        return None;
    }
    Rom::new(&image)
}

fn from_file(path: &Path) -> Result<Rom, Error> {
    let failed = |source| Error::RomFile { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    let bad = |what| Error::RomImage { path: path.to_owned(), what };
    if size > MAX {
        return Err(bad("is larger than 16 MiB"));
    }
    let image = std::fs::read(path).map_err(failed)?;
    if !image.starts_with(&SIGNATURE) {
        return Err(bad("does not start with 55 aa: it is no expansion ROM"));
    }
    Rom::new(&image).ok_or(Error::OutOfMemory)
}
