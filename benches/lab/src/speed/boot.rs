//! One boot, with the time of everything that is heard of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::contender::{Contender, Ending, MEMORY, Places};
use super::usage::{self, Memory};
use crate::payload::mark;
use crate::stopwatch::fifo;

/// The longest that a boot may take, on a host that emulates every instruction of the guest.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest wait for a program's end once it was told to end, or its guest turned it off.
const FAREWELL: Duration = Duration::from_secs(20);
/// The most that is kept of what one source says.
const MOST: usize = 1 << 20;

/// What a boot is watched for; each would disturb the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The time from the start of the vCPU to the mark.
    Time,
    /// When the firmware said what.
    Console,
    /// The memory in use when the boot sector runs.
    Memory,
}

/// What was seen. Times count from the start of the program.
#[derive(Debug)]
pub struct Boot {
    /// When its vCPU was let go.
    pub begin: Duration,
    /// When the boot sector's mark arrived.
    pub mark: Duration,
    /// When the program had ended by itself.
    pub end: Option<Duration>,
    /// Processor time of the program and its children to the end.
    pub processor: Duration,
    /// Memory, if it was looked at.
    pub memory: Option<Memory>,
    console: Vec<(Duration, String)>,
}

impl Boot {
    /// Starts the program and watches it to its end.
    pub fn watch(contender: &Contender, watched: Watched) -> Result<Boot> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let path = |name: &str| folder.path().join(name);
        let ending = if watched == Watched::Time { Ending::PowerOff } else { Ending::Halt };
        std::fs::write(path("disk"), mark::disk(ending)).context("cannot write the disk")?;
        let (serial, console) = (path("serial"), path("console"));
        let mut sources =
            vec![Source::new(Kind::Serial, fifo(&serial)?), Source::new(Kind::Console, fifo(&console)?)];
        let errors = File::create(path("errors")).context("cannot write to the temporary folder")?;
        let places = Places {
            disk: &path("disk"),
            serial: &serial,
            console: (watched == Watched::Console).then_some(&*console),
            errors,
        };
        let start = Instant::now();
        let mut running = Running(contender.command(places)?.spawn().context("cannot be started")?);
        if let Some(input) = &mut running.0.stdin {
            input.write_all(contender.starter().as_bytes()).context("does not listen")?;
        }
        sources.push(running.told(contender.tells_on_stdout())?);
        let (begin, mark) = until_the_mark(&mut sources, contender, start).with_context(|| {
            let said = std::fs::read(path("errors")).unwrap_or_default();
            format!("it said: {}", String::from_utf8_lossy(&said).trim())
        })?;
        let memory =
            (watched == Watched::Memory).then(|| Memory::of(running.0.id(), MEMORY << 10)).transpose()?;
        if ending == Ending::Halt {
            kill_process(Pid::from_child(&running.0), Signal::TERM).context("cannot be ended")?;
        }
        let processor = running.ends()?;
        let end = (ending == Ending::PowerOff).then(|| start.elapsed());
        let console = sources.into_iter().filter(|source| source.kind == Kind::Console);
        let console = console.flat_map(|source| source.lines).collect();
        Ok(Boot { begin, mark, end, processor, memory, console })
    }

    /// From the start of the vCPU to the mark.
    pub fn time(&self) -> Duration {
        self.mark.saturating_sub(self.begin)
    }

    /// When the firmware first said something that holds `text`.
    pub fn line(&self, text: &str) -> Option<Duration> {
        self.console.iter().find(|(_, line)| line.contains(text)).map(|(at, _)| *at)
    }
}

/// Listens until the mark is there; gives the times of the vCPU's start and of the mark.
fn until_the_mark(
    sources: &mut [Source],
    contender: &Contender,
    start: Instant,
) -> Result<(Duration, Duration)> {
    loop {
        let begin = sources.iter().flat_map(|source| match source.kind {
            Kind::Told => source.lines.as_slice(),
            Kind::Serial | Kind::Console => &[],
        });
        let begin = begin.clone().find(|(_, line)| contender.lets_go(line)).map(|(at, _)| *at);
        let mark =
            sources.iter().find(|source| source.kind == Kind::Serial).and_then(|source| source.lines.first());
        if let Some((mark, _)) = mark {
            let begin = begin.context("it did not tell when its vCPU started")?;
            return Ok((begin, *mark));
        }
        if sources.iter().any(|source| source.kind == Kind::Told && source.ended) {
            bail!("it ended before the boot sector ran");
        }
        if start.elapsed() > PATIENCE {
            bail!("the boot sector did not run within {PATIENCE:?}");
        }
        listen(sources, start)?;
    }
}

/// Waits for one of the sources, a second at most, and takes what there is.
fn listen(sources: &mut [Source], start: Instant) -> Result<()> {
    let live: Vec<usize> = (0..sources.len()).filter(|index| !sources[*index].ended).collect();
    let mut fds: Vec<_> =
        live.iter().map(|index| PollFd::new(&sources[*index].file, PollFlags::IN)).collect();
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut fds, Some(&second)).context("poll")?;
    let now = start.elapsed();
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    for (index, _) in live.iter().zip(ready).filter(|(_, ready)| *ready) {
        sources[*index].take(now)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Serial,
    Console,
    /// What the program tells of itself.
    Told,
}

/// Something that says lines.
struct Source {
    kind: Kind,
    file: File,
    begun: Vec<u8>,
    /// The lines with the time when their end arrived.
    lines: Vec<(Duration, String)>,
    taken: usize,
    ended: bool,
}

impl Source {
    fn new(kind: Kind, file: File) -> Source {
        Source { kind, file, begun: Vec::new(), lines: Vec::new(), taken: 0, ended: false }
    }

    fn take(&mut self, now: Duration) -> Result<()> {
        let mut bytes = [0; 4096];
        let count = match self.file.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot listen"),
        };
        self.ended = count == 0;
        self.taken += count;
        if self.taken > MOST {
            bail!("it says too much");
        }
        self.begun.extend_from_slice(&bytes[..count]);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            self.lines.push((now, String::from_utf8_lossy(&line).into_owned()));
        }
        Ok(())
    }
}

/// A program that is killed when this is dropped.
struct Running(Child);

impl Running {
    /// The pipe in which it tells what it does.
    fn told(&mut self, on_stdout: bool) -> Result<Source> {
        let fd = if on_stdout {
            self.0.stdout.take().map(OwnedFd::from)
        } else {
            self.0.stderr.take().map(OwnedFd::from)
        };
        let file = File::from(fd.context("it has no pipe")?);
        fcntl_setfl(&file, OFlags::NONBLOCK).context("pipe")?;
        Ok(Source::new(Kind::Told, file))
    }

    /// Waits for its end; gives the processor time that it used.
    fn ends(&mut self) -> Result<Duration> {
        let deadline = Instant::now() + FAREWELL;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(Pid::from_child(&self.0)), options).context("it is lost")?.is_none() {
            if Instant::now() > deadline {
                bail!("it did not end within {FAREWELL:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        usage::processor_time(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
