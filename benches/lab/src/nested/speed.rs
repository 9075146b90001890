//! Linux's start on an assigned adapter, side by side with QEMU in the same outer machine.
//!
//! Each boot is timed from the start of the program to the kernel's `Run /init` on the serial line, with the
//! console on the adapter too. Both programs have the same function, ROM file, BIOS, kernel, initramfs, kernel
//! command line and memory. They take turns, so that what else the host does falls on all of them. Where
//! other programs are at work, the processor time of the outer machine says more than the time on the clock.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::devices::{ADAPTER, DEVICES};
use super::{Case, Set, Stage};
use crate::cases::Lab;
use crate::inner::{self, RUN_INIT};
use crate::outer::{Device, Outer, Plan, Tree, quoted};
use crate::packages;

pub const CASES: &[Case] = &[Case {
    name: "vfio: Linux starts on an adapter not much later than with QEMU",
    set: &DEVICES,
    seconds: 400,
    run: pair,
}];

/// A case fails only beyond this many times QEMU's time: one pair on a busy host is no measurement. That
/// is `cargo lab speed --nested`.
const GROSS: f64 = 1.5;
/// How long one boot may take.
const PATIENCE: Duration = Duration::from_secs(200);
/// Memory of the guest in MiB.
const MEMORY: &str = "512";

/// One adapter and nothing else.
static ALONE: Set = Set { name: "VGA", devices: |_| Ok(vec![Device::new("VGA")]) };

/// A program and its arguments, as words of the shell.
struct Contender {
    name: String,
    command: String,
}

/// What a boot is made of, at paths that the outer machine has too.
struct Parts {
    function: String,
    rom: String,
    firmware: String,
    kernel: String,
    initramfs: String,
}

impl Parts {
    fn of(stage: &Stage<'_>) -> Result<Self> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let firmware = packages::SEABIOS.file().context("SeaBIOS is gone")?;
        Ok(Parts {
            function: stage.place(ADAPTER)?.function,
            rom: text(&stage.tree.rom("vgabios-stdvga.bin")?),
            firmware: firmware.into(),
            kernel: text(&stage.tree.kernel()?),
            initramfs: text(&stage.write("initramfs", &inner::initramfs(stage.tree)?)?),
        })
    }

    /// A build of trapline.
    fn trapline(&self, name: &str, program: &Path) -> Contender {
        let device = format!("{},rom={}", self.function, self.rom);
        let memory = format!("{MEMORY}M");
        let own = ["run", "--screen", "none", "--memory", &memory, "--device", &device, "--firmware"];
        let rest = [&self.firmware, "--kernel", &self.kernel, "--initrd", &self.initramfs];
        let end = ["--append", &inner::command_line(&[]), "--serial", "serial"];
        let program = program.to_string_lossy();
        let words = std::iter::once(&*program).chain(own).chain(rest).chain(end);
        Contender { name: name.into(), command: line(words) }
    }

    /// The tree's QEMU as one of its machines.
    fn qemu(&self, tree: &Tree, machine: &str) -> Result<Contender> {
        let device = format!("vfio-pci,host={},x-vga=on,romfile={}", self.function, self.rom);
        let own = ["-nodefaults", "-no-user-config", "-machine", machine, "-accel", "kvm", "-cpu", "host"];
        let screen = ["-vga", "none", "-display", "none", "-m", MEMORY, "-device", &device, "-bios"];
        let rest = [&self.firmware, "-kernel", &self.kernel, "-initrd", &self.initramfs];
        let end = ["-append", &inner::command_line(&[]), "-serial", "file:serial"];
        let program: Vec<String> =
            tree.qemu()?.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let words = program.iter().map(String::as_str).chain(own).chain(screen).chain(rest).chain(end);
        Ok(Contender { name: format!("QEMU -M {machine}"), command: line(words) })
    }
}

fn line<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// What one boot took, in seconds.
struct Boot {
    /// From the program's start to the first process.
    seconds: f64,
    /// Processor time of the outer machine until the program was gone.
    processor: f64,
}

impl Contender {
    /// One boot, from the program's start to the first process. The serial line is a pipe, so that
    /// waiting for the text takes nothing from the two processors.
    fn boot(&self, stage: &Stage<'_>) -> Result<Boot> {
        let script = format!(
            "folder=$(mktemp -d)\ncd $folder\nmkfifo serial\nstart=$(date +%s%N)\n\
             ({} > said 2>&1 & echo $! > pid; wait $!; : 1<> serial) &\n\
             if grep -q '{RUN_INIT}' < serial; then end=$(date +%s%N); else cat said; exit 1; fi\n\
             kill -KILL $(cat pid)\nwait\nrm -r $folder\necho $((end - start))",
            self.command
        );
        let before = stage.outer.processor_time()?;
        let ended = stage.start(&script)?.wait(stage.deadline.min(Instant::now() + PATIENCE));
        let ended = ended.with_context(|| self.name.clone())?;
        let said = ended.output.trim();
        ensure!(ended.status == 0, "{} ended before the first process ran: {said}", self.name);
        let nanoseconds: u64 = said.lines().last().and_then(|line| line.parse().ok()).context("no time")?;
        let processor = stage.outer.processor_time()?.saturating_sub(before);
        Ok(Boot {
            seconds: Duration::from_nanos(nanoseconds).as_secs_f64(),
            processor: processor.as_secs_f64(),
        })
    }
}

fn pair(stage: &Stage<'_>) -> Result<()> {
    let parts = Parts::of(stage)?;
    let trapline = parts.trapline("trapline", stage.program()).boot(stage)?;
    let qemu = parts.qemu(stage.tree, "pc")?.boot(stage)?;
    let (ratio, processor) = (trapline.seconds / qemu.seconds, trapline.processor / qemu.processor);
    let said = format!(
        "trapline {:.1} s, QEMU {:.1} s: {ratio:.2} times; processor time {processor:.2} times",
        trapline.seconds, qemu.seconds
    );
    eprintln!("{said}");
    ensure!(ratio < GROSS, "{said}");
    Ok(())
}

/// What one program's boots took, in seconds, one for each round.
#[derive(Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// From the program's start to the first process.
    pub seconds: Vec<f64>,
    /// Processor time of the outer machine.
    pub processor: Vec<f64>,
}

/// Boots trapline, QEMU's two machines and the programs `against` in turn, so many times each. The folder
/// `files` is for packages and for what runs leave. Blocks for minutes.
pub fn measure(lab: &Lab, files: &Path, rounds: u16, against: &[std::path::PathBuf]) -> Result<Vec<Series>> {
    let tree = Tree::prepare(files)?;
    let plan = Plan { devices: (ALONE.devices)(files)?, ..Plan::default() };
    let outer = Outer::boot(&tree, files, &plan)?;
    let one_round = PATIENCE * u32::try_from(3 + against.len()).context("too many programs")?;
    let deadline = Instant::now() + one_round * u32::from(rounds);
    let stage = Stage::new(&outer, &tree, lab, plan.devices.len(), deadline)?;
    let parts = Parts::of(&stage)?;
    let mut contenders = vec![
        parts.trapline("trapline", stage.program()),
        parts.qemu(&tree, "pc")?,
        parts.qemu(&tree, "q35")?,
    ];
    for program in against {
        let program = std::path::absolute(program).context("a program is not named")?;
        contenders.push(parts.trapline(&program.display().to_string(), &program));
    }
    let mut series: Vec<Series> = contenders
        .iter()
        .map(|contender| Series { name: contender.name.clone(), seconds: Vec::new(), processor: Vec::new() })
        .collect();
    for round in 1..=rounds {
        for (contender, series) in contenders.iter().zip(&mut series) {
            let boot = contender.boot(&stage).with_context(|| stage.state())?;
            let (seconds, processor) = (boot.seconds, boot.processor);
            eprintln!("round {round}, {}: {seconds:.1} s, processor time {processor:.1} s", contender.name);
            series.seconds.push(seconds);
            series.processor.push(processor);
        }
    }
    Ok(series)
}
