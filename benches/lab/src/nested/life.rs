//! Functions that are given, taken back, given again: nothing of one guest stays for the next, and the
//! host's drivers find what they left.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::adapters::{ADAPTERS, FIRMWARE, NETWORK, STDVGA};
use super::{Case, Stage};
use crate::inner::{self, RUN_INIT};
use crate::outer::{Job, Place, quoted};
use crate::payload::greeting;

/// How often an adapter is given in a row.
const ROUNDS: u32 = 10;

pub const CASES: &[Case] = &[
    Case {
        name: "vfio: given ten times in a row, then the host's drivers have adapter and network card",
        set: &ADAPTERS,
        seconds: 480,
        run: ten_times,
    },
    Case {
        name: "vfio: after a kill -9 in the middle of a boot the adapter shows the next one",
        set: &ADAPTERS,
        seconds: 240,
        run: killed,
    },
    Case {
        name: "vfio: a ROM of another card is made to fit; without ROM or legacy VGA the guest runs unseen",
        set: &ADAPTERS,
        seconds: 240,
        run: roms,
    },
    Case {
        name: "vfio: Linux boots on a host that forwards no legacy VGA, and trapline says what that means",
        set: &ADAPTERS,
        seconds: 240,
        run: no_region,
    },
];

fn ten_times(stage: &Stage<'_>) -> Result<()> {
    let (adapter, network) = (stage.place(STDVGA)?, stage.place(NETWORK)?);
    for round in 1..=ROUNDS {
        // The card's own ROM would look for a server to boot from.
        let devices = [adapter.function.clone(), format!("{},rom=off", network.function)];
        let guest = greets(stage, &devices, &adapter, &format!("This is run {round}."));
        stage.terminate(guest.with_context(|| format!("run {round}"))?)?;
    }
    let before = listed(stage, &adapter)?;
    ensure!(before["driver"] == "vfio-pci" && before["legacy_vga"] == "yes", "{before} is wrong");
    network_is_back(stage, &network)?;
    screen_is_back(stage, &adapter)?;
    let after = listed(stage, &adapter)?;
    ensure!(after == before, "after unbind and bind it is not as before: {before} and then {after}");
    let table = stage.output(&stage.command(&["devices"]))?;
    let line = table.lines().find(|line| line.starts_with(&adapter.function)).unwrap_or_default();
    ensure!(line.contains(" vfio-pci ") && line.contains(" yes "), "the table of devices has: {line}");
    // After the host's drivers a guest again.
    let guest = greets(stage, std::slice::from_ref(&adapter.function), &adapter, "This is the last run.")?;
    stage.terminate(guest)?;
    Ok(())
}

fn killed(stage: &Stage<'_>) -> Result<()> {
    let (adapter, network) = (stage.place(STDVGA)?, stage.place(NETWORK)?);
    let kernel = stage.tree.kernel()?;
    let words = inner::command_line(&[]);
    let network = format!("{},rom=off", network.function);
    let mut guest = stage.machine(&[
        "--device",
        &adapter.function,
        "--device",
        &network,
        "--kernel",
        &kernel.to_string_lossy(),
        "--append",
        &words,
        "--serial",
        "serial",
    ])?;
    stage.until_said(&mut guest, "serial", "Linux version")?;
    guest.kill()?;
    greets(stage, &[adapter.function.clone(), network], &adapter, "This one lives.")?;
    Ok(())
}

fn roms(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    let mut rom = std::fs::read(stage.tree.rom("vgabios-stdvga.bin")?).context("the ROM")?;
    let id = of_another_card(&mut rom)?;
    let rom = stage.write("other.rom", &rom)?;
    let device = format!("{},rom={}", adapter.function, rom.display());
    let said = stage.terminate(greets(stage, &[device], &adapter, "Seen by a ROM that was made to fit.")?)?;
    let wanted = format!("is for {id}; the guest sees 1234:1111 in it");
    ensure!(said.contains(&wanted), "trapline does not say \"{wanted}\": {said}");
    for (option, wanted) in
        [("rom=off", "owns legacy VGA"), ("vga=off", "without legacy VGA, as vga=off says")]
    {
        let device = format!("{},{option}", adapter.function);
        let disk = stage.write("unseen.disk", &greeting::disk("Nobody sees this."))?;
        let disk = disk.to_string_lossy();
        let mut guest = stage.machine(&["--device", &device, "--disk", &disk, "--debugcon", option])?;
        stage.until_said(&mut guest, option, "Booting from 0000:7c00")?;
        let screen = stage.outer.screen(&adapter.id)?;
        ensure!(!screen.shows("Nobody sees this."), "with {option} the screen shows:\n{}", screen.text);
        let said = stage.terminate(guest)?;
        ensure!(said.contains(wanted), "with {option} trapline does not say \"{wanted}\": {said}");
    }
    Ok(())
}

fn no_region(stage: &Stage<'_>) -> Result<()> {
    let adapter = stage.place(STDVGA)?;
    reload_vfio_pci(stage, "disable_vga=1")?;
    let result = linux_unseen(stage, &adapter);
    reload_vfio_pci(stage, "")?;
    let listed = listed(stage, &adapter)?;
    ensure!(listed["legacy_vga"] == "yes", "with the kernel's legacy VGA back it is {listed}");
    result
}

/// Boots Linux without the kernel's legacy VGA.
fn linux_unseen(stage: &Stage<'_>, adapter: &Place) -> Result<()> {
    let listed = listed(stage, adapter)?;
    ensure!(listed["legacy_vga"] == "no", "with disable_vga=1 it is {listed}");
    let before = stage.outer.screen(&adapter.id)?.text;
    let steps = [inner::Step::Console, inner::Step::Functions];
    let mut guest = stage.linux(&["--device", &adapter.function], &[], &steps, "serial")?;
    stage.until_said(&mut guest, "serial", RUN_INIT)?;
    stage.until_said(&mut guest, "serial", inner::DONE)?;
    let screen = stage.outer.screen(&adapter.id)?;
    ensure!(screen.text == before, "it shows by legacy VGA all the same:\n{}", screen.text);
    let said = stage.terminate(guest)?;
    let wanted = "its screen stays dark until a driver of the guest takes it over";
    ensure!(said.contains(wanted), "trapline does not say \"{wanted}\": {said}");
    let said = stage.text("serial");
    ensure!(said.contains(" 1234:1111 0380"), "the adapter is not among the guest's functions");
    ensure!(!said.contains("VGA+"), "the guest's kernel finds legacy VGA");
    Ok(())
}

/// Starts a guest that shows the firmware's text and below it this line, which no earlier guest has shown.
pub fn greets<'a>(stage: &Stage<'a>, devices: &[String], adapter: &Place, line: &str) -> Result<Job<'a>> {
    let disk = stage.write("greeting.disk", &greeting::disk(line))?;
    let disk = disk.to_string_lossy();
    // For the report, should nothing show.
    let mut words = vec!["--disk", &*disk, "--debugcon", "debug"];
    devices.iter().for_each(|device| words.extend(["--device", device.as_str()]));
    let mut guest = stage.machine(&words)?;
    let screen = stage.until_text(&mut guest, &adapter.id, line)?;
    ensure!(screen.shows(FIRMWARE), "the line does not stand below the firmware's:\n{}", screen.text);
    Ok(guest)
}

/// What `trapline devices --json` says of a function.
fn listed(stage: &Stage<'_>, place: &Place) -> Result<Value> {
    let document = stage.output(&stage.command(&["devices", "--json"]))?;
    let document: Value = serde_json::from_str(&document).context("what trapline devices --json says")?;
    let devices = document["devices"].as_array().context("there are no devices")?;
    let found = devices.iter().find(|device| device["address"] == place.function.as_str());
    found.cloned().with_context(|| format!("{} is not among the devices", place.function))
}

/// Gives a function to another driver, and compares what is said.
fn moved(stage: &Stage<'_>, verb: &str, place: &Place, from: &str, to: &str) -> Result<()> {
    let said = stage.output(&stage.command(&[verb, &place.function]))?;
    let wanted = format!("{}: {from} -> {to}", place.function);
    ensure!(said.trim() == wanted, "trapline {verb} says \"{}\", not \"{wanted}\"", said.trim());
    Ok(())
}

/// The host's e1000e has a link and gets interrupts.
fn network_is_back(stage: &Stage<'_>, network: &Place) -> Result<()> {
    moved(stage, "unbind", network, "vfio-pci", "e1000e")?;
    let busybox = stage.tree.busybox()?;
    let busybox = busybox.display();
    stage.output(&format!(
        "card=$(ls /sys/bus/pci/devices/{}/net) && {busybox} ip link set $card up\n\
         for time in $(seq 300); do\n\
         [ $(cat /sys/class/net/$card/carrier) = 1 ] && up=1 && break\nsleep 0.1\ndone\n\
         {busybox} awk -v card=$card 'index($0, card) {{ sum += $2 + $3 }} END {{ exit !sum }}' /proc/interrupts &&\n\
         {busybox} ip link set $card down && [ \"$up\" ]",
        network.function
    ))?;
    moved(stage, "bind", network, "e1000e", "vfio-pci")
}

/// The host's console shows on the adapter, by the host's driver.
fn screen_is_back(stage: &Stage<'_>, adapter: &Place) -> Result<()> {
    let busybox = stage.tree.busybox()?;
    // The outer machine's own adapter is of the same kind, and is left alone.
    let mut script = "echo none > /sys/bus/pci/devices/0000:00:01.0/driver_override\n".to_owned();
    for module in stage.tree.modules()?.in_order(&["bochs"])? {
        let file = stage.write(&format!("{}.ko", module.name), &module.object)?;
        // One that is there already is refused.
        script += &format!("{} insmod {}\n", busybox.display(), quoted(&file.to_string_lossy()));
    }
    stage.output(&format!("{script}[ -e /sys/bus/pci/drivers/bochs-drm ]"))?;
    moved(stage, "unbind", adapter, "vfio-pci", "bochs-drm")?;
    // No letter that the kernel's font draws otherwise.
    let line = "the host has it again";
    let mut console = stage.start(&format!("echo '{line}' > /dev/tty0; sleep 1000"))?;
    let screen = stage.until_text(&mut console, &adapter.id, line)?;
    ensure!(screen.picture.width > 720, "it shows in a text mode");
    console.kill()?;
    moved(stage, "bind", adapter, "bochs-drm", "vfio-pci")
}

/// Removes the host's vfio-pci and loads it with other parameters; functions come back to it.
fn reload_vfio_pci(stage: &Stage<'_>, parameters: &str) -> Result<()> {
    let busybox = stage.tree.busybox()?;
    let busybox = busybox.display();
    let modules = stage.tree.modules()?.in_order(&["vfio_pci"])?;
    let module = modules.last().context("no vfio-pci")?;
    let file = stage.write("vfio-pci.ko", &module.object)?;
    stage.output(&format!(
        "{busybox} rmmod vfio_pci && {busybox} insmod {} {parameters}",
        quoted(&file.to_string_lossy())
    ))?;
    Ok(())
}

/// Makes a ROM one of another card of the same vendor, with a right checksum, and tells its ids.
fn of_another_card(rom: &mut [u8]) -> Result<&'static str> {
    let at = rom.windows(4).position(|bytes| bytes == b"PCIR").context("a ROM without PCIR")? + 4;
    let ids = rom.get_mut(at..at + 4).context("a short ROM")?;
    let before = sum(ids);
    ids.copy_from_slice(&[0x34, 0x12, 0x22, 0x22]);
    let change = before.wrapping_sub(sum(ids));
    let size = usize::from(rom[2]) * 512;
    let last = rom.get_mut(size - 1).context("a short ROM")?;
    *last = last.wrapping_add(change);
    Ok("1234:2222")
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
