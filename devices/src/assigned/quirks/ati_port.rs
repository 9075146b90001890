//! Port 0x3c3 of ATI adapters, by which their BIOS finds the I/O BAR: it reads bits 15:8 of its address there.
//!
//! The host's address would lead the BIOS into nothing. So the port always gives the guest's, whether the card's
//! own would show it or not: bare metal does not always. Writes are dropped, as on a bus where the VGA
//! subsystem is enabled for good. Where the I/O BAR is register 1, in cards up to the Radeon X550, it is
//! that register's byte.

use trapline_io::{Fault, Op, Region, Width};

use super::ati_window::Layout;
use super::{Beside, Card, Lead, Overlay, Quirk, Writes, regions};
use crate::pci::spec;

const PORT: u64 = 0x3c3;
/// Fewer ports would need bits below bit 8.
const PORTS: u64 = 0x100;

/// Where in configuration space the byte is.
#[derive(Clone, Copy, Debug)]
struct Port(u16);

/// The quirk, if one of the BARs is what it is about.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    let bar = Layout::of(card).map(Layout::ports).filter(|bar| card.has_ports(*bar, PORTS))?;
    Some(Box::new(Port(spec::BAR0 + 4 * u16::from(bar) + 1)))
}

impl Quirk for Port {
    fn region(&self) -> Region {
        regions::ATI_PORT
    }

    fn overlays(&self) -> Vec<Overlay> {
        vec![Overlay { on: Region::VGA, first: PORT, len: 1, writes: Writes::Plain }]
    }

    fn lead(&self, _: u64, _: Width, op: Op) -> Result<Lead, Fault> {
        match op {
            Op::Read => Ok(Lead::Config(self.0, Beside::Nothing)),
            Op::Write(_) => Ok(Lead::Here(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RADEON, RADEON_X550, made};
    use super::*;

    #[test]
    fn the_port_tells_of_the_guests_io_bar_and_takes_nothing() {
        for (adapter, at) in [(RADEON, 0x21), (RADEON_X550, 0x15)] {
            let port = made(adapter, regions::ATI_PORT).unwrap();
            assert_eq!(port.lead(PORT, Width::B1, Op::Read), Ok(Lead::Config(at, Beside::Nothing)));
            assert_eq!(port.lead(PORT, Width::B1, Op::Write(1)), Ok(Lead::Here(0)));
        }
    }

    #[test]
    fn a_card_with_fewer_ports_has_no_such_byte() {
        assert!(made(RADEON.with_bar(4, 0x80), regions::ATI_PORT).is_none());
        assert!(made(RADEON.with_bar(4, 0), regions::ATI_PORT).is_none());
        assert!(made(RADEON.without_vga(), regions::ATI_PORT).is_none());
    }
}
