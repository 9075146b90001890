//! A function whose BAR a guest may put anywhere: also where KVM collects for another.

use std::sync::Arc;

use parking_lot::Mutex;
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_io::device::{Claim, Claims, Device};
use trapline_io::{Fault, Region, Width};

const SIZE: u32 = 4096;

/// Notes what is written to its one BAR.
pub struct Rival {
    config: ConfigSpace,
    written: Arc<Mutex<Vec<u64>>>,
}

impl Rival {
    pub fn new() -> (Rival, Arc<Mutex<Vec<u64>>>) {
        let id = Identity { vendor: 0x1234, device: 2, revision: 0, class: 0xff_0000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: SIZE.into() });
        let written = Arc::default();
        (Rival { config, written: Arc::clone(&written) }, written)
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
        self.config.write_region(offset, width, value).map(drop)
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn claims(&self) -> Claims {
        let bar = self.config.decoded(0).map(|range| Claim::region(range, Region::bar(0), 0));
        Claims { ranges: bar.into_iter().collect(), bridge: None }
    }
}
