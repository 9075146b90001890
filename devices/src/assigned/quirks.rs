//! What adapters decode outside of their BARs and the legacy ranges.

use trapline_io::device::{Claim, Range};
use trapline_io::{Fault, Port, Region, Span, Width};

use crate::vga::spec;

/// The DISPI index and data ports of the Bochs adapter as a region of the function.
pub(super) const DISPI: Region = Region(0xf0);

/// The data register stands at an odd port and is 16 bits wide, so it reaches one port further.
const LAST_PORT: u16 = spec::DISPI_DATA + 1;
/// Where the registers in BAR 2 end, two bytes each.
const WINDOW_END: u64 = spec::MMIO_DISPI + 0x16;

/// The DISPI ports 0x1ce and 0x1cf of the Bochs adapter: an index latch, and the register that it
/// selects. They lie outside of what VFIO forwards, but the same registers stand in BAR 2.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dispi {
    index: u16,
}

/// What an access to the ports is about.
pub(super) enum Reached {
    /// The latch, carried out already.
    Latch(u64),
    /// A register in BAR 2, at this offset.
    Bar2(u64),
}

impl Dispi {
    /// The quirk, if the device needs it and has a BAR 2 that holds the registers.
    pub fn of(vendor: u16, device: u16, bar2: u64) -> Option<Dispi> {
        ((vendor, device) == spec::IDENTITY && bar2 >= WINDOW_END).then(Dispi::default)
    }

    /// The ports, while the function decodes I/O.
    pub fn claim() -> Option<Claim> {
        let ports = Span::new(Port(spec::DISPI_INDEX), Port(LAST_PORT))?;
        Some(Claim::region(Range::Ports(ports), DISPI, 0))
    }

    /// Where an access to the ports leads; only 16 bits wide they are known.
    pub fn reach(&mut self, offset: u64, width: Width, write: Option<u64>) -> Result<Reached, Fault> {
        match (offset, width, write) {
            (0, Width::B2, None) => Ok(Reached::Latch(self.index.into())),
            (0, Width::B2, Some(value)) => {
                self.index = (value & 0xffff) as u16;
                Ok(Reached::Latch(0))
            }
            (1, Width::B2, _) => {
                let at = spec::MMIO_DISPI + 2 * u64::from(self.index);
                if at < WINDOW_END { Ok(Reached::Bar2(at)) } else { Err(Fault::NoRegister) }
            }
            _ => Err(Fault::BadWidth),
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.index = 0;
    }
}
