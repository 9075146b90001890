//! What the monitor says of itself (VESA E-EDID 1.4, release A).

/// Bytes of the block.
pub const SIZE: usize = 128;

/// A display that prefers 1024x768 at 60 Hz and takes all that the adapter can show.
pub fn block() -> [u8; SIZE] {
    let mut edid = [0; SIZE];
    edid[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    edid[8..10].copy_from_slice(&manufacturer(*b"TRL").to_be_bytes());
    // Product code 0x1111, serial number none, week unknown, year 2026, EDID 1.4.
    edid[10..20].copy_from_slice(&[
        0x11,
        0x11,
        0,
        0,
        0,
        0,
        0,
        2026_u32.abs_diff(1990).to_le_bytes()[0],
        1,
        4,
    ]);
    // Digital, 8 bits per colour; 26 cm by 20 cm; gamma 2.2; RGB, preferred timing is native.
    edid[20..25].copy_from_slice(&[0xa0, 26, 20, 120, 0x06]);
    // Chromaticity of sRGB.
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    // Established: 720x400 at 70, 640x480, 800x600 and 1024x768 at 60 Hz.
    edid[35..38].copy_from_slice(&[0xa1, 0x08, 0x00]);
    for (place, timing) in edid[38..54].chunks_exact_mut(2).zip(STANDARD) {
        place.copy_from_slice(&timing);
    }
    edid[54..72].copy_from_slice(&PREFERRED);
    edid[72..90].copy_from_slice(&RANGE);
    edid[90..108].copy_from_slice(&NAME);
    edid[108..126].copy_from_slice(&UNUSED);
    edid[127] = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    edid
}

/// Three letters in five bits each.
fn manufacturer(letters: [u8; 3]) -> u16 {
    letters.iter().fold(0, |id, letter| id << 5 | u16::from(letter & 0x1f))
}

/// Width / 8 - 31, then aspect ratio (1 for 4:3, 2 for 5:4, 0 for 16:10, 3 for 16:9) and 60 Hz.
const STANDARD: [[u8; 2]; 8] = [
    [0x81, 0x80], // 1280x1024
    [0x81, 0x40], // 1280x960
    [0x81, 0xc0], // 1280x720
    [0x95, 0x00], // 1440x900
    [0xa9, 0x40], // 1600x1200
    [0xd1, 0xc0], // 1920x1080
    [0xd1, 0x00], // 1920x1200
    [0x01, 0x01], // unused
];

/// 1024x768 at 60 Hz (VESA DMT 0x10): 65 MHz, 1344 by 806 in all, both syncs negative.
const PREFERRED: [u8; 18] = [
    0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00, 0x04, 0xc8, 0x10, 0x00, 0x00,
    0x18,
];

/// 40 to 130 Hz vertical, 20 to 160 kHz horizontal, 400 MHz, limits only.
const RANGE: [u8; 18] = [0, 0, 0, 0xfd, 0, 40, 130, 20, 160, 40, 1, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20];

/// The monitor's name.
const NAME: [u8; 18] = *b"\0\0\0\xfc\0trapline\n    ";

/// A descriptor that says nothing.
const UNUSED: [u8; 18] = [0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_zero_and_the_header_right() {
        let edid = block();
        assert_eq!(edid.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(edid[..8], [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(edid[8..10], [0x52, 0x4c]);
    }

    #[test]
    fn the_preferred_timing_is_1024_by_768_at_60_hz() {
        let timing = &block()[54..72];
        let clock = u32::from(u16::from_le_bytes([timing[0], timing[1]])) * 10_000;
        let twelve = |low: usize, high: usize, shift: u8| {
            u32::from(timing[low]) | (u32::from(timing[high]) >> shift & 0xf) << 8
        };
        let (width, blank) = (twelve(2, 4, 4), twelve(3, 4, 0));
        let (height, gap) = (twelve(5, 7, 4), twelve(6, 7, 0));
        assert_eq!((width, height), (1024, 768));
        assert_eq!(clock / ((width + blank) * (height + gap)), 60);
    }
}
