//! The report as text for people.

use std::fmt::Write;

use super::report::{CaseReport, Measured, Report};

/// An instruction that takes longer than this is emulated, in nanoseconds.
const EMULATED: f64 = 50.0;

/// Aligned columns, as wide as they must be; the first to the left, the others to the right. A row of one
/// cell is a line of its own.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > 1).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time in the unit in which it has few digits.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 99.95 => format!("{ns:.1} ns"),
        ns if ns < 9_999.5 => format!("{ns:.0} ns"),
        ns if ns < 999_500.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

/// A ratio with the digits that matter.
pub fn ratio(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.3}") }
}

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut text =
        format!("{}, {} rounds of {} ms, medians\n", report.device, report.rounds, report.slice_ms);
    if let Some(ns) = emulated(report) {
        let _ = writeln!(
            text,
            "An empty instruction takes {}: this KVM emulates the guest's code, so what does not trap is slow.",
            time(ns)
        );
    }
    text.push('\n');
    let mut rows = vec![head()];
    for case in &report.cases {
        rows.extend(case_rows(case));
    }
    text.push_str(&align(&rows));
    text.push_str("\nhost\n");
    for (name, value) in &report.host {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text
}

/// The time of an empty instruction, if that is not the processor's.
pub fn emulated(report: &Report) -> Option<f64> {
    let nop = report.cases.iter().find(|case| case.name == "nop")?;
    nop.variants.first().map(|it| it.ns).filter(|ns| *ns > EMULATED)
}

fn head() -> Vec<String> {
    ["case", "median", "to strict", "to bare", "to dropped", "exits", "p50", "p99", "p99.99"]
        .map(String::from)
        .into()
}

fn case_rows(case: &CaseReport) -> Vec<Vec<String>> {
    let mut rows = vec![vec![format!("{}: {}", case.name, case.what)]];
    if let Some(reason) = &case.not_available {
        rows = vec![vec![format!("{}: not available, {reason}", case.name)]];
    }
    rows.extend(case.variants.iter().map(row));
    rows
}

fn row(it: &Measured) -> Vec<String> {
    let to = |window: &str| it.ratios.get(window).map_or_else(String::new, |value| ratio(*value));
    // With the file, where there is one: that is what the device costs anyhow.
    let bare = if it.ratios.contains_key("bare+file") { to("bare+file") } else { to("bare") };
    let exits = it.exits.map_or_else(String::new, |exits| format!("{exits:.2}"));
    let total = it.stages.get("total");
    let at = |value: fn(&super::report::Times) -> u64| {
        // A time of hours is no figure of this table.
        #[expect(clippy::cast_precision_loss)]
        total.map_or_else(String::new, |times| time(value(times) as f64))
    };
    vec![
        format!("  {}", it.label()),
        time(it.ns),
        to("strict"),
        bare,
        to("dropped"),
        exits,
        at(|times| times.p50),
        at(|times| times.p99),
        at(|times| times.p99_99),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::compare::tests::report;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["a", "10"]), row(&["long", "5", "x"]), row(&["a line of its own"])];
        assert_eq!(align(&rows), "a     10\nlong   5  x\na line of its own\n");
    }

    #[test]
    fn times_have_few_digits() {
        let pairs = [
            (3.12, "3.1 ns"),
            (99.96, "100 ns"),
            (8_250.0, "8250 ns"),
            (12_345.0, "12.3 us"),
            (2.5e6, "2.50 ms"),
        ];
        for (ns, text) in pairs {
            assert_eq!(time(ns), text);
        }
        assert_eq!((ratio(0.0123), ratio(1.0449)), ("0.0123".into(), "1.045".into()));
    }

    #[test]
    fn a_report_is_narrow_and_names_what_is_missing() {
        let text = text(&report());
        assert!(text.contains("text-line: 80 cells and the cursor"), "{text}");
        assert!(text.contains("msix-mask: not available, the device has no MSI-X"), "{text}");
        assert!(text.contains("  shadowed adaptive"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(!text.contains("emulates"), "{text}");
    }
}
