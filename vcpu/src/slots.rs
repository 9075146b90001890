//! Memory slots: what of the address space the guest reaches without a trap.
//!
//! The published [`AddressSpace`] says what is wanted; [`Slots`] knows what KVM has. The difference
//! is applied in two steps, since a device's memory must leave the guest before the device stops
//! decoding, and may enter it only afterwards. A slot never changes in place: KVM
//! allows it for none of the changes there are, so it is deleted and made anew.

// UNSAFETY: the kernel is given the addresses of host memory, which the guest then uses for as long
// as the slot exists.
#![expect(unsafe_code)]

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use trapline_io::device::{Direct, DirectKind};
use trapline_io::space::AddressSpace;
use trapline_io::{Gpa, Span};
use vm_memory::MmapRegion;
use vmm_sys_util::errno;

use crate::vm::Vm;

/// The unit of slots, in bytes.
const PAGE: u64 = 4096;
/// Where one slot ends and another begins, even where memory goes on: the chipset's PAM registers make RAM below it
/// ROM and back, and what is made anew then is not to be all RAM.
const MIB: Gpa = Gpa(1 << 20);

/// A range of guest memory and the host memory behind it: whole pages of both.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where the guest sees it.
    pub span: Span<Gpa>,
    /// The host's mapping, which lives as long as the slot.
    pub memory: Arc<MmapRegion>,
    /// Byte offset into the mapping at the first address of `span`.
    pub offset: u64,
    /// RAM, ROM, a device's memory, or RAM that stands for some of it.
    pub kind: DirectKind,
}

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        self.span == other.span
            && Arc::ptr_eq(&self.memory, &other.memory)
            && self.offset == other.offset
            && self.kind == other.kind
    }
}

impl Slot {
    /// Whether writes trap.
    pub fn read_only(&self) -> bool {
        self.kind == DirectKind::Rom
    }

    /// Whether this slot may appear or vanish only while all vCPUs are parked: whoever ran meanwhile
    /// would find no memory.
    pub fn needs_park(&self) -> bool {
        self.kind != DirectKind::Bar
    }

    /// The slot's length in bytes.
    fn len(&self) -> Option<u64> {
        self.span.extent().checked_add(1)
    }

    /// The slot that begins here and goes on where `next` ends, if they fit together seamlessly.
    fn joined(&self, next: &Slot) -> Option<Slot> {
        let len = self.len()?;
        let seamless = next.span.first() != MIB
            && self.span.first().0.checked_add(len)? == next.span.first().0
            && self.offset.checked_add(len)? == next.offset
            && Arc::ptr_eq(&self.memory, &next.memory)
            && self.kind == next.kind;
        let span = Span::new(self.span.first(), next.span.last())?;
        seamless.then(|| Slot { span, ..self.clone() })
    }

    /// Its parts on both sides of [`MIB`].
    fn parts(self) -> impl Iterator<Item = Slot> {
        let (first, last) = (self.span.first(), self.span.last());
        let below = Span::new(first, last.min(Gpa(MIB.0 - 1)));
        let above = Span::new(first.max(MIB), last);
        [below, above].into_iter().flatten().map(move |span| {
            let offset = self.offset.saturating_add(span.first().0 - first.0);
            Slot { span, offset, ..self.clone() }
        })
    }

    /// The whole pages of it; `None` if there are none, or if guest and host pages do not match.
    fn whole_pages(self) -> Option<Slot> {
        let first = self.span.first().0;
        let start = first.checked_next_multiple_of(PAGE)?;
        let behind = self.span.last().0.wrapping_add(1) & !(PAGE - 1);
        let offset = self.offset.checked_add(start - first)?;
        let last = behind.wrapping_sub(1);
        // A range that ends with the address space has `behind` 0, and so a `last` of all ones.
        let span = Span::new(Gpa(start), Gpa(last))?;
        let end = offset.checked_add(span.extent())?.checked_add(1)?;
        let inside = offset.is_multiple_of(PAGE) && end <= self.memory.size() as u64;
        inside.then_some(Slot { span, offset, ..self })
    }
}

/// The slots that an address space asks for, ascending and without overlap. What does not fill a
/// page, or cannot be mapped page by page, is left to trap.
pub fn wanted(space: &AddressSpace) -> Vec<Slot> {
    join(space.direct().flat_map(|(span, direct)| slot(span, direct).parts()))
}

fn slot(span: Span<Gpa>, direct: &Direct) -> Slot {
    Slot { span, memory: Arc::clone(&direct.memory), offset: direct.offset, kind: direct.kind }
}

/// Joins neighbours before anything is cut to pages: a border inside a page is none to the guest.
fn join(pieces: impl Iterator<Item = Slot>) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut open: Option<Slot> = None;
    for piece in pieces {
        open = match open.take() {
            Some(slot) => match slot.joined(&piece) {
                Some(longer) => Some(longer),
                None => {
                    slots.extend(slot.whole_pages());
                    Some(piece)
                }
            },
            None => Some(piece),
        };
    }
    slots.extend(open.and_then(Slot::whole_pages));
    slots
}

/// Why a slot could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The kernel refused to make it.
    #[error("KVM refused a memory slot at {span:?}: {source}")]
    Add {
        /// Where.
        span: Span<Gpa>,
        /// What the kernel said.
        source: errno::Error,
    },
    /// The kernel refused to delete it.
    #[error("KVM refused to delete the memory slot at {span:?}: {source}")]
    Remove {
        /// Where.
        span: Span<Gpa>,
        /// What the kernel said.
        source: errno::Error,
    },
    /// All slot numbers are in use.
    #[error("no memory slot left for {span:?}: this kernel's KVM has {limit}")]
    Full {
        /// What it was for.
        span: Span<Gpa>,
        /// How many slots there are.
        limit: usize,
    },
    /// It is not made of whole pages inside its mapping, or overlaps another.
    #[error("{span:?} cannot be a memory slot: not whole pages of its mapping, or taken")]
    Unfit {
        /// Where.
        span: Span<Gpa>,
    },
}

/// The slots that KVM has. Dropping this deletes them.
///
/// Changes belong to whoever holds the topology mutex.
#[derive(Debug)]
pub struct Slots {
    vm: Arc<Vm>,
    /// What is in each slot, by its number.
    in_use: Vec<Option<Slot>>,
    limit: usize,
    /// That a device's memory has no slot was put into the log.
    told: bool,
}

impl Slots {
    /// A machine without memory.
    pub fn new(vm: Arc<Vm>) -> Slots {
        let limit = vm.kvm().get_nr_memslots();
        Slots { vm, in_use: Vec::new(), limit, told: false }
    }

    /// The slots there are.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.in_use.iter().flatten()
    }

    /// Whether going over to `wanted` touches RAM or ROM, which asks for parked vCPUs.
    pub fn changes_need_park(&self, wanted: &[Slot]) -> bool {
        let gone = self.iter().filter(|slot| !wanted.contains(slot));
        let new = wanted.iter().filter(|slot| !self.iter().any(|there| there == *slot));
        gone.chain(new).any(Slot::needs_park)
    }

    /// Deletes what is not in `wanted`: to be done before a device stops decoding it.
    ///
    /// # Errors
    /// [`SlotError::Remove`]; the slots that went before are gone.
    pub fn remove_unwanted(&mut self, wanted: &[Slot]) -> Result<(), SlotError> {
        for number in 0..self.in_use.len() {
            if self.in_use[number].as_ref().is_some_and(|slot| !wanted.contains(slot)) {
                self.remove(number)?;
            }
        }
        Ok(())
    }

    /// Makes what is in `wanted` and not there yet: to be done after a device started decoding it.
    ///
    /// A device's memory that the kernel refuses is left to trap: a guest may put a BAR where the
    /// host's processor has no addresses. The first is told in the log.
    ///
    /// # Errors
    /// See [`SlotError`], for RAM and ROM; the slots made before stay.
    pub fn add_missing(&mut self, wanted: &[Slot]) -> Result<(), SlotError> {
        for slot in wanted {
            if self.iter().any(|there| there == slot) {
                continue;
            }
            match self.add(slot) {
                Err(error) if slot.kind == DirectKind::Bar => {
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::warn!(%error, "a device's memory is trapped, slow");
                    }
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn add(&mut self, slot: &Slot) -> Result<(), SlotError> {
        let span = slot.span;
        let fits = slot.clone().whole_pages().is_some_and(|whole| whole == *slot);
        let (true, Some(memory_size)) = (fits && !self.iter().any(|s| s.span.overlaps(span)), slot.len())
        else {
            return Err(SlotError::Unfit { span });
        };
        let number = self.in_use.iter().position(Option::is_none).unwrap_or(self.in_use.len());
        let limit = self.limit;
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(number).map_err(|_| SlotError::Full { span, limit })?,
            flags: if slot.read_only() { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: span.first().0,
            memory_size,
            userspace_addr: slot.memory.as_ptr() as u64 + slot.offset,
        };
        if number >= limit {
            return Err(SlotError::Full { span, limit });
        }
        // SAFETY: the range lies inside the mapping (`whole_pages` held it against its size), and
        // the mapping lives until the slot is deleted: its `Arc` is kept in `in_use` until then,
        // and dropping `Slots` deletes before it lets go.
        unsafe { self.vm.fd().set_user_memory_region(region) }
            .map_err(|source| SlotError::Add { span, source })?;
        if number == self.in_use.len() {
            self.in_use.push(None);
        }
        self.in_use[number] = Some(slot.clone());
        Ok(())
    }

    fn remove(&mut self, number: usize) -> Result<(), SlotError> {
        let Some(slot) = self.in_use.get(number).and_then(Option::as_ref) else {
            return Ok(());
        };
        let span = slot.span;
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(number).unwrap_or(u32::MAX),
            guest_phys_addr: span.first().0,
            memory_size: 0,
            ..Default::default()
        };
        // SAFETY: a slot of no size is a deletion; the kernel uses no address of ours afterwards.
        unsafe { self.vm.fd().set_user_memory_region(region) }
            .map_err(|source| SlotError::Remove { span, source })?;
        self.in_use[number] = None;
        Ok(())
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for number in 0..self.in_use.len() {
            if let Err(error) = self.remove(number) {
                // The guest may still use the memory, so it has to stay for ever.
                tracing::error!(%error, "memory stays mapped");
                std::mem::forget(self.in_use[number].take());
            }
        }
    }
}

#[cfg(test)]
mod tests;
