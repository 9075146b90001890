//! `trapline report`: what was seen to work, of runs with `--report`.

use std::path::PathBuf;

use super::Status;
use crate::report::{Report, files};

/// What can be given to `trapline report`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// JSON files that runs with --report wrote; of several, the runs are put together in this order
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,

    /// Write the page to this file instead of standard output
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,

    /// Write all runs to this file, as one report
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
}

/// Puts the reports together, and prints or writes them.
pub(super) fn report(arguments: &Arguments) -> anyhow::Result<Status> {
    let mut all = Report::default();
    for path in &arguments.files {
        all.runs.extend(files::read(path)?.runs);
    }
    if let Some(path) = &arguments.json {
        files::write(path, &all.to_json()?)?;
    }
    let page = all.to_markdown();
    if let Some(path) = &arguments.markdown {
        files::write(path, &page)?;
    } else if arguments.json.is_none() {
        super::print(&page)?;
    }
    Ok(Status::Success)
}
