//! Parking, topology changes and stopping, under load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::code::Code;
use super::machine::{Machine, PORTS, Parts, RAM, RAM_REGION, SLOW, START, TOPOLOGY};

const WIDE: u32 = 0x2000;
const OTHERS: u32 = 0x8000;
/// A dword that a guest counts up, and the page it lies in.
const COUNTER: u32 = 0x5_0000;
const PAGE: std::ops::Range<u64> = 0x5_0000..0x5_1000;

/// Counts RAM at [`COUNTER`] and on each round writes a port of the device.
fn busy() -> Code {
    let code = Code::real(START).mov_ax(0x5000).mov_ds_ax().mov_dx(PORTS);
    let again = code.here();
    code.inc(0).out_dx_al().jmp(again)
}

#[test]
fn nothing_moves_while_parked() {
    let Some(machine) = Machine::started(1, vec![busy()]) else { return };
    for _ in 0..50 {
        let mut guard = machine.parts.world.lock();
        let parked = guard.park().unwrap();
        let (counted, _) = (machine.ram(COUNTER), machine.take_log());
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(machine.ram(COUNTER), counted);
        assert_eq!(machine.take_log(), []);
        drop(parked);
        drop(guard);
        let since = Instant::now();
        while machine.ram(COUNTER) == counted {
            assert!(since.elapsed() < Duration::from_secs(10), "the vCPU does not run on");
        }
    }
    machine.stop();
}

/// Maps all RAM but the page of the counter, and the rest of it.
fn publish_without_page(parts: &Parts) {
    parts.publish(Some(0..PAGE.start));
}

#[test]
fn ram_comes_and_goes_while_vcpus_use_it() {
    let Some(machine) = Machine::started(1, vec![busy()]) else { return };
    let trapped = |log: &[trapline_io::Access]| log.iter().filter(|a| a.region == RAM_REGION).count();
    let mut seen = 0;
    for _ in 0..30 {
        for present in [false, true] {
            let mut guard = machine.parts.world.lock();
            let parked = guard.park().unwrap();
            // Until here the page was the other way.
            let traps = trapped(&machine.take_log());
            if present {
                seen += traps;
                machine.parts.publish(Some(0..RAM));
            } else {
                assert_eq!(traps, 0, "a trap where RAM was mapped");
                publish_without_page(&machine.parts);
            }
            let counted = machine.ram(COUNTER);
            drop(parked);
            drop(guard);
            std::thread::sleep(Duration::from_millis(2));
            if !present {
                // Unmapped, the count goes to the device.
                assert_eq!(machine.ram(COUNTER), counted);
            }
        }
    }
    assert!(seen > 0, "no access trapped while the page was away");
    machine.stop();
}

/// A topology change that parks the world and takes away or gives back the page of the counter.
fn flip(parts: &Parts, vcpu: Option<usize>, alone: &AtomicBool, changes: &AtomicU32) {
    let mut guard = match vcpu {
        Some(vcpu) => match parts.world.lock_on_vcpu(vcpu) {
            Ok(guard) => guard,
            Err(_) => return,
        },
        None => parts.world.lock(),
    };
    let parked = guard.park().expect("the others park");
    assert!(!alone.swap(true, Ordering::SeqCst), "two parks at once");
    if changes.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
        publish_without_page(parts);
    } else {
        parts.publish(Some(0..RAM));
    }
    alone.store(false, Ordering::SeqCst);
    drop(parked);
}

#[test]
fn changers_on_two_vcpus_and_the_host_do_not_wait_for_each_other() {
    const ROUNDS: u16 = 100;
    let first = Code::real(START).enter_wide(WIDE);
    let wide = Code::wide(WIDE).flat_segments().start_others(8).mov_ecx(u32::from(ROUNDS)).mov_dx(TOPOLOGY);
    let again = wide.here();
    let wide = wide.out_dx_al().lock_inc(COUNTER).loop_(again).tell(1).rest();
    let other = Code::real(OTHERS).mov_cx(ROUNDS).mov_dx(TOPOLOGY + 1);
    let again = other.here();
    let other = other.out_dx_al().loop_(again).tell(2).rest();
    let alone = Arc::new(AtomicBool::new(false));
    let changes = Arc::new(AtomicU32::new(0));
    let change = {
        let (alone, changes) = (alone.clone(), changes.clone());
        Box::new(move |parts: &Parts, caller: &mut trapline_io::completion::Caller, _| {
            flip(parts, Some(usize::from(caller.id().0)), &alone, &changes);
        })
    };
    let Some(machine) = Machine::with_change(2, vec![first, wide, other], change) else { return };
    machine.parts.world.release();
    for _ in 0..ROUNDS {
        flip(&machine.parts, None, &alone, &changes);
    }
    let mut told = [machine.told(), machine.told()];
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    assert_eq!(changes.load(Ordering::SeqCst), 3 * u32::from(ROUNDS));
    machine.stop();
}

#[test]
fn a_change_that_a_reset_overtakes_is_dropped() {
    let code = Code::real(START).tell(1).mov_dx(TOPOLOGY).out_dx_al().tell(2).rest();
    let changes = Arc::new(AtomicU32::new(0));
    let counter = changes.clone();
    let change = Box::new(move |parts: &Parts, _: &mut trapline_io::completion::Caller, _| {
        if parts.world.lock_on_vcpu(0).is_ok() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let Some(machine) = Machine::with_change(1, vec![code], change) else { return };
    let world = machine.parts.world.clone();
    let mut guard = world.lock();
    world.release();
    assert_eq!(machine.told(), 1);
    // The vCPU gets as far as the mutex, which is ours.
    std::thread::sleep(Duration::from_millis(50));
    let parked = guard.park().unwrap();
    machine.vcpus.reset(&parked).unwrap();
    drop(parked);
    assert_eq!(changes.load(Ordering::SeqCst), 0);
    assert_eq!(machine.told(), 1, "it starts anew, and does not go on behind the write");
    drop(guard);
    assert_eq!(machine.told(), 2);
    assert_eq!(changes.load(Ordering::SeqCst), 1);
    machine.stop();
}

/// Runs `code` for a moment, and stops within a second: the quickest of a few, since the host may be busy.
fn stops(cpus: u16, code: impl Fn() -> Vec<Code>) {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let Some(machine) = Machine::started(cpus, code()) else { return };
        std::thread::sleep(Duration::from_millis(30));
        let since = Instant::now();
        machine.stop();
        quickest = quickest.min(since.elapsed());
        if quickest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("stopping took {quickest:?}");
}

#[test]
fn stops_whatever_the_guest_does() {
    let spin = || {
        let code = Code::real(START);
        let again = code.here();
        code.jmp(again)
    };
    stops(1, || vec![spin()]);
    stops(1, || vec![Code::real(START).raw(&[0xfa]).rest()]);
    stops(4, || vec![Code::real(START).rest()]);
    stops(1, || vec![busy()]);
}

#[test]
fn stops_before_it_ever_ran_and_when_only_dropped() {
    let Some(machine) = Machine::new(2, vec![busy()]) else { return };
    machine.stop();
    let Some(machine) = Machine::started(2, vec![busy()]) else { return };
    drop(machine);
}

#[test]
fn stops_while_a_vcpu_waits_for_the_topology_mutex() {
    let code = Code::real(START).tell(1).mov_dx(TOPOLOGY).out_dx_al().tell(2).rest();
    let change = Box::new(|parts: &Parts, _: &mut trapline_io::completion::Caller, _| {
        assert!(parts.world.lock_on_vcpu(0).is_err());
    });
    let Some(machine) = Machine::with_change(1, vec![code], change) else { return };
    let world = machine.parts.world.clone();
    let guard = world.lock();
    world.release();
    assert_eq!(machine.told(), 1);
    std::thread::sleep(Duration::from_millis(30));
    machine.stop();
    drop(guard);
}

#[test]
fn a_vcpu_that_does_not_park_is_named() {
    let code = Code::real(START).mov_ax(0xb000).mov_ds_ax().tell(1).load_al(0).tell(2).rest();
    let Some(machine) = Machine::new(1, vec![code]) else { return };
    let gate: MutexGuard<'_, ()> = machine.gate.lock().unwrap();
    let mut guard = machine.parts.world.lock();
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    machine.await_access();
    let error = guard.park().unwrap_err();
    assert_eq!(error.vcpus, [0]);
    assert!(error.to_string().starts_with("vcpu0 did not stop"), "{error}");
    drop(gate);
    assert_eq!(machine.told(), 2, "it was let go");
    drop(guard.park().unwrap());
    drop(guard);
    machine.stop();
}

#[test]
fn no_kick_is_lost() {
    // One spins, one makes exits, one halts for good.
    let first = Code::real(START).enter_wide(WIDE);
    let wide = Code::wide(WIDE).flat_segments().start_others(8);
    let again = wide.here();
    let wide = wide.jmp(again);
    // cpuid: the number of the processor decides.
    let other = Code::real(OTHERS).mov_eax(1).raw(&[0x0f, 0xa2, 0x66, 0xc1, 0xeb, 24, 0x80, 0xfb, 2]);
    let other = other.raw(&[0x74, 1, 0xf4]).mov_dx(PORTS); // je +1; hlt
    let again = other.here();
    let other = other.out_dx_al().jmp(again);
    let Some(machine) = Machine::started(3, vec![first, wide, other]) else { return };
    for round in 0..500u32 {
        // After a kick that is lost it fails, in 20 s.
        drop(machine.parts.world.lock().park().unwrap());
        // Different moments: on the way in, inside, on the way out.
        for _ in 0..round % 50 * 20 {
            std::hint::spin_loop();
        }
        machine.log.lock().unwrap().clear();
    }
    machine.stop();
}

#[test]
fn a_long_string_to_a_slow_device_does_not_hold_up_the_end() {
    let code = Code::real(START).tell(1).mov_di(0x7000).mov_cx(1000).mov_dx(SLOW);
    let code = code.raw(&[0xf3, 0x6c]).rest(); // rep insb
    let Some(machine) = Machine::started(1, vec![code]) else { return };
    assert_eq!(machine.told(), 1);
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    machine.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}
