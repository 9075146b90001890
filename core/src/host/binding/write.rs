//! One write to sysfs, in a process of its own and with a deadline.
//!
//! A driver that does not let go of its function sleeps in the kernel, where not even SIGKILL ends it.
//! The process that made the write stays there with it; the one that asked for it goes on, says so, and
//! ends.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::config::host_error;
use crate::host::Tree;

/// The hidden command of this program that does it.
pub const COMMAND: &str = "write-sysfs";
/// How long a driver may take. The slowest that are known to be well take about 5 s (a GPU that saves
/// its memory); udev gives up after 180 s, far longer than anybody watches a command.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How long a child that was killed may take to go.
const FAREWELL: Duration = Duration::from_millis(200);

/// The kernel as the commands change it. A trait so that tests have one of their own.
pub trait Kernel {
    /// Writes `text` to a file of the tree, named without the slash before it.
    ///
    /// # Errors
    /// The kernel refuses, or does not come back within the deadline.
    fn write(&mut self, file: &str, text: &str) -> Result<(), WriteError>;

    /// Loads the module of this name or alias.
    ///
    /// # Errors
    /// There is none, or it cannot be loaded.
    fn load(&mut self, module: &str) -> Result<(), WriteError>;
}

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It has not come back.
    #[error(
        "the kernel has not come back after {} s; process {pid} hangs in it, and the function is lost until it comes \
         back or the host boots again (who uses it? for example nvidia-persistenced, a display server, a container)",
        .seconds
    )]
    Hung {
        /// Who hangs.
        pid: u32,
        /// The deadline.
        seconds: u64,
    },
    /// It says no.
    #[error("{}", host_error(.0))]
    Refused(io::Error),
    /// There is no process to do it in.
    #[error("cannot start {program}: {}", host_error(.reason))]
    NoProcess {
        /// What was to be started.
        program: String,
        /// Why not.
        reason: io::Error,
    },
    /// modprobe says no.
    #[error("modprobe {0} failed; dmesg may say why")]
    NoModule(String),
}

/// Writes by children of this program.
#[derive(Clone, Debug)]
pub struct Children {
    tree: Tree,
    program: PathBuf,
    deadline: Duration,
}

impl Children {
    /// Children that write to files of `tree`.
    ///
    /// # Errors
    /// The program's own file cannot be found.
    pub fn new(tree: Tree) -> io::Result<Children> {
        Ok(Children::of(tree, std::env::current_exe()?, DEADLINE))
    }

    /// Children of another program that knows [`COMMAND`], and another deadline.
    pub fn of(tree: Tree, program: PathBuf, deadline: Duration) -> Children {
        Children { tree, program, deadline }
    }

    fn run(&self, mut command: Command) -> Result<ExitStatus, WriteError> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Ctrl-C at the terminal is for the command, which then ends with things in order.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let failed = |reason| WriteError::NoProcess { program, reason };
        let mut child = command.spawn().map_err(failed)?;
        match wait(&mut child, self.deadline) {
            Some(status) => Ok(status),
            None => {
                let _ = child.kill();
                // What hangs in the kernel stays; it must not keep us.
                let _ = wait(&mut child, FAREWELL);
                Err(WriteError::Hung { pid: child.id(), seconds: self.deadline.as_secs() })
            }
        }
    }
}

impl Kernel for Children {
    fn write(&mut self, file: &str, text: &str) -> Result<(), WriteError> {
        let mut command = Command::new(&self.program);
        command.arg(COMMAND).arg(self.tree.path(file)).arg(text);
        let status = self.run(command)?;
        match status.code() {
            Some(0) => Ok(()),
            Some(number) => Err(WriteError::Refused(io::Error::from_raw_os_error(number))),
            None => Err(WriteError::Refused(io::Error::other("the process that wrote it was killed"))),
        }
    }

    fn load(&mut self, module: &str) -> Result<(), WriteError> {
        let mut command = Command::new("modprobe");
        // A module that the administrator has put on the list of those to stay out does.
        command.args(["-q", "-b", module]);
        if self.run(command)?.success() { Ok(()) } else { Err(WriteError::NoModule(module.into())) }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            _ if Instant::now() >= deadline => return None,
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// What the child does: one write to a file that is there. Returns the exit status: zero, or the number
/// of the error.
pub fn child(file: &Path, text: &str) -> u8 {
    // One write and no more: the kernel takes each as a request of its own.
    let result =
        std::fs::OpenOptions::new().write(true).open(file).and_then(|mut file| file.write(text.as_bytes()));
    match result {
        Ok(_) => 0,
        // The numbers of Linux' errors end at 133.
        Err(error) => error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(5),
    }
}
