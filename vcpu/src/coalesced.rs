//! KVM's coalesced ring: writes to zones that the kernel keeps, so that the guest runs on.
//!
//! One page for the whole machine, which every vCPU's descriptor offers for mapping behind its own
//! page (Linux, Documentation/virt/kvm/api.rst, `KVM_REGISTER_COALESCED_MMIO`). The kernel writes an
//! entry and moves `last` on; we read it and move `first` on. One place stays free, so that 169
//! writes fit: the next one exits to its vCPU, as does any write that is not wholly inside a zone.
//!
//! ```text
//! KVM, any vCPU:  entry = write   |  last = next   (with a barrier between)
//! we:             last (acquire)  |  read the entry  |  first = next (release)
//! ```
//!
//! Nothing tells that an entry came, and there is one order for all vCPUs: that of the ring.

// UNSAFETY: the page is the kernel's, and it is kvm-ioctls' in a form that needs the vCPU for itself.
#![expect(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use trapline_io::feed::Collected;
use trapline_io::{Address, Gpa, Op, Port, Trap, Width};

use crate::exit::next_piece;

/// The length of a page, which the ring fills.
const PAGE: usize = 4096;

/// How many entries fit behind the two indices.
const ENTRIES: u32 = 170;

/// `struct kvm_coalesced_mmio` of linux/kvm.h.
#[derive(Debug, Default)]
#[repr(C)]
struct Entry {
    address: AtomicU64,
    /// In bytes.
    len: AtomicU32,
    /// 1 for a port, else 0.
    pio: AtomicU32,
    /// `len` bytes in the order of memory; what is behind them is old.
    data: AtomicU64,
}

/// `struct kvm_coalesced_mmio_ring` of linux/kvm.h. Atomics all through: the other side is the kernel.
#[derive(Debug)]
#[repr(C)]
struct Ring {
    /// The oldest entry: ours.
    first: AtomicU32,
    /// Behind the newest: the kernel's.
    last: AtomicU32,
    entries: [Entry; ENTRIES as usize],
}

const _: () = assert!(ENTRIES as usize == (PAGE - 8) / size_of::<Entry>() && size_of::<Ring>() <= PAGE);

/// How far we are in the oldest entry, and what was no write.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes of the oldest entry that were taken already.
    taken: AtomicUsize,
    dropped: AtomicU64,
}

impl Ring {
    /// The place of the oldest entry. With an index beyond the entries, which is nobody's, there is none.
    fn oldest(&self) -> Option<u32> {
        // `first` too: who finds that an entry was taken sees what its taker did before.
        let (first, last) = (self.first.load(Acquire), self.last.load(Acquire));
        (first != last && first < ENTRIES && last < ENTRIES).then_some(first)
    }

    /// The oldest write, or the next part of it.
    fn pop(&self, progress: &Progress) -> Option<Trap> {
        loop {
            let first = self.oldest()?;
            let taken = progress.taken.load(Relaxed);
            let part = self.entries.get(first as usize)?.part(taken);
            if let Some((trap, false)) = part {
                progress.taken.store(taken + trap.width.bytes(), Relaxed);
                return Some(trap);
            }
            progress.taken.store(0, Relaxed);
            self.first.store((first + 1) % ENTRIES, Release);
            if let Some((trap, true)) = part {
                return Some(trap);
            }
            progress.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Entry {
    /// The write behind the first `taken` bytes, and whether it is the last of the entry. What the
    /// guest did in 1, 2, 4 or 8 bytes is one; what KVM cut at a page's end goes as an exit would.
    fn part(&self, taken: usize) -> Option<(Trap, bool)> {
        let len = self.len.load(Relaxed) as usize;
        let rest = len.checked_sub(taken).filter(|rest| *rest > 0 && len <= 8)?;
        let address = self.address.load(Relaxed).checked_add(taken as u64)?;
        let (at, width) = match self.pio.load(Relaxed) {
            0 => (Address::Gpa(Gpa(address)), next_piece(address, rest)),
            _ => {
                let width = Width::of(rest).filter(|width| *width != Width::B8)?;
                (Address::Port(Port(u16::try_from(address).ok()?)), width)
            }
        };
        let value = self.data.load(Relaxed) >> (8 * taken) & width.all_ones();
        Some((Trap { at, width, op: Op::Write(value) }, width.bytes() == rest))
    }
}

/// The ring of one machine. Entries are taken by one thread at a time; that is up to the caller, and
/// two at a time would take some twice.
///
/// It is mapped, and the machine with it there, as long as this lives.
#[derive(Debug)]
pub struct Coalesced {
    ring: NonNull<Ring>,
    progress: Progress,
}

// SAFETY: all of the page is accessed through atomics, and it stays mapped until the drop.
unsafe impl Send for Coalesced {}
// SAFETY: as above.
unsafe impl Sync for Coalesced {}

impl Coalesced {
    /// Maps the ring from the descriptor of any vCPU; `pages` is how far behind the vCPU's own page it
    /// lies, which `KVM_CAP_COALESCED_MMIO` tells. The mapping holds the descriptor's file, so that
    /// the descriptor itself may be closed.
    pub(crate) fn of_vcpu(vcpu: &VcpuFd, pages: u64) -> std::io::Result<Coalesced> {
        let offset = pages * PAGE as u64;
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the descriptor is open as long as `vcpu` is borrowed, which is beyond this function.
        let vcpu = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let page = unsafe { mmap(std::ptr::null_mut(), PAGE, flags, MapFlags::SHARED, vcpu, offset) }?;
        let ring = NonNull::new(page.cast()).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        Ok(Coalesced { ring, progress: Progress::default() })
    }

    /// How many entries were no write that a processor can make, and were dropped: none, by a sane
    /// kernel.
    pub fn dropped(&self) -> u64 {
        self.progress.dropped.load(Relaxed)
    }

    fn ring(&self) -> &Ring {
        // SAFETY: a page that is mapped, readable and writable until the drop; it is aligned to a page, and
        // every pattern of bits in it is a `Ring`.
        unsafe { self.ring.as_ref() }
    }
}

impl Collected for Coalesced {
    fn is_empty(&self) -> bool {
        self.ring().oldest().is_none()
    }

    fn pop(&self) -> Option<Trap> {
        self.ring().pop(&self.progress)
    }
}

impl Drop for Coalesced {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `of_vcpu`, and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.ring.as_ptr().cast(), PAGE) } {
            tracing::error!(%error, "KVM's ring stays mapped");
        }
    }
}

#[cfg(test)]
mod tests;
