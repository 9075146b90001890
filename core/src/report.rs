//! What became of runs: what was seen, not what was asked for, as it is written to a JSON file and read back.
//!
//! `trapline run --report FILE` adds a run to the file at its end, `trapline report` joins files and prints them. So a
//! file tells of the first start of an adapter, of what it did after a reset of the guest, and of the next start.
//! [`account`] has what a machine leaves for it, `files` the files, `markdown` the page for people.
//!
//! Nothing in it tells one machine or person from another: no addresses of networks, no names of hosts, users, files
//! and disks, no serial numbers, no UUIDs.
//!
//! | name | what |
//! |---|---|
//! | `format` | [`FORMAT`] |
//! | `runs` | a list, the first one first; each with the names below |
//! | `trapline` | the program's version |
//! | `host` | names and values: kernel, processor, IOMMU, KVM's module |
//! | `options` | processors, memory, and what else matters to the functions and is not the default, files as `FILE` |
//! | `end`, `clean` | how it ended, in words; whether that was in good order |
//! | `functions` | a list of the functions that the guest was given, each with the names below |
//! | `name`, `class_name`, `ids`, `class` | words; four and four, and six hexadecimal digits |
//! | `given` | how it was reached, and where in the guest it sat |
//! | `options` | its own options |
//! | `bars`, `rom`, `reset` | words |
//! | `legacy_vga` | whether it owned legacy VGA, or why not |
//! | `resets` | how often the guest's machine, or a bridge above it, was reset |
//! | `first`, `later` | what was seen up to the first reset, and after it: see [`Life`] |
//! | `interrupts` | see [`Interrupts`] |

pub mod account;
pub(crate) mod files;
pub(crate) mod markdown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// What stands for the ROM of a function that has none.
const NO_ROM: &str = "none";

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The runs, the first one first.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program's version.
    pub trapline: String,
    /// What is known of the host: names and values for people.
    pub host: BTreeMap<String, String>,
    /// What was asked for: processors, memory, and what else matters to the functions and is not the default.
    pub options: Vec<String>,
    /// How it ended.
    pub end: String,
    /// Whether everything was taken apart in good order.
    pub clean: bool,
    /// The functions that the guest was given.
    pub functions: Vec<Function>,
}

/// One function in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// What a person would call it.
    pub name: String,
    /// Its class in words.
    pub class_name: String,
    /// Vendor and device, as the guest saw them.
    pub ids: String,
    /// Class code, as the guest saw it.
    pub class: String,
    /// How it was reached, and where in the guest it sat.
    pub given: String,
    /// Its own options, where they are not the default.
    pub options: Vec<String>,
    /// Its base address registers.
    pub bars: Vec<String>,
    /// The expansion ROM that the guest saw.
    pub rom: String,
    /// How the host resets it.
    pub reset: String,
    /// Whether it owned legacy VGA, or why not.
    pub legacy_vga: String,
    /// How often it was reset from outside while something had been seen of it.
    pub resets: u32,
    /// Up to the first reset.
    pub first: Life,
    /// After it, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub later: Option<Life>,
    /// Its interrupts.
    pub interrupts: Interrupts,
}

/// What was seen of a function from one reset to another. What could not be seen is not there: text and modes only
/// where it owned legacy VGA and `--window` was not strict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The guest had the expansion ROM decoded.
    pub rom: bool,
    /// Text was written by the legacy window.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<bool>,
    /// A graphics mode was set by VGA's registers, or used through the legacy window.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub graphics: Option<bool>,
    /// The guest worked through the BARs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bars: Option<bool>,
    /// The guest let it master the bus.
    pub bus_master: bool,
    /// The guest enabled MSI and a message.
    pub msi: bool,
    /// The guest enabled MSI-X and a vector.
    pub msix: bool,
    /// The guest reset this function alone.
    pub function_reset: bool,
}

/// What was seen of a function's interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupts {
    /// The ways that the guest was offered: `INTx`, `MSI`, `MSI-X`.
    pub offered: Vec<String>,
    /// How many came by the line, at least. Those of other functions on the same line of the host are in it.
    pub intx: u64,
    /// How many came by MSI, at least: those that were there at one of the looks at them.
    pub msi: u64,
    /// How many came by MSI-X, at least.
    pub msix: u64,
    /// Messages may have gone to the guest uncounted.
    pub posted: bool,
    /// What was wrong with them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("it is no report of trapline run: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("it is a report of format {0}, and this version of trapline reads format {FORMAT}")]
    Format(u32),
}

impl Default for Report {
    fn default() -> Report {
        Report { format: FORMAT, runs: Vec::new() }
    }
}

impl Report {
    /// As JSON, with a line's end.
    ///
    /// # Errors
    /// None in practice: everything in it can be written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// As a page in Markdown: a table of all adapters, and each of them by itself.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::page(self)
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
}

/// The format that a report says it has.
pub(crate) fn format_of(text: &str) -> Result<u32, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    serde_json::from_str(text).map(|Head { format }| format)
}

impl Function {
    /// All that was seen, before a reset and after it.
    fn lives(&self) -> impl Iterator<Item = &Life> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// What says that a driver of the guest had it, if anything does.
    fn driver(&self) -> Option<&'static str> {
        self.lives().find_map(|life| life.driver(self.interrupts.intx))
    }
}

impl Life {
    /// Whether anything was seen at all.
    fn is_anything(&self) -> bool {
        *self
            != Life {
                text: self.text.map(|_| false),
                graphics: self.graphics.map(|_| false),
                bars: self.bars.map(|_| false),
                ..Life::default()
            }
    }

    /// Whether all is here that was seen in the one before, but for resets.
    fn has_all_of(&self, before: &Life) -> bool {
        let marks = |it: &Life| {
            let shown = [it.text, it.graphics, it.bars].map(|seen| seen == Some(true));
            shown.into_iter().chain([it.rom, it.bus_master, it.msi, it.msix]).collect::<Vec<_>>()
        };
        marks(before).into_iter().zip(marks(self)).all(|(before, now)| now || !before)
    }

    /// Whether a graphics mode was set. A driver that may have been at work may have set one by ways of its own, which
    /// is not seen.
    fn graphics_mode(&self) -> Option<bool> {
        let driven = self.bars == Some(true) || self.bus_master || self.msi || self.msix;
        self.graphics.filter(|seen| *seen || !driven)
    }

    /// What says that a driver of the guest had the function; so many interrupts came by its line. Firmware enables no
    /// messages, and uses no frame buffer for long.
    fn driver(&self, by_line: u64) -> Option<&'static str> {
        match self {
            Life { msix: true, .. } => Some("enabled MSI-X"),
            Life { msi: true, .. } => Some("enabled MSI"),
            Life { bars: Some(true), .. } => Some("worked through the BARs"),
            Life { bus_master: true, .. } if by_line > 0 => Some("let it master the bus, and took its line"),
            _ => None,
        }
    }
}
