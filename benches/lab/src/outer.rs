//! The outer machine of the nested laboratory: a host for trapline with KVM, an IOMMU and adapters to give
//! away, none of which this machine needs to have.
//!
//! It is QEMU with its own translator (TCG), a processor with SVM, and an emulated VT-d with interrupt
//! remapping. It boots a distribution's kernel and sees this machine's files at their own paths: what it
//! writes to them stays in its memory, except in the one folder that is shared. To trapline, its emulated
//! adapters are physical ones; what a guest shows on one of them is read from outside.
//!
//! | file | what |
//! |---|---|
//! | [`packages`], [`sources`] | the distribution's packages, by an apt with a state of its own |
//! | [`tree`], [`modules`] | what they hold: QEMU, a kernel and its modules |
//! | [`archive`] | the initramfs, and any other |
//! | [`devices`] | what can be assigned |
//! | [`vmm`] | the process, from its command line to its end |
//! | [`job`] | commands that are run inside |
//! | [`monitor`] | QEMU's monitor |

pub mod archive;
pub mod devices;
mod job;
mod modules;
mod monitor;
mod packages;
mod sources;
mod tree;
mod vmm;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use devices::{Device, Place};
pub use job::{Ended, Job, in_place, quoted};
pub use tree::Tree;

use crate::screen::{Font, Picture, Screen};
use vmm::Vmm;

/// How long one try to boot may take.
const BOOT: Duration = Duration::from_secs(90);
/// How often it is tried. A nested boot can go wrong by itself; what is tested afterwards is not repeated.
const TRIES: u32 = 3;
/// How long one that lives may take to show it.
const AWAKENING: Duration = Duration::from_secs(30);
/// How often a condition is looked at: a look at a screen stops the emulated processors for a moment.
const TICK: Duration = Duration::from_millis(200);

/// What is to be booted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What can be assigned.
    pub devices: Vec<Device>,
    /// Memory in MiB.
    pub memory: u32,
    /// Whether this process's terminal becomes that of a shell.
    pub terminal: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { devices: Vec::new(), memory: 4096, terminal: false }
    }
}

/// A running outer machine. It ends when this is dropped.
pub struct Outer {
    vmm: Vmm,
    plan: Plan,
    font: Font,
    boot_time: Duration,
}

impl Outer {
    /// Boots it, up to three times, until commands can be run in it. Its files go below `lab`.
    ///
    /// Blocks for some seconds, at most for some minutes.
    pub fn boot(tree: &Tree, lab: &Path, plan: &Plan) -> Result<Self> {
        let rom = tree.rom("vgabios-stdvga.bin")?;
        let bytes = std::fs::read(&rom).with_context(|| format!("cannot read {}", rom.display()))?;
        let font = Font::find(&bytes).with_context(|| rom.display().to_string())?;
        let mut attempt = 1;
        loop {
            let vmm = Vmm::start(tree, lab, plan).context("the outer machine cannot be started")?;
            match vmm.boot(Instant::now() + BOOT) {
                Ok(boot_time) => return Ok(Outer { vmm, plan: plan.clone(), font, boot_time }),
                Err(error) if attempt == TRIES => {
                    return Err(error)
                        .with_context(|| format!("the outer machine failed to boot {TRIES} times"));
                }
                Err(error) => eprintln!("The outer machine is booted again: {error:#}"),
            }
            attempt += 1;
        }
    }

    /// The folder that is shared, at this path inside and out.
    pub fn share(&self) -> &Path {
        self.vmm.share()
    }

    /// How long the boot took that succeeded.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Processor time of this machine that it has used so far.
    pub fn processor_time(&self) -> Result<Duration> {
        self.vmm.processor_time()
    }

    /// Where the device with this number, from 0, is found.
    pub fn place(&self, number: usize) -> Result<Place> {
        let device = self.plan.devices.get(number);
        Ok(device.with_context(|| format!("the outer machine has no device {number}"))?.place(number))
    }

    /// Starts a command of the host's shell, as root, in the shared folder.
    pub fn start(&self, command: &str) -> Result<Job<'_>> {
        Job::start(&self.vmm, command)
    }

    /// Runs a command to its end; it is killed and an error past the deadline.
    pub fn run(&self, command: &str, deadline: Duration) -> Result<Ended> {
        self.start(command)?.wait(Instant::now() + deadline)
    }

    /// Runs a command that must succeed, and gives back what it printed.
    pub fn output(&self, command: &str, deadline: Duration) -> Result<String> {
        let ended = self.run(command, deadline)?;
        match ended.status {
            0 => Ok(ended.output),
            status => bail!("`{command}` ended with status {status}: {}", ended.output.trim()),
        }
    }

    /// Gives this process's terminal to a shell inside, until it ends.
    pub fn shell(&self) -> Result<()> {
        Job::shell(&self.vmm)?.wait(Instant::now() + Duration::from_secs(u64::from(u32::MAX)))?;
        Ok(())
    }

    /// What the device with this id shows: `d1`, `d2`, ..., or `boot` for the outer machine's own adapter.
    pub fn screen(&self, id: &str) -> Result<Screen> {
        let file = self.vmm.private().join("screen.ppm");
        self.vmm.monitor().screendump(id, &file)?;
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Screen::read(Picture::of_pixmap(&bytes)?, &self.font))
    }

    /// Waits until the device with this id shows `text` in a line, while `job` runs.
    pub fn until_text(&self, job: &mut Job<'_>, id: &str, text: &str, deadline: Instant) -> Result<Screen> {
        loop {
            let ended = job.status();
            let screen = self.screen(id)?;
            if screen.shows(text) {
                return Ok(screen);
            }
            if let Some(status) = ended {
                bail!("it ended with status {status} before {id} showed \"{text}\": {}", job.output().trim());
            }
            self.vmm.check()?;
            if Instant::now() > deadline {
                return Err(job.late(&format!("no \"{text}\" on {id} in time")));
            }
            sleep(TICK);
        }
    }

    /// An error if QEMU has ended, or if a processor has given no sign of life for so long that what runs on it will not
    /// come to an end any more.
    pub fn check(&self) -> Result<()> {
        self.vmm.check()
    }

    /// Whether it is no stage for anything any more: QEMU itself has ended, or a processor gives no signs of life. Blocks
    /// for a second, or half a minute.
    pub fn has_broken_down(&self) -> bool {
        !self.vmm.lives(AWAKENING)
    }

    /// What its kernel has said.
    pub fn console(&self) -> String {
        self.vmm.console()
    }
}
