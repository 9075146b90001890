//! Medians, ratios and limits; as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::boot::Boot;
use super::stage::Shares;
use super::usage::Memory;
use crate::bench::table::median;

/// How many times as long as QEMU's a boot may take.
const RATIO: f64 = 1.0;
/// Memory beyond the guest's, in KiB.
const RESIDENT: f64 = 12.0 * 1024.0;
/// The program's file, in bytes.
const BINARY: f64 = 8.0 * 1024.0 * 1024.0;

/// What was measured of one program.
#[derive(Debug, Default)]
pub struct Figures {
    name: String,
    /// From the start of the vCPU to the mark, in seconds.
    boots: Vec<f64>,
    /// The whole life of the process.
    lives: Vec<f64>,
    /// Processor time of that life.
    processor: Vec<f64>,
    /// The shares of the stages.
    pub stages: Shares,
    /// The memory in use.
    pub memory: Option<Memory>,
}

impl Figures {
    /// No figures yet.
    pub fn new(name: &str) -> Figures {
        Figures { name: name.into(), ..Figures::default() }
    }

    /// Adds one boot's.
    pub fn add(&mut self, boot: &Boot) {
        self.boots.push(boot.time().as_secs_f64());
        self.lives.push(boot.end.map_or(f64::NAN, |end| end.as_secs_f64()));
        self.processor.push(boot.processor.as_secs_f64());
    }
}

/// All that was measured; the first program is trapline, the second QEMU.
#[derive(Debug)]
pub struct Report {
    /// One after another.
    pub figures: Vec<Figures>,
    /// Bytes of trapline's program file.
    pub binary: u64,
}

/// A limit and what was measured.
#[derive(Debug)]
pub struct Limit {
    what: &'static str,
    unit: &'static str,
    measured: f64,
    most: f64,
    /// Whether it is kept.
    pub holds: bool,
}

impl Report {
    /// The limits that are measured here.
    pub fn limits(&self) -> Vec<Limit> {
        let ratio = ratio(&self.figures, 0, |figures| &figures.boots);
        let resident = self.figures.first().and_then(|figures| figures.memory);
        let resident = resident.map_or(f64::NAN, |memory| number(memory.resident));
        [
            ("boot, times QEMU's", "", ratio, RATIO),
            ("resident beyond guest RAM", " KiB", resident, RESIDENT),
            ("program file, stripped", " bytes", number(self.binary), BINARY),
        ]
        .into_iter()
        // Not a number holds no limit.
        .map(|(what, unit, measured, most)| Limit { what, unit, measured, most, holds: measured <= most })
        .collect()
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "Medians in seconds, and how many times QEMU's (in brackets: the range over the rounds)"
        )?;
        for (title, of) in SERIES {
            writeln!(out, "{title}")?;
            for (index, figures) in self.figures.iter().enumerate() {
                let (low, high) = range(&self.figures, index, of);
                let (median, ratio) = (median(of(figures)), ratio(&self.figures, index, of));
                writeln!(out, "  {:<24} {median:8.3}   {ratio:5.2} [{low:.2}, {high:.2}]", figures.name)?;
            }
        }
        writeln!(out, "Shares of the firmware's stages, debug console on")?;
        for (row, (stage, _)) in
            self.figures.first().map_or(&[][..], |first| &first.stages).iter().enumerate()
        {
            write!(out, "  {stage:<30}")?;
            for figures in &self.figures {
                let share = figures.stages.get(row).map_or(f64::NAN, |(_, share)| *share);
                write!(out, " {:>5.1} % {}", 100.0 * share, figures.name)?;
            }
            writeln!(out)?;
        }
        writeln!(out, "Memory beyond the guest's: resident; shared pages divided")?;
        for figures in &self.figures {
            let Some(memory) = figures.memory else { continue };
            writeln!(out, "  {:<24} {} KiB; {} KiB", figures.name, memory.resident, memory.proportional)?;
        }
        writeln!(out, "Limits")?;
        for Limit { what, unit, measured, most, holds } in self.limits() {
            let verdict = if holds { "holds" } else { "BROKEN" };
            let digits = if unit.is_empty() { 2 } else { 0 };
            writeln!(out, "  {what:<26} {measured:.digits$} of at most {most:.digits$}{unit}: {verdict}")?;
        }
        Ok(())
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let figures = self.figures.iter().enumerate().map(|(index, figures)| {
            json!({
                "name": figures.name,
                "boot_s": figures.boots,
                "life_s": figures.lives,
                "processor_s": figures.processor,
                "boot_ratio": ratio(&self.figures, index, |figures| &figures.boots),
                "processor_ratio": ratio(&self.figures, index, |figures| &figures.processor),
                "stages": figures.stages.iter().map(|(stage, share)| json!({ "stage": stage, "share": share })).collect::<Vec<_>>(),
                "resident_kib": figures.memory.map(|memory| memory.resident),
                "proportional_kib": figures.memory.map(|memory| memory.proportional),
            })
        });
        let limits = self.limits().into_iter().map(|limit| {
            json!({ "what": limit.what, "measured": limit.measured, "most": limit.most, "holds": limit.holds })
        });
        json!({
            "programs": figures.collect::<Vec<_>>(),
            "binary_bytes": self.binary,
            "limits": limits.collect::<Vec<_>>(),
        })
    }
}

/// One series of measurements.
type Of = fn(&Figures) -> &[f64];

const SERIES: [(&str, Of); 3] = [
    ("From the vCPU's start to the boot sector", |figures| &figures.boots),
    ("Whole process, from its start to its end", |figures| &figures.lives),
    ("Processor time of the whole process", |figures| &figures.processor),
];

/// How many times QEMU's the median of a program is.
fn ratio(figures: &[Figures], index: usize, of: Of) -> f64 {
    let of = |index: usize| figures.get(index).map_or(f64::NAN, |figures| median(of(figures)));
    of(index) / of(1)
}

/// The least and the greatest ratio within one round.
fn range(figures: &[Figures], index: usize, of: Of) -> (f64, f64) {
    let (Some(this), Some(base)) = (figures.get(index), figures.get(1)) else { return (f64::NAN, f64::NAN) };
    let ratios = of(this).iter().zip(of(base)).map(|(this, base)| this / base);
    ratios.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
}

/// As a floating-point number; exact below 2^53.
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(trapline: &[f64], resident: u64, binary: u64) -> Report {
        let memory = Some(Memory { resident, proportional: resident });
        let one = |name: &str, boots: &[f64]| Figures { boots: boots.into(), memory, ..Figures::new(name) };
        Report { figures: vec![one("trapline", trapline), one("QEMU", &[1.0, 2.0, 4.0])], binary }
    }

    #[test]
    fn ratios_are_of_medians_and_ranges_of_rounds() {
        let report = report(&[5.0, 5.0, 6.0], 0, 0);
        assert_eq!(ratio(&report.figures, 0, |figures| &figures.boots), 2.5);
        assert_eq!(range(&report.figures, 0, |figures| &figures.boots), (1.5, 5.0));
    }

    #[test]
    fn limits_hold_or_not() {
        let holds = |report: Report| report.limits().iter().map(|limit| limit.holds).collect::<Vec<_>>();
        assert_eq!(holds(report(&[2.0], 12 << 10, 8 << 20)), [true, true, true]);
        assert_eq!(holds(report(&[2.1], (12 << 10) + 1, (8 << 20) + 1)), [false, false, false]);
        assert_eq!(holds(report(&[], 1, 1)), [false, true, true]);
        assert!(report(&[11.0], 1, 1).text().contains("BROKEN"));
    }
}
