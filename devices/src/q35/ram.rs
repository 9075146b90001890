//! The guest's RAM: private anonymous memory, in one piece below the 32-bit hole and one above 4 GiB, or two
//! with a gap between them.
//!
//! Each piece is one mapping that memory slots and DMA share: [`Ram::guest_memory`] is built over the
//! same `Arc<MmapRegion>`s that the host bridge hands out in its claims, so neither can outlive it.
//!
//! Transparent huge pages need host and guest addresses that agree below 2 MiB. Guest pieces begin at such addresses,
//! and so do the kernel's large anonymous mappings from Linux 6.7 on; older kernels may give small pages. Huge
//! pages that the host has set aside ([`Pages`]) are always such.

// UNSAFETY: asking for huge pages, and for pages at once, are calls on a raw address range, which no crate
// wraps safely.
#![expect(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise};
use trapline_io::{Gpa, Span};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory};

use super::split::{HIGH_RAM, RamSplit};

/// The smallest page there is.
const PAGE: usize = 4096;
/// `MAP_ANONYMOUS`, which rustix leaves out of [`MapFlags`].
const ANONYMOUS: u32 = 0x20;
/// Where in the flags of a mapping the size of its huge pages stands, as a power of two.
const HUGE_SHIFT: u32 = 26;

/// What pages RAM is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Whatever the kernel gives; huge ones are asked for.
    #[default]
    Transparent,
    /// Pages of 2 MiB that the host has set aside.
    Huge2M,
    /// Pages of 1 GiB that the host has set aside.
    Huge1G,
}

impl Pages {
    /// Bytes of a page that the host has set aside.
    pub const fn size(self) -> Option<u64> {
        match self {
            Pages::Transparent => None,
            Pages::Huge2M => Some(2 << 20),
            Pages::Huge1G => Some(1 << 30),
        }
    }
}

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
    /// What is kept for others leaves too little.
    #[error(
        "guest memory below 4 GiB would end before {first:#x}, as {first:#x}-{last:#x} is kept for a BAR at the \
         host's address: too little for a guest; give identity=off to its function"
    )]
    NoRoom {
        /// What is kept: its first address.
        first: u64,
        /// And its last.
        last: u64,
    },
    /// The host has not set aside enough huge pages.
    #[error(
        "the host has no {count} free huge pages of {kib} KiB for the guest's memory: as root, \
         echo {count} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages (plus what others use)"
    )]
    NoHugePages {
        /// How many are needed.
        count: u64,
        /// Their size.
        kib: u64,
    },
}

/// The guest's RAM. Clones share it.
#[derive(Clone, Debug)]
pub struct Ram {
    split: RamSplit,
    low: Arc<MmapRegion>,
    /// The pieces above 4 GiB.
    high: Vec<(Gpa, Arc<MmapRegion>)>,
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
        Ram::of_pages(bytes, Pages::Transparent)
    }

    /// The same, made of such pages.
    ///
    /// # Errors
    /// As [`Ram::new`], and if the host has too few huge pages.
    pub fn of_pages(bytes: u64, pages: Pages) -> Result<Ram, RamError> {
        Ram::around(bytes, pages, &[])
    }

    /// The same, with nothing where `kept` is: it lies as [`RamSplit::around`] places it.
    ///
    /// # Errors
    /// As [`Ram::of_pages`], and if `kept` leaves too little below 4 GiB.
    pub fn around(bytes: u64, pages: Pages, kept: &[Span<Gpa>]) -> Result<Ram, RamError> {
        if bytes == 0 || !bytes.is_multiple_of(Ram::GRAIN) || bytes >= 1 << 52 {
            return Err(RamError::Size(bytes));
        }
        let page = pages.size().unwrap_or(PAGE as u64);
        let split = RamSplit::around(bytes, kept, page)
            .map_err(|kept| RamError::NoRoom { first: kept.first().0, last: kept.last().0 })?;
        let low = reserve(split.low, pages, split)?;
        let above = split.pieces().filter(|(at, _)| *at >= Gpa(HIGH_RAM));
        let high = above.map(|(at, len)| Ok((at, reserve(len, pages, split)?)));
        let high: Vec<_> = high.collect::<Result<_, RamError>>()?;
        let all = std::iter::once((Gpa(0), &low)).chain(high.iter().map(|(at, memory)| (*at, memory)));
        let regions =
            all.filter_map(|(at, memory)| GuestRegionMmap::with_arc(Arc::clone(memory), GuestAddress(at.0)));
        let memory = GuestMemoryMmap::from_regions(regions.collect()).map_err(|_| RamError::Size(bytes))?;
        Ok(Ram { split, low, high, memory: Arc::new(memory) })
    }

    /// How it lies.
    pub fn split(&self) -> RamSplit {
        self.split
    }

    /// The RAM as devices see it for DMA: all of it, whatever PAM and SMRAM show to the processors.
    pub fn guest_memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// Its pieces, with the guest's address of each.
    pub fn pieces(&self) -> impl Iterator<Item = (Gpa, &Arc<MmapRegion>)> {
        std::iter::once((Gpa(0), &self.low)).chain(self.high().iter().map(|(at, memory)| (*at, memory)))
    }

    /// The piece from address 0 on.
    pub fn low(&self) -> &Arc<MmapRegion> {
        &self.low
    }

    /// The pieces from 4 GiB on, with the guest's address of each.
    pub fn high(&self) -> &[(Gpa, Arc<MmapRegion>)] {
        &self.high
    }
}

/// Bytes of one of the pieces of `all`.
fn reserve(bytes: u64, pages: Pages, all: RamSplit) -> Result<Arc<MmapRegion>, RamError> {
    let size = usize::try_from(bytes).map_err(|_| RamError::Size(bytes))?;
    if let Some(page) = pages.size() {
        // Without NORESERVE: what is missing shows here, and not when the guest touches it.
        let flags = MapFlags::PRIVATE.bits() | ANONYMOUS | MapFlags::HUGETLB.bits();
        let flags = flags | page.trailing_zeros() << HUGE_SHIFT;
        let rights = (ProtFlags::READ | ProtFlags::WRITE).bits();
        let region = MmapRegion::build(None, size, rights.cast_signed(), flags.cast_signed());
        let none = RamError::NoHugePages { count: all.total() / page, kib: page / 1024 };
        return region.map(Arc::new).map_err(|_| none);
    }
    let region: MmapRegion = MmapRegion::new(size).map_err(|source| RamError::Map { bytes, source })?;
    // SAFETY: the range is exactly the mapping just made, which nothing else uses yet; this advice
    // changes neither its contents nor its protection.
    let advised = unsafe { madvise(region.as_ptr().cast(), size, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "guest memory gets no transparent huge pages");
    }
    Ok(Arc::new(region))
}

/// Takes the pages of `len` bytes of `memory` from `offset` on, so that nobody waits for them later.
/// What is in them stays. Any thread, also while the guest uses them; the time is that of clearing them.
/// `offset` is a multiple of the size of a page.
///
/// # Errors
/// The host has too little memory, or the range is not in `memory`.
pub fn populate(memory: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let range = memory.get_slice(offset, len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the range was just found to lie in the mapping, which lives as long as `memory` is
    // borrowed; this advice changes neither its contents nor its protection.
    let advised =
        unsafe { madvise(memory.as_ptr().wrapping_add(offset).cast(), len, Advice::LinuxPopulateWrite) };
    match advised {
        // Linux before 5.14.
        Err(Errno::INVAL) => touch(&range),
        other => Ok(other?),
    }
}

/// Touches each page by a write that changes nothing, whoever else writes there.
fn touch(range: &vm_memory::VolatileSlice<'_>) -> io::Result<()> {
    for at in (0..range.len()).step_by(PAGE) {
        let byte = range.get_atomic_ref::<AtomicU8>(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        byte.fetch_or(0, Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend, VolatileMemory};

    use super::*;
    use crate::q35::LOW_RAM_LIMIT;

    const LOW_PART: u64 = 0x8000_0000;

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
            assert_eq!(ram.split(), RamSplit { low, high, gap: None }, "{bytes:#x}");
            let last = if high == 0 { low } else { HIGH_RAM + high } - 1;
            assert_eq!(ram.guest_memory().last_addr(), GuestAddress(last));
        }
    }

    #[test]
    fn odd_sizes_are_refused() {
        for bytes in [0, 3, Ram::GRAIN - 1, Ram::GRAIN + 4096, 1 << 52, u64::MAX] {
            assert!(matches!(Ram::new(bytes), Err(RamError::Size(_))), "{bytes:#x}");
        }
    }

    #[test]
    fn taking_pages_keeps_what_is_in_them() {
        let ram = Ram::new(8 << 20).unwrap();
        let memory = ram.low();
        memory.as_volatile_slice().write_obj(0x55_u8, 0x20_1000).unwrap();
        for (offset, len) in [(0, 8 << 20), (0x20_0000, 0x1000), (0x3000, 0)] {
            populate(memory, offset, len).unwrap();
            touch(&memory.get_slice(offset, len).unwrap()).unwrap();
        }
        assert_eq!(memory.as_volatile_slice().read_obj::<u8>(0x20_1000).unwrap(), 0x55);
        for (offset, len) in [(0, 9 << 20), (8 << 20, 1), (usize::MAX, 2)] {
            assert!(populate(memory, offset, len).is_err(), "{offset:#x} {len:#x}");
        }
    }

    #[test]
    fn without_huge_pages_the_message_says_how_to_get_them() {
        // No host has set aside 1 TiB for a test.
        let error = Ram::of_pages(1 << 40, Pages::Huge1G).unwrap_err().to_string();
        assert!(error.contains("no 1024 free huge pages of 1048576 KiB"), "{error}");
        assert!(error.contains("hugepages-1048576kB/nr_hugepages"), "{error}");
    }

    /// The laboratory sets pages aside.
    #[test]
    fn in_the_lab_huge_pages_hold_ram() {
        match Ram::of_pages(4 << 20, Pages::Huge2M) {
            Ok(ram) => ram.guest_memory().write_obj(1_u8, GuestAddress(0)).unwrap(),
            Err(error) => println!("skipped: {error}"),
        }
    }

    #[test]
    fn pieces_lie_where_the_guest_has_them() {
        let ram = Ram::new(4 << 30).unwrap();
        let pieces: Vec<_> = ram.pieces().map(|(at, memory)| (at.0, memory.size())).collect();
        assert_eq!(pieces, [(0, 2 << 30), (HIGH_RAM, 2 << 30)]);
    }

    #[test]
    fn dma_and_slots_share_the_memory() {
        let ram = Ram::new(4 << 30).unwrap();
        ram.guest_memory().write_obj(0x1122_3344_u32, GuestAddress(HIGH_RAM + 0x1000)).unwrap();
        let (_, high) = &ram.high()[0];
        assert_eq!(high.as_volatile_slice().read_obj::<u32>(0x1000).unwrap(), 0x1122_3344);
        assert_eq!(ram.low().as_volatile_slice().read_obj::<u32>(0x1000).unwrap(), 0);
    }
}
