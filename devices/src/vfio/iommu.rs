//! What the functions of one machine share: the kernel's interface, their groups, and their view of
//! memory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use trapline_io::{Gpa, Span};
use vm_memory::MmapRegion;

use super::dma::{self, DmaError};
use super::owned::Owned;
use super::sys::View;
use super::view;

/// The kernel's two ways to VFIO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// iommufd where kernel and device have it, else groups.
    #[default]
    Auto,
    /// `/dev/vfio/vfio` and `/dev/vfio/GROUP`.
    Group,
    /// `/dev/iommu` and `/dev/vfio/devices/vfioN`.
    Iommufd,
}

/// The memory that the functions of one machine see by DMA. One of it for all functions of a
/// machine; any thread.
///
/// When the last function and the machine let go of it, everything is unmapped, then the groups are
/// given back, then the view of memory itself.
pub struct Iommu {
    wish: Interface,
    mapped: Mutex<BTreeMap<u64, Piece>>,
    owned: Mutex<Owned>,
    view: OnceLock<View>,
    /// Whether any amount of memory may be locked: asked at the start, since a confined thread cannot.
    locks_all: bool,
}

/// What one call mapped.
struct Piece {
    len: u64,
    memory: Arc<MmapRegion>,
}

impl std::fmt::Debug for Iommu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iommu").field("interface", &self.interface()).finish_non_exhaustive()
    }
}

impl Iommu {
    /// Nothing is opened before the first [`super::Device::open`].
    pub fn new(interface: Interface) -> Arc<Iommu> {
        Arc::new(Iommu {
            wish: interface,
            mapped: Mutex::default(),
            owned: Mutex::default(),
            view: OnceLock::new(),
            locks_all: dma::locks_all(),
        })
    }

    /// What is used; what was asked for as long as no device is open.
    pub fn interface(&self) -> Interface {
        match self.view.get() {
            None => self.wish,
            Some(View::Container(_)) => Interface::Group,
            Some(View::Iommufd(_)) => Interface::Iommufd,
        }
    }

    /// The addresses that devices can reach, ascending; empty as long as no device is open.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn ranges(&self) -> Result<Vec<Span<Gpa>>, DmaError> {
        self.view.get().map_or(Ok(Vec::new()), view::ranges)
    }

    /// Lets devices read and write `len` bytes of `memory` from byte `offset` on, at `at`. Both
    /// addresses and `len` are multiples of 4096. Keeps `memory` alive until it is unmapped.
    ///
    /// Takes long for much memory (the kernel pins each page); `stop` ends it at the next GiB. What
    /// lies at fee00000-feefffff is passed over: there a device reaches the interrupt controllers.
    ///
    /// # Errors
    /// See [`DmaError`]. Nothing of the range is mapped then.
    pub fn map(
        &self,
        at: Gpa,
        memory: &Arc<MmapRegion>,
        offset: u64,
        len: u64,
        stop: &AtomicBool,
    ) -> Result<(), DmaError> {
        let view = self.view.get().ok_or(DmaError::NoDevice)?;
        let pages = [at.0, offset, len].iter().all(|value| value.is_multiple_of(dma::PAGE));
        let inside = offset.checked_add(len).is_some_and(|end| end <= memory.size() as u64);
        let wanted = Span::of_len(at, len).filter(|_| pages && inside);
        let wanted = wanted.ok_or(DmaError::Pages { at, len })?;
        let calls = dma::calls(wanted, &view::ranges(view)?)?;
        for (done, call) in calls.iter().enumerate() {
            let source = offset + (call.first().0 - at.0);
            let mapped = if stop.load(Relaxed) {
                Err(DmaError::Stopped)
            } else {
                self.piece(view, *call, memory, source)
            };
            if let Err(error) = mapped {
                // One call at a time, since between them other memory may be mapped by others.
                for call in calls.iter().take(done) {
                    self.unmap(call.first(), call.extent() + 1)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn piece(
        &self,
        view: &View,
        call: Span<Gpa>,
        memory: &Arc<MmapRegion>,
        offset: u64,
    ) -> Result<(), DmaError> {
        let len = call.extent() + 1;
        let locked = {
            let mut mapped = self.mapped.lock();
            if pieces(&mapped, call).next().is_some() {
                return Err(DmaError::Taken(call));
            }
            let locked = mapped.values().map(|piece| piece.len).sum();
            mapped.insert(call.first().0, Piece { len, memory: Arc::clone(memory) });
            locked
        };
        // Without the lock: this takes as long as the kernel needs to find that many pages.
        view.map(call.first().0, memory, offset, len).map_err(|errno| {
            self.mapped.lock().remove(&call.first().0);
            dma::refusal(errno, call, locked, self.locks_all)
        })
    }

    /// Takes back what [`Iommu::map`] mapped in these `len` bytes from `at` on: whole calls of `map`
    /// only. When it returns, no device reaches that memory.
    ///
    /// # Errors
    /// The range cuts through what was mapped, or the kernel refused.
    pub fn unmap(&self, at: Gpa, len: u64) -> Result<(), DmaError> {
        let view = self.view.get().ok_or(DmaError::NoDevice)?;
        let span = Span::of_len(at, len).ok_or(DmaError::Pages { at, len })?;
        let mut mapped = self.mapped.lock();
        let found: Vec<Span<Gpa>> = pieces(&mapped, span).collect();
        if found.iter().any(|piece| piece.first() < span.first() || piece.last() > span.last()) {
            return Err(DmaError::Cut(span));
        }
        for piece in found {
            view.unmap(piece.first().0, piece.extent() + 1).map_err(|errno| DmaError::Refused {
                what: "unmap",
                span: piece,
                reason: errno.to_string(),
            })?;
            mapped.remove(&piece.first().0);
        }
        Ok(())
    }

    /// Takes back all that is mapped of `memory`, wherever it is: for a BAR whose device goes.
    pub(super) fn forget(&self, memory: &Arc<MmapRegion>) {
        let mapped = self.mapped.lock();
        let of_it = mapped.iter().filter(|(_, piece)| Arc::ptr_eq(&piece.memory, memory));
        let found: Vec<(u64, u64)> = of_it.map(|(at, piece)| (*at, piece.len)).collect();
        drop(mapped);
        for (at, len) in found {
            if let Err(error) = self.unmap(Gpa(at), len) {
                tracing::warn!("a device's memory is still mapped for others: {error}");
            }
        }
    }

    /// What KVM's VFIO device (`KVM_DEV_VFIO_FILE_ADD`) is to be told of: the groups, or the devices.
    /// To be asked when all devices are open.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn kvm_files(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.owned.lock().files().map(|file| file.try_clone_to_owned()).collect()
    }

    /// The groups and functions of this machine.
    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock()
    }

    /// The view of memory; what was asked for if there is none yet.
    pub(super) fn view(&self) -> Result<&View, Interface> {
        self.view.get().ok_or(self.wish)
    }

    /// Sets the view for good. The caller holds the lock of [`Iommu::owned`], so that nobody else does.
    pub(super) fn settle(&self, view: View) -> &View {
        self.view.get_or_init(|| view)
    }
}

/// What is mapped and touches `span`.
fn pieces(mapped: &BTreeMap<u64, Piece>, span: Span<Gpa>) -> impl Iterator<Item = Span<Gpa>> {
    // Pieces do not overlap, so of those that begin before it only the last can reach into it.
    let before = mapped.range(..span.first().0).next_back();
    let others = mapped.range(span.first().0..=span.last().0);
    before
        .into_iter()
        .chain(others)
        .filter_map(|(at, piece)| Span::of_len(Gpa(*at), piece.len))
        .filter(move |piece| piece.overlaps(span))
}

impl Drop for Iommu {
    fn drop(&mut self) {
        let Some(view) = self.view.get() else { return };
        for (at, piece) in self.mapped.get_mut().iter() {
            if let Err(errno) = view.unmap(*at, piece.len) {
                // The kernel may have done so itself, when the last function went.
                tracing::debug!("guest memory at {:?} was not unmapped: {errno}", Gpa(*at));
            }
        }
    }
}
