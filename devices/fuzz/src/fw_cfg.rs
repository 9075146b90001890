//! The firmware configuration device: selector, data, and transfers with hostile guest memory.

use std::sync::Arc;

use super::{Place, Step, drive};
use arbitrary::Arbitrary;
use trapline_devices::platform::fw_cfg::{FwCfg, Items, key};
use trapline_io::{Device, Region, Width};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PORTS: Region = Region(0);
const PLACES: [Place; 1] = [(PORTS, 0, 12)];
/// RAM with a hole, and RAM above 4 GiB.
const RAM: [(GuestAddress, usize); 3] =
    [(GuestAddress(0), 0x1_0000), (GuestAddress(0x2_0000), 0x4000), (GuestAddress(1 << 32), 0x4000)];

#[derive(Arbitrary, Debug)]
enum Act {
    Guest(Vec<Step>),
    Select(u8),
    Memory {
        at: u16,
        bytes: Vec<u8>,
    },
    /// Puts a descriptor somewhere and starts it.
    Transfer {
        at: u16,
        control: u32,
        length: u32,
        address: u64,
    },
    /// The same with numbers that more often fit.
    Small {
        control: u8,
        key: u8,
        length: u16,
        address: u16,
    },
    /// Starts whatever lies there.
    Start {
        high: u32,
        low: u32,
    },
}

fn start(device: &mut FwCfg, high: u32, low: u32) {
    let _ = device.write(PORTS, 4, Width::B4, high.swap_bytes().into());
    let _ = device.write(PORTS, 8, Width::B4, low.swap_bytes().into());
}

fn transfer(device: &mut FwCfg, memory: &GuestMemoryMmap, at: u16, control: u32, length: u32, address: u64) {
    let bytes = [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()].concat();
    if memory.write_slice(&bytes, GuestAddress(at.into())).is_ok() {
        start(device, 0, at.into());
        let control: u32 = memory.read_obj(GuestAddress(at.into())).expect("RAM");
        // A transfer onto its own descriptor is told of all the same: the control word comes last.
        assert!(matches!(u32::from_be(control), 0 | 1), "the transfer was not answered: {control:#x}");
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(acts) = super::input::<Vec<Act>>(data) else { return };
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&RAM).expect("address space"));
    let mut items = Items::new();
    items.set(key::CPUS, 1_u16.to_le_bytes());
    items.add_file("etc/fixed", vec![7; 3000]).expect("room");
    items.add_writable("etc/writable", vec![1; 20]).expect("room");
    let make = || vec![vec![1; 10], vec![2; 5000]];
    items.add_made(&[("etc/made", 100), ("etc/long", 100)], Box::new(make)).expect("room");
    let mut device = FwCfg::new(items, Arc::clone(&memory));
    for act in acts {
        match act {
            Act::Guest(steps) => drive(&mut device, &PLACES, &steps),
            Act::Select(key) => {
                let _ = device.write(PORTS, 0, Width::B2, u64::from(key) % 0x28);
            }
            Act::Memory { at, bytes } => {
                let _ = memory.write(&bytes, GuestAddress(at.into()));
            }
            Act::Transfer { at, control, length, address } => {
                transfer(&mut device, &memory, at, control, length, address);
            }
            Act::Small { control, key, length, address } => {
                let control = u32::from(key % 0x28) << 16 | u32::from(control);
                transfer(&mut device, &memory, 0x100, control, length.into(), address.into());
            }
            Act::Start { high, low } => start(&mut device, high, low),
        }
    }
}
