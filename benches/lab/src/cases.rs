//! The machine cases: each starts the release program and looks at what it does.
//!
//! A case is a function with a name and a deadline in the table of its file; it gets a [`Bench`] with an
//! empty folder of its own.

mod bare;
mod firmware;
mod grub;
mod hostile;
mod life;
mod linux;
mod options;
mod pam;
mod picture;
mod vga;
mod window;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::machine::{Ended, Machine, text};
use crate::steps;
use crate::tally::{Outcome, Tally};
use crate::workspace::Workspace;

/// One test that needs the whole program.
pub struct Case {
    /// Its name: its file's, a colon, and what holds.
    pub name: &'static str,
    /// How long it may take on a host that emulates the guest's every instruction.
    seconds: u64,
    /// Whether it starts a virtual machine.
    kvm: bool,
    run: fn(&Bench) -> Result<()>,
}

/// All of them, in the order in which they are run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        options::CASES,
        firmware::CASES,
        linux::CASES,
        picture::CASES,
        bare::CASES,
        pam::CASES,
        vga::CASES,
        window::CASES,
        grub::CASES,
        life::CASES,
        hostile::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Why a case could not be carried out here: its error, where it is no failure.
#[derive(Debug)]
struct Skipped(&'static str);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// What all cases share.
pub struct Lab {
    workspace: Workspace,
    trapline: PathBuf,
    grub: PathBuf,
    cycles: u32,
    hostile: Duration,
    no_kvm: Option<String>,
}

/// What one case has.
pub struct Bench<'a> {
    lab: &'a Lab,
    folder: TempDir,
    deadline: Instant,
}

impl Lab {
    /// Makes the disk image with GRUB and looks at /dev/kvm; the cases run on `trapline`, the one about
    /// leaks starts it `cycles` times, those of hostile guests take so long.
    pub fn prepare(workspace: &Workspace, trapline: PathBuf, cycles: u32, hostile: Duration) -> Result<Self> {
        let grub = workspace.lab()?.join("grub.img");
        crate::grub::make(&grub)?;
        let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
        let no_kvm = kvm.err().map(|error| format!("/dev/kvm cannot be opened: {error}"));
        Ok(Lab { workspace: workspace.clone(), trapline, grub, cycles, hostile, no_kvm })
    }

    /// Runs a case and says how it went.
    pub fn run(&self, case: &Case) -> Outcome {
        if let Some(why) = self.no_kvm.as_ref().filter(|_| case.kvm) {
            eprintln!("{}: skipped: {why}", case.name);
            return Tally::SKIPPED.into();
        }
        let spinner = steps::watched(case.name);
        let start = Instant::now();
        let result = self.bench(case).and_then(|bench| {
            // The folder stays readable for the report until here.
            (case.run)(&bench).with_context(|| bench.state())
        });
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        judge(case.name, start.elapsed(), result)
    }

    /// The checkout that all of this belongs to.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The program under test.
    pub fn trapline(&self) -> &Path {
        &self.trapline
    }

    /// The disk image with GRUB.
    pub fn grub(&self) -> &Path {
        &self.grub
    }

    fn bench(&self, case: &Case) -> Result<Bench<'_>> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        // Room for more cycles than the usual ones, at two seconds each, and for a longer attack.
        let seconds = case.seconds.max(u64::from(self.cycles) * 2).max(self.hostile.as_secs() + 120);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        Ok(Bench { lab: self, folder, deadline })
    }
}

/// Says how a case went, and counts it.
pub fn judge(name: &str, time: Duration, result: Result<()>) -> Outcome {
    let seconds = time.as_secs_f64();
    match result {
        Ok(()) => {
            eprintln!("{name}: ok ({seconds:.1} s)");
            Tally::PASSED.into()
        }
        Err(error) if error.root_cause().is::<Skipped>() => {
            eprintln!("{name}: skipped: {}", error.root_cause());
            Tally::SKIPPED.into()
        }
        Err(error) => {
            eprintln!("{name}: FAILED ({seconds:.1} s): {}", error.root_cause());
            format!("{error}").lines().for_each(|line| eprintln!("  | {line}"));
            Outcome { tally: Tally::FAILED, failure: error.root_cause().to_string() }
        }
    }
}

impl Bench<'_> {
    /// A file in the case's own folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the case's own folder.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.file(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The disk image with GRUB.
    pub fn grub(&self) -> &Path {
        &self.lab.grub
    }

    /// How often a case that looks for leaks starts a machine.
    pub fn cycles(&self) -> u32 {
        self.lab.cycles
    }

    /// How long a hostile guest has.
    pub fn hostile(&self) -> Duration {
        self.lab.hostile
    }

    /// The program under test.
    pub fn trapline(&self) -> &Path {
        self.lab.trapline()
    }

    /// `trapline` with these arguments, ready to be started; its temporary files go to the case's folder.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let temporary = self.file("tmp");
        std::fs::create_dir_all(&temporary).context("no temporary folder")?;
        let mut command = Command::new(&self.lab.trapline);
        command.args(arguments).env("TMPDIR", &temporary).env("XDG_RUNTIME_DIR", &temporary);
        command.current_dir(self.folder.path());
        Ok(command)
    }

    /// Starts a machine without a live screen: what stood on it is in `screen.txt` and `screen.png` at the end.
    ///
    /// Relative names in `arguments` are names in the case's own folder.
    pub fn machine(&self, arguments: &[&str]) -> Result<Machine> {
        let kept = ["--screen-text", "screen.txt", "--screenshot", "screen.png"];
        self.unseen(&[&kept, arguments].concat())
    }

    /// The same for a machine that may end before its adapter shows anything.
    pub fn unseen(&self, arguments: &[&str]) -> Result<Machine> {
        let mut command = self.command(&["run", "--memory", "256M", "--screen", "none"])?;
        command.args(arguments);
        Machine::start(command, self.folder.path(), self.deadline)
    }

    /// Starts `trapline` with these arguments and waits for its end.
    pub fn trapline_ends<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<Ended> {
        self.ends(self.command(arguments)?)
    }

    /// Starts a program and waits for its end.
    pub fn ends(&self, command: Command) -> Result<Ended> {
        Machine::start(command, self.folder.path(), self.deadline)?.wait()
    }

    /// The text that stood on the screen at the end of the run.
    pub fn screen(&self) -> String {
        text(&self.file("screen.txt"))
    }

    /// What a person wants to see of a case that failed.
    fn state(&self) -> String {
        let screen = self.screen();
        match screen.trim() {
            "" => "nothing stood on the screen".into(),
            _ => format!("on the screen stood:\n{}", screen.trim_end()),
        }
    }
}
