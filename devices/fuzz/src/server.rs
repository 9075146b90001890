//! A vfio-user server with a client that sends anything, with any descriptors.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::toy::{Toy, description};
use arbitrary::Arbitrary;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use trapline_devices::vfio_user::Server;
use trapline_devices::vfio_user::wire::{Command, Header, Kind, Request, Version};

/// More than a client of this side ever sends with one message.
const MOST_FDS: usize = 20;

#[derive(Arbitrary, Debug)]
enum Message {
    /// Any bytes, as they are.
    Raw(Vec<u8>),
    /// A message whose header fits.
    Framed { command: u8, no_reply: bool, payload: Vec<u8>, fds: u8 },
    /// A region access, most often one that is possible.
    Access { write: bool, region: u8, offset: u16, count: u8, far: Option<(u64, u32)> },
    /// Interrupts: index, start, count and flags are small.
    Irqs { flags: u8, index: u8, start: u8, count: u8, bools: Vec<u8>, fds: u8 },
}

fn framed(command: Command, no_reply: bool, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(7, command, Kind::Command { no_reply }, payload.len());
    [&header.encode()[..], payload].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn encode(message: Message) -> (Vec<u8>, usize) {
    match message {
        Message::Raw(bytes) => (bytes, 0),
        Message::Framed { command, no_reply, payload, fds } => {
            (framed(Command((command % 16).into()), no_reply, &payload), fds.into())
        }
        Message::Access { write, region, offset, count, far } => {
            let (offset, length) = far.unwrap_or((offset.into(), count.into()));
            let region = u32::from(region % 16);
            let mut payload = [&offset.to_le_bytes()[..], &words(&[region, length])].concat();
            payload.extend(std::iter::repeat_n(0xa5, if write { length.min(1 << 16) as usize } else { 0 }));
            let command = if write { Command::REGION_WRITE } else { Command::REGION_READ };
            (framed(command, false, &payload), 0)
        }
        Message::Irqs { flags, index, start, count, bools, fds } => {
            let fields = [20, flags.into(), (index % 4).into(), start.into(), count.into()];
            let payload = [&words(&fields)[..], &bools].concat();
            (framed(Command::SET_IRQS, false, &payload), fds.into())
        }
    }
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let slice = [std::io::IoSlice::new(bytes)];
    bytes.is_empty() || sendmsg(socket, &slice, &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Eventfds that a signal would have to wait for, and some that are empty.
fn descriptors() -> Vec<OwnedFd> {
    let make = |number| {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
        let value = if number % 2 == 0 { u64::MAX - 1 } else { 0 };
        let _ = rustix::io::write(&fd, &value.to_ne_bytes());
        fd
    };
    (0..4).map(make).collect()
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(bool, Vec<Message>)>(data) else { return };
    let (greet, messages) = input;
    let server = Server::unbound(description()).expect("descriptors");
    let mut device = Toy::new(Some(server.interrupts()));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut answers = ours.try_clone().expect("a descriptor");
    let kept = descriptors();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || std::io::copy(&mut answers.by_ref(), &mut std::io::sink()));
        let writer = scope.spawn(move || {
            let greeting = Request::Version(Version::ours()).encode(|fixed, _| fixed.to_vec());
            let mut going = !greet || send(&ours, &framed(Command::VERSION, false, &greeting), &[]);
            for message in messages {
                let (bytes, fds) = encode(message);
                let fds: Vec<_> = kept.iter().map(AsFd::as_fd).cycle().take(fds.min(MOST_FDS)).collect();
                going = going && send(&ours, &bytes, &fds);
            }
            let _ = ours.shutdown(std::net::Shutdown::Write);
        });
        if let Err(broken) = server.serve(theirs, &mut device) {
            assert!(!broken.reason().is_empty());
        }
        // The scope waits for their end of work, not of life: that would look like a leak.
        let _ = (reader.join(), writer.join());
    });
}
