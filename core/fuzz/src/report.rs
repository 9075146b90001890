//! A report of runs, which may be anybody's: it is read as it was written, and what stands in it stays in its place on
//! the page.

use arbitrary::Arbitrary;
use trapline::report::{Function, Interrupts, Life, Report, Run};

/// What differs of a function.
#[derive(Arbitrary, Debug)]
struct Told<'a> {
    texts: [&'a str; 8],
    lists: [Vec<&'a str>; 3],
    counts: [u64; 3],
    resets: u32,
    lives: [[Option<bool>; 8]; 2],
    posted: bool,
    trouble: Option<&'a str>,
}

fn life(seen: [Option<bool>; 8]) -> Life {
    let [text, graphics, bars, rest @ ..] = seen;
    let [rom, bus_master, msi, msix, function_reset] = rest.map(|seen| seen == Some(true));
    Life { rom, text, graphics, bars, bus_master, msi, msix, function_reset }
}

fn function(told: Told<'_>) -> Function {
    let [name, class_name, ids, class, given, rom, reset, legacy_vga] = told.texts.map(str::to_owned);
    let list = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let [options, bars, offered] = told.lists.map(list);
    let [intx, msi, msix] = told.counts;
    let trouble = told.trouble.map(str::to_owned);
    let interrupts = Interrupts { offered, intx, msi, msix, posted: told.posted, trouble };
    let [first, later] = told.lives.map(life);
    let later = (told.resets > 0).then_some(later);
    let resets = told.resets;
    Function {
        name,
        class_name,
        ids,
        class,
        given,
        options,
        bars,
        rom,
        reset,
        legacy_vga,
        resets,
        first,
        later,
        interrupts,
    }
}

/// Bars that stand between cells.
fn bars(line: &str) -> usize {
    line.matches('|').count() - line.matches("\\|").count()
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    if let Some(text) = super::input::<&str>(data)
        && let Ok(report) = Report::from_json(text)
    {
        let _ = report.to_markdown();
    }
    let Some(runs) = super::input::<Vec<(&str, bool, Vec<Told<'_>>)>>(data) else { return };
    let runs = runs.into_iter().map(|(end, clean, functions)| Run {
        trapline: end.chars().rev().collect(),
        host: [("kernel".to_owned(), end.to_owned())].into(),
        options: vec![end.to_owned()],
        end: end.to_owned(),
        clean,
        functions: functions.into_iter().map(function).collect(),
    });
    let report = Report { runs: runs.collect(), ..Report::default() };
    let json = report.to_json().expect("everything in it can be written");
    assert_eq!(Report::from_json(&json).expect("it was written so"), report);
    let page = report.to_markdown();
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
    let mut columns = None;
    for line in page.lines() {
        let rows = line.starts_with('|').then(|| bars(line));
        assert!(columns.is_none() || rows.is_none() || rows == columns, "{line:?}");
        columns = rows;
    }
}
