//! The end that offers a device: any [`Device`], with a description of its regions, on a Unix socket.
//!
//! One client at a time; the next one waits in the socket's queue. A client that sends nonsense, or
//! stops in the middle of a message, loses its connection and nothing else happens: the device keeps
//! its state, as the protocol wants. Region number, rights and bounds are checked before the device
//! is called.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use trapline_io::Device;

use super::channel::ChannelError;
use super::wire::{IrqFlags, MAX_REGIONS};

mod interrupts;
mod session;
mod socket;

pub use interrupts::Interrupts;
use session::{End, Session};
pub use socket::Stop;
use socket::{Listener, Shared};

/// How long a client may take for the rest of a message, and to take a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Broken connections that are logged; a client may connect as often as it likes.
const LOGGED: u32 = 16;

/// Why a device cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody answers there.
    #[error("another server answers at {0}")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is no socket")]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("cannot listen at {path}")]
    Listen {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The set-up of the server itself failed.
    #[error("cannot set up the server")]
    Setup(#[source] std::io::Error),
    /// The description is of no device.
    #[error("a device has at most {MAX_REGIONS} regions, not {0}")]
    TooManyRegions(usize),
}

/// Memory of a region that clients may map.
#[derive(Clone, Debug)]
pub struct Memory {
    /// A memfd with `F_SEAL_SHRINK`, not of huge pages; a client of ours maps no other.
    pub file: Arc<OwnedFd>,
    /// Where in the file the region starts.
    pub offset: u64,
    /// Offset and length of the parts of the region that may be mapped; `None`: all of it.
    pub areas: Option<Vec<(u64, u64)>>,
}

/// A region as clients are told of it.
#[derive(Clone, Debug, Default)]
pub struct RegionDescription {
    /// Bytes; zero where there is no such region.
    pub size: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// What may be mapped.
    pub memory: Option<Memory>,
}

impl RegionDescription {
    /// A region that is read and written, never mapped.
    pub fn registers(size: u64) -> RegionDescription {
        RegionDescription { size, readable: true, writable: true, memory: None }
    }

    /// A region that is only read.
    pub fn read_only(size: u64) -> RegionDescription {
        RegionDescription { size, readable: true, writable: false, memory: None }
    }

    /// A region that is read, written, and may be mapped.
    pub fn memory(size: u64, memory: Memory) -> RegionDescription {
        RegionDescription { size, readable: true, writable: true, memory: Some(memory) }
    }
}

/// An interrupt type as clients are told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct IrqType {
    /// What it can do.
    pub flags: IrqFlags,
    /// How many interrupts.
    pub count: u32,
}

/// What clients are told of a device. A PCI function has VFIO's numbers: regions 0 to 5 BARs, 6 ROM,
/// 7 configuration space, 8 legacy VGA; interrupt types 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// The regions by number.
    pub regions: Vec<RegionDescription>,
    /// The interrupt types by number.
    pub irqs: Vec<IrqType>,
    /// Whether clients may reset the device.
    pub resettable: bool,
}

/// A device's place on a socket.
#[derive(Debug)]
pub struct Server {
    listener: Option<Listener>,
    shared: Arc<Shared>,
    description: Description,
    interrupts: Interrupts,
}

impl Server {
    /// Listens at `path`. A socket there that nobody answers is replaced; it is removed again when
    /// the server is dropped.
    ///
    /// # Errors
    /// Somebody answers there, it is no socket, or the system refuses.
    pub fn bind(path: &Path, description: Description) -> Result<Server, Error> {
        let mut server = Server::unbound(description)?;
        server.listener = Some(Listener::bind(path)?);
        Ok(server)
    }

    /// A server without a socket of its own, for [`Server::serve`].
    ///
    /// # Errors
    /// Too many regions, or out of descriptors.
    pub fn unbound(description: Description) -> Result<Server, Error> {
        if description.regions.len() > MAX_REGIONS {
            return Err(Error::TooManyRegions(description.regions.len()));
        }
        let shared = Arc::new(Shared::new().map_err(Error::Setup)?);
        let interrupts = Interrupts::new(&description.irqs);
        Ok(Server { listener: None, shared, description, interrupts })
    }

    /// Ends [`Server::run`] and [`Server::serve`], from any thread.
    pub fn stop_handle(&self) -> Stop {
        Stop(Arc::clone(&self.shared))
    }

    /// Where the device's interrupts go; for the device.
    pub fn interrupts(&self) -> Interrupts {
        self.interrupts.clone()
    }

    /// Serves one client after the other until it is stopped.
    ///
    /// # Errors
    /// The listening socket failed.
    pub fn run(&self, device: &mut dyn Device) -> Result<(), Error> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let mut logged = 0;
        while let Some(socket) = listener.accept(&self.shared)? {
            let Err(broken) = self.serve(socket, device) else { continue };
            if logged < LOGGED {
                logged += 1;
                let reason: &dyn std::error::Error = &broken;
                let detail = reason.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!("a vfio-user client lost its connection: {broken}: {detail}");
            }
        }
        Ok(())
    }

    /// Serves one connected client until it goes, or the server is stopped.
    ///
    /// # Errors
    /// The client broke the protocol or the connection.
    pub fn serve(&self, socket: UnixStream, device: &mut dyn Device) -> Result<(), Broken> {
        let Some(_current) = self.shared.enter(&socket) else { return Ok(()) };
        let mut session = Session::new(socket, &self.description, &self.interrupts, device)
            .map_err(|source| Broken(ChannelError::Socket(errno(&source))))?;
        let End(reason) = session.run();
        self.interrupts.forget();
        match reason {
            ChannelError::Closed => Ok(()),
            reason => Err(Broken(reason)),
        }
    }
}

fn errno(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}

/// Why a connection was ended from this side.
#[derive(Debug, thiserror::Error)]
#[error("connection ended")]
pub struct Broken(#[source] ChannelError);

impl Broken {
    /// What the client did, for a person.
    pub fn reason(&self) -> String {
        match &self.0 {
            ChannelError::Malformed(bad) => bad.to_string(),
            other => other.to_string(),
        }
    }
}
