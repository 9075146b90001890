//! Guest memory for the device: what it is told of, and its own requests for it.

use std::os::fd::BorrowedFd;

use rustix::event::epoll;
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

use super::{Client, Error};
use crate::vfio_user::channel::ChannelError;
use crate::vfio_user::wire::{
    Command, DmaAccess, DmaFlags, DmaMap, DmaUnmap, Header, Kind, Malformed, Request,
};

/// Guest memory that the server was told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    address: u64,
    size: u64,
    flags: DmaFlags,
}

impl Window {
    fn holds(&self, access: &DmaAccess) -> bool {
        let (address, count) = (access.address.get(), access.count.get());
        address >= self.address
            && address.checked_add(count).is_some_and(|end| end - self.address <= self.size)
    }
}

impl Client {
    /// Gives the memory from which the server's own reads and writes are served, where they lie in a
    /// window of [`Client::dma_map`]. Without it they are refused.
    pub fn serve_memory(&mut self, memory: GuestMemoryMmap) {
        self.memory = Some(memory);
    }

    /// Tells the server of `size` bytes of guest memory at `address`, and of the file and the offset
    /// in it where they can be mapped.
    ///
    /// # Errors
    /// Refused, or lost.
    pub fn dma_map(
        &mut self,
        address: u64,
        size: u64,
        flags: DmaFlags,
        file: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), Error> {
        if self.windows.len() as u64 >= self.peer.max_dma_maps {
            return Err(Error::TooMuch(Command::DMA_MAP));
        }
        let offset = file.map_or(0, |(_, offset)| offset);
        let map = DmaMap {
            argsz: 32.into(),
            flags: flags.into_bits().into(),
            offset: offset.into(),
            address: address.into(),
            size: size.into(),
        };
        self.call(&Request::DmaMap(map), file.map(|(fd, _)| fd).as_slice())?;
        self.windows.push(Window { address, size, flags });
        // From now on the server may have something to ask while nobody reads the socket.
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let socket = self.channel.socket();
        epoll::modify(&self.watch, socket, epoll::EventData::new_u64(0), events)
            .map_err(|errno| Error::Setup(errno.into()))
    }

    /// Takes back what [`Client::dma_map`] told. When it returns, the device uses it no more.
    ///
    /// # Errors
    /// Refused, or lost.
    pub fn dma_unmap(&mut self, address: u64, size: u64) -> Result<(), Error> {
        let unmap =
            DmaUnmap { argsz: 24.into(), flags: 0.into(), address: address.into(), size: size.into() };
        self.call(&Request::DmaUnmap(unmap), &[])?;
        self.windows.retain(|window| (window.address, window.size) != (address, size));
        Ok(())
    }

    /// Serves a request of the server. Only a reply where none is awaited, or a malformed request, is
    /// an error.
    pub(super) fn serve(&mut self, header: Header) -> Result<(), ChannelError> {
        let Kind::Command { no_reply } = header.kind else {
            return Err(Malformed::Unexpected(header.command).into());
        };
        let request = Request::decode(header.command, self.channel.payload())?;
        let done = match request {
            Request::DmaRead(access) => {
                let count = usize::try_from(access.count.get()).unwrap_or(0);
                self.scratch.resize(count, 0);
                permit(self.memory.as_ref(), &self.windows, &access, DmaFlags::read)
                    .and_then(|memory| {
                        let address = GuestAddress(access.address.get());
                        memory.read_slice(&mut self.scratch, address).map_err(|_| Errno::FAULT)
                    })
                    .map(|()| (access, self.scratch.as_slice()))
            }
            Request::DmaWrite(access, data) => {
                permit(self.memory.as_ref(), &self.windows, &access, DmaFlags::write)
                    .and_then(|memory| {
                        let address = GuestAddress(access.address.get());
                        memory.write_slice(data, address).map_err(|_| Errno::FAULT)
                    })
                    .map(|()| (access, &[][..]))
            }
            _ => Err(Errno::OPNOTSUPP),
        };
        if no_reply {
            return Ok(());
        }
        let (id, command) = (header.id, header.command);
        match done {
            Ok((access, data)) => {
                let fixed = access.as_bytes();
                let reply = Header::new(id, command, Kind::Reply, fixed.len() + data.len());
                self.channel.send([&reply.encode(), fixed, data], &[])
            }
            Err(errno) => {
                let errno = u32::try_from(errno.raw_os_error()).unwrap_or(0);
                let reply = Header::new(id, command, Kind::Refusal(errno), 0);
                self.channel.send([&reply.encode(), &[], &[]], &[])
            }
        }
    }
}

fn permit<'a>(
    memory: Option<&'a GuestMemoryMmap>,
    windows: &[Window],
    access: &DmaAccess,
    right: impl Fn(&DmaFlags) -> bool,
) -> Result<&'a GuestMemoryMmap, Errno> {
    let memory = memory.ok_or(Errno::OPNOTSUPP)?;
    let allowed = windows.iter().any(|window| right(&window.flags) && window.holds(access));
    if allowed { Ok(memory) } else { Err(Errno::FAULT) }
}
