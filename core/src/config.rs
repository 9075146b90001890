//! What a run was asked for, as typed values.
//!
//! The command line and a TOML file ([`Options`]) name the same things in the same words. Each is
//! checked once, here, value by value, and then joined: a value on the command line takes the place
//! of the file's. What comes out, [`RunConfig`], holds only values that make sense; nothing later
//! checks them again. What can only be known by opening a file (is the disk there, is it empty)
//! is found when the run opens it.
//!
//! ```
//! use trapline::config::{Options, Origin, RunConfig, Serial};
//!
//! let file: Options = Options::from_toml("memory = '2G'\nserial = 'stdio'").unwrap();
//! let cli = Options { memory: Some("512M".into()), ..Options::default() };
//! let config = RunConfig::new(cli, Some((Origin::File("vm.toml".into()), file))).unwrap();
//! assert_eq!(config.memory, 512 << 20);
//! assert_eq!(config.serial, Serial::Stdio);
//! ```

mod check;
mod device;
mod error;
mod identity;
mod keys;
mod options;
mod report;
pub(crate) mod size;
#[cfg(test)]
mod tests;
mod trace;
mod words;

use std::path::PathBuf;
use std::time::Duration;

pub use trapline_devices::assigned::Messages;
pub use trapline_devices::legacy::Phase;
pub use trapline_devices::q35::Pages;
pub use trapline_devices::vfio::Interface;

pub use crate::sandbox::Seccomp;

pub use device::{Adapters, Arbitration, AssignedDevice, DeviceOrigin, Disk, Rom, Vga};
pub(crate) use error::host_error;
pub use error::{ConfigError, Origin};
pub use identity::Identity;
pub use keys::{Script, Step};
pub use options::{AdapterOptions, Options};
pub use report::ReportFiles;
pub use size::{MEMORY_LARGEST, MEMORY_LEAST, PHYS_BITS};
pub use trace::{TraceFilter, TraceForm, TraceOutput};
pub(crate) use words::Words;

/// Everything `trapline run` needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// The display adapters of the guest.
    pub adapters: Adapters,
    /// Virtual processors, 1 to 255.
    pub cpus: u8,
    /// Guest RAM in bytes: a whole number of MiB from [`MEMORY_LEAST`] to [`MEMORY_LARGEST`].
    pub memory: u64,
    /// What pages the guest's RAM is made of.
    pub pages: Pages,
    /// How many bits of a physical address the guest is told, [`PHYS_BITS`]; `None` for what processor and IOMMU
    /// have.
    pub phys_bits: Option<u8>,
    /// How VFIO of the kernel is used.
    pub vfio: Interface,
    /// Where the BARs of functions of the host lie that do not say it themselves.
    pub identity: Identity,
    /// The BIOS image; `None` is the distribution's SeaBIOS.
    pub firmware: Option<PathBuf>,
    /// The disks, in the order in which the guest sees them.
    pub disks: Vec<Disk>,
    /// A Linux kernel that takes the place of a boot disk.
    pub linux: Option<Linux>,
    /// Where the first serial port goes.
    pub serial: Serial,
    /// A file that receives what the firmware writes to its debug port.
    pub debugcon: Option<PathBuf>,
    /// Whether the adapter's screen is shown while the machine runs.
    pub screen: Screen,
    /// A PNG file, written once, at the end of the run.
    pub screenshot: Option<PathBuf>,
    /// The text on the screen, written once, at the end of the run.
    pub screen_text: Option<TextOutput>,
    /// Files to which a report of the run is added.
    pub report: Option<ReportFiles>,
    /// The longest the machine may run.
    pub timeout: Option<Duration>,
    /// Who carries out an access to a function.
    pub io: Io,
    /// How the legacy window at 0xa0000 is carried out.
    pub window: Window,
    /// What is typed on the guest's keyboard.
    pub keys: Option<Script>,
    /// Where a trace of the guest's accesses goes.
    pub trace: Option<TraceOutput>,
    /// What is traced; everything if there is none.
    pub trace_filters: Vec<TraceFilter>,
    /// What becomes of a system call that its thread has no use for.
    pub seccomp: Seccomp,
}

/// A kernel to boot without a boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub append: String,
}

/// Where the guest's serial port goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// Standard input and output. The screen is then not shown.
    Stdio,
    /// Output only, to this file.
    File(PathBuf),
    /// There is no serial port.
    None,
}

/// Whether the screen is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Shown when standard input and output are a terminal that nothing else uses.
    Auto,
    /// Never shown.
    None,
}

/// Where the text of the screen goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOutput {
    /// Standard output, after the live view has left it.
    Stdout,
    /// A file, replaced as a whole.
    File(PathBuf),
}

/// Who carries out an access to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The vCPU thread, always.
    Inline,
    /// The worker, always.
    Uring,
    /// The vCPU when the function is idle, else the worker.
    Adaptive,
}

/// How the legacy window is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// One exit and one access each.
    Strict,
    /// KVM collects writes, and the adapter gets them late and merged.
    Coalesced,
    /// As coalesced, and the window of a text mode is memory of the guest's.
    Shadowed,
    /// The fastest way that this host's KVM has.
    Auto,
}

/// Everything `trapline adapter` needs to know, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterConfig {
    /// The Unix socket to listen on.
    pub socket: PathBuf,
    /// The expansion ROM; `None` is the distribution's VGA BIOS.
    pub rom: Option<PathBuf>,
    /// What becomes of a system call that the adapter has no use for.
    pub seccomp: Seccomp,
}
