//! What is said when a value cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    CommandLine,
    /// A configuration file.
    File(PathBuf),
}

/// A configuration that cannot be used. Its text is one line: what was given, what is wrong with it and
/// what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    /// An error about `value` of `option` as given in `origin`.
    pub(crate) fn value(origin: &Origin, option: &str, value: &str, problem: impl fmt::Display) -> Self {
        let value = Shown(value);
        let place = match origin {
            Origin::CommandLine => format!("--{option} {value}"),
            Origin::File(path) => format!("{}: {option} = {value}", Shown(&path.to_string_lossy())),
        };
        Self { place, problem: problem.to_string() }
    }

    /// An error about an option as a whole.
    pub(super) fn option(origin: &Origin, option: &str, problem: impl fmt::Display) -> Self {
        let place = match origin {
            Origin::CommandLine => format!("--{option}"),
            Origin::File(path) => format!("{}: {option}", Shown(&path.to_string_lossy())),
        };
        Self { place, problem: problem.to_string() }
    }

    /// An error about a configuration file.
    pub(super) fn file(path: &str, problem: impl fmt::Display) -> Self {
        Self { place: format!("--config {}", Shown(path)), problem: problem.to_string() }
    }
}

/// A string of the user's as it is printed: on one line, not endless, quoted where its ends would not be
/// seen.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

/// An error of the host in words for a person: without the number of the error.
pub(crate) fn host_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "this is a directory".into(),
        io::ErrorKind::InvalidData => "this is not UTF-8 text".into(),
        _ => {
            let text = error.to_string();
            text.split_once(" (os error ").map_or(text.as_str(), |(text, _)| text).to_lowercase()
        }
    }
}

/// The most of a value that is repeated in a message, in characters.
const SHOWN_MOST: usize = 120;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: String = self.0.chars().take(SHOWN_MOST).collect();
        if text.len() < self.0.len() {
            text.push_str("...");
        }
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
        if plain { f.write_str(&text) } else { write!(f, "{text:?}") }
    }
}
