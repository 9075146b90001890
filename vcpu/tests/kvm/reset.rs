//! A reset brings back what was there at power-on, whatever the guest did.

use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use super::code::Code;
use super::machine::{Machine, PATIENCE, PORT_REGION, PORTS, Report, START, writes};

const WIDE: u32 = 0x2000;
/// Where the general registers are kept by the first instructions.
const REGISTERS: u32 = 0x7000;

#[test]
fn a_triple_fault_is_reported_and_a_reset_helps() {
    // In 32-bit mode, since KVM's emulator of real mode (where it has to be used) does not look at
    // the limit of the interrupt table. lidt [0x1800], which is zero; ud2.
    let code = Code::real(START).tell(1).enter_wide(WIDE);
    let wide = Code::wide(WIDE).flat_segments().raw(&[0x0f, 0x01, 0x1d, 0x00, 0x18, 0, 0, 0x0f, 0x0b]);
    let Some(machine) = Machine::started(1, vec![code, wide]) else { return };
    for _ in 0..3 {
        assert_eq!(machine.told(), 1);
        assert_eq!(machine.reported(), Report::Shutdown(0));
        // It can be parked where it stands, and does not run on by itself.
        drop(machine.parts.world.lock().park().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(machine.told_already(), None);
        machine.reset();
    }
    machine.stop();
}

/// Keeps all general registers, and tells the state of everything in the kernel by writes to the
/// device; then changes all of it.
fn show_and_change() -> Vec<Code> {
    let keep = |code: Code, register: u8, at: u32| {
        // mov [at], register
        let [low, high, ..] = (REGISTERS + at).to_le_bytes();
        code.raw(&[0x66, 0x89, 0x06 | register << 3, low, high])
    };
    // ecx, edx, ebx, esp, ebp, esi, edi; eax has its own encoding
    let real = (1..8).fold(Code::real(START).store_eax(REGISTERS), |code, register| {
        keep(code, register, u32::from(register) * 4)
    });
    let real = real.store_mm0(REGISTERS + 32);
    let show = |code: Code| {
        code.mov_al(0xe2)
            .out_al(0x43)
            .in_al(0x40)
            .raw(&[0x24, 0x3f]) // and al, 0x3f: not the output, which changes with time
            .out_dx_al() // status of the timer's first channel
            .in_al(0x21)
            .out_dx_al() // masks of the 8259s
            .in_al(0xa1)
            .out_dx_al()
            .load_eax(0xfee0_00f0)
            .out_dx_eax() // spurious vector
            .load_eax(0xfee0_0350)
            .out_dx_eax() // LINT0
            .load_eax(0xfee0_0080)
            .out_dx_eax() // task priority
            .mov_eax(0x12)
            .store_eax(0xfec0_0000)
            .load_eax(0xfec0_0010)
            .out_dx_eax() // I/O APIC, entry 1, low
            .mov_ecx(0x277)
            .raw(&[0x0f, 0x32]) // rdmsr, which changes dx
            .mov_dx(PORTS)
            .out_dx_eax() // page attributes
            .mov_ecx(0x2ff)
            .raw(&[0x0f, 0x32]) // rdmsr, which changes dx
            .mov_dx(PORTS)
            .out_dx_eax() // memory types
            .raw(&[0x0f, 0x20, 0xe0])
            .out_dx_eax() // CR4
    };
    let wrmsr = |code: Code, msr, value| {
        code.mov_ecx(msr).mov_eax(value).raw(&[0x31, 0xd2, 0x0f, 0x30]).mov_dx(PORTS)
    };
    let wide = show(Code::wide(WIDE).flat_segments().mov_dx(PORTS));
    let wide = wide
        .mov_al(0x5a)
        .out_al(0x21)
        .mov_al(0xa5)
        .out_al(0xa1)
        .mov_eax(0x1ff)
        .store_eax(0xfee0_00f0)
        .mov_eax(0x0001_0031)
        .store_eax(0xfee0_0350)
        .mov_eax(0x40)
        .store_eax(0xfee0_0080)
        .mov_eax(0x12)
        .store_eax(0xfec0_0000)
        .mov_eax(0x0001_0055)
        .store_eax(0xfec0_0010)
        .mov_al(0x34)
        .out_al(0x43) // timer: channel 0, mode 2
        .mov_al(0x10)
        .out_al(0x40)
        .out_al(0x40);
    let wide = wrmsr(wrmsr(wide, 0x277, 0x0007_0506), 0x2ff, 0xc06);
    let wide = wide.raw(&[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x08, 0x0f, 0x22, 0xe0]); // CR4.DE
    let wide = wrmsr(show(wide), 0x1b, 0xfee0_0d00); // x2APIC: no registers in memory any more
    let wide = wide
        .load_mm0(WIDE) // any bytes that are not zero
        .tell(1)
        .raw(&[0xbb, 1, 1, 1, 1, 0xbe, 2, 2, 2, 2, 0xbf, 3, 3, 3, 3, 0xbd, 4, 4, 4, 4, 0xbc, 5, 5, 5, 5])
        .rest();
    vec![real.enter_wide(WIDE), wide]
}

#[test]
fn registers_and_chips_come_back() {
    let Some(machine) = Machine::started(1, show_and_change()) else { return };
    assert_eq!(machine.told(), 1);
    let shown = |machine: &Machine| {
        let registers: Vec<u32> = (0..10).map(|i| machine.ram(REGISTERS + 4 * i)).collect();
        let values: Vec<u64> = writes(&machine.take_log())
            .into_iter()
            .filter(|(region, ..)| *region == PORT_REGION)
            .map(|(.., value)| value)
            .collect();
        (registers, values)
    };
    let (registers, values) = shown(&machine);
    let (before, after) = values.split_at(values.len() / 2);
    assert_eq!(before.len(), 10);
    for (before, after) in before.iter().zip(after) {
        assert_ne!(before, after, "the guest changed nothing: {values:x?}");
    }
    // The signature of the processor is in EDX at power-on, the rest is 0.
    assert_ne!(registers[2], 0);
    assert_eq!(registers.iter().filter(|register| **register == 0).count(), 9, "{registers:x?}");
    for _ in 0..3 {
        machine.reset();
        assert_eq!(machine.told(), 1);
        assert_eq!(shown(&machine), (registers.clone(), values.clone()));
    }
    machine.stop();
}

#[test]
fn a_reset_on_a_vcpu_thread_or_for_another_machine_is_refused() {
    let Some(machine) = Machine::new(1, vec![Code::real(START).rest()]) else { return };
    let other = trapline_vcpu::World::new(0);
    let mut guard = other.lock();
    assert!(machine.vcpus.reset(&guard.park().unwrap()).is_err());
    machine.stop();
}

#[test]
fn a_reset_in_the_midst_of_a_string_instruction_leaves_nothing_behind() {
    // rep outsb of 64 KiB, and rep insb, for ever
    let code = Code::real(START).tell(1).mov_dx(PORTS);
    let again = code.here();
    let code =
        code.mov_cx(0xffff).raw(&[0xf3, 0x6e]).mov_di(0x4000).mov_cx(0x1000).raw(&[0xf3, 0x6c]).jmp(again);
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    for round in 0..20 {
        assert_eq!(machine.told(), 1);
        std::thread::sleep(std::time::Duration::from_micros(700 * round));
        machine.reset();
        machine.take_log();
    }
    assert_eq!(machine.told(), 1);
    machine.stop();
}

/// Waits until the thread whose number is put there sleeps.
fn await_sleep(thread: &AtomicI32) {
    let since = Instant::now();
    let sleeps = || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", thread.load(SeqCst)));
        status.is_ok_and(|status| status.contains("State:\tS"))
    };
    while !sleeps() {
        assert!(since.elapsed() < PATIENCE, "it does not sleep");
        std::thread::yield_now();
    }
}

#[test]
fn the_answer_to_an_access_before_the_reset_does_not_reach_the_guest_behind_it() {
    let code =
        Code::real(START).store_eax(REGISTERS).tell(1).mov_ax(0xb000).mov_ds_ax().load_eax(0).tell(2).rest();
    let Some(machine) = Machine::new(1, vec![code]) else { return };
    let mut gate = Some(machine.gate.lock().unwrap());
    machine.parts.world.release();
    for _ in 0..5 {
        assert_eq!(machine.told(), 1);
        assert_eq!(machine.ram(REGISTERS), 0);
        machine.await_access();
        // The vCPU is in the device: it is let go when the park is under way, so that it parks with
        // an answer that the guest has not taken yet.
        let mut guard = machine.parts.world.lock();
        let parker = AtomicI32::new(0);
        let parked = std::thread::scope(|scope| {
            let parking = scope.spawn(|| {
                parker.store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
                guard.park().unwrap()
            });
            // It has kicked the vCPU, and waits for it.
            await_sleep(&parker);
            drop(gate.take());
            parking.join().unwrap()
        });
        assert_eq!(machine.told_already(), None);
        machine.vcpus.reset(&parked).unwrap();
        assert_eq!(machine.take_log().len(), 1);
        gate = Some(machine.gate.lock().unwrap());
        drop(parked);
    }
    assert_eq!(machine.told(), 1);
    drop(gate);
    assert_eq!(machine.told(), 2);
    machine.stop();
}
