//! Images for UEFI (UEFI 2.10, section 14.4.2: PCI Option ROMs, EFI PCI Expansion ROM Header).
//!
//! What a driver offers can be told without running it only as far as its bytes lie open: in a compressed
//! one, as nearly all vendors ship, nothing can be looked for.

use std::fmt;

use super::image::{CodeType, Image, word};

/// What marks the header, behind the initialization size.
const SIGNATURE: [u8; 4] = [0xf1, 0x0e, 0, 0];
/// Offsets of the header's fields.
const EFI_SIGNATURE: usize = 0x04;
const SUBSYSTEM: usize = 0x08;
const MACHINE: usize = 0x0a;
const COMPRESSION: usize = 0x0c;
const BODY: usize = 0x16;
/// Where a PE file keeps the offset of its PE header (PE format, MS-DOS stub).
const PE_POINTER: usize = 0x3c;
/// `EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID`, 9042a9de-23dc-4a38-96fb-7aded080516a, as it lies in memory.
const GRAPHICS_OUTPUT: [u8; 16] =
    [0xde, 0xa9, 0x42, 0x90, 0xdc, 0x23, 0x38, 0x4a, 0x96, 0xfb, 0x7a, 0xde, 0xd0, 0x80, 0x51, 0x6a];

/// What the header of an image for UEFI says, and what its body shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Efi {
    /// Which kind of program it is.
    pub subsystem: Subsystem,
    /// For which processor.
    pub machine: Machine,
    /// How the program lies in the image.
    pub body: Body,
    /// Whether it can give firmware a screen.
    pub graphics: Graphics,
}

/// A kind of UEFI program (PE format, Windows Subsystem).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsystem(pub u16);

/// A processor (PE format, Machine Types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine(pub u16);

/// How a program lies in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it is: a PE file.
    Plain,
    /// Compressed by UEFI's algorithm (section 19).
    Compressed,
    /// Neither: no PE file where one should be, a compressed one that goes beyond the image, or a compression
    /// that UEFI does not know.
    Damaged,
}

/// Whether a driver names the graphics output protocol (GOP), without which UEFI has no screen. One for an adapter
/// offers it then; others, as those of network cards, may only use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graphics {
    /// Its name is in the program.
    Named,
    /// It is not.
    Absent,
    /// The program cannot be looked into.
    Hidden,
}

impl Subsystem {
    /// A driver that ends when the operating system takes over.
    pub const BOOT_DRIVER: Subsystem = Subsystem(0x0b);
    /// A driver that stays.
    pub const RUNTIME_DRIVER: Subsystem = Subsystem(0x0c);

    /// Whether it is a driver of either kind: all that firmware starts from a ROM.
    pub fn is_driver(self) -> bool {
        [Subsystem::BOOT_DRIVER, Subsystem::RUNTIME_DRIVER].contains(&self)
    }
}

impl Machine {
    /// x86 with 64 bits.
    pub const X64: Machine = Machine(0x8664);
    /// UEFI's byte code, for every processor.
    pub const BYTE_CODE: Machine = Machine(0x0ebc);

    /// Whether the UEFI of a PC with 64 bits can run it.
    pub fn runs_on_x64(self) -> bool {
        [Machine::X64, Machine::BYTE_CODE].contains(&self)
    }
}

/// Reads the header of `image` in `rom`; `None` for another code type, and where there is no header.
pub(super) fn read(rom: &[u8], image: &Image) -> Option<Efi> {
    let bytes = rom.get(image.offset..).filter(|_| image.code == CodeType::Efi)?;
    let bytes = bytes.get(..image.length).unwrap_or(bytes);
    if !bytes.get(EFI_SIGNATURE..)?.starts_with(&SIGNATURE) {
        return None;
    }
    let body = bytes.get(usize::from(word(bytes, BODY)?)..).unwrap_or_default();
    let machine = Machine(word(bytes, MACHINE)?);
    let (kind, graphics) = match word(bytes, COMPRESSION)? {
        0 if is_program(body, machine) => {
            let named = body.windows(GRAPHICS_OUTPUT.len()).any(|bytes| bytes == GRAPHICS_OUTPUT);
            (Body::Plain, if named { Graphics::Named } else { Graphics::Absent })
        }
        1 if is_compressed(body) => (Body::Compressed, Graphics::Hidden),
        _ => (Body::Damaged, Graphics::Hidden),
    };
    Some(Efi { subsystem: Subsystem(word(bytes, SUBSYSTEM)?), machine, body: kind, graphics })
}

/// Whether it is a PE file for this processor.
fn is_program(body: &[u8], machine: Machine) -> bool {
    let header = dword(body, PE_POINTER).and_then(|at| body.get(at..)).unwrap_or_default();
    body.starts_with(b"MZ") && header.starts_with(b"PE\0\0") && word(header, 4) == Some(machine.0)
}

/// Whether it has the sizes that stand before a compressed program, and all of that program.
fn is_compressed(body: &[u8]) -> bool {
    let sizes = dword(body, 0).zip(dword(body, 4));
    sizes.is_some_and(|(packed, whole)| packed > 0 && whole > 0 && packed <= body.len().saturating_sub(8))
}

fn dword(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Subsystem(0x0a) => f.write_str("application"),
            Subsystem::BOOT_DRIVER => f.write_str("boot driver"),
            Subsystem::RUNTIME_DRIVER => f.write_str("runtime driver"),
            Subsystem(other) => write!(f, "subsystem {other:#x}"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Machine::X64 => "x64",
            Machine::BYTE_CODE => "EFI byte code",
            Machine(0x014c) => "x86 with 32 bits",
            Machine(0x01c2) => "Arm with 32 bits",
            Machine(0xaa64) => "Arm with 64 bits",
            Machine(0x0200) => "Itanium",
            Machine(other) => return write!(f, "machine type {other:#06x}"),
        })
    }
}

impl fmt::Display for Efi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.machine, self.subsystem)?;
        f.write_str(match (self.body, self.graphics) {
            (Body::Damaged, _) => ", damaged",
            (Body::Compressed, _) => ", compressed",
            (Body::Plain, Graphics::Named) => ", names GOP",
            (Body::Plain, _) => ", names no GOP",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
