//! Who answers legacy VGA, for any values of COMMAND, VGA Enable and bus numbers: held against a model that asks
//! every function in the order of the bus.

use proptest::prelude::*;
use trapline::parts::Place;
use trapline::topology::map::{Node, address_space, vga_decoders};
use trapline_devices::legacy;
use trapline_devices::pci::spec::Command;
use trapline_devices::pci::{Devfn, Link};
use trapline_devices::q35::RootPort;
use trapline_io::device::Claims;
use trapline_io::space::{ConfigLatch, DwordSet, Resolved};
use trapline_io::{Address, Device, Gpa, Op, Port, Region, Trap, Width};

/// The machine: two ports, a function behind each, and two functions on bus 0, the later one first.
const PLACES: [(Option<usize>, u8); 6] =
    [(None, 1), (Some(0), 0), (None, 2), (Some(2), 0), (None, 4), (None, 3)];
const PORTS: [usize; 2] = [0, 2];

/// Registers of a port, as a guest writes them.
#[derive(Clone, Copy, Debug)]
struct PortRegisters {
    io: bool,
    memory: bool,
    vga: bool,
    secondary: u8,
}

fn port() -> impl Strategy<Value = PortRegisters> {
    let secondary = prop_oneof![4 => 1..=3_u8, 1 => Just(0)];
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.7), secondary)
        .prop_map(|(io, memory, vga, secondary)| PortRegisters { io, memory, vga, secondary })
}

fn root_port(registers: PortRegisters) -> RootPort {
    let mut port = RootPort::new(Link { speed: 4, lanes: 16 });
    let mut write = |offset, width, value: u64| port.write(Region::CONFIG, offset, width, value).unwrap();
    write(0x04, Width::B2, u64::from(registers.io) | u64::from(registers.memory) << 1);
    write(0x18, Width::B4, u64::from(registers.secondary) << 16 | u64::from(registers.secondary) << 8);
    write(0x3e, Width::B2, u64::from(registers.vga) << 3);
    port
}

/// The first on the bus that decodes, and all that do.
fn model(ports: &[PortRegisters], commands: &[(bool, bool)], window: bool) -> Vec<usize> {
    let mut all = Vec::new();
    for (id, (parent, device)) in PLACES.iter().enumerate().filter(|(id, _)| !PORTS.contains(id)) {
        let function = id - 1 - usize::from(id > 2);
        let (io, memory) = commands[function];
        let port = parent.map(|parent| ports[usize::from(parent != 0)]);
        let led = port
            .is_none_or(|port| port.vga && port.secondary != 0 && if window { port.memory } else { port.io });
        if led && if window { memory } else { io } {
            all.push((port.map_or(0, |port| port.secondary), *device, id));
        }
    }
    all.sort_unstable();
    all.into_iter().map(|(_, _, id)| id).collect()
}

proptest! {
    #[test]
    fn the_first_on_the_bus_that_decodes_answers(
        ports in prop::array::uniform2(port()),
        commands in prop::array::uniform4(any::<(bool, bool)>()),
    ) {
        let nodes = PLACES.map(|(parent, device)| Node {
            place: Place::Pci { parent, devfn: Devfn::new(device, 0).unwrap() },
            topology: DwordSet::default(),
        });
        let mut functions = commands.iter();
        let claims: Vec<Option<Claims>> = (0..PLACES.len())
            .map(|id| match PORTS.iter().position(|port| *port == id) {
                Some(port) => root_port(ports[port]).claims(),
                None => {
                    let (io, memory) = functions.next().unwrap();
                    let command = Command::new().with_io(*io).with_memory(*memory);
                    Claims { ranges: legacy::claims(command).collect(), bridge: None }
                }
            })
            .map(Some)
            .collect();
        let space = address_space(&nodes, &claims);
        let decoders = vga_decoders(&nodes, &claims);
        let answers = |at| {
            match space.resolve(Trap { at, width: Width::B1, op: Op::Read }, &ConfigLatch::default()) {
                Resolved::Access { endpoint, .. } => Some(usize::from(endpoint.0)),
                _ => None,
            }
        };
        let (window, io) = (model(&ports, &commands, true), model(&ports, &commands, false));
        for gpa in [0xa_0000, 0xb_8000, 0xb_ffff] {
            prop_assert_eq!(answers(Address::Gpa(Gpa(gpa))), window.first().copied());
        }
        for port in [0x3b0, 0x3c0, 0x3d5, 0x3df] {
            prop_assert_eq!(answers(Address::Port(Port(port))), io.first().copied());
        }
        prop_assert_eq!(answers(Address::Port(Port(0x3bc))), None);
        // Two ports with one bus number hide who comes first there.
        if ports[0].secondary != ports[1].secondary {
            prop_assert_eq!((decoders.window, decoders.ports), (window, io));
        }
    }
}
