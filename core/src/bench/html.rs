//! The report as one HTML file: no script, nothing that is elsewhere, readable on light and dark screens.
//!
//! It is well-formed XML too, so that a test can read it.

mod plot;

use std::fmt::Write;

use trapline_io::stages::Stage;

use super::compare;
use super::report::{CaseReport, Measured, Report, Times};
use super::table::{emulated, ratio, time};

/// Colours of the variants in their order, on light and on dark ground.
const COLOURS: [(&str, &str); 9] = [
    ("#6b7280", "#9ca3af"),
    ("#a16207", "#eab308"),
    ("#b91c1c", "#f87171"),
    ("#1d4ed8", "#60a5fa"),
    ("#15803d", "#4ade80"),
    ("#7e22ce", "#c084fc"),
    ("#0f766e", "#2dd4bf"),
    ("#be185d", "#f472b6"),
    ("#4338ca", "#a5b4fc"),
];

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--ground)}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2.2rem 0 .3rem;border-top:1px solid var(--line);padding-top:1rem}
p{margin:.3rem 0 .8rem}small,.quiet{color:var(--quiet)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{padding:.15rem .8rem .15rem 0;text-align:right;white-space:nowrap}
th{font-weight:600;color:var(--quiet)}th:first-child,td:first-child{text-align:left}
.facts td{white-space:normal;text-align:left;vertical-align:top}
.wide{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{flex:1 1 20rem;max-width:min(100%,32rem);height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .axis{stroke:var(--line)}svg .label{fill:var(--quiet)}
svg path{fill:none;stroke-width:1.8}summary{cursor:pointer;color:var(--quiet)}
";

/// The whole page; `old` is a report to compare with.
pub fn page(report: &Report, old: Option<&Report>) -> String {
    let mut page =
        String::from("<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n");
    page.push_str("<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width\"/>\n");
    let _ = writeln!(page, "<title>trapline bench: {}</title>", escape(&report.device));
    let _ = writeln!(page, "<style>\n{}{STYLE}</style>\n</head>\n<body>", colours());
    let _ = writeln!(page, "<h1>What an access costs: {}</h1>", escape(&report.device));
    introduce(&mut page, report);
    let labels = labels(report);
    show_overview(&mut page, report, &labels);
    for case in &report.cases {
        show_case(&mut page, case, &labels);
    }
    if let Some(old) = old {
        show_comparison(&mut page, report, old);
    }
    page.push_str("<h2>Host</h2>\n<table class=\"facts\">\n");
    for (name, value) in &report.host {
        let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

/// Text as HTML has it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // No XML has these.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn colours() -> String {
    let mut light = String::from(
        ":root{color-scheme:light dark;--ink:#111827;--ground:#fff;--quiet:#5b6472;--line:#d6dae0",
    );
    let mut dark = String::from(
        "@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--ground:#111418;--quiet:#9aa3af;--line:#3a4049",
    );
    let mut classes = String::new();
    for (number, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        let _ = write!(light, ";--c{number}:{on_light}");
        let _ = write!(dark, ";--c{number}:{on_dark}");
        let _ = writeln!(
            classes,
            "rect.c{number}{{fill:var(--c{number})}}path.c{number}{{stroke:var(--c{number})}}"
        );
    }
    format!("{light}}}\n{dark}}}}}\n{classes}")
}

fn introduce(page: &mut String, report: &Report) {
    let _ = writeln!(
        page,
        "<p>trapline {}; medians of {} rounds of {} ms each. Times are until everything that was written had been \
         carried out. <b>bare</b> is the same guest in a loop that does nothing but KVM_RUN, <b>bare+file</b> that \
         loop with one pread or pwrite for each access, <b>file</b> these alone without any guest, <b>dropped</b> \
         the coalesced window over a device that does nothing.</p>",
        escape(&report.trapline),
        report.rounds,
        report.slice_ms
    );
    if let Some(ns) = emulated(report) {
        let _ = writeln!(
            page,
            "<p>An empty instruction takes {}: this host's KVM emulates the guest's code instruction by \
             instruction, so what does not trap is much slower than on a processor.</p>",
            time(ns)
        );
    }
}

/// All variants of the report, in the order in which they are first seen: it gives their colours.
fn labels(report: &Report) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for it in report.cases.iter().flat_map(|case| &case.variants) {
        if !labels.contains(&it.label()) {
            labels.push(it.label());
        }
    }
    labels
}

fn colour(labels: &[String], it: &Measured) -> usize {
    labels.iter().position(|label| *label == it.label()).unwrap_or(0) % COLOURS.len()
}

/// All medians on one screen.
fn show_overview(page: &mut String, report: &Report, labels: &[String]) {
    page.push_str("<div class=\"wide\"><table>\n<tr><th>case</th>");
    for label in labels {
        let _ = write!(page, "<th>{}</th>", escape(label));
    }
    page.push_str("</tr>\n");
    for case in &report.cases {
        let of = |label: &String| case.variants.iter().find(|it| it.label() == *label);
        let times = labels.iter().map(|label| of(label).map_or_else(String::new, |it| time(it.ns)));
        row(page, &std::iter::once(escape(&case.name)).chain(times).collect::<Vec<_>>());
    }
    page.push_str("</table></div>\n");
}

fn show_case(page: &mut String, case: &CaseReport, labels: &[String]) {
    let _ = writeln!(page, "<h2>{}</h2>", escape(&case.name));
    let accesses = match case.accesses {
        0 | 1 => String::new(),
        accesses => format!(", {accesses} accesses"),
    };
    let _ = writeln!(page, "<p class=\"quiet\">{}{accesses}</p>", escape(&case.what));
    if let Some(reason) = &case.not_available {
        let _ = writeln!(page, "<p>Not available: {}.</p>", escape(reason));
        return;
    }
    page.push_str(
        "<table>\n<tr><th>variant</th><th>median</th><th>quickest</th><th>to strict</th><th>to bare</th><th>to dropped</th>\
                   <th>exits</th><th>until the guest goes on</th></tr>\n",
    );
    for it in &case.variants {
        let to = |window: &str| it.ratios.get(window).map(|value| ratio(*value));
        let cells = [
            escape(&it.label()),
            time(it.ns),
            time(it.best_ns),
            to("strict").unwrap_or_default(),
            to("bare+file").or_else(|| to("bare")).unwrap_or_default(),
            to("dropped").unwrap_or_default(),
            it.exits.map_or_else(String::new, |exits| format!("{exits:.2}")),
            time(it.guest_ns),
        ];
        row(page, &cells);
    }
    page.push_str("</table>\n<div class=\"plots\">\n");
    let bars: Vec<plot::Bar> = case
        .variants
        .iter()
        .map(|it| plot::Bar {
            label: it.label(),
            value: it.ns,
            shown: time(it.ns),
            colour: colour(labels, it),
        })
        .collect();
    page.push_str(&plot::bars(&bars));
    let total = |it: &'_ Measured| it.stages.get("total").cloned();
    let curves: Vec<plot::Curve> = case
        .variants
        .iter()
        .filter_map(|it| Some(plot::Curve { buckets: total(it)?.buckets, colour: colour(labels, it) }))
        .collect();
    page.push_str(&plot::percentiles(&curves));
    page.push_str("</div>\n");
    show_stages(page, case);
}

fn row(page: &mut String, cells: &[String]) {
    page.push_str("<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    page.push_str("</tr>\n");
}

fn show_stages(page: &mut String, case: &CaseReport) {
    if case.variants.iter().all(|it| it.stages.is_empty()) {
        return;
    }
    page.push_str("<details><summary>stages of an exit</summary>\n<table>\n<tr><th>variant</th><th>stage</th>\
                   <th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>\n");
    for it in &case.variants {
        for (stage, times) in Stage::ALL.iter().filter_map(|stage| it.stages.get_key_value(stage.name())) {
            let Times { count, p50, p90, p99, p99_9, p99_99, max, .. } = times;
            // A time of hours is no figure of this table.
            #[expect(clippy::cast_precision_loss)]
            let shown = [p50, p90, p99, p99_9, p99_99, max].map(|ns| time(*ns as f64));
            let mut cells = vec![escape(&it.label()), escape(stage), count.to_string()];
            cells.extend(shown);
            row(page, &cells);
        }
    }
    page.push_str("</table></details>\n");
}

fn show_comparison(page: &mut String, new: &Report, old: &Report) {
    page.push_str(
        "<h2>Compared with the old report</h2>\n<table>\n<tr><th>case</th><th>old</th><th>new</th>\
                   <th>new/old</th><th></th></tr>\n",
    );
    for pair in compare::pairs(old, new) {
        let mark = if pair.differs() { "rounds do not overlap" } else { "" };
        let name = format!("{} {}", pair.case, pair.new.label());
        row(page, &[escape(&name), time(pair.old.ns), time(pair.new.ns), ratio(pair.ratio()), mark.into()]);
    }
    page.push_str("</table>\n");
    let differences = compare::hosts(old, new);
    if !differences.is_empty() {
        page.push_str("<p>What is different of the host:</p>\n<table class=\"facts\">\n");
        for (name, old, new) in differences {
            row(page, &[escape(name), escape(old), escape(new)]);
        }
        page.push_str("</table>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::compare::tests::report;

    #[test]
    fn a_page_is_well_formed_and_holds_the_report() {
        let page = page(&report(), Some(&report()));
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
        let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
        let svg = ("http://www.w3.org/2000/svg", "svg");
        assert_eq!(document.descendants().filter(|node| node.has_tag_name(svg)).count(), 2);
        assert_eq!(count("script") + count("link") + count("img") + count("iframe"), 0);
        let all: String = document.descendants().filter_map(|node| node.text()).collect();
        for text in ["text-line", "shadowed adaptive", "Not available: the device has no MSI-X", "6.1 <&>"] {
            assert!(all.contains(text), "{text}");
        }
    }

    /// Nothing is fetched: no address but the names of the two XML languages, no `url()`, no `@import`.
    #[test]
    fn a_page_refers_to_nothing_else() {
        let mut page = page(&report(), None);
        for name in ["http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"] {
            page = page.replace(&format!("xmlns=\"{name}\""), "");
        }
        for reference in ["://", "url(", "@import", "src=", "href="] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn what_a_host_says_can_not_break_the_page() {
        let mut report = report();
        report.host.insert("<script>".into(), "\"&\u{1}</td>".into());
        let page = page(&report, None);
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        assert!(roxmltree::Document::parse_with_options(&page, options).is_ok());
        assert!(!page.contains("<script"));
    }
}
