//! How much RAM lies where, and around what.
//!
//! Firmware takes all below the end of low RAM for RAM, so that something that must lie below 4 GiB makes low
//! RAM end before it. Above, RAM can leave a gap: the memory map names the pieces on both sides, and no
//! firmware uses either.

use trapline_io::{Gpa, Span};

/// RAM of this size and more is split: SeaBIOS and OVMF put the configuration window here.
pub const LOW_RAM_LIMIT: u64 = 0xb000_0000;
/// How much of split RAM lies low.
const LOW_PART: u64 = 0x8000_0000;
/// Where the rest of split RAM begins: 4 GiB.
pub const HIGH_RAM: u64 = 1 << 32;
/// The granularity of the gap, as the PCI root's windows above 4 GiB are told: these never hold RAM then.
const GIB: u64 = 1 << 30;
/// The granularity at which low RAM ends before something: that of the largest pages that RAM can do without.
const LOW_GRAIN: u64 = 2 << 20;
/// The least low RAM with which firmware has room for itself and its tables.
const LEAST_LOW: u64 = 16 << 20;

/// How RAM lies around the 32-bit hole, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamSplit {
    /// From address 0 on, less than [`LOW_RAM_LIMIT`].
    pub low: u64,
    /// From [`HIGH_RAM`] on, 0 for a small machine; a gap there is not counted.
    pub high: u64,
    /// What high RAM leaves free where it would lie otherwise: whole GiB from [`HIGH_RAM`] on, before the
    /// last of high RAM. It may be where high RAM would begin.
    pub gap: Option<Span<Gpa>>,
}

impl RamSplit {
    /// Places `total` bytes: all of them low if they end below [`LOW_RAM_LIMIT`], else 2 GiB low and
    /// the rest from 4 GiB on.
    ///
    /// ```
    /// use trapline_devices::q35::RamSplit;
    /// assert_eq!(RamSplit::of(1 << 30), RamSplit { low: 1 << 30, high: 0, gap: None });
    /// assert_eq!(RamSplit::of(3 << 30), RamSplit { low: 2 << 30, high: 1 << 30, gap: None });
    /// ```
    pub const fn of(total: u64) -> RamSplit {
        if total < LOW_RAM_LIMIT {
            RamSplit { low: total, high: 0, gap: None }
        } else {
            RamSplit { low: LOW_PART, high: total - LOW_PART, gap: None }
        }
    }

    /// Places `total` bytes so that none of them lies in `kept`, whose ranges are on one side of 4 GiB each:
    /// what would lie on or behind the first below 4 GiB lies above 4 GiB, and high RAM has one gap around
    /// all that would lie in it. RAM is made of pages of `page` bytes.
    ///
    /// # Errors
    /// The range before which less than 16 MiB are left.
    pub fn around(total: u64, kept: &[Span<Gpa>], page: u64) -> Result<RamSplit, Span<Gpa>> {
        let mut split = RamSplit::of(total);
        let low = kept.iter().filter(|span| span.first() < Gpa(HIGH_RAM));
        if let Some(first) = low.min_by_key(|span| span.first())
            && first.first().0 < split.low
        {
            split.low = first.first().0 & !(page.max(LOW_GRAIN) - 1);
            split.high = total - split.low;
            if split.low < LEAST_LOW {
                return Err(*first);
            }
        }
        let mut high: Vec<_> = kept.iter().filter_map(|span| whole(*span)).collect();
        high.sort_unstable_by_key(|span| span.first());
        for span in high {
            if span.first().0 < split.end() {
                let first = split.gap.map_or(span.first(), Span::first);
                let last = split.gap.map_or(span.last(), |gap| gap.last().max(span.last()));
                split.gap = Span::new(first, last);
            }
        }
        Ok(split)
    }

    /// All bytes of RAM.
    pub const fn total(self) -> u64 {
        self.low.saturating_add(self.high)
    }

    /// The pieces in ascending order: where each begins, and its bytes, never none.
    pub fn pieces(self) -> impl Iterator<Item = (Gpa, u64)> {
        let before = self.gap.map_or(self.high, |gap| (gap.first().0 - HIGH_RAM).min(self.high));
        let behind = self.gap.map_or(HIGH_RAM, |gap| gap.last().0.saturating_add(1));
        let pieces = [(Gpa(0), self.low), (Gpa(HIGH_RAM), before), (Gpa(behind), self.high - before)];
        pieces.into_iter().filter(|(_, len)| *len > 0)
    }

    /// The first address above all RAM, and not below [`HIGH_RAM`].
    pub fn end(self) -> u64 {
        let ends = self.pieces().map(|(at, len)| at.0.saturating_add(len));
        ends.fold(HIGH_RAM, u64::max)
    }
}

/// The GiB that a range above 4 GiB touches.
fn whole(span: Span<Gpa>) -> Option<Span<Gpa>> {
    let above = span.first() >= Gpa(HIGH_RAM);
    Span::new(Gpa(span.first().0 & !(GIB - 1)), Gpa(span.last().0 | (GIB - 1))).filter(|_| above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u64, len: u64) -> Span<Gpa> {
        Span::of_len(Gpa(first), len).unwrap()
    }

    fn pieces(split: RamSplit) -> Vec<(u64, u64)> {
        split.pieces().map(|(at, len)| (at.0, len)).collect()
    }

    #[test]
    fn low_ram_ends_before_what_is_kept() {
        let split = RamSplit::around(2 << 30, &[span(0x7010_0000, 0x1000)], 4096).unwrap();
        assert_eq!(pieces(split), [(0, 0x7000_0000), (HIGH_RAM, 0x1000_0000)]);
        let split = RamSplit::around(2 << 30, &[span(0x7010_0000, 0x1000)], 1 << 30).unwrap();
        assert_eq!(pieces(split), [(0, 1 << 30), (HIGH_RAM, 1 << 30)]);
        // Where there is no RAM anyway nothing changes.
        let split = RamSplit::around(2 << 30, &[span(0x8000_0000, 0x1000)], 4096).unwrap();
        assert_eq!(split, RamSplit::of(2 << 30));
        let kept = span(0x80_0000, 0x1000);
        assert_eq!(RamSplit::around(2 << 30, &[kept], 4096), Err(kept));
    }

    #[test]
    fn high_ram_leaves_one_gap() {
        let kept = [span(0x1_8010_0000, 0x1000), span(0x2_8000_0000, 256 << 20), span(0x40_0000_0000, 4096)];
        let split = RamSplit::around(8 << 30, &kept, 4096).unwrap();
        // The second is in the way only because of what the first has moved.
        assert_eq!(pieces(split), [(0, 2 << 30), (HIGH_RAM, 2 << 30), (0x2_c000_0000, 4 << 30)]);
        assert_eq!(split.end(), 0x3_c000_0000);
        let split = RamSplit::around(4 << 30, &[span(HIGH_RAM, 1 << 30)], 4096).unwrap();
        assert_eq!(pieces(split), [(0, 2 << 30), (HIGH_RAM + (1 << 30), 2 << 30)]);
    }

    proptest! {
        #[test]
        fn no_ram_is_lost_or_lies_in_the_hole(total in 1u64..1 << 46) {
            let split = RamSplit::of(total);
            prop_assert_eq!(split.total(), total);
            prop_assert!(split.low < LOW_RAM_LIMIT);
        }

        #[test]
        fn no_byte_is_lost_and_none_lies_where_something_is_kept(
            mib in 64_u64..64 << 10,
            low in prop::collection::vec((0x100_u64..0xfec, 12_u32..24), 0..4),
            high in prop::collection::vec((0x1000_u64..0x1_8000, 12_u32..34), 0..6),
            page in prop::sample::select(vec![4096_u64, 2 << 20, 1 << 30]),
        ) {
            let place = |(at, bits): (u64, u32)| span((at << 20) & !((1 << bits) - 1), 1 << bits);
            let kept: Vec<_> = low.into_iter().chain(high).map(place).collect();
            let total = mib << 20;
            let Ok(split) = RamSplit::around(total, &kept, page) else {
                prop_assert!(kept.iter().any(|kept| kept.first() < Gpa(LEAST_LOW.max(page))));
                return Ok(());
            };
            prop_assert_eq!(split.total(), total);
            let pieces: Vec<_> = split.pieces().map(|(at, len)| span(at.0, len)).collect();
            prop_assert!(pieces.windows(2).all(|pair| pair[0].last() < pair[1].first()));
            for piece in &pieces {
                prop_assert!(kept.iter().all(|kept| !kept.overlaps(*piece)), "{kept:?} {split:?}");
                // The pages of low RAM's end and of the gap are whole.
                prop_assert!(piece.first().0.is_multiple_of(page));
            }
        }
    }
}
