//! Reports of ROMs that the tests build, and of those of the distribution.

use super::*;
use crate::rom::image::tests::{Build, PCIR, program};

const IDS: Ids = Ids { vendor: 0x10de, device: 0x1b80 };

fn about(ids: Ids) -> About {
    About { ids: Some(ids), shadow: false }
}

fn codes(report: &Report) -> Vec<(&'static str, Severity)> {
    report.remarks.iter().map(|remark| (remark.code, remark.severity)).collect()
}

/// An image for a BIOS with a table of NVIDIA's that has two tokens.
fn geforce() -> Build {
    let table = [&b"\xff\xb8BIT\0"[..], &[0, 1, 12, 6, 2, 0], &[b'B', 2, 1, 0, 0, 0], &[b'i', 2, 5, 0, 0, 2]];
    Build::bios(IDS.vendor, IDS.device, 2).put(0x100, &table.concat()).put(0x200, &[1, 0, 0x17, 0x86, 0x40])
}

/// One with AMD's.
fn radeon() -> Build {
    let header = [&[0x24, 0, 1, 2][..], b"ATOM", &[0; 16], &[0x02, 0x10, 0x36, 0x0b]].concat();
    // The pointer lies where other images have their PCI data structure.
    let image = Build::bios(0x1002, 0x687f, 2).put(0x18, &[0, 1]).put(0x100, &pcir(0x1002, 0x687f));
    image.put(0x48, &[0x90, 1]).put(0x190, &header)
}

fn pcir(vendor: u16, device: u16) -> Vec<u8> {
    let [a, b] = vendor.to_le_bytes();
    let [c, d] = device.to_le_bytes();
    [&b"PCIR"[..], &[a, b, c, d, 0, 0, 0x18, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0x80, 0, 0]].concat()
}

#[test]
fn a_geforces_rom_is_told_in_one_line() {
    let rom = geforce().settled().then(Build::driver(IDS.vendor, IDS.device, None).last());
    let report = check(&rom, about(IDS));
    assert_eq!(
        report.to_string(),
        "BIOS image of 1 KiB for 10de:1b80 (NVIDIA 86.17.00.01.40, BIT at 0x100); UEFI image of 1 KiB for 10de:1b80 \
         (x64 boot driver, compressed, names GOP); a BIOS runs the image at 0x0"
    );
    assert_eq!(codes(&report), []);
    assert_eq!((report.verdict(Firmware::Bios), report.verdict(Firmware::Uefi)), (Ok(0), Ok(1024)));
}

#[test]
fn a_radeons_tables_are_found_and_missed() {
    let rom = radeon().settled().rom();
    let report = check(&rom, About::default());
    let Some(Tables::Amd(atom)) = &report.parts[0].tables else { panic!("{report:?}") };
    assert_eq!((atom.at, atom.revision, atom.subsystem), (0x190, (1, 2), (0x1002, 0x0b36)));
    assert_eq!(codes(&report), [("no-uefi", Severity::Note)]);
    let without = check(&radeon().set(0x194, b'X').settled().rom(), About::default());
    assert_eq!(codes(&without), [("no-tables", Severity::Note), ("no-uefi", Severity::Note)]);
}

#[test]
fn a_part_number_is_text_at_one_of_two_places() {
    let number = |build: Build| {
        let rom = build.settled().rom();
        amd::read(&rom, &image::chain(&rom).images[0]).unwrap().to_string()
    };
    // By the pointer, which overlaps no structure at its usual place.
    let image =
        Build::bios(0x1002, 0x687f, 2).put(0x48, b"").put(0x18, &[0, 1]).put(0x100, &pcir(0x1002, 0x687f));
    let image = image.put(0x48, &[0x90, 1]).put(0x194, b"ATOM");
    let pointed = image.clone().put(0x2f, &[4]).put(0x6e, &[0, 2]).put(0x200, b"113-D050\0");
    assert_eq!(number(pointed), "AMD 113-D050, ATOM at 0x190");
    assert_eq!(number(image.clone().set(0x2f, 0).put(0x80, b"113-XYZ ")), "AMD 113-XYZ, ATOM at 0x190");
    assert_eq!(number(image.set(0x2f, 0).put(0x80, &[0; 3])), "AMD, ATOM at 0x190");
}

#[test]
fn an_old_table_of_nvidias_is_read_too() {
    let rom = Build::bios(IDS.vendor, 0x0200, 2).put(0x100, b"\xff\x7fNV\0").put(0x10a, &[4, 3, 2, 1]);
    let rom = rom.last().rom();
    let report = check(&rom, About::default());
    let tables = report.parts[0].tables.as_ref().unwrap();
    assert_eq!(tables.to_string(), "NVIDIA 01.02.03.04.00, BMP at 0x100");
}

#[test]
fn what_keeps_a_bios_from_an_image_is_why_it_runs_none() {
    let stopped = |rom: &[u8], about: About, code: &str| {
        let report = check(rom, about);
        let why = report.verdict(Firmware::Bios).unwrap_err();
        let remark = report.remarks.iter().find(|remark| remark.text == why).unwrap();
        assert_eq!((remark.code, remark.severity), (code, Severity::Stops));
        assert!(report.to_string().contains(&format!("a BIOS runs none: {why}")), "{report}");
    };
    let good = geforce().last();
    let rom = good.clone().rom();
    assert_eq!(check(&rom, about(IDS)).verdict(Firmware::Bios), Ok(0));
    stopped(&[], About::default(), "empty");
    stopped(&[0xff; 4096], About::default(), "blank");
    stopped(b"no ROM at all", About::default(), "no-rom");
    stopped(&[&b"NVGI"[..], &[0; 0x5fc], &rom].concat(), About::default(), "data-before");
    stopped(&rom, About { shadow: true, ..about(IDS) }, "shadow");
    stopped(&rom, about(Ids { device: 1, ..IDS }), "other-device");
    stopped(&rom, about(Ids { vendor: 1, ..IDS }), "other-vendor");
    stopped(&rom[..1000], About::default(), "truncated");
    stopped(&good.clone().set(0x180, 1).rom(), About::default(), "checksum");
    stopped(&good.clone().set(2, 0).rom(), About::default(), "no-size");
    stopped(&good.set(PCIR, 0).rom(), About::default(), "broken-chain");
}

#[test]
fn a_bios_passes_over_an_image_of_another_function() {
    let rom = Build::bios(IDS.vendor, 1, 1).then(geforce().last());
    let report = check(&rom, about(IDS));
    assert_eq!(report.verdict(Firmware::Bios), Ok(512));
    assert_eq!(report.remarks[0].code, "other-device");
}

#[test]
fn what_only_nvidias_structure_tells_of_is_not_reached() {
    let first = geforce().put(0x60, b"NPDE").put(0x68, &[2, 0, 0, 0]).last();
    let first = first.set(0x6a, 0).settled();
    let rom = first.then(Build::driver(IDS.vendor, IDS.device, None).last());
    let report = check(&rom, about(IDS));
    assert_eq!(report.parts.iter().map(|part| part.reached).collect::<Vec<_>>(), [true, false]);
    assert!(report.remarks.iter().any(|remark| remark.code == "hidden-images"));
    assert_eq!(report.verdict(Firmware::Uefi), Err("there is no image for UEFI in it".to_owned()));
}

#[test]
fn a_rom_for_uefi_alone_is_none_for_a_bios() {
    let rom = Build::driver(IDS.vendor, IDS.device, Some(b"no name")).last().rom();
    let report = check(&rom, about(IDS));
    assert_eq!(codes(&report), [("no-bios", Severity::Warning), ("no-gop", Severity::Warning)]);
    assert_eq!(report.verdict(Firmware::Uefi), Ok(0));
    assert_eq!(report.verdict(Firmware::Bios), Err("there is no image for a BIOS in it".to_owned()));
    for (at, byte, code) in [(4, 0, "no-efi-header"), (0x0b, 0xaa, "efi-machine"), (0x80, 0, "efi-damaged")] {
        let report = check(&Build::driver(1, 2, Some(&[])).set(at, byte).last().rom(), About::default());
        assert!(codes(&report).contains(&(code, Severity::Stops)), "{code}: {report:?}");
        assert!(report.verdict(Firmware::Uefi).is_err());
    }
    let unknown = check(&Build::driver(1, 2, None).set(0x0c, 2).last().rom(), About::default());
    for expected in [("efi-compression", Severity::Stops), ("gop-hidden", Severity::Note)] {
        assert!(codes(&unknown).contains(&expected), "{unknown:?}");
    }
    assert!(unknown.verdict(Firmware::Uefi).unwrap_err().contains("by method 0x2, which UEFI does not know"));
    let application = check(&Build::driver(1, 2, None).set(8, 0x0a).last().rom(), About::default());
    assert!(codes(&application).contains(&("efi-subsystem", Severity::Warning)));
}

#[test]
fn a_compressed_driver_is_judged_by_what_is_in_it() {
    let said = |program: &[u8]| {
        let report = check(&Build::compressed(IDS.vendor, IDS.device, program).last().rom(), about(IDS));
        let codes: Vec<_> = codes(&report).into_iter().filter(|(code, _)| *code != "no-bios").collect();
        (codes, report.verdict(Firmware::Uefi).is_ok())
    };
    assert_eq!(said(&program(&efi::GRAPHICS_OUTPUT)), (vec![], true));
    assert_eq!(said(&program(b"no name")), (vec![("no-gop", Severity::Warning)], true));
    assert_eq!(said(b"no program"), (vec![("efi-damaged", Severity::Stops)], false));
}

#[test]
fn signs_of_a_copy_that_was_run_are_told() {
    // Its third byte says less than its PCI data structure.
    let shrunk = geforce().set(2, 1).last();
    let sum = shrunk.clone().rom()[..512].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let mut rom = shrunk.rom();
    rom[6] = rom[6].wrapping_sub(sum);
    let report = check(&rom, About::default());
    assert!(codes(&report).contains(&("runtime-size", Severity::Warning)), "{report:?}");
    assert_eq!(report.verdict(Firmware::Bios), Ok(0));
    // The area at c0000 with a network card's ROM behind the adapter's.
    let mut area = geforce().last().rom();
    area.resize(0x2_0000, 0);
    assert!(codes(&check(&area, About::default())).contains(&("blank-behind", Severity::Note)));
    area[0x1_0000..0x1_0002].copy_from_slice(&SIGNATURE);
    assert!(codes(&check(&area, About::default())).contains(&("shadow-like", Severity::Warning)));
    area.truncate(0x1_8000);
    assert!(codes(&check(&area, About::default())).contains(&("data-behind", Severity::Note)));
}

#[test]
fn sizes_are_short() {
    let said = |bytes| Size(bytes).to_string();
    assert_eq!(
        [said(18), said(512), said(1024), said(1536), said(1537)],
        ["18 bytes", "512 bytes", "1 KiB", "1.5 KiB", "1537 bytes"]
    );
}

/// The ROMs of the adapters that QEMU has.
#[test]
fn the_distributions_roms_are_good_to_boot_as_far_as_they_are_for_pci() {
    let known = [
        ("stdvga", "39 KiB for 1234:1111"),
        ("cirrus", "38.5 KiB for 1013:00b8"),
        ("vmware", "39 KiB for 15ad:0405"),
        ("virtio", "39 KiB for 1af4:1050"),
        ("ati", "39 KiB for 1002:5159"),
        ("bochs-display", "28 KiB for 1234:1111"),
    ];
    for (name, wanted) in known {
        let path = format!("/usr/share/seabios/vgabios-{name}.bin");
        let Ok(rom) = std::fs::read(&path) else {
            eprintln!("skipped: there is no {path} (Debian, Ubuntu: package seabios)");
            continue;
        };
        let report = check(&rom, About::default());
        assert_eq!(report.verdict(Firmware::Bios), Ok(0), "{path}: {report}");
        assert!(report.to_string().starts_with("BIOS image of "), "{path}: {report}");
        // Sizes differ from version to version.
        let ids = wanted.split_once(" for ").unwrap().1;
        assert!(report.to_string().contains(ids), "{path}: {report}");
        assert!(report.remarks.iter().all(|remark| remark.severity == Severity::Note), "{path}: {report:?}");
    }
    // Those of adapters that are no PCI functions have no PCI data structure.
    if let Ok(rom) = std::fs::read("/usr/share/seabios/vgabios-ramfb.bin") {
        let report = check(&rom, About::default());
        assert_eq!((report.parts.len(), report.remarks[0].code), (0, "broken-chain"));
    }
}
