//! Expansion ROMs: any bytes are read in bounded work, and a repair changes only what it may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapline_devices::rom::{self, Finding, Ids, Repair};

fuzz_target!(|input: (u16, u16, bool, &[u8])| {
    let (vendor, device, all, bytes) = input;
    let ids = Ids { vendor, device };
    let before = rom::chain(bytes);
    for image in &before.images {
        assert!(image.length > 0 && image.offset < bytes.len());
        let _ = image.checksum(bytes);
    }
    let _ = rom::first_image(bytes);
    let found = rom::examine(bytes, ids);
    let mut repaired = bytes.to_vec();
    let done = rom::repair(&mut repaired, ids, if all { Repair::All } else { Repair::Id });
    assert_eq!(done.len(), found.len());
    for finding in &done {
        assert!(!finding.to_string().contains('\n'));
        if let Finding::ChecksumChanged { image } = finding {
            let image = before.images.iter().find(|known| known.offset == *image).expect("it was found there");
            assert_eq!(image.checksum(&repaired), Some(0));
        }
    }
    // Two bytes of id and one of checksum for each image, at most.
    let changed = bytes.iter().zip(&repaired).filter(|(was, is)| was != is).count();
    assert!(changed <= 3 * before.images.len());
});
