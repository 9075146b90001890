//! `cargo lab up`: a shell or a command in the outer machine.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::outer::{Device, Outer, Plan, Tree, in_place, quoted};
use crate::workspace::Workspace;

/// Options of `cargo lab up`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    machine: Machine,
    /// End the command after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// What to run inside, in this folder, as words of its shell; without it there is a shell on the terminal
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What the outer machine is like.
#[derive(clap::Args)]
pub struct Machine {
    /// A device of QEMU that vfio-pci gets, with its properties behind commas; may be repeated
    ///
    /// The first is function 0000:01:00.0 and d1 on the screen side, the second 0000:02:00.0 and d2, and so
    /// on, each behind a root port of its own. A second device behind a plus sign is another function of the
    /// same one: VGA+edu.
    #[arg(long = "device", value_name = "NAME[,PROPERTY=..][+NAME]")]
    devices: Vec<String>,
    /// A further option of QEMU, such as -drive or -netdev for a device; may be repeated
    #[arg(long = "qemu", value_name = "OPTION VALUE")]
    options: Vec<String>,
    /// Memory in MiB
    #[arg(long, default_value_t = 4096)]
    memory: u32,
}

impl Machine {
    /// What is to be booted; VGA alone where no device is named.
    pub fn plan(&self) -> Plan {
        let mut devices: Vec<Device> = self.devices.iter().map(|device| Device::new(device)).collect();
        if devices.is_empty() {
            devices.push(Device::new("VGA"));
        }
        let words: Vec<&str> = self.options.iter().flat_map(|option| option.split_whitespace()).collect();
        let first = devices.remove(0);
        devices.insert(0, first.with(&words));
        Plan { devices, memory: self.memory, ..Plan::default() }
    }
}

/// Boots and runs the command; its exit status is this one's.
pub fn run(options: &Options) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let lab = workspace.lab()?;
    let tree = Tree::prepare(&lab)?;
    let terminal = options.command.is_empty();
    let plan = Plan { terminal, ..options.machine.plan() };
    let outer = Outer::boot(&tree, &lab, &plan)?;
    eprintln!("The outer machine took {:.1} s to boot.", outer.boot_time().as_secs_f64());
    for number in 0..plan.devices.len() {
        let place = outer.place(number)?;
        eprintln!("{}: {}", place.id, place.function);
    }
    if terminal {
        outer.shell()?;
        return Ok(ExitCode::SUCCESS);
    }
    // One word is a line for the shell, several are words that it must not split again.
    let command = match options.command.as_slice() {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    follow(&outer, &in_place(&command)?, Duration::from_secs(options.timeout))
}

/// Runs the command and passes on what it says.
fn follow(outer: &Outer, command: &str, timeout: Duration) -> Result<ExitCode> {
    let deadline = Instant::now() + timeout;
    let mut job = outer.start(command)?;
    let mut shown = 0;
    loop {
        // First the status: what was written before the end is then there.
        let status = job.status();
        let output = job.output();
        let mut out = std::io::stdout();
        out.write_all(output.as_bytes().get(shown..).unwrap_or_default())
            .context("nobody reads the output")?;
        out.flush().context("nobody reads the output")?;
        shown = output.len();
        if let Some(status) = status {
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
        }
        outer.check()?;
        if Instant::now() > deadline {
            job.kill()?;
            bail!("the command did not end in time");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
