//! One run of `trapline`, watched from outside.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long a program that is out of time may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(3);

/// A program that runs. It is killed when this is dropped.
pub struct Machine {
    child: Child,
    files: Files,
    deadline: Instant,
}

/// Where its output goes.
struct Files {
    output: PathBuf,
    errors: PathBuf,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

impl Machine {
    /// Starts `command`, with its output in files in `folder`; every wait ends at `deadline`.
    pub fn start(mut command: Command, folder: &Path, deadline: Instant) -> Result<Self> {
        let files = Files { output: folder.join("stdout"), errors: folder.join("stderr") };
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        command.stdin(Stdio::null()).stdout(create(&files.output)?).stderr(create(&files.errors)?);
        let child =
            command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Machine { child, files, deadline })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself; past the deadline it is killed and an error.
    pub fn wait(mut self) -> Result<Ended> {
        loop {
            if let Some(status) = self.child.try_wait().context("the program is lost")? {
                return Ok(Ended {
                    status,
                    output: text(&self.files.output),
                    errors: text(&self.files.errors),
                });
            }
            if Instant::now() > self.deadline {
                self.farewell();
                bail!("it did not end in time: {}", self.trace());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Waits until `condition` holds; an error if the program ends before, or at the deadline.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        loop {
            if condition() {
                return Ok(());
            }
            // What it did last may hold since it was asked.
            if let Some(status) =
                self.child.try_wait().context("the program is lost")?.filter(|_| !condition())
            {
                bail!("it ended ({status}) before {what}: {}", self.trace());
            }
            if Instant::now() > self.deadline {
                self.farewell();
                bail!("no {what} in time: {}", self.trace());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("the program is lost")?.is_some())
    }

    /// Asks it to end, as a user's `kill` does.
    pub fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot send SIGTERM")
    }

    /// Asks it to end and waits for a moment: what stood on its screen is for the report.
    fn farewell(&mut self) {
        let patience = Instant::now() + FAREWELL;
        if self.terminate().is_ok() {
            while Instant::now() < patience && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(TICK);
            }
        }
    }

    /// What it said on standard error so far.
    fn trace(&self) -> String {
        match text(&self.files.errors).trim() {
            "" => "it said nothing".into(),
            errors => format!("it said: {errors}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The exit status, or 128 and the number of the signal that ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// An error unless it ended with this exit status.
    pub fn expect(&self, code: i32) -> Result<()> {
        if self.code() == code {
            return Ok(());
        }
        bail!("it ended with status {}, not {code}; it said: {}", self.code(), self.errors.trim())
    }
}

/// The text of a file, as far as it is there.
pub fn text(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, seconds: u64) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let machine = Machine::start(command, folder.path(), deadline).unwrap();
        (folder, machine)
    }

    #[test]
    fn an_end_has_its_status_and_what_was_said() {
        let (_folder, machine) = start("echo out; echo err >&2; exit 3", 10);
        let ended = machine.wait().unwrap();
        assert_eq!((ended.code(), ended.output.as_str(), ended.errors.as_str()), (3, "out\n", "err\n"));
        assert!(ended.expect(3).is_ok());
        assert!(ended.expect(0).unwrap_err().to_string().contains("status 3, not 0; it said: err"));
    }

    #[test]
    fn a_deadline_ends_every_wait() {
        let (_folder, machine) = start("sleep 60", 0);
        assert!(machine.wait().unwrap_err().to_string().contains("did not end in time"));
        let (_folder, mut machine) = start("sleep 60", 0);
        let error = machine.until("thing", || false).unwrap_err();
        assert!(error.to_string().contains("no thing in time"));
    }

    #[test]
    fn a_program_that_ends_early_is_noticed() {
        let (_folder, mut machine) = start("echo broken >&2; exit 1", 10);
        let error = machine.until("menu", || false).unwrap_err().to_string();
        assert!(error.contains("before menu") && error.contains("broken"), "{error}");
    }
}
