//! Where the text devices leave what the guest writes: collected by lines, so that a character does
//! not cost a system call, and nothing stays unseen for long.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the beginning of a line may wait for its end.
pub(super) const TAIL: Duration = Duration::from_millis(20);

/// A line longer than this is written in parts.
const LINE: usize = 1024;

/// How long a descriptor may keep the guest waiting, once: from then on what does not fit is lost,
/// until it takes something again.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A sink for the characters of one device.
///
/// A line is written when it ends, when it is long, by [`Output::flush`] and on drop. What cannot be
/// written is dropped and counted: the guest is never held up by a full disk. That something is lost
/// is logged when it happens first, and how much it was at the end; nothing is logged while a descriptor
/// is only held, since whoever holds a terminal holds its log too. A writer given to [`Output::new`] must
/// not block for long, since the vCPU waits for it.
pub struct Output {
    to: Box<dyn Write + Send>,
    /// What it is called in messages.
    name: Cow<'static, str>,
    line: Vec<u8>,
    lost: u64,
    /// It was logged that something is lost.
    told: bool,
    /// What was written last did not fit.
    held: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Output {
    /// Collects for `to`.
    pub fn new(to: Box<dyn Write + Send>) -> Output {
        let name = "what a text device says".into();
        Output { to, name, line: Vec::with_capacity(LINE), lost: 0, told: false, held: false }
    }

    /// Calls it so in messages, as `--serial FILE`.
    #[must_use]
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Output {
        self.name = name.into();
        self
    }

    /// Collects for a descriptor that may stop taking: a pipe that nobody reads, a terminal that is
    /// held. Then the guest waits for 200 ms, and what does not fit is lost until something fits again.
    pub fn descriptor(fd: OwnedFd) -> Output {
        Output::new(Box::new(Patient { fd, stuck: false }))
    }

    /// Takes one character.
    pub fn push(&mut self, byte: u8) {
        self.line.push(byte);
        if byte == b'\n' || self.line.len() >= LINE {
            self.flush();
        }
    }

    /// Whether something waits to be written.
    pub fn is_pending(&self) -> bool {
        !self.line.is_empty()
    }

    /// Writes what waits.
    pub fn flush(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let written = self.to.write_all(&self.line).and_then(|()| self.to.flush());
        self.held = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if let Err(error) = written {
            self.lost = self.lost.saturating_add(self.line.len() as u64);
            if !self.held && !self.told {
                self.told = true;
                tracing::warn!(
                    "{}: the guest goes on, and what cannot be written is lost: {error}",
                    self.name
                );
            }
        }
        self.line.clear();
    }

    /// How many characters could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.flush();
        if self.lost > 0 && !self.held {
            tracing::warn!("{}: {} bytes were lost", self.name, self.lost);
        }
    }
}

/// Writes as far as the other end takes it, without waiting for long.
struct Patient {
    fd: OwnedFd,
    /// It did not take anything when it was last tried.
    stuck: bool,
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let patience = if self.stuck { Timespec::default() } else { PATIENCE };
        let ready = poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], Some(&patience))?;
        self.stuck = ready == 0;
        if self.stuck {
            return Err(ErrorKind::WouldBlock.into());
        }
        // A terminal that is ready takes this much, a pipe more.
        let piece = bytes.get(..256).unwrap_or(bytes);
        Ok(rustix::io::write(&self.fd, piece)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that shows what reached it.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(super) struct Paper(std::sync::Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

#[cfg(test)]
impl Paper {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }
    pub(super) fn writes(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[cfg(test)]
impl Write for Paper {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let mut paper = self.0.lock().unwrap();
        paper.0.extend(buf);
        paper.1 += 1;
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_whole_and_the_rest_on_drop() {
        let paper = Paper::default();
        let mut output = Output::new(Box::new(paper.clone()));
        b"one\ntwo".iter().for_each(|byte| output.push(*byte));
        assert_eq!(paper.text(), "one\n");
        assert_eq!(paper.writes(), 1);
        assert!(output.is_pending());
        drop(output);
        assert_eq!(paper.text(), "one\ntwo");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_the_guest_up_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::descriptor(writer.into());
        let start = std::time::Instant::now();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..200 {
            line.iter().for_each(|byte| output.push(*byte));
        }
        // Nor for 200 ms with each of the lines that are lost.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        let lost = output.lost();
        assert!(lost >= 200_000 - 65_536, "{lost}");
        // It takes again when somebody reads.
        let mut some = [0; 60_000];
        io::Read::read_exact(&mut reader, &mut some).unwrap();
        line.iter().for_each(|byte| output.push(*byte));
        assert_eq!(output.lost(), lost);
    }

    #[test]
    fn an_endless_line_does_not_grow() {
        let paper = Paper::default();
        let mut output = Output::new(Box::new(paper.clone()));
        (0..10 * LINE).for_each(|_| output.push(b'x'));
        assert_eq!(paper.writes(), 10);
        assert!(output.line.capacity() <= 2 * LINE);
    }

    #[test]
    fn a_full_disk_does_not_stop_the_guest() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("needs /dev/full");
        let mut output = Output::new(Box::new(full));
        b"lost\n".iter().for_each(|byte| output.push(*byte));
        assert_eq!(output.lost(), 5);
        assert!(!output.is_pending());
    }
}
