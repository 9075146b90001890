//! Interrupt inputs reach the guest through the 8259 pair in the kernel.

use std::time::{Duration, Instant};

use super::code::Code;
use super::machine::{Machine, START, WINDOW};

/// The input under test.
const GSI: u32 = 5;
const HANDLER: u32 = 0x1800;

/// Waits for interrupts with the input's mask open; its handler tells 0x55 and acknowledges.
fn waits(level_triggered: bool) -> Vec<Code> {
    // The vector of input 5 when the first is at 8.
    let vector = (8 + GSI) * 4;
    let main = Code::real(START)
        .mov_eax(HANDLER)
        .store_eax(vector)
        .mov_dx(0x4d0)
        .mov_al(if level_triggered { 1 << GSI } else { 0 })
        .out_dx_al();
    let initialisation = [(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0x21, !(1 << GSI))];
    let main = initialisation.into_iter().fold(main, |code, (port, value)| code.mov_al(value).out_al(port));
    let main = main.tell(1).raw(&[0xfb]).rest(); // sti
    let handler = Code::real(HANDLER).tell(0x55).mov_al(0x20).out_al(0x20).raw(&[0xcf]); // iret
    vec![main, handler]
}

fn started(level_triggered: bool) -> Option<Machine> {
    let machine = Machine::started(1, waits(level_triggered))?;
    assert_eq!(machine.told(), 1);
    Some(machine)
}

#[test]
fn an_edge_interrupts_once() {
    let Some(machine) = started(false) else { return };
    for _ in 0..20 {
        machine.parts.vm.set_gsi(GSI, true);
        assert_eq!(machine.told(), 0x55);
        machine.parts.vm.set_gsi(GSI, false);
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(machine.told_already(), None);
    machine.stop();
}

#[test]
fn a_level_interrupts_as_long_as_it_lasts() {
    let Some(machine) = started(true) else { return };
    machine.parts.vm.set_gsi(GSI, true);
    for _ in 0..3 {
        assert_eq!(machine.told(), 0x55);
    }
    machine.parts.vm.set_gsi(GSI, false);
    machine.parts.vm.set_gsi(4096, true);
    machine.stop();
}

#[test]
fn ticks_missed_with_interrupts_off_are_lost() {
    // The timer at 100 Hz and its vector; then a read that lasts as long as the test likes, with interrupts off.
    let main = Code::real(START).mov_eax(HANDLER).store_eax(8 * 4);
    let initialisation = [
        (0x20, 0x11),
        (0x21, 0x08),
        (0x21, 0x04),
        (0x21, 0x01),
        (0x21, 0xfe),
        (0x43, 0x34),
        (0x40, 0x9c),
        (0x40, 0x2e),
    ];
    let main = initialisation.into_iter().fold(main, |code, (port, value)| code.mov_al(value).out_al(port));
    let segment = u16::try_from(WINDOW >> 4).unwrap();
    let main = main.tell(1).mov_ax(segment).mov_ds_ax().load_al(0).raw(&[0xfb]).rest(); // sti
    let handler = Code::real(HANDLER).tell(0x55).mov_al(0x20).out_al(0x20).raw(&[0xcf]); // iret
    let Some(machine) = Machine::new(1, vec![main, handler]) else { return };
    let gate = machine.gate.clone();
    let closed = gate.lock().unwrap();
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(machine.told_already(), None, "interrupts are off");
    let start = Instant::now();
    drop(closed);
    assert_eq!(machine.told(), 0x55);
    std::thread::sleep(Duration::from_millis(100));
    let taken = 1 + std::iter::from_fn(|| machine.told_already()).count();
    let due = start.elapsed().as_millis() / 10;
    assert!(taken as u128 <= due + 10, "{taken} ticks where {due} were due");
    machine.stop();
}
