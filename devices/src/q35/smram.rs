//! System management RAM: when the RAM under the legacy VGA window is in sight of the processors (Intel 3 Series
//! Express chipset datasheet, SMRAM and ESMRAMC, and "System Management Mode (SMM)").
//!
//! There is no system management mode here, so the only way to it is the one that firmware has before it
//! locks: D_OPEN, which works while G_SMRAME is set. Whatever else the registers say, and whether or
//! not the processor knows the mode, the window is the adapter's. D_CLS keeps data accesses of that mode out,
//! so it keeps out nobody here; with D_OPEN the datasheet rules it out.

/// System management RAM control, 8 bits.
pub(super) const SMRAM: u16 = 0x9d;
/// SMRAM after reset: its segment is the window's, and that is all it can be.
pub(super) const SMRAM_RESET: u32 = 0x02;
/// Bits of SMRAM that can be written: all that have a name.
pub(super) const SMRAM_WRITABLE: u32 = D_OPEN | D_CLS | D_LCK | G_SMRAME;
/// Extended system management RAM control, 8 bits, right behind.
pub(super) const ESMRAMC: u16 = 0x9e;
/// ESMRAMC after reset: the caches' bits are always set.
pub(super) const ESMRAMC_RESET: u32 = 0x38;
/// Bits of ESMRAMC that can be written: H_SMRAME, and TSEG's size and enable, which have no effect.
pub(super) const ESMRAMC_WRITABLE: u32 = H_SMRAME | 0x07;

/// SMRAM: in sight of all, in any mode.
const D_OPEN: u32 = 1 << 6;
/// SMRAM: out of sight of data accesses.
const D_CLS: u32 = 1 << 5;
/// SMRAM: no more changes until reset, but of D_CLS.
const D_LCK: u32 = 1 << 4;
/// SMRAM: there is any at all.
const G_SMRAME: u32 = 1 << 3;
/// ESMRAMC: it is found above the window's place, at [`HIGH`].
const H_SMRAME: u32 = 1 << 7;

/// Where it is found with H_SMRAME.
pub(super) const HIGH: u64 = 0xfeda_0000;

/// Where processors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// Nowhere.
    Closed,
    /// In place of the legacy VGA window.
    Window,
    /// At [`HIGH`]; the window stays the adapter's.
    High,
}

/// What the two registers say.
pub(super) fn open(smram: u32, esmramc: u32) -> Open {
    match (smram & (D_OPEN | G_SMRAME) == D_OPEN | G_SMRAME, esmramc & H_SMRAME != 0) {
        (false, _) => Open::Closed,
        (true, false) => Open::Window,
        (true, true) => Open::High,
    }
}

/// What both registers hold, ESMRAMC in the upper byte, after a write that made `written` of `before`:
/// the lock closes, and then only D_CLS changes.
pub(super) fn settled(before: u32, written: u32) -> u32 {
    match () {
        () if before & D_LCK != 0 => before & !D_CLS | written & D_CLS,
        () if written & D_LCK != 0 => written & !D_OPEN,
        () => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_sight_only_if_it_is_there_and_open() {
        for smram in 0..=0xff {
            let wanted = if smram & 0x48 == 0x48 { [Open::Window, Open::High] } else { [Open::Closed; 2] };
            assert_eq!([0x38, 0xb8].map(|esmramc| open(smram, esmramc)), wanted, "{smram:#x}");
        }
    }

    #[test]
    fn the_lock_closes_and_stays() {
        assert_eq!(settled(0x384a, 0x385a), 0x381a);
        assert_eq!(settled(0x3802, 0x387a), 0x383a);
        assert_eq!(settled(0x384a, 0x380a), 0x380a);
        for written in 0..=0xffff {
            let wanted = 0x381a | written & 0x20;
            assert_eq!(settled(0x381a, written), wanted, "{written:#x}");
            assert_eq!(settled(0x383a, written), wanted, "{written:#x}");
        }
    }
}
