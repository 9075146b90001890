//! The real SeaBIOS, and where it was said to put BARs: of functions that are nothing but registers, on
//! machines that no host could hold. Needs /dev/kvm and SeaBIOS; besides the distribution's image those of
//! the laboratory, and those that the variable `TRAPLINE_SEABIOS` names (separated by colons), are tried.

mod model;
mod random;
mod rig;

use trapline::firmware::placement::{Misfit, Version};
use trapline_devices::pci::{Bar, BarKind};

use model::{Shape, Spot};
use rig::{Machine, Seen};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn wide(size: u64) -> Bar {
    Bar { kind: BarKind::Memory64 { prefetchable: true }, size }
}

fn narrow(size: u64) -> Bar {
    Bar { kind: BarKind::Memory32 { prefetchable: false }, size }
}

fn root(bars: &[Bar]) -> Shape {
    Shape { spot: Spot::Root, bars: bars.to_vec() }
}

fn behind(hot_plug: bool, bars: &[Bar]) -> Shape {
    Shape { spot: Spot::Port { hot_plug }, bars: bars.to_vec() }
}

fn machine(memory: u64, phys_bits: u8, shapes: &[Shape]) -> Machine {
    Machine { memory, phys_bits, reserved: Vec::new(), shapes: shapes.to_vec() }
}

/// Runs each machine on each firmware, and compares.
fn as_planned(machines: &[Machine]) {
    for image in rig::images() {
        for machine in machines {
            let Some((planned, seen)) = rig::run(&image, machine) else { return };
            let place = format!("{machine:?} on SeaBIOS {}", image.version);
            match planned {
                Ok(planned) => {
                    let Seen::Placed(seen) = seen else { panic!("the firmware stopped: {place}") };
                    assert_eq!(seen, planned, "{place}");
                }
                Err(Misfit::Low { .. } | Misfit::Ports { .. }) => {
                    assert_eq!(seen, Seen::Stopped, "{place}");
                }
                // Nobody but the plan looks: the firmware goes on.
                Err(misfit) => {
                    let Seen::Placed(seen) = seen else { panic!("the firmware stopped: {misfit}: {place}") };
                    assert!(rig::is_bad(machine, &seen), "{misfit}, and it was not: {seen:?} {place}");
                }
            }
        }
    }
}

#[test]
fn bars_of_up_to_256_gib() {
    as_planned(&[
        machine(GIB, 46, &[root(&[wide(128 * GIB)])]),
        machine(4 * GIB, 46, &[root(&[wide(256 * GIB)]), root(&[wide(128 * GIB)])]),
        machine(4 * GIB, 40, &[behind(false, &[wide(256 * GIB), wide(32 * MIB), narrow(16 * MIB)])]),
        machine(4 * GIB, 39, &[root(&[wide(256 * MIB)])]),
    ]);
}

#[test]
fn eight_bars_of_128_gib() {
    let eight = vec![root(&[wide(128 * GIB)]); 8];
    let ports = vec![behind(false, &[wide(128 * GIB)]); 8];
    as_planned(&[machine(8 * GIB, 46, &eight), machine(8 * GIB, 48, &ports), machine(GIB, 44, &ports)]);
}

#[test]
fn a_size_that_is_no_power_of_two() {
    // What a VFIO region of 188 GiB and a bit becomes as a register.
    let odd = wide(0x2f_00f0_0000);
    as_planned(&[machine(2 * GIB, 42, &[root(&[odd]), behind(false, &[odd, narrow(MIB)])])]);
}

#[test]
fn the_low_window_full_and_over_full() {
    let full: Vec<Shape> =
        [512, 256, 128, 64, 32, 8, 4].into_iter().map(|size| root(&[narrow(size * MIB)])).collect();
    let more = [full.clone(), vec![root(&[narrow(4096)])]].concat();
    as_planned(&[machine(GIB, 40, &full), machine(GIB, 40, &more)]);
}

#[test]
fn what_the_firmware_does_not_look_at() {
    let two = [root(&[wide(256 * GIB)]), root(&[wide(128 * GIB)])];
    let crooked = [behind(true, &[wide(16 * GIB), wide(8 * GIB)]), behind(true, &[wide(16 * GIB)])];
    let hole = rig::span(0xfd_0000_0000, 12 * GIB);
    let moved = Machine { reserved: vec![hole], ..machine(4 * GIB, 40, &two) };
    as_planned(&[machine(4 * GIB, 39, &two), machine(8 * GIB, 40, &crooked), moved]);
}

#[test]
fn machines_at_random() {
    as_planned(&random::machines(12));
}

#[test]
fn an_image_tells_its_version() {
    for image in rig::images() {
        assert!(image.version >= Version(1, 16, 0), "{}", image.version);
    }
}
