use proptest::prelude::*;

use super::*;
use crate::vfio::message::message;

fn mappable(size: u64) -> Learned {
    Learned { size, readable: true, writable: true, mappable: true, ..Learned::default() }
}

#[test]
fn an_answer_is_read_as_the_kernel_writes_it() {
    let caps = VFIO_REGION_INFO_FLAG_CAPS;
    let mut words = vec![7 | caps, 2, 32, 0x1_0000, 0, 0, 0x200];
    // At 32 MSIX_MAPPABLE, at 40 the areas.
    words.extend([3 | 1 << 16, 40]);
    words.extend([1 | 1 << 16, 0, 2, 0, 0, 0, 0x1000, 0, 0x4000, 0, 0x2000, 0]);
    let learned = decode(&message(&words)).unwrap();
    let expected = Learned {
        offset: 0x200 << 32,
        areas: Some(vec![0..0x1000, 0x4000..0x6000]),
        msix_mappable: true,
        ..mappable(0x1_0000)
    };
    assert_eq!(learned, expected);
    let typed = [vec![caps, 2, 32, 0x2000, 0, 0, 0x900], vec![2 | 1 << 16, 0, 0x8000_8086, 1]].concat();
    assert_eq!(decode(&message(&typed)).unwrap().kind, Some((0x8000_8086, 1)));
    // An area list that is cut off is no answer.
    assert_eq!(decode(&message(words.get(..15).unwrap())), None);
}

/// Where the parts begin and end.
fn ends(learned: &Learned, table: Option<Range<u64>>) -> Vec<(u64, u64)> {
    parts(learned, table).into_iter().map(|part| (part.start, part.end)).collect()
}

#[test]
fn pages_of_the_msix_table_are_left_out() {
    let bar = mappable(0x4000);
    assert_eq!(ends(&bar, None), [(0, 0x4000)]);
    assert_eq!(ends(&bar, Some(0x1000..0x1030)), [(0, 0x1000), (0x2000, 0x4000)]);
    assert_eq!(ends(&bar, Some(0..0x30)), [(0x1000, 0x4000)]);
    assert_eq!(ends(&bar, Some(0x3ff0..0x4000)), [(0, 0x3000)]);
    assert_eq!(ends(&mappable(0x1000), Some(0x800..0x830)), []);
    let whole = Learned { msix_mappable: true, ..bar };
    assert_eq!(ends(&whole, Some(0x1000..0x1030)), [(0, 0x4000)]);
}

#[test]
fn a_small_bar_is_mapped_as_a_page() {
    assert_eq!(ends(&mappable(0x100), None), [(0, 0x1000)]);
    assert_eq!(ends(&Learned { mappable: false, ..mappable(0x100) }, None), []);
    assert_eq!(ends(&Learned { readable: false, ..mappable(0x100) }, None), []);
    assert_eq!(ends(&Learned { offset: 0x800, ..mappable(0x100) }, None), []);
}

#[test]
fn alignment_follows_the_size() {
    for (size, expected) in
        [(0x20, 4096), (4096, 4096), (0x20_0000, 0x20_0000), (3 << 20, 1 << 20), (1 << 38, 1 << 30)]
    {
        assert_eq!(alignment(size), expected, "{size:#x}");
    }
}

proptest! {
    /// Against a model that looks at each page by itself.
    #[test]
    fn parts_are_what_may_be_mapped(
        pages in 1u64..24,
        ragged in 0u64..4096,
        areas in proptest::option::of(proptest::collection::vec((0u64..0x1_8000, 0u64..0x8000), 0..4)),
        table in proptest::option::of((0u64..0x1_8000, 1u64..0x3000)),
        msix_mappable: bool,
    ) {
        let size = pages * PAGE - ragged;
        let areas: Option<Vec<Range<u64>>> =
            areas.map(|areas| areas.into_iter().map(|(from, len)| from..from + len).collect());
        let table = table.map(|(from, len)| from..from + len);
        let learned = Learned { areas: areas.clone(), msix_mappable, ..mappable(size) };
        let found = parts(&learned, table.clone());
        for pair in found.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start);
        }
        for page in 0..32 {
            let here = page * PAGE..(page + 1) * PAGE;
            let inside = |area: &Range<u64>| area.start <= here.start && here.end <= area.end;
            let there = here.end <= size.next_multiple_of(PAGE);
            let allowed = areas.as_ref().is_none_or(|areas| areas.iter().any(inside));
            let touched = |table: &Range<u64>| table.start < here.end && here.start < table.end;
            let forbidden = !msix_mappable && table.as_ref().is_some_and(touched);
            let expected = there && allowed && !forbidden;
            prop_assert_eq!(found.iter().any(inside), expected, "page {}", page);
        }
        for part in found {
            prop_assert!(part.start % PAGE == 0 && part.end % PAGE == 0 && part.start < part.end);
        }
    }

    #[test]
    fn any_answer_is_read(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }
}
