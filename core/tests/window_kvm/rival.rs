//! A function whose BAR a guest may put anywhere: also where KVM collects for another.

use std::sync::Arc;

use parking_lot::Mutex;
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_io::device::{Claim, Claims, Device, Direct, DirectKind};
use trapline_io::{Fault, Region, Width};
use vm_memory::MmapRegion;

const SIZE: u32 = 4096;
const COMMAND: u64 = 4;

/// Notes what is written to its one BAR.
pub struct Rival {
    config: ConfigSpace,
    written: Arc<Mutex<Vec<u64>>>,
    /// What of the BAR the guest reads without a trap.
    memory: Option<Arc<MmapRegion>>,
    /// Carried out while COMMAND is written.
    meanwhile: Option<Box<dyn FnMut() + Send>>,
}

impl Rival {
    pub fn new() -> (Rival, Arc<Mutex<Vec<u64>>>) {
        let id = Identity { vendor: 0x1234, device: 2, revision: 0, class: 0xff_0000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: SIZE.into() });
        let written = Arc::default();
        (Rival { config, written: Arc::clone(&written), memory: None, meanwhile: None }, written)
    }

    /// With memory in the BAR that is read without a trap, and for which vCPUs are parked.
    pub fn with_rom(self) -> Rival {
        Rival { memory: Some(Arc::new(MmapRegion::new(SIZE as usize).unwrap())), ..self }
    }

    /// With something that goes on while COMMAND is written.
    pub fn while_it_is_switched_on(self, meanwhile: impl FnMut() + Send + 'static) -> Rival {
        Rival { meanwhile: Some(Box::new(meanwhile)), ..self }
    }
}

impl Device for Rival {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.config.read_region(offset, width) } else { Ok(0) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region != Region::CONFIG {
            self.written.lock().push(value);
            return Ok(());
        }
        if let Some(meanwhile) = self.meanwhile.as_mut().filter(|_| offset == COMMAND && value != 0) {
            meanwhile();
        }
        self.config.write_region(offset, width, value).map(drop)
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn claims(&self) -> Claims {
        let bar = self.config.decoded(0).map(|range| Claim::region(range, Region::bar(0), 0));
        let direct =
            |memory: &Arc<_>| Direct { memory: Arc::clone(memory), offset: 0, kind: DirectKind::Rom };
        let bar = bar.map(|claim| match &self.memory {
            Some(memory) => claim.direct(direct(memory)),
            None => claim,
        });
        Claims { ranges: bar.into_iter().collect(), bridge: None }
    }
}
