//! The chain of images in a ROM.

use std::fmt;

use super::npde::{self, Npde};
use super::{BLOCK, SIGNATURE};

/// Where an image keeps the offset of its PCI data structure.
const POINTER: usize = 0x18;
/// The first byte of a PCI data structure that is not there in every revision.
const PCIR_LEN: usize = 0x18;
/// Bit of the indicator: no image follows.
pub(super) const LAST: u8 = 0x80;
/// What an image of NVIDIA's own starts with, and its data structure, which is laid out as that of PCI: no firmware
/// looks at them, but NVIDIA's tables point into them (Linux, drivers/gpu/drm/nouveau/nvkm/subdev/bios).
const OWN_SIGNATURE: [u8; 2] = *b"VN";
const OWN_DATA: &[u8] = b"NPDS";
/// Where a PCI data structure has its indicator.
const INDICATOR: usize = 0x15;
/// The most images that are read: a card has one for each kind of firmware, and a few of its own.
const IMAGES_MOST: usize = 32;
/// The most entries of a device list that are read.
const LIST_MOST: usize = 256;

/// For which firmware an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeType {
    /// 0: x86, PC-AT.
    Bios,
    /// 1: Open Firmware.
    OpenFirmware,
    /// 2: HP PA-RISC.
    PaRisc,
    /// 3: UEFI.
    Efi,
    /// What has no name in the specification, such as e0 for NVIDIA's firmware.
    Other(u8),
}

/// One image of a ROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its first byte, counted from the first byte of the ROM.
    pub offset: usize,
    /// Bytes, as its PCI data structure says, or NVIDIA's beside it; not zero. They may lie beyond the end of
    /// the ROM.
    pub length: usize,
    /// Bytes that a BIOS checks and copies, as the byte at offset 2 says; only for [`CodeType::Bios`].
    pub bios_length: usize,
    /// Its PCI data structure, counted from the first byte of the ROM.
    pub pcir: usize,
    /// Vendor of the function that it is for.
    pub vendor: u16,
    /// Device of the function that it is for.
    pub device: u16,
    /// More devices of that vendor that it is for (PCI data structure of revision 3).
    pub devices: Vec<u16>,
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// For which firmware.
    pub code: CodeType,
    /// Whether it is the last of the chain.
    pub last: bool,
    /// Whether its PCI data structure says so: for firmware, which knows no other.
    pub pcir_last: bool,
    /// Whether it is one of NVIDIA's own, with another signature: for its drivers, never the first.
    pub own: bool,
    /// NVIDIA's structure beside the PCI data structure.
    pub npde: Option<Npde>,
}

/// Why a chain ends before an image that is marked as the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No image starts at this offset.
    NoSignature(usize),
    /// The image at this offset has no PCI data structure: an ISA ROM, or a damaged one.
    NoData(usize),
    /// The image at this offset has a length of zero.
    NoLength(usize),
    /// An image at this offset would be one more than any ROM has.
    TooMany(usize),
}

/// All images of a ROM, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Images that could be read.
    pub images: Vec<Image>,
    /// Why there are no more, if none of them is the last.
    pub broken: Option<Broken>,
}

/// Reads the chain of images that starts with the first byte of `rom`.
///
/// Any bytes are taken. No more than 32 images are read: what is done with each of them, and told of
/// it, is bounded by that.
pub fn chain(rom: &[u8]) -> Chain {
    let mut images: Vec<Image> = Vec::new();
    let mut at = 0;
    let broken = loop {
        if images.len() == IMAGES_MOST {
            break Some(Broken::TooMany(at));
        }
        match read(rom, at)
            .and_then(|image| if at == 0 && image.own { Err(Broken::NoSignature(0)) } else { Ok(image) })
        {
            Ok(image) => {
                at += image.length;
                let last = image.last;
                images.push(image);
                if last {
                    break None;
                }
            }
            Err(broken) => match images.last_mut().filter(|image| image.pcir_last) {
                // It was the last for all but NVIDIA.
                Some(image) => {
                    image.last = true;
                    break None;
                }
                None => break Some(broken),
            },
        }
    };
    Chain { images, broken }
}

/// The offset of the first image in `file` that has a PCI data structure, on any byte: a dump of a whole
/// flash has other things before it.
pub fn first_image(file: &[u8]) -> Option<usize> {
    let starts = file.windows(SIGNATURE.len()).enumerate().filter(|(_, bytes)| *bytes == SIGNATURE);
    starts.map(|(at, _)| at).find(|at| read(file, *at).is_ok())
}

impl Image {
    /// What the bytes add up to that a BIOS checks, modulo 256: right if it is zero. `None` for images of
    /// other code types, which have no checksum, and if `rom` ends before the image does.
    pub fn checksum(&self, rom: &[u8]) -> Option<u8> {
        let bytes = rom.get(self.offset..self.offset.checked_add(self.bios_length)?)?;
        let checked = self.code == CodeType::Bios && !bytes.is_empty();
        checked.then(|| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)))
    }
}

/// What each of a chain's images should say: whether it is the last for firmware, and for NVIDIA's drivers.
pub(super) fn marks(images: &[Image]) -> Vec<(bool, bool)> {
    let seen = images.iter().rposition(|image| !image.own);
    images
        .iter()
        .enumerate()
        .map(|(at, image)| {
            let last = at + 1 == images.len();
            // Without NVIDIA's structure its drivers go by the other as well.
            (if image.npde.is_some() { Some(at) >= seen } else { last }, last)
        })
        .collect()
}

/// What an image says of that.
pub(super) fn marked(image: &Image) -> (bool, bool) {
    (image.pcir_last, image.npde.map_or(image.pcir_last, |npde| npde.last))
}

/// Lets an image of `rom` say it, as far as it has a place for it.
pub(super) fn mark(rom: &mut [u8], image: &Image, (pcir, npde): (bool, bool)) {
    let place = image.npde.map(|npde| npde.at + npde::INDICATOR);
    for (place, last) in [(Some(image.pcir + INDICATOR), pcir), (place, npde)] {
        if let Some(byte) = place.and_then(|place| rom.get_mut(place)) {
            *byte = *byte & !LAST | if last { LAST } else { 0 };
        }
    }
}

/// Reads the image that starts at `at`.
pub(super) fn read(rom: &[u8], at: usize) -> Result<Image, Broken> {
    let image = rom.get(at..).unwrap_or_default();
    let own = image.starts_with(&OWN_SIGNATURE);
    if !own && !image.starts_with(&SIGNATURE) {
        return Err(Broken::NoSignature(at));
    }
    let name = if own { OWN_DATA } else { b"PCIR" };
    let pcir = word(image, POINTER).map(usize::from).ok_or(Broken::NoData(at))?;
    let data = image.get(pcir..).filter(|data| data.starts_with(name)).ok_or(Broken::NoData(at))?;
    let fixed: &[u8; PCIR_LEN] = data.first_chunk().ok_or(Broken::NoData(at))?;
    let field = |offset: usize| u16::from_le_bytes([fixed[offset], fixed[offset + 1]]);
    let npde = npde::read(image, pcir, field(0x0a));
    let blocks = npde.map(|npde| npde.blocks).filter(|blocks| *blocks > 0).unwrap_or(field(0x10));
    if blocks == 0 {
        return Err(Broken::NoLength(at));
    }
    let pcir_last = fixed[INDICATOR] & LAST != 0;
    let code = CodeType::of(fixed[0x14]);
    Ok(Image {
        offset: at,
        length: usize::from(blocks) * BLOCK,
        bios_length: if code == CodeType::Bios {
            usize::from(image.get(2).map_or(0, |size| *size)) * BLOCK
        } else {
            0
        },
        pcir: at + pcir,
        vendor: field(4),
        device: field(6),
        devices: if fixed[0x0c] >= 3 { device_list(data, field(8)) } else { Vec::new() },
        class: u32::from_le_bytes([fixed[0x0d], fixed[0x0e], fixed[0x0f], 0]),
        code,
        last: npde.map_or(pcir_last, |npde| npde.last),
        pcir_last,
        own,
        npde: npde.map(|npde| Npde { at: at + npde.at, ..npde }),
    })
}

/// The words from `offset` of the PCI data structure on, up to a zero.
fn device_list(data: &[u8], offset: u16) -> Vec<u16> {
    if offset == 0 {
        return Vec::new();
    }
    let words = (usize::from(offset)..).step_by(2).map_while(|at| word(data, at));
    words.take_while(|id| *id != 0).take(LIST_MOST).collect()
}

/// The little-endian word at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_le_bytes(*word))
}

impl CodeType {
    /// The code type with this number.
    pub fn of(byte: u8) -> CodeType {
        match byte {
            0 => CodeType::Bios,
            1 => CodeType::OpenFirmware,
            2 => CodeType::PaRisc,
            3 => CodeType::Efi,
            other => CodeType::Other(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            CodeType::Bios => 0,
            CodeType::OpenFirmware => 1,
            CodeType::PaRisc => 2,
            CodeType::Efi => 3,
            CodeType::Other(number) => number,
        }
    }
}

impl fmt::Display for CodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodeType::Bios => f.write_str("BIOS"),
            CodeType::OpenFirmware => f.write_str("Open Firmware"),
            CodeType::PaRisc => f.write_str("PA-RISC"),
            CodeType::Efi => f.write_str("UEFI"),
            CodeType::Other(code) => write!(f, "code type {code:#04x}"),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::NoSignature(at) => write!(f, "at {at:#x} there is no 55 aa"),
            Broken::NoData(at) => write!(f, "the image at {at:#x} has no PCI data structure (PCIR)"),
            Broken::NoLength(at) => write!(f, "the image at {at:#x} has no length"),
            Broken::TooMany(at) => write!(f, "there are more than {IMAGES_MOST} images, the next at {at:#x}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
