//! What any way of reaching a device offers: the seam between [`super::Function`] and vfio-user or the
//! kernel's VFIO.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use trapline_io::file::FileRegion;
use trapline_io::{Fault, Region, Width};
use vm_memory::MmapRegion;

/// A region of a device that has none of this number.
static NONE: RegionInfo = RegionInfo { size: 0, readable: false, writable: false, mappings: Vec::new() };

/// A part of a region that is host memory, usable without any access through the backend.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Byte offset in the region; page-aligned.
    pub offset: u64,
    /// Bytes, a whole number of pages. Of a region smaller than a page the whole page is mapped, if
    /// nothing else lies in it.
    pub len: u64,
    /// What owns the mapping. It may be larger than the mapping: then the rest of it must not be
    /// touched.
    pub memory: Arc<MmapRegion>,
    /// Where in `memory` the mapping begins, in bytes; page-aligned.
    pub at: u64,
}

impl Mapping {
    /// All of `memory`, from `offset` of the region on.
    pub fn whole(offset: u64, memory: Arc<MmapRegion>) -> Mapping {
        Mapping { offset, len: memory.size() as u64, memory, at: 0 }
    }
}

/// A region as the device has it.
#[derive(Clone, Debug, Default)]
pub struct RegionInfo {
    /// Bytes; zero where the device has no such region.
    pub size: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// What of it is mapped, with the rights above; ascending and free of overlaps.
    pub mappings: Vec<Mapping>,
}

/// Interrupts that a device can signal, as VFIO counts them (`VFIO_PCI_*_IRQ_INDEX`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Irqs {
    /// It has an INTx pin.
    pub intx: bool,
    /// Messages of its MSI capability, 0 to 32.
    pub msi: u16,
    /// Vectors of its MSI-X table, 0 to 2048.
    pub msix: u16,
    /// More MSI-X vectors may be enabled while some are (no `VFIO_IRQ_INFO_NORESIZE`).
    pub msix_grows: bool,
}

/// Which of a device's two kinds of message signalled interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
}

/// A write to a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The BAR.
    pub region: Region,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How wide.
    pub width: Width,
    /// What is written.
    pub value: u64,
}

impl Write {
    /// Whether an access has a byte in common with it.
    pub fn touches(self, region: Region, offset: u64, width: Width) -> bool {
        let before = |at: u64, width: Width, other: u64| at.saturating_add(width.bytes() as u64) <= other;
        region == self.region
            && !before(offset, width, self.offset)
            && !before(self.offset, self.width, offset)
    }
}

/// A device reached from outside of this process's code: numbered regions as VFIO has them
/// (`VFIO_PCI_*_REGION_INDEX`), an optional reset.
///
/// Called with the function's token held. No call waits without a deadline; a device that is gone
/// answers [`Fault::Failed`] at once, and its backend has told the host by then.
pub trait Backend: Send {
    /// What the device is called in messages.
    fn name(&self) -> &str;

    /// The regions; the place in the list is the number.
    fn regions(&self) -> &[RegionInfo];

    /// One region; of size zero where there is none.
    fn region(&self, region: Region) -> &RegionInfo {
        self.regions().get(usize::from(region.0)).unwrap_or(&NONE)
    }

    /// The region of a device's own that has this type and subtype (`VFIO_REGION_INFO_CAP_TYPE` of linux/vfio.h),
    /// if there is one.
    fn typed(&self, kind: (u32, u32)) -> Option<Region> {
        let _ = kind;
        None
    }

    /// Whether the device is gone for good: the guest then reads all ones everywhere. One that is part of this process
    /// never is.
    fn is_dead(&self) -> bool {
        false
    }

    /// Whether [`Backend::reset`] does anything.
    fn resettable(&self) -> bool {
        false
    }

    /// Reads `width` bytes at `offset` of `region`.
    ///
    /// # Errors
    /// As [`trapline_io::Device::read`].
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault>;

    /// Writes the low `width` bytes of `value` at `offset` of `region`.
    ///
    /// # Errors
    /// As [`trapline_io::Device::write`].
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault>;

    /// Fills `bytes` from `offset` of `region` on: for ROMs and snapshots, where the width of the
    /// single accesses does not matter.
    ///
    /// # Errors
    /// As [`Backend::read`]; `bytes` may then be filled in part.
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        for (number, byte) in (0..).zip(bytes) {
            let at = offset.checked_add(number).ok_or(Fault::NoRegister)?;
            *byte = self.read(region, at, Width::B1)?.to_le_bytes()[0];
        }
        Ok(())
    }

    /// Writes `bytes` from `offset` of `region` on, in as few transfers as there can be: for memory whose
    /// bytes stand for themselves, where the width of the single accesses does not matter.
    ///
    /// # Errors
    /// As [`Backend::write`]; part of `bytes` may have been written.
    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        for (number, byte) in (0..).zip(bytes) {
            let at = offset.checked_add(number).ok_or(Fault::NoRegister)?;
            self.write(region, at, Width::B1, (*byte).into())?;
        }
        Ok(())
    }

    /// From now on a write to the legacy VGA region or to a BAR may return before the device has seen it,
    /// or not any more: then all that were sent have reached it when this returns. Nothing overtakes
    /// them, but who waits for none of them is not told of a write that failed. Only for as long as the
    /// guest has no other way to the device, by which it could see that, and [`Backend::settle`] is
    /// called now and then. A backend whose writes are cheap to wait for does nothing.
    fn post(&mut self, may: bool) {
        let _ = may;
    }

    /// Waits until the device has seen all that was written: at most as long as for a read.
    fn settle(&mut self) {}

    /// The part of a file that *is* this region, if there is one: a write there is what
    /// [`Backend::write`] does and nothing else.
    fn file(&self, region: Region) -> Option<&FileRegion> {
        let _ = region;
        None
    }

    /// Resets the device. The deadline is that of an access.
    ///
    /// # Errors
    /// The device has no reset, refused, or is gone.
    fn reset(&mut self) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }

    /// What it can signal. None of it is enabled by opening it.
    fn irqs(&self) -> Irqs {
        Irqs::default()
    }

    /// Connects INTx: the device writes `trigger` and masks itself; a write to `unmask` unmasks it.
    /// Messages are off at that time.
    ///
    /// # Errors
    /// It has no pin, or refuses.
    fn enable_intx(&mut self, trigger: BorrowedFd<'_>, unmask: BorrowedFd<'_>) -> Result<(), Fault> {
        let _ = (trigger, unmask);
        Err(Fault::NoRegister)
    }

    /// Disconnects INTx.
    ///
    /// # Errors
    /// The device refuses or is gone.
    fn disable_intx(&mut self) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }

    /// Connects vectors `first`, `first + 1` and so on to these eventfds. If none of the kind was
    /// enabled before, this enables it; INTx and the other kind are off at that time.
    ///
    /// # Errors
    /// It has fewer vectors, the host has fewer to give (none of them is connected then), or it is gone.
    fn enable_vectors(
        &mut self,
        kind: Signalled,
        first: u16,
        triggers: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        let _ = (kind, first, triggers);
        Err(Fault::NoRegister)
    }

    /// Disconnects all vectors of a kind and disables it.
    ///
    /// # Errors
    /// The device refuses or is gone.
    fn disable_vectors(&mut self, kind: Signalled) -> Result<(), Fault> {
        let _ = kind;
        Err(Fault::NoRegister)
    }

    /// Whether [`Backend::connect_write`] is worth trying.
    fn takes_writes(&self) -> bool {
        false
    }

    /// From now on each signal of this eventfd makes the device's driver carry out `write`, in the thread
    /// of who signals: a driver that is busy with the device does it a little later. Who runs the machine is
    /// told that the function claims something else now ([`Event::Claims`](crate::host::Event::Claims)).
    ///
    /// # Errors
    /// It cannot, or not as many, or is gone.
    fn connect_write(&mut self, write: Write, event: BorrowedFd<'_>) -> Result<(), Fault> {
        let _ = (write, event);
        Err(Fault::NoRegister)
    }

    /// Takes back [`Backend::connect_write`]; what was signalled before is carried out.
    ///
    /// # Errors
    /// There was none, or the device is gone.
    fn disconnect_write(&mut self, write: Write) -> Result<(), Fault> {
        let _ = write;
        Err(Fault::NoRegister)
    }

    /// Serves what [`Backend::attention`] became readable for. Does not wait for the device.
    fn attend(&mut self) {}

    /// A descriptor that becomes readable when [`Backend::attend`] is to be called.
    ///
    /// # Errors
    /// The descriptor could not be duplicated.
    fn attention(&self) -> std::io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

impl RegionInfo {
    /// Whether an access lies inside.
    pub fn holds(&self, offset: u64, width: Width) -> bool {
        offset.checked_add(width.bytes() as u64).is_some_and(|end| end <= self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at the end of all offsets.
    struct End([u8; 4]);

    impl End {
        fn byte(&mut self, offset: u64) -> Result<&mut u8, Fault> {
            let first = u64::MAX - 3;
            let at = offset.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            self.0.get_mut(at.ok_or(Fault::NoRegister)?).ok_or(Fault::NoRegister)
        }
    }

    impl Backend for End {
        fn name(&self) -> &str {
            "end"
        }

        fn regions(&self) -> &[RegionInfo] {
            &[]
        }

        fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
            self.byte(offset).map(|byte| u64::from(*byte))
        }

        fn write(&mut self, _: Region, offset: u64, _: Width, value: u64) -> Result<(), Fault> {
            *self.byte(offset)? = value.to_le_bytes()[0];
            Ok(())
        }
    }

    #[test]
    fn runs_of_bytes_end_where_offsets_do() {
        let (mut end, region) = (End([1, 2, 3, 4]), Region::bar(0));
        let mut bytes = [0; 4];
        assert_eq!(end.read_bytes(region, u64::MAX - 3, &mut bytes), Ok(()));
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert_eq!(end.read_bytes(region, u64::MAX - 2, &mut bytes), Err(Fault::NoRegister));
        assert_eq!(end.write_bytes(region, u64::MAX, &[9]), Ok(()));
        assert_eq!(end.write_bytes(region, u64::MAX, &[8, 7]), Err(Fault::NoRegister));
        assert_eq!(end.0, [1, 2, 3, 8]);
    }
}
