//! Several vCPUs: started by the guest itself, and one order at the device.

use trapline_io::{Op, Width};

use super::code::Code;
use super::machine::{Machine, POSTED, POSTED_REGION, START, writes};

/// Real-mode code of the other processors, at the page that the start-up message names.
const OTHERS: u32 = 0x8000;
const OTHERS_PAGE: u8 = 8;
/// 32-bit code of the first.
const WIDE: u32 = 0x2000;
/// How many others are there.
const COUNT: u32 = 0x7100;
/// How often any processor came from the reset vector.
const STARTS: u32 = 0x7104;

/// Counts the other processors as firmware does, tells the number, and sleeps.
fn count_processors(others: u8) -> Vec<Code> {
    let first = Code::real(START).lock_inc(STARTS).mov_eax(0).store_eax(COUNT).enter_wide(WIDE);
    let wide = Code::wide(WIDE)
        .flat_segments()
        .start_others(OTHERS_PAGE)
        .await_byte(COUNT, others)
        .load_al(COUNT)
        .out_al(super::machine::TELL)
        .rest();
    let other = Code::real(OTHERS)
        .mov_eax(1)
        .raw(&[0x0f, 0xa2]) // cpuid
        .raw(&[0x66, 0xc1, 0xeb, 24]) // ebx >>= 24: the APIC's number
        .raw(&[0x88, 0xd8]) // al = bl
        .mov_dx(POSTED)
        .out_dx_al()
        .lock_inc(COUNT)
        .rest();
    vec![first, wide, other]
}

#[test]
fn four_processors_start_and_start_again_after_a_reset() {
    let Some(machine) = Machine::started(4, count_processors(3)) else { return };
    for round in 1..=5 {
        assert_eq!(machine.told(), 3);
        assert_eq!(machine.ram(STARTS), round, "another than the first ran from the reset vector");
        let mut numbers: Vec<u64> = writes(&machine.take_log()).into_iter().map(|write| write.3).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
        machine.reset();
    }
    assert_eq!(machine.told(), 3);
    machine.stop();
}

#[test]
fn a_reset_may_come_at_any_time() {
    let Some(machine) = Machine::started(4, count_processors(3)) else { return };
    for round in 0..30 {
        std::thread::sleep(std::time::Duration::from_micros(300 * round));
        machine.reset();
    }
    // What was told before the last reset does not count.
    let mut guard = machine.parts.world.lock();
    let parked = guard.park().unwrap();
    machine.vcpus.reset(&parked).unwrap();
    while machine.told_already().is_some() {}
    drop(parked);
    drop(guard);
    assert_eq!(machine.told(), 3);
    assert_eq!(machine.ram(COUNT), 3);
    machine.stop();
}

#[test]
fn what_one_vcpu_posts_stays_before_what_it_tells_another_to_write() {
    const ROUNDS: u8 = 200;
    let (turn, answer) = (0x7200u32, 0x7201u32);
    let first = Code::real(START).mov_eax(0).store_eax(turn).enter_wide(WIDE);
    // Each: out, then passes the turn on; al and bl count the rounds.
    let wide = Code::wide(WIDE).flat_segments().start_others(OTHERS_PAGE).raw(&[0xb3, 1]).mov_dx(POSTED);
    let again = wide.here();
    let wide = wide.raw(&[0x88, 0xd8]).out_dx_al().store_al(turn);
    let wait = wide.here();
    let wide = wide
        .raw(&[0x38, 0x1d]) // cmp [answer], bl
        .raw(&answer.to_le_bytes())
        .jne(wait)
        .raw(&[0xfe, 0xc3]) // inc bl
        .raw(&[0x80, 0xfb, ROUNDS + 1]) // cmp bl, ROUNDS + 1
        .jne(again)
        .tell(1)
        .rest();
    let other = Code::real(OTHERS).raw(&[0x31, 0xc0, 0x8e, 0xd8, 0xb3, 1]).mov_dx(POSTED + 1); // ds = 0, bl = 1
    let again = other.here();
    let wait = other.here();
    let [low, high, ..] = turn.to_le_bytes();
    let other = other
        .raw(&[0x38, 0x1e, low, high]) // cmp [turn], bl
        .jne(wait)
        .raw(&[0x88, 0xd8])
        .out_dx_al()
        .store_al(answer)
        .raw(&[0xfe, 0xc3])
        .jmp(again);
    let Some(machine) = Machine::started(2, vec![first, wide, other]) else { return };
    assert_eq!(machine.told(), 1);
    let log = machine.take_log();
    assert!(log.iter().all(|access| matches!(access.op, Op::Write(_))));
    let expected: Vec<_> = (1..=u64::from(ROUNDS))
        .flat_map(|n| [(POSTED_REGION, 0, Width::B1, n), (POSTED_REGION, 1, Width::B1, n)])
        .collect();
    assert_eq!(writes(&log), expected);
    machine.stop();
}
