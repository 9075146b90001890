//! ROMs made of files that the tests build.

use super::*;
use crate::rom::check::{About, Firmware, check};
use crate::rom::image::tests::{Build, PCIR};

const IDS: Ids = Ids { vendor: 0x10de, device: 0x2204 };

/// A card's ROM as it lies in its flash: the BIOS says that it is the last, NVIDIA's structure that it is not.
fn rom() -> Vec<u8> {
    let bios = Build::bios(IDS.vendor, IDS.device, 4).put(0x60, b"NPDE").put(0x68, &[4, 0, 0, 0]);
    let bios = bios.set(PCIR + 0x15, 0x80).settled();
    bios.then(Build::driver(IDS.vendor, IDS.device, None).last())
}

fn done(fixed: &Fixed) -> Vec<String> {
    fixed.done.iter().map(ToString::to_string).collect()
}

#[test]
fn a_dump_of_a_flash_becomes_a_rom_that_firmware_takes() {
    let dump = [&b"NVGI"[..], &[0; 0x5fc], &rom(), &[0xee; 700]].concat();
    let fixed = fix(&dump, &Wish { ids: Some(Ids { device: 0x2206, ..IDS }), keep: Vec::new() }).unwrap();
    assert_eq!(
        done(&fixed),
        [
            "cut off 1.5 KiB before the first image",
            "cut off 700 bytes behind the last image",
            "marked the image at 0x0 as one that another follows",
            "made the image at 0x0, of 10de:2204, one for 10de:2206",
            "made the checksum of the image at 0x0 right",
            "made the image at 0x800, of 10de:2204, one for 10de:2206",
        ]
    );
    let report = check(&fixed.rom, About { ids: Some(Ids { device: 0x2206, ..IDS }), shadow: false });
    assert_eq!((report.verdict(Firmware::Bios), report.verdict(Firmware::Uefi)), (Ok(0), Ok(2048)));
    let again =
        fix(&fixed.rom, &Wish { ids: Some(Ids { device: 0x2206, ..IDS }), keep: Vec::new() }).unwrap();
    assert_eq!(again, Fixed { rom: fixed.rom, done: Vec::new() });
}

#[test]
fn what_is_right_stays_as_it_is() {
    let rom = Build::bios(1, 2, 3).then(Build::driver(1, 2, None).last());
    assert_eq!(fix(&rom, &Wish::default()).unwrap(), Fixed { rom, done: Vec::new() });
}

#[test]
fn images_are_chosen_and_the_last_is_marked() {
    let keep = |code| fix(&rom(), &Wish { ids: None, keep: vec![code] });
    let bios = keep(CodeType::Bios).unwrap();
    assert_eq!(
        done(&bios)[..2],
        ["left out the UEFI image that was at 0x800", "marked the image at 0x0 as the last"]
    );
    assert_eq!(check(&bios.rom, About::default()).verdict(Firmware::Bios), Ok(0));
    let uefi = keep(CodeType::Efi).unwrap();
    assert_eq!((uefi.rom.len(), check(&uefi.rom, About::default()).verdict(Firmware::Uefi)), (1024, Ok(0)));
    let none = keep(CodeType::OpenFirmware).unwrap_err().to_string();
    assert_eq!(none, "it has none of the images that are to be kept; it has BIOS, UEFI");
}

/// As in a real card's flash: behind the driver for UEFI, which is the last by its PCI data structure, stands an image
/// of NVIDIA's own.
#[test]
fn an_image_of_nvidias_own_is_kept_and_firmware_stops_before_it() {
    let driver = Build::driver(IDS.vendor, IDS.device, None).put(0x60, b"NPDE").put(0x68, &[2, 0, 0, 0]);
    let own =
        Build::efi(IDS.vendor, IDS.device, 1).put(0, b"VN").put(PCIR, b"NPDS").set(PCIR + 0x14, 0xe0).last();
    let rom = [Build::bios(IDS.vendor, IDS.device, 2).then(driver.set(PCIR + 0x15, 0x80)), own.clone().rom()]
        .concat();
    let report = check(&rom, About::default());
    assert_eq!((report.parts.len(), report.parts[2].image.own, report.parts[2].reached), (3, true, false));
    assert_eq!(report.verdict(Firmware::Uefi), Ok(1024));
    assert!(report.remarks.iter().all(|remark| remark.code == "no-tables"), "{report:?}");
    assert_eq!(fix(&rom, &Wish::default()).unwrap(), Fixed { rom: rom.clone(), done: Vec::new() });
    // Without it the driver is the last for NVIDIA too, which is not worth a word of a check.
    let cut = &rom[..2048];
    assert_eq!(check(cut, About::default()).remarks.len(), 1);
    assert_eq!(done(&fix(cut, &Wish::default()).unwrap()), ["marked the image at 0x400 as the last"]);
    let alone = fix(&rom, &Wish { ids: None, keep: vec![CodeType::Other(0xe0)] }).unwrap_err();
    assert!(alone.to_string().contains("NVIDIA's own would be the first"), "{alone}");
    assert_eq!(chain(&own.rom()).images.len(), 0, "it is never the first");
}

#[test]
fn what_is_missing_is_not_made_up() {
    let said = |file: &[u8], ids| fix(file, &Wish { ids, keep: Vec::new() }).unwrap_err().to_string();
    assert!(said(&[0xff; 64], None).starts_with("it is all ones"));
    assert!(said(&[0x55, 0xaa], None).contains("PCIR"));
    let cut = said(&rom()[..2500], None);
    assert!(cut.starts_with("the image at 0x800 goes on to 0xc00, but the file ends at 0x9c4"), "{cut}");
    // Another vendor's card, and an image of which a BIOS would copy nothing.
    let other = said(&rom(), Some(Ids { vendor: 0x1002, device: 1 }));
    assert!(other.contains("another vendor"), "{other}");
    let none = said(&Build::bios(1, 2, 2).set(2, 0).last().rom(), None);
    assert!(none.contains("copies nothing"), "{none}");
}

#[test]
fn an_image_that_reaches_into_the_next_is_no_reason_to_break_that() {
    // The first one's checksum is over the second as well.
    let rom = Build::bios(1, 2, 1).set(2, 2).set(6, 9).then(Build::bios(1, 2, 1).set(0x100, 9).last());
    match fix(&rom, &Wish::default()) {
        Ok(fixed) => {
            let report = check(&fixed.rom, About::default());
            assert!(report.parts.iter().all(|part| part.checksum == Some(0)), "{report:?}");
        }
        Err(error) => assert!(matches!(error, Unfixable::Stays(_)), "{error}"),
    }
}
