//! Expansion ROMs: what an image says of itself, and what can be put right in it.
//!
//! A ROM is a chain of images, one for each kind of firmware (PCI Firmware 3.3, section 5.1; PCI Local
//! Bus 3.0, section 6.3). A BIOS runs the first image of code type 0, if its checksum is right and the
//! ids in its PCI data structure are those of the function; UEFI runs one of code type 3.
//!
//! * [`image`], [`npde`]: reading the chain;
//! * [`efi`], [`nvidia`], [`amd`]: what an image has in it;
//! * [`mod@decompress`]: drivers for UEFI, as vendors ship them;
//! * [`mod@check`]: all of that, what is wrong with it, and what it means for firmware;
//! * [`mod@repair`]: ids and checksum;
//! * [`mod@fix`]: a ROM of its own made from a dump;
//! * [`shadow`], [`mod@compare`]: the copy that the host's firmware left of its boot adapter's ROM.
//!
//! ```
//! use trapline_devices::rom::{self, CodeType};
//! let mut bytes = vec![0; 512];
//! bytes[..3].copy_from_slice(&[0x55, 0xaa, 1]);
//! bytes[0x18] = 0x1c;
//! bytes[0x1c..0x20].copy_from_slice(b"PCIR");
//! bytes[0x20..0x24].copy_from_slice(&[0x34, 0x12, 0x11, 0x11]); // 1234:1111
//! bytes[0x26] = 0x18; // the length of this structure
//! bytes[0x2c] = 1; // the image has one block of 512 bytes
//! bytes[0x31] = 0x80; // and is the last
//! let chain = rom::chain(&bytes);
//! assert_eq!(chain.images[0].code, CodeType::Bios);
//! assert!(chain.broken.is_none());
//! assert!(chain.images[0].checksum(&bytes) != Some(0));
//! ```

pub mod amd;
pub mod check;
pub mod compare;
pub mod decompress;
pub mod efi;
pub mod fix;
pub mod image;
pub mod npde;
pub mod nvidia;
pub mod repair;
pub mod shadow;

pub use image::{Broken, Chain, CodeType, Image, chain, first_image};
pub use repair::{Finding, Ids, Repair, examine, repair};

/// What an image starts with (PCI Firmware 3.3, section 5.1.1).
pub const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// The largest ROM, in bytes: no base address register of one may be larger (PCI 3.0, section 6.2.5.2).
pub const LARGEST: u64 = 16 << 20;
/// The unit of all lengths in an image, in bytes.
pub const BLOCK: usize = 512;
