//! Images for UEFI that the tests build.

use super::*;
use crate::rom::decompress::tests::{Way, compress};
use crate::rom::image::chain;
use crate::rom::image::tests::{Build, PCIR, program};

#[path = "../../../tests/rom_found/driver.rs"]
mod found;

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
    let compressed = "x64 boot driver, compressed, names GOP";
    assert_eq!(said(driver(None)), compressed);
    assert_eq!(
        said(Build::compressed(1, 2, &program(b"nothing"))),
        "x64 boot driver, compressed, names no GOP"
    );
    assert_eq!(said(driver(Some(&GRAPHICS_OUTPUT))), "x64 boot driver, names GOP");
    assert_eq!(said(driver(Some(b"nothing"))), "x64 boot driver, names no GOP");
    assert_eq!(said(driver(None).set(SUBSYSTEM, 0x0c)), "x64 runtime driver, compressed, names GOP");
    for (machine, name) in [([0x64, 0xaa], "Arm with 64 bits"), ([0xbc, 0x0e], "EFI byte code")] {
        let mut file = program(&GRAPHICS_OUTPUT);
        file[0x44..0x46].copy_from_slice(&machine);
        let image = Build::compressed(1, 2, &file).put(MACHINE, &machine);
        assert_eq!(said(image), format!("{name} boot driver, compressed, names GOP"));
    }
}

#[test]
fn the_driver_of_other_tests_is_what_it_says() {
    let way = Way { block: 1000, strings: true, shape: 0 };
    assert_eq!(compress(&program(&GRAPHICS_OUTPUT), way), found::DRIVER);
}

#[test]
fn what_uefi_could_not_load_is_damaged() {
    let damaged = "x64 boot driver, damaged";
    let compressed = || Build::driver(1, 2, None);
    let sizes = |packed: u32, whole: u32| {
        said(compressed().put(0x80, &packed.to_le_bytes()).put(0x84, &whole.to_le_bytes()))
    };
    let names = "x64 boot driver, compressed, names GOP";
    // What fills the image is not read. The program has 144 bytes, the name of GOP in the last 16 of them.
    assert_eq!(sizes(0x378, 144), names);
    assert_eq!(sizes(0x378, 143), "x64 boot driver, compressed, names no GOP");
    // A compressed program that goes on behind the image's end, and one of no length; one that is longer than what it
    // is made of, one of which too little is left for a PE header, one that is larger than any is.
    for (packed, whole) in [(0x379, 144), (0, 144), (0x20, 144), (0x378, 0), (0x378, 0x40), (0x378, u32::MAX)]
    {
        assert_eq!(sizes(packed, whole), damaged, "{packed} {whole}");
    }
    // A stream that is none, and what is no PE file, or one of another processor, when it is decompressed.
    assert_eq!(said(compressed().put(0x88, &[0; 16])), damaged);
    assert_eq!(said(compressed().put(0x88, &[0xff; 16])), damaged);
    assert_eq!(said(Build::compressed(1, 2, &[0x90; 500])), damaged);
    assert_eq!(said(compressed().put(MACHINE, &[0x64, 0xaa])), "Arm with 64 bits boot driver, damaged");
    // No PE file, one of another processor, and one outside.
    assert_eq!(said(Build::driver(1, 2, Some(&[])).set(0x80, b'X')), damaged);
    assert_eq!(said(Build::driver(1, 2, Some(&[])).set(0xc4, 0x4c)), damaged);
    assert_eq!(said(Build::driver(1, 2, Some(&[])).put(0x16, &[0xff, 0xff])), damaged);
}

#[test]
fn only_behind_an_unknown_compression_everything_is_hidden() {
    let image = Build::driver(1, 2, Some(&GRAPHICS_OUTPUT)).set(COMPRESSION, 2);
    assert_eq!(said(image.clone()), "x64 boot driver, compressed by the unknown method 0x2");
    assert_eq!(header(image).unwrap().graphics, Graphics::Hidden);
}

#[test]
fn without_its_header_or_its_code_type_there_is_none() {
    assert_eq!(header(Build::efi(1, 2, 1)), None);
    assert_eq!(header(Build::driver(1, 2, None).set(PCIR + 0x14, 0)), None);
}
