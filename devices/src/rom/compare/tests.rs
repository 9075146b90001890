//! ROMs beside each other that the tests build.

use super::*;
use crate::rom::image::tests::Build;
use crate::rom::{Ids, Repair, repair};

const IDS: Ids = Ids { vendor: 0x1234, device: 0x1111 };

fn pristine() -> Vec<u8> {
    Build::bios(IDS.vendor, IDS.device, 8).then(Build::driver(IDS.vendor, IDS.device, None).last())
}

/// What a firmware leaves of it at c0000.
fn shadow() -> Vec<u8> {
    let mut area = pristine();
    area.truncate(4096);
    area[0x400..0x410].fill(0x55);
    area[0x700] ^= 1;
    let sum = area.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    area[0x800] = area[0x800].wrapping_sub(sum);
    area.resize(0x2_0000, 0);
    area
}

#[test]
fn a_rom_is_the_same_whatever_fills_the_space_behind_it() {
    let padded = [pristine(), vec![0xff; 4096]].concat();
    for (rom, pristine) in [(pristine(), padded.clone()), (padded, pristine())] {
        let comparison = compare(&rom, &pristine);
        assert_eq!((comparison.judgement(), comparison.differing), (Judgement::Same, 0));
    }
}

#[test]
fn a_copy_that_was_run_differs_in_its_variables_and_has_no_second_image() {
    let comparison = compare(&shadow(), &pristine());
    assert_eq!(comparison.judgement(), Judgement::Posted);
    let places: Vec<_> = comparison.places.iter().map(|place| (place.range.clone(), place.area)).collect();
    assert_eq!(places, [(0x400..0x410, Area::Code), (0x700..0x701, Area::Code), (0x800..0x801, Area::Code)]);
    assert_eq!(
        comparison.to_string(),
        "it differs from the untouched image as a copy does that a firmware has run: a guest's BIOS stays dark on it, so \
         give the untouched one (18 of 4096 bytes differ, in 3 places; 1 of 2 images)"
    );
    // One that is shorter than it was has run, even if nothing else says so.
    let mut short = pristine();
    short[2] = 4;
    let comparison = compare(&short, &pristine());
    assert_eq!((comparison.judgement(), comparison.bios_length), (Judgement::Posted, Some((2048, 4096))));
    assert_eq!(comparison.places[0].area, Area::Length);
}

#[test]
fn a_repaired_one_is_no_other() {
    let mut rom = pristine();
    repair(&mut rom, Ids { device: 0x2222, ..IDS }, Repair::All);
    let comparison = compare(&rom, &pristine());
    assert_eq!(comparison.judgement(), Judgement::Mended, "{comparison:?}");
    // A change that no repair makes, with a checksum that is wrong.
    rom[0x300] ^= 1;
    assert_eq!(compare(&rom, &pristine()).judgement(), Judgement::Posted);
}

#[test]
fn another_image_is_another_image() {
    let mut other = pristine();
    other[0x100..0x900].fill(7);
    assert_eq!(compare(&other, &pristine()).judgement(), Judgement::Other);
    let vendor = Build::bios(0x10de, 1, 8).last().rom();
    assert_eq!(compare(&vendor, &pristine()).judgement(), Judgement::Other);
    // The same BIOS with another driver for UEFI.
    let mut driver = pristine();
    driver[4096 + 0x90] ^= 1;
    assert_eq!(compare(&driver, &pristine()).judgement(), Judgement::Other);
    assert_eq!(compare(&[], &pristine()).judgement(), Judgement::Other);
}

#[test]
fn very_many_differences_are_neither_kept_nor_told() {
    let pristine = Build::bios(1, 2, 255).last().rom();
    let mut rom = pristine.clone();
    rom.iter_mut().skip(0x200).step_by(32).for_each(|byte| *byte ^= 1);
    let comparison = compare(&rom, &pristine);
    assert!(comparison.more && comparison.places.len() == PLACES_MOST && comparison.to_string().len() < 400);
}
