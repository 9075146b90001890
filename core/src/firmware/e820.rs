//! The split of guest RAM around the 32-bit hole, and the memory map `etc/e820`.

use trapline_io::{Gpa, Span};

/// Low RAM ends here at the latest: SeaBIOS puts the configuration space window at 0xb0000000.
pub const LOW_RAM_LIMIT: u64 = 0xb000_0000;
/// Where low RAM ends in a machine that has more than [`LOW_RAM_LIMIT`].
pub const LOW_RAM_SPLIT: u64 = 0x8000_0000;
/// Where the rest of the RAM starts: 4 GiB.
pub const HIGH_RAM: u64 = 1 << 32;
/// What KVM takes for the identity map and the task state segment of real mode, 16 KiB.
pub const KVM_PAGES: u64 = 0xfeff_c000;
/// Length of [`KVM_PAGES`] in bytes.
pub const KVM_PAGES_LEN: u64 = 0x4000;

/// Guest RAM: `low` bytes from address 0 on, `high` bytes from 4 GiB on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamSplit {
    /// Bytes from address 0 on, less than or equal to [`LOW_RAM_LIMIT`].
    pub low: u64,
    /// Bytes from [`HIGH_RAM`] on, 0 for a small machine.
    pub high: u64,
}

impl RamSplit {
    /// Places `total` bytes: all of them low if they end below [`LOW_RAM_LIMIT`], else 2 GiB low and
    /// the rest from 4 GiB on.
    ///
    /// ```
    /// use trapline::firmware::e820::RamSplit;
    /// assert_eq!(RamSplit::of(1 << 30), RamSplit { low: 1 << 30, high: 0 });
    /// assert_eq!(RamSplit::of(3 << 30), RamSplit { low: 2 << 30, high: 1 << 30 });
    /// ```
    pub fn of(total: u64) -> Self {
        if total < LOW_RAM_LIMIT {
            RamSplit { low: total, high: 0 }
        } else {
            RamSplit { low: LOW_RAM_SPLIT, high: total - LOW_RAM_SPLIT }
        }
    }

    /// All bytes of RAM.
    pub fn total(self) -> u64 {
        self.low.saturating_add(self.high)
    }

    /// The addresses that hold RAM, in ascending order.
    pub fn spans(self) -> impl Iterator<Item = Span<Gpa>> {
        [(0, self.low), (HIGH_RAM, self.high)]
            .into_iter()
            .filter_map(|(first, len)| Span::of_len(Gpa(first), len))
    }
}

/// What a range of the memory map is (ACPI 6.5 table 15.4).
#[derive(Clone, Copy)]
enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// The bytes of `etc/e820`: per range a 64-bit address, a 64-bit length and a 32-bit type, little-endian.
///
/// SeaBIOS adds what it reserves itself (its own segment, the configuration space window, the ACPI
/// tables) to what it passes on.
pub fn table(ram: RamSplit) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |at: u64, len: u64, kind: Kind| {
        if len > 0 {
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        }
    };
    add(0, ram.low, Kind::Ram);
    add(KVM_PAGES, KVM_PAGES_LEN, Kind::Reserved);
    add(HIGH_RAM, ram.high, Kind::Ram);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(bytes: &[u8], index: usize) -> (u64, u64, u32) {
        let at = &bytes[index * 20..][..20];
        (
            u64::from_le_bytes(at[..8].try_into().unwrap()),
            u64::from_le_bytes(at[8..16].try_into().unwrap()),
            u32::from_le_bytes(at[16..].try_into().unwrap()),
        )
    }

    #[test]
    fn ram_just_below_the_limit_stays_low() {
        let below = LOW_RAM_LIMIT - 0x1000;
        assert_eq!(RamSplit::of(below), RamSplit { low: below, high: 0 });
        let at = RamSplit::of(LOW_RAM_LIMIT);
        assert_eq!(at, RamSplit { low: LOW_RAM_SPLIT, high: LOW_RAM_LIMIT - LOW_RAM_SPLIT });
    }

    #[test]
    fn a_small_machine_has_two_entries_and_a_large_one_three() {
        let small = table(RamSplit::of(512 << 20));
        assert_eq!(small.len(), 40);
        assert_eq!(entry(&small, 0), (0, 512 << 20, 1));
        assert_eq!(entry(&small, 1), (0xfeff_c000, 0x4000, 2));
        let large = table(RamSplit::of(8 << 30));
        assert_eq!(large.len(), 60);
        assert_eq!(entry(&large, 0), (0, 2 << 30, 1));
        assert_eq!(entry(&large, 2), (4 << 30, 6 << 30, 1));
    }

    proptest! {
        #[test]
        fn no_ram_is_lost_or_lies_in_the_hole(total in 1u64..1 << 46) {
            let split = RamSplit::of(total);
            prop_assert_eq!(split.total(), total);
            prop_assert!(split.low <= LOW_RAM_LIMIT);
            let spans: Vec<_> = split.spans().collect();
            prop_assert_eq!(spans.iter().map(|span| span.extent() + 1).sum::<u64>(), total);
        }
    }
}
