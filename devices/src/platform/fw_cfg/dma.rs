//! Transfers: the guest writes the address of a descriptor, and polls the descriptor's control word.

use std::sync::atomic::{Ordering, fence};

use trapline_io::Fault;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FwCfg, Items};

/// Control: the transfer failed (set by the device).
const ERROR: u32 = 1;
/// Control: from the item to memory.
const READ: u32 = 2;
/// Control: move on in the item.
const SKIP: u32 = 4;
/// Control: first select the item in bits 31:16.
const SELECT: u32 = 8;
/// Control: from memory to the item.
const WRITE: u32 = 0x10;

/// What the guest describes a transfer by.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    control: U32,
    length: U32,
    address: U64,
}

/// The transfer would leave RAM, or the item.
#[derive(Debug)]
struct Refused;

impl FwCfg {
    /// Carries out the transfer whose descriptor lies at `at`, and sets its control word.
    ///
    /// It takes as long as copying its length, which RAM bounds: a range that is not RAM from end to
    /// end is refused before anything is copied.
    pub(super) fn transfer(&mut self, at: u64) -> Result<(), Fault> {
        let at = GuestAddress(at);
        let mut bytes = [0; size_of::<Descriptor>()];
        // With no descriptor there is nowhere to report to.
        self.memory.read_slice(&mut bytes, at).map_err(|_| Fault::Failed)?;
        let descriptor = Descriptor::read_from_bytes(&bytes).map_err(|_| Fault::Failed)?;

        let done = self.carry_out(&descriptor);
        let control = U32::new(if done.is_ok() { 0 } else { ERROR });
        // The guest may poll from another CPU: the data come first.
        fence(Ordering::Release);
        let reported = self.memory.write_slice(control.as_bytes(), at);
        reported.map_err(|_| Fault::Failed)?;
        done.map_err(|Refused| Fault::Failed)
    }

    fn carry_out(&mut self, descriptor: &Descriptor) -> Result<(), Refused> {
        let control = descriptor.control.get();
        let length = descriptor.length.get();
        let address = GuestAddress(descriptor.address.get());
        if control & SELECT != 0 {
            self.select(u16::try_from(control >> 16).unwrap_or(0));
        }
        if control & READ != 0 {
            self.copy_out(address, length)?;
        } else if control & WRITE != 0 {
            self.copy_in(address, length)?;
        } else if control & SKIP == 0 {
            return Ok(());
        }
        let end = u32::try_from(self.items.bytes(self.selected).len()).unwrap_or(u32::MAX);
        self.offset = self.offset.saturating_add(length).min(end.max(self.offset));
        Ok(())
    }

    /// What is left of the selected item, then zeros, to `address`.
    fn copy_out(&mut self, address: GuestAddress, length: u32) -> Result<(), Refused> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let length = self.ram(address, length)?;
        let item = self.items.bytes(self.selected);
        let rest = item.get(usize::try_from(self.offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let copied = rest.get(..length).unwrap_or(rest);
        self.memory.write_slice(copied, address).map_err(|_| Refused)?;
        let mut done = copied.len();
        while done < length {
            let step = (length - done).min(ZEROS.len());
            let to = address.checked_add(done as u64).ok_or(Refused)?;
            self.memory.write_slice(&ZEROS[..step], to).map_err(|_| Refused)?;
            done += step;
        }
        Ok(())
    }

    /// From `address` into the selected item, which must be writable and have room for all of it.
    fn copy_in(&mut self, address: GuestAddress, length: u32) -> Result<(), Refused> {
        let length = self.ram(address, length)?;
        let offset = usize::try_from(self.offset).map_err(|_| Refused)?;
        let items: &mut Items = &mut self.items;
        let end = offset.checked_add(length).ok_or(Refused)?;
        let to = items.writable(self.selected).and_then(|item| item.get_mut(offset..end)).ok_or(Refused)?;
        self.memory.read_slice(to, address).map_err(|_| Refused)
    }

    /// Checks that the range is RAM from end to end, and gives its length.
    fn ram(&self, address: GuestAddress, length: u32) -> Result<usize, Refused> {
        let length = usize::try_from(length).map_err(|_| Refused)?;
        self.memory.check_range(address, length).then_some(length).ok_or(Refused)
    }
}
