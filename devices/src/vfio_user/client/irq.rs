//! Interrupts: what the device can signal, and eventfds for it.

use std::os::fd::BorrowedFd;

use super::{Client, Error};
use crate::assigned::backend::Signalled;
use crate::vfio_user::wire::IrqSetFlags;

/// Types of interrupts, numbered as VFIO does (`VFIO_PCI_*_IRQ_INDEX`).
pub(super) const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;

/// The most messages that MSI has, and the most vectors of MSI-X.
const MOST_MESSAGES: u32 = 32;
const MOST_VECTORS: u32 = 2048;

/// The number of a type.
pub(super) fn index(kind: Signalled) -> u32 {
    match kind {
        Signalled::Msi => MSI,
        Signalled::Msix => MSIX,
    }
}

impl Client {
    /// Asks for the types that a PCI function has.
    pub(super) fn learn_irqs(&mut self) -> Result<(), Error> {
        for index in 0..self.irq_types.min(MSIX + 1) {
            // A server that does not know the type has none of it.
            let (flags, count) = match self.irq_info(index) {
                Ok(info) => info,
                Err(Error::Refused { .. }) => continue,
                Err(error) => return Err(error),
            };
            let most = |most: u32| u16::try_from(count.min(most)).unwrap_or(0);
            match index {
                _ if !flags.eventfd() => {}
                INTX => (self.irqs.intx, self.automasked) = (count > 0, flags.automasked()),
                MSI => self.irqs.msi = most(MOST_MESSAGES),
                _ => (self.irqs.msix, self.irqs.msix_grows) = (most(MOST_VECTORS), !flags.noresize()),
            }
        }
        Ok(())
    }

    /// Connects INTx. A device that does not mask it when it fires repeats it by itself.
    pub(super) fn connect_line(
        &mut self,
        trigger: BorrowedFd<'_>,
        unmask: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let eventfd = IrqSetFlags::new().with_eventfds(true);
        self.set_irqs(INTX, eventfd.with_trigger(true), 0, 1, &[trigger])?;
        self.by_line = true;
        if !self.automasked {
            return Ok(());
        }
        let done = self.set_irqs(INTX, eventfd.with_unmask(true), 0, 1, &[unmask]);
        if done.is_err() && !self.dead {
            self.disconnect_all(INTX)?;
        }
        done
    }

    /// Connects vectors from `first` on; after an error none of them.
    pub(super) fn connect_vectors(
        &mut self,
        index: u32,
        first: u16,
        triggers: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let flags = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
        let count = u32::try_from(triggers.len()).unwrap_or(u32::MAX);
        let done = self.set_irqs(index, flags, first.into(), count, triggers);
        if done.is_err() && first == 0 && !self.dead {
            self.disconnect_all(index)?;
        }
        done
    }

    /// Disconnects all of a type.
    pub(super) fn disconnect_all(&mut self, index: u32) -> Result<(), Error> {
        let flags = IrqSetFlags::new().with_none(true).with_trigger(true);
        let done = self.set_irqs(index, flags, 0, 0, &[]);
        self.by_line &= index != INTX;
        done
    }
}
