//! Writes that signal without an exit.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use trapline_io::device::Signal;
use trapline_io::{Access, Address, Gpa, Port, Width};
use trapline_vcpu::{Ioeventfd, Ioeventfds};
use vm_memory::{Bytes, VolatileMemory};

use super::code::Code;
use super::machine::{Machine, PORT_REGION, PORTS, START, WINDOW, WINDOW_REGION};

const GO: u32 = 0x7000;

fn event() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap())
}

fn count(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

fn at_port(port: u16, event: &Arc<OwnedFd>, value: Option<(Width, u64)>) -> Ioeventfd {
    let signal = Signal { event: event.clone(), value };
    Ioeventfd { at: Address::Port(Port(port)), signal }
}

fn at_window(offset: u32, event: &Arc<OwnedFd>, value: Option<(Width, u64)>) -> Ioeventfd {
    let signal = Signal { event: event.clone(), value };
    Ioeventfd { at: Address::Gpa(Gpa(u64::from(WINDOW + offset))), signal }
}

/// Each register in each way, and after them the same again when the test says so.
fn code() -> Code {
    let write = |code: Code| {
        code.mov_ax(0xb000)
            .mov_ds_ax()
            .mov_eax(0x8765_4321)
            .mov_dx(PORTS)
            .out_dx_al()
            .out_dx_ax()
            .out_dx_eax()
            .store_al(0x10)
            .store_ax(0x10)
            .store_eax(0x10)
            .mov_ax(0)
            .mov_ds_ax()
    };
    let code = write(Code::real(START)).tell(1).await_byte(GO, 1);
    write(code).tell(2).rest()
}

/// What exits of it: widths of writes to the port and to the window.
fn exits(machine: &Machine) -> (Vec<Width>, Vec<Width>) {
    let log = machine.take_log();
    let of = |region, offset| {
        let here = move |access: &&Access| (access.region, access.offset) == (region, offset);
        log.iter().filter(here).map(|access| access.width).collect::<Vec<_>>()
    };
    (of(PORT_REGION, 0), of(WINDOW_REGION, 0x10))
}

fn run(wanted: impl Fn(&Arc<OwnedFd>, &Arc<OwnedFd>) -> Vec<Ioeventfd>) -> Option<Seen> {
    let machine = Machine::new(1, vec![code()])?;
    let events = [event(), event()];
    let mut ioeventfds = Ioeventfds::new(machine.parts.vm.clone());
    let list = wanted(&events[0], &events[1]);
    ioeventfds.add_missing(&list);
    ioeventfds.add_missing(&list);
    assert_eq!(ioeventfds.iter().cloned().collect::<Vec<_>>(), list);
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    let with = (exits(&machine), events.each_ref().map(|event| count(event)));
    ioeventfds.remove_unwanted(&[]);
    assert_eq!(ioeventfds.iter().count(), 0);
    machine.parts.ram.as_volatile_slice().write_obj(1_u8, GO as usize).unwrap();
    assert_eq!(machine.told(), 2);
    let all = vec![Width::B1, Width::B2, Width::B4];
    assert_eq!(exits(&machine), (all.clone(), all), "all trap again");
    assert_eq!(events.each_ref().map(|event| count(event)), [0, 0]);
    machine.stop();
    Some(Seen { exits: with.0, signals: with.1 })
}

struct Seen {
    exits: (Vec<Width>, Vec<Width>),
    signals: [u64; 2],
}

#[test]
fn any_write_to_a_register_signals_and_does_not_exit() {
    let Some(seen) = run(|port, window| vec![at_port(PORTS, port, None), at_window(0x10, window, None)])
    else {
        return;
    };
    assert_eq!(seen.exits, (vec![], vec![]));
    assert_eq!(seen.signals, [3, 3]);
}

#[test]
fn with_a_value_only_that_value_in_that_width_signals() {
    let wide = Some((Width::B4, 0x8765_4321));
    let Some(seen) = run(|port, window| {
        vec![
            at_port(PORTS, port, Some((Width::B2, 0x4321))),
            at_port(PORTS, port, Some((Width::B1, 0x22))),
            at_window(0x10, window, wide),
            at_window(0x10, window, Some((Width::B1, 0x21))),
            at_window(0x10, window, Some((Width::B8, 0x21))),
        ]
    }) else {
        return;
    };
    assert_eq!(seen.exits, (vec![Width::B1, Width::B4], vec![Width::B2]));
    assert_eq!(seen.signals, [1, 2]);
}

#[test]
fn what_the_kernel_refuses_traps() {
    let Some(machine) = Machine::new(1, vec![code()]) else { return };
    let (one, other) = (event(), event());
    let mut ioeventfds = Ioeventfds::new(machine.parts.vm.clone());
    // A second one for the same writes collides.
    let list = [at_port(PORTS, &one, None), at_port(PORTS, &other, None)];
    ioeventfds.add_missing(&list);
    assert_eq!(ioeventfds.iter().count(), 1);
    ioeventfds.remove_unwanted(&list[1..]);
    ioeventfds.add_missing(&list[1..]);
    assert_eq!(ioeventfds.iter().count(), 0, "refused as long as it is wanted");
    ioeventfds.remove_unwanted(&[]);
    ioeventfds.add_missing(&list[1..]);
    assert_eq!(ioeventfds.iter().count(), 1);
    // Dropping takes it back.
    drop(ioeventfds);
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    assert_eq!(exits(&machine).0, [Width::B1, Width::B2, Width::B4]);
    assert_eq!((count(&one), count(&other)), (0, 0));
    machine.stop();
}
