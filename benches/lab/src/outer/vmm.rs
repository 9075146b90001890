//! The process of the outer machine, from its command line to its end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use tempfile::TempDir;

use super::Plan;
use super::archive::Archive;
use super::devices;
use super::job::quoted;
use super::monitor::Monitor;
use super::tree::Tree;
use crate::machine::text;
use crate::speed::usage;

/// The modules that the outer machine loads, besides those that they need.
const MODULES: [&str; 8] =
    ["kvm_amd", "9p", "9pnet_virtio", "overlay", "vfio_iommu_type1", "vfio_pci", "nvme", "e1000e"];
/// The first process.
const INIT: &str = include_str!("init.sh");
/// What it says when it takes commands.
const READY: &[u8] = b"lab: ready";
/// What the outer kernel is told: its messages on the first serial port, the IOMMU on. It must not try
/// whether its timer ticks: on a busy host the emulated one is late, which with interrupt remapping is a panic.
const WORDS: &str = "console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt mitigations=off no_timer_check";
/// SVM for nested KVM; the rest is what QEMU can translate and distributions have come to expect.
const CPU: &str = "qemu64,+svm,+npt,+x2apic,+rdrand,+pdpe1gb,+sse4.2,+popcnt,+cx16,+ssse3";
/// How long it may take until its sockets are open.
const OPENING: Duration = Duration::from_secs(30);
/// How long it may take to end when it is told to.
const FAREWELL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);
/// How many processors it has.
const PROCESSORS: usize = 2;
/// Between two looks at its signs of life, of which each processor gives one a second.
const LOOK: Duration = Duration::from_secs(1);
/// How long one may fail to come. QEMU's translator loses an interrupt of a timer now and then when guests run in it
/// (the local APIC then has it in service for good), and that processor gets no other any more.
const LONGEST_SILENCE: Duration = Duration::from_secs(45);
/// How many lines of a log are worth showing.
const TAIL: usize = 12;
/// With what a kernel begins to tell of its crash.
const CRASHES: [&str; 4] = ["BUG: ", "Oops", "Kernel panic", "general protection fault"];

/// A process of QEMU. It is ended when this is dropped.
pub struct Vmm {
    child: Mutex<Child>,
    control: Mutex<UnixStream>,
    monitor: Monitor,
    folders: Folders,
    started: Instant,
    pulse: Mutex<Pulse>,
}

/// The signs of life of its processors.
struct Pulse {
    /// When they were looked at.
    looked: Instant,
    /// The last of each processor, and when it was new.
    beats: [(String, Instant); PROCESSORS],
}

/// Its files, which go with it.
struct Folders {
    /// Shared with the outer machine, at this path there as well.
    share: TempDir,
    /// Not shared, and with a short path: a socket's may have 107 bytes.
    private: TempDir,
}

impl Vmm {
    /// Starts the process, whose processors then run. An error is one of the command line.
    pub fn start(tree: &Tree, lab: &Path, plan: &Plan) -> Result<Self> {
        let runs = lab.join("runs");
        sweep(&runs);
        std::fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;
        let prefix = format!("{}-", std::process::id());
        let share = tempfile::Builder::new().prefix(&prefix).tempdir_in(&runs);
        let share = share.with_context(|| format!("no folder in {}", runs.display()))?;
        let folders = Folders { share, private: tempfile::tempdir().context("no temporary folder")? };
        let initramfs = initramfs(tree, &folders.share_path(), plan)?;
        let write = |name: &str| folders.private.path().join(name);
        std::fs::write(write("initramfs"), initramfs).context("cannot write the initramfs")?;
        let mut command = command(tree, &folders, plan)?;
        let errors = File::create(write("errors")).context("cannot write a log")?;
        command.stderr(errors);
        if !plan.terminal {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let mut child = command.spawn().context("cannot start the outer machine")?;
        let started = Instant::now();
        match connect(&mut child, &folders, started + OPENING) {
            Ok((control, monitor)) => {
                let pulse = Mutex::new(Pulse::new(started));
                let (child, control) = (Mutex::new(child), Mutex::new(control));
                Ok(Vmm { child, control, monitor, folders, started, pulse })
            }
            Err(error) => {
                // Both fail if it has ended already, which is as well.
                let _ = child.kill();
                let _ = child.wait();
                Err(error).with_context(|| folders.last_words())
            }
        }
    }

    /// Waits until commands are taken, and tells how long that took from the start.
    pub fn boot(&self, deadline: Instant) -> Result<Duration> {
        self.listen(deadline).with_context(|| self.folders.last_words())?;
        *self.pulse.lock().map_err(|_| anyhow!("the process is lost"))? = Pulse::new(Instant::now());
        Ok(self.started.elapsed())
    }

    fn listen(&self, deadline: Instant) -> Result<()> {
        let mut control = self.control.lock().map_err(|_| anyhow!("the control line is lost"))?;
        control.set_read_timeout(Some(TICK)).context("no deadline for the control line")?;
        let mut said: Vec<u8> = Vec::new();
        while !said.windows(READY.len()).any(|window| window == READY) {
            let mut bytes = [0; 64];
            match control.read(&mut bytes) {
                Ok(0) => bail!("it ended before it took commands"),
                Ok(count) => said.extend(&bytes[..count]),
                Err(_) if Instant::now() > deadline => bail!("it takes no commands in time"),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The folder that is shared.
    pub fn share(&self) -> &Path {
        self.folders.share.path()
    }

    /// A folder for files that the outer machine does not see.
    pub fn private(&self) -> &Path {
        self.folders.private.path()
    }

    /// QEMU's monitor.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Processor time that it has used so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let child = self.child.lock().map_err(|_| anyhow!("the process is lost"))?;
        usage::processor_time(child.id())
    }

    /// Says a line to the first process.
    pub fn say(&self, line: &str) -> Result<()> {
        let mut control = self.control.lock().map_err(|_| anyhow!("the control line is lost"))?;
        control.write_all(line.as_bytes()).context("the outer machine takes no commands any more")
    }

    /// An error if the process has ended, or if a processor has given no sign of life for so long that what runs on it
    /// will not come to an end any more.
    pub fn check(&self) -> Result<()> {
        let mut child = self.child.lock().map_err(|_| anyhow!("the process is lost"))?;
        if !matches!(child.try_wait(), Ok(None)) {
            bail!("the outer machine has ended: {}", self.folders.last_words());
        }
        let mut pulse = self.pulse.lock().map_err(|_| anyhow!("the process is lost"))?;
        if pulse.looked.elapsed() > LOOK {
            pulse.look(self.share());
        }
        match pulse.silent_since().elapsed() {
            silence if silence > LONGEST_SILENCE => bail!("a processor of the outer machine stands still"),
            _ => Ok(()),
        }
    }

    /// Whether each processor gives a sign of life from now on, within `patience`.
    pub fn lives(&self, patience: Duration) -> bool {
        let start = Instant::now();
        while self.check().is_ok() && start.elapsed() < patience {
            if self.pulse.lock().is_ok_and(|pulse| pulse.silent_since() > start) {
                return true;
            }
            sleep(TICK);
        }
        false
    }

    /// What the kernel has said.
    pub fn console(&self) -> String {
        text(&self.folders.private.path().join("console"))
    }
}

impl Pulse {
    fn new(now: Instant) -> Pulse {
        Pulse { looked: now, beats: std::array::from_fn(|_| (String::new(), now)) }
    }

    /// Takes note of those that came since.
    fn look(&mut self, share: &Path) {
        self.looked = Instant::now();
        for (cpu, (beat, new)) in self.beats.iter_mut().enumerate() {
            let latest = text(&share.join(format!("beat-{cpu}")));
            if latest != *beat {
                (*beat, *new) = (latest, self.looked);
            }
        }
    }

    /// When that processor last gave one that has been silent for longest.
    fn silent_since(&self) -> Instant {
        self.beats.iter().map(|(_, new)| *new).min().unwrap_or(self.looked)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let Ok(child) = self.child.get_mut() else { return };
        // It gives the terminal back when it ends by itself. Each step fails if it has ended, which is as well.
        let _ = self.monitor.command("quit", &json!({}));
        let patience = Instant::now() + FAREWELL;
        while Instant::now() < patience && matches!(child.try_wait(), Ok(None)) {
            sleep(TICK);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits for the sockets of a process and connects to them: it has then understood its command line.
fn connect(child: &mut Child, folders: &Folders, deadline: Instant) -> Result<(UnixStream, Monitor)> {
    let private = folders.private.path();
    loop {
        // The monitor's socket is opened later than the control line's.
        if let Ok(monitor) = Monitor::connect(&private.join("monitor")) {
            let control = UnixStream::connect(private.join("control")).context("there is no control line")?;
            return Ok((control, monitor));
        }
        if let Ok(Some(status)) = child.try_wait() {
            bail!("QEMU ended with {status}");
        }
        if Instant::now() > deadline {
            bail!("QEMU did not open its sockets in time");
        }
        sleep(TICK);
    }
}

impl Folders {
    fn share_path(&self) -> String {
        self.share.path().to_string_lossy().into_owned()
    }

    /// The ends of what QEMU and the kernel said; of a kernel that has crashed, how that began.
    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let said = text(&self.private.path().join(name));
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            let crash = lines.iter().position(|line| CRASHES.iter().any(|word| line.contains(word)));
            let first = crash.unwrap_or(lines.len().saturating_sub(TAIL));
            lines[first..].iter().take(TAIL).copied().collect::<Vec<_>>().join("\n")
        };
        match (tail("errors"), tail("console")) {
            (errors, console) if errors.is_empty() && console.is_empty() => "it said nothing".into(),
            (errors, console) => format!("it said: {errors}\n{console}").trim().to_owned(),
        }
    }
}

/// The command line of QEMU. It dies with this process, however that ends.
fn command(tree: &Tree, folders: &Folders, plan: &Plan) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(tree.qemu()?);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU]);
    command.args(["-smp", &PROCESSORS.to_string()]);
    command.args(["-m", &plan.memory.to_string()]);
    command.args(["-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on"]);
    command.arg("-kernel").arg(tree.kernel()?);
    let private = |option: &str, name: &str, rest: &str| {
        let mut word = OsString::from(option);
        word.push(option_value(folders.private.path().join(name).as_os_str()));
        word.push(rest);
        word
    };
    command.arg("-initrd").arg(folders.private.path().join("initramfs"));
    command.args(["-append", WORDS]);
    command.arg("-serial").arg(private("file:", "console", ""));
    command.arg("-serial").arg(private("unix:", "control", ",server=on,wait=off"));
    if plan.terminal {
        command.args(["-chardev", "stdio,id=terminal,signal=off", "-serial", "chardev:terminal"]);
    }
    command.arg("-qmp").arg(private("unix:", "monitor", ",server=on,wait=off"));
    command.args(["-device", "VGA,id=boot,addr=1"]);
    share(&mut command, "host", Path::new("/"), ",readonly=on");
    share(&mut command, "share", folders.share.path(), "");
    for (number, device) in plan.devices.iter().enumerate() {
        command.args(device.arguments(number));
    }
    Ok(command)
}

/// Shows a folder to the outer machine, which mounts it by this name.
fn share(command: &mut Command, name: &str, folder: &Path, rest: &str) {
    let mut word = OsString::from(format!("local,id={name},security_model=none,multidevs=remap{rest},path="));
    word.push(option_value(folder.as_os_str()));
    command.arg("-fsdev").arg(word);
    // Without event_idx each request is told to the device. With it QEMU's virtio-9p (10.0) was seen with requests in
    // its ring that it had never looked at, both sides at rest: who opened a file waited for ever. Once one is missed,
    // event_idx has the driver tell of none behind it.
    command.args(["-device", &format!("virtio-9p-pci,event_idx=off,fsdev={name},mount_tag={name}")]);
}

/// A value inside an option of QEMU, in which a comma is written twice.
fn option_value(value: &OsStr) -> OsString {
    value.to_string_lossy().replace(',', ",,").into()
}

/// What the outer machine boots into.
fn initramfs(tree: &Tree, share: &str, plan: &Plan) -> Result<Vec<u8>> {
    let busybox = tree.busybox()?;
    let busybox = std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let modules = tree.modules()?.in_order(&MODULES)?;
    let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
    let bound = devices::bound(&plan.devices).join(" ");
    let settings = format!("SHARE={}\nBIND='{bound}'\nPROCESSORS={PROCESSORS}\n", quoted(share));
    let mut archive = Archive::default();
    archive.folder("bin").folder("lab").folder("lab/modules");
    archive.file("bin/busybox", &busybox).file("init", INIT.as_bytes());
    archive.file("lab/settings", settings.as_bytes()).file("lab/modules/order", order.as_bytes());
    for module in &modules {
        archive.file(&format!("lab/modules/{}.ko", module.name), &module.object);
    }
    Ok(archive.finish())
}

/// Removes what runs left that were killed. Its names start with their process's number.
fn sweep(runs: &Path) {
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process: Option<PathBuf> = name.split_once('-').map(|(pid, _)| Path::new("/proc").join(pid));
        if process.is_some_and(|process| !process.exists()) {
            // What cannot be removed is another user's.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
