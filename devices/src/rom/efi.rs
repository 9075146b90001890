//! Images for UEFI (UEFI 2.10, section 14.4.2: PCI Option ROMs, EFI PCI Expansion ROM Header).
//!
//! What a driver offers is told without running it, by the names in its bytes. Nearly all vendors ship compressed ones,
//! which are decompressed first ([`decompress`](super::decompress)).

use std::fmt;

use super::decompress::decompress;
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
pub(super) const GRAPHICS_OUTPUT: [u8; 16] =
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
    /// A PE file that UEFI's algorithm has compressed (section 19).
    Compressed,
    /// No PE file where one should be, or none that decompression makes.
    Damaged,
    /// A compression that UEFI does not know; its number.
    Unknown(u16),
}

/// Whether a driver names the graphics output protocol (GOP), without which UEFI has no screen. One for an adapter
/// offers it then; others, as those of network cards, may only use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graphics {
    /// Its name is in the program.
    Named,
    /// It is not.
    Absent,
    /// The program cannot be looked into: it is damaged, or nobody knows how it is compressed.
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
    let open = |program: &[u8]| {
        let names = || program.windows(GRAPHICS_OUTPUT.len()).any(|bytes| bytes == GRAPHICS_OUTPUT);
        is_program(program, machine).then(|| if names() { Graphics::Named } else { Graphics::Absent })
    };
    let (kind, graphics) = match word(bytes, COMPRESSION)? {
        0 => (Body::Plain, open(body)),
        1 => (Body::Compressed, decompress(body).and_then(|program| open(&program))),
        other => (Body::Unknown(other), Some(Graphics::Hidden)),
    };
    let (kind, graphics) = graphics.map_or((Body::Damaged, Graphics::Hidden), |graphics| (kind, graphics));
    Some(Efi { subsystem: Subsystem(word(bytes, SUBSYSTEM)?), machine, body: kind, graphics })
}

/// Whether it is a PE file for this processor.
fn is_program(body: &[u8], machine: Machine) -> bool {
    let header = dword(body, PE_POINTER).and_then(|at| body.get(at..)).unwrap_or_default();
    body.starts_with(b"MZ") && header.starts_with(b"PE\0\0") && word(header, 4) == Some(machine.0)
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
        match self.body {
            Body::Plain => {}
            Body::Compressed => f.write_str(", compressed")?,
            Body::Damaged => return f.write_str(", damaged"),
            Body::Unknown(number) => return write!(f, ", compressed by the unknown method {number:#x}"),
        }
        f.write_str(match self.graphics {
            Graphics::Named => ", names GOP",
            Graphics::Absent => ", names no GOP",
            Graphics::Hidden => "",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
