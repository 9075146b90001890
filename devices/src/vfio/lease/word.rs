//! One word of memory that two processes share: the card is used, and the keeper sleeps.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::vga::Shared;

/// Of the memory that holds it.
const PAGE: usize = 4096;
/// The card was used since the keeper looked.
const USED: u32 = 1;
/// The keeper sleeps until the bell rings.
const ASLEEP: u32 = 2;

/// See the module's page. That a use is noticed a look later, or that one at the very end of a burst is not,
/// does not matter: without the lease an access is as right.
#[derive(Clone, Debug)]
pub struct Word {
    file: Arc<File>,
    memory: Arc<MmapRegion>,
}

impl Word {
    /// One that nobody else has yet.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub fn new() -> io::Result<Word> {
        let shared = Shared::new("vga-lease", PAGE)?;
        Ok(Word { file: Arc::clone(shared.file()), memory: Arc::clone(shared.memory()) })
    }

    /// That of which another process has given the descriptor.
    ///
    /// # Errors
    /// It is no memory.
    fn of(file: File) -> io::Result<Word> {
        let file = Arc::new(file);
        if file.metadata()?.len() != PAGE as u64 {
            return Err(io::Error::other("not a page of memory"));
        }
        let region = MmapRegion::from_file(FileOffset::from_arc(Arc::clone(&file), 0), PAGE);
        Ok(Word { file, memory: Arc::new(region.map_err(io::Error::other)?) })
    }

    /// Sends its descriptor through a Unix socket.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, socket: &UnixStream) -> io::Result<()> {
        let fds = [self.file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// That which the other end of `socket` sends.
    ///
    /// # Errors
    /// It sends something else, or is gone.
    pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Word> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Word::of(File::from(fd.ok_or_else(|| io::Error::other("no memory comes through the socket"))?))
    }

    /// The card is used. A load, as long as the keeper has not looked; true if it has to be woken.
    #[inline]
    pub fn used(&self) -> bool {
        let Some(word) = self.word() else { return false };
        word.load(Relaxed) & USED == 0 && word.swap(USED, AcqRel) & ASLEEP != 0
    }

    /// Whether the card was used since this was last asked; the keeper is awake.
    pub fn take(&self) -> bool {
        self.word().is_some_and(|word| word.swap(0, AcqRel) & USED != 0)
    }

    /// The keeper goes to sleep; false if the card was used before it could.
    pub fn sleep(&self) -> bool {
        self.word().is_some_and(|word| word.compare_exchange(0, ASLEEP, AcqRel, Acquire).is_ok())
    }

    fn word(&self) -> Option<&AtomicU32> {
        self.memory.get_atomic_ref(0).ok()
    }
}

#[cfg(test)]
impl Word {
    /// The same word, as the other process has it.
    pub fn twin(&self) -> Word {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.send(&ours).unwrap();
        Word::receive(theirs.as_fd()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_woken_once_and_only_when_it_sleeps() {
        let ours = Word::new().unwrap();
        let theirs = ours.twin();
        assert!(!ours.used() && !ours.used());
        assert!(!theirs.sleep(), "it was used");
        assert!(theirs.take() && !theirs.take());
        assert!(theirs.sleep());
        assert!(ours.used() && !ours.used());
        assert!(theirs.take());
        assert!(theirs.sleep() && !theirs.take(), "it woke by itself");
        assert!(!ours.used());
    }

    #[test]
    fn what_comes_through_no_socket_is_no_word() {
        assert!(Word::receive(File::open("/dev/null").unwrap().as_fd()).is_err());
        let (bell, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &bell, &[0]).unwrap();
        assert!(Word::receive(theirs.as_fd()).is_err(), "a ring");
        drop(bell);
        assert!(Word::receive(theirs.as_fd()).is_err());
    }

    #[test]
    fn what_is_no_page_of_memory_is_refused() {
        assert!(Word::of(File::open("/dev/null").unwrap()).is_err());
        assert!(Word::of(tempfile::tempfile().unwrap()).is_err());
    }
}
