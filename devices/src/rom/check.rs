//! What there is to know of a ROM before a guest boots on it: its images, what is wrong with them, and
//! what that means for the firmware that is to run them.
//!
//! ```
//! use trapline_devices::rom::check::{self, About, Firmware};
//! let report = check::check(&[0xff; 512], About::default());
//! assert_eq!(report.verdict(Firmware::Bios).unwrap_err(), report.remarks[0].text);
//! assert_eq!(report.remarks[0].code, "blank");
//! ```

mod remark;
#[cfg(test)]
mod tests;

use std::fmt;

pub use remark::{Remark, Severity};

use super::amd::{self, Atom};
use super::compare::Comparison;
use super::efi::{self, Efi};
use super::image::{self, CodeType, Image};
use super::nvidia::{self, Nvidia};
use super::{Ids, SIGNATURE};

/// NVIDIA's Vendor ID.
const NVIDIA: u16 = 0x10de;
/// AMD's, and ATI's before it.
const AMD: u16 = 0x1002;
/// The most images that a summary names.
const NAMED_MOST: usize = 4;

/// What is known of a ROM besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The function that it is to be for.
    pub ids: Option<Ids>,
    /// It was read where the host keeps the copy that its firmware has run ([`shadow`](super::shadow)).
    pub shadow: bool,
}

/// Who is to run an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// A BIOS, such as SeaBIOS.
    Bios,
    /// UEFI on x64, such as OVMF.
    Uefi,
}

/// What a file with a ROM holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the file.
    pub size: usize,
    /// Where in it the ROM starts. What is said of images counts from there.
    pub start: usize,
    /// The images, in their order.
    pub parts: Vec<Part>,
    /// What is to be said, the first image's first.
    pub remarks: Vec<Remark>,
}

/// One image and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its headers.
    pub image: Image,
    /// What a BIOS adds up, see [`Image::checksum`].
    pub checksum: Option<u8>,
    /// Its header for UEFI.
    pub efi: Option<Efi>,
    /// Its vendor's tables.
    pub tables: Option<Tables>,
    /// Whether firmware comes to it: no image before says that it is the last.
    pub reached: bool,
}

/// Tables that drivers of a vendor read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// NVIDIA's.
    Nvidia(Nvidia),
    /// AMD's.
    Amd(Atom),
}

/// Reads `file`: a ROM, or what has one in it. Any bytes are taken, in a time that grows with their number.
pub fn check(file: &[u8], about: About) -> Report {
    let start = if file.starts_with(&SIGNATURE) { Some(0) } else { image::first_image(file) };
    let Some((start, rom)) = start.and_then(|start| Some((start, file.get(start..)?))) else {
        return Report { size: file.len(), start: 0, parts: Vec::new(), remarks: vec![remark::no_rom(file)] };
    };
    let chain = image::chain(rom);
    let mut reached = true;
    let mut parts = Vec::new();
    for image in chain.images {
        let last = image.pcir_last;
        let here = reached && !image.own;
        parts.push(part(rom, image, here));
        reached &= !last;
    }
    let remarks = remark::remarks(&file[..start], rom, &parts, about);
    Report { size: file.len(), start, parts, remarks }
}

fn part(rom: &[u8], image: Image, reached: bool) -> Part {
    let tables = match (image.code, image.vendor) {
        (CodeType::Bios, NVIDIA) => nvidia::read(rom, &image).map(Tables::Nvidia),
        (CodeType::Bios, AMD) => amd::read(rom, &image).map(Tables::Amd),
        _ => None,
    };
    Part { checksum: image.checksum(rom), efi: efi::read(rom, &image), tables, image, reached }
}

impl Report {
    /// The offset of the image that `firmware` runs.
    ///
    /// # Errors
    /// What is in the way of that, as a sentence without its full stop.
    pub fn verdict(&self, firmware: Firmware) -> Result<usize, String> {
        let code = firmware.code();
        let mine = self.parts.iter().filter(|part| part.image.code == code && part.reached);
        let mut mine = mine.map(|part| part.image.offset);
        let first = mine.clone().next();
        // Firmware passes over the images of other functions.
        let foreign = |at: usize| self.stopping(Some(at)).any(Remark::is_of_another);
        let chosen = mine.find(|at| !foreign(*at)).or(first);
        let stopped = self.stopping(None).next().or_else(|| self.stopping(Some(chosen?)).next());
        match (stopped, chosen) {
            (Some(remark), _) => Err(remark.text.clone()),
            (None, Some(at)) => Ok(at),
            (None, None) => Err(format!("there is no image for {firmware} in it")),
        }
    }

    /// Adds what a comparison with an untouched image has shown.
    pub fn compared(&mut self, comparison: &Comparison) {
        self.remarks.push(comparison.into());
    }

    /// What is to be said of all of it, or of the image at this offset, and keeps firmware from running it.
    fn stopping(&self, image: Option<usize>) -> impl Iterator<Item = &Remark> {
        self.remarks.iter().filter(move |remark| remark.severity == Severity::Stops && remark.image == image)
    }
}

/// All of it in one line: the images, and what becomes of them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().take(NAMED_MOST).enumerate() {
            write!(f, "{}{part}", if index == 0 { "" } else { "; " })?;
        }
        if let Some(more) = self.parts.len().checked_sub(NAMED_MOST).filter(|more| *more > 0) {
            write!(f, "; {more} more")?;
        }
        let so = if self.parts.is_empty() { "" } else { "; " };
        match self.verdict(Firmware::Bios) {
            Ok(at) => write!(f, "{so}a BIOS runs the image at {at:#x}"),
            Err(why) => write!(f, "{so}a BIOS runs none: {why}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = &self.image;
        let ids = Ids { vendor: image.vendor, device: image.device };
        write!(f, "{} image of {} for {ids}", image.code, Size(image.length))?;
        if let Some(tables) = &self.tables {
            write!(f, " ({tables})")?;
        }
        if let Some(efi) = self.efi {
            write!(f, " ({efi})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tables::Nvidia(nvidia) => nvidia.fmt(f),
            Tables::Amd(atom) => atom.fmt(f),
        }
    }
}

impl Firmware {
    /// The code type of its images.
    pub fn code(self) -> CodeType {
        match self {
            Firmware::Bios => CodeType::Bios,
            Firmware::Uefi => CodeType::Efi,
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Firmware::Bios => "a BIOS",
            Firmware::Uefi => "UEFI",
        })
    }
}

/// Bytes, in KiB where that is shorter.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1024, self.0 % 1024) {
            (0, bytes) => write!(f, "{bytes} bytes"),
            (kib, 0) => write!(f, "{kib} KiB"),
            (kib, 512) => write!(f, "{kib}.5 KiB"),
            _ => write!(f, "{} bytes", self.0),
        }
    }
}
