//! Images for UEFI that the tests build.

use super::*;
use crate::rom::image::chain;
use crate::rom::image::tests::{Build, PCIR};

fn header(image: Build) -> Option<Efi> {
    let rom = image.last().rom();
    read(&rom, &chain(&rom).images[0])
}

fn said(image: Build) -> String {
    header(image).map_or("none".to_owned(), |efi| efi.to_string())
}

#[test]
fn a_driver_is_told_with_its_processor_and_what_can_be_seen_of_it() {
    let driver = |names| Build::driver(0x10de, 0x1b80, names);
    assert_eq!(said(driver(None)), "x64 boot driver, compressed");
    assert_eq!(said(driver(Some(&GRAPHICS_OUTPUT))), "x64 boot driver, names GOP");
    assert_eq!(said(driver(Some(b"nothing"))), "x64 boot driver, names no GOP");
    assert_eq!(said(driver(None).set(SUBSYSTEM, 0x0c)), "x64 runtime driver, compressed");
    assert_eq!(said(driver(None).put(MACHINE, &[0x64, 0xaa])), "Arm with 64 bits boot driver, compressed");
    assert_eq!(said(driver(None).put(MACHINE, &[0xbc, 0x0e])), "EFI byte code boot driver, compressed");
}

#[test]
fn what_uefi_could_not_load_is_damaged() {
    let damaged = "x64 boot driver, damaged";
    // A compressed program that goes on behind the image's end, and one of no length.
    assert_eq!(said(Build::driver(1, 2, None).put(0x80, &[0x79, 3])), damaged);
    assert_eq!(said(Build::driver(1, 2, None).put(0x80, &[0x78, 3])), "x64 boot driver, compressed");
    assert_eq!(said(Build::driver(1, 2, None).put(0x80, &[0; 4])), damaged);
    // No PE file, one of another processor, one outside, and an unknown compression.
    assert_eq!(said(Build::driver(1, 2, Some(&[])).set(0x80, b'X')), damaged);
    assert_eq!(said(Build::driver(1, 2, Some(&[])).set(0xc4, 0x4c)), damaged);
    assert_eq!(said(Build::driver(1, 2, Some(&[])).put(0x16, &[0xff, 0xff])), damaged);
    assert_eq!(said(Build::driver(1, 2, None).set(COMPRESSION, 2)), damaged);
}

#[test]
fn without_its_header_or_its_code_type_there_is_none() {
    assert_eq!(header(Build::efi(1, 2, 1)), None);
    assert_eq!(header(Build::driver(1, 2, None).set(PCIR + 0x14, 0)), None);
}
