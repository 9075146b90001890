//! A function with registers, and nothing behind them.

use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity};
use trapline_io::device::{Claim, Claims};
use trapline_io::{Device, Fault, Region, Width};

/// A register of a card: its index, its kind and its size in bytes.
pub type Register = (u8, BarKind, u64);

/// See the module's page. Whatever is read is zero.
pub struct Card(ConfigSpace);

impl Card {
    pub fn new(registers: &[Register]) -> Card {
        let id = Identity { vendor: 0x1234, device: 1, revision: 0, class: 0xff_0000, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(id);
        for (index, kind, size) in registers {
            config.add_bar(*index, Bar { kind: *kind, size: *size });
        }
        Card(config)
    }
}

impl Device for Card {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.0.read_region(offset, width) } else { Ok(0) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::CONFIG { self.0.write_region(offset, width, value).map(drop) } else { Ok(()) }
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn claims(&self) -> Claims {
        let claim = |index| self.0.decoded(index).map(|range| Claim::region(range, Region(index), 0));
        Claims { ranges: (0..7).filter_map(claim).collect(), bridge: None }
    }
}
