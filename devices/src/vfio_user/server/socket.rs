//! The socket in the file system, and how a server is stopped.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::Error;

/// What a server and whoever stops it share.
#[derive(Debug)]
pub(super) struct Shared {
    stopping: AtomicBool,
    bell: OwnedFd,
    /// The connection being served, to be shut down.
    current: Mutex<Option<UnixStream>>,
}

impl Shared {
    pub fn new() -> std::io::Result<Shared> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Shared { stopping: AtomicBool::new(false), bell, current: Mutex::new(None) })
    }

    /// Makes `socket` the connection to be shut down by a stop; `None` once stopped, or where the
    /// socket could not be duplicated.
    pub fn enter(&self, socket: &UnixStream) -> Option<Current<'_>> {
        let mut current = self.current.lock();
        if self.stopping.load(Ordering::SeqCst) {
            return None;
        }
        *current = Some(socket.try_clone().ok()?);
        Some(Current(self))
    }
}

/// While it lives, a stop shuts the connection down.
pub(super) struct Current<'a>(&'a Shared);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        *self.0.current.lock() = None;
    }
}

/// Ends a server. Clones do the same.
#[derive(Clone, Debug)]
pub struct Stop(pub(super) Arc<Shared>);

impl Stop {
    /// Ends the server: its client loses the connection, its calls return. Does not wait for that.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
        if let Some(socket) = &*self.0.current.lock() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A listening socket with a name.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the name, so that nobody else's is removed.
    identity: Option<(u64, u64)>,
}

impl Listener {
    pub fn bind(path: &Path) -> Result<Listener, Error> {
        let failed = |source| Error::Listen { path: path.to_owned(), source };
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Listener { socket, path: path.to_owned(), identity: identity(path) })
    }

    /// The next client; `None` when the server is stopped.
    pub fn accept(&self, shared: &Shared) -> Result<Option<UnixStream>, Error> {
        let mut pause = None;
        loop {
            if shared.stopping.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let bell = PollFd::new(&shared.bell, PollFlags::IN);
            let waited = match &pause {
                None => poll(&mut [PollFd::new(&self.socket, PollFlags::IN), bell], None),
                Some(pause) => poll(&mut [bell], Some(pause)),
            };
            match waited {
                Ok(_) | Err(Errno::INTR) => pause = None,
                Err(errno) => return Err(self.failed(errno.into())),
            }
            match self.socket.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false).map_err(|error| self.failed(error))?;
                    return Ok(Some(socket));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                // Out of descriptors or memory: that may pass, and must not turn into a busy loop.
                Err(_) => pause = Some(Timespec { tv_sec: 0, tv_nsec: 100_000_000 }),
            }
        }
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Listen { path: self.path.clone(), source }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Removes a socket that a server left behind.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        _ => Err(Error::InUse(path.to_owned())),
    }
}
