//! What the guest does arrives at the device as it was done, and the answers in the guest.

use trapline_io::{Access, Op, Width};

use super::code::Code;
use super::machine::{
    COUNTING, Machine, PORT_REGION, PORTS, Report, START, WINDOW_REGION, pattern, pattern_value, writes,
};

/// Where the guests put what they read.
const RESULTS: u32 = 0x7000;

#[test]
fn ports_in_all_widths() {
    let code = Code::real(START)
        .mov_dx(PORTS + 1)
        .in_al_dx()
        .store_al(RESULTS)
        .mov_dx(PORTS + 2)
        .in_ax_dx()
        .store_ax(RESULTS + 4)
        .mov_dx(PORTS + 4)
        .in_eax_dx()
        .store_eax(RESULTS + 8)
        .mov_eax(0x8765_4321)
        .mov_dx(PORTS + 0x10)
        .out_dx_al()
        .mov_dx(PORTS + 0x12)
        .out_dx_ax()
        .mov_dx(PORTS + 0x14)
        .out_dx_eax()
        .tell(1)
        .rest();
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    assert_eq!(machine.told(), 1);
    assert_eq!(
        machine.take_log(),
        [
            Access::read(PORT_REGION, 1, Width::B1),
            Access::read(PORT_REGION, 2, Width::B2),
            Access::read(PORT_REGION, 4, Width::B4),
            Access::write(PORT_REGION, 0x10, Width::B1, 0x21),
            Access::write(PORT_REGION, 0x12, Width::B2, 0x4321),
            Access::write(PORT_REGION, 0x14, Width::B4, 0x8765_4321),
        ]
    );
    assert_eq!(u64::from(machine.ram(RESULTS)), pattern_value(1, Width::B1));
    assert_eq!(u64::from(machine.ram(RESULTS + 4)), pattern_value(2, Width::B2));
    assert_eq!(u64::from(machine.ram(RESULTS + 8)), pattern_value(4, Width::B4));
    machine.stop();
}

#[test]
fn string_port_accesses_are_cut_into_elements() {
    let (from, to) = (0x6000, 0x7000);
    let code = Code::real(START)
        .mov_eax(0x0403_0201)
        .store_eax(from)
        .mov_si(0x6000)
        .mov_cx(4)
        .mov_dx(PORTS)
        .raw(&[0xf3, 0x6e]) // rep outsb
        .mov_si(0x6000)
        .mov_cx(2)
        .raw(&[0xf3, 0x6f]) // rep outsw
        .mov_di(0x7000)
        .mov_cx(300)
        .mov_dx(COUNTING)
        .raw(&[0xf3, 0x6c]) // rep insb
        .mov_cx(3)
        .raw(&[0xf3, 0x6d]) // rep insw
        .tell(1)
        .rest();
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    assert_eq!(machine.told(), 1);
    let log = machine.take_log();
    let byte = |value| (PORT_REGION, 0, Width::B1, value);
    let word = |value| (PORT_REGION, 0, Width::B2, value);
    assert_eq!(writes(&log), [byte(1), byte(2), byte(3), byte(4), word(0x0201), word(0x0403)]);
    let reads = |width| log.iter().filter(|a| a.op == Op::Read && a.width == width).count();
    assert_eq!((reads(Width::B1), reads(Width::B2)), (300, 3));
    let read = |i: u32| machine.ram((to + i) & !3).to_le_bytes()[(i & 3) as usize];
    for i in 0..300 {
        assert_eq!(u32::from(read(i)), (i + 1) & 0xff, "byte {i}");
    }
    for i in 0..3 {
        let expected = ((301 + i) & 0xff) as u8;
        assert_eq!((read(300 + 2 * i), read(301 + 2 * i)), (expected, expected), "word {i}");
    }
    machine.stop();
}

#[test]
fn memory_in_all_widths() {
    let code = Code::real(START)
        .mov_ax(0xb000)
        .mov_ds_ax()
        .load_al(0x101)
        .store_al(0x201)
        .load_ax(0x102)
        .store_ax(0x202)
        .load_eax(0x104)
        .store_eax(0x204)
        .load_mm0(0x108)
        .store_mm0(0x208)
        .tell(1)
        .rest();
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    assert_eq!(machine.told(), 1);
    let mut expected = Vec::new();
    for (low, width) in [(1, Width::B1), (2, Width::B2), (4, Width::B4), (8, Width::B8)] {
        expected.push(Access::read(WINDOW_REGION, 0x100 + low, width));
        let value = pattern_value(0x100 + low, width);
        expected.push(Access::write(WINDOW_REGION, 0x200 + low, width, value));
    }
    assert_eq!(machine.take_log(), expected);
    machine.stop();
}

/// The bytes that `accesses` move, each with its offset, and all widths lie aligned.
fn bytes_of(accesses: &[Access]) -> Vec<(u64, u8)> {
    let mut bytes = Vec::new();
    for access in accesses {
        assert_eq!(access.offset % access.width.bytes() as u64, 0, "{access:?} is not aligned");
        let value = match access.op {
            Op::Write(value) => value,
            Op::Read => pattern_value(access.offset, access.width),
        };
        let range = access.offset..access.offset + access.width.bytes() as u64;
        bytes.extend(range.zip(value.to_le_bytes()));
    }
    bytes
}

#[test]
fn accesses_across_a_page_move_every_byte_once() {
    // 4 bytes with 1 to 3, and 8 bytes with 1 to 7 of them before the page's end.
    for (len, before) in (1..4).map(|n| (4, n)).chain((1..8).map(|n| (8, n))) {
        let (from, to) = (0x1000 - before, 0x3000 - before);
        let code = Code::real(START).mov_ax(0xb000).mov_ds_ax();
        let code = match len {
            4 => code.load_eax(from).store_eax(to),
            _ => code.load_mm0(from).store_mm0(to),
        };
        let Some(machine) = Machine::started(1, vec![code.tell(1).rest()]) else { return };
        assert_eq!(machine.told(), 1);
        let log = machine.take_log();
        let (reads, writes): (Vec<_>, Vec<_>) = log.into_iter().partition(|a| a.op == Op::Read);
        let at = |first: u32| (0..len).map(move |i| (u64::from(first) + i, pattern(u64::from(from) + i)));
        assert_eq!(bytes_of(&reads), at(from).collect::<Vec<_>>(), "load of {len}, {before} before the end");
        assert_eq!(bytes_of(&writes), at(to).collect::<Vec<_>>(), "store of {len}, {before} before the end");
        machine.stop();
    }
}

#[test]
fn where_nothing_answers_all_bits_are_set() {
    let code = Code::real(START)
        .mov_eax(0)
        .mov_dx(0x4000)
        .in_eax_dx()
        .store_eax(RESULTS)
        .out_dx_eax()
        .mov_ax(0xc000)
        .mov_ds_ax()
        .load_eax(0x10)
        .store_eax(0x20)
        .raw(&[0x31, 0xdb, 0x8e, 0xdb]) // ds = bx = 0
        .store_eax(RESULTS + 4)
        .tell(1)
        .rest();
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    assert_eq!(machine.told(), 1);
    assert_eq!((machine.ram(RESULTS), machine.ram(RESULTS + 4)), (u32::MAX, u32::MAX));
    assert_eq!(machine.take_log(), []);
    machine.stop();
}

#[test]
fn code_where_no_memory_is_fails_with_a_reason() {
    // jmp 0xb000:0
    let code = Code::real(START).raw(&[0xea, 0, 0, 0, 0xb0]);
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    let Report::Failed(0, text) = machine.reported() else { panic!("not a failure of vCPU 0") };
    assert!(text.contains("emulated"), "{text}");
    machine.stop();
}
