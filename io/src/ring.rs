//! All that is asked of io_uring beyond what tokio-uring itself offers.
//!
//! tokio-uring 0.5 knows neither polls nor linked entries, but takes any entry of the io-uring crate
//! through `UnsubmittedOneshot`. This is the only file that names either, besides the runtime in
//! [`crate::worker`]: who wants another ring changes this file.
//!
//! # Where the kernel carries a write out
//!
//! A VFIO descriptor has neither `write_iter` nor `poll`. Unless it is `O_NONBLOCK` the kernel hands
//! each request to a pool of threads (io-wq), which costs 6 to 14 times as much and *reorders* the
//! writes of a batch (both seen). With the flag set the write is made within the
//! submitting system call, in the order of submission. Older kernels use the pool regardless.
//! [`probe`] finds out.

// UNSAFETY: an entry of the ring carries raw pointers and a raw descriptor, and the crate cannot
// check that they outlive the request. Each is built here beside the owner that is stored with it.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// How many writes are linked at most: well under the ring's size, so that a run is never cut by a
/// full submission queue, which would end the chain.
pub(crate) const RUN: usize = 64;

/// How many entries a worker's ring holds.
pub(crate) const ENTRIES: u32 = 256;

/// How the kernel carries out a request to a file by way of io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Within the submitting system call: in order, and as cheap as a `pwrite`.
    Inline,
    /// Through a pool of threads, or it could not be told: not to be used.
    Punted,
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// Sets `O_NONBLOCK` on the file and finds out how the kernel writes to it.
///
/// The flag belongs to the open file: every duplicate of the descriptor gets it. VFIO's reads and
/// writes do not look at it. Where it does not help, the file gets its old flags back.
///
/// # Errors
/// The flag cannot be set, or there is no ring to be had.
pub fn probe(fd: impl AsFd) -> io::Result<Carriage> {
    let fd = fd.as_fd();
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    let found = carriage(fd, Way::Write);
    if !matches!(found, Ok(Carriage::Inline)) {
        rustix::fs::fcntl_setfl(fd, flags)?;
    }
    found
}

/// How the kernel carries out transfers to or from this file, its flags being as they are.
///
/// Nothing is transferred: a request for no bytes takes the same decision in the kernel and never
/// reaches the driver. What tells the two apart is the pool itself: it belongs to the thread that
/// submits, and its first worker, a thread of this process called `iou-wrk-` and the submitter's
/// number, is there as soon as a request was handed to it. Looking whether the answer is there at once
/// would not do: on a busy machine the pool may well be done first.
///
/// # Errors
/// There is no ring to be had, or no thread to submit from.
pub fn carriage(fd: impl AsFd, way: Way) -> io::Result<Carriage> {
    let file = types::Fd(fd.as_fd().as_raw_fd());
    std::thread::scope(|scope| {
        let submitter = std::thread::Builder::new().name("ring-probe".into());
        let found = submitter.spawn_scoped(scope, || carriage_from_this_thread(file, way))?;
        found.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    })
}

/// See [`carriage`]; the thread must never have used a ring before.
fn carriage_from_this_thread(file: types::Fd, way: Way) -> io::Result<Carriage> {
    let request = match way {
        Way::Read => opcode::Read::new(file, std::ptr::null_mut(), 0).offset(0).build(),
        Way::Write => opcode::Write::new(file, std::ptr::null(), 0).offset(0).build(),
    };
    let mut ring = IoUring::new(2)?;
    // SAFETY: the entry names no memory (its length is zero), and the caller borrows the descriptor
    // until this thread has ended; the wait below leaves nothing in flight.
    unsafe { ring.submission().push(&request) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().is_some_and(|entry| entry.result() == 0);
    let pool = format!("iou-wrk-{}", rustix::thread::gettid().as_raw_nonzero());
    let pooled = std::fs::read_dir("/proc/self/task").map_or(true, |tasks| {
        tasks.flatten().any(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == pool)
        })
    });
    Ok(if done && !pooled { Carriage::Inline } else { Carriage::Punted })
}

/// Which events a poll saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events(u32);

impl Events {
    /// The other end is gone, or the file was never one to poll: it will be ready for ever.
    pub(crate) fn is_dead(self) -> bool {
        let dead = poll_bits::HUP | poll_bits::ERR | poll_bits::NVAL;
        self.0 & dead != 0
    }
}

/// `poll` bits (`asm-generic/poll.h`).
mod poll_bits {
    pub(super) const IN: u32 = 0x01;
    pub(super) const ERR: u32 = 0x08;
    pub(super) const HUP: u32 = 0x10;
    pub(super) const NVAL: u32 = 0x20;
}

/// Keeps what the kernel works on alive until it is done, and gives its bare answer.
struct Answer<D>(std::marker::PhantomData<D>);

impl<D: 'static> OneshotOutputTransform for Answer<D> {
    type Output = i32;
    type StoredData = D;
    fn transform_oneshot_output(self, _: D, cqe: cqueue::Entry) -> i32 {
        cqe.result()
    }
}

fn submit<D: Unpin + 'static>(owner: D, entry: squeue::Entry) -> tokio_uring::InFlightOneshot<D, Answer<D>> {
    UnsubmittedOneshot::new(owner, Answer(std::marker::PhantomData), entry).submit()
}

/// Waits until `fd` is readable or dead. Only to be called on a tokio-uring runtime.
///
/// # Errors
/// The kernel cannot poll it.
pub(crate) async fn readable(fd: Arc<OwnedFd>) -> io::Result<Events> {
    let raw = types::Fd(fd.as_raw_fd());
    let events = submit(fd, opcode::PollAdd::new(raw, poll_bits::IN).build()).await;
    u32::try_from(events).map(Events).map_err(|_| io::Error::from_raw_os_error(-events))
}

/// Waits until an eventfd that does not block was signalled, and takes its count. Only to be called on
/// a tokio-uring runtime, such as that of a [worker's task](crate::worker::Task); may be dropped at any
/// time.
///
/// # Errors
/// The kernel cannot poll it, or it is no such eventfd.
pub async fn signalled(event: &Arc<OwnedFd>) -> io::Result<u64> {
    loop {
        if readable(Arc::clone(event)).await?.is_dead() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut count = [0; 8];
        // By a plain read: a buffer that the kernel still wrote to would outlive a dropped future.
        match rustix::io::read(event, &mut count) {
            Ok(_) => return Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A write of up to eight bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Where in the file.
    pub(crate) at: u64,
    /// What, little-endian.
    pub(crate) bytes: [u8; 8],
    /// How many of the bytes.
    pub(crate) len: usize,
}

/// Writes to one file that are carried out in order.
#[derive(Debug)]
pub(crate) struct Run {
    fd: Arc<OwnedFd>,
    writes: Vec<Write>,
}

impl Run {
    /// An empty run.
    pub(crate) fn new(fd: Arc<OwnedFd>) -> Run {
        Run { fd, writes: Vec::with_capacity(RUN) }
    }

    /// The file.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Adds a write behind the others; false if the run is full.
    pub(crate) fn push(&mut self, write: Write) -> bool {
        let fits = self.writes.len() < RUN && write.len <= write.bytes.len();
        if fits {
            self.writes.push(write);
        }
        fits
    }

    /// Carries all writes out in order and gives the number of those that failed or were short. A
    /// failed write does not keep the later ones from being made. Only to be called on a tokio-uring
    /// runtime.
    pub(crate) async fn carry_out(self) -> usize {
        let run = Rc::new(self);
        let mut failed = 0;
        let mut from = 0;
        let mut answers = Vec::with_capacity(run.writes.len());
        while from < run.writes.len() {
            answers.clear();
            let flying: Vec<_> = (from..run.writes.len()).filter_map(|index| fly(&run, index)).collect();
            for answer in flying {
                answers.push(answer.await);
            }
            let Some((whole, broken)) = first_broken(run.writes.get(from..).unwrap_or(&[]), &answers) else {
                break;
            };
            if !(broken.may_be_repeated() && run.write_plainly(from + whole)) {
                failed += 1;
            }
            from += whole + 1;
        }
        failed
    }

    /// Makes one write without the ring; tells whether it was whole.
    fn write_plainly(&self, index: usize) -> bool {
        let Some(write) = self.writes.get(index) else { return false };
        let (bytes, _) = write.bytes.split_at(write.len);
        rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.fd, bytes, write.at)) == Ok(write.len)
    }
}

/// Puts one write of the run into the ring, linked to the next.
fn fly(run: &Rc<Run>, index: usize) -> Option<tokio_uring::InFlightOneshot<Rc<Run>, Answer<Rc<Run>>>> {
    let write = run.writes.get(index)?;
    let len = u32::try_from(write.len).ok()?;
    let entry =
        opcode::Write::new(types::Fd(run.fd.as_raw_fd()), write.bytes.as_ptr(), len).offset(write.at).build();
    let last = index + 1 == run.writes.len();
    let entry = if last { entry } else { entry.flags(squeue::Flags::IO_LINK) };
    Some(submit(Rc::clone(run), entry))
}

/// How a write of a linked run ended that was not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// Interrupted, or never tried.
    NotDone,
    /// Short, or refused.
    Failed,
}

impl Broken {
    fn may_be_repeated(self) -> bool {
        self == Broken::NotDone
    }
}

/// How many writes were whole before the first that was not, and what became of that one. The kernel
/// cancels what is linked behind it, so everything from there on is still to be done.
fn first_broken(writes: &[Write], answers: &[i32]) -> Option<(usize, Broken)> {
    let whole = |(write, answer): (&Write, &i32)| usize::try_from(*answer) == Ok(write.len);
    let index = writes.iter().zip(answers).position(|pair| !whole(pair))?;
    let not_done = [Errno::INTR, Errno::CANCELED, Errno::AGAIN];
    let repeat = answers.get(index).is_some_and(|answer| {
        not_done.iter().any(|errno| answer.checked_neg() == Some(errno.raw_os_error()))
    });
    Some((index, if repeat { Broken::NotDone } else { Broken::Failed }))
}

#[cfg(test)]
mod tests;
