//! The chipset configuration registers, 16 KiB of memory at RCBA (ICH9 datasheet, "Chipset
//! Configuration Registers").
//!
//! Firmware sets them up and hardly anything reads them: they keep what is written, and only the interrupt
//! routes have an effect. The registers that describe devices this machine does not have are zero.

use trapline_io::{Fault, Width};

/// Bytes of the block.
pub(super) const LENGTH: usize = 0x4000;

/// Device Interrupt Route registers, 16 bits each: offset and slot.
pub(super) const ROUTES: [(u16, u8); 6] =
    [(0x3140, 31), (0x3144, 29), (0x3146, 28), (0x3148, 27), (0x314c, 26), (0x3150, 25)];
/// High Precision Timer Configuration: stays off, there is none.
const HPTC: u16 = 0x3404;
/// General Control and Status.
const GCS: u16 = 0x3410;
/// General Control and Status: the watchdog does not reboot. Always set, as there is no watchdog.
const NO_REBOOT: u8 = 1 << 5;

/// The registers.
pub(super) struct Chipset(Box<[u8]>);

impl std::fmt::Debug for Chipset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chipset").finish_non_exhaustive()
    }
}

impl Chipset {
    /// The values at power-on.
    pub fn new() -> Chipset {
        let mut chipset = Chipset(vec![0; LENGTH].into_boxed_slice());
        for (at, _) in ROUTES {
            chipset.put(at, &super::pirq::DEFAULT_ROUTE.to_le_bytes());
        }
        chipset.put(GCS, &[NO_REBOOT]);
        chipset
    }

    /// Reads `width` bytes at `offset`.
    pub fn read(&self, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        let from = self.0.get(lanes(offset, width)?).ok_or(Fault::NoRegister)?;
        bytes.get_mut(..width.bytes()).ok_or(Fault::BadWidth)?.copy_from_slice(from);
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes the low `width` bytes of `value` at `offset`.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let bytes = value.to_le_bytes();
        let to = self.0.get_mut(lanes(offset, width)?).ok_or(Fault::NoRegister)?;
        to.copy_from_slice(bytes.get(..width.bytes()).ok_or(Fault::BadWidth)?);
        self.put(HPTC, &[0; 4]);
        let control = usize::from(GCS);
        self.0[control] |= NO_REBOOT;
        Ok(())
    }

    /// The interrupt route register at `offset`.
    pub fn route(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn put(&mut self, offset: u16, bytes: &[u8]) {
        let at = usize::from(offset);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn lanes(offset: u64, width: Width) -> Result<std::ops::Range<usize>, Fault> {
    let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
    Ok(at..at.checked_add(width.bytes()).ok_or(Fault::NoRegister)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_keep_what_is_written() {
        let mut chipset = Chipset::new();
        assert_eq!(chipset.read(0x3140, Width::B4), Ok(0x3210));
        assert_eq!(chipset.read(0x3144, Width::B4), Ok(0x3210_3210));
        chipset.write(0x3ffc, Width::B4, 0x1234_5678).unwrap();
        assert_eq!(chipset.read(0x3ffe, Width::B2), Ok(0x1234));
        chipset.write(0, Width::B8, u64::MAX - 1).unwrap();
        assert_eq!(chipset.read(0, Width::B8), Ok(u64::MAX - 1));
    }

    #[test]
    fn there_is_no_watchdog_and_no_timer_to_switch_on() {
        let mut chipset = Chipset::new();
        chipset.write(0x3410, Width::B4, 0).unwrap();
        chipset.write(0x3404, Width::B4, 0x80).unwrap();
        assert_eq!(chipset.read(0x3410, Width::B4), Ok(0x20));
        assert_eq!(chipset.read(0x3404, Width::B4), Ok(0));
    }

    #[test]
    fn the_end_is_the_end() {
        let mut chipset = Chipset::new();
        for offset in [0x3fff, 0x4000, u64::MAX, u64::MAX - 1] {
            assert_eq!(chipset.read(offset, Width::B2), Err(Fault::NoRegister));
            assert_eq!(chipset.write(offset, Width::B2, 0), Err(Fault::NoRegister));
        }
    }
}
