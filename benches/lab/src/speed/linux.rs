//! What `cargo lab speed --nested` reports: the times of several programs, the first trapline's, the second
//! QEMU's.

use serde_json::{Value, json};

use super::verdict::median;
use crate::nested::speed::Series;

/// How many times as long as QEMU's the start may take.
const RATIO: f64 = 1.0;

/// One series of measurements.
type Of = fn(&Series) -> &[f64];

const TABLES: [(&str, Of); 2] = [
    ("From the program's start to the first process", |one| &one.seconds),
    ("Processor time of the outer machine", |one| &one.processor),
];

/// For a person.
pub fn text(all: &[Series]) -> String {
    let mut out = String::from(
        "Linux on an assigned adapter: medians in seconds, and how many times QEMU's (in brackets: the range \
         over the rounds)\n",
    );
    for (title, of) in TABLES {
        out += &format!("{title}\n");
        for one in all {
            let (low, high) = range(all, one, of);
            let (name, median, ratio) = (&one.name, median(of(one)), ratio(all, one, of));
            out += &format!("  {name:<24} {median:8.2}   {ratio:5.2} [{low:.2}, {high:.2}]\n");
        }
    }
    let verdict = if holds(all) { "holds" } else { "BROKEN" };
    out += &format!("Limit: at most {RATIO:.2} times QEMU's: {verdict}\n");
    out
}

/// For a program.
pub fn json(all: &[Series]) -> Value {
    let programs = all.iter().map(|one| {
        json!({
            "name": one.name,
            "start_s": one.seconds,
            "processor_s": one.processor,
            "start_ratio": ratio(all, one, |one| &one.seconds),
            "processor_ratio": ratio(all, one, |one| &one.processor),
        })
    });
    json!({ "programs": programs.collect::<Vec<_>>(), "most": RATIO, "holds": holds(all) })
}

/// Whether trapline is not slower than QEMU. Not a number is slower.
pub fn holds(all: &[Series]) -> bool {
    all.first().is_some_and(|trapline| ratio(all, trapline, |one| &one.seconds) <= RATIO)
}

/// How many times QEMU's a program's median is.
fn ratio(all: &[Series], one: &Series, of: Of) -> f64 {
    median(of(one)) / all.get(1).map_or(f64::NAN, |qemu| median(of(qemu)))
}

/// The least and the greatest ratio within one round.
fn range(all: &[Series], one: &Series, of: Of) -> (f64, f64) {
    let base = all.get(1).map_or(&[][..], of);
    let ratios = of(one).iter().zip(base).map(|(this, base)| this / base);
    ratios.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(trapline: &[f64]) -> Vec<Series> {
        let one = |name: &str, times: &[f64]| Series {
            name: name.into(),
            seconds: times.into(),
            processor: times.iter().map(|time| time * time).collect(),
        };
        vec![one("trapline", trapline), one("QEMU", &[10.0, 20.0, 30.0])]
    }

    #[test]
    fn the_medians_ratio_is_held_against_the_limit() {
        assert!(holds(&series(&[20.0, 20.0, 21.0])));
        assert!(!holds(&series(&[20.1, 20.2, 20.0])));
        assert!(!holds(&series(&[])) && !holds(&[]));
    }

    #[test]
    fn a_report_has_ratios_and_ranges() {
        let report = text(&series(&[5.0, 18.0, 27.0]));
        assert!(report.contains("18.00    0.90 [0.50, 0.90]"), "{report}");
        assert!(report.contains("324.00    0.81 [0.25, 0.81]"), "{report}");
        assert!(report.contains("1.00 times QEMU's: holds"), "{report}");
        assert!(text(&series(&[40.0])).contains("BROKEN"));
    }
}
