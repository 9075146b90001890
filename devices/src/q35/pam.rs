//! Programmable Attribute Map: what the guest sees from 0xc0000 to 0xfffff (Intel 3 Series
//! Express chipset datasheet, PAM0 to PAM6). What DRAM does not answer, the firmware's flash does.

/// The first PAM register's offset; seven bytes.
pub(super) const PAM0: u16 = 0x90;
/// Bits of the seven registers that can be set, as two dwords from [`PAM0`] on.
pub(super) const WRITABLE: [u32; 2] = [0x3333_3330, 0x0033_3333];

/// Where the processors' accesses to a segment go: bit 0 of its field sends reads to DRAM, bit 1 writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shadow {
    /// Reads to the firmware hub, writes dropped there.
    Rom,
    /// Reads to DRAM, writes to the firmware hub.
    ReadRam,
    /// Reads to the firmware hub, writes to DRAM: so firmware copies itself onto itself.
    WriteRam,
    /// Both to DRAM.
    Ram,
}

/// One segment and the two bits that rule it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first address.
    pub first: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Which of the seven registers.
    register: u16,
    /// Where in it.
    shift: u8,
}

impl Segment {
    /// What the registers, `byte` giving one by its offset, say about this segment.
    pub fn shadow(self, byte: impl Fn(u16) -> u32) -> Shadow {
        match byte(PAM0 + self.register) >> self.shift & 3 {
            0 => Shadow::Rom,
            1 => Shadow::ReadRam,
            2 => Shadow::WriteRam,
            _ => Shadow::Ram,
        }
    }
}

/// All segments in ascending order: twelve of 16 KiB, then the one of 64 KiB that holds the BIOS.
pub(super) fn segments() -> impl Iterator<Item = Segment> {
    let small = (0..12_u16).map(|n| Segment {
        first: 0xc_0000 + u64::from(n) * 0x4000,
        len: 0x4000,
        register: 1 + n / 2,
        shift: if n % 2 == 0 { 0 } else { 4 },
    });
    small.chain([Segment { first: 0xf_0000, len: 0x1_0000, register: 0, shift: 4 }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segments_cover_the_area_without_gap() {
        let mut next = 0xc_0000;
        for segment in segments() {
            assert_eq!(segment.first, next);
            next += segment.len;
        }
        assert_eq!(next, 0x10_0000);
        assert_eq!(segments().count(), 13);
    }

    #[test]
    fn each_field_rules_one_segment() {
        let fields = [
            (1, 0x0f, 0xc_0000),
            (1, 0xf0, 0xc_4000),
            (2, 0x0f, 0xc_8000),
            (2, 0xf0, 0xc_c000),
            (3, 0x0f, 0xd_0000),
            (3, 0xf0, 0xd_4000),
            (4, 0x0f, 0xd_8000),
            (4, 0xf0, 0xd_c000),
            (5, 0x0f, 0xe_0000),
            (5, 0xf0, 0xe_4000),
            (6, 0x0f, 0xe_8000),
            (6, 0xf0, 0xe_c000),
            (0, 0xf0, 0xf_0000),
        ];
        for (register, mask, first) in fields {
            for (value, shadow) in
                [(0, Shadow::Rom), (1, Shadow::ReadRam), (2, Shadow::WriteRam), (3, Shadow::Ram)]
            {
                let byte = |at: u16| if at == PAM0 + register { (value * 0x11) & mask } else { 0 };
                for segment in segments() {
                    let expected = if segment.first == first { shadow } else { Shadow::Rom };
                    assert_eq!(segment.shadow(byte), expected, "{register} {mask:#x} {value} {segment:?}");
                }
            }
        }
    }
}
