//! Files with damaged expansion ROMs in them, through the body of the fuzz target `rom`.

use proptest::prelude::*;

#[path = "../fuzz/src/rom.rs"]
mod body;
#[path = "rom_found/driver.rs"]
mod found;

/// An image: headers that hold, and noise.
fn image() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(vec![0_u8, 0, 0, 3, 3, 0xe0]);
    let noise = prop::collection::vec((0_usize..1024, any::<u8>()), 0..12);
    (code, 1_u8..4, any::<[bool; 4]>(), noise).prop_map(|(code, blocks, [last, npde, next, right], noise)| {
        let mut bytes = vec![0; usize::from(blocks) * 512];
        for (at, byte) in noise {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes[..6].copy_from_slice(&[0x55, 0xaa, blocks, 0xe9, 0x40, 0]);
        bytes[0x18..0x1a].copy_from_slice(&[0x1c, 0]);
        bytes[0x1c..0x34].fill(0);
        bytes[0x1c..0x24].copy_from_slice(b"PCIR\xde\x10\x80\x1b");
        (bytes[0x26], bytes[0x2b], bytes[0x2c], bytes[0x30]) = (0x18, 3, blocks, code);
        bytes[0x31] = u8::from(last) << 7;
        if code == 3 {
            bytes[4..10].copy_from_slice(&[0xf1, 0x0e, 0, 0, 0x0b, 0]);
            // A compressed driver, as damaged as the noise is that lies in it.
            if next {
                bytes[10..14].copy_from_slice(&[0x64, 0x86, 1, 0]);
                bytes[0x16..0x18].copy_from_slice(&[0x80, 0]);
                bytes[0x80..].iter_mut().zip(found::DRIVER).for_each(|(place, byte)| *place ^= byte);
            }
        }
        if npde {
            bytes[0x40..0x44].copy_from_slice(b"NPDE");
            bytes[0x48..0x4b].copy_from_slice(&[0, 0, u8::from(next) << 7]);
        }
        if code == 0xe0 && next {
            bytes[..2].copy_from_slice(b"VN");
            bytes[0x1c..0x20].copy_from_slice(b"NPDS");
        }
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[0x60] = bytes[0x60].wrapping_sub(if right { sum } else { 0 });
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_file_is_told_and_what_is_made_of_it_is_right(
        ids in prop::sample::select(vec![[0xde, 0x10, 0x80, 0x1b], [0xde, 0x10, 0x81, 0x1b], [2, 0x10, 0, 0]]),
        what: u8,
        before in prop::collection::vec(any::<u8>(), 0..3),
        images in prop::collection::vec(image(), 0..5),
        damage in prop::collection::vec((0_usize..4096, any::<u8>()), 0..4),
        behind in 0_usize..600,
        keep in 0_usize..8192,
    ) {
        let mut file = [before, images.concat(), vec![0xff; behind]].concat();
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file.truncate(keep);
        body::run(&[&ids[..], &[what], &file].concat());
    }
}
