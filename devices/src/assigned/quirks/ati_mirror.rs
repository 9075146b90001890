//! The mirror of configuration space in the register BAR of ATI adapters, of which the window in their ports is
//! the other way in (see `ati_window`).
//!
//! Only the first 256 bytes are led: what lies behind them in the BAR are other registers where the card has no
//! more, and a driver has no use for the rest.
//!
//! BAR 2 has the registers up to the generation before Bonaire, and is not prefetchable there. From Bonaire on it is: it
//! has the doorbells, by which a driver tells its rings' positions, and the registers are in BAR 5. A doorbell at this
//! offset must not become a write to configuration space.

use super::ati_window::Layout;
use super::mirror::Mirror;
use super::{Card, Quirk, regions};
use crate::pci::BarKind;

const BAR: u8 = 2;
const LEN: u64 = 0x100;

/// The quirk, if the card has the BAR.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    let wide = card.kind(BAR) == Some(BarKind::Memory64 { prefetchable: false });
    let layout = match Layout::of(card) {
        Some(Layout::Early) => Layout::Early,
        _ if wide => Layout::Late,
        _ => return None,
    };
    let first = u64::from(layout.mirror(card).0);
    let mirror = Mirror::new(regions::ATI_MIRROR, BAR, first, LEN);
    card.has_memory(BAR, first + LEN).then(|| Box::new(mirror) as Box<dyn Quirk>)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{POLARIS, RADEON, RADEON_X550, made};
    use super::super::{Overlay, Writes};
    use super::*;
    use trapline_io::Region;

    #[test]
    fn it_is_where_the_layout_has_it() {
        for (adapter, first) in [(RADEON, 0x4000), (RADEON_X550, 0xf00)] {
            let overlays = made(adapter, regions::ATI_MIRROR).unwrap().overlays();
            let whole = Overlay { on: Region::bar(2), first, len: 0x100, writes: Writes::Mirrored(0) };
            assert_eq!(overlays, [whole]);
        }
        assert!(made(RADEON.with_bar(2, 0x4000), regions::ATI_MIRROR).is_none());
        assert!(made(RADEON.without_vga(), regions::ATI_MIRROR).is_none());
    }

    #[test]
    fn doorbells_are_no_registers() {
        assert!(made(POLARIS, regions::ATI_MIRROR).is_none());
    }
}
