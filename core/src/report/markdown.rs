//! A report as a page for people: first what worked of each adapter, a line each, then what is known of it, and then
//! its starts.

use std::fmt::Write;

use super::{Function, Interrupts, Life, NO_ROM, Report, Run};

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = String::from(
        "# What worked\n\nSeen by trapline while guests ran, not asked of anybody. A dash stands for what could not be \
         seen, as modes that a driver sets without VGA's registers, or was not tried. Interrupts are counted now and \
         then: a short burst is missed.\n\n",
    );
    let adapters = adapters(report);
    page += "| adapter | ROM decoded | text by legacy VGA | graphics mode | driver | interrupts counted | \
             after a reset | starts |\n";
    page += "|---|---|---|---|---|---|---|---|\n";
    for adapter in &adapters {
        page += &adapter.line();
    }
    for adapter in &adapters {
        adapter.tell(&mut page);
    }
    page += &hosts(report);
    page
}

/// One function in all its runs.
struct Adapter<'a> {
    starts: Vec<(&'a Run, &'a Function)>,
}

/// The functions, in the order in which they were first seen: what has the same ids, class, name and place is the same.
fn adapters(report: &Report) -> Vec<Adapter<'_>> {
    let mut adapters: Vec<Adapter<'_>> = Vec::new();
    for run in &report.runs {
        let mut taken = Vec::new();
        for function in &run.functions {
            let same = |adapter: &Adapter<'_>| {
                let (_, first) = adapter.starts[0];
                (&first.ids, &first.class, &first.name) == (&function.ids, &function.class, &function.name)
            };
            let place =
                adapters.iter().enumerate().position(|(place, it)| same(it) && !taken.contains(&place));
            let place = place.unwrap_or(adapters.len());
            taken.push(place);
            match adapters.get_mut(place) {
                Some(adapter) => adapter.starts.push((run, function)),
                None => adapters.push(Adapter { starts: vec![(run, function)] }),
            }
        }
    }
    adapters
}

impl Adapter<'_> {
    fn functions(&self) -> impl Iterator<Item = &Function> {
        self.starts.iter().map(|(_, function)| *function)
    }

    fn title(&self) -> String {
        let title = |it: &Function| format!("{} ({}, class {})", it.name, it.ids, it.class);
        self.functions().next().map_or_else(String::new, |it| cell(&title(it)))
    }

    /// Its line of the table.
    fn line(&self) -> String {
        let has_rom = self.functions().any(|it| it.rom != NO_ROM);
        let rom = if has_rom { self.seen(|life| Some(life.rom)) } else { "-" };
        let text = self.seen(|life| life.text);
        let graphics = self.seen(Life::graphics_mode);
        let driver = self.functions().find_map(Function::driver).unwrap_or("none seen");
        let (interrupts, again, starts) = (self.interrupts(), self.after_a_reset(), self.started());
        format!(
            "| {} | {rom} | {text} | {graphics} | {driver} | {interrupts} | {again} | {starts} |\n",
            self.title()
        )
    }

    /// Whether it was seen in any life; what could not be seen in one of them may have been there.
    fn seen(&self, what: fn(&Life) -> Option<bool>) -> &'static str {
        let all: Vec<Option<bool>> = self.functions().flat_map(Function::lives).map(what).collect();
        match (all.contains(&Some(true)), all.contains(&None)) {
            (true, _) => "yes",
            (false, true) => "-",
            (false, false) => "no",
        }
    }

    fn interrupts(&self) -> String {
        // A report may be anybody's.
        let sum = |what: fn(&Interrupts) -> u64| {
            self.functions().map(|it| what(&it.interrupts)).fold(0, u64::saturating_add)
        };
        let ways = [("INTx", sum(|it| it.intx)), ("MSI", sum(|it| it.msi)), ("MSI-X", sum(|it| it.msix))];
        let came: Vec<&str> = ways.iter().filter(|(_, count)| *count > 0).map(|(way, _)| *way).collect();
        let mut text = match came.as_slice() {
            [] if self.functions().all(|it| it.interrupts.offered.is_empty()) => "-".to_owned(),
            [] if self.functions().any(|it| it.interrupts.posted) => "not counted".to_owned(),
            [] => "none counted".to_owned(),
            came => came.join(", "),
        };
        if self.functions().any(|it| it.interrupts.trouble.is_some()) {
            text += ", with trouble";
        }
        text
    }

    /// Whether after a reset all was seen that was seen before it.
    fn after_a_reset(&self) -> &'static str {
        let after = || self.functions().filter_map(|it| Some((&it.first, it.later.as_ref()?)));
        if after().next().is_none() {
            "-"
        } else if after().any(|(first, later)| later.has_all_of(first)) {
            "yes"
        } else if after().any(|(_, later)| later.is_anything()) {
            "in part"
        } else {
            "no"
        }
    }

    /// How many starts there were, and whether something was seen in those after the first.
    fn started(&self) -> String {
        let again = self.functions().skip(1).filter(|it| it.lives().any(Life::is_anything)).count();
        match self.starts.len() {
            1 => "1".to_owned(),
            all if again + 1 == all => format!("{all}, seen in all"),
            all => format!("{all}, seen again in {again} of {}", all - 1),
        }
    }

    /// Its part of the page: what it is, from the last start, and each start.
    fn tell(&self, page: &mut String) {
        let Some((_, last)) = self.starts.last() else { return };
        let _ = write!(page, "\n## {}\n\n", self.title());
        let of = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join("; ") };
        let facts = [
            ("class", format!("{} ({})", last.class_name, last.class)),
            ("given", last.given.clone()),
            ("options", of(&last.options)),
            ("base address registers", of(&last.bars)),
            ("ROM", last.rom.clone()),
            ("reset by the host", last.reset.clone()),
            ("legacy VGA", last.legacy_vga.clone()),
            ("ways to interrupt", of(&last.interrupts.offered)),
        ];
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(page, "- {name}: {}", cell(value));
        }
        *page += "\n| start | ROM decoded | text | graphics mode | BARs worked through | bus master | MSI / MSI-X enabled | \
                  interrupts INTx / MSI / MSI-X, at least | resets | end |\n";
        *page += "|---|---|---|---|---|---|---|---|---|---|\n";
        for (number, (run, function)) in (1..).zip(&self.starts) {
            let Interrupts { intx, msi, msix, .. } = function.interrupts;
            *page += &start(&number.to_string(), &function.first);
            let _ = writeln!(page, " {intx} / {msi} / {msix} | {} | {} |", function.resets, cell(&run.end));
            if let Some(later) = &function.later {
                *page += &start(&format!("{number}, after a reset"), later);
                *page += " | | |\n";
            }
        }
        let troubles = self.functions().filter_map(|it| it.interrupts.trouble.as_ref());
        for trouble in troubles {
            let _ = write!(page, "\nIts interrupts: {}\n", cell(trouble));
        }
    }
}

/// The columns of a start that a life tells of.
fn start(name: &str, life: &Life) -> String {
    let maybe = |seen: Option<bool>| seen.map_or("-", yes);
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} / {} |",
        yes(life.rom),
        maybe(life.text),
        maybe(life.graphics_mode()),
        maybe(life.bars),
        yes(life.bus_master),
        yes(life.msi),
        yes(life.msix),
    )
}

/// The hosts and options of the runs, each kind once.
fn hosts(report: &Report) -> String {
    let mut told: Vec<String> = Vec::new();
    for run in &report.runs {
        let facts: Vec<String> = run.host.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let line = format!("trapline {}; {}; {}", run.trapline, facts.join("; "), run.options.join(" "));
        if !told.contains(&line) {
            told.push(line);
        }
    }
    let lines: String = told.iter().map(|line| format!("- {}\n", cell(line))).collect();
    format!("\n## Where\n\n{lines}")
}

fn yes(seen: bool) -> &'static str {
    if seen { "yes" } else { "no" }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}
