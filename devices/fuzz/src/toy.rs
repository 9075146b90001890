//! A device for a vfio-user server, and for a client that is served by it.

use std::sync::{Arc, OnceLock};

use trapline_devices::vfio_user::server::{Description, Interrupts, IrqType, Memory, RegionDescription};
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

/// Bytes of its registers, of its configuration space, and of its memory that can be mapped.
pub const SIZES: [u64; 3] = [0x1000, 0x100, 0x4000];

/// Registers keep what is written; a write also signals an interrupt.
#[derive(Debug)]
pub struct Toy {
    bytes: Vec<u8>,
    interrupts: Option<Interrupts>,
}

impl Toy {
    /// A device that signals through `interrupts`.
    pub fn new(interrupts: Option<Interrupts>) -> Toy {
        Toy { bytes: vec![0; 0xc_0000], interrupts }
    }
}

impl Device for Toy {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let at = usize::try_from(offset).expect("the server checks bounds");
        let bytes = self.bytes.get(at..at + width.bytes()).expect("the server checks bounds");
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let at = usize::try_from(offset).expect("the server checks bounds");
        let bytes = self.bytes.get_mut(at..at + width.bytes()).expect("the server checks bounds");
        bytes.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        if let Some(interrupts) = &self.interrupts {
            interrupts.trigger(at & 3, at >> 2 & 7);
        }
        if offset == 0xffc { Err(Fault::BadWidth) } else { Ok(()) }
    }

    fn reset(&mut self) {
        self.bytes.fill(0);
    }

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// What it is offered as.
pub fn description() -> Description {
    static FILE: OnceLock<Arc<std::os::fd::OwnedFd>> = OnceLock::new();
    let file = FILE.get_or_init(|| Arc::new(super::sealed(SIZES[2]).expect("a file in memory")));
    let areas = Some(vec![(0, 0x1000), (0x2000, 0x1000)]);
    let memory = Memory { file: Arc::clone(file), offset: 0, areas };
    let mut regions = vec![RegionDescription::default(); 10];
    regions[0] = RegionDescription::memory(SIZES[2], memory);
    regions[2] = RegionDescription::registers(SIZES[0]);
    regions[6] = RegionDescription::read_only(0x2000);
    regions[7] = RegionDescription::registers(SIZES[1]);
    regions[8] = RegionDescription::registers(0xc_0000);
    let irqs = (0..4).map(|count| IrqType { count: count * 4, ..IrqType::default() }).collect();
    Description { regions, irqs, resettable: true }
}
