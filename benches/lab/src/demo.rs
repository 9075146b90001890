//! `cargo demo`: SeaBIOS, the VGA BIOS and GRUB on the software adapter.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::packages::{self, Consent};
use crate::workspace::Workspace;
use crate::{grub, steps};

const NEEDED: [packages::Package; 3] = [packages::SEABIOS, packages::GRUB_MODULES, packages::GRUB_TOOLS];
/// How long the boot loader has to draw its menu, from the mark that it sends just before.
const DRAWING: Duration = Duration::from_secs(5);

/// Options of `cargo demo`.
#[derive(clap::Args)]
pub struct Options {
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// Where nobody watches: end after so many seconds at the latest
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    timeout: u32,
}

/// Does all the set-up and boots.
pub fn run(options: &Options) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    check_kvm()?;
    packages::ensure(&NEEDED, Consent::of(options.yes))?;
    build(&workspace)?;
    let folder = workspace.lab()?;
    let image = folder.join("grub.img");
    grub::make(&image)?;
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        on_terminal(&workspace, &image)
    } else {
        unwatched(&workspace, &image, &folder, options.timeout)
    }
}

/// Says what is wrong with /dev/kvm before minutes are spent on a build.
fn check_kvm() -> Result<()> {
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    kvm.map(drop).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!(
            "there is no /dev/kvm: switch virtualisation on in the BIOS set-up, or nesting if this is a \
             virtual machine, and load the module kvm_intel or kvm_amd"
        ),
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "this user may not open /dev/kvm: run `sudo usermod -aG kvm $USER` and log in again"
        ),
        _ => anyhow::anyhow!("cannot open /dev/kvm: {error}"),
    })
}

fn build(workspace: &Workspace) -> Result<()> {
    eprintln!("Building trapline (minutes the first time)");
    let mut command = workspace.cargo(&["build", "--release", "--package", "trapline"]);
    if !command.status().context("cannot run cargo")?.success() {
        bail!("trapline does not build: see the messages above");
    }
    Ok(())
}

fn machine(workspace: &Workspace, image: &Path) -> Command {
    let mut command = Command::new(workspace.trapline());
    command.args(["run", "--memory", "256M", "--disk"]).arg(image);
    command
}

/// The live screen, until the user leaves or turns the machine off.
fn on_terminal(workspace: &Workspace, image: &Path) -> Result<ExitCode> {
    eprintln!("Starting the machine; choose with the arrow keys, leave with Ctrl-A x");
    let status = machine(workspace, image).status().context("cannot run trapline")?;
    Ok(exit_code(status.code()))
}

/// Without a terminal: the screen as text when the menu is there, and a picture of it.
fn unwatched(workspace: &Workspace, image: &Path, folder: &Path, timeout: u32) -> Result<ExitCode> {
    let (text, picture, serial) =
        (folder.join("demo.txt"), folder.join("demo.png"), folder.join("demo.serial"));
    for old in [&text, &picture, &serial] {
        // What is left of the run before must not pass for this one's.
        let _ = std::fs::remove_file(old);
    }
    let mut command = machine(workspace, image);
    command.args(["--screen", "none", "--timeout", &timeout.to_string()]);
    command.arg("--screen-text").arg(&text).arg("--screenshot").arg(&picture).arg("--serial").arg(&serial);
    let mut child = command.stdin(Stdio::null()).spawn().context("cannot run trapline")?;
    let spinner = steps::watched("booting");
    let mut marked: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait().context("trapline is lost")? {
            break status;
        }
        if marked.is_none() && std::fs::read(&serial).is_ok_and(|bytes| bytes.contains(&grub::MARK)) {
            marked = Some(Instant::now());
        }
        if marked.is_some_and(|at| at.elapsed() > DRAWING) {
            // Ends the run in good order: the screen is kept.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            break child.wait().context("trapline is lost")?;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    drop(spinner);
    let Ok(screen) = std::fs::read_to_string(&text) else {
        return Ok(exit_code(status.code().filter(|code| *code != 0).or(Some(1))));
    };
    println!("{}", framed(&screen));
    eprintln!("The same as a picture: {}", picture.display());
    if !screen.contains("GRUB") {
        bail!("the boot loader's menu did not appear within {timeout} s");
    }
    Ok(ExitCode::SUCCESS)
}

/// The screen with lines above and below, so that its blank rows are seen as such.
fn framed(screen: &str) -> String {
    let line = "-".repeat(80);
    format!("{line}\n{}\n{line}", screen.trim_end_matches('\n'))
}

fn exit_code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
