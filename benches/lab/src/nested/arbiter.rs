//! The host's legacy VGA ranges, which two guests and the host's own console share.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};

use super::life::greets;
use super::stage::BOOT_ADAPTER;
use super::window::{bursting, settled};
use super::{Case, Set, Stage};
use crate::outer::{Device, Job, Place};
use crate::payload::burst::{self, Pace};

/// Two adapters of one kind, so that what differs is not theirs, each behind a root port of its own. The outer
/// machine's console is on another one.
static SET: Set = Set {
    name: "two adapters behind two root ports",
    devices: |_| Ok(vec![Device::new("VGA"), Device::new("VGA")]),
};

/// How long screens are counted.
const COUNTED: Duration = Duration::from_secs(6);
/// The part of the other's screens that the slower one of two equal guests must have at least: two processors
/// that are shared with others do not give each the same time.
const FAIR: f64 = 0.2;
/// How many more turns of the host's program are waited for.
const TURNS: usize = 3;
/// Longer than the kernel takes to close a card.
const CLOSED: Duration = Duration::from_secs(2);

/// How long QEMU may take to show what the host has written, and between two looks.
const PICTURE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: the host's console has legacy VGA while a guest rests, and after it",
        set: &SET,
        seconds: 300,
        run: console,
    },
    Case {
        name: "vfio: a machine that is stopped or killed in the middle of its lease keeps nobody",
        set: &SET,
        seconds: 240,
        run: held,
    },
    Case {
        name: "vfio: a run ends although another program keeps legacy VGA for good",
        set: &SET,
        seconds: 200,
        run: kept,
    },
    Case {
        name: "vfio: the host's text is on its adapter again after a guest had it",
        set: &SET,
        seconds: 200,
        run: in_time,
    },
];

/// Two guests that never pause, which QEMU's nested virtualisation now and then loses one of, under QEMU as under
/// trapline ([`crate::payload::burst`]): a measurement to be looked at, and no test that every run can pass.
pub const BY_HAND: &[Case] = &[Case {
    name: "by hand: two guests that write at full speed share legacy VGA, and neither starves",
    set: &SET,
    seconds: 400,
    run: share,
}];

/// A guest that fills its screen without end.
struct Writer<'a> {
    job: Job<'a>,
    adapter: Place,
    letter: u8,
    debug: String,
}

impl<'a> Writer<'a> {
    fn start(stage: &Stage<'a>, number: usize, window: &str, lease: &str) -> Result<Writer<'a>> {
        let adapter = stage.place(number)?;
        let letter = [b'0', b'a'][number];
        let disk = burst::disk("Side by side.", letter, Pace::Counted);
        let disk = stage.write(&format!("burst-{number}.disk"), &disk)?;
        let disk = format!("{},readonly", disk.display());
        let debug = format!("debug-{number}-{window}-{lease}");
        let device = format!("{},arbiter={lease}", adapter.function);
        let words = ["--device", &device, "--disk", &disk, "--debugcon", &debug, "--window", window];
        let job = stage.machine(&words)?;
        let mut writer = Writer { job, adapter, letter, debug };
        writer.shows(stage)?;
        Ok(writer)
    }

    /// Its screen has its own letters, and they change.
    fn shows(&mut self, stage: &Stage<'_>) -> Result<()> {
        bursting(stage, &mut self.job, &self.adapter, self.letter)
    }

    /// How many it has written.
    fn screens(&self, stage: &Stage<'_>) -> usize {
        filled(stage, &self.debug)
    }

    /// Waits for some more.
    fn goes_on(&mut self, stage: &Stage<'_>) -> Result<()> {
        let before = self.screens(stage);
        let Writer { job, debug, .. } = self;
        job.until("more screens", stage.deadline, || filled(stage, debug) > before + 1)
    }

    /// The words by which a process of its machine is found.
    fn words(&self, command: &str) -> String {
        format!("trapline {command} .*{}", self.adapter.function)
    }
}

/// How many screens this debug console tells of.
fn filled(stage: &Stage<'_>, debug: &str) -> usize {
    stage.text(debug).matches(burst::FILLED).count()
}

fn share(stage: &Stage<'_>) -> Result<()> {
    for (window, lease) in [("strict", "off"), ("strict", "on"), ("auto", "off"), ("auto", "on")] {
        let mut writers = [Writer::start(stage, 0, window, lease)?, Writer::start(stage, 1, window, lease)?];
        let [one, other] = rates(stage, &writers)?;
        eprintln!("  --window {window}, arbiter={lease}: {one:.2} and {other:.2} screens a processor second");
        // Where the window is shadowed most of what a guest writes never comes to the arbiter.
        let least = if window == "strict" && lease == "on" { FAIR * one.max(other) } else { 0.0 };
        ensure!(
            one.min(other) > 0.0 && one.min(other) >= least,
            "--window {window}, arbiter={lease}: one guest writes {one:.2} screens in the time of the other's {other:.2}"
        );
        for writer in &mut writers {
            writer.shows(stage).with_context(|| format!("--window {window}, arbiter={lease}"))?;
        }
        for mut writer in writers {
            writer.job.kill()?;
        }
    }
    Ok(())
}

/// A program of the host's wants the ranges for its own card all the time, as another machine would: it gets them
/// between the leases of two guests that never pause, and both go on.
fn beside_the_host(stage: &Stage<'_>, writers: &mut [Writer<'_>; 2]) -> Result<()> {
    let mut host = stage.start(
        "exec 3<>/dev/vga_arbiter && printf 'target default' >&3 && \
         while printf 'lock io+mem' >&3 && printf 'unlock io+mem' >&3 && echo turn >> turns; do sleep 0.02; done",
    )?;
    stage.until_said(&mut host, "turns", "turn")?;
    let turns = |stage: &Stage<'_>| stage.text("turns").lines().count();
    let (begun, before) = (Instant::now(), turns(stage));
    let [one, other] = rates(stage, writers)?;
    let had = turns(stage) - before;
    eprintln!(
        "  two guests write {one:.2} and {other:.2} screens a processor second, and the host has {had} turns in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    // A slow machine needs more than that time.
    let before = turns(stage);
    host.until("more turns of the host", stage.deadline, || turns(stage) > before + TURNS)?;
    writers.iter_mut().try_for_each(|writer| writer.goes_on(stage).context("beside the host"))?;
    host.kill()?;
    writers.iter_mut().try_for_each(|writer| writer.shows(stage).context("beside the host"))
}

fn held(stage: &Stage<'_>) -> Result<()> {
    let mut writers = [Writer::start(stage, 0, "strict", "on")?, Writer::start(stage, 1, "strict", "on")?];
    beside_the_host(stage, &mut writers)?;
    let first = writers[0].words("run");
    // What it has begun to write is written then.
    stage.output(&format!("pkill -STOP -f '{first}'; sleep 1"))?;
    let before = writers[0].screens(stage);
    writers[1].goes_on(stage)?;
    let after = writers[0].screens(stage);
    ensure!(before == after, "one that is stopped writes {} screens", after - before);
    stage.output(&format!("pkill -CONT -f '{first}'"))?;
    for writer in &mut writers {
        writer.shows(stage).context("after one was stopped")?;
    }
    // The keeper of a machine that was killed ends by itself.
    stage.output(&format!("pkill -KILL -f '{first}'"))?;
    let keeper = writers[0].words("vga-lease");
    stage.output(&gone(&keeper))?;
    // And a machine goes on without its keeper.
    let keeper = writers[1].words("vga-lease");
    stage.output(&format!("pkill -KILL -f '{keeper}'"))?;
    writers[1].goes_on(stage).context("without its keeper")?;
    writers[1].shows(stage)?;
    writers[1].job.kill()?;
    take_back(stage, &writers[1].adapter)?;
    says(stage, "the host takes them back")
}

/// A program that never gives the ranges back has every access of the guest sleep in the kernel. The run ends all the
/// same, in good order, whoever carries the accesses out.
fn kept(stage: &Stage<'_>) -> Result<()> {
    let mut program = stage.start(
        "exec 3<>/dev/vga_arbiter && printf 'target default' >&3 && printf 'lock io+mem' >&3 && echo kept > kept && \
         exec sleep 200",
    )?;
    stage.until_said(&mut program, "kept", "kept")?;
    let start = |number: usize, io: &'static str| {
        let (device, report) = (stage.place(number)?.function, format!("{io}.json"));
        let job = stage.machine(&["--device", &device, "--io", io, "--report", &report])?;
        Ok::<_, Error>((job, device, io))
    };
    let machines = [start(0, "adaptive")?, start(1, "uring")?];
    for (job, device, _) in &machines {
        // Where its threads wait in the kernel.
        let stacks = format!("$(pgrep -f 'trapline run .*{device}' | sed 's|.*|/proc/&/task/*/stack|')");
        stage.output(&format!("until grep -qs vga_get {stacks}; do sleep 0.2; done"))?;
        job.terminate()?;
    }
    for (job, _, io) in machines {
        let said = stage.terminated(job).with_context(|| format!("--io {io}"))?;
        ensure!(said.contains("what is under way with devices is given up"), "--io {io}: {}", said.trim());
        let report = stage.text(&format!("{io}.json"));
        ensure!(report.contains("it was asked to end by a signal"), "--io {io}: {report}");
    }
    program.kill()?;
    // The kernel has given them back with the program's file.
    let adapter = stage.place(0)?;
    let devices = std::slice::from_ref(&adapter.function);
    stage.terminate(greets(stage, devices, &adapter, "They are free again.")?)?;
    says(stage, "the host has them again")
}

/// Has the host's own console have the ranges again, which somebody must do where both a machine and its keeper
/// were killed, and after the kernel has closed the card.
fn take_back(stage: &Stage<'_>, adapter: &Place) -> Result<()> {
    std::thread::sleep(CLOSED);
    let card = format!("PCI:{}", adapter.function);
    let turns =
        [card.as_str(), "default"].map(|card| format!("'target {card}' 'lock io+mem' 'unlock io+mem'"));
    stage.output(&format!(
        "exec 3<>/dev/vga_arbiter && for words in {}; do printf %s \"$words\" >&3 || exit 1; done",
        turns.join(" ")
    ))?;
    Ok(())
}

fn console(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(0)?;
    says(stage, "the host speaks first")?;
    let guest = greets(stage, std::slice::from_ref(&adapter.function), &adapter, "The guest is here.")?;
    rests(stage)?;
    let before = stage.outer.screen(&adapter.id)?.text;
    says(stage, "the host speaks while it rests")?;
    let after = stage.outer.screen(&adapter.id)?.text;
    ensure!(after == before, "what the host said stands on the guest's screen:\n{after}");
    stage.terminate(guest)?;
    says(stage, "the host speaks after it")?;
    let again = |line: &str| greets(stage, std::slice::from_ref(&adapter.function), &adapter, line);
    // As a reset of the card's bus does that was under way while the ranges went to the console, which the arbiter does
    // not know of: VGA Enable in the control register of its bridge.
    let guest = again("Its bridge was reset.")?;
    rests(stage)?;
    stage.output(&format!(
        "cd /sys/bus/pci/devices/{} && printf '\\010' | dd of=$(readlink -f ..)/config bs=1 seek=62 conv=notrunc",
        adapter.function
    ))?;
    let set = stage.output(&format!(
        "dd if=$(readlink -f /sys/bus/pci/devices/{}/..)/config bs=1 skip=62 count=1 2> /dev/null | od -An -tu1",
        adapter.function
    ))?;
    ensure!(set.trim().parse::<u8>()? & 8 != 0, "the bridge cannot be set: {set}");
    stage.terminate(guest)?;
    says(stage, "the host speaks after its bridge was set")?;
    // As a service's end: to the machine, and to its process that holds the lease.
    let guest = again("Both are asked to end.")?;
    stage.output(&format!("pkill -TERM -f 'trapline .*{}'", adapter.function))?;
    stage.terminated(guest)?;
    stage.output(&gone(&format!("trapline vga-lease .*{}", adapter.function)))?;
    says(stage, "the host speaks after both were asked to end")?;
    let mut guest = again("This one is killed.")?;
    stage.output(&format!("pkill -KILL -f 'trapline run .*{}'", adapter.function))?;
    guest.kill()?;
    stage.output(&gone(&format!("trapline vga-lease .*{}", adapter.function)))?;
    says(stage, "the host speaks after one that was killed")
}

/// Waits until the console has the ranges, as far as the arbiter knows.
fn rests(stage: &Stage<'_>) -> Result<()> {
    stage.output(
        "exec 3<>/dev/vga_arbiter; printf 'target default' >&3\n\
         for time in $(seq 300); do dd bs=256 count=1 <&3 2> /dev/null | grep -q 'owns=io+mem' && exit 0; sleep 0.1; done\n\
         exit 1",
    )?;
    Ok(())
}

/// The command that waits for the end of the processes with these words.
fn gone(words: &str) -> String {
    format!("for time in $(seq 200); do pgrep -f '{words}' || exit 0; sleep 0.1; done; exit 1")
}

/// The host writes this line, and its own console shows it.
fn says(stage: &Stage<'_>, line: &str) -> Result<()> {
    stage.output(&format!("echo '{line}' > /dev/tty1"))?;
    // It is there when it was written; a picture of it may take a moment.
    let patience = Instant::now() + PICTURE;
    loop {
        let screen = stage.outer.screen("boot")?;
        if screen.shows(line) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "no \"{line}\" on the host's console:\n{}", screen.text);
        std::thread::sleep(LOOK);
    }
}

fn in_time(stage: &Stage<'_>) -> Result<()> {
    says(stage, "this stays")?;
    let function = stage.boot_adapter()?.to_owned();
    let before = stage.outer.screen("boot")?;
    ensure!(before.shows("this stays") && before.picture.width == 720, "it shows:\n{}", before.text);
    let adapter = Place { id: "boot".into(), function, companion: None };
    // Its own ROM is the copy that ran already.
    let device = format!("{BOOT_ADAPTER},rom={}", stage.tree.rom("vgabios-stdvga.bin")?.display());
    let guest = greets(stage, &[device], &adapter, "A guest has it now.")?;
    let during = stage.outer.screen("boot")?;
    ensure!(!during.shows("this stays"), "the guest has left the host's text there:\n{}", during.text);
    stage.terminate(guest)?;
    settled(stage, "boot", Some(&before.picture)).context("after the guest")?;
    Ok(())
}

/// Screens of each in a second of the outer machine's processor time: others are at work on this machine.
fn rates(stage: &Stage<'_>, writers: &[Writer<'_>; 2]) -> Result<[f64; 2]> {
    let counts = || writers.each_ref().map(|writer| writer.screens(stage));
    let (begun, before) = (stage.outer.processor_time()?, counts());
    std::thread::sleep(COUNTED);
    let (time, after) = ((stage.outer.processor_time()? - begun).as_secs_f64(), counts());
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    Ok([0, 1].map(|one: usize| (after[one] - before[one]) as f64 / time))
}
