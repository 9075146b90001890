//! Two reports side by side: what became slower, and what of the host is different.

use super::report::{Measured, Report};
use super::table::{align, ratio, time};

/// What differs of the hosts, and what stood there: name, old, new.
pub fn hosts<'a>(old: &'a Report, new: &'a Report) -> Vec<(&'a str, &'a str, &'a str)> {
    let mut names: Vec<&str> = old.host.keys().chain(new.host.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let at = |report: &'a Report, name: &str| report.host.get(name).map_or("unknown", String::as_str);
    let both = names.into_iter().map(|name| (name, at(old, name), at(new, name)));
    both.filter(|(_, old, new)| old != new).collect()
}

/// A case and variant that both reports have.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair<'a> {
    /// The case.
    pub case: &'a str,
    /// How it was measured then.
    pub old: &'a Measured,
    /// And now.
    pub new: &'a Measured,
}

impl Pair<'_> {
    /// New to old.
    pub fn ratio(&self) -> f64 {
        self.new.ns / self.old.ns
    }

    /// Whether no round of one was as quick as any of the other: what is told apart from chance.
    pub fn differs(&self) -> bool {
        let least = |it: &Measured| it.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |it: &Measured| it.rounds.iter().copied().fold(0.0, f64::max);
        least(self.new) > most(self.old) || least(self.old) > most(self.new)
    }
}

/// All that both have, in the order of the new report.
pub fn pairs<'a>(old: &'a Report, new: &'a Report) -> Vec<Pair<'a>> {
    let all = new.cases.iter().flat_map(|case| case.variants.iter().map(move |it| (case, it)));
    all.filter_map(|(case, it)| {
        let old = old.find(&case.name, &it.label())?;
        Some(Pair { case: &case.name, old, new: it })
    })
    .collect()
}

/// The comparison as text for people.
pub fn text(old: &Report, new: &Report) -> String {
    let mut text = String::from(
        "compared with the old report: new / old, * where no round of one was within the other's\n\n",
    );
    let mut rows = vec![["case", "old", "new", "new/old"].map(String::from).to_vec()];
    for pair in pairs(old, new) {
        let mark = if pair.differs() { " *" } else { "  " };
        rows.push(vec![
            format!("{} {}", pair.case, pair.new.label()),
            time(pair.old.ns),
            time(pair.new.ns),
            ratio(pair.ratio()) + mark,
        ]);
    }
    text.push_str(&align(&rows));
    if old.device != new.device {
        text.push_str(&format!("\nThe device is another one: {}, and now {}.\n", old.device, new.device));
    }
    if old.trapline != new.trapline {
        text.push_str(&format!("\nThe old report is of trapline {}.\n", old.trapline));
    }
    let differences = hosts(old, new);
    if differences.is_empty() {
        text.push_str("\nNothing that is known of the host is different.\n");
    } else {
        text.push_str("\nWhat is different of the host:\n");
        for (name, old, new) in differences {
            text.push_str(&format!("  {name}: {old}; now {new}\n"));
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use trapline_io::stages::Stages;

    use super::*;
    use crate::bench::report::{self, CaseReport, FORMAT, ReadError};

    fn measured(window: &str, io: Option<&str>, rounds: &[f64]) -> Measured {
        let mut stages = Stages::new();
        for _ in 0..100 {
            stages.exit();
            stages.push();
            stages.resume();
        }
        Measured {
            window: window.into(),
            io: io.map(str::to_owned),
            ns: rounds[rounds.len() / 2],
            best_ns: rounds[0],
            guest_ns: rounds[0],
            rounds: rounds.to_vec(),
            ratios: if io.is_some() { BTreeMap::from([("strict".into(), 0.05)]) } else { BTreeMap::new() },
            exits: io.map(|_| 0.5),
            stages: if io.is_some() { report::times(&stages) } else { BTreeMap::new() },
        }
    }

    /// A small report with all there can be.
    pub fn report() -> Report {
        let case = |name: &str, what: &str| CaseReport {
            name: name.into(),
            what: what.into(),
            accesses: 1,
            not_available: None,
            variants: Vec::new(),
        };
        Report {
            format: FORMAT,
            trapline: "0.1.0".into(),
            device: "null device".into(),
            rounds: 3,
            slice_ms: 40.0,
            host: BTreeMap::from([("kernel".into(), "6.1 <&>".into()), ("SMT".into(), "on".into())]),
            cases: vec![
                CaseReport {
                    variants: vec![
                        measured("bare", None, &[900.0, 910.0, 950.0]),
                        measured("strict", Some("adaptive"), &[1000.0, 1010.0, 1050.0]),
                        measured("shadowed", Some("adaptive"), &[50.0, 51.0, 52.0]),
                    ],
                    ..case("text-line", "80 cells and the cursor")
                },
                CaseReport {
                    not_available: Some("the device has no MSI-X".into()),
                    ..case("msix-mask", "masking an MSI-X vector")
                },
            ],
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was_written() {
        let report = report();
        assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    }

    /// Who reads these files by other programs relies on the names.
    #[test]
    fn keys_are_stable() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json().unwrap()).unwrap();
        let first = &json["cases"][0]["variants"][1];
        for key in ["window", "io", "ns", "best_ns", "guest_ns", "rounds", "ratios", "exits"] {
            assert!(!first[key].is_null(), "{key}");
        }
        for key in ["count", "min", "p50", "p90", "p99", "p99_9", "p99_99", "max", "buckets"] {
            assert!(!first["stages"]["total"][key].is_null(), "{key}");
        }
        assert_eq!(json["format"], 1);
        assert_eq!(json["cases"][1]["not_available"], "the device has no MSI-X");
    }

    #[test]
    fn what_is_no_report_is_told() {
        assert!(matches!(Report::from_json("{}"), Err(ReadError::Syntax(_))));
        assert!(matches!(Report::from_json("{\"format\": 9}"), Err(ReadError::Format(9))));
    }

    #[test]
    fn what_both_have_is_compared_and_marked_where_it_differs() {
        let (old, mut new) = (report(), report());
        new.cases[0].variants.remove(0);
        new.cases[0].variants[1] = measured("shadowed", Some("adaptive"), &[100.0, 102.0, 104.0]);
        new.host.insert("SMT".into(), "off".into());
        new.host.insert("governor".into(), "powersave".into());
        let pairs = pairs(&old, &new);
        assert_eq!(pairs.len(), 2);
        assert!((pairs[1].ratio() - 2.0).abs() < 1e-9 && pairs[1].differs() && !pairs[0].differs());
        assert_eq!(hosts(&old, &new), [("SMT", "on", "off"), ("governor", "unknown", "powersave")]);
        let text = text(&old, &new);
        assert!(text.contains("2.000 *") && text.contains("SMT: on; now off"), "{text}");
    }

    #[test]
    fn a_report_is_no_different_from_itself() {
        let report = report();
        assert!(pairs(&report, &report).iter().all(|pair| !pair.differs()));
        assert!(text(&report, &report).contains("Nothing that is known of the host is different"));
    }
}
