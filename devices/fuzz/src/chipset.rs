//! The chipset's functions under any accesses, each claim such that a slot could be made of it.

use std::sync::Arc;

use super::{CONFIG, Nobody, Place, Step, drive};
use trapline_devices::pci::{Link, Pin};
use trapline_devices::q35::{HostBridge, Lpc, Pirqs, Ram, RootPort};
use trapline_io::{Device, Region};
use vm_memory::MmapRegion;

const PLACES: [Place; 8] = [
    CONFIG[0],
    CONFIG[1],
    (Region::CONFIG, 0x40, 0x80),
    (Region(0), 0, 0x1000),
    (Region(1), 0, 0x80),
    (Region(2), 0x3100, 0x400),
    (Region(3), 0, 0x10),
    (Region(4), 0, 0x2_0000),
];

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(u8, u8, Vec<Step>)>(data) else { return };
    let (which, size, steps) = input;
    let pirqs = Pirqs::new(Arc::new(Nobody));
    let mut device: Box<dyn Device> = match which % 4 {
        0 | 1 => {
            let sizes = [16 << 20, 1 << 30, (2 << 30) + (1 << 20), 4 << 30, 100 << 30];
            let ram = Ram::new(sizes[usize::from(size) % sizes.len()]).expect("address space");
            let firmware = [0x1_0000, 0x2_0000, 0x4_0000, 0x100_0000][usize::from(size & 3)];
            let firmware = Arc::new(MmapRegion::new(firmware).expect("address space"));
            Box::new(HostBridge::new(ram, firmware).expect("sizes that a machine can have"))
        }
        2 => Box::new(Lpc::new(pirqs.clone(), Arc::new(Nobody))),
        _ => Box::new(RootPort::new(Link { speed: 4, lanes: 16 })),
    };
    let line = pirqs.line(size & 31, Pin::of(size));
    line.set(true);
    drive(&mut *device, &PLACES, &steps);
    line.set(false);
}
