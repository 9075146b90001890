//! A PCI function with large BARs and nothing behind them, as a vfio-user server: to see what firmware and
//! operating systems make of such sizes, without a card that has them.
//!
//! ```text
//! cargo run --package trapline-devices --example large_bars /tmp/large.sock
//! trapline run --device vfio-user:/tmp/large.sock ...
//! ```
//!
//! BAR 0 is 128 GiB of memory that clients map, of which the first and the last eight bytes hold marks. BAR 2
//! has 0x2f00f00000 bytes, which are no power of two, so that its register takes 256 GiB; it is never mapped,
//! and what is written to its first and last eight bytes reads back inverted.

use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_devices::vfio_user::server::{Description, IrqType, Memory, RegionDescription, Server};
use trapline_devices::vga::Shared;
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};
use vm_memory::{Bytes, VolatileMemory};

/// Bytes of BAR 0.
const MEMORY: u64 = 128 << 30;
/// Bytes of BAR 2.
const REGISTERS: u64 = 0x2f_00f0_0000;
/// What the first eight bytes of BAR 0 hold, and the last.
const MARKS: [u64; 2] = [0x7472_6170_6c69_6e65, 0x6c61_7374_776f_7264];

struct Large {
    config: ConfigSpace,
    memory: Shared,
    /// The first and the last eight bytes of BAR 2.
    ends: [u64; 2],
}

impl Large {
    fn new() -> Result<Large, Error> {
        let id = Identity {
            vendor: 0x1b36,
            device: 0x00fe,
            revision: 0,
            class: 0x12_0000,
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = ConfigSpace::new(id);
        let kind = BarKind::Memory64 { prefetchable: true };
        config.add_bar(0, Bar { kind, size: MEMORY });
        config.add_bar(2, Bar { kind, size: REGISTERS });
        let size = usize::try_from(MEMORY).map_err(|_| Error::from(ErrorKind::Unsupported))?;
        let memory = Shared::new("large", size)?;
        let bytes = memory.memory().as_volatile_slice();
        for (at, mark) in [0, size - 8].into_iter().zip(MARKS) {
            bytes.write_obj(mark, at).map_err(Error::other)?;
        }
        Ok(Large { config, memory, ends: [0; 2] })
    }

    fn description(&self) -> Result<Description, Error> {
        let file = OwnedFd::from(self.memory.file().try_clone()?);
        let memory = Memory { file: Arc::new(file), offset: 0, areas: None };
        let mut regions = vec![RegionDescription::default(); 9];
        regions[0] = RegionDescription::memory(MEMORY, memory);
        regions[2] = RegionDescription::registers(REGISTERS);
        regions[7] = RegionDescription::registers(4096);
        Ok(Description { regions, irqs: vec![IrqType::default(); 5], resettable: true })
    }

    /// The eight bytes of BAR 2 that an offset lies in, and by how many bits.
    fn end(offset: u64, width: Width) -> Option<(usize, u32)> {
        let [first, last] = [0, REGISTERS - 8].map(|start| offset.checked_sub(start));
        let inside = |at: Option<u64>| at.filter(|at| at + width.bytes() as u64 <= 8);
        let (end, at) = inside(first).map(|at| (0, at)).or_else(|| inside(last).map(|at| (1, at)))?;
        Some((end, u32::try_from(8 * at).unwrap_or(0)))
    }
}

impl Device for Large {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => self.config.read_region(offset, width),
            _ if region == Region::bar(2) => {
                let end = Large::end(offset, width);
                Ok(end.map_or(0, |(end, shift)| !self.ends[end] >> shift) & width.all_ones())
            }
            _ if region == Region::bar(0) => {
                let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
                let mut bytes = [0; 8];
                let memory = self.memory.bytes();
                memory.read_slice(&mut bytes[..width.bytes()], at).map_err(|_| Fault::NoRegister)?;
                Ok(u64::from_le_bytes(bytes))
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.config.write_region(offset, width, value).map(drop),
            _ if region == Region::bar(2) => {
                if let Some((end, shift)) = Large::end(offset, width) {
                    let mask = width.all_ones() << shift;
                    self.ends[end] = self.ends[end] & !mask | value << shift & mask;
                }
                Ok(())
            }
            _ if region == Region::bar(0) => {
                let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
                let bytes = value.to_le_bytes();
                self.memory.bytes().write_slice(&bytes[..width.bytes()], at).map_err(|_| Fault::NoRegister)
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.ends = [0; 2];
    }

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("the path of a socket is needed")?;
    let mut device = Large::new()?;
    let server = Server::bind(Path::new(&socket), device.description()?)?;
    Ok(server.run(&mut device)?)
}
