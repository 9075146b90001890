//! The vectors of the MSI-X table: connected when they are first unmasked, masked by taking their
//! message away.

use trapline_io::{Fault, Width};

use super::{Interrupts, Mode, Trouble, eventfds};
use crate::assigned::backend::{Backend, Signalled};
use crate::assigned::wire::Wire;
use crate::pci::ConfigSpace;

impl Interrupts {
    /// Writes the table, and lets the entry's vector follow.
    pub fn write_table(
        &mut self,
        space: &ConfigSpace,
        backend: &mut dyn Backend,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Fault> {
        let msix = self.msix.as_mut().ok_or(Fault::NoRegister)?;
        let index = msix.write_table(offset, width, value)?;
        if self.mode == Mode::Msix {
            self.follow_vector(space, backend, index);
            self.note(space);
        }
        Ok(())
    }

    /// Whether the device's MSI-X is on.
    pub(super) fn any_connected(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.entries.iter().any(|entry| entry.wire.is_some()))
    }

    /// Whether a vector is unmasked, and delivers.
    pub(super) fn any_delivers(&self) -> bool {
        let entries = self.msix.as_ref().map_or(&[][..], |msix| &msix.entries);
        entries.iter().filter_map(|entry| entry.wire.as_ref()).any(Wire::delivers)
    }

    /// Switches the device's MSI-X on. A guest does so long before it unmasks anything, and the device
    /// may look at the bit: so the first vector is connected in any case.
    pub(super) fn connect_table(&mut self, space: &ConfigSpace, backend: &mut dyn Backend) {
        let last = self.last_unmasked(space).unwrap_or(0);
        let done = self.connect_up_to(backend, last + 1) || last > 0 && self.connect_up_to(backend, 1);
        if !done {
            self.tell(Trouble::Messages, &"the device refuses");
        }
    }

    /// Lets every vector deliver what the registers say.
    pub(super) fn follow_table(&mut self, space: &ConfigSpace, backend: &mut dyn Backend) {
        let vectors = self.msix.as_ref().map_or(0, |msix| msix.entries.len());
        if !self.irqs.msix_grows
            && let Some(last) = self.last_unmasked(space)
        {
            self.grow(backend, last);
        }
        for index in 0..vectors {
            self.follow_vector(space, backend, index);
        }
    }

    fn follow_vector(&mut self, space: &ConfigSpace, backend: &mut dyn Backend, index: usize) {
        let Some(msix) = &self.msix else { return };
        let message = msix.message(index).filter(|_| !msix.masked(space));
        if message.is_some() && !self.is_connected(index) {
            self.grow(backend, index);
        }
        let entry = self.msix.as_mut().and_then(|msix| msix.entries.get_mut(index));
        let Some(wire) = entry.and_then(|entry| entry.wire.as_mut()) else { return };
        if let Err(error) = wire.follow(message) {
            self.tell(Trouble::Route, &error);
        }
    }

    /// Connects vector `index` too. Where the device takes its vectors only all at once, what it signals
    /// in between is lost: so their number then doubles at least.
    fn grow(&mut self, backend: &mut dyn Backend, index: usize) {
        if self.exhausted || self.is_connected(index) {
            return;
        }
        let done = if self.irqs.msix_grows && self.any_connected() {
            self.connect(backend, index, index + 1)
        } else {
            let most = self.msix.as_ref().map_or(0, |msix| msix.entries.len());
            let doubled = (2 * self.connected_prefix()).clamp(index + 1, most.max(index + 1));
            self.connect_up_to(backend, doubled)
                || doubled > index + 1 && self.connect_up_to(backend, index + 1)
        };
        if !done {
            self.exhausted = true;
            self.tell(Trouble::Fewer, &format_args!("not the one with number {index}"));
        }
    }

    /// Connects vectors 0 to `end` as one; if that fails, those that were connected before are again.
    fn connect_up_to(&mut self, backend: &mut dyn Backend, end: usize) -> bool {
        let before = self.connected_prefix();
        if before > 0 {
            // What is gone signals nothing.
            let _ = backend.disable_vectors(Signalled::Msix);
        }
        if self.connect(backend, 0, end) {
            return true;
        }
        if before > 0 && !self.enable(backend, 0, before) {
            self.forget(0..before);
        }
        false
    }

    /// Makes the vectors that are missing from `first` to `end`, and connects them all.
    fn connect(&mut self, backend: &mut dyn Backend, first: usize, end: usize) -> bool {
        let missing = (first..end).find(|index| !self.is_connected(*index)).unwrap_or(end);
        let made = match self.make(end - missing) {
            Ok(made) => made,
            Err(error) => {
                self.tell(Trouble::Messages, &error);
                return false;
            }
        };
        let Some(msix) = &mut self.msix else { return false };
        let entries = msix.entries.get_mut(missing..end).unwrap_or_default();
        for (entry, wire) in entries.iter_mut().zip(made) {
            entry.wire = Some(wire);
        }
        let done = self.enable(backend, first, end);
        if !done {
            self.forget(missing..end);
        }
        done
    }

    fn enable(&self, backend: &mut dyn Backend, first: usize, end: usize) -> bool {
        let Some(msix) = &self.msix else { return false };
        let wires = msix.entries.get(first..end).unwrap_or_default().iter();
        let fds = eventfds(wires.filter_map(|entry| entry.wire.as_ref()));
        let first = u16::try_from(first).unwrap_or(u16::MAX);
        backend.enable_vectors(Signalled::Msix, first, &fds).is_ok()
    }

    fn forget(&mut self, which: std::ops::Range<usize>) {
        let entries = self.msix.as_mut().and_then(|msix| msix.entries.get_mut(which));
        entries.unwrap_or_default().iter_mut().for_each(|entry| entry.wire = None);
    }

    fn is_connected(&self, index: usize) -> bool {
        let entry = self.msix.as_ref().and_then(|msix| msix.entries.get(index));
        entry.is_some_and(|entry| entry.wire.is_some())
    }

    /// How many vectors from the first on are connected without a gap.
    fn connected_prefix(&self) -> usize {
        let entries = self.msix.as_ref().map_or(&[][..], |msix| &msix.entries);
        entries.iter().take_while(|entry| entry.wire.is_some()).count()
    }

    /// The last vector that may deliver now.
    fn last_unmasked(&self, space: &ConfigSpace) -> Option<usize> {
        let msix = self.msix.as_ref().filter(|msix| !msix.masked(space))?;
        (0..msix.entries.len()).rev().find(|index| msix.message(*index).is_some())
    }
}
