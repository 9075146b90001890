//! NVIDIA's addition to the PCI data structure: it says how long an image is and whether another follows,
//! where the PCI data structure says what a BIOS is to believe (Linux, Documentation/gpu/nova/core/vbios.rst).

use super::image::{LAST, word};

/// It lies behind the PCI data structure, at the next multiple of this many bytes from the image's start.
const ALIGN: usize = 16;
/// Where it has the image's length, in blocks.
const BLOCKS: usize = 0x08;
/// Where it has its indicator, of which bit 7 says that no image follows.
pub(super) const INDICATOR: usize = 0x0a;

/// NVIDIA's structure of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Npde {
    /// Where it is, counted from the first byte of the ROM.
    pub at: usize,
    /// The image's length in blocks of 512 bytes; zero if it has none to give.
    pub blocks: u16,
    /// Whether no image follows.
    pub last: bool,
}

/// Reads it from `image`, from which its place is counted; `length` is that of the PCI data structure at `pcir`.
pub(super) fn read(image: &[u8], pcir: usize, length: u16) -> Option<Npde> {
    let at = (pcir + usize::from(length)).next_multiple_of(ALIGN);
    let data = image.get(at..).filter(|data| data.starts_with(b"NPDE"))?;
    let indicator = data.get(INDICATOR)?;
    Some(Npde { at, blocks: word(data, BLOCKS)?, last: indicator & LAST != 0 })
}
