//! Any bytes as a file with an expansion ROM in it: they are read and told in bounded work, a repair changes only
//! what it may, and a ROM that is made of them is one that firmware takes.
//!
//! The tests of trapline-devices include this file and drive it with ROMs that were damaged.

use trapline_devices::rom::check::{self, About, Firmware, Severity};
use trapline_devices::rom::compare::{self, Judgement};
use trapline_devices::rom::decompress::{LARGEST, decompress};
use trapline_devices::rom::efi::{Body, Graphics};
use trapline_devices::rom::fix::{self, Fixed, Wish};
use trapline_devices::rom::{self, CodeType, Finding, Ids, Repair};

/// The first five bytes are the ids of a function and what to do; the rest is the file.
pub fn run(input: &[u8]) {
    let Some(([v, e, d, i, what], file)) = input.split_first_chunk() else { return };
    let ids = Ids { vendor: u16::from_le_bytes([*v, *e]), device: u16::from_le_bytes([*d, *i]) };
    repair(file, ids, if what & 1 == 0 { Repair::All } else { Repair::Id });
    decompressed(file);
    told(file, About { ids: (what & 2 == 0).then_some(ids), shadow: what & 4 != 0 });
    let keep = [CodeType::Bios, CodeType::Efi, CodeType::Other(0xe0)];
    let keep = keep.into_iter().zip(0..).filter(|(_, bit)| what >> 4 >> bit & 1 != 0);
    fixed(file, &Wish { ids: (what & 8 == 0).then_some(ids), keep: keep.map(|(code, _)| code).collect() });
}

fn repair(file: &[u8], ids: Ids, what: Repair) {
    let before = rom::chain(file);
    for image in &before.images {
        assert!(image.length > 0 && image.offset < file.len());
        let _ = image.checksum(file);
    }
    let found = rom::examine(file, ids);
    let mut repaired = file.to_vec();
    let done = rom::repair(&mut repaired, ids, what);
    assert_eq!(done.len(), found.len());
    for finding in &done {
        assert!(!finding.to_string().contains('\n'));
        if let Finding::ChecksumChanged { image } = finding {
            let image =
                before.images.iter().find(|known| known.offset == *image).expect("it was found there");
            assert_eq!(image.checksum(&repaired), Some(0));
        }
    }
    // Two bytes of id and one of checksum for each image, at most.
    let changed = file.iter().zip(&repaired).filter(|(was, is)| was != is).count();
    assert!(changed <= 3 * before.images.len());
}

/// No more is made than is said, and than is ever made.
fn decompressed(file: &[u8]) {
    let made = decompress(file);
    let size = file.get(4..).and_then(|file| file.first_chunk()).map(|size| u32::from_le_bytes(*size));
    assert!(made.is_none_or(|made| made.len() <= LARGEST && u32::try_from(made.len()).ok() == size));
}

/// What is told is short, one line each, and says why firmware runs none of it.
fn told(file: &[u8], about: About) {
    let report = check::check(file, about);
    assert!(report.remarks.len() < 400 && report.parts.len() <= 32);
    for remark in &report.remarks {
        assert!(!remark.text.is_empty() && !remark.text.contains('\n') && remark.text.len() < 1000);
    }
    assert!(report.to_string().len() < 2000);
    for efi in report.parts.iter().filter_map(|part| part.efi) {
        let open = matches!(efi.body, Body::Plain | Body::Compressed);
        assert_eq!(open, efi.graphics != Graphics::Hidden);
    }
    let stops = report.remarks.iter().any(|remark| remark.severity == Severity::Stops);
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        match report.verdict(firmware) {
            Ok(at) => {
                let part =
                    report.parts.iter().find(|part| part.image.offset == at).expect("it is one of them");
                assert!(part.reached && part.image.code == firmware.code());
                assert!(firmware == Firmware::Uefi || part.checksum == Some(0));
            }
            Err(why) => assert!(stops || why.starts_with("there is no image"), "{why}"),
        }
    }
}

fn fixed(file: &[u8], wish: &Wish) {
    let Fixed { rom, done } = match fix::fix(file, wish) {
        Ok(fixed) => fixed,
        Err(error) => return assert!(!error.to_string().contains('\n')),
    };
    assert!(!rom.is_empty() && rom.len() <= file.len());
    assert!(!done.is_empty() || rom == file, "something was changed, and not told");
    let report = check::check(&rom, About { ids: wish.ids, shadow: false });
    let bios = report.parts.iter().any(|part| part.image.code == CodeType::Bios);
    assert!(!bios || report.verdict(Firmware::Bios).is_ok());
    assert!(report.start == 0 && report.parts.iter().all(|part| part.reached || part.image.own));
    let kept = |part: &check::Part| wish.keep.is_empty() || wish.keep.contains(&part.image.code);
    assert!(report.parts.iter().all(kept));
    let again = fix::fix(&rom, wish);
    assert!(again == Ok(Fixed { rom: rom.clone(), done: Vec::new() }), "it is as it should be");
    let comparison = compare::compare(&rom, file);
    assert!(!comparison.to_string().contains('\n'));
    assert!(matches!(compare::compare(&rom, &rom).judgement(), Judgement::Same));
}
