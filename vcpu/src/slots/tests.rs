use trapline_io::Region;
use trapline_io::device::{Claim, Range};
use trapline_io::space::{EndpointId, SpaceBuilder};

use super::*;
use crate::OpenError;

fn span(first: u64, len: u64) -> Span<Gpa> {
    Span::of_len(Gpa(first), len).unwrap()
}

fn memory(pages: usize) -> Arc<MmapRegion> {
    Arc::new(MmapRegion::new(pages * 4096).unwrap())
}

fn slot(first: u64, len: u64, memory: &Arc<MmapRegion>, offset: u64, kind: DirectKind) -> Slot {
    Slot { span: span(first, len), memory: memory.clone(), offset, kind }
}

/// An address space with these direct ranges, the earlier over the later, and holes that trap.
fn space(holes: &[Span<Gpa>], ranges: &[Slot]) -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    for hole in holes {
        builder.claim(EndpointId(0), &Claim::region(Range::Memory(*hole), Region(0), 0));
    }
    for range in ranges {
        let direct = Direct { memory: range.memory.clone(), offset: range.offset, kind: range.kind };
        let claim = Claim::region(Range::Memory(range.span), Region(1), 0).direct(direct);
        builder.claim(EndpointId(0), &claim);
    }
    builder.build()
}

#[test]
fn neighbours_in_guest_and_host_become_one_slot() {
    let ram = memory(8);
    let pieces = [
        slot(0, 0x2000, &ram, 0, DirectKind::Ram),
        slot(0x2000, 0x1800, &ram, 0x2000, DirectKind::Ram),
        // The border is inside a page, and still no hole.
        slot(0x3800, 0x1800, &ram, 0x3800, DirectKind::Ram),
    ];
    assert_eq!(wanted(&space(&[], &pieces)), [slot(0, 0x5000, &ram, 0, DirectKind::Ram)]);
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    let (ram, other) = (memory(8), memory(8));
    let pieces = [
        slot(0, 0x1000, &ram, 0, DirectKind::Ram),
        slot(0x1000, 0x1000, &ram, 0x1000, DirectKind::Rom),
        slot(0x2000, 0x1000, &other, 0x2000, DirectKind::Rom),
        slot(0x3000, 0x1000, &other, 0x4000, DirectKind::Rom),
        slot(0x5000, 0x1000, &other, 0x5000, DirectKind::Rom),
    ];
    assert_eq!(wanted(&space(&[], &pieces)), pieces);
}

/// As the chipset's PAM registers have it: the firmware's copy of itself is made ROM, and RAM again.
#[test]
fn what_changes_below_one_mib_leaves_the_rest_as_it_is() {
    let ram = memory(0x200);
    let all = slot(0, 0x20_0000, &ram, 0, DirectKind::Ram);
    let rom = slot(0xf_0000, 0x1_0000, &ram, 0xf_0000, DirectKind::Rom);
    let above = slot(0x10_0000, 0x10_0000, &ram, 0x10_0000, DirectKind::Ram);
    let whole = wanted(&space(&[], std::slice::from_ref(&all)));
    let parted = wanted(&space(&[], &[rom.clone(), all.clone()]));
    let trapped = wanted(&space(&[rom.span], std::slice::from_ref(&all)));
    assert_eq!(whole, [slot(0, 0x10_0000, &ram, 0, DirectKind::Ram), above.clone()]);
    let below = slot(0, 0xf_0000, &ram, 0, DirectKind::Ram);
    assert_eq!(parted, [below.clone(), rom, above.clone()]);
    assert_eq!(trapped, [below, above.clone()]);
    let Some(mut slots) = slots() else { return };
    slots.add_missing(&whole).unwrap();
    for next in [&parted, &trapped, &whole] {
        slots.remove_unwanted(next).unwrap();
        assert!(slots.iter().any(|slot| *slot == above), "it is made anew for {next:?}");
        slots.add_missing(next).unwrap();
    }
}

#[test]
fn a_hole_inside_a_page_takes_the_page() {
    let bar = memory(16);
    let table = span(0x1_2010, 0x20);
    let whole = slot(0x1_0000, 0x8000, &bar, 0x4000, DirectKind::Bar);
    assert_eq!(
        wanted(&space(&[table], &[whole])),
        [
            slot(0x1_0000, 0x2000, &bar, 0x4000, DirectKind::Bar),
            slot(0x1_3000, 0x5000, &bar, 0x7000, DirectKind::Bar)
        ]
    );
}

#[test]
fn what_can_not_be_mapped_is_left_to_trap() {
    let bar = memory(4);
    // Less than a page; pages of guest and host that do not match; more than the mapping has.
    assert_eq!(wanted(&space(&[], &[slot(0x1000, 0xfff, &bar, 0, DirectKind::Bar)])), []);
    assert_eq!(wanted(&space(&[], &[slot(0x1800, 0x1000, &bar, 0x800, DirectKind::Bar)])), []);
    assert_eq!(wanted(&space(&[], &[slot(0x1000, 0x2000, &bar, 0x800, DirectKind::Bar)])), []);
    assert_eq!(wanted(&space(&[], &[slot(0x1000, 0x2000, &bar, 0x3000, DirectKind::Bar)])), []);
    let end = slot(u64::MAX - 0xfff, 0x1000, &bar, u64::MAX - 0xfff, DirectKind::Bar);
    assert_eq!(wanted(&space(&[], &[end])), []);
    let top = slot(u64::MAX - 0xfff, 0x1000, &bar, 0, DirectKind::Bar);
    assert_eq!(wanted(&space(&[], std::slice::from_ref(&top))), [top]);
}

/// The slots of a new machine; prints why there are none.
fn slots() -> Option<Slots> {
    match Vm::new() {
        Ok(vm) => Some(Slots::new(Arc::new(vm))),
        Err(error @ (OpenError::Missing | OpenError::Forbidden)) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn only_the_difference_changes_and_numbers_are_used_again() {
    let Some(mut slots) = slots() else { return };
    let ram = memory(16);
    let [a, b, c] = [0, 1, 2].map(|i| slot(i << 16, 0x4000, &ram, i << 14, DirectKind::Ram));
    slots.remove_unwanted(&[a.clone(), b.clone()]).unwrap();
    slots.add_missing(&[a.clone(), b.clone()]).unwrap();
    slots.remove_unwanted(&[b.clone(), c.clone()]).unwrap();
    assert!(slots.iter().eq([&b]));
    slots.add_missing(&[b.clone(), c.clone()]).unwrap();
    assert_eq!(slots.in_use, [Some(c.clone()), Some(b.clone())]);
    // In another place, of another kind: deleted and made anew.
    let rom = Slot { kind: DirectKind::Rom, ..b.clone() };
    slots.remove_unwanted(std::slice::from_ref(&rom)).unwrap();
    slots.add_missing(std::slice::from_ref(&rom)).unwrap();
    assert_eq!(slots.iter().cloned().collect::<Vec<_>>(), [rom]);
    drop((a, b, c));
    drop(slots);
    assert_eq!(Arc::strong_count(&ram), 1);
}

#[test]
fn park_is_asked_for_ram_and_rom_only() {
    let Some(mut slots) = slots() else { return };
    let ram = memory(16);
    let [a, b] = [0, 1].map(|i| slot(i << 16, 0x4000, &ram, i << 14, DirectKind::Ram));
    let bar = slot(0x10_0000, 0x4000, &ram, 0x8000, DirectKind::Bar);
    assert!(slots.changes_need_park(std::slice::from_ref(&a)));
    assert!(!slots.changes_need_park(std::slice::from_ref(&bar)));
    slots.add_missing(std::slice::from_ref(&a)).unwrap();
    assert!(!slots.changes_need_park(&[a.clone(), bar.clone()]));
    assert!(slots.changes_need_park(&[a.clone(), b]));
    assert!(slots.changes_need_park(&[]));
    slots.add_missing(&[a.clone(), bar]).unwrap();
    assert!(!slots.changes_need_park(std::slice::from_ref(&a)));
    assert!(slots.changes_need_park(&[Slot { kind: DirectKind::Rom, ..a }]));
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let Some(mut slots) = slots() else { return };
    let ram = memory(4);
    let odd = slot(0x800, 0x1000, &ram, 0, DirectKind::Ram);
    let long = slot(0, 0x5000, &ram, 0, DirectKind::Ram);
    for unfit in [odd, long] {
        assert!(matches!(slots.add_missing(&[unfit]), Err(SlotError::Unfit { .. })));
    }
    let first = slot(0, 0x2000, &ram, 0, DirectKind::Ram);
    slots.add_missing(std::slice::from_ref(&first)).unwrap();
    let over = slot(0x1000, 0x2000, &ram, 0, DirectKind::Ram);
    assert!(matches!(slots.add_missing(&[over]), Err(SlotError::Unfit { .. })));
    slots.limit = 1;
    let next = slot(0x8000, 0x1000, &ram, 0, DirectKind::Ram);
    assert!(matches!(slots.add_missing(&[next]), Err(SlotError::Full { limit: 1, .. })));
    let beyond = slot(1 << 60, 0x1000, &ram, 0, DirectKind::Ram);
    slots.limit = 100;
    assert!(matches!(slots.add_missing(&[beyond]), Err(SlotError::Add { .. })));
    assert_eq!(slots.iter().cloned().collect::<Vec<_>>(), [first]);
}

#[test]
fn a_bar_that_the_kernel_refuses_traps() {
    let vm = match Vm::new() {
        Ok(vm) => Arc::new(vm),
        Err(OpenError::Missing | OpenError::Forbidden) => {
            println!("not tested: no /dev/kvm");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let memory = memory(1);
    let slot = |first, kind| slot(first, 0x1000, &memory, 0, kind);
    // No processor has so many addresses.
    let (nowhere, behind) = (1 << 60, 0x1000);
    let mut slots = Slots::new(vm);
    slots.add_missing(&[slot(nowhere, DirectKind::Bar), slot(behind, DirectKind::Bar)]).unwrap();
    assert_eq!(slots.iter().map(|slot| slot.span.first()).collect::<Vec<_>>(), [Gpa(behind)]);
    slots.remove_unwanted(&[]).unwrap();
    let refused = slots.add_missing(&[slot(nowhere, DirectKind::Ram)]);
    assert!(matches!(refused, Err(SlotError::Add { .. })), "{refused:?}");
}
