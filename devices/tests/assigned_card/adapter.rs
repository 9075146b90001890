//! A display adapter with any identity and BARs, that answers each register with a number of its own.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::{Irqs, Mapping, RegionInfo, Signalled, Write};
use trapline_io::{Fault, Region, Width};
use vm_memory::MmapRegion;

/// Offset of the MSI capability.
pub const MSI: u16 = 0x68;

/// What a BAR is: the low bits of its register, and bytes.
pub type Bars = [(u8, u64); 6];
pub const NONE: (u8, u64) = (0, 0);
pub const IO: u8 = 1;
pub const MEMORY: u8 = 0;
pub const WIDE: u8 = 4;

#[derive(Debug, Default)]
pub struct State {
    pub config: Vec<u8>,
    /// Reads and writes that it saw, but those of configuration space.
    pub seen: Vec<(bool, Region, u64, u64)>,
    pub written: Vec<(u64, u64)>,
    pub writes: Vec<Write>,
}

#[derive(Clone, Debug)]
pub struct Adapter {
    state: Arc<Mutex<State>>,
    regions: Arc<[RegionInfo]>,
    /// The regions of its own, from number [`TYPED`] on.
    typed: Arc<[Typed]>,
}

/// A region of a device's own: type with subtype, and contents.
type Typed = ((u32, u32), Vec<u8>);

/// The number of the first.
pub const TYPED: usize = 9;

/// What it has in a register.
pub fn own(region: Region, offset: u64) -> u64 {
    0xc0de_0000 | u64::from(region.0) << 12 ^ offset
}

impl Adapter {
    /// A VGA compatible controller with MSI, its memory BARs mapped.
    pub fn new((vendor, device): (u16, u16), bars: Bars) -> Adapter {
        let mut config = vec![0; 4096];
        config[..2].copy_from_slice(&vendor.to_le_bytes());
        config[2..4].copy_from_slice(&device.to_le_bytes());
        config[6] = 0x10;
        config[11] = 3;
        config[0x34] = 0x68;
        config[0x3d] = 1;
        config[0x68..0x6c].copy_from_slice(&[0x05, 0, 0x80, 0]);
        let mut regions = vec![RegionInfo::default(); 9];
        for (index, (bits, size)) in bars.into_iter().enumerate() {
            config[0x10 + 4 * index] = bits;
            // Where the host has it, which no guest is to see.
            config[0x12 + 4 * index] = 0xbe;
            let mapped = bits != IO && size > 0;
            let memory = mapped.then(|| Arc::new(MmapRegion::new(usize::try_from(size).unwrap()).unwrap()));
            let mappings = memory.map(|memory| Mapping::whole(0, memory)).into_iter().collect();
            regions[index] = RegionInfo { size, readable: true, writable: true, mappings };
        }
        regions[7] = RegionInfo { size: 4096, ..regions[7].clone() };
        regions[8] = RegionInfo { size: 0xc_0000, readable: true, writable: true, mappings: Vec::new() };
        let state = Arc::new(Mutex::new(State { config, ..State::default() }));
        Adapter { state, regions: regions.into(), typed: [].into() }
    }

    /// The same as a function of another class: base class and subclass.
    pub fn with_class(self, class: u16) -> Adapter {
        self.state().config[10..12].copy_from_slice(&class.to_le_bytes());
        self
    }

    /// The same with a region of its own, which is said to have so many bytes and fails behind its contents.
    pub fn with_typed(mut self, kind: (u32, u32), size: u64, contents: Vec<u8>) -> Adapter {
        let region = RegionInfo { size, readable: true, ..RegionInfo::default() };
        self.regions = self.regions.iter().cloned().chain([region]).collect();
        self.typed = self.typed.iter().cloned().chain([(kind, contents)]).collect();
        self
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What it saw since this was last asked.
    pub fn seen(&self) -> Vec<(bool, Region, u64, u64)> {
        std::mem::take(&mut self.state().seen)
    }

    /// What was written to its configuration space.
    pub fn written(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state().written)
    }
}

impl Backend for Adapter {
    fn name(&self) -> &str {
        "adapter"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn typed(&self, kind: (u32, u32)) -> Option<Region> {
        let place = self.typed.iter().position(|(known, _)| *known == kind)?;
        u8::try_from(TYPED + place).ok().map(Region)
    }
    fn resettable(&self) -> bool {
        true
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG {
            let mut bytes = [0; 8];
            let at = usize::try_from(offset).unwrap();
            bytes[..width.bytes()].copy_from_slice(&self.state().config[at..at + width.bytes()]);
            return Ok(u64::from_le_bytes(bytes));
        }
        self.state().seen.push((false, region, offset, 0));
        Ok(own(region, offset) & width.all_ones())
    }
    fn write(&mut self, region: Region, offset: u64, _: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.state().written.push((offset, value)),
            _ => self.state().seen.push((true, region, offset, value)),
        }
        Ok(())
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let (at, state) = (usize::try_from(offset).unwrap(), self.state());
        let typed = usize::from(region.0).checked_sub(TYPED).and_then(|place| self.typed.get(place));
        let from = typed.map_or(&state.config, |(_, contents)| contents);
        let there = from.get(at..).unwrap_or_default();
        bytes.iter_mut().zip(there).for_each(|(byte, from)| *byte = *from);
        if there.len() < bytes.len() { Err(Fault::Failed) } else { Ok(()) }
    }
    fn reset(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    fn irqs(&self) -> Irqs {
        Irqs { intx: true, msi: 1, msix: 0, msix_grows: false }
    }
    fn enable_intx(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_intx(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    fn enable_vectors(&mut self, _: Signalled, _: u16, _: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_vectors(&mut self, _: Signalled) -> Result<(), Fault> {
        Ok(())
    }
    fn takes_writes(&self) -> bool {
        true
    }
    fn connect_write(&mut self, write: Write, _: BorrowedFd<'_>) -> Result<(), Fault> {
        self.state().writes.push(write);
        Ok(())
    }
    fn disconnect_write(&mut self, write: Write) -> Result<(), Fault> {
        self.state().writes.retain(|there| *there != write);
        Ok(())
    }
}
