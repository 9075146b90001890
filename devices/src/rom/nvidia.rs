//! NVIDIA's table in a BIOS image (NVIDIA, BIOS Information Table Specification).
//!
//! Drivers of the guest read it, a BIOS does not. The table lies anywhere in the image; offsets in it are
//! counted from the image's start, and those beyond the image's end skip an image for UEFI.

use std::fmt;

use super::image::{Image, word};

/// What a BIOS information table (BIT) starts with: its identifier b8ff and its signature.
const BIT: [u8; 6] = [0xff, 0xb8, b'B', b'I', b'T', 0];
/// What its predecessor (BMP), of cards before 2004, starts with.
const BMP: [u8; 5] = [0xff, 0x7f, b'N', b'V', 0];
/// Offsets in the header of a BIT: its size, that of a token, and how many there are.
const HEADER_SIZE: usize = 0x08;
const TOKEN_SIZE: usize = 0x09;
const TOKENS: usize = 0x0a;
/// The shortest token: id, version, size, pointer.
const TOKEN: usize = 6;
/// Where a token has the size of what it points to, and the pointer.
const DATA_SIZE: usize = 2;
const DATA: usize = 4;
/// The token whose data starts with the version of the BIOS.
const VERSION: u8 = b'i';
/// Where a BMP has the version, of four bytes.
const BMP_VERSION: usize = 10;

/// NVIDIA's table of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nvidia {
    /// Where it is, counted from the first byte of the ROM.
    pub at: usize,
    /// Which of the two it is.
    pub kind: Table,
    /// The version of the BIOS, the most significant number first; the last is the maker's of the card.
    pub version: Option<[u8; 5]>,
}

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// BIOS information table; how many tokens it has.
    Bit(u8),
    /// Its predecessor.
    Bmp,
}

/// Looks for the table of `image` in `rom`.
pub(super) fn read(rom: &[u8], image: &Image) -> Option<Nvidia> {
    let bytes = rom.get(image.offset..)?;
    let bytes = bytes.get(..image.length).unwrap_or(bytes);
    if let Some(at) = find(bytes, &BIT) {
        let table = bytes.get(at..)?;
        let (size, step, count) = (table.get(HEADER_SIZE)?, table.get(TOKEN_SIZE)?, *table.get(TOKENS)?);
        let tokens = table.get(usize::from(*size)..).unwrap_or_default();
        let mut tokens = tokens.chunks(usize::from(*step).max(TOKEN)).take(count.into());
        let version = tokens.find(|token| token.first() == Some(&VERSION));
        let version = version.and_then(|token| version_at(bytes, token));
        return Some(Nvidia { at: image.offset + at, kind: Table::Bit(count), version });
    }
    let at = find(bytes, &BMP)?;
    let version = bytes.get(at + BMP_VERSION..)?.first_chunk().map(|[d, c, b, a]| [*a, *b, *c, *d, 0]);
    Some(Nvidia { at: image.offset + at, kind: Table::Bmp, version })
}

/// The version that `token` points to: four numbers, the least significant first, and the maker's.
fn version_at(image: &[u8], token: &[u8]) -> Option<[u8; 5]> {
    let data = image.get(usize::from(word(token, DATA)?)..)?;
    let [d, c, b, a, maker] = data.first_chunk().filter(|_| word(token, DATA_SIZE) >= Some(5))?;
    Some([*a, *b, *c, *d, *maker])
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|bytes| bytes == what)
}

impl fmt::Display for Nvidia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Table::Bit(_) => "BIT",
            Table::Bmp => "BMP",
        };
        match self.version {
            Some([a, b, c, d, maker]) => {
                write!(f, "NVIDIA {a:02x}.{b:02x}.{c:02x}.{d:02x}.{maker:02x}, {name} at {:#x}", self.at)
            }
            None => write!(f, "NVIDIA, {name} at {:#x}", self.at),
        }
    }
}
