//! Messages of the vfio-user protocol as values. Pure: no socket, no state, and the only place where
//! bytes of the other end are given a meaning.
//!
//! Integers have the byte order of the host; trapline runs on x86 only, so they are little-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

mod body;
mod region;
mod request;
#[cfg(test)]
mod tests;
mod version;

pub use body::{
    DeviceFlags, DeviceInfo, DmaAccess, DmaFlags, DmaMap, DmaUnmap, IrqFlags, IrqInfo, IrqSet, IrqSetFlags,
    RegionAccess, RegionFlags, RegionInfo,
};
pub use region::{Area, RegionReply};
pub use request::Request;
pub use version::{Capabilities, MAJOR, MINOR, Version};

/// Bytes of a message header.
pub const HEADER: usize = 16;
/// Most bytes of data that this side takes in one message: the protocol's default.
pub const MAX_DATA: usize = 1 << 20;
/// Longest message that this side takes: data behind its header and the largest fixed part.
pub const MAX_MESSAGE: usize = HEADER + 64 + MAX_DATA;
/// Most descriptors that this side takes with one message.
pub const MAX_FDS: usize = 16;
/// Most regions of a device: more than VFIO's PCI devices have, and a bound for what a server may
/// make a client ask and keep.
pub const MAX_REGIONS: usize = 64;
/// Most bytes in the answer about one region, its capabilities included.
pub const MAX_REGION_INFO: usize = 16 << 10;

/// Why bytes are not a message. The connection they came over is not to be used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither a command nor a reply.
    #[error("message type {0} is neither a command nor a reply")]
    Type(u32),
    /// The header's size field.
    #[error("message size {size} is outside {HEADER} to {MAX_MESSAGE} bytes")]
    Size {
        /// What the header says.
        size: u32,
    },
    /// The payload has not the length that its command asks for.
    #[error("{command:?} has {have} bytes of payload where {want} belong")]
    Length {
        /// Which message.
        command: Command,
        /// Bytes that came.
        have: usize,
        /// Bytes of the fixed part and what it announces.
        want: usize,
    },
    /// A number that is out of range.
    #[error("{command:?} has {what} {value:#x}, which is out of range")]
    Value {
        /// Which message.
        command: Command,
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The version data is not what it should be.
    #[error("version data: {0}")]
    Version(String),
    /// The capabilities of a region do not form a list.
    #[error("region capability at offset {0:#x} lies outside the message or does not advance")]
    Capability(u32),
    /// A message that does not belong here.
    #[error("{0:?} is not allowed here")]
    Unexpected(Command),
    /// More descriptors than this side takes.
    #[error("more than {MAX_FDS} descriptors with one message")]
    Descriptors,
    /// The stream ended inside a message.
    #[error("the connection ended after {0} bytes of a message")]
    Truncated(usize),
}

/// What a message asks for; a reply repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u16);

/// Command numbers with their names in the specification.
const NAMES: [(Command, &str); 13] = [
    (Command::VERSION, "VERSION"),
    (Command::DMA_MAP, "DMA_MAP"),
    (Command::DMA_UNMAP, "DMA_UNMAP"),
    (Command::DEVICE_INFO, "DEVICE_GET_INFO"),
    (Command::REGION_INFO, "DEVICE_GET_REGION_INFO"),
    (Command::REGION_IO_FDS, "DEVICE_GET_REGION_IO_FDS"),
    (Command::IRQ_INFO, "DEVICE_GET_IRQ_INFO"),
    (Command::SET_IRQS, "DEVICE_SET_IRQS"),
    (Command::REGION_READ, "REGION_READ"),
    (Command::REGION_WRITE, "REGION_WRITE"),
    (Command::DMA_READ, "DMA_READ"),
    (Command::DMA_WRITE, "DMA_WRITE"),
    (Command::RESET, "DEVICE_RESET"),
];

impl Command {
    /// Negotiation; the first message of a connection.
    pub const VERSION: Command = Command(1);
    /// Guest memory that the device may reach.
    pub const DMA_MAP: Command = Command(2);
    /// The end of that.
    pub const DMA_UNMAP: Command = Command(3);
    /// How many regions and interrupt types.
    pub const DEVICE_INFO: Command = Command(4);
    /// One region: size, rights, what can be mapped.
    pub const REGION_INFO: Command = Command(5);
    /// Descriptors that stand for registers.
    pub const REGION_IO_FDS: Command = Command(6);
    /// One interrupt type.
    pub const IRQ_INFO: Command = Command(7);
    /// Where interrupts go.
    pub const SET_IRQS: Command = Command(8);
    /// Reads a region.
    pub const REGION_READ: Command = Command(9);
    /// Writes a region.
    pub const REGION_WRITE: Command = Command(10);
    /// The server reads guest memory.
    pub const DMA_READ: Command = Command(11);
    /// The server writes guest memory.
    pub const DMA_WRITE: Command = Command(12);
    /// Resets the device.
    pub const RESET: Command = Command(13);
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.iter().find(|(command, _)| command == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for something.
    Command {
        /// The sender waits for no reply.
        no_reply: bool,
    },
    /// Answers a command that was carried out.
    Reply,
    /// Answers a command that was not; holds the `errno`, zero if the sender gave none.
    Refusal(u32),
}

/// What stands before every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who asks, repeated in the reply.
    pub id: u16,
    /// What is asked, or answered.
    pub command: Command,
    /// Bytes of the whole message, [`HEADER`] to [`MAX_MESSAGE`].
    pub size: u32,
    /// Command or reply.
    pub kind: Kind,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    id: U16,
    command: U16,
    size: U32,
    flags: U32,
    error: U32,
}

const TYPE_MASK: u32 = 0xf;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

impl Header {
    /// A header before `payload` bytes. The caller keeps to [`MAX_DATA`]; a longer payload gives a
    /// size that no one takes.
    pub fn new(id: u16, command: Command, kind: Kind, payload: usize) -> Header {
        Header { id, command, size: u32::try_from(HEADER + payload).unwrap_or(u32::MAX), kind }
    }

    /// As it goes over the socket.
    pub fn encode(self) -> [u8; HEADER] {
        let (flags, error) = match self.kind {
            Kind::Command { no_reply: false } => (0, 0),
            Kind::Command { no_reply: true } => (NO_REPLY, 0),
            Kind::Reply => (TYPE_REPLY, 0),
            Kind::Refusal(errno) => (TYPE_REPLY | ERROR, errno),
        };
        let raw = RawHeader {
            id: self.id.into(),
            command: self.command.0.into(),
            size: self.size.into(),
            flags: flags.into(),
            error: error.into(),
        };
        zerocopy::transmute!(raw)
    }

    /// Gives these bytes a meaning. Reserved flags are ignored.
    ///
    /// # Errors
    /// The type or the size is impossible.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Header, Malformed> {
        let raw: RawHeader = zerocopy::transmute!(bytes);
        let flags = raw.flags.get();
        let kind = match flags & TYPE_MASK {
            0 => Kind::Command { no_reply: flags & NO_REPLY != 0 },
            TYPE_REPLY if flags & ERROR != 0 => Kind::Refusal(raw.error.get()),
            TYPE_REPLY => Kind::Reply,
            other => return Err(Malformed::Type(other)),
        };
        let size = raw.size.get();
        if !(HEADER..=MAX_MESSAGE).contains(&(size as usize)) {
            return Err(Malformed::Size { size });
        }
        Ok(Header { id: raw.id.get(), command: Command(raw.command.get()), size, kind })
    }

    /// Bytes behind the header.
    pub fn payload(self) -> usize {
        (self.size as usize).saturating_sub(HEADER)
    }
}

/// The fixed part `T` at the start of a payload, and what follows it.
///
/// # Errors
/// The payload is too short.
pub fn prefix<T: FromBytes + KnownLayout + Immutable>(
    command: Command,
    payload: &[u8],
) -> Result<(T, &[u8]), Malformed> {
    T::read_from_prefix(payload).map_err(|_| Malformed::Length {
        command,
        have: payload.len(),
        want: size_of::<T>(),
    })
}

/// A payload that is nothing but `T`.
///
/// # Errors
/// The payload is shorter or longer.
pub fn exactly<T: FromBytes + KnownLayout + Immutable>(
    command: Command,
    payload: &[u8],
) -> Result<T, Malformed> {
    let (value, rest) = prefix(command, payload)?;
    length(command, payload, payload.len() - rest.len())?;
    Ok(value)
}

/// Checks that a payload is as long as it must be.
fn length(command: Command, payload: &[u8], want: usize) -> Result<(), Malformed> {
    let have = payload.len();
    if have == want { Ok(()) } else { Err(Malformed::Length { command, have, want }) }
}

/// `U64` and `U32` under short names for the bodies.
type Word = U32;
type Long = U64;
