//! Where a ROM comes from and what is done to it, with a device that is a struct.

use super::super::backend::RegionInfo;
use super::*;
use crate::rom::image::tests::{Build, PCIR};

/// A device that gives its ROM only while it decodes memory, as the kernel has it.
struct Card {
    regions: Vec<RegionInfo>,
    config: [u8; 64],
    rom: Vec<u8>,
    /// What COMMAND was when its ROM was read.
    command_then: Option<u8>,
}

impl Card {
    fn new(rom: Vec<u8>) -> Card {
        let mut config = [0; 64];
        config[..8].copy_from_slice(&[0x34, 0x12, 0x11, 0x11, 1, 0, 0, 0]);
        let mut regions = vec![RegionInfo::default(); 8];
        let size = rom.len() as u64;
        regions[usize::from(Region::ROM.0)] =
            RegionInfo { size, readable: size > 0, ..RegionInfo::default() };
        Card { regions, config, rom, command_then: None }
    }

    fn load(&mut self) -> Option<Rom> {
        Rom::load(&Source::Device, self).unwrap()
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        assert_eq!((region, width), (Region::CONFIG, Width::B2));
        let at = usize::try_from(offset).unwrap();
        Ok(u64::from(self.config[at]) | u64::from(self.config[at + 1]) << 8)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        assert_eq!((region, offset, width), (Region::CONFIG, 4, Width::B2));
        self.config[4..6].copy_from_slice(&value.to_le_bytes()[..2]);
        Ok(())
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        assert_eq!((region, offset), (Region::ROM, 0));
        self.command_then = Some(self.config[4]);
        if self.config[4] & 2 == 0 {
            return Err(Fault::Failed);
        }
        bytes.copy_from_slice(&self.rom);
        Ok(())
    }
}

fn bytes(rom: &Rom) -> Vec<u8> {
    let mut bytes = vec![0; rom.memory().size()];
    rom.memory().as_volatile_slice().read_slice(&mut bytes, 0).unwrap();
    bytes
}

fn file(image: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    file
}

fn load_file(image: &[u8]) -> Result<Option<Rom>, Error> {
    let file = file(image);
    Rom::load(&Source::File(file.path().to_owned()), &mut Card::new(Vec::new()))
}

#[test]
fn a_device_decodes_memory_while_its_rom_is_read_and_no_longer() {
    let image = Build::bios(0x1234, 0x1111, 3).last().rom();
    let mut card = Card::new(image.clone());
    let rom = card.load().unwrap();
    assert_eq!((card.command_then, card.config[4]), (Some(3), 1));
    assert_eq!(rom.size(), 4096);
    let all = bytes(&rom);
    assert_eq!(all[..image.len()], image);
    assert!(all[image.len()..].iter().all(|byte| *byte == 0xff));
}

#[test]
fn the_devices_own_image_is_put_right() {
    let image = Build::bios(0x1234, 0x0bad, 2).last().set(0x100, 7).rom();
    let rom = bytes(&Card::new(image).load().unwrap());
    let image = &rom::chain(&rom).images[0];
    assert_eq!((image.device, image.checksum(&rom)), (0x1111, Some(0)));
}

#[test]
fn what_was_found_is_one_line_and_what_matters_to_a_bios_is_said() {
    let image = Build::bios(0x1234, 0x0bad, 2).then(Build::efi(0x1234, 0x1111, 1).last());
    let rom = Card::new(image.clone()).load().unwrap();
    assert_eq!(
        rom.found(),
        "BIOS image of 1 KiB for 1234:1111; UEFI image of 512 bytes for 1234:1111; a BIOS runs the image at 0x0"
    );
    let ids = Ids { vendor: 0x1234, device: 0x1111 };
    let (report, said) = put_right(&mut image.clone(), Some(ids), Repair::All);
    // UEFI would not load the second, which is nothing to a BIOS.
    assert!(report.verdict(check::Firmware::Uefi).is_err());
    assert_eq!(said, ["the image at 0x0 is for 1234:0bad; the guest sees 1234:1111 in it"]);
    let (report, said) = put_right(&mut Build::efi(0x1234, 0x1111, 1).last().rom(), Some(ids), Repair::All);
    assert_eq!(said, ["it has no image for a BIOS; SeaBIOS will show nothing on this adapter"], "{report}");
}

#[test]
fn a_device_without_a_usable_rom_has_none() {
    assert!(Card::new(Vec::new()).load().is_none(), "no region");
    assert!(Card::new(vec![0xff; 4096]).load().is_none(), "no signature");
    let mut unreadable = Card::new(Build::bios(0x1234, 0x1111, 2).last().rom());
    unreadable.rom.truncate(0);
    unreadable.regions[usize::from(Region::ROM.0)].readable = false;
    assert!(unreadable.load().is_none());
    let mut hangs = Card::new(Build::bios(0x14e4, 0x168e, 2).last().rom());
    hangs.config[..4].copy_from_slice(&[0xe4, 0x14, 0x8e, 0x16]);
    assert!(hangs.load().is_none(), "its ROM is known to hang guests");
}

#[test]
fn a_file_is_taken_as_it_is_but_for_the_id() {
    let right = Build::bios(0x1234, 0x1111, 2).last().set(0x100, 7).rom();
    let rom = load_file(&right).unwrap().unwrap();
    assert_eq!(bytes(&rom)[..1024], right, "a wrong checksum may be meant");
    let report = rom.report().to_string();
    assert!(rom.found().starts_with("the file /") && rom.found().ends_with(&format!(": {report}")));
    assert!(!report.contains('/'), "a report has no names of files: {report}");
    let other = Build::bios(0x1234, 0x0bad, 2).last().rom();
    let rom = bytes(&load_file(&other).unwrap().unwrap());
    assert_eq!(rom[PCIR + 6..PCIR + 8], [0x11, 0x11]);
    assert_eq!(rom::chain(&rom).images[0].checksum(&rom), Some(0));
}

#[test]
fn a_file_that_is_no_rom_is_refused_in_one_line() {
    let refused = |image: &[u8]| load_file(image).unwrap_err().to_string();
    assert!(refused(b"text").contains("does not start with 55 aa: it is no expansion ROM"));
    let dump = [vec![0; 0x600], Build::bios(1, 2, 1).last().rom()].concat();
    assert!(refused(&dump).contains("before its first image"), "{}", refused(&dump));
    let mut large = vec![0; (16 << 20) + 1];
    large[..2].copy_from_slice(&SIGNATURE);
    assert!(refused(&large).contains("larger than 16 MiB"));
    let mut card = Card::new(Vec::new());
    let folder = Rom::load(&Source::File(std::env::temp_dir()), &mut card).unwrap_err().to_string();
    assert!(folder.contains("no regular file") && !folder.contains('\n'), "{folder}");
}
