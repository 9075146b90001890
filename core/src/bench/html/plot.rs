//! Plots as SVG that stands in the page.

use std::fmt::Write;

use super::super::table::time;
use super::escape;

/// Sizes in the units of the drawing.
const WIDTH: f64 = 480.0;
const BAR: f64 = 20.0;
const GAP: f64 = 6.0;
/// Where bars begin, and what is kept free behind them for figures.
const LABELS: f64 = 140.0;
const FIGURES: f64 = 74.0;

/// A bar.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// The value for people.
    pub(super) shown: String,
    /// The number of its colour.
    pub(super) colour: usize,
}

/// Bars under each other, from zero.
pub(super) fn bars(bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut height = GAP;
    let mut inside = String::new();
    for bar in bars {
        let width = (bar.value / most * (WIDTH - LABELS - FIGURES)).max(1.0);
        let text = height + BAR * 0.7;
        let _ = writeln!(
            inside,
            "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text><rect class=\"c{}\" x=\"{LABELS}\" \
             y=\"{height:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/><text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
            LABELS - 8.0,
            escape(&bar.label),
            bar.colour,
            LABELS + width + 6.0,
            escape(&bar.shown),
        );
        height += BAR + GAP;
    }
    svg(height, "medians", &inside)
}

/// A histogram, to be drawn as its percentiles.
pub(super) struct Curve {
    /// Up to how many nanoseconds, and how many.
    pub(super) buckets: Vec<(u64, u64)>,
    /// The number of its colour.
    pub(super) colour: usize,
}

/// The percentiles that the axis names.
const MARKS: [(f64, &str); 6] =
    [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99 %")];
/// The plot's inner edges.
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 190.0;

/// Times of single exits by percentile: upwards by tens, to the right by nines. Nothing without curves.
pub(super) fn percentiles(curves: &[Curve]) -> String {
    let values = || curves.iter().flat_map(|curve| &curve.buckets).map(|(ns, _)| log(*ns));
    let (low, high) = (values().fold(f64::INFINITY, f64::min).floor(), values().fold(0.0, f64::max).ceil());
    if !low.is_finite() {
        return String::new();
    }
    let high = high.max(low + 1.0);
    let y = |log: f64| BOTTOM - (log - low) / (high - low) * (BOTTOM - TOP);
    let mut inside = String::new();
    let mut tens = low;
    while tens <= high {
        let at = y(tens);
        let _ = writeln!(
            inside,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\"/><text class=\"label\" \
             x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            power(tens),
        );
        tens += 1.0;
    }
    for (share, name) in MARKS {
        let at = x(share);
        let _ = writeln!(
            inside,
            "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{BOTTOM}\"/><text class=\"label\" \
             x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            BOTTOM + 16.0,
        );
    }
    for curve in curves {
        let _ = writeln!(inside, "<path class=\"c{}\" d=\"{}\"/>", curve.colour, path(&curve.buckets, y));
    }
    let _ = writeln!(inside, "<text class=\"label\" x=\"{LEFT}\" y=\"12\">an exit, by percentile</text>");
    svg(BOTTOM + 24.0, "percentiles of single exits", &inside)
}

/// Steps: a bucket's time from the share of what is shorter to that of what is no longer.
fn path(buckets: &[(u64, u64)], y: impl Fn(f64) -> f64) -> String {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut path = String::new();
    let mut seen = 0;
    for (ns, count) in buckets {
        let (from, at) = (x(share(seen, all)), y(log(*ns)));
        seen += count;
        let to = x(share(seen, all));
        let _ = write!(path, "{}{from:.1} {at:.1}H{to:.1}", if path.is_empty() { 'M' } else { 'L' });
    }
    path
}

/// Counts of exits, and times of less than hours: far below what a float tells apart.
#[expect(clippy::cast_precision_loss)]
fn share(seen: u64, all: u64) -> f64 {
    seen as f64 / all.max(1) as f64
}

#[expect(clippy::cast_precision_loss)]
fn log(ns: u64) -> f64 {
    (ns.max(1) as f64).log10()
}

/// Where a percentile stands: as far for each nine more.
fn x(share: f64) -> f64 {
    const NINES: f64 = 4.3;
    let nines = -(1.0 - share).max(10_f64.powf(-NINES)).log10();
    LEFT + nines / NINES * (RIGHT - LEFT)
}

/// A power of ten nanoseconds, for people.
fn power(tens: f64) -> String {
    time(10_f64.powf(tens)).replace(".00", "").replace(".0", "")
}

fn svg(height: f64, title: &str, inside: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"{title}\">\n{inside}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |value| Bar { label: "a<b".into(), value, shown: "x".into(), colour: 2 };
        let svg = bars(&[bar(100.0), bar(50.0)]);
        assert!(
            svg.contains("width=\"266.0\"") && svg.contains("width=\"133.0\"") && svg.contains("a&lt;b"),
            "{svg}"
        );
    }

    #[test]
    fn a_curve_rises_where_the_slow_ones_are() {
        // 90 of 100 take 10 ns, the others 1000 ns.
        let curve = Curve { buckets: vec![(10, 90), (1000, 10)], colour: 1 };
        let svg = percentiles(&[curve]);
        let nine = format!("{:.1}", x(0.9));
        assert!(svg.contains(&format!("M62.0 190.0H{nine}L{nine} 20.0H456.0")), "{svg}");
        assert_eq!(percentiles(&[]), "");
    }

    #[test]
    fn powers_of_ten_have_names() {
        assert_eq!([1.0, 3.0, 4.0, 7.0].map(power), ["10 ns", "1000 ns", "10 us", "10 ms"]);
    }
}
