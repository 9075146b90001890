//! The index and data ports of ATI adapters, at the start of their I/O BAR: by them a BIOS reaches all of the
//! register BAR, and so the mirror of configuration space in it.
//!
//! | cards | I/O BAR | register BAR | the mirror there |
//! |---|---|---|---|
//! | after the X550 | 4 | 2, 64 bits wide | 0x4000 |
//! | before | 1 | 2 | 0xf00, the first 256 bytes |

use super::window::{Target, Window};
use super::{Card, Quirk, regions};
use crate::pci::BarKind;

/// Index and data, 4 bytes each.
const PORTS: u64 = 8;

/// The two layouts of BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Ports in BAR 4.
    Late,
    /// Ports in BAR 1.
    Early,
}

impl Layout {
    /// That of a card, if it has one.
    pub fn of(card: &Card<'_>) -> Option<Layout> {
        match (card.kind(4), card.kind(1)) {
            (Some(BarKind::Io), _) => Some(Layout::Late),
            (_, Some(BarKind::Io)) => Some(Layout::Early),
            _ => None,
        }
    }

    /// The BAR with the ports.
    pub fn ports(self) -> u8 {
        match self {
            Layout::Late => 4,
            Layout::Early => 1,
        }
    }

    /// Where the mirror is in the register BAR, and how long.
    pub fn mirror(self, card: &Card<'_>) -> (u32, u64) {
        match self {
            Layout::Late => (0x4000, card.config_len()),
            Layout::Early => (0xf00, 0x100),
        }
    }
}

/// The quirk, if the card has the ports.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    let layout = Layout::of(card).filter(|layout| card.has_ports(layout.ports(), PORTS))?;
    let (first, len) = layout.mirror(card);
    let targets = vec![Target { first, len }];
    Some(Box::new(Window::new(regions::ATI_WINDOW, layout.ports(), 0, targets)))
}

#[cfg(test)]
mod tests {
    use trapline_io::{Op, Region, Width};

    use super::super::tests::{RADEON, RADEON_X550, made};
    use super::super::{Beside, Lead};
    use super::*;

    #[test]
    fn the_data_port_is_configuration_space_where_the_index_says_so() {
        let mut window = made(RADEON, regions::ATI_WINDOW).unwrap();
        let (index, data) = (0, 4);
        let hardware = (Region::bar(4), data);
        let mut select = |value| {
            let write = Op::Write(value);
            assert_eq!(window.lead(index, Width::B4, write), Ok(Lead::Device((Region::bar(4), index))));
            window.pass(index, Width::B4, write);
            let read = window.lead(data, Width::B4, Op::Read);
            (read.unwrap(), window.lead(data, Width::B2, Op::Write(7)).unwrap())
        };
        let config = |at| (Lead::Config(at, Beside::Sees(hardware)), Lead::Config(at, Beside::Nothing));
        assert_eq!(select(0x4010), config(0x10));
        assert_eq!(select(0x3000), (Lead::Device(hardware), Lead::Device(hardware)));
        assert_eq!(select(0x4004), config(4));
        assert_eq!(select(0x4ffc), config(0xffc));
        assert_eq!(select(0x5000), (Lead::Device(hardware), Lead::Device(hardware)));
    }

    #[test]
    fn an_early_card_has_the_ports_in_bar_1() {
        let mut window = made(RADEON_X550, regions::ATI_WINDOW).unwrap();
        window.pass(0, Width::B4, Op::Write(0xf10));
        let read = Lead::Config(0x10, Beside::Sees((Region::bar(1), 4)));
        assert_eq!(window.lead(4, Width::B4, Op::Read), Ok(read));
        // Bit 31 selects video memory.
        window.pass(0, Width::B4, Op::Write(0x8000_0f10));
        assert_eq!(window.lead(4, Width::B4, Op::Read), Ok(Lead::Device((Region::bar(1), 4))));
    }
}
