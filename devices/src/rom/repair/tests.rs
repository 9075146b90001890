//! Repairs of ROMs that the tests build.

use proptest::prelude::*;

use super::*;
use crate::rom::image::tests::{Build, PCIR};

const IDS: Ids = Ids { vendor: 0x8086, device: 0x5917 };

fn sum(rom: &[u8], image: usize) -> Option<u8> {
    chain(rom).images.get(image).and_then(|image| image.checksum(rom))
}

#[test]
fn a_rom_that_is_right_stays_as_it_is() {
    let rom = Build::bios(IDS.vendor, IDS.device, 2).then(Build::efi(IDS.vendor, IDS.device, 2).last());
    let mut repaired = rom.clone();
    assert_eq!(repair(&mut repaired, IDS, Repair::All), []);
    assert_eq!(repaired, rom);
}

#[test]
fn another_device_of_the_vendor_is_made_this_one() {
    let rom = Build::bios(IDS.vendor, 0x0406, 2).then(Build::efi(IDS.vendor, 0x0406, 2).last());
    let mut repaired = rom.clone();
    let was = Ids { vendor: IDS.vendor, device: 0x0406 };
    let changed = |image| Finding::IdChanged { image, was, wanted: IDS };
    assert_eq!(repair(&mut repaired, IDS, Repair::Id), [changed(0), changed(1024)]);
    assert_eq!(sum(&repaired, 0), Some(0));
    // Only the ids and byte 6 are other than they were.
    let differ: Vec<usize> = (0..rom.len()).filter(|at| rom[*at] != repaired[*at]).collect();
    assert_eq!(differ, [6, PCIR + 6, PCIR + 7, 1024 + PCIR + 6, 1024 + PCIR + 7]);
    assert_eq!(repair(&mut repaired, IDS, Repair::All), [], "and now it is right");
    assert_eq!(changed(0).to_string(), "the image at 0x0 is for 8086:0406; the guest sees 8086:5917 in it");
}

#[test]
fn another_vendors_image_is_left_alone() {
    let rom = Build::bios(0x1002, 0x5159, 2).last().rom();
    let mut repaired = rom.clone();
    let is = Ids { vendor: 0x1002, device: 0x5159 };
    assert_eq!(repair(&mut repaired, IDS, Repair::All), [Finding::OtherVendor { image: 0, is, wanted: IDS }]);
    assert_eq!(repaired, rom);
}

#[test]
fn a_wrong_checksum_is_put_right_only_where_that_was_asked_for() {
    let rom = Build::bios(IDS.vendor, IDS.device, 2).last().set(0x100, 7).rom();
    let mut repaired = rom.clone();
    assert_eq!(repair(&mut repaired, IDS, Repair::Id), [Finding::ChecksumWrong { image: 0 }]);
    assert_eq!(repaired, rom);
    assert_eq!(repair(&mut repaired, IDS, Repair::All), [Finding::ChecksumChanged { image: 0 }]);
    assert_eq!((sum(&repaired, 0), repaired[0x100]), (Some(0), 7));
}

#[test]
fn the_sum_is_over_the_first_image_and_not_over_what_follows() {
    // A region of 4 KiB whose rest is ones: QEMU's sum over all of it would be right, the image's not.
    let mut region = Build::bios(IDS.vendor, 0x0406, 2).last().rom();
    region.resize(4096 - 17, 0xff);
    repair(&mut region, IDS, Repair::All);
    assert_eq!(region[..1024].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_ne!(region.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

#[test]
fn code_at_byte_6_is_not_changed() {
    // A jump with a 32-bit displacement covers byte 6; then the last byte takes the difference.
    for (code, spare) in [
        ([0x66, 0xe9, 0x80, 0], 1023),
        ([0xeb, 0x01, 0x90, 0x90], 1023),
        ([0xeb, 0x02, 0x90, 0x90], 6),
        ([0xe9, 0x00, 0x00, 0x90], 1023),
        ([0xcb, 0x90, 0x90, 0x90], 6),
    ] {
        let mut build = Build::bios(IDS.vendor, IDS.device, 2).last();
        for (at, byte) in code.into_iter().enumerate() {
            build = build.set(3 + at, byte);
        }
        let rom = build.settled().set(0x100, 7).rom();
        let mut repaired = rom.clone();
        repair(&mut repaired, IDS, Repair::All);
        let differ: Vec<usize> = (0..rom.len()).filter(|at| rom[*at] != repaired[*at]).collect();
        assert_eq!((differ, sum(&repaired, 0)), (vec![spare], Some(0)), "{code:x?}");
    }
}

#[test]
fn what_cannot_be_repaired_is_told() {
    // Cut in the middle of its only image.
    let mut cut = Build::bios(IDS.vendor, IDS.device, 4).last().rom();
    cut.truncate(1000);
    let findings = repair(&mut cut, IDS, Repair::All);
    assert_eq!(findings, [Finding::Truncated { image: 0, end: 2048, have: 1000 }]);
    // UEFI only: a BIOS finds nothing to run.
    let mut efi = Build::efi(IDS.vendor, IDS.device, 1).last().rom();
    assert_eq!(repair(&mut efi, IDS, Repair::All), [Finding::NoBios]);
    // No PCI data structure: an ISA ROM.
    let mut isa = vec![0x55, 0xaa, 1, 0xcb];
    isa.resize(512, 0);
    assert_eq!(repair(&mut isa, IDS, Repair::All), [Finding::Broken(Broken::NoData(0))]);
}

proptest! {
    #[test]
    fn what_is_repaired_is_right_and_stays_so(
        vendor in prop::sample::select(vec![IDS.vendor, 0x1002]),
        device: u16,
        blocks in 1_u8..5,
        noise in prop::collection::vec((0x80_usize..512, any::<u8>()), 0..20),
        all: bool,
    ) {
        let mut build = Build::bios(vendor, device, blocks).last();
        for (at, byte) in noise {
            build = build.set(at, byte);
        }
        let mut rom = build.rom();
        let (was, before) = (rom.clone(), examine(&rom, IDS));
        let what = if all { Repair::All } else { Repair::Id };
        let findings = repair(&mut rom, IDS, what);
        prop_assert_eq!(findings.len(), before.len(), "each finding stays or becomes a repair");
        let image = chain(&rom).images.remove(0);
        prop_assert_eq!(image.vendor, vendor, "a vendor is never changed");
        prop_assert_eq!(image.device == IDS.device, vendor == IDS.vendor || device == IDS.device);
        prop_assert!(!all || sum(&rom, 0) == Some(0));
        let same = was.iter().zip(&rom).filter(|(was, is)| was != is).count();
        prop_assert!(same <= 3, "{} bytes changed", same);
        let once = rom.clone();
        repair(&mut rom, IDS, what);
        prop_assert_eq!(once, rom);
    }
}

#[test]
fn a_rom_of_very_many_images_is_neither_worked_on_nor_told_for_long() {
    // As many as fit, each of another device, and each with a checksum over more than itself.
    let image = Build::bios(IDS.vendor, IDS.device ^ 1, 1).set(2, 0xff).rom();
    let mut rom = image.repeat((16 << 20) / image.len());
    let start = std::time::Instant::now();
    let findings = repair(&mut rom, IDS, Repair::All);
    assert!(findings.len() < 100, "{} findings", findings.len());
    let changed = rom.chunks(image.len()).filter(|part| **part != image).count();
    assert!((1..100).contains(&changed), "{changed} images changed");
    // All of them would take a minute, and on a busy host longer.
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}
