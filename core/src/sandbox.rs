//! What each thread may ask of the kernel: seccomp filters, on by default (`--seccomp`).
//!
//! A guest that takes a thread over through a fault of ours, or of a card's driver, has that thread's system calls
//! and no others. [`Kind`] names the threads, `calls` holds what each kind may ask for; a thread calls
//! [`Seccomp::confine`] when it has all that it opens once, before it serves the guest.
//!
//! # What is refused
//!
//! A call that is not in the table of its thread ends the program: one line names the thread and the call, the
//! terminal is given back, the exit status is 1. Nothing is refused quietly: what went on after an error that
//! nobody expects would be worse than the end. (The C library blocks all signals while it starts a program or a
//! thread: what is refused there ends the program by SIGSYS, without the line.)
//!
//! # What a filter does not see
//!
//! * Numbers, not paths and not memory behind pointers. So no thread of a guest's access may open a file at
//!   all. The one that counts interrupts may read any that the user may, and the main one, which writes
//!   screenshots and reports, write it.
//! * What a worker asks for through io_uring: the kernel carries that out without looking at filters. A worker
//!   is kept from a second ring, and all threads from starting a program.
//! * A thread's descriptors are the process's.
//!
//! # Cost
//!
//! The kernel carries the filter out at each system call, `KVM_RUN` among them: some tens of nanoseconds. The rule
//! of `KVM_RUN` stands first among those of `ioctl`, and the calls without a condition are known to the kernel by a
//! bitmap. The filters are installed with `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: without it, kernels before 5.16 would
//! switch off speculative store bypass for the thread, and slow the guest down with it.
//!
//! # Threads that start late
//!
//! A thread has the filter of the one that started it, and filters can only be added. So every thread of a run
//! is started before its starter is confined; those that take the guest's memory (`dma`) are of their starter's kind.

mod calls;
mod program;
mod refused;

use crate::command::say;
use crate::config::Words;
use crate::screen::terminal;

/// What becomes of a system call that its thread has no use for. The default is for machines that are made
/// without the program; a run has [`Seccomp::On`] where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// It ends the program, which names it.
    On,
    /// It is carried out, and told in the kernel's log.
    Log,
    /// It is carried out: there are no filters.
    #[default]
    Off,
}

/// The threads, by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `vcpu0` and so on: runs the guest, and carries out its accesses and changes of the map.
    Vcpu,
    /// `worker`, and one for each function with legacy VGA: serves queues, disks, sockets.
    Worker,
    /// `vga`, the clock of the legacy window.
    Window,
    /// `dma`, and those that it starts to take the guest's memory.
    Dma,
    /// `trace`: writes to a file that is open.
    Trace,
    /// `interrupts`: reads what the host's sysfs counts.
    Interrupts,
    /// `machine`: resets, and the end of a run.
    Machine,
    /// `signals`.
    Signals,
    /// `serial-input`: reads standard input.
    SerialInput,
    /// `main`: the terminal, and the files that the end of a run leaves.
    Main,
    /// The software adapter's process.
    Adapter,
    /// The process that holds a lease on the host's legacy VGA ranges.
    Lease,
}

impl Kind {
    /// All kinds.
    #[cfg(test)]
    pub(super) const ALL: [Kind; 12] = [
        Kind::Vcpu,
        Kind::Worker,
        Kind::Window,
        Kind::Dma,
        Kind::Trace,
        Kind::Interrupts,
        Kind::Machine,
        Kind::Signals,
        Kind::SerialInput,
        Kind::Main,
        Kind::Adapter,
        Kind::Lease,
    ];

    /// Who it is, in the plural.
    fn plural(self) -> &'static str {
        match self {
            Kind::Vcpu => "vCPU threads",
            Kind::Worker => "workers",
            Kind::Window => "clocks of a window",
            Kind::Dma => "threads that map memory",
            Kind::Trace => "writers of a trace",
            Kind::Interrupts => "counters of interrupts",
            Kind::Machine => "machines' threads",
            Kind::Signals => "signal threads",
            Kind::SerialInput => "readers of a serial line",
            Kind::Main => "main threads",
            Kind::Adapter => "software adapters",
            Kind::Lease => "holders of a lease",
        }
    }
}

impl Seccomp {
    /// What `--seccomp` calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Words::word(self)
    }

    /// Makes the process ready for [`Seccomp::confine`]: before its first thread.
    pub fn prepare(self) {
        if self != Seccomp::Off {
            refused::prepare();
        }
    }

    /// Takes from the calling thread, and from those that it starts from now on, what `kind` has no use for. A
    /// thread does so once. A kernel that cannot do it ends the program, with a line for a person: a guest is not
    /// to run with less around it than it was given.
    pub fn confine(self, kind: Kind) {
        let confined = program::of(kind, self).and_then(|program| match program {
            Some(program) => refused::install(kind, &program),
            None => Ok(()),
        });
        if let Err(error) = confined {
            terminal::restore();
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let reason = crate::config::host_error(&error);
            say(&format!(
                "the thread {name} cannot be confined by seccomp: {reason}; --seccomp off does without"
            ));
            std::process::exit(1);
        }
    }
}

impl std::str::FromStr for Seccomp {
    type Err = String;

    fn from_str(text: &str) -> Result<Seccomp, String> {
        Words::parse(text)
    }
}

#[cfg(test)]
mod tests;
