//! The ring as the kernel fills it, without a kernel.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn ring() -> Ring {
    Ring {
        first: AtomicU32::new(0),
        last: AtomicU32::new(0),
        entries: std::array::from_fn(|_| Entry::default()),
    }
}

/// What KVM does with a write; false where it would exit. What was in the entry before stays behind
/// the data.
fn put(ring: &Ring, address: u64, len: u32, pio: bool, data: u64) -> bool {
    let last = ring.last.load(Relaxed);
    let next = (last + 1) % ENTRIES;
    if next == ring.first.load(Acquire) {
        return false;
    }
    let entry = &ring.entries[last as usize];
    entry.address.store(address, Relaxed);
    entry.len.store(len, Relaxed);
    entry.pio.store(u32::from(pio), Relaxed);
    let mut bytes = entry.data.load(Relaxed).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(data.to_le_bytes()).take(len as usize) {
        *to = from;
    }
    entry.data.store(u64::from_le_bytes(bytes), Relaxed);
    ring.last.store(next, Release);
    true
}

fn memory(at: u64, width: Width, value: u64) -> Trap {
    Trap { at: Address::Gpa(Gpa(at)), width, op: Op::Write(value) }
}

fn port(at: u16, width: Width, value: u64) -> Trap {
    Trap { at: Address::Port(Port(at)), width, op: Op::Write(value) }
}

fn all(ring: &Ring, progress: &Progress) -> Vec<Trap> {
    std::iter::from_fn(|| ring.pop(progress)).collect()
}

#[test]
fn the_layout_is_the_kernels() {
    assert_eq!(std::mem::offset_of!(Ring, entries), 8);
    assert_eq!((std::mem::offset_of!(Entry, len), std::mem::offset_of!(Entry, pio)), (8, 12));
    assert_eq!((std::mem::offset_of!(Entry, data), size_of::<Entry>()), (16, 24));
}

#[test]
fn writes_come_out_as_they_were_made() {
    let (ring, progress) = (ring(), Progress::default());
    assert_eq!(ring.oldest(), None);
    assert_eq!(ring.pop(&progress), None);
    put(&ring, 0xb8000, 8, false, 0x0720_0720_0720_0720);
    put(&ring, 0x3d4, 2, true, 0x120e);
    put(&ring, 0xb8001, 1, false, 0x55);
    put(&ring, 0xa0003, 4, false, 0x0403_0201);
    assert_eq!(ring.oldest(), Some(0));
    assert_eq!(
        all(&ring, &progress),
        [
            memory(0xb8000, Width::B8, 0x0720_0720_0720_0720),
            port(0x3d4, Width::B2, 0x120e),
            memory(0xb8001, Width::B1, 0x55),
            memory(0xa0003, Width::B4, 0x0403_0201),
        ]
    );
    assert_eq!(ring.oldest(), None);
}

#[test]
fn what_was_cut_at_a_pages_end_comes_in_the_widest_aligned_pieces() {
    let (ring, progress) = (ring(), Progress::default());
    put(&ring, 0xa0ffd, 3, false, 0x33_2211);
    put(&ring, 0xa1000, 5, false, 0x55_4433_2211);
    assert_eq!(
        all(&ring, &progress),
        [
            memory(0xa0ffd, Width::B1, 0x11),
            memory(0xa0ffe, Width::B2, 0x3322),
            memory(0xa1000, Width::B4, 0x4433_2211),
            memory(0xa1004, Width::B1, 0x55),
        ]
    );
    assert_eq!(progress.dropped.load(Relaxed), 0);
}

#[test]
fn an_entry_leaves_its_place_with_its_last_piece() {
    let (ring, progress) = (ring(), Progress::default());
    while put(&ring, 0xa0ffd, 3, false, 0) {}
    ring.pop(&progress);
    assert!(!put(&ring, 0, 1, false, 0), "the first entry has a piece left");
    ring.pop(&progress);
    assert!(put(&ring, 0, 1, false, 0));
}

#[test]
fn what_no_processor_writes_is_dropped_and_counted() {
    let (ring, progress) = (ring(), Progress::default());
    for (address, len, pio) in
        [(0, 0, false), (0, 9, false), (0, u32::MAX, false), (0, 3, true), (0, 8, true), (0x1_0000, 1, true)]
    {
        put(&ring, address, len, pio, 0);
    }
    put(&ring, 0x80, 1, true, 7);
    assert_eq!(all(&ring, &progress), [port(0x80, Width::B1, 7)]);
    assert_eq!(progress.dropped.load(Relaxed), 6);
}

#[test]
fn a_wrong_index_is_an_empty_ring() {
    let (ring, progress) = (ring(), Progress::default());
    for (first, last) in [(0, 170), (0, u32::MAX), (170, 0), (u32::MAX, 3)] {
        ring.first.store(first, Relaxed);
        ring.last.store(last, Relaxed);
        assert_eq!((ring.oldest(), ring.pop(&progress)), (None, None), "{first} {last}");
    }
}

proptest! {
    /// However writing and taking alternate, nothing is lost, doubled or out of order, and 169 fit.
    #[test]
    fn the_ring_is_a_queue(steps in prop::collection::vec((any::<bool>(), 1_usize..200), 1..20)) {
        let (ring, progress) = (ring(), Progress::default());
        let mut model = VecDeque::new();
        let mut number = 0;
        for (write, times) in steps {
            for _ in 0..times {
                if write {
                    let fits = put(&ring, 0xb8000 + number, 4, false, number);
                    prop_assert_eq!(fits, model.len() < 169);
                    if fits {
                        model.push_back(memory(0xb8000 + number, Width::B4, number));
                    }
                    number += 1;
                } else {
                    prop_assert_eq!(ring.oldest().is_none(), model.is_empty());
                    prop_assert_eq!(ring.pop(&progress), model.pop_front());
                }
            }
        }
    }
}
