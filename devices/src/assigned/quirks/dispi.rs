//! The DISPI ports 0x1ce and 0x1cf of the Bochs adapter: an index latch, and the register that it selects.
//! They lie outside of what VFIO forwards, but the same registers stand in BAR 2.

use trapline_io::{Fault, Op, Region, Width};

use super::{Card, Lead, Overlay, Quirk, Writes, regions};
use crate::vga::spec;

/// The data register stands at an odd port and is 16 bits wide, so it reaches one port further.
const PORTS: u64 = 3;
/// Where the registers in BAR 2 end, two bytes each.
const WINDOW_END: u64 = spec::MMIO_DISPI + 0x16;
const INDEX: u64 = spec::DISPI_INDEX as u64;
const DATA: u64 = spec::DISPI_DATA as u64;

/// See the module's page.
#[derive(Clone, Copy, Debug, Default)]
struct Dispi {
    index: u16,
}

/// The quirk, if the device has a BAR 2 that holds the registers.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    card.has_memory(2, WINDOW_END).then(|| Box::<Dispi>::default() as Box<dyn Quirk>)
}

impl Quirk for Dispi {
    fn region(&self) -> Region {
        regions::DISPI
    }

    fn overlays(&self) -> Vec<Overlay> {
        vec![Overlay { on: Region::VGA, first: INDEX, len: PORTS, writes: Writes::Plain }]
    }

    /// Only 16 bits wide the ports are known.
    fn lead(&self, offset: u64, width: Width, _: Op) -> Result<Lead, Fault> {
        match (offset, width) {
            (INDEX, Width::B2) => Ok(Lead::Here(self.index.into())),
            (DATA, Width::B2) => {
                let at = spec::MMIO_DISPI + 2 * u64::from(self.index);
                if at < WINDOW_END { Ok(Lead::Device((Region::bar(2), at))) } else { Err(Fault::NoRegister) }
            }
            _ => Err(Fault::BadWidth),
        }
    }

    fn pass(&mut self, offset: u64, width: Width, op: Op) {
        if let (INDEX, Width::B2, Op::Write(value)) = (offset, width, op) {
            self.index = (value & 0xffff) as u16;
        }
    }

    fn reset(&mut self) {
        self.index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latch_selects_a_register_of_bar_2() {
        let mut dispi = Dispi::default();
        dispi.pass(INDEX, Width::B2, Op::Write(3));
        assert_eq!(dispi.lead(INDEX, Width::B2, Op::Read), Ok(Lead::Here(3)));
        assert_eq!(dispi.lead(DATA, Width::B2, Op::Write(8)), Ok(Lead::Device((Region::bar(2), 0x506))));
        dispi.pass(INDEX, Width::B1, Op::Write(4));
        assert_eq!(dispi.lead(INDEX, Width::B2, Op::Read), Ok(Lead::Here(3)), "bytes are not known");
        assert_eq!(dispi.lead(DATA, Width::B1, Op::Read), Err(Fault::BadWidth));
        assert_eq!(dispi.lead(DATA + 1, Width::B2, Op::Read), Err(Fault::BadWidth));
        dispi.pass(INDEX, Width::B2, Op::Write(11));
        assert_eq!(dispi.lead(DATA, Width::B2, Op::Read), Err(Fault::NoRegister));
        dispi.reset();
        assert_eq!(dispi.lead(DATA, Width::B2, Op::Read), Ok(Lead::Device((Region::bar(2), 0x500))));
    }
}
