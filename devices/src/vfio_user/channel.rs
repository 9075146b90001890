//! A Unix stream socket as a sequence of messages with descriptors.
//!
//! Both ends use it, each from one thread. Nothing waits without an end but the wait of a server for
//! the first byte of a request, which ends when the socket is shut down.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

use super::wire::{HEADER, Header, MAX_FDS, Malformed};

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end closed the connection, or is gone.
    #[error("the other end closed the connection")]
    Closed,
    /// The time was up.
    #[error("no answer in time")]
    Timeout,
    /// The other end does not speak the protocol.
    #[error("malformed message")]
    Malformed(#[from] Malformed),
    /// The socket itself failed.
    #[error("socket")]
    Socket(#[source] Errno),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> ChannelError {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ChannelError::Closed,
            Errno::AGAIN => ChannelError::Timeout,
            errno => ChannelError::Socket(errno),
        }
    }
}

/// Bytes asked for at a time while the size of a message is not known.
const CHUNK: usize = 4096;
/// Messages up to this length are copied together and sent from one place: cheaper for the kernel, and
/// all register accesses are.
const SHORT: usize = 128;
/// Descriptors kept for messages that are not complete.
const MAX_PENDING_FDS: usize = 4 * MAX_FDS;

/// How long to wait for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is complete, or the patience of the channel, counted from here, is at its end.
    Reply(Instant),
    /// For ever for its first byte, then as for a reply.
    Request,
    /// Not at all.
    Poll,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// The longest wait for the rest of a message, and for room to send.
    patience: Duration,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold something.
    filled: usize,
    /// Bytes at the start of the buffer that belong to the message handed out last.
    current: usize,
    /// Descriptors, each with the place of the last byte that it came with.
    fds: Vec<(usize, OwnedFd)>,
}

impl Channel {
    /// The channel of a client: no wait is longer than `patience`.
    pub fn client(socket: UnixStream, patience: Duration) -> std::io::Result<Channel> {
        Channel::new(socket, patience, true)
    }

    /// The channel of a server, which waits for ever for the first byte of a request.
    pub fn server(socket: UnixStream, patience: Duration) -> std::io::Result<Channel> {
        Channel::new(socket, patience, false)
    }

    fn new(socket: UnixStream, patience: Duration, limited: bool) -> std::io::Result<Channel> {
        let patience = patience.max(Duration::from_millis(1));
        socket.set_write_timeout(Some(patience))?;
        socket.set_read_timeout(limited.then_some(patience))?;
        Ok(Channel { socket, patience, buffer: vec![0; CHUNK], filled: 0, current: 0, fds: Vec::new() })
    }

    /// The socket, to be watched or shut down.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends the bytes of `parts` as one message, the descriptors with its first byte.
    pub fn send(&self, parts: [&[u8]; 3], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut short = [0; SHORT];
        match joined(parts, &mut short) {
            Some(message) if fds.is_empty() => self.send_short(message),
            _ => self.send_parts(parts, fds),
        }
    }

    fn send_short(&self, message: &[u8]) -> Result<(), ChannelError> {
        match send(&self.socket, message, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == message.len() => Ok(()),
            Ok(sent) => self.send_parts([message.get(sent..).unwrap_or_default(), &[], &[]], &[]),
            Err(Errno::INTR) => self.send_parts([message, &[], &[]], &[]),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send_parts(&self, parts: [&[u8]; 3], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Malformed::Descriptors.into());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        let mut until = None;
        while sent < total {
            match sendmsg(&self.socket, left, &mut control, SendFlags::NOSIGNAL) {
                Ok(bytes) => {
                    sent += bytes;
                    IoSlice::advance_slices(&mut left, bytes);
                    control.clear();
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if sent < total && Instant::now() > *until.get_or_insert_with(|| Instant::now() + self.patience) {
                return Err(ChannelError::Timeout);
            }
        }
        Ok(())
    }

    /// Receives the next message; what is left of the one before is dropped. `None` only for
    /// [`Wait::Poll`].
    pub fn receive(&mut self, wait: Wait) -> Result<Option<Header>, ChannelError> {
        self.drop_current();
        let mut start = match wait {
            Wait::Reply(start) => Some(start),
            Wait::Request | Wait::Poll => None,
        };
        // The first wait is the one that counts for latency: one system call, no poll before it.
        let mut first = match wait {
            Wait::Reply(_) => true,
            Wait::Request => self.filled == 0,
            Wait::Poll => false,
        };
        loop {
            if let Some(header) = self.complete()? {
                return Ok(Some(header));
            }
            let flags = if first { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
            match self.fill(flags) {
                Ok(()) => first = false,
                Err(Errno::AGAIN) if wait == Wait::Poll => return Ok(None),
                Err(Errno::AGAIN) if !first => {
                    // Of a request the first byte has just come: from here on it may take its time.
                    self.wait_for_more(*start.get_or_insert_with(Instant::now))?;
                }
                // A signal: a server starts its wait again, a client goes on with what time is left.
                Err(Errno::INTR) => first = first && wait == Wait::Request,
                Err(Errno::PROTO) => return Err(Malformed::Descriptors.into()),
                Err(Errno::SHUTDOWN) if self.filled > 0 => {
                    return Err(Malformed::Truncated(self.filled).into());
                }
                Err(Errno::SHUTDOWN) => return Err(ChannelError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The payload of the message received last.
    pub fn payload(&self) -> &[u8] {
        self.buffer.get(HEADER..self.current).unwrap_or_default()
    }

    /// The descriptors that came with the message received last.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        let own = self.fds.iter().take_while(|(place, _)| *place < self.current).count();
        self.fds.drain(..own).map(|(_, fd)| fd).collect()
    }

    fn drop_current(&mut self) {
        drop(self.take_fds());
        if self.current == 0 {
            return;
        }
        self.buffer.copy_within(self.current..self.filled, 0);
        self.filled -= self.current;
        for (place, _) in &mut self.fds {
            *place -= self.current;
        }
        self.current = 0;
    }

    /// Whether the buffer starts with a whole message.
    fn complete(&mut self) -> Result<Option<Header>, Malformed> {
        let Some(bytes) = self.buffer[..self.filled].first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::decode(*bytes)?;
        let size = header.size as usize;
        if self.filled >= size {
            self.current = size;
            return Ok(Some(header));
        }
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        Ok(None)
    }

    /// Receives what there is. `SHUTDOWN` stands for the end, `PROTO` for too many descriptors.
    fn fill(&mut self, flags: RecvFlags) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let room = &mut [IoSliceMut::new(&mut self.buffer[self.filled..])];
        let received = recvmsg(&self.socket, room, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(Errno::SHUTDOWN);
        }
        self.filled += received.bytes;
        // The kernel ends a receive behind the bytes that carried descriptors, so these belong to the
        // message that holds the last byte.
        let place = self.filled - 1;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds.map(|fd| (place, fd)));
            }
        }
        let truncated = received.flags.contains(ReturnFlags::CTRUNC);
        if truncated || self.fds.len() > MAX_PENDING_FDS { Err(Errno::PROTO) } else { Ok(()) }
    }

    fn wait_for_more(&self, start: Instant) -> Result<(), ChannelError> {
        let left = self.patience.checked_sub(start.elapsed()).ok_or(ChannelError::Timeout)?;
        let left = Timespec::try_from(left).map_err(|_| ChannelError::Timeout)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
            Ok(0) => Err(ChannelError::Timeout),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// All of `parts` in `space`, if they fit.
fn joined<'s>(parts: [&[u8]; 3], space: &'s mut [u8; SHORT]) -> Option<&'s [u8]> {
    let mut filled = 0;
    for part in parts {
        let end = filled + part.len();
        space.get_mut(filled..end)?.copy_from_slice(part);
        filled = end;
    }
    space.get(..filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio_user::wire::{Command, Kind};

    #[test]
    fn messages_of_every_length_arrive_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(5);
        let mut from = Channel::client(ours, patience).unwrap();
        let to = Channel::server(theirs, patience).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * SHORT).collect();
        for payload in 0..bytes.len() {
            let header = Header::new(7, Command::REGION_READ, Kind::Reply, payload);
            // The fixed part of some of these fits where the data behind it does not.
            let (fixed, data) = bytes[..payload].split_at(payload / 2);
            to.send([&header.encode(), fixed, data], &[]).unwrap();
            let received = from.receive(Wait::Reply(Instant::now())).unwrap();
            assert_eq!((received, from.payload()), (Some(header), &bytes[..payload]));
        }
    }

    #[test]
    fn a_client_does_not_wait_for_ever_for_the_rest_of_a_reply() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut from = Channel::client(ours, Duration::from_millis(20)).unwrap();
        let to = Channel::server(theirs, Duration::from_secs(5)).unwrap();
        let header = Header::new(7, Command::REGION_READ, Kind::Reply, 8);
        to.send([&header.encode(), &[1, 2, 3], &[]], &[]).unwrap();
        let start = Instant::now();
        let received = from.receive(Wait::Reply(start));
        assert!(matches!(received, Err(ChannelError::Timeout)), "{received:?}");
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
