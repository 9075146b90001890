//! AMD's tables in a BIOS image: ATOM, from the R500 generation on (Linux, drivers/gpu/drm/amd/include,
//! atombios.h and atomfirmware.h). Drivers of the guest run them; without them they do not start.

use std::fmt;

use super::image::{Image, word};

/// Where an image keeps the offset of its ATOM header.
const POINTER: usize = 0x48;
/// Offsets in that header: revisions of format and content, the signature, the subsystem's ids.
const REVISIONS: usize = 0x02;
const SIGNATURE: usize = 0x04;
const SUBSYSTEM: usize = 0x18;
/// How many strings there are, and where an image keeps the offset of the first, which is the part number.
const STRINGS: usize = 0x2f;
const FIRST_STRING: usize = 0x6e;
/// Where the part number is if there are no strings.
const PART_NUMBER: usize = 0x80;
/// The most of it that is read, in bytes.
const PART_MOST: usize = 40;

/// AMD's ATOM header of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// Where it is, counted from the first byte of the ROM.
    pub at: usize,
    /// Revisions of its format and of its content.
    pub revision: (u8, u8),
    /// Subsystem Vendor ID and Subsystem ID of the card.
    pub subsystem: (u16, u16),
    /// The part number of the image, printable characters alone.
    pub part: Option<String>,
}

/// Looks for the header of `image` in `rom`.
pub(super) fn read(rom: &[u8], image: &Image) -> Option<Atom> {
    let bytes = rom.get(image.offset..)?;
    let bytes = bytes.get(..image.length).unwrap_or(bytes);
    let at = usize::from(word(bytes, POINTER)?);
    let header = bytes.get(at..)?;
    // The second is what a card with its bytes swapped has.
    header.get(SIGNATURE..).filter(|text| text.starts_with(b"ATOM") || text.starts_with(b"MOTA"))?;
    let [format, content] = *header.get(REVISIONS..)?.first_chunk()?;
    Some(Atom {
        at: image.offset + at,
        revision: (format, content),
        subsystem: (word(header, SUBSYSTEM)?, word(header, SUBSYSTEM + 2)?),
        part: part(bytes),
    })
}

fn part(image: &[u8]) -> Option<String> {
    let at = match image.get(STRINGS)? {
        0 => PART_NUMBER,
        _ => usize::from(word(image, FIRST_STRING)?),
    };
    let text = image.get(at..)?.iter().take(PART_MOST).take_while(|byte| byte.is_ascii_graphic());
    let text: String = text.map(|byte| char::from(*byte)).collect();
    // Shorter ones are no part number but what else happens to lie there.
    (text.len() >= 3).then_some(text)
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Some(part) => write!(f, "AMD {part}, ATOM at {:#x}", self.at),
            None => write!(f, "AMD, ATOM at {:#x}", self.at),
        }
    }
}
