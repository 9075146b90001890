//! ROMs that the tests build, and what is read from them.

use proptest::prelude::*;

use super::*;
use crate::rom::decompress::tests::{Way, compress};
use crate::rom::efi;

/// A PE file for x64 with `names` in it.
pub(crate) fn program(names: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x90; 0x80];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&[0x40, 0, 0, 0]);
    bytes[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    [&bytes, names].concat()
}

/// An image to build, with the PCI data structure at 0x40.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    bytes: Vec<u8>,
}

pub(crate) const PCIR: usize = 0x40;

impl Build {
    /// An image of `blocks` blocks for PC-AT, with a right checksum in its last byte.
    pub(crate) fn bios(vendor: u16, device: u16, blocks: u8) -> Build {
        let mut bytes = vec![0x90; usize::from(blocks) * BLOCK];
        bytes[..3].copy_from_slice(&[0x55, 0xaa, blocks]);
        // jmp over the header; the byte behind it is free.
        bytes[3..6].copy_from_slice(&[0xe9, 0x80, 0]);
        bytes[POINTER..POINTER + 2].copy_from_slice(&[0x40, 0]);
        let data = &mut bytes[PCIR..PCIR + PCIR_LEN];
        data.fill(0);
        data[..4].copy_from_slice(b"PCIR");
        data[4..6].copy_from_slice(&vendor.to_le_bytes());
        data[6..8].copy_from_slice(&device.to_le_bytes());
        data[0x0a] = 0x18;
        data[0x0f] = 3; // base class: display
        data[0x10] = blocks;
        Build { bytes }.settled()
    }

    /// An image of `blocks` blocks for UEFI.
    pub(crate) fn efi(vendor: u16, device: u16, blocks: u8) -> Build {
        Build::bios(vendor, device, blocks).set(PCIR + 0x14, 3)
    }

    /// A driver for UEFI on x64 in it: a PE file with `names` in it, or with none given one that names GOP, compressed.
    pub(crate) fn driver(vendor: u16, device: u16, names: Option<&[u8]>) -> Build {
        match names {
            None => Build::compressed(vendor, device, &program(&efi::GRAPHICS_OUTPUT)),
            Some(names) => Build::with_body(vendor, device, 0, &program(names)),
        }
    }

    /// A driver with this program in it, compressed.
    pub(crate) fn compressed(vendor: u16, device: u16, program: &[u8]) -> Build {
        let way = Way { block: 100, strings: true, shape: 0 };
        Build::with_body(vendor, device, 1, &compress(program, way))
    }

    fn with_body(vendor: u16, device: u16, compression: u8, body: &[u8]) -> Build {
        let header = [0xf1, 0x0e, 0, 0, 0x0b, 0, 0x64, 0x86, compression, 0];
        Build::efi(vendor, device, 2).put(4, &header).put(0x16, &[0x80, 0]).put(0x80, body)
    }

    pub(crate) fn set(mut self, at: usize, byte: u8) -> Build {
        self.bytes[at] = byte;
        self
    }

    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Build {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Marks it as the last of its chain.
    pub(crate) fn last(self) -> Build {
        let indicator = self.bytes[PCIR + 0x15] | LAST;
        self.set(PCIR + 0x15, indicator).settled()
    }

    /// Its checksum made right by its last byte.
    pub(crate) fn settled(mut self) -> Build {
        let sum = self.bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let last = self.bytes.last_mut().unwrap();
        *last = last.wrapping_sub(sum);
        self
    }

    /// A ROM of this one image.
    pub(crate) fn rom(self) -> Vec<u8> {
        self.bytes
    }

    /// A ROM of this image and one more.
    pub(crate) fn then(self, next: Build) -> Vec<u8> {
        [self.bytes, next.bytes].concat()
    }
}

#[test]
fn a_chain_of_two_is_read_to_its_last_image() {
    let rom = Build::bios(0x10de, 0x1b80, 3).then(Build::efi(0x10de, 0x1b80, 2).last());
    // What fills the region behind the last image does not matter.
    let chain = chain(&[rom.clone(), vec![0xff; 4096]].concat());
    assert_eq!(chain.broken, None);
    let [bios, efi] = chain.images.as_slice() else { panic!("{:?}", chain.images) };
    assert_eq!((bios.offset, bios.length, bios.bios_length, bios.pcir), (0, 1536, 1536, PCIR));
    assert_eq!((bios.vendor, bios.device, bios.class, bios.last), (0x10de, 0x1b80, 0x03_0000, false));
    assert_eq!((bios.code, bios.checksum(&rom)), (CodeType::Bios, Some(0)));
    assert_eq!((efi.offset, efi.length, efi.pcir, efi.last), (1536, 1024, 1536 + PCIR, true));
    assert_eq!((efi.code, efi.checksum(&rom)), (CodeType::Efi, None), "a UEFI image has no checksum");
}

#[test]
fn a_chain_without_a_last_image_says_where_it_breaks() {
    let open = Build::bios(1, 2, 2);
    assert_eq!(chain(&open.clone().rom()).broken, Some(Broken::NoSignature(1024)));
    assert_eq!(chain(&[0xff; 512]), Chain { images: vec![], broken: Some(Broken::NoSignature(0)) });
    let next = Build::bios(1, 2, 1).set(PCIR, b'X');
    assert_eq!(chain(&open.clone().then(next)).broken, Some(Broken::NoData(1024)));
    let next = Build::bios(1, 2, 1).set(PCIR + 0x10, 0);
    assert_eq!(chain(&open.then(next)).broken, Some(Broken::NoLength(1024)));
}

#[test]
fn a_device_list_counts_from_the_third_revision_on() {
    // The list lies behind the structure: 1112, 1113, end.
    let list =
        Build::bios(0x1234, 0x1111, 1).set(PCIR + 8, 0x18).set(PCIR + 0x18, 0x12).set(PCIR + 0x19, 0x11);
    let list =
        list.set(PCIR + 0x1a, 0x13).set(PCIR + 0x1b, 0x11).set(PCIR + 0x1c, 0).set(PCIR + 0x1d, 0).last();
    let old = chain(&list.clone().rom()).images.remove(0);
    assert!(old.devices.is_empty());
    let new = chain(&list.set(PCIR + 0x0c, 3).rom()).images.remove(0);
    assert_eq!(new.devices, [0x1112, 0x1113]);
}

#[test]
fn nvidias_structure_tells_of_images_that_the_specification_hides() {
    // PCIR says last; NPDE behind it, at 0x60, says not.
    let mut first = Build::bios(0x10de, 0x2204, 1).last();
    for (at, byte) in b"NPDE".iter().enumerate() {
        first = first.set(0x60 + at, *byte);
    }
    let first = first.put(0x68, &[0, 0]);
    let rom = first.clone().set(0x60 + npde::INDICATOR, 0).then(Build::efi(0x10de, 0x2204, 1).last());
    let images = chain(&rom).images;
    assert_eq!(images.len(), 2);
    assert_eq!(
        (images[0].last, images[0].pcir_last, images[0].npde.map(|npde| npde.at)),
        (false, true, Some(0x60))
    );
    // A length that it has goes before the other.
    let longer = first.set(0x60 + npde::INDICATOR, 0).set(0x60 + 8, 2).rom();
    assert_eq!(chain(&longer).images[0].length, 1024);
}

#[test]
fn the_image_in_a_dump_of_a_flash_is_found() {
    let rom = Build::bios(1, 2, 1).last().rom();
    // A signature without a PCI data structure is passed over.
    let dump = [b"NVGI\x55\xaa\x01".to_vec(), vec![0; 0x5f9], rom].concat();
    assert_eq!(first_image(&dump), Some(0x600));
    assert_eq!(first_image(&[0x55, 0xaa]), None);
}

proptest! {
    #[test]
    fn what_was_built_is_read(
        images in prop::collection::vec((1_u8..8, any::<u16>(), any::<u16>(), prop::sample::select(vec![0_u8, 1, 2, 3, 0xe0])), 1..6),
    ) {
        let mut rom = Vec::new();
        let count = images.len();
        for (index, (blocks, vendor, device, code)) in images.iter().enumerate() {
            let image = Build::bios(*vendor, *device, *blocks).set(PCIR + 0x14, *code).settled();
            rom.extend(if index + 1 == count { image.last() } else { image }.rom());
        }
        let chain = chain(&rom);
        prop_assert_eq!(chain.broken, None);
        prop_assert_eq!(chain.images.len(), count);
        let mut offset = 0;
        for (image, (blocks, vendor, device, code)) in chain.images.iter().zip(&images) {
            prop_assert_eq!(image.offset, offset);
            prop_assert_eq!(image.length, usize::from(*blocks) * BLOCK);
            prop_assert_eq!((image.vendor, image.device), (*vendor, *device));
            prop_assert_eq!(image.code, CodeType::of(*code));
            prop_assert_eq!(image.checksum(&rom), (*code == 0).then_some(0));
            offset += image.length;
        }
    }

    #[test]
    fn damage_never_panics(
        blocks in 1_u8..4,
        damage in prop::collection::vec((0_usize..2048, any::<u8>()), 0..40),
        keep in 0_usize..2048,
    ) {
        let mut rom = Build::bios(1, 2, blocks).then(Build::efi(1, 2, 1).last());
        for (at, byte) in damage {
            if let Some(place) = rom.get_mut(at) {
                *place = byte;
            }
        }
        rom.truncate(keep);
        for image in chain(&rom).images {
            let _ = image.checksum(&rom);
            prop_assert!(image.length >= BLOCK && image.offset < rom.len());
        }
        let _ = first_image(&rom);
    }
}
