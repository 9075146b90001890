//! What was measured, as tables with medians, ratios and limits: as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

/// One entrant and its value of every round.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who, and in which way.
    pub name: String,
    /// In the table's unit, in the order of the rounds.
    pub values: Vec<f64>,
}

/// The median of a row as a multiple of another's, and what it may be.
#[derive(Clone, Debug)]
pub struct Ratio {
    of: String,
    to: String,
    /// What is wanted, and what must be.
    most: Option<(f64, f64)>,
}

/// Values of one kind.
#[derive(Clone, Debug)]
pub struct Table {
    /// The name of the part that measured it.
    pub part: &'static str,
    /// What was measured.
    pub title: String,
    /// What a value counts, as "s".
    pub unit: &'static str,
    /// All entrants.
    pub rows: Vec<Row>,
    /// What is compared.
    pub ratios: Vec<Ratio>,
}

impl Ratio {
    /// How many times the median of `to` that of `of` is.
    pub fn new(of: &str, to: &str) -> Self {
        Ratio { of: of.into(), to: to.into(), most: None }
    }

    /// The same with a limit: what is more than `wanted` falls short, what is more than `must` is broken.
    pub fn at_most(self, wanted: f64, must: f64) -> Self {
        Ratio { most: Some((wanted, must)), ..self }
    }

    /// The same without a limit.
    pub fn unlimited(&self) -> Self {
        Ratio { most: None, ..self.clone() }
    }
}

/// Whether a limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Short,
    Broken,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Short => "falls short",
            Verdict::Broken => "BROKEN",
        }
    }
}

/// Of a ratio: what it came to, its least and its greatest value within one round.
struct Measured {
    ratio: f64,
    low: f64,
    high: f64,
}

impl Table {
    /// A table in which nothing is compared yet.
    pub fn new(part: &'static str, title: &str, unit: &'static str, rows: Vec<Row>) -> Self {
        Table { part, title: title.into(), unit, rows, ratios: Vec::new() }
    }

    /// With these comparisons, as far as both of their rows are there.
    pub fn compare(mut self, ratios: impl IntoIterator<Item = Ratio>) -> Self {
        let there = |name: &str| self.rows.iter().any(|row| row.name == name);
        let known = ratios.into_iter().filter(|ratio| there(&ratio.of) && there(&ratio.to));
        let known: Vec<Ratio> = known.collect();
        self.ratios.extend(known);
        self
    }

    /// Whether no limit is broken.
    pub fn holds(&self) -> bool {
        self.ratios.iter().all(|ratio| self.verdict(ratio) != Some(Verdict::Broken))
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}: {} ({})", self.part, self.title, self.unit)?;
        let wide = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            let (low, high) = range(row.values.iter().copied());
            let median = median(&row.values);
            writeln!(
                out,
                "  {:<wide$}  {:>9}  [{}, {}]",
                row.name,
                number(median),
                number(low),
                number(high)
            )?;
        }
        for ratio in &self.ratios {
            let Measured { ratio: value, low, high } = self.measure(ratio);
            let [value, low, high] = [value, low, high].map(share);
            write!(out, "  {} / {}: {value} [{low}, {high}]", ratio.of, ratio.to)?;
            match (ratio.most, self.verdict(ratio)) {
                (Some((wanted, must)), Some(verdict)) if wanted < must => {
                    writeln!(out, "; at most {wanted}, and {must} must be: {}", verdict.word())?;
                }
                (Some((wanted, _)), Some(verdict)) => {
                    writeln!(out, "; at most {wanted}: {}", verdict.word())?;
                }
                _ => writeln!(out)?,
            }
        }
        Ok(())
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let rows = self
            .rows
            .iter()
            .map(|row| json!({ "name": row.name, "values": row.values, "median": median(&row.values) }));
        let ratios = self.ratios.iter().map(|ratio| {
            let Measured { ratio: value, low, high } = self.measure(ratio);
            json!({
                "of": ratio.of, "to": ratio.to, "ratio": value, "low": low, "high": high,
                "wanted": ratio.most.map(|(wanted, _)| wanted),
                "must": ratio.most.map(|(_, must)| must),
                "verdict": self.verdict(ratio).map(Verdict::word),
            })
        });
        json!({
            "part": self.part, "title": self.title, "unit": self.unit,
            "rows": rows.collect::<Vec<_>>(), "ratios": ratios.collect::<Vec<_>>(),
        })
    }

    fn values(&self, name: &str) -> &[f64] {
        self.rows.iter().find(|row| row.name == name).map_or(&[], |row| &row.values)
    }

    fn measure(&self, ratio: &Ratio) -> Measured {
        let (of, to) = (self.values(&ratio.of), self.values(&ratio.to));
        let (low, high) = range(of.iter().zip(to).map(|(of, to)| of / to));
        Measured { ratio: median(of) / median(to), low, high }
    }

    fn verdict(&self, ratio: &Ratio) -> Option<Verdict> {
        let value = self.measure(ratio).ratio;
        // Not a number holds no limit.
        ratio.most.map(|(wanted, must)| match value {
            _ if value <= wanted => Verdict::Holds,
            _ if value <= must => Verdict::Short,
            _ => Verdict::Broken,
        })
    }
}

/// The median, or not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (sorted[middle - 1] + upper) / 2.0,
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => share(value),
    }
}

/// A ratio, with more digits where it is small.
fn share(value: f64) -> String {
    if value < 0.01 { format!("{value:.6}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ours: &[f64], ratio: Ratio) -> Table {
        let row = |name: &str, values: &[f64]| Row { name: name.into(), values: values.into() };
        let rows = vec![row("ours", ours), row("theirs", &[10.0, 20.0, 40.0])];
        Table::new("part", "what it took", "s", rows).compare([ratio])
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_limit_holds_is_fallen_short_of_or_broken() {
        let word = |ours: &[f64]| {
            let table = table(ours, Ratio::new("ours", "theirs").at_most(0.5, 0.6));
            (table.json()["ratios"][0]["verdict"].as_str().unwrap().to_owned(), table.holds())
        };
        assert_eq!(word(&[10.0]), ("holds".into(), true));
        assert_eq!(word(&[11.0]), ("falls short".into(), true));
        assert_eq!(word(&[13.0]), ("BROKEN".into(), false));
        assert_eq!(word(&[]), ("BROKEN".into(), false));
    }

    #[test]
    fn ratios_are_of_medians_and_ranges_of_rounds() {
        let text = table(&[10.0, 10.0, 80.0], Ratio::new("ours", "theirs").at_most(1.0, 1.0)).text();
        assert!(text.contains("ours / theirs: 0.5000 [0.5000, 2.0000]; at most 1: holds"), "{text}");
        assert!(text.contains("10.00  [10.00, 80.00]"), "{text}");
    }

    #[test]
    fn what_is_not_there_is_not_compared() {
        assert!(table(&[1.0], Ratio::new("ours", "nobody")).ratios.is_empty());
    }
}
