//! The expansion ROM: read once, put right as [`crate::rom`] tells, then plain memory behind the ROM
//! base address register. What was found is one line; each thing in it that matters to the guest's BIOS is
//! one warning.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trapline_io::{Fault, Region, Width};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::backend::Backend;
use super::function::Error;
use crate::pci::spec::{self, Command};
use crate::rom::check::{self, About, Report, Severity};
use crate::rom::{self, CodeType, Finding, Ids, LARGEST, Repair, SIGNATURE};

/// A memory slot has whole pages.
const PAGE: usize = 4096;
/// Vendor and device of functions whose own ROM hangs a guest: Broadcom's BCM57810.
const BAD: [(u16, u16); 1] = [(0x14e4, 0x168e)];

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
pub(super) struct Rom {
    memory: Arc<MmapRegion>,
    /// Of the image, as it was put right.
    report: Report,
    /// Where it was read, if that is not the device.
    file: Option<PathBuf>,
}

impl Rom {
    /// Reads the image from where it comes. A device without a usable ROM has none; a file must be
    /// one.
    pub fn load(source: &Source, backend: &mut dyn Backend) -> Result<Option<Rom>, Error> {
        match source {
            Source::Off => Ok(None),
            Source::File(path) => from_file(path, backend).map(Some),
            Source::Device => Ok(from_device(backend)),
        }
    }

    fn new(image: &[u8], report: Report, file: Option<&Path>) -> Option<Rom> {
        let size = image.len().max(PAGE).next_power_of_two();
        let memory = MmapRegion::new(size).ok()?;
        let bytes = memory.get_slice(0, size).ok()?;
        bytes.write_slice(image, 0).ok()?;
        bytes.write_slice(&vec![0xff; size - image.len()], image.len()).ok()?;
        Some(Rom { memory: Arc::new(memory), report, file: file.map(Path::to_owned) })
    }

    /// Bytes; a power of two, at least a page.
    pub fn size(&self) -> u64 {
        self.memory.size() as u64
    }

    pub fn memory(&self) -> &Arc<MmapRegion> {
        &self.memory
    }

    /// What it holds.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Where it comes from, what it is and what becomes of it, in one line.
    pub fn found(&self) -> String {
        match &self.file {
            Some(path) => format!("the file {}: {}", path.display(), self.report),
            None => self.report.to_string(),
        }
    }

    pub fn read(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        let offset = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
        let (used, _) = bytes.split_at_mut(width.bytes());
        let source = self.memory.get_slice(offset, used.len()).map_err(|_| Fault::NoRegister)?;
        source.read_slice(used, 0).map_err(|_| Fault::NoRegister)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The device's own image. The kernel gives it only while the device decodes memory, so that it does
/// for as long as this takes.
fn from_device(backend: &mut dyn Backend) -> Option<Rom> {
    let region = backend.region(Region::ROM);
    let size = region.size;
    if size == 0 || !region.readable {
        return None;
    }
    let device = backend.name().to_owned();
    let ids = ids(backend);
    if ids.is_some_and(|ids| BAD.contains(&(ids.vendor, ids.device))) {
        tracing::warn!(device, "its ROM is known to hang guests; the guest sees none (rom=FILE gives one)");
        return None;
    }
    let mut image = vec![0xff; usize::try_from(size.min(LARGEST)).ok()?];
    let offset = spec::COMMAND.into();
    let command = backend.read(Region::CONFIG, offset, Width::B2).unwrap_or(0);
    let memory = u64::from(Command::new().with_memory(true).into_bits());
    // A device that takes no write does not give its ROM either, and says so at once.
    let _ = backend.write(Region::CONFIG, offset, Width::B2, command | memory);
    let read = backend.read_bytes(Region::ROM, 0, &mut image);
    let _ = backend.write(Region::CONFIG, offset, Width::B2, command);
    if read.is_err() {
        tracing::warn!(device, "its ROM cannot be read; the guest sees none (rom=FILE gives one)");
        return None;
    }
    if !image.starts_with(&SIGNATURE) {
        tracing::warn!(device, "its ROM does not start with 55 aa; the guest sees none (rom=FILE gives one)");
        return None;
    }
    let (report, said) = put_right(&mut image, ids, Repair::All);
    for text in said {
        tracing::warn!(device, "its ROM: {text} (rom=FILE gives another)");
    }
    Rom::new(&image, report, None)
}

/// The image in a file: as it is, except for the ids, without which no firmware would run it.
fn from_file(path: &Path, backend: &mut dyn Backend) -> Result<Rom, Error> {
    let failed = |source| Error::RomFile { path: path.to_owned(), source };
    let bad = |what| Error::RomImage { path: path.to_owned(), what };
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(bad("is no regular file"));
    }
    let file = File::open(path).map_err(failed)?;
    let mut image = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut image).map_err(failed)?;
    if image.len() as u64 > LARGEST {
        return Err(bad("is larger than 16 MiB"));
    }
    if !image.starts_with(&SIGNATURE) {
        return Err(bad(match rom::first_image(&image) {
            Some(_) => "has other data before its first image: trapline rom fix cuts it off",
            None => {
                "does not start with 55 aa: it is no expansion ROM; give one read from the card, or rom=off"
            }
        }));
    }
    let (report, said) = put_right(&mut image, ids(backend), Repair::Id);
    for text in said {
        tracing::warn!(device = backend.name(), "the ROM file {}: {text}", path.display());
    }
    Rom::new(&image, report, Some(path)).ok_or(Error::OutOfMemory)
}

/// Makes an image one for this function, where that can be done. What is to be said of it then, and which of it
/// matters to the guest's BIOS.
fn put_right(image: &mut [u8], ids: Option<Ids>, what: Repair) -> (Report, Vec<String>) {
    let repaired = ids.map(|ids| rom::repair(image, ids, what)).unwrap_or_default().into_iter();
    let changed =
        |finding: &Finding| matches!(finding, Finding::IdChanged { .. } | Finding::ChecksumChanged { .. });
    let mut said: Vec<String> = repaired.filter(changed).map(|finding| finding.to_string()).collect();
    let report = check::check(image, About { ids, shadow: false });
    let others = report.parts.iter().filter(|part| part.image.code != CodeType::Bios);
    let others: Vec<usize> = others.map(|part| part.image.offset).collect();
    let matters = report.remarks.iter().filter(|remark| remark.severity >= Severity::Warning);
    let matters = matters.filter(|remark| remark.image.is_none_or(|image| !others.contains(&image)));
    said.extend(matters.map(|remark| remark.text.clone()));
    (report, said)
}

/// The device's ids, if it answers.
fn ids(backend: &mut dyn Backend) -> Option<Ids> {
    let mut word = |offset: u16| {
        let value = backend.read(Region::CONFIG, offset.into(), Width::B2).ok()?;
        u16::try_from(value).ok()
    };
    Some(Ids { vendor: word(spec::VENDOR_ID)?, device: word(spec::DEVICE_ID)? })
}

#[cfg(test)]
mod tests;
