//! Region accesses, and the client as a backend of an assigned function.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use trapline_io::{Fault, Region, Width};

use super::{Client, Error, irq};
use crate::assigned::backend::{Backend, Irqs, RegionInfo, Signalled};
use crate::vfio_user::wire::{Command, MAX_DATA, RegionAccess, Request};

/// Writes under way before one has to be answered: what a read may have to wait for, and, from a server that
/// answers all the same, less than the socket holds.
const MOST_POSTED: u32 = 128;

impl Client {
    /// Reads from a region, in as many messages as the server's limit asks for.
    ///
    /// # Errors
    /// Refused, or lost; then `bytes` may be filled in part.
    pub fn region_read(&mut self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let most = self.most_data();
        let mut at = offset;
        for piece in bytes.chunks_mut(most) {
            let access = access(region, at, piece.len());
            self.call(&Request::RegionRead(access), &[])?;
            let data = self.access_reply(Command::REGION_READ, &access, piece.len())?;
            piece.copy_from_slice(data);
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes to a region, in as many messages as the server's limit asks for. When it returns, the
    /// device has seen the bytes.
    ///
    /// # Errors
    /// Refused, or lost; some of the bytes may have been written.
    pub fn region_write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let most = self.most_data();
        let mut at = offset;
        for piece in bytes.chunks(most) {
            let access = access(region, at, piece.len());
            self.call(&Request::RegionWrite(access, piece), &[])?;
            self.access_reply(Command::REGION_WRITE, &access, 0)?;
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// As [`Client::region_write`]; where nobody has to wait for the device, the bytes are only sent.
    fn put(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let index = region.0.into();
        let done = if self.may_post(region) && bytes.len() <= self.most_data() {
            self.tell(&Request::RegionWrite(access(index, offset, bytes.len()), bytes))
        } else {
            self.region_write(index, offset, bytes)
        };
        done.map_err(|error| fault(&error))
    }

    /// Whether a write there needs no reply now. A server that has requests of its own may wait for us
    /// while we wait for room in its socket.
    fn may_post(&self, region: Region) -> bool {
        let known = region < Region::ROM || region == Region::VGA;
        let room = self.posted < MOST_POSTED;
        known && room && self.posting && !self.by_line && self.windows.is_empty()
    }

    fn most_data(&self) -> usize {
        usize::try_from(self.peer.max_data_xfer_size).unwrap_or(MAX_DATA).clamp(8, MAX_DATA)
    }
}

fn access(region: u32, offset: u64, count: usize) -> RegionAccess {
    let count = u32::try_from(count).unwrap_or(0);
    RegionAccess { offset: offset.into(), region: region.into(), count: count.into() }
}

/// What a refused access is to the guest.
fn fault(error: &Error) -> Fault {
    match error {
        Error::Refused { errno, .. } if is(*errno, Errno::NXIO) => Fault::NoRegister,
        Error::Refused { errno, .. } if is(*errno, Errno::INVAL) => Fault::BadWidth,
        _ => Fault::Failed,
    }
}

fn is(errno: u32, known: Errno) -> bool {
    i32::try_from(errno) == Ok(known.raw_os_error())
}

impl Backend for Client {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn regions(&self) -> &[RegionInfo] {
        Client::regions(self)
    }

    fn is_dead(&self) -> bool {
        Client::is_dead(self)
    }

    fn resettable(&self) -> bool {
        Client::resettable(self)
    }

    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        let (used, _) = bytes.split_at_mut(width.bytes());
        self.region_read(region.0.into(), offset, used).map_err(|error| fault(&error))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let bytes = value.to_le_bytes();
        let (used, _) = bytes.split_at(width.bytes());
        self.put(region, offset, used)
    }

    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.region_read(region.0.into(), offset, bytes).map_err(|error| fault(&error))
    }

    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.put(region, offset, bytes)
    }

    fn post(&mut self, may: bool) {
        self.posting = may;
        if !may {
            self.settle();
        }
    }

    /// Asks for what every function has, and the server answers when it is done with what came before.
    fn settle(&mut self) {
        if self.posted > 0 && !self.dead {
            let mut identity = [0; 4];
            // One that does not answer is dead then, and was told of.
            let _ = self.region_read(Region::CONFIG.0.into(), 0, &mut identity);
        }
    }

    fn reset(&mut self) -> Result<(), Fault> {
        Client::reset(self).map_err(|error| fault(&error))
    }

    fn irqs(&self) -> Irqs {
        self.irqs
    }

    fn enable_intx(&mut self, trigger: BorrowedFd<'_>, unmask: BorrowedFd<'_>) -> Result<(), Fault> {
        self.connect_line(trigger, unmask).map_err(|error| fault(&error))
    }

    fn disable_intx(&mut self) -> Result<(), Fault> {
        self.disconnect_all(irq::INTX).map_err(|error| fault(&error))
    }

    fn enable_vectors(
        &mut self,
        kind: Signalled,
        first: u16,
        triggers: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        self.connect_vectors(irq::index(kind), first, triggers).map_err(|error| fault(&error))
    }

    fn disable_vectors(&mut self, kind: Signalled) -> Result<(), Fault> {
        self.disconnect_all(irq::index(kind)).map_err(|error| fault(&error))
    }

    fn attend(&mut self) {
        Client::attend(self);
    }

    fn attention(&self) -> std::io::Result<Option<OwnedFd>> {
        Client::attention(self).map(Some)
    }
}
