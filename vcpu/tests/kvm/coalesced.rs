//! Writes that the kernel collects: what it puts into its ring, and what it does not.

use std::sync::Arc;

use trapline_io::device::Range;
use trapline_io::feed::Collected;
use trapline_io::{Access, Address, Gpa, Op, Port, Span, Trap, Width};
use trapline_vcpu::{Coalesced, ZoneError, Zones};
use vm_memory::{Bytes, VolatileMemory};

use super::code::Code;
use super::machine::{Machine, PORT_REGION, PORTS, START, WINDOW, WINDOW_REGION};

/// A byte of RAM that a guest waits for, and one that it counts down from.
const GO: u32 = 0x7000;

/// The first half of the window; the other half exits.
fn window() -> Range {
    memory(u64::from(WINDOW), 0x8000)
}

fn memory(first: u64, len: u64) -> Range {
    Range::Memory(Span::of_len(Gpa(first), len).unwrap())
}

fn ports(first: u16, len: u64) -> Range {
    Range::Ports(Span::of_len(Port(first), len).unwrap())
}

fn stored(offset: u32, width: Width, value: u64) -> Trap {
    Trap { at: Address::Gpa(Gpa(u64::from(WINDOW + offset))), width, op: Op::Write(value) }
}

fn out(port: u16, width: Width, value: u64) -> Trap {
    Trap { at: Address::Port(Port(port)), width, op: Op::Write(value) }
}

/// Does something with the zones while all vCPUs are parked.
fn parked(
    machine: &Machine,
    zones: &mut Zones,
    change: fn(&mut Zones, &trapline_vcpu::Parked<'_>) -> Result<(), ZoneError>,
) -> Result<(), ZoneError> {
    let mut guard = machine.parts.world.lock();
    let parked = guard.park().unwrap();
    change(zones, &parked)
}

fn all(ring: &Coalesced) -> Vec<Trap> {
    std::iter::from_fn(|| ring.pop()).collect()
}

/// A machine that runs with these zones; `None` where its kernel cannot.
fn collecting(ranges: Vec<Range>, code: Code) -> Option<(Machine, Zones, Arc<Coalesced>)> {
    let machine = Machine::new(1, vec![code])?;
    let vm = &machine.parts.vm;
    if !vm.collects_ports() {
        println!("skipped: this kernel's KVM collects no writes to ports");
        return None;
    }
    let ring = machine.vcpus.collected().expect("a ring");
    let mut zones = Zones::new(vm.clone(), ranges);
    parked(&machine, &mut zones, Zones::register).unwrap();
    machine.parts.world.release();
    Some((machine, zones, ring))
}

/// Real-mode code with DS at the window.
fn at_window() -> Code {
    Code::real(START).mov_ax(0xb000).mov_ds_ax()
}

/// The guest goes on when the byte at [`GO`] is `value`.
fn await_go(code: Code, value: u8) -> Code {
    code.mov_ax(0).mov_ds_ax().await_byte(GO, value).mov_ax(0xb000).mov_ds_ax()
}

fn go(machine: &Machine, value: u8) {
    machine.parts.ram.as_volatile_slice().write_obj(value, GO as usize).unwrap();
}

#[test]
fn collected_writes_are_in_the_ring_in_order() {
    let code = at_window()
        .mov_eax(0x8765_4321)
        .store_al(0x0)
        .mov_dx(PORTS)
        .out_dx_al()
        .store_ax(0x1)
        .out_dx_ax()
        .store_eax(0x10)
        .mov_dx(PORTS + 12)
        .out_dx_eax()
        .load_mm0(0x8000)
        .store_mm0(0x7ff8)
        .tell(1)
        .rest();
    let Some((machine, _zones, ring)) = collecting(vec![window(), ports(PORTS, 16)], code) else { return };
    assert_eq!(machine.told(), 1);
    let eight = super::machine::pattern_value(0x8000, Width::B8);
    assert_eq!(
        all(&ring),
        [
            stored(0, Width::B1, 0x21),
            out(PORTS, Width::B1, 0x21),
            stored(1, Width::B2, 0x4321),
            out(PORTS, Width::B2, 0x4321),
            stored(0x10, Width::B4, 0x8765_4321),
            out(PORTS + 12, Width::B4, 0x8765_4321),
            stored(0x7ff8, Width::B8, eight),
        ]
    );
    assert!(ring.is_empty());
    assert_eq!(ring.dropped(), 0);
    assert_eq!(machine.take_log(), [Access::read(WINDOW_REGION, 0x8000, Width::B8)], "a read exits");
    machine.stop();
}

#[test]
fn a_write_across_a_page_keeps_all_of_its_bytes() {
    let code = at_window().mov_eax(0x4433_2211).store_eax(0xffd).tell(1).rest();
    let Some((machine, _zones, ring)) = collecting(vec![window()], code) else { return };
    assert_eq!(machine.told(), 1);
    let expected =
        [stored(0xffd, Width::B1, 0x11), stored(0xffe, Width::B2, 0x3322), stored(0x1000, Width::B1, 0x44)];
    assert_eq!(all(&ring), expected);
    machine.stop();
}

#[test]
fn what_is_not_wholly_in_a_zone_exits() {
    let code = at_window()
        .mov_ax(0x4321)
        .mov_dx(PORTS + 15)
        .out_dx_ax()
        .mov_dx(PORTS + 20)
        .out_dx_al()
        .store_ax(0x8000)
        .tell(1)
        .rest();
    // A write across two zones is in neither.
    let zones = vec![window(), ports(PORTS, 16), ports(PORTS + 16, 2)];
    let Some((machine, _zones, ring)) = collecting(zones, code) else { return };
    assert_eq!(machine.told(), 1);
    assert!(ring.is_empty());
    assert_eq!(
        machine.take_log(),
        [
            Access::write(PORT_REGION, 15, Width::B2, 0x4321),
            Access::write(PORT_REGION, 20, Width::B1, 0x21),
            Access::write(WINDOW_REGION, 0x8000, Width::B2, 0x4321),
        ]
    );
    machine.stop();
}

#[test]
fn a_full_ring_exits_and_loses_nothing() {
    // Counts AX down from 200, and writes each number.
    let code = at_window().mov_cx(200).mov_dx(PORTS);
    let again = code.here();
    let code = code.raw(&[0x89, 0xc8]).out_dx_ax().loop_(again).tell(1); // mov ax, cx
    let code = await_go(code, 1).mov_ax(7).mov_dx(PORTS).out_dx_ax().tell(2).rest();
    let Some((machine, _zones, ring)) = collecting(vec![ports(PORTS, 16)], code) else { return };
    assert_eq!(machine.told(), 1);
    // Nobody took anything: the first 169 are in the ring, the others came by exits.
    let exits: Vec<Access> = (1..=31).rev().map(|n| Access::write(PORT_REGION, 0, Width::B2, n)).collect();
    assert_eq!(machine.take_log(), exits);
    let collected: Vec<Trap> = (32..=200).rev().map(|n| out(PORTS, Width::B2, n)).collect();
    assert_eq!(all(&ring), collected);
    go(&machine, 1);
    assert_eq!(machine.told(), 2);
    assert_eq!(all(&ring), [out(PORTS, Width::B2, 7)], "there is room again");
    machine.stop();
}

#[test]
fn unregistered_zones_collect_nothing() {
    let write = |code: Code, value| code.mov_al(value).store_al(0).mov_dx(PORTS).out_dx_al();
    let code = write(at_window(), 1).tell(1);
    let code = write(await_go(code, 1), 2).tell(2);
    let code = write(await_go(code, 2), 3).tell(3).rest();
    let zones = vec![window(), ports(PORTS, 16)];
    let Some((machine, mut zones, ring)) = collecting(zones, code) else { return };
    let collected = |value| [stored(0, Width::B1, value), out(PORTS, Width::B1, value)];
    assert_eq!(machine.told(), 1);
    assert!(zones.are_registered());
    assert_eq!(all(&ring), collected(1));

    // Once is enough, however often it was asked for.
    parked(&machine, &mut zones, Zones::register).unwrap();
    parked(&machine, &mut zones, |zones, _| zones.unregister()).unwrap();
    assert!(!zones.are_registered());
    go(&machine, 1);
    assert_eq!(machine.told(), 2);
    assert!(ring.is_empty());
    let exits = [Access::write(WINDOW_REGION, 0, Width::B1, 2), Access::write(PORT_REGION, 0, Width::B1, 2)];
    assert_eq!(machine.take_log(), exits);

    parked(&machine, &mut zones, |zones, _| zones.unregister()).unwrap();
    parked(&machine, &mut zones, Zones::register).unwrap();
    go(&machine, 2);
    assert_eq!(machine.told(), 3);
    assert_eq!(all(&ring), collected(3));
    machine.stop();
}

#[test]
fn a_failed_registration_leaves_no_zone() {
    let code = at_window().mov_al(1).store_al(0).tell(1).rest();
    let Some(machine) = Machine::new(1, vec![code]) else { return };
    let Some(ring) = machine.vcpus.collected() else { return };
    let too_long = memory(0, u64::MAX);
    let mut zones = Zones::new(machine.parts.vm.clone(), vec![window(), too_long]);
    assert_eq!(parked(&machine, &mut zones, Zones::register), Err(ZoneError::Unable(too_long)));
    assert!(!zones.are_registered());
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    assert!(ring.is_empty());
    assert_eq!(machine.take_log(), [Access::write(WINDOW_REGION, 0, Width::B1, 1)]);
    machine.stop();
}

#[test]
fn a_slot_hides_a_zone() {
    let code = Code::real(START).mov_al(0x5a).store_al(0x6000).tell(1).rest();
    let Some((machine, _zones, ring)) = collecting(vec![memory(0x6000, 0x1000)], code) else { return };
    assert_eq!(machine.told(), 1);
    assert!(ring.is_empty());
    assert_eq!(machine.ram(0x6000) & 0xff, 0x5a);
    machine.stop();
}

#[test]
fn a_vcpu_may_not_change_zones() {
    use super::machine::TOPOLOGY;
    let change = |parts: &super::machine::Parts, caller: &mut trapline_io::completion::Caller, access| {
        let mut guard = parts.world.lock_on_vcpu(0).unwrap();
        let parked = guard.park().unwrap();
        let mut zones = Zones::new(parts.vm.clone(), vec![window()]);
        assert_eq!(zones.register(&parked), Err(ZoneError::OnVcpu(0)));
        drop(parked);
        parts.endpoint.call(caller, access);
    };
    let code = Code::real(START).mov_dx(TOPOLOGY).out_dx_al().tell(1).rest();
    let Some(machine) = Machine::with_change(1, vec![code], Box::new(change)) else { return };
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    machine.stop();
}
