//! `cargo lab stopwatch`: when a program that is started says something, to the nanosecond.
//!
//! It runs where the program does, in the outer machine too, so that no shell and no shared folder lies
//! between the program and the clock. What is listened to is a pipe with a name, in an empty folder
//! that is the program's own: a serial line or a debug console that the program is told to write there.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::machine::text;

/// The most that is kept of what was heard and holds no mark.
const MOST: usize = 1 << 16;
/// How much of it a report has.
const SHOWN: usize = 2000;
/// How often it is looked whether the program still runs.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Options of `cargo lab stopwatch`.
#[derive(clap::Args)]
pub struct Options {
    /// The pipe's name, as the command has it
    #[arg(long)]
    pipe: String,
    /// What must be heard, in this order; an empty text is heard with the first byte
    #[arg(long = "mark", value_name = "TEXT", required = true)]
    marks: Vec<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 200)]
    timeout: u64,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Options {
    /// The words of the shell that have the program `command`, itself words of the shell, timed.
    pub fn line(lab: &str, pipe: &str, marks: &[&str], timeout: Duration, command: &str) -> String {
        let marks: String =
            marks.iter().map(|mark| format!(" --mark {}", crate::outer::quoted(mark))).collect();
        let lab = crate::outer::quoted(lab);
        format!("{lab} stopwatch --pipe {pipe}{marks} --timeout {} -- {command}", timeout.as_secs())
    }
}

/// Starts the program, prints for each mark the nanoseconds from the start, and kills the program.
pub fn run(options: &Options) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let place = |name: &str| folder.path().join(name);
    let mut heard = Heard::new(fifo(&place(&options.pipe))?, &options.marks);
    let said = File::create(place("said")).context("cannot write to the temporary folder")?;
    let (program, arguments) = options.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(said.try_clone().context("no second handle")?).stderr(said);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let result = heard.until_the_last(&mut child, start, Duration::from_secs(options.timeout));
    // Both fail if it has ended already, which is as well.
    let _ = child.kill();
    let _ = child.wait();
    result.with_context(|| {
        let last = String::from_utf8_lossy(&heard.bytes[heard.bytes.len().saturating_sub(SHOWN)..]);
        format!("it said: {}\nand in the pipe: {}", text(&place("said")).trim(), last.trim())
    })?;
    heard.times.iter().for_each(|time| println!("{}", time.as_nanos()));
    Ok(ExitCode::SUCCESS)
}

/// The times that [`run`] has printed, in seconds.
pub fn times(output: &str, wanted: usize) -> Result<Vec<f64>> {
    let times: Vec<f64> = output
        .lines()
        .filter_map(|line| line.trim().parse::<u64>().ok())
        .map(|nanoseconds| Duration::from_nanos(nanoseconds).as_secs_f64())
        .collect();
    ensure!(times.len() == wanted, "{} times, not {wanted}: {}", times.len(), output.trim());
    Ok(times)
}

/// Makes a pipe with a name, and opens the end that is read. To listen does not wait for who writes.
pub fn fifo(path: &Path) -> Result<File> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("no pipe")?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty()).context("no pipe")?))
}

/// What came out of the pipe so far.
struct Heard<'a> {
    pipe: File,
    /// Marks that were not heard yet.
    marks: &'a [String],
    /// What is behind the latest mark.
    bytes: Vec<u8>,
    times: Vec<Duration>,
}

impl<'a> Heard<'a> {
    fn new(pipe: File, marks: &'a [String]) -> Self {
        Heard { pipe, marks, bytes: Vec::new(), times: Vec::new() }
    }

    fn until_the_last(&mut self, child: &mut Child, start: Instant, timeout: Duration) -> Result<()> {
        while let Some(mark) = self.marks.first() {
            poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&LOOK)).context("poll")?;
            let now = start.elapsed();
            let mut bytes = [0; 4096];
            match self.pipe.read(&mut bytes) {
                Ok(count) if count > 0 => self.take(&bytes[..count], now),
                // Nobody has opened the other end yet, or nobody has it any more.
                _ => {
                    if let Some(status) = child.try_wait().context("the program is lost")? {
                        bail!("it ended with {status} before \"{mark}\"");
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            if now > timeout {
                bail!("no \"{mark}\" within {timeout:?}");
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], now: Duration) {
        self.bytes.extend_from_slice(bytes);
        while let Some((mark, rest)) = self.marks.split_first() {
            let mark = mark.as_bytes();
            let end = match mark {
                [] => Some(0),
                _ => {
                    self.bytes.windows(mark.len()).position(|window| window == mark).map(|at| at + mark.len())
                }
            };
            let Some(end) = end else { break };
            self.bytes.drain(..end);
            self.times.push(now);
            self.marks = rest;
        }
        let excess = self.bytes.len().saturating_sub(MOST);
        self.bytes.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The script can read from `go` when the first mark was heard.
    fn listen(script: &str, marks: &[&str], seconds: u64) -> Result<Vec<Duration>> {
        let folder = tempfile::tempdir().unwrap();
        let marks: Vec<String> = marks.iter().map(ToString::to_string).collect();
        let mut heard = Heard::new(fifo(&folder.path().join("pipe")).unwrap(), &[]);
        let go = folder.path().join("go");
        drop(fifo(&go).unwrap());
        // For both, so that nobody waits for the other end.
        let mut go = File::options().read(true).write(true).open(go).unwrap();
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).current_dir(folder.path()).spawn().unwrap();
        let start = Instant::now();
        let mut result = Ok(());
        for some in [&marks[..1], &marks[1..]] {
            heard.marks = some;
            result =
                result.and_then(|()| heard.until_the_last(&mut child, start, Duration::from_secs(seconds)));
            writeln!(go).unwrap();
        }
        let _ = child.kill();
        child.wait().unwrap();
        result.map(|()| heard.times)
    }

    #[test]
    fn marks_are_heard_in_order_even_in_pieces() {
        let script = "(printf 'a mark on'; read go < go; printf 'e, a mark two, mark two'; sleep 9) > pipe";
        let times = listen(script, &["", "mark one", "mark two", "mark two"], 20).unwrap();
        assert_eq!(times.len(), 4);
        assert!(times.is_sorted() && times[1] > times[0], "{times:?}");
        assert_eq!(times[1], times[3]);
    }

    #[test]
    fn an_early_end_and_a_deadline_are_errors() {
        let error = listen("echo two > pipe; exit 3", &["one"], 20).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("\"one\""), "{error}");
        let error = listen("sleep 9", &["one"], 0).unwrap_err().to_string();
        assert!(error.contains("within"), "{error}");
    }

    #[test]
    fn printed_times_are_read_back() {
        assert_eq!(times("1500000000\n2000000000\n", 2).unwrap(), [1.5, 2.0]);
        assert!(times("1500000000\n", 2).is_err());
    }
}
