//! A ROM in a table and a paragraph.

use std::fmt::Write;

use trapline_devices::rom::Ids;
use trapline_devices::rom::check::{Firmware, Part, Report, Severity, Size};
use trapline_devices::rom::compare::{Comparison, Judgement};
use trapline_devices::rom::fix::Done;

use super::super::paragraph::entry;

/// The most places that are named in which a ROM differs from another.
const PLACES_MOST: usize = 8;

/// All that is to be said of a ROM, below a first line.
pub(super) fn text(head: &str, report: &Report, comparison: Option<&Comparison>) -> String {
    let mut page = format!("{head}\n\n");
    if !report.parts.is_empty() {
        table(&mut page, report);
    }
    for (word, firmware) in [("BIOS", Firmware::Bios), ("UEFI", Firmware::Uefi)] {
        let verdict = match report.verdict(firmware) {
            Ok(at) => format!("runs the image at {at:#x}"),
            Err(why) if report.remarks.iter().any(|remark| remark.text == why) => {
                "runs none, as said below".to_owned()
            }
            Err(why) => format!("runs none: {why}"),
        };
        entry(&mut page, word, &verdict);
    }
    let mut remarks: Vec<_> = report.remarks.iter().collect();
    // What matters most comes first.
    remarks.sort_by_key(|remark| std::cmp::Reverse(remark.severity));
    for remark in remarks {
        entry(&mut page, word(remark.severity), &remark.text);
    }
    // Of another image, where it differs says nothing.
    if let Some(comparison) = comparison.filter(|comparison| comparison.judgement() != Judgement::Other) {
        differences(&mut page, comparison);
    }
    page
}

/// What was changed, a line each.
pub(super) fn done(done: &[Done]) -> String {
    let mut page = String::new();
    if done.is_empty() {
        entry(&mut page, "done", "nothing: it was right");
    }
    done.iter().for_each(|done| entry(&mut page, "done", &done.to_string()));
    page
}

fn table(page: &mut String, report: &Report) {
    let mut row = |cells: [&str; 7]| {
        let [at, size, code, ids, class, sum, contents] = cells;
        let line = format!("{at:>8}  {size:>9}  {code:14}  {ids:9}  {class:6}  {sum:8}  {contents}");
        let _ = writeln!(page, "{}", line.trim_end());
    };
    row(["OFFSET", "SIZE", "FOR", "ID", "CLASS", "CHECKSUM", "CONTENTS"]);
    for part in &report.parts {
        let image = &part.image;
        let ids = Ids { vendor: image.vendor, device: image.device };
        let sum = match part.checksum {
            Some(0) => "right",
            Some(_) => "wrong",
            None => "-",
        };
        row([
            &format!("{:#x}", image.offset),
            &Size(image.length).to_string(),
            &image.code.to_string(),
            &ids.to_string(),
            &format!("{:06x}", image.class),
            sum,
            &contents(part),
        ]);
    }
    page.push('\n');
}

fn contents(part: &Part) -> String {
    let tables = part.tables.as_ref().map(ToString::to_string);
    let efi = part.efi.map(|efi| efi.to_string());
    let also = match part.image.devices.as_slice() {
        [] => None,
        devices => Some(format!("and for {} more in its list", devices.len())),
    };
    [tables, efi, also].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "! warning",
        Severity::Stops => "! stops",
    }
}

fn differences(page: &mut String, comparison: &Comparison) {
    for place in comparison.places.iter().take(PLACES_MOST) {
        let (start, end) = (place.range.start, place.range.end);
        entry(page, "differs", &format!("{start:#x} to {:#x}: {}", end.saturating_sub(1), place.area));
    }
    if comparison.places.len() > PLACES_MOST {
        entry(page, "differs", "and more");
    }
}
