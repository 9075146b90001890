//! The task that does the disk's work on a worker's io_uring.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};
use tokio_uring::fs::File;
use trapline_io::ring;
use trapline_io::worker::Task;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};

use super::super::queue::{Chain, Generation, NotRam, SharedQueue, Stale};
use super::Disk;
use super::request::{HEADER, Work};

/// How many requests are under way at once.
const REQUESTS: usize = 16;

/// Bytes that a request moves at a time, through a buffer of its own.
const BUFFER: usize = 128 << 10;

/// How many requests are begun before others of the thread get their turn.
const BURST: usize = 64;

/// The task for `disk`.
pub(super) fn task(disk: Disk, queue: Arc<SharedQueue>) -> Task {
    Box::new(move || {
        let server = Rc::new(Server::new(disk, queue));
        Box::pin(async move {
            let _buffers = KeepBuffers(Rc::clone(&server));
            if let Some(doorbell) = server.queue.doorbell() {
                tokio_uring::spawn(listen(Arc::clone(doorbell), Arc::clone(&server.queue)));
            }
            server.serve().await;
        })
    })
}

/// How often the rings are looked at where the doorbell cannot be watched.
const LOOK: Duration = Duration::from_millis(10);

/// Kicks the queue whenever the doorbell is signalled.
async fn listen(doorbell: Arc<OwnedFd>, queue: Arc<SharedQueue>) {
    let mut told = false;
    loop {
        if let Err(error) = ring::signalled(&doorbell).await {
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "a virtio queue looks for work now and then: its eventfd cannot be watched");
            }
            tokio::time::sleep(LOOK).await;
        }
        queue.kick();
    }
}

/// What all requests share.
struct Server {
    file: File,
    queue: Arc<SharedQueue>,
    sectors: u64,
    read_only: bool,
    identity: [u8; 20],
    name: String,
    buffers: FixedBufPool<Vec<u8>>,
    /// How many requests are under way.
    running: Cell<usize>,
    /// A flush has failed: what was written before may be lost.
    lost: Cell<bool>,
    /// An error was put into the log; one is enough.
    told: Cell<bool>,
}

/// Why a request failed.
enum Failure {
    /// The disk, or the request, is at fault: the guest gets an I/O error.
    Io(io::Error),
    /// The device does not know such a request.
    Unknown,
    /// Nobody waits for the answer.
    Stale,
}

impl From<Stale> for Failure {
    fn from(Stale: Stale) -> Failure {
        Failure::Stale
    }
}

impl From<NotRam> for Failure {
    fn from(NotRam: NotRam) -> Failure {
        Failure::Io(io::Error::other("a buffer is not in RAM"))
    }
}

impl Server {
    fn new(disk: Disk, queue: Arc<SharedQueue>) -> Server {
        Server {
            sectors: disk.sectors(),
            read_only: disk.is_read_only(),
            identity: disk.identity(),
            name: disk.path.display().to_string(),
            file: File::from_std(disk.file),
            queue,
            // Zeroed memory that costs nothing until it is used.
            buffers: FixedBufPool::new((0..REQUESTS).map(|_| vec![0; BUFFER])),
            running: Cell::new(0),
            lost: Cell::new(false),
            told: Cell::new(false),
        }
    }

    /// Begins requests as they come. Never ends by itself.
    async fn serve(self: &Rc<Self>) {
        let mut generation = self.queue.generation();
        loop {
            if self.running.get() == 0 {
                // What came before the last reset has ended.
                generation = self.queue.generation();
            }
            for begun in 0..=BURST {
                if begun == BURST {
                    self.queue.look_again();
                    tokio::task::yield_now().await;
                    break;
                }
                if self.running.get() >= REQUESTS {
                    break;
                }
                let Some(chain) = self.queue.pop(generation) else { break };
                self.running.set(self.running.get() + 1);
                let server = Rc::clone(self);
                tokio_uring::spawn(async move {
                    server.request(generation, chain).await;
                    server.running.set(server.running.get() - 1);
                    server.queue.look_again();
                });
            }
            self.queue.kicked().await;
        }
    }

    async fn request(&self, generation: Generation, chain: Chain) {
        let work = self.queue.with_memory(generation, |memory| Work::of(&chain, memory, self.sectors));
        let work = match work {
            Ok(Ok(work)) => work,
            Ok(Err(_)) => return self.queue.break_down(generation),
            Err(Stale) => return,
        };
        let (status, read) = match self.carry_out(generation, &chain, work).await {
            Ok(read) => (VIRTIO_BLK_S_OK, read),
            Err(Failure::Io(error)) => {
                self.tell(work, &error);
                (VIRTIO_BLK_S_IOERR, 0)
            }
            Err(Failure::Unknown) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Failure::Stale) => return,
        };
        self.answer(generation, &chain, status, read);
    }

    /// Writes the status behind the data and gives the chain back.
    fn answer(&self, generation: Generation, chain: &Chain, status: u32, read: u64) {
        let status = [status.to_le_bytes()[0]];
        let behind_data = chain.writable.len().saturating_sub(1);
        let written =
            self.queue.with_memory(generation, |memory| chain.writable.write(memory, behind_data, &status));
        match written {
            Ok(Ok(())) => {
                let written = u32::try_from(read + 1).unwrap_or(u32::MAX);
                self.queue.complete(generation, chain.head, written);
            }
            Ok(Err(NotRam)) => self.queue.break_down(generation),
            Err(Stale) => {}
        }
    }

    /// Gives how many bytes were put into the chain.
    async fn carry_out(&self, generation: Generation, chain: &Chain, work: Work) -> Result<u64, Failure> {
        match work {
            Work::Read { offset, len } => self.read(generation, chain, offset, len).await,
            Work::Write { offset, len } => self.write(generation, chain, offset, len).await,
            Work::Flush => self.flush().await,
            Work::Identify => {
                let room = chain.writable.len().saturating_sub(1);
                let len = usize::try_from(room).unwrap_or(usize::MAX).min(self.identity.len());
                let identity = self.identity.get(..len).unwrap_or_default();
                self.queue.with_memory(generation, |memory| chain.writable.write(memory, 0, identity))??;
                Ok(len as u64)
            }
            Work::Refused => Err(Failure::Io(io::ErrorKind::InvalidInput.into())),
            Work::Unknown => Err(Failure::Unknown),
        }
    }

    async fn read(
        &self,
        generation: Generation,
        chain: &Chain,
        offset: u64,
        len: u64,
    ) -> Result<u64, Failure> {
        let mut buffer = self.buffers.next(BUFFER).await;
        let mut done = 0;
        while done < len {
            let step = step(len - done);
            buffer = self.read_exactly(buffer, step, offset + done).await?;
            let bytes = buffer.get(..step).ok_or(NotRam)?;
            self.queue.with_memory(generation, |memory| chain.writable.write(memory, done, bytes))??;
            done += step as u64;
        }
        Ok(len)
    }

    async fn write(
        &self,
        generation: Generation,
        chain: &Chain,
        offset: u64,
        len: u64,
    ) -> Result<u64, Failure> {
        if self.read_only {
            return Err(Failure::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        self.check_kept()?;
        let mut buffer = self.buffers.next(BUFFER).await;
        let mut done = 0;
        while done < len {
            let step = step(len - done);
            let bytes = buffer.get_mut(..step).ok_or(NotRam)?;
            self.queue
                .with_memory(generation, |memory| chain.readable.read(memory, HEADER + done, bytes))??;
            buffer = self.write_exactly(buffer, step, offset + done).await?;
            done += step as u64;
        }
        if !self.queue.has_feature(VIRTIO_BLK_F_FLUSH) {
            self.flush().await?;
        }
        Ok(0)
    }

    /// All writes that were answered before are on the medium when this returns.
    async fn flush(&self) -> Result<u64, Failure> {
        self.check_kept()?;
        if self.read_only {
            return Ok(0);
        }
        loop {
            match self.file.sync_data().await {
                Ok(()) => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lost.set(true);
                    return Err(Failure::Io(error));
                }
            }
        }
    }

    fn check_kept(&self) -> Result<(), Failure> {
        if self.lost.get() {
            return Err(Failure::Io(io::Error::other("an earlier flush failed, writes may be lost")));
        }
        Ok(())
    }

    async fn read_exactly(&self, buffer: FixedBuf, len: usize, offset: u64) -> Result<FixedBuf, Failure> {
        let mut buffer = buffer;
        let mut done = 0;
        while done < len {
            let (result, slice) = self.file.read_at(buffer.slice(done..len), offset + done as u64).await;
            buffer = slice.into_inner();
            done += progress(result, io::ErrorKind::UnexpectedEof)?;
        }
        Ok(buffer)
    }

    async fn write_exactly(&self, buffer: FixedBuf, len: usize, offset: u64) -> Result<FixedBuf, Failure> {
        let mut buffer = buffer;
        let mut done = 0;
        while done < len {
            let write = self.file.write_at(buffer.slice(done..len), offset + done as u64);
            let (result, slice) = write.submit().await;
            buffer = slice.into_inner();
            done += progress(result, io::ErrorKind::WriteZero)?;
        }
        Ok(buffer)
    }

    /// One message for a disk, however many errors.
    fn tell(&self, work: Work, error: &io::Error) {
        if work != Work::Refused && !self.told.replace(true) {
            tracing::error!(disk = self.name, ?work, %error, "a disk request failed; the guest was told");
        }
    }
}

/// The next piece of `left` bytes.
fn step(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER)
}

/// How far a transfer came; nothing at all is an error of its own.
fn progress(result: io::Result<usize>, nothing: io::ErrorKind) -> Result<usize, Failure> {
    match result {
        Ok(0) => Err(Failure::Io(nothing.into())),
        Ok(moved) => Ok(moved),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(Failure::Io(error)),
    }
}

/// Keeps the buffers when the worker drops the task while requests are under way: the kernel may then
/// still read or write them, and tokio-uring 0.5 lets go of what belongs to a dropped operation
/// before the kernel has. They stay allocated for the life of the process: a stop under load, once.
struct KeepBuffers(Rc<Server>);

impl Drop for KeepBuffers {
    fn drop(&mut self) {
        if self.0.running.get() > 0 {
            std::mem::forget(self.0.buffers.clone());
        }
    }
}
