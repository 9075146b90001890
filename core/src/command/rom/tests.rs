//! The commands on files that the tests build: what is printed, what is written, how they end.

use clap::Parser;

use super::*;

#[path = "../../../../devices/tests/rom_found/driver.rs"]
mod found;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

/// Carries a command line out; `@` in it is the folder.
fn run(folder: &Path, line: &str) -> Result<Status> {
    let words = line.split_whitespace().map(|word| word.replace('@', &folder.display().to_string()));
    rom(Cli::try_parse_from(std::iter::once("rom".to_owned()).chain(words))?.arguments)
}

fn said(folder: &Path, line: &str) -> String {
    let text = super::super::one_line(&run(folder, line).unwrap_err());
    text.replace(&folder.display().to_string(), "@")
}

/// An image of one block with a right checksum.
fn image(device: u16, code: u8, last: bool) -> Vec<u8> {
    let [low, high] = device.to_le_bytes();
    let mut bytes = vec![0; 512];
    bytes[..6].copy_from_slice(&[0x55, 0xaa, 1, 0xe9, 0x80, 0]);
    bytes[0x18] = 0x1c;
    bytes[0x1c..0x24].copy_from_slice(&[b'P', b'C', b'I', b'R', 0xde, 0x10, low, high]);
    (bytes[0x26], bytes[0x2b], bytes[0x2c], bytes[0x30]) = (0x18, 3, 1, code);
    bytes[0x31] = u8::from(last) << 7;
    if code == 3 {
        bytes[4..14].copy_from_slice(&[0xf1, 0x0e, 0, 0, 0x0b, 0, 0x64, 0x86, 1, 0]);
        bytes[0x16] = 0x60;
        bytes[0x60..0x60 + found::DRIVER.len()].copy_from_slice(&found::DRIVER);
    }
    bytes[511] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    bytes
}

/// A card's flash: NVIDIA's header, a BIOS with a table, a driver for UEFI, and what nobody needs.
fn flash() -> Vec<u8> {
    let mut bios = image(0x1b80, 0, false);
    bios[0x100..0x10c].copy_from_slice(b"\xff\xb8BIT\0\0\x01\x0c\x06\x00\x00");
    bios[511] = 0;
    bios[511] = bios.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    [&b"NVGI"[..], &[0; 0x5fc], &bios, &image(0x1b80, 3, true), &[0xff; 100]].concat()
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn page(bytes: &[u8], about: About) -> String {
    page::text("card.rom: so many bytes", &check::check(bytes, about), None)
}

#[test]
fn a_flash_is_told_in_a_table_and_what_it_means() {
    assert_eq!(
        page(&flash(), About::default()),
        "\
card.rom: so many bytes

  OFFSET       SIZE  FOR             ID         CLASS   CHECKSUM  CONTENTS
     0x0  512 bytes  BIOS            10de:1b80  030000  right     NVIDIA, BIT at 0x100
   0x200  512 bytes  UEFI            10de:1b80  030000  -         x64 boot driver, compressed, names GOP

    BIOS        runs none, as said below
    UEFI        runs none, as said below
    ! stops     NVIDIA's flash header of 0x600 bytes stands before the first image, so that firmware
                finds none (rom fix cuts it off)
    note        behind its last image are 100 bytes of 0xff, which nobody needs
"
    );
    assert_eq!(
        page(&[0xff; 4096], About::default()),
        "\
card.rom: so many bytes

    BIOS        runs none, as said below
    UEFI        runs none, as said below
    ! stops     it is all ones: when it was read the device slept, did not decode, or has no ROM of
                its own
"
    );
    // The driver's stream is damaged, or compressed in another way.
    let changed = |at, byte| {
        let mut bytes = image(0x1b80, 3, true);
        bytes[at] = byte;
        page(&bytes, About::default())
    };
    assert_eq!(
        changed(0x70, 0xff),
        "\
card.rom: so many bytes

  OFFSET       SIZE  FOR             ID         CLASS   CHECKSUM  CONTENTS
     0x0  512 bytes  UEFI            10de:1b80  030000  -         x64 boot driver, damaged

    BIOS        runs none: there is no image for a BIOS in it
    UEFI        runs none, as said below
    ! stops     the image at 0x0 has no program in it that UEFI could load: it is cut or damaged
    ! warning   it has no image for a BIOS; SeaBIOS will show nothing on this adapter
"
    );
    assert_eq!(
        changed(0x0c, 2),
        "\
card.rom: so many bytes

  OFFSET       SIZE  FOR             ID         CLASS   CHECKSUM  CONTENTS
     0x0  512 bytes  UEFI            10de:1b80  030000  -         x64 boot driver, compressed by the unknown method 0x2

    BIOS        runs none: there is no image for a BIOS in it
    UEFI        runs none, as said below
    ! stops     the image at 0x0 is compressed by method 0x2, which UEFI does not know: it is not
                loaded
    ! warning   it has no image for a BIOS; SeaBIOS will show nothing on this adapter
    note        the image at 0x0 cannot be looked into: whether it has a graphics output protocol
                (GOP) is not known
"
    );
    let lines = page(&flash()[0x600..], About { ids: None, shadow: true });
    assert!(lines.contains("! stops     it is the copy that the host's firmware has already run"), "{lines}");
}

#[test]
fn a_dump_has_the_images_of_a_flash_and_nothing_else() {
    let folder = folder(&[("flash", &flash())]);
    let file = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(run(folder.path(), "dump @/flash @/all").unwrap(), Status::Success);
    assert_eq!(file("all"), flash()[0x600..0xa00]);
    // One image alone is as it was, and says still that another follows.
    assert_eq!(run(folder.path(), "dump @/flash @/bios --only bios").unwrap(), Status::Success);
    assert_eq!(file("bios"), flash()[0x600..0x800]);
    assert_eq!(run(folder.path(), "dump @/flash @/uefi --only 0x03").unwrap(), Status::Unfit);
    assert_eq!(
        run(folder.path(), "dump @/flash @/uefi --only uefi --for uefi --force").unwrap(),
        Status::Success
    );
    assert_eq!(run(folder.path(), "dump @/flash @/whole --whole").unwrap(), Status::Unfit);
    assert_eq!(file("whole"), flash());
}

#[test]
fn nothing_is_overwritten_unless_that_is_asked_for() {
    let folder = folder(&[("flash", &flash()), ("there", b"mine")]);
    let there = "@/there: there is such a file already, which --force overwrites";
    assert_eq!(said(folder.path(), "dump @/flash @/there"), there);
    assert_eq!(said(folder.path(), "fix @/flash @/there"), there);
    assert_eq!(std::fs::read(folder.path().join("there")).unwrap(), b"mine");
    assert_eq!(run(folder.path(), "fix @/flash @/there --force").unwrap(), Status::Success);
    assert!(
        run(folder.path(), "fix @/flash").is_err()
            && run(folder.path(), "fix @/flash @/x --in-place").is_err()
    );
    assert_eq!(std::fs::read(folder.path().join("flash")).unwrap(), flash());
}

#[test]
fn a_fixed_rom_is_good_and_stays_so() {
    let folder = folder(&[("flash", &flash())]);
    let file = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(run(folder.path(), "fix @/flash @/rom --ids 10de:1b81").unwrap(), Status::Success);
    assert_eq!(run(folder.path(), "check @/rom --ids 10de:1b81").unwrap(), Status::Success);
    assert_eq!(run(folder.path(), "check @/rom --ids 10de:1b80").unwrap(), Status::Unfit);
    let before = file("rom");
    assert_eq!(run(folder.path(), "fix @/rom --in-place").unwrap(), Status::Success);
    assert_eq!(file("rom"), before);
    assert_eq!(run(folder.path(), "fix @/flash --in-place --only uefi --for any").unwrap(), Status::Success);
    assert_eq!(file("flash"), flash()[0x800..0xa00]);
}

#[test]
fn a_copy_that_was_run_is_known_beside_the_untouched_one() {
    let pristine = &flash()[0x600..0xa00];
    let mut run_copy = pristine[..512].to_vec();
    (run_copy[0x180], run_copy[0x181]) = (1, 0xff);
    let folder = folder(&[("pristine", pristine), ("copy", &run_copy)]);
    assert_eq!(run(folder.path(), "check @/copy").unwrap(), Status::Success, "nothing in it tells");
    assert_eq!(run(folder.path(), "check @/copy --against @/pristine").unwrap(), Status::Unfit);
    assert_eq!(run(folder.path(), "check @/pristine --against @/pristine").unwrap(), Status::Success);
    let comparison = compare::compare(&run_copy, pristine);
    let mut report = check::check(&run_copy, About::default());
    report.compared(&comparison);
    let text = page::text("copy", &report, Some(&comparison));
    assert!(
        text.contains("    differs     0x180 to 0x181: code and variables of the BIOS image\n"),
        "{text}"
    );
}

#[test]
fn programs_read_json() {
    let found = Found { bytes: flash(), name: "card".into(), how: None, ids: None, shadow: false };
    let report = check::check(&found.bytes, found.about(None));
    let comparison = compare::compare(&flash()[0x600..], &flash()[0x600..]);
    let text = document::json(&found, &report, Some(&comparison)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["size"], &value["start"]), (&flash().len().into(), &0x600.into()));
    assert_eq!(value["images"][1]["efi"], "x64 boot driver, compressed, names GOP");
    assert!(value["remarks"].as_array().unwrap().iter().all(|remark| remark["code"] != "gop-hidden"));
    assert_eq!(value["images"][0]["checksum"], 0);
    assert_eq!(value["remarks"][0]["code"], "data-before");
    assert_eq!(value["bios"]["image"], serde_json::Value::Null);
    assert_eq!(value["bios"]["reason"], value["remarks"][0]["text"]);
    assert_eq!(value["differences"]["judgement"], "same");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = folder(&[("blank", &[0xff; 512]), ("flash", &flash())]);
    let said = |line: &str| said(folder.path(), line);
    assert_eq!(said("check @/none"), "@/none: there is no such file");
    assert!(said("dump @/blank @/x").ends_with("(--whole writes what was read all the same)"));
    assert!(said("fix @/blank @/x").starts_with("@/blank: it is all ones"));
    assert!(said("dump @/flash @/x --only 1").starts_with("@/flash: it has no such image"));
    assert_eq!(said("dump @/flash @/no/x"), "@/no/x: there is no directory @/no; create it first");
    assert!(said("check @/flash --ids 10de").starts_with("--ids 10de: give two numbers"));
    assert!(said("check ff:1f.7").starts_with("0000:ff:1f.7: there is no such PCI function"));
    assert!(
        said("check @/flash --device ff:1f.7").starts_with("--device 0000:ff:1f.7: this host has no such")
    );
    assert!(run(folder.path(), "check @/flash --only gop").is_err());
    assert!(said("dump @/flash @/x --only gop").contains("numbers of code types"));
}
