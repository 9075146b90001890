use proptest::prelude::*;

use super::*;

/// What a made-up exit led to.
fn traps_of_write(gpa: u64, data: &[u8]) -> Vec<Trap> {
    let mut traps = Vec::new();
    memory_write(Gpa(gpa), data, |trap| {
        traps.push(trap);
        0
    });
    traps
}

fn memory(at: u64, width: Width, op: Op) -> Trap {
    Trap { at: Address::Gpa(Gpa(at)), width, op }
}

#[test]
fn an_out_of_each_size_is_one_trap() {
    for (size, width, value) in [(1, Width::B1, 0x11), (2, Width::B2, 0x2211), (4, Width::B4, 0x4433_2211)] {
        let mut traps = Vec::new();
        port_out(Port(0x3d4), size, &[0x11, 0x22, 0x33, 0x44][..size], |trap| {
            traps.push(trap);
            0
        });
        assert_eq!(traps, [Trap { at: Address::Port(Port(0x3d4)), width, op: Op::Write(value) }]);
    }
}

#[test]
fn an_outs_is_one_trap_for_each_element_all_at_one_port() {
    let mut traps = Vec::new();
    port_out(Port(0x3c9), 2, &[1, 2, 3, 4, 5, 6], |trap| {
        traps.push((trap.at, trap.width, trap.op));
        0
    });
    let at = Address::Port(Port(0x3c9));
    let element = |value| (at, Width::B2, Op::Write(value));
    assert_eq!(traps, [element(0x0201), element(0x0403), element(0x0605)]);
}

#[test]
fn an_ins_fills_elements_in_order() {
    let mut data = [0; 6];
    let mut next = 0xaa00;
    port_in(Port(0x1f0), 2, &mut data, |trap| {
        assert_eq!((trap.width, trap.op), (Width::B2, Op::Read));
        next += 1;
        next
    });
    assert_eq!(data, [0x01, 0xaa, 0x02, 0xaa, 0x03, 0xaa]);
}

#[test]
fn an_element_of_impossible_size_reads_ones() {
    let mut data = [0; 3];
    port_in(Port(1), 3, &mut data, |_| panic!("no device sees it"));
    port_out(Port(1), 0, &data, |_| panic!("no device sees it"));
    assert_eq!(data, [0xff; 3]);
}

#[test]
fn whole_widths_stay_whole_even_unaligned() {
    assert_eq!(traps_of_write(0xa0001, &[1, 2, 3, 4]), [memory(0xa0001, Width::B4, Op::Write(0x0403_0201))]);
    assert_eq!(traps_of_write(0xa0003, &[9; 8]).len(), 1);
}

#[test]
fn odd_lengths_go_in_aligned_pieces() {
    use Width::{B1, B2, B4};
    let write = |at, width, value| memory(at, width, Op::Write(value));
    assert_eq!(traps_of_write(0x1000, &[1, 2, 3]), [write(0x1000, B2, 0x0201), write(0x1002, B1, 3)]);
    assert_eq!(traps_of_write(0xffd, &[1, 2, 3]), [write(0xffd, B1, 1), write(0xffe, B2, 0x0302)]);
    assert_eq!(
        traps_of_write(0x1000, &[1, 2, 3, 4, 5]),
        [write(0x1000, B4, 0x0403_0201), write(0x1004, B1, 5)]
    );
    assert_eq!(
        traps_of_write(0xffa, &[1, 2, 3, 4, 5, 6]),
        [write(0xffa, B2, 0x0201), write(0xffc, B4, 0x0605_0403)]
    );
    assert_eq!(
        traps_of_write(0xff9, &[1, 2, 3, 4, 5, 6, 7]),
        [write(0xff9, B1, 1), write(0xffa, B2, 0x0302), write(0xffc, B4, 0x0706_0504)]
    );
}

proptest! {
    #[test]
    fn a_memory_exit_moves_each_byte_once_and_in_order(gpa in any::<u64>(), data in prop::collection::vec(any::<u8>(), 0..=8)) {
        let mut moved = Vec::new();
        let mut at = gpa;
        for trap in traps_of_write(gpa, &data) {
            let Op::Write(value) = trap.op else { panic!("a store became a load") };
            prop_assert_eq!(trap.at, Address::Gpa(Gpa(at)));
            prop_assert_eq!(value & !trap.width.all_ones(), 0);
            moved.extend_from_slice(&value.to_le_bytes()[..trap.width.bytes()]);
            at = at.wrapping_add(trap.width.bytes() as u64);
        }
        prop_assert_eq!(&moved, &data);

        let mut back = vec![0; data.len()];
        memory_read(Gpa(gpa), &mut back, |trap| {
            let Address::Gpa(Gpa(at)) = trap.at else { panic!("a load became an in") };
            let from = usize::try_from(at.wrapping_sub(gpa)).unwrap();
            // Bits beyond the width must not reach the guest.
            get(&data[from..from + trap.width.bytes()]) | !trap.width.all_ones()
        });
        prop_assert_eq!(back, data);
    }
}
