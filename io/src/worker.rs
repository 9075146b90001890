//! The thread that serves posted writes and what else is asynchronous.
//!
//! A worker runs one tokio-uring runtime. On it live the *rounds* over the queues that it serves
//! ([`crate::rounds`]), a watcher for each descriptor that a device wants attended, and the tasks it
//! was given: disks, timers, sockets. A round takes a token only if it is free, so a vCPU in the middle
//! of a slow access holds up neither the other endpoints nor the tasks; the device itself may of course
//! take its time on this thread, which is why a function with legacy VGA gets a worker of its own.
//!
//! Posted writes that follow each other to a region that is a file ([`Device::file`]) go to the kernel
//! as one batch of linked entries, where [`ring::probe`] saw at the start that the kernel carries
//! them out in order and on the spot; else each is a plain `pwrite`. The token is kept while a batch is
//! under way. A worker with tasks of its own makes no batches: a task that waited for that token
//! would keep the batch from being finished.
//!
//! After a burst the worker looks out for more for 50 microseconds before it sleeps, so that a stream of
//! posted writes, one an exit, does not cost a wake-up each.
//!
//! [`Device::file`]: crate::Device::file

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Region;
use crate::access::Op;
use crate::doorbell::Doorbell;
use crate::endpoint::{Endpoint, Owned};
use crate::file::lanes;
use crate::queue::Entry;
use crate::ring::{self, Carriage, Run, Write};
use crate::rounds::Rounds;

/// How long a worker looks out for more work after a burst.
const LINGER: Duration = Duration::from_micros(50);

/// How long the tasks and watchers may wait while the queues never run dry.
const TURN: Duration = Duration::from_micros(200);

/// How long a watcher waits for a token that somebody else holds.
const RETRY: Duration = Duration::from_millis(1);

/// A future that a worker drives on its tokio-uring runtime until it ends or the worker stops. It is
/// made on the worker's thread, so it need not be `Send`. It must not block the thread.
pub type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What a worker's thread does first, when it has all that it opens once.
pub type Prelude = Box<dyn FnOnce() + Send>;

/// An endpoint that a worker serves.
#[derive(Debug)]
pub struct Served {
    /// Whose queue it drains when the doorbell rings.
    pub endpoint: Arc<Endpoint>,
    /// A descriptor to watch: readable means [`crate::Device::attend`] is called. It is polled, never
    /// read. When its other end is gone the device is called once more and the watch ends.
    pub attention: Option<OwnedFd>,
}

/// A worker thread. Dropping it stops it.
#[derive(Debug)]
pub struct Worker {
    thread: Option<JoinHandle<()>>,
    bell: Arc<Doorbell>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    /// Starts a thread called `name` that serves these endpoints, all rung by `bell`, and drives
    /// these tasks. One worker per bell. Returns when the thread has its ring and serves.
    ///
    /// # Errors
    /// The thread or its ring could not be made.
    pub fn start(
        name: &str,
        bell: Arc<Doorbell>,
        served: Vec<Served>,
        tasks: Vec<Task>,
    ) -> io::Result<Worker> {
        Worker::start_with(name, bell, served, tasks, Box::new(|| ()))
    }

    /// The same, with something that the thread does before it serves: it may give up what it needs no more.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn start_with(
        name: &str,
        bell: Arc<Doorbell>,
        served: Vec<Served>,
        tasks: Vec<Task>,
        prelude: Prelude,
    ) -> io::Result<Worker> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let shift = Shift { bell: Arc::clone(&bell), stopping: Arc::clone(&stopping) };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || shift.run(served, tasks, prelude, &ready))?;
        let worker = Worker { thread: Some(thread), bell, stopping };
        match started.recv() {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the worker thread ended while it started")),
        }
    }

    /// Drains what is queued, drops the tasks and joins the thread. Accesses that are made from then
    /// on are carried out by their callers.
    pub fn stop(self) {}
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// What the thread of a worker knows.
struct Shift {
    bell: Arc<Doorbell>,
    stopping: Arc<AtomicBool>,
}

impl Shift {
    fn run(
        self,
        served: Vec<Served>,
        tasks: Vec<Task>,
        prelude: Prelude,
        ready: &mpsc::Sender<io::Result<()>>,
    ) {
        let prepared = self.prepare(served.iter().map(|served| &served.endpoint), tasks.is_empty());
        let (runtime, batches, rung, linger) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let endpoints = served.iter().map(|served| Arc::clone(&served.endpoint)).collect();
        prelude();
        let rounds = Rounds::begin(Arc::clone(&self.bell), endpoints);
        let _ = ready.send(Ok(()));
        runtime.block_on(async move {
            for Served { endpoint, attention } in served {
                if let Some(fd) = attention {
                    tokio_uring::spawn(watch(endpoint, Arc::new(fd)));
                }
            }
            for task in tasks {
                tokio_uring::spawn(task());
            }
            self.serve(&rounds, &batches, linger, tokio_uring::fs::File::from_std(rung)).await;
            rounds.finish();
        });
    }

    /// All that can fail, and all that asks the system once.
    fn prepare<'a>(
        &self,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
        may_batch: bool,
    ) -> io::Result<(tokio_uring::Runtime, Batches, std::fs::File, Duration)> {
        let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(ring::ENTRIES))?;
        let rung = std::fs::File::from(self.bell.as_fd().try_clone_to_owned()?);
        let batches = if may_batch { Batches::find(endpoints) } else { Batches::default() };
        let many = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Ok((runtime, batches, rung, if many { LINGER } else { Duration::ZERO }))
    }

    async fn serve(&self, rounds: &Rounds, batches: &Batches, linger: Duration, rung: tokio_uring::fs::File) {
        let mut count = vec![0; 8];
        let mut complained = false;
        let mut turn = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            if batches.serve(rounds).await {
                if turn.elapsed() > TURN {
                    // A round trip through the ring lets everything else on this thread run.
                    let _ = tokio_uring::no_op().await;
                    turn = Instant::now();
                }
                look_out(rounds, linger);
            } else if rounds.may_sleep() {
                let (read, buffer) = rung.read_at(count, 0).await;
                count = buffer;
                rounds.woken();
                turn = Instant::now();
                if let Err(error) = read {
                    if !complained {
                        tracing::error!(%error, "a worker cannot wait for its doorbell and looks now and then");
                        complained = true;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let _ = rung.close().await;
    }
}

/// Waits a little for more work, without letting go of the processor.
fn look_out(rounds: &Rounds, linger: Duration) {
    let begun = Instant::now();
    while !rounds.has_work() && begun.elapsed() < linger {
        std::hint::spin_loop();
    }
}

/// Calls the device of `endpoint` whenever `fd` is readable.
async fn watch(endpoint: Arc<Endpoint>, fd: Arc<OwnedFd>) {
    loop {
        let dead = match ring::readable(Arc::clone(&fd)).await {
            Ok(events) => events.is_dead(),
            Err(error) => {
                tracing::error!(%error, endpoint = endpoint.name(), "a device's descriptor cannot be watched");
                true
            }
        };
        while !endpoint.attend() {
            tokio::time::sleep(RETRY).await;
        }
        if dead {
            return;
        }
    }
}

/// The files to which the kernel writes in order within the system call.
#[derive(Default)]
struct Batches {
    files: Vec<Arc<OwnedFd>>,
}

impl Batches {
    /// Probes every file that a region of these endpoints is part of.
    fn find<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> Batches {
        let mut batches = Batches::default();
        let mut seen: Vec<Arc<OwnedFd>> = Vec::new();
        for endpoint in endpoints {
            let files = endpoint.with_device(|device| {
                let regions = (0..=u8::MAX).filter_map(|region| device.file(Region(region)));
                regions.map(|file| Arc::clone(&file.fd)).collect::<Vec<_>>()
            });
            for fd in files {
                if seen.iter().any(|known| Arc::ptr_eq(known, &fd)) {
                    continue;
                }
                match ring::probe(&*fd) {
                    Ok(Carriage::Inline) => batches.files.push(Arc::clone(&fd)),
                    Ok(Carriage::Punted) => {
                        tracing::info!(
                            endpoint = endpoint.name(),
                            "writes go by pwrite: io_uring would punt them"
                        );
                    }
                    Err(error) => {
                        tracing::warn!(%error, endpoint = endpoint.name(), "writes go by pwrite: cannot probe io_uring");
                    }
                }
                seen.push(fd);
            }
        }
        batches
    }

    /// One round over all endpoints; tells whether there was anything to do.
    async fn serve(&self, rounds: &Rounds) -> bool {
        if self.files.is_empty() {
            return rounds.serve();
        }
        let mut busy = false;
        for endpoint in rounds.endpoints() {
            if endpoint.has_work()
                && let Some(owned) = endpoint.try_own()
            {
                busy |= self.drain(owned).await;
            }
        }
        busy
    }

    /// Drains one queue's length: writes to files in batches, what a device merges in runs, everything
    /// else one by one. Of the two kinds at most one is open at a time, so the order stays.
    async fn drain(&self, mut owned: Owned<'_>) -> bool {
        let mut run: Option<Run> = None;
        let mut any = false;
        for _ in 0..owned.capacity() {
            let Some(entry) = owned.pop() else { break };
            any = true;
            if owned.extend(&entry) {
                continue;
            }
            let write = self.as_write(&owned, &entry);
            if write.is_some() {
                owned.note(&entry);
            }
            if let (Some((fd, write)), Some(open)) = (&write, &mut run)
                && Arc::ptr_eq(fd, open.fd())
                && open.push(*write)
            {
                continue;
            }
            finish(run.take(), &owned).await;
            match write {
                Some((fd, write)) => {
                    owned.finish_run();
                    let mut opened = Run::new(fd);
                    opened.push(write);
                    run = Some(opened);
                }
                None => owned.serve(&entry),
            }
        }
        owned.finish_run();
        finish(run, &owned).await;
        any
    }

    /// The entry as a write to a file of ours, if nobody waits for it and it is one.
    fn as_write(&self, owned: &Owned<'_>, entry: &Entry) -> Option<(Arc<OwnedFd>, Write)> {
        let (Op::Write(value), None) = (entry.access.op, entry.waiter) else { return None };
        let file = owned.file(entry.access.region)?;
        let at = file.position(entry.access.offset, entry.access.width)?;
        let fd = self.files.iter().find(|fd| Arc::ptr_eq(fd, &file.fd))?;
        let (bytes, len) = lanes(value, entry.access.width);
        Some((Arc::clone(fd), Write { at, bytes, len }))
    }
}

async fn finish(run: Option<Run>, owned: &Owned<'_>) {
    if let Some(run) = run {
        for _ in 0..run.carry_out().await {
            owned.count_fault();
        }
    }
}
