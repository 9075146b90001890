//! What a benchmark found, as it is written to a JSON file and read back. The keys are stable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trapline_io::stages::{Stage, Stages};

use crate::report::format_of;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The program's version.
    pub trapline: String,
    /// What was measured.
    pub device: String,
    /// How many rounds there were.
    pub rounds: u32,
    /// How long one measurement took, in milliseconds.
    pub slice_ms: f64,
    /// What is known of the host: names and values for people.
    pub host: BTreeMap<String, String>,
    /// The cases, in the order in which they ran.
    pub cases: Vec<CaseReport>,
}

/// A case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// What one of what was measured is.
    pub what: String,
    /// How many accesses that is.
    pub accesses: u32,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_available: Option<String>,
    /// How it was measured; the baselines first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub variants: Vec<Measured>,
}

/// One case in one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How the window was carried out, or which baseline it is.
    pub window: String,
    /// Who carried accesses out; the baselines have nobody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub io: Option<String>,
    /// Nanoseconds until all was carried out: the median of the rounds.
    pub ns: f64,
    /// The quickest piece of any round.
    pub best_ns: f64,
    /// Nanoseconds until the guest went on: the median of the rounds.
    pub guest_ns: f64,
    /// What each round gave, as in `ns`.
    pub rounds: Vec<f64>,
    /// To each other variant with the same `io`, and each baseline: the median of the rounds' ratios.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub ratios: BTreeMap<String, f64>,
    /// How many exits to user space there were to each.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exits: Option<f64>,
    /// Where the time of an exit went, by the name of the stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub stages: BTreeMap<String, Times>,
}

impl Measured {
    /// What it is called in tables.
    pub fn label(&self) -> String {
        match &self.io {
            Some(io) => format!("{} {io}", self.window),
            None => self.window.clone(),
        }
    }
}

/// A histogram of times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// Half of them are no longer.
    pub p50: u64,
    /// 90 % are no longer.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// 99.99 %.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
    /// All of it: up to how many nanoseconds, and how many; ascending, none empty.
    pub buckets: Vec<(u64, u64)>,
}

/// The histograms of all stages that were seen.
pub fn times(stages: &Stages) -> BTreeMap<String, Times> {
    let seen = Stage::ALL.into_iter().filter(|stage| !stages.of(*stage).is_empty());
    seen.map(|stage| {
        let histogram = stages.of(stage);
        let at = |percentile| histogram.value_at_percentile(percentile);
        let buckets = histogram.iter_recorded();
        let times = Times {
            count: histogram.len(),
            min: histogram.min(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: histogram.max(),
            buckets: buckets.map(|it| (it.value_iterated_to(), it.count_since_last_iteration())).collect(),
        };
        (stage.name().to_owned(), times)
    })
    .collect()
}

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("it is no report of trapline bench --json: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("it is a report of format {0}, and this version of trapline reads format {FORMAT}")]
    Format(u32),
}

impl Report {
    /// As JSON, on one line.
    ///
    /// # Errors
    /// A figure is no number, which is a bug.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// Reads what [`Report::to_json`] wrote.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn from_json(text: &str) -> Result<Report, ReadError> {
        let format = format_of(text)?;
        if format != FORMAT {
            return Err(ReadError::Format(format));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// One case in one variant.
    pub fn find(&self, case: &str, label: &str) -> Option<&Measured> {
        let case = self.cases.iter().find(|it| it.name == case)?;
        case.variants.iter().find(|it| it.label() == label)
    }
}
