//! The end that drives a device.
//!
//! One request is under way at a time, and its owner reads the socket until the reply is there,
//! serving the server's own requests that it meets. A request that is not answered by its deadline,
//! an end of the connection, and a message that is none make the device *dead*: it is reported once,
//! and everything asked of it after that fails at once.
//!
//! Writes are acknowledged: when a write returns, the device has seen it. Where the function's owner allows
//! it ([`Backend::post`](crate::assigned::Backend::post)) writes to BARs and legacy VGA are only sent. The
//! server takes messages in their order, so whatever it answers next comes behind them; the room of the
//! socket is the bound on how many are under way.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vm_memory::GuestMemoryMmap;

use super::channel::{Channel, ChannelError, Wait};
use super::wire::{
    Capabilities, Command, DeviceFlags, DeviceInfo, Header, IrqFlags, IrqInfo, IrqSet, IrqSetFlags, Kind,
    MAJOR, MAX_FDS, MAX_REGIONS, MINOR, Malformed, RegionAccess, Request, Version, exactly, prefix,
};
use crate::assigned::backend::{Irqs, RegionInfo};
use crate::host::{Event, Events};

mod access;
mod dma;
mod irq;
mod region;

/// How many messages of the server's own are served in one [`Client::attend`].
const ATTENDED: u32 = 64;

/// How long a server may take for an answer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Between two tries to connect to a server whose queue of clients is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// Why a device cannot be used, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the socket.
    #[error("cannot connect to the vfio-user server at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The socket could not be set up.
    #[error("cannot set up the vfio-user socket")]
    Setup(#[source] std::io::Error),
    /// The server speaks another version.
    #[error("the server speaks vfio-user {major}.{minor}, not {MAJOR}.{MINOR} or an earlier minor version")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// It is no PCI function.
    #[error("the server offers something else than a PCI device")]
    NotPci,
    /// The connection is of no use any more.
    #[error("{command:?}: connection lost")]
    Lost {
        /// What was asked.
        command: Command,
        /// What happened.
        #[source]
        source: ChannelError,
    },
    /// The server did not carry it out.
    #[error("the server refused {command:?} (errno {errno})")]
    Refused {
        /// What was asked.
        command: Command,
        /// The server's reason; zero if it gave none.
        errno: u32,
    },
    /// More was asked than the protocol or the server can carry.
    #[error("{0:?} has more data or descriptors than the server takes")]
    TooMuch(Command),
    /// The connection was lost before.
    #[error("the device is dead")]
    Dead,
}

/// How to use a device.
#[derive(Clone)]
pub struct Settings {
    /// What the device is called in messages; the socket's path if empty.
    pub name: String,
    /// How long the server may take for one answer; [`DEADLINE`] unless a test wants it shorter.
    pub deadline: Duration,
    /// Who is told when the device dies.
    pub events: Option<Arc<dyn Events>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { name: String::new(), deadline: DEADLINE, events: None }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A device behind a vfio-user server.
pub struct Client {
    channel: Channel,
    /// An epoll instance that watches the socket for whoever holds [`Client::attention`].
    watch: OwnedFd,
    settings: Settings,
    next_id: u16,
    dead: bool,
    /// Whether the device was complete once: until then an error is its constructor's to report.
    ready: bool,
    peer: Capabilities,
    flags: DeviceFlags,
    irq_types: u32,
    irqs: Irqs,
    /// INTx masks itself when it fires, and is unmasked by an eventfd.
    automasked: bool,
    /// INTx is connected. Its end goes past the socket, so what acknowledges it must be there first.
    by_line: bool,
    /// Writes to BARs and legacy VGA need no reply.
    posting: bool,
    /// Writes that were sent so, and nothing has been answered since.
    posted: u32,
    regions: Vec<RegionInfo>,
    memory: Option<GuestMemoryMmap>,
    windows: Vec<dma::Window>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.settings.name)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the server at `path` and asks it for all its regions. Waits as long as
    /// `settings.deadline` for each answer.
    ///
    /// # Errors
    /// No server, another protocol, or a refused question.
    pub fn connect(path: &Path, mut settings: Settings) -> Result<Client, Error> {
        let socket = connect(path, settings.deadline)
            .map_err(|errno| Error::Connect { path: path.to_owned(), source: errno.into() })?;
        if settings.name.is_empty() {
            settings.name = path.display().to_string();
        }
        Client::over(socket, settings)
    }

    /// The same over a connected socket.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn over(socket: UnixStream, settings: Settings) -> Result<Client, Error> {
        let channel = Channel::client(socket, settings.deadline).map_err(Error::Setup)?;
        let watch = watch(&channel).map_err(|errno| Error::Setup(errno.into()))?;
        let mut client = Client {
            channel,
            watch,
            settings,
            next_id: 0,
            dead: false,
            ready: false,
            peer: Capabilities::default(),
            flags: DeviceFlags::new(),
            irq_types: 0,
            irqs: Irqs::default(),
            automasked: false,
            by_line: false,
            posting: false,
            posted: 0,
            regions: Vec::new(),
            memory: None,
            windows: Vec::new(),
            scratch: Vec::new(),
        };
        client.negotiate()?;
        client.learn_device()?;
        client.ready = true;
        Ok(client)
    }

    /// How many interrupt types the device has.
    pub fn irq_types(&self) -> u32 {
        self.irq_types
    }

    /// Whether the device can be reset.
    pub fn resettable(&self) -> bool {
        self.flags.reset()
    }

    /// The regions by number.
    pub fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }

    /// Whether the connection is lost.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// A descriptor to be polled, never read: readable means [`Client::attend`]. It tells of the end of
    /// the connection, once, and of messages only while there are DMA windows that the server may ask
    /// for: so a reply that a vCPU waits for wakes nobody else.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn attention(&self) -> std::io::Result<OwnedFd> {
        self.watch.try_clone()
    }

    /// Serves what the server sent on its own, and notices its end. Waits only for room to answer,
    /// and no longer than the deadline.
    pub fn attend(&mut self) {
        // A server that sent much before its end must not keep the token: the descriptor stays
        // readable, so the rest is attended to next.
        for _ in 0..ATTENDED {
            if self.dead {
                return;
            }
            match self.channel.receive(Wait::Poll) {
                Ok(None) => return,
                Ok(Some(header)) if self.is_unasked(header) => {}
                Ok(Some(header)) => {
                    if let Err(source) = self.serve(header) {
                        self.die(header.command, &source);
                    }
                }
                Err(source) => self.die(Command(0), &source),
            }
        }
    }

    /// Resets the device.
    ///
    /// # Errors
    /// Refused, or lost.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.call(&Request::Reset, &[])
    }

    /// One interrupt type.
    ///
    /// # Errors
    /// Refused, or lost.
    pub fn irq_info(&mut self, index: u32) -> Result<(IrqFlags, u32), Error> {
        let info = IrqInfo { argsz: 16.into(), index: index.into(), ..IrqInfo::default() };
        self.call(&Request::IrqInfo(info), &[])?;
        let reply: IrqInfo = self.reply(Command::IRQ_INFO)?;
        Ok((IrqFlags::from_bits(reply.flags.get()), reply.count.get()))
    }

    /// Does to `count` interrupts of type `index`, from `start` on, what `flags` say. With eventfds
    /// their number counts; the server's limit on descriptors is kept by several messages.
    ///
    /// # Errors
    /// Refused, or lost; after a refusal some of the eventfds may be in place.
    pub fn set_irqs(
        &mut self,
        index: u32,
        flags: IrqSetFlags,
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let set = IrqSet {
            argsz: 20.into(),
            flags: flags.into_bits().into(),
            index: index.into(),
            start: start.into(),
            count: count.into(),
        };
        if fds.is_empty() {
            return self.call(&Request::SetIrqs(set, &[]), &[]);
        }
        let most = usize::try_from(self.peer.max_msg_fds).unwrap_or(MAX_FDS).min(MAX_FDS);
        if most == 0 {
            return Err(Error::TooMuch(Command::SET_IRQS));
        }
        let mut start = start;
        for fds in fds.chunks(most) {
            let count = u32::try_from(fds.len()).unwrap_or(0);
            let set = IrqSet { start: start.into(), count: count.into(), ..set };
            self.call(&Request::SetIrqs(set, &[]), fds)?;
            start = start.wrapping_add(count);
        }
        Ok(())
    }

    fn negotiate(&mut self) -> Result<(), Error> {
        self.call(&Request::Version(Version::ours()), &[])?;
        let version = match Version::decode(self.channel.payload()) {
            Ok(version) => version,
            Err(bad) => return Err(self.lost(Command::VERSION, bad.into())),
        };
        let Version { major, minor, capabilities } = version;
        if major != MAJOR || minor > MINOR {
            return Err(Error::Version { major, minor });
        }
        self.peer = capabilities;
        Ok(())
    }

    fn learn_device(&mut self) -> Result<(), Error> {
        let info = DeviceInfo { argsz: 16.into(), ..DeviceInfo::default() };
        self.call(&Request::DeviceInfo(info), &[])?;
        let info: DeviceInfo = self.reply(Command::DEVICE_INFO)?;
        self.flags = DeviceFlags::from_bits(info.flags.get());
        self.irq_types = info.irqs.get();
        if !self.flags.pci() {
            return Err(Error::NotPci);
        }
        let regions = info.regions.get();
        if regions as usize > MAX_REGIONS {
            let bad = Malformed::Value {
                command: Command::DEVICE_INFO,
                what: "number of regions",
                value: regions.into(),
            };
            return Err(self.lost(Command::DEVICE_INFO, bad.into()));
        }
        for index in 0..regions {
            let region = self.learn_region(index)?;
            self.regions.push(region);
        }
        self.learn_irqs()
    }

    /// Sends a request and waits for its reply, whose payload the channel then holds.
    fn call(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let command = request.command();
        if self.dead {
            return Err(Error::Dead);
        }
        match self.exchange(request, fds) {
            Ok(Kind::Refusal(errno)) => Err(Error::Refused { command, errno }),
            Ok(_) => Ok(()),
            Err(source) => Err(self.lost(command, source)),
        }
    }

    /// Sends a request that nobody answers.
    fn tell(&mut self, request: &Request<'_>) -> Result<(), Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.posted = self.posted.saturating_add(1);
        self.send(id, request, true, &[]).map_err(|source| self.lost(request.command(), source))
    }

    fn send(
        &self,
        id: u16,
        request: &Request<'_>,
        no_reply: bool,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        request.encode(|fixed, data| {
            let kind = Kind::Command { no_reply };
            let header = Header::new(id, request.command(), kind, fixed.len() + data.len()).encode();
            self.channel.send([&header, fixed, data], fds)
        })
    }

    /// Whether this is the answer to a write that asked for none: there are servers that give it.
    fn is_unasked(&mut self, header: Header) -> bool {
        let answers = !matches!(header.kind, Kind::Command { .. }) && header.command == Command::REGION_WRITE;
        let unasked = answers && self.posted > 0;
        self.posted -= u32::from(unasked);
        unasked
    }

    fn exchange(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<Kind, ChannelError> {
        let command = request.command();
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let start = Instant::now();
        self.send(id, request, false, fds)?;
        loop {
            let Some(header) = self.channel.receive(Wait::Reply(start))? else {
                return Err(ChannelError::Timeout);
            };
            match header.kind {
                Kind::Command { .. } => self.serve(header)?,
                kind if header.id == id && header.command == command => {
                    // All that was sent before has been carried out.
                    self.posted = 0;
                    return Ok(kind);
                }
                _ if self.is_unasked(header) => {}
                _ => return Err(Malformed::Unexpected(header.command).into()),
            }
            // Many small requests of the server may come first, but not for ever.
            if start.elapsed() > self.settings.deadline {
                return Err(ChannelError::Timeout);
            }
        }
    }

    /// The reply as a structure.
    fn reply<T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        &mut self,
        command: Command,
    ) -> Result<T, Error> {
        exactly(command, self.channel.payload()).map_err(|bad| self.lost(command, bad.into()))
    }

    /// The reply of a region access, checked against what was asked.
    fn access_reply(&mut self, command: Command, asked: &RegionAccess, data: usize) -> Result<&[u8], Error> {
        let bad = match prefix::<RegionAccess>(command, self.channel.payload()) {
            Ok((access, rest)) if access == *asked && rest.len() == data => None,
            Ok((_, rest)) => Some(Malformed::Length { command, have: rest.len(), want: data }),
            Err(bad) => Some(bad),
        };
        if let Some(bad) = bad {
            return Err(self.lost(command, bad.into()));
        }
        Ok(self.channel.payload().get(size_of::<RegionAccess>()..).unwrap_or_default())
    }

    fn lost(&mut self, command: Command, source: ChannelError) -> Error {
        self.die(command, &source);
        Error::Lost { command, source }
    }

    fn die(&mut self, command: Command, reason: &ChannelError) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        // The server must not take what it still has for new, and learns that it is over.
        let _ = self.channel.socket().shutdown(std::net::Shutdown::Both);
        // Nothing is left to attend to; a watcher would find the socket readable for ever.
        let _ = epoll::delete(&self.watch, self.channel.socket());
        if !self.ready {
            return;
        }
        let name = &self.settings.name;
        let text = match reason {
            ChannelError::Timeout => {
                format!("{name}: no answer to {command:?} within {:?}", self.settings.deadline)
            }
            ChannelError::Closed => format!("{name}: the vfio-user server closed the connection"),
            ChannelError::Malformed(bad) => format!("{name}: the vfio-user server sent nonsense: {bad}"),
            ChannelError::Socket(errno) => format!("{name}: the vfio-user socket failed: {errno}"),
        };
        match &self.settings.events {
            Some(events) => events.report(Event::Failed(text)),
            None => tracing::error!("{text}"),
        }
    }
}

fn watch(channel: &Channel) -> rustix::io::Result<OwnedFd> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&watch, channel.socket(), epoll::EventData::new_u64(0), epoll::EventFlags::RDHUP)?;
    Ok(watch)
}

/// Connects; waits no longer than `patience` for a server whose queue of clients is full.
fn connect(path: &Path, patience: Duration) -> rustix::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let start = Instant::now();
    loop {
        match net::connect(&socket, &address) {
            Err(Errno::AGAIN) if start.elapsed() < patience => std::thread::sleep(QUEUE_PAUSE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(()) => break,
        }
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixStream::from(socket))
}
