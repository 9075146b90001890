//! A command inside the outer machine.
//!
//! It lies in a folder of its own in the shared folder, where its output comes to as well, and at its end
//! its status. The control line only tells the first process to start it or to end it, so that many can run
//! at the same time and none can disturb the line.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::vmm::Vmm;
use crate::machine::text;

const TICK: Duration = Duration::from_millis(20);
/// How long a killed command may take to be gone.
const FAREWELL: Duration = Duration::from_secs(60);
/// What every command starts with: the host's usual surroundings for root.
const SURROUNDINGS: &str =
    "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux\n";

/// What each thread of a virtual machine monitor does: its name, state, ticks of processor time for itself and in the
/// kernel, the system call that it is in, and where in the kernel it waits. Signals of the process come first. QEMU is
/// started by a loader of its own.
const DOING: &str = r#"for process in /proc/[0-9]*; do
    [ -e "$process/exe" ] || continue
    case $(readlink "$process/exe") in */trapline | */ld-linux-x86-64.so.2) ;; *) continue ;; esac
    echo "${process#/proc/}:" $(grep -E '^(SigQ|SigPnd|ShdPnd|SigBlk)' "$process/status")
    for task in "$process"/task/[0-9]*; do
        set -- $(sed 's/.*) //' "$task/stat")
        echo "  $(cat "$task/comm"): $1 ${12} ${13} in $(cut -d ' ' -f 1 "$task/syscall")" \
            $(head -n 4 "$task/stack" | sed 's/.*\] //; s/+.*//')
    done
done"#;
/// How long the host may take to say so: it starts some programs for each thread.
const ANSWER: Duration = Duration::from_secs(60);

/// Numbers of jobs; those of several outer machines may well differ.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A command that was started. It is killed when this is dropped before its end was seen.
pub struct Job<'a> {
    vmm: &'a Vmm,
    number: u32,
    folder: PathBuf,
    is_over: bool,
}

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or 128 and the number of the signal that killed it.
    pub status: i32,
    /// What it wrote to standard output and standard error.
    pub output: String,
}

impl<'a> Job<'a> {
    /// Starts a command of the shell.
    pub(super) fn start(vmm: &'a Vmm, command: &str) -> Result<Self> {
        Self::told(vmm, "start", command)
    }

    /// Starts a shell on the terminal.
    pub(super) fn shell(vmm: &'a Vmm) -> Result<Self> {
        Self::told(vmm, "shell", &in_place("exec bash -i || exec sh -i")?)
    }

    fn told(vmm: &'a Vmm, verb: &str, command: &str) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = vmm.share().join("jobs").join(number.to_string());
        std::fs::create_dir_all(&folder).context("cannot make a folder for a command")?;
        let place = quoted(&vmm.share().to_string_lossy());
        let script = format!("{SURROUNDINGS}cd {place}\n{command}\n");
        std::fs::write(folder.join("command"), script).context("cannot write a command")?;
        vmm.say(&format!("{verb} {number}\n"))?;
        Ok(Job { vmm, number, folder, is_over: false })
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        text(&self.folder.join("output"))
    }

    /// Its exit status, once it has ended.
    pub fn status(&mut self) -> Option<i32> {
        let status = text(&self.folder.join("status")).trim().parse().ok();
        self.is_over |= status.is_some();
        status
    }

    /// Waits for its end; past the deadline it is killed and an error.
    pub fn wait(mut self, deadline: Instant) -> Result<Ended> {
        match self.ended(deadline)? {
            Some(ended) => Ok(ended),
            None => Err(self.late("it did not end in time")),
        }
    }

    /// Waits for its end, or for the deadline.
    fn ended(&mut self, deadline: Instant) -> Result<Option<Ended>> {
        loop {
            if let Some(status) = self.status() {
                return Ok(Some(Ended { status, output: self.output() }));
            }
            self.vmm.check()?;
            if Instant::now() > deadline {
                return Ok(None);
            }
            sleep(TICK);
        }
    }

    /// What is to be said where it has come too late: what it said itself, and what the machines inside do, so that
    /// one that waits for ever can be told from an outer machine that does nothing any more.
    pub(super) fn late(&self, what: &str) -> Error {
        let asked = Job::start(self.vmm, DOING).and_then(|mut job| job.ended(Instant::now() + ANSWER));
        let doing = match asked {
            Ok(Some(ended)) => format!("its host's processes do:\n{}", ended.output.trim()),
            Ok(None) => "its host answers no more".to_owned(),
            Err(error) => format!("its host answers no more: {error:#}"),
        };
        anyhow!("{what}; it said: {}\n{doing}", self.output().trim())
    }

    /// Waits until `condition` holds; an error if the command ends before, or at the deadline.
    pub fn until(
        &mut self,
        what: &str,
        deadline: Instant,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        while !condition() {
            // What it did last may hold since it was asked.
            if let Some(status) = self.status().filter(|_| !condition()) {
                bail!("it ended with status {status} before {what}; it said: {}", self.output().trim());
            }
            self.vmm.check()?;
            if Instant::now() > deadline {
                return Err(self.late(&format!("no {what} in time")));
            }
            sleep(TICK);
        }
        Ok(())
    }

    /// Asks it to end, as a user's `kill` does: the command itself, not what it started.
    pub fn terminate(&self) -> Result<()> {
        self.vmm.say(&format!("end {}\n", self.number))
    }

    /// Kills it and all processes that it started, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let patience = Instant::now() + FAREWELL;
        while self.status().is_none() {
            self.vmm.check()?;
            if Instant::now() > patience {
                bail!("it was killed and is still there");
            }
            // Again and again: one that is just being started cannot be killed yet.
            self.vmm.say(&format!("kill {}\n", self.number))?;
            sleep(TICK * 10);
        }
        Ok(())
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.status().is_none() {
            // Without an outer machine there is no command either.
            let _ = self.kill();
        }
    }
}

/// The same command, but in this process's own folder: there the paths that a person typed mean the same
/// inside. A folder that is not there inside is said, and the command then runs where others do.
pub fn in_place(command: &str) -> Result<String> {
    let here = std::env::current_dir().context("this process has no folder")?;
    Ok(format!("cd {}\n{command}", quoted(&here.to_string_lossy())))
}

/// A word for the shell that stands for `text`, whatever is in it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_survives_the_shell() {
        for text in ["plain", "with blanks", "it's $HOME `x` \"y\" \\"] {
            let script = format!("printf %s {}", quoted(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
