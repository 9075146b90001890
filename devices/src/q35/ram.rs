//! The guest's RAM: private anonymous memory, in one piece below the 32-bit hole and one above 4 GiB.
//!
//! Each piece is one mapping that memory slots and DMA share: [`Ram::guest_memory`] is built over the
//! same `Arc<MmapRegion>`s that the host bridge hands out in its claims, so neither can outlive it.
//!
//! Huge pages need host and guest addresses that agree below 2 MiB. Guest pieces begin at such addresses,
//! and so do the kernel's large anonymous mappings from Linux 6.7 on; older kernels may give small pages.

// UNSAFETY: asking for huge pages is a call on a raw address range, which no crate wraps safely.
#![expect(unsafe_code)]

use std::sync::Arc;

use rustix::mm::{Advice, madvise};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// RAM of this size and more is split: SeaBIOS and OVMF put the configuration window here.
pub const LOW_RAM_LIMIT: u64 = 0xb000_0000;
/// How much of split RAM lies low.
const LOW_PART: u64 = 0x8000_0000;
/// Where the rest of split RAM begins: 4 GiB.
pub const HIGH_RAM: u64 = 1 << 32;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// Not a whole number of MiB, or none, or more than a processor can address.
    #[error("guest memory of {0} bytes: it must be a whole number of MiB, and at least one")]
    Size(u64),
    /// The kernel gave no address space.
    #[error("cannot reserve {bytes} bytes for the guest's memory")]
    Map {
        /// How much was asked for.
        bytes: u64,
        /// What the kernel said.
        source: MmapRegionError,
    },
}

/// How RAM lies around the 32-bit hole, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamSplit {
    /// From address 0 on, less than [`LOW_RAM_LIMIT`].
    pub low: u64,
    /// From [`HIGH_RAM`] on, 0 for a small machine.
    pub high: u64,
}

impl RamSplit {
    /// Places `total` bytes: all of them low if they end below [`LOW_RAM_LIMIT`], else 2 GiB low and
    /// the rest from 4 GiB on.
    ///
    /// ```
    /// use trapline_devices::q35::RamSplit;
    /// assert_eq!(RamSplit::of(1 << 30), RamSplit { low: 1 << 30, high: 0 });
    /// assert_eq!(RamSplit::of(3 << 30), RamSplit { low: 2 << 30, high: 1 << 30 });
    /// ```
    pub const fn of(total: u64) -> RamSplit {
        if total < LOW_RAM_LIMIT {
            RamSplit { low: total, high: 0 }
        } else {
            RamSplit { low: LOW_PART, high: total - LOW_PART }
        }
    }

    /// All bytes of RAM.
    pub const fn total(self) -> u64 {
        self.low.saturating_add(self.high)
    }
}

/// The guest's RAM. Clones share it.
#[derive(Clone, Debug)]
pub struct Ram {
    low: Arc<MmapRegion>,
    high: Option<Arc<MmapRegion>>,
    memory: Arc<GuestMemoryMmap>,
}

impl Ram {
    /// The smallest RAM, and its granularity, in bytes.
    pub const GRAIN: u64 = 1 << 20;

    /// Reserves `bytes` of RAM, zero-filled; pages are only taken as they are touched.
    ///
    /// It lies as [`RamSplit::of`] places it. Huge pages are asked for; a kernel without them gives
    /// small ones.
    ///
    /// # Errors
    /// [`RamError`] if the size is no multiple of 1 MiB or there is no address space for it.
    pub fn new(bytes: u64) -> Result<Ram, RamError> {
        if bytes == 0 || !bytes.is_multiple_of(Ram::GRAIN) || bytes >= 1 << 52 {
            return Err(RamError::Size(bytes));
        }
        let split = RamSplit::of(bytes);
        let low = reserve(split.low)?;
        let high = match split.high {
            0 => None,
            high => Some(reserve(high)?),
        };
        let mut regions = Vec::new();
        regions.extend(GuestRegionMmap::with_arc(Arc::clone(&low), GuestAddress(0)));
        if let Some(high) = &high {
            regions.extend(GuestRegionMmap::with_arc(Arc::clone(high), GuestAddress(HIGH_RAM)));
        }
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|_| RamError::Size(bytes))?;
        Ok(Ram { low, high, memory: Arc::new(memory) })
    }

    /// How it lies.
    pub fn split(&self) -> RamSplit {
        let size = |piece: &Arc<MmapRegion>| piece.size() as u64;
        RamSplit { low: size(&self.low), high: self.high.as_ref().map_or(0, size) }
    }

    /// The RAM as devices see it for DMA: all of it, whatever PAM and SMRAM show to the processors.
    pub fn guest_memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// The piece from address 0 on.
    pub fn low(&self) -> &Arc<MmapRegion> {
        &self.low
    }

    /// The piece from 4 GiB on.
    pub fn high(&self) -> Option<&Arc<MmapRegion>> {
        self.high.as_ref()
    }
}

fn reserve(bytes: u64) -> Result<Arc<MmapRegion>, RamError> {
    let size = usize::try_from(bytes).map_err(|_| RamError::Size(bytes))?;
    let region: MmapRegion = MmapRegion::new(size).map_err(|source| RamError::Map { bytes, source })?;
    // SAFETY: the range is exactly the mapping just made, which nothing else uses yet; this advice
    // changes neither its contents nor its protection.
    let advised = unsafe { madvise(region.as_ptr().cast(), size, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "guest memory gets no transparent huge pages");
    }
    Ok(Arc::new(region))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestMemoryBackend, VolatileMemory};

    use super::*;

    #[test]
    fn ram_is_split_around_the_hole() {
        for (bytes, low, high) in [
            (1 << 20, 1 << 20, 0),
            (1 << 30, 1 << 30, 0),
            (LOW_RAM_LIMIT - Ram::GRAIN, LOW_RAM_LIMIT - Ram::GRAIN, 0),
            (LOW_RAM_LIMIT, LOW_PART, LOW_RAM_LIMIT - LOW_PART),
            (4 << 30, LOW_PART, 2 << 30),
        ] {
            let ram = Ram::new(bytes).unwrap();
            assert_eq!(ram.split(), RamSplit { low, high }, "{bytes:#x}");
            let last = if high == 0 { low } else { HIGH_RAM + high } - 1;
            assert_eq!(ram.guest_memory().last_addr(), GuestAddress(last));
        }
    }

    proptest! {
        #[test]
        fn no_ram_is_lost_or_lies_in_the_hole(total in 1u64..1 << 46) {
            let split = RamSplit::of(total);
            prop_assert_eq!(split.total(), total);
            prop_assert!(split.low < LOW_RAM_LIMIT);
        }
    }

    #[test]
    fn odd_sizes_are_refused() {
        for bytes in [0, 3, Ram::GRAIN - 1, Ram::GRAIN + 4096, 1 << 52, u64::MAX] {
            assert!(matches!(Ram::new(bytes), Err(RamError::Size(_))), "{bytes:#x}");
        }
    }

    #[test]
    fn dma_and_slots_share_the_memory() {
        let ram = Ram::new(4 << 30).unwrap();
        ram.guest_memory().write_obj(0x1122_3344_u32, GuestAddress(HIGH_RAM + 0x1000)).unwrap();
        let high = ram.high().unwrap().as_volatile_slice();
        assert_eq!(high.read_obj::<u32>(0x1000).unwrap(), 0x1122_3344);
        assert_eq!(ram.low().as_volatile_slice().read_obj::<u32>(0x1000).unwrap(), 0);
    }
}
