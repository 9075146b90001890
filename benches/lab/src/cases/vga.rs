//! Legacy VGA with two software adapters in one guest.

use anyhow::{Context, Result, anyhow, ensure};

use super::{Bench, Case};
use crate::machine::{Machine, text};
use crate::payload::handover;

pub const CASES: &[Case] = &[Case {
    name: "vga: a guest hands the window over between two adapters",
    seconds: 200,
    kvm: true,
    run: hands_over,
}];

/// What the guest says goes here.
const DEBUG: &str = "debug";

fn hands_over(bench: &Bench) -> Result<()> {
    bench.write("handover.disk", &handover::disk())?;
    let mut pictures = Vec::new();
    for way in ["strict", "auto"] {
        let adapters = [adapter(bench, &format!("{way}-first"))?, adapter(bench, &format!("{way}-second"))?];
        let [first, second] = adapters.each_ref().map(|(_, device)| device.as_str());
        let debug = format!("{DEBUG}-{way}");
        let words = ["--device", first, "--device", second, "--disk", "handover.disk", "--debugcon", &debug];
        let mut machine = bench.machine(&[&words[..], &["--window", way]].concat())?;
        machine.until("last line", || text(&bench.file(&debug)).contains(handover::DONE))?;
        machine.terminate()?;
        machine.wait()?;
        // The guest reads what either adapter has; the first one's screen is the machine's.
        let said = text(&bench.file(&debug));
        ensure!(
            said.contains(handover::READ_BACK),
            "--window {way}: the guest reads other text back:\n{said}"
        );
        handover::shows(&bench.screen(), 0).map_err(|wrong| anyhow!("--window {way}: {wrong}"))?;
        pictures.push(std::fs::read(bench.file("screen.png")).context("no picture")?);
    }
    ensure!(pictures[0] == pictures[1], "strict and auto the pictures differ");
    Ok(())
}

/// Starts an adapter, and gives the option for it.
fn adapter(bench: &Bench, name: &str) -> Result<(Machine, String)> {
    let (folder, socket) = (bench.file(name), bench.file(&format!("{name}.sock")));
    std::fs::create_dir_all(&folder).context("no folder")?;
    let device = format!("vfio-user:{},vga=on,root-port=on", socket.display());
    let command = bench.command(&["adapter", "--socket", &socket.to_string_lossy()])?;
    let mut server = Machine::start(command, &folder, bench.deadline)?;
    server.until("socket", || socket.exists())?;
    Ok((server, device))
}
