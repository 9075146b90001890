//! What a guest's BIOS would refuse in a ROM, and putting it right in memory.
//!
//! A BIOS runs an image only if the ids in its PCI data structure are those of the function and its
//! checksum is right. Vendors ship one image for many devices, and Intel's graphics have images with a
//! checksum that never was right; the host's firmware does not care about its own.
//!
//! The device id is changed, the vendor's is not: an image of another vendor is the image of another
//! card, and to run it would be worse than to run none. The checksum is made right over the length that
//! the image's byte 2 gives, since that is what a BIOS adds up. (QEMU adds up the whole region, whatever
//! follows the first image included; the first image then has a sum that is right only by chance.)

use std::fmt;

use super::image::{Broken, CodeType, Image, chain};

/// The byte that takes up the difference of the checksum: behind the jump that starts the code, and
/// without a meaning of its own (PCI Firmware 3.3, section 5.1.1: reserved for the processor architecture).
pub(super) const SPARE: usize = 6;
/// Where the code of a BIOS image starts.
const ENTRY: usize = 3;
/// Offset of the device id in the PCI data structure.
const DEVICE: usize = 6;
/// Bytes of a PCI data structure.
const PCIR_LEN: usize = 0x18;

/// What identifies a function: its registers Vendor ID and Device ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
}

/// What is changed in a ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The device id, and every checksum that is wrong.
    All,
    /// The device id, and the checksum of an image where that was changed.
    Id,
}

/// Something about a ROM that a person should know. Its text fits behind the name of the ROM and a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An image had another device's id; it has this function's now.
    IdChanged {
        /// The image's offset.
        image: usize,
        /// What it said.
        was: Ids,
        /// The function, and what it says now.
        wanted: Ids,
    },
    /// An image has another device's id of the same vendor.
    OtherDevice {
        /// The image's offset.
        image: usize,
        /// What it says.
        is: Ids,
        /// The function.
        wanted: Ids,
    },
    /// An image is of another vendor.
    OtherVendor {
        /// The image's offset.
        image: usize,
        /// What it says.
        is: Ids,
        /// The function.
        wanted: Ids,
    },
    /// The checksum was wrong without any change of ours; it is right now.
    ChecksumChanged {
        /// The image's offset.
        image: usize,
    },
    /// The checksum is wrong.
    ChecksumWrong {
        /// The image's offset.
        image: usize,
    },
    /// The ROM ends before an image does.
    Truncated {
        /// The image's offset.
        image: usize,
        /// Where the image should end.
        end: usize,
        /// Where the ROM ends.
        have: usize,
    },
    /// The chain ends before its last image.
    Broken(Broken),
    /// There are images, but none for a BIOS.
    NoBios,
}

/// Says what is wrong with `rom` for the function `ids`, or for the function that it is for if none is given;
/// changes nothing.
pub fn examine(rom: &[u8], ids: impl Into<Option<Ids>>) -> Vec<Finding> {
    let ids = ids.into();
    let mut findings = Vec::new();
    let chain = chain(rom);
    for image in &chain.images {
        findings.extend(ids.and_then(|ids| mismatch(image, ids)));
        findings.extend(truncated(image, rom.len()));
        if is_wrong(image, rom) {
            findings.push(Finding::ChecksumWrong { image: image.offset });
        }
    }
    findings.extend(chain.broken.map(Finding::Broken));
    if !chain.images.is_empty() && chain.images.iter().all(|image| image.code != CodeType::Bios) {
        findings.push(Finding::NoBios);
    }
    findings
}

/// Changes what a BIOS or UEFI would refuse in `rom` for the function `ids`, and says what it found and
/// did. What is right stays as it is, byte for byte.
pub fn repair(rom: &mut [u8], ids: impl Into<Option<Ids>>, what: Repair) -> Vec<Finding> {
    let images = chain(rom).images;
    let mut findings = examine(rom, ids);
    let mut changed = Vec::new();
    for finding in &mut findings {
        let Finding::OtherDevice { image: at, is: was, wanted } = *finding else { continue };
        let found = images.iter().find(|image| image.offset == at);
        if found.is_some_and(|image| set_device(rom, image, wanted.device)) {
            *finding = Finding::IdChanged { image: at, was, wanted };
            changed.push(at);
        }
    }
    // The last first: what a BIOS adds up for one image may reach into the next.
    for image in images.iter().rev() {
        if what == Repair::All || changed.contains(&image.offset) {
            settle(rom, image);
        }
    }
    for finding in &mut findings {
        let Finding::ChecksumWrong { image: at } = *finding else { continue };
        let found = images.iter().find(|image| image.offset == at);
        if found.is_some_and(|image| !is_wrong(image, rom)) {
            *finding = Finding::ChecksumChanged { image: at };
        }
    }
    findings
}

/// Whether an image that firmware would run is for another function.
fn mismatch(image: &Image, wanted: Ids) -> Option<Finding> {
    let is = Ids { vendor: image.vendor, device: image.device };
    if is == wanted || !matches!(image.code, CodeType::Bios | CodeType::Efi) {
        return None;
    }
    let image = image.offset;
    Some(match is.vendor == wanted.vendor {
        true => Finding::OtherDevice { image, is, wanted },
        false => Finding::OtherVendor { image, is, wanted },
    })
}

fn truncated(image: &Image, have: usize) -> Option<Finding> {
    let end = image.offset + image.length.max(image.bios_length);
    (end > have).then_some(Finding::Truncated { image: image.offset, end, have })
}

pub(super) fn is_wrong(image: &Image, rom: &[u8]) -> bool {
    image.checksum(rom).is_some_and(|sum| sum != 0)
}

fn set_device(rom: &mut [u8], image: &Image, device: u16) -> bool {
    let Some(field) = rom.get_mut(image.pcir + DEVICE..image.pcir + DEVICE + 2) else { return false };
    field.copy_from_slice(&device.to_le_bytes());
    true
}

/// Makes the checksum of a BIOS image right, if it has one and a byte to spare.
fn settle(rom: &mut [u8], image: &Image) {
    let Some(sum) = image.checksum(rom) else { return };
    if let Some(byte) = spare(rom, image).and_then(|at| rom.get_mut(at)) {
        *byte = byte.wrapping_sub(sum);
    }
}

/// The byte of an image that may change: byte 6 if the code jumps over it, else the last, where builders
/// of ROMs put their checksum. Neither may lie in the PCI data structure.
pub(super) fn spare(rom: &[u8], image: &Image) -> Option<usize> {
    let code = rom.get(image.offset + ENTRY..)?.first_chunk()?;
    let free = match *code {
        // jmp rel8, counted from 5.
        [0xeb, rel, _] => (2..0x80).contains(&rel),
        // jmp rel16, counted from 6.
        [0xe9, low, high] => (1..0x8000).contains(&u16::from_le_bytes([low, high])),
        // retf: there is no code.
        [0xcb, ..] => true,
        _ => false,
    };
    let last = image.bios_length.checked_sub(1).map(|last| image.offset + last);
    let data = image.pcir..image.pcir + PCIR_LEN;
    let places = [free.then_some(image.offset + SPARE), last];
    places.into_iter().flatten().find(|at| !data.contains(at))
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::IdChanged { image, was, wanted } => {
                write!(f, "the image at {image:#x} is for {was}; the guest sees {wanted} in it")
            }
            Finding::OtherDevice { image, is, wanted } => {
                write!(f, "the image at {image:#x} is for {is}, the function is {wanted}")
            }
            Finding::OtherVendor { image, is, wanted } => write!(
                f,
                "the image at {image:#x} is for {is}, a card of another vendor than {wanted}; firmware will not run it"
            ),
            Finding::ChecksumChanged { image } => {
                write!(f, "the image at {image:#x} has a wrong checksum; the guest sees a right one")
            }
            Finding::ChecksumWrong { image } => {
                write!(f, "the image at {image:#x} has a wrong checksum; a BIOS may not run it")
            }
            Finding::Truncated { image, end, have } => {
                write!(f, "the image at {image:#x} should end at {end:#x}, but the ROM ends at {have:#x}")
            }
            Finding::Broken(broken) => write!(f, "its chain of images is broken: {broken}"),
            Finding::NoBios => {
                f.write_str("it has no image for a BIOS; SeaBIOS will show nothing on this adapter")
            }
        }
    }
}

#[cfg(test)]
mod tests;
