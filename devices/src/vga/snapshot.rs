//! The registers at one moment, as a value and as bytes.
//!
//! All little-endian, [`Snapshot::SIZE`] bytes: magic (4), version (4), sequence (4), zero (4), then
//! [`Registers`]. In the page that the adapter keeps up to date the sequence is odd while it
//! changes, so a reader without a lock can tell whether what it copied is whole.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, VolatileSlice};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Adapter, Registers};

const MAGIC: u32 = u32::from_le_bytes(*b"TVGA");
const VERSION: u32 = 1;
/// Where the sequence lies.
const SEQUENCE: usize = 8;
/// Where the registers lie.
const BODY: usize = std::mem::offset_of!(Snapshot, registers);
/// How often a reader tries to find the page at rest.
const TRIES: usize = 1000;

/// The registers of an adapter at one moment: with video memory, all that the screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Snapshot {
    magic: U32,
    version: U32,
    sequence: U32,
    zero: U32,
    /// The registers.
    pub registers: Registers,
}

/// Bytes that are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than a snapshot has.
    #[error("screen state of {0} bytes, {size} expected", size = Snapshot::SIZE)]
    Short(usize),
    /// Something else than a snapshot.
    #[error("no screen state: it starts with {0:#010x}")]
    Magic(u32),
    /// A snapshot of another program version.
    #[error("screen state of version {0}, {VERSION} expected: the adapter is another release of trapline")]
    Version(u32),
    /// The page did not come to rest.
    #[error("screen state that never comes to rest")]
    Unsteady,
}

impl Snapshot {
    /// Bytes of a snapshot.
    pub const SIZE: usize = size_of::<Snapshot>();

    /// The registers of `adapter` now.
    pub fn of(adapter: &Adapter) -> Snapshot {
        Snapshot::from_registers(*adapter.registers())
    }

    /// A snapshot of these registers.
    fn from_registers(registers: Registers) -> Snapshot {
        let (magic, version) = (U32::new(MAGIC), U32::new(VERSION));
        Snapshot { magic, version, sequence: U32::ZERO, zero: U32::ZERO, registers }
    }

    /// Takes a snapshot from the start of `bytes`, whoever they are from.
    ///
    /// # Errors
    /// They are no snapshot of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Snapshot, Malformed> {
        let (snapshot, _) = Snapshot::read_from_prefix(bytes).map_err(|_| Malformed::Short(bytes.len()))?;
        match (snapshot.magic.get(), snapshot.version.get()) {
            (MAGIC, VERSION) => Ok(snapshot),
            (MAGIC, version) => Err(Malformed::Version(version)),
            (magic, _) => Err(Malformed::Magic(magic)),
        }
    }

    /// The snapshot as bytes.
    pub fn to_bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// Copies a snapshot out of a page that its adapter, in whatever process, keeps up to date.
    /// Takes no lock; ends after some tries.
    ///
    /// # Errors
    /// The page holds no snapshot of this version.
    pub fn from_page(page: VolatileSlice<'_>) -> Result<Snapshot, Malformed> {
        Snapshot::copy(page, || ())
    }

    /// As [`Snapshot::from_page`]; `copied` is called after each try, before it is known to be whole.
    fn copy(page: VolatileSlice<'_>, mut copied: impl FnMut()) -> Result<Snapshot, Malformed> {
        let mut bytes = [0; Snapshot::SIZE];
        for _ in 0..TRIES {
            let sequence = || page.load::<u32>(SEQUENCE, Ordering::Acquire);
            let before = sequence().map_err(|_| Malformed::Short(page.len()))?;
            page.read_slice(&mut bytes, 0).map_err(|_| Malformed::Short(page.len()))?;
            copied();
            fence(Ordering::Acquire);
            if before & 1 == 0 && sequence().is_ok_and(|after| after == before) {
                return Snapshot::from_bytes(&bytes);
            }
            std::thread::yield_now();
        }
        Err(Malformed::Unsteady)
    }
}

/// The writing end of the page.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    sequence: u32,
}

impl Publisher {
    /// Puts the whole page into a valid state.
    pub(super) fn start(&mut self, page: VolatileSlice<'_>, registers: &Registers) {
        let fresh = Snapshot::from_registers(*registers);
        let header = &fresh.as_bytes()[..BODY];
        let _ = page.write_slice(header, 0);
        self.sequence = 0;
        self.publish(page, registers, 0..size_of::<Registers>());
    }

    /// Shows readers the bytes of `registers` in `range`, the others being as they were.
    pub(super) fn publish(
        &mut self,
        page: VolatileSlice<'_>,
        registers: &Registers,
        range: std::ops::Range<usize>,
    ) {
        let Some(changed) = registers.as_bytes().get(range.clone()) else { return };
        // The page is longer than a snapshot, so that none of these can fail.
        let _ = page.store(self.sequence.wrapping_add(1), SEQUENCE, Ordering::Relaxed);
        fence(Ordering::Release);
        let _ = page.write_slice(changed, BODY + range.start);
        self.sequence = self.sequence.wrapping_add(2);
        let _ = page.store(self.sequence, SEQUENCE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let registers = Registers { misc: 0x67, ..Registers::default() };
        let snapshot = Snapshot::from_registers(registers);
        assert_eq!(Snapshot::from_bytes(snapshot.to_bytes()), Ok(snapshot));
        const { assert!(Snapshot::SIZE <= 4096) };
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let good = Snapshot::from_registers(Registers::default());
        let good = good.to_bytes();
        assert_eq!(Snapshot::from_bytes(&good[1..]), Err(Malformed::Short(good.len() - 1)));
        assert_eq!(Snapshot::from_bytes(&[0; 4096]), Err(Malformed::Magic(0)));
        let mut newer = good.to_vec();
        newer[4] = 2;
        assert_eq!(Snapshot::from_bytes(&newer), Err(Malformed::Version(2)));
    }

    #[test]
    fn a_page_in_change_is_not_taken() {
        let mut page = vec![0; 4096];
        let page = VolatileSlice::from(page.as_mut_slice());
        let mut publisher = Publisher::default();
        let mut registers = Registers::default();
        publisher.start(page, &registers);
        registers.misc = 0x63;
        publisher.publish(page, &registers, 0..Registers::PALETTE);
        assert_eq!(Snapshot::from_page(page).unwrap().registers, registers);
        page.store(1_u32, SEQUENCE, Ordering::Relaxed).unwrap();
        assert_eq!(Snapshot::from_page(page), Err(Malformed::Unsteady));
    }

    #[test]
    fn a_page_that_changed_under_the_reader_is_read_again() {
        let mut page = vec![0; 4096];
        let page = VolatileSlice::from(page.as_mut_slice());
        let mut publisher = Publisher::default();
        let mut registers = Registers::default();
        publisher.start(page, &registers);
        let seen = Snapshot::copy(page, || {
            if registers.misc < 3 {
                registers.misc += 1;
                publisher.publish(page, &registers, 0..Registers::PALETTE);
            }
        });
        assert_eq!(seen.unwrap().registers.misc, 3);
        let endless = Snapshot::copy(page, || publisher.publish(page, &registers, 0..1));
        assert_eq!(endless, Err(Malformed::Unsteady));
    }
}
