//! The software adapter as a card behind a backend, for tests.

use trapline_io::{Device, Fault, Region, Width};

use crate::assigned::Backend;
use crate::assigned::backend::RegionInfo;
use crate::vga::Adapter;

/// A write that a card saw: region, offset, bytes.
pub(crate) type Seen = (Region, u64, Vec<u8>);

/// See the module's page.
pub(crate) struct Card {
    /// The adapter itself.
    pub adapter: Adapter,
    /// The writes to it since this was last emptied; a run counts as one.
    pub seen: Vec<Seen>,
    /// Every access fails.
    pub fails: bool,
    regions: Vec<RegionInfo>,
}

impl Card {
    /// An adapter after power-on, with its registers in BAR 2.
    pub fn new() -> Card {
        let region = |size| RegionInfo { size, readable: true, writable: true, mappings: Vec::new() };
        let mut regions = vec![region(0); 9];
        regions[2] = region(4096);
        regions[8] = region(0xc_0000);
        Card { adapter: Adapter::new(None).unwrap(), seen: Vec::new(), fails: false, regions }
    }

    /// The same in mode 3, 80 by 25 characters, colour.
    pub fn in_text() -> Card {
        let mut card = Card::new();
        card.adapter.write(Region::VGA, 0x3c2, Width::B1, 0x67).unwrap();
        card.index_writes(0x3c4, &[3, 0, 3, 0, 2]);
        card.index_writes(0x3ce, &[0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff]);
        card
    }

    /// Writes registers from 0 on, each by one 16-bit access to its index port.
    pub fn index_writes(&mut self, port: u64, values: &[u8]) {
        for (index, value) in (0_u64..).zip(values) {
            let both = u64::from(*value) << 8 | index;
            self.adapter.write(Region::VGA, port, Width::B2, both).unwrap();
        }
    }

    /// Writes to the window and ports that it saw since this was last called.
    pub fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    fn done(&self) -> Result<(), Fault> {
        if self.fails { Err(Fault::Failed) } else { Ok(()) }
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "software"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn resettable(&self) -> bool {
        true
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.done().and_then(|()| self.adapter.read(region, offset, width))
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.done()?;
        self.seen.push((region, offset, value.to_le_bytes()[..width.bytes()].to_vec()));
        self.adapter.write(region, offset, width, value)
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.done()?;
        for (at, byte) in (offset..).zip(bytes) {
            *byte = self.adapter.read(region, at, Width::B1)?.to_le_bytes()[0];
        }
        Ok(())
    }
    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.done()?;
        self.seen.push((region, offset, bytes.to_vec()));
        for (at, byte) in (offset..).zip(bytes) {
            self.adapter.write(region, at, Width::B1, (*byte).into())?;
        }
        Ok(())
    }
    fn reset(&mut self) -> Result<(), Fault> {
        self.adapter.reset();
        self.done()
    }
}
