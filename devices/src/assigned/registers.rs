//! A device's configuration space as it was when the device was opened.

use trapline_io::{Fault, Region};

use super::backend::Backend;
use crate::pci::{self, spec};

/// Bytes of the space that PCI 3.0 knows.
pub(super) const CLASSIC: u16 = 256;
/// Bytes of the space that PCI Express knows.
pub(super) const EXTENDED: usize = 4096;

/// See the module's page. What the device does not have reads as zero.
#[derive(Clone)]
pub(super) struct Registers {
    bytes: Box<[u8; EXTENDED]>,
    extended: bool,
}

impl Registers {
    /// Reads them: all 4 KiB if the device's region is that large.
    pub fn read(backend: &mut dyn Backend) -> Result<Registers, Fault> {
        let extended = backend.region(Region::CONFIG).size >= EXTENDED as u64;
        let mut bytes = Box::new([0; EXTENDED]);
        let (classic, rest) = bytes.split_at_mut(CLASSIC.into());
        backend.read_bytes(Region::CONFIG, 0, classic)?;
        if extended {
            backend.read_bytes(Region::CONFIG, CLASSIC.into(), rest)?;
        }
        Ok(Registers { bytes, extended })
    }

    /// The same from bytes at hand, from the start of the space on.
    #[cfg(test)]
    pub fn of(bytes: &[u8]) -> Registers {
        let mut all = Box::new([0; EXTENDED]);
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Registers { bytes: all, extended: bytes.len() == EXTENDED }
    }

    /// Whether the device has the space of PCI Express.
    pub fn extended(&self) -> bool {
        self.extended
    }

    pub fn byte(&self, at: u16) -> u8 {
        self.bytes.get(usize::from(at)).copied().unwrap_or(0xff)
    }

    pub fn word(&self, at: u16) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at.saturating_add(1))])
    }

    pub fn dword(&self, at: u16) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at.saturating_add(2))) << 16
    }

    /// Offset and id of each capability; a list in circles ends.
    pub fn capabilities(&self) -> impl Iterator<Item = (u16, u8)> {
        pci::capabilities(|at| self.byte(at))
    }

    /// Offset and header of each extended capability, those of id zero too; a list in circles ends.
    pub fn extended_capabilities(&self) -> impl Iterator<Item = (u16, u32)> {
        let mut at = if self.extended { CLASSIC } else { 0 };
        let mut seen = [false; EXTENDED / 4];
        std::iter::from_fn(move || {
            let place = usize::from(at / 4);
            if at < CLASSIC || std::mem::replace(seen.get_mut(place)?, true) {
                return None;
            }
            let (here, header) = (at, self.dword(at));
            if header == 0 || header == u32::MAX {
                return None;
            }
            at = (header >> 20 & 0xffc) as u16;
            Some((here, header))
        })
    }
}

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registers({:08x})", self.dword(spec::VENDOR_ID).rotate_left(16))
    }
}
