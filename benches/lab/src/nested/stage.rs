//! What one case has of an outer machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cases::Lab;
use crate::inner::{self, Step};
use crate::machine::text;
use crate::outer::archive::Archive;
use crate::outer::{Job, Outer, Place, Tree, quoted};
use crate::screen::Screen;
use crate::workspace::Workspace;

/// How many lines of a file are worth showing.
const TAIL: usize = 12;
/// Files that are longer are no text for people.
const LONGEST: u64 = 4 << 20;
/// How long a `trapline` may take at least to end, whatever is left of the case's time: after 80 s it ends by itself, and
/// says why.
const FAREWELL: Duration = Duration::from_secs(100);
/// The exit status after SIGTERM.
pub const TERMINATED: i32 = 128 + 15;
/// The adapter that the outer machine itself has booted on, and which stands in text mode.
pub const BOOT_ADAPTER: &str = "0000:00:01.0";
/// Numbers of folders.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// An outer machine, an empty folder that it shares, and a deadline.
pub struct Stage<'a> {
    /// The outer machine.
    pub outer: &'a Outer,
    /// QEMU and a kernel, here and inside.
    pub tree: &'a Tree,
    /// When the case must be over.
    pub deadline: Instant,
    lab: &'a Lab,
    devices: usize,
    folder: PathBuf,
}

impl<'a> Stage<'a> {
    /// A stage in a folder of its own on a machine with so many devices.
    pub(super) fn new(
        outer: &'a Outer,
        tree: &'a Tree,
        lab: &'a Lab,
        devices: usize,
        deadline: Instant,
    ) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = outer.share().join(format!("case-{number}"));
        std::fs::create_dir_all(&folder).context("no folder for the case")?;
        Ok(Stage { outer, tree, deadline, lab, devices, folder })
    }

    /// A file of the case, at this path here and inside.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The text of a file of the case, as far as it is there.
    pub fn text(&self, name: &str) -> String {
        text(&self.file(name))
    }

    /// Writes a file of the case.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.file(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The disk image with GRUB.
    pub fn grub(&self) -> &Path {
        self.lab.grub()
    }

    /// The device with this number, from 0.
    pub fn place(&self, number: usize) -> Result<Place> {
        self.outer.place(number)
    }

    /// Binds the adapter that the outer machine itself has booted on, and which stands in text mode, to
    /// vfio-pci, and gives its address.
    pub fn boot_adapter(&self) -> Result<&'static str> {
        self.output(&format!(
            "cd /sys/bus/pci/devices/{BOOT_ADAPTER} && echo vfio-pci > driver_override && \
             echo {BOOT_ADAPTER} > ../../../bus/pci/drivers_probe; [ -e driver ]"
        ))?;
        Ok(BOOT_ADAPTER)
    }

    /// What is left of the case's time.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs a command inside that must succeed, and gives back what it printed.
    pub fn output(&self, command: &str) -> Result<String> {
        self.outer.output(&self.here(command), self.left())
    }

    /// Starts a command inside, in the case's folder.
    pub fn start(&self, command: &str) -> Result<Job<'a>> {
        self.outer.start(&self.here(command))
    }

    /// The checkout that all of this belongs to, at this path here and inside.
    pub fn workspace(&self) -> &Workspace {
        self.lab.workspace()
    }

    /// The program under test, at this path here and inside.
    pub fn program(&self) -> &Path {
        self.lab.trapline()
    }

    /// Starts `trapline` inside with these arguments, in the case's folder.
    pub fn trapline(&self, arguments: &[&str]) -> Result<Job<'a>> {
        self.start(&format!("exec {}", self.command(arguments)))
    }

    /// `trapline` with these arguments, for the shell.
    pub fn command(&self, arguments: &[&str]) -> String {
        let program = self.program().to_string_lossy();
        let words = std::iter::once(&*program).chain(arguments.iter().copied());
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Ends a `trapline` as a user's `kill` does, and gives back what it said.
    pub fn terminate(&self, job: Job<'_>) -> Result<String> {
        job.terminate()?;
        self.terminated(job)
    }

    /// Waits for the end of one that was asked for it, and gives back what it said.
    pub fn terminated(&self, job: Job<'_>) -> Result<String> {
        let ended = job.wait(self.deadline.max(Instant::now() + FAREWELL)).context("ended by SIGTERM")?;
        let said = ended.output.trim();
        ensure!(ended.status == TERMINATED, "ended by SIGTERM, its status is {}: {said}", ended.status);
        Ok(ended.output)
    }

    /// Starts a virtual machine inside, with these further arguments.
    pub fn machine(&self, arguments: &[&str]) -> Result<Job<'a>> {
        self.trapline(&[&["run", "--screen", "none", "--memory", "512M"], arguments].concat())
    }

    /// What makes Linux a guest, with these modules, and where its serial line goes, for `trapline run`.
    pub fn linux_arguments(&self, modules: &[&str], steps: &[Step], serial: &str) -> Result<[String; 8]> {
        let initramfs = self.write("initramfs", &inner::initramfs(self.tree, modules)?)?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        Ok([
            "--kernel".to_owned(),
            path(&self.tree.kernel()?),
            "--initrd".to_owned(),
            path(&initramfs),
            "--append".to_owned(),
            inner::command_line(steps),
            "--serial".to_owned(),
            serial.to_owned(),
        ])
    }

    /// Starts Linux with these modules in a virtual machine with these further arguments. It carries out the steps,
    /// and a file of the case is its serial line.
    pub fn linux(
        &self,
        arguments: &[&str],
        modules: &[&str],
        steps: &[Step],
        serial: &str,
    ) -> Result<Job<'a>> {
        let linux = self.linux_arguments(modules, steps, serial)?;
        self.machine(&[arguments, &linux.each_ref().map(String::as_str)].concat())
    }

    /// Starts a virtual machine inside, with these further arguments, whose guest gets what [`Stage::answer`]
    /// sends on its serial line.
    pub fn answered_machine(&self, arguments: &[&str]) -> Result<Job<'a>> {
        let own = ["run", "--screen", "none", "--memory", "512M", "--serial", "stdio"];
        let (pipe, command) = (self.pipe(), self.command(&[&own, arguments].concat()));
        self.start(&format!("rm -f {pipe}\nmkfifo {pipe}\nexec {command} <> {pipe}"))
    }

    /// Sends a byte to the guest of [`Stage::answered_machine`].
    pub fn answer(&self, byte: u8) -> Result<()> {
        self.output(&format!("printf {} > {}", char::from(byte), self.pipe())).map(drop)
    }

    /// A pipe in a folder of the outer machine's own: the shared one has none.
    fn pipe(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        quoted(&format!("/tmp/{name}.pipe"))
    }

    /// Starts QEMU inside as a machine like [`Stage::machine`]'s, with these further arguments.
    pub fn qemu(&self, arguments: &[&str]) -> Result<Job<'a>> {
        let own = self.tree.qemu()?;
        let common = ["-nodefaults", "-no-user-config", "-accel", "kvm", "-m", "512", "-vga", "none"];
        let words = own.iter().map(|word| quoted(&word.to_string_lossy()));
        let rest = common.iter().chain(&["-display", "none"]).chain(arguments).map(|word| quoted(word));
        self.start(&format!("exec {}", words.chain(rest).collect::<Vec<_>>().join(" ")))
    }

    /// Waits until the device with this id shows `text`; an error if the command ends before.
    pub fn until_text(&self, job: &mut Job<'_>, id: &str, text: &str) -> Result<Screen> {
        self.outer.until_text(job, id, text, self.deadline)
    }

    /// Waits until a file of the case has this text in it; an error if the command ends before.
    pub fn until_said(&self, job: &mut Job<'_>, name: &str, wanted: &str) -> Result<()> {
        job.until(&format!("\"{wanted}\" in {name}"), self.deadline, || self.text(name).contains(wanted))
    }

    /// Writes an initramfs with busybox in which `script` is the first process, and gives back its path.
    pub fn initramfs(&self, script: &str) -> Result<PathBuf> {
        let busybox = self.tree.busybox()?;
        let busybox =
            std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "sys"] {
            archive.folder(folder);
        }
        let start = "#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\n\
                     mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n";
        archive.file("bin/busybox", &busybox).file("init", format!("{start}{script}\n").as_bytes());
        self.write("initramfs", &archive.finish())
    }

    /// What a person wants to see of a case that failed: screens, and the ends of files.
    pub(super) fn state(&self) -> String {
        let mut parts = Vec::new();
        for number in 0..self.devices {
            let screen = self.place(number).and_then(|place| Ok((self.outer.screen(&place.id)?, place.id)));
            // A device without a screen is none to look at.
            if let Ok((screen, id)) = screen {
                let lines: Vec<&str> = screen.text.lines().filter(|line| !line.is_empty()).collect();
                parts.push(match lines.as_slice() {
                    [] => format!("{id} shows no text"),
                    lines => format!("{id} shows:\n{}", lines.join("\n")),
                });
            }
        }
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let texts = files.filter(|file| file.metadata().is_ok_and(|data| data.len() < LONGEST));
        for path in texts.map(|file| file.path()) {
            let said = text(&path);
            // A disk or a ROM says nothing to a person.
            if !said.contains('\0') {
                parts.push(format!("the end of {}:\n{}", path.display(), tail(&said)));
            }
        }
        let console = self.outer.console();
        parts.push(format!("the outer machine's kernel said last:\n{}", tail(&console)));
        parts.join("\n")
    }

    fn here(&self, command: &str) -> String {
        format!("cd {}\n{command}", quoted(&self.folder.to_string_lossy()))
    }
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
