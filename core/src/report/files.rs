//! The files of a report.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::{Report, Run};
use crate::config::ReportFiles;
use crate::screen::file;

/// The largest report that is read, in bytes: some thousand runs.
const MOST: u64 = 16 << 20;

/// How long a run waits for others that end as well. Adding one takes milliseconds, on a busy disk a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether they are done.
const TICK: Duration = Duration::from_millis(5);

/// The files of `--report`, to which a run is to be added.
#[derive(Clone, Debug)]
pub(crate) struct Files(ReportFiles);

impl Files {
    /// Looks whether they can be read and written: better now than after the run.
    ///
    /// # Errors
    /// For a person: what is in the way, or that the file is no report.
    pub(crate) fn open(files: &ReportFiles) -> Result<Files> {
        for path in [&files.json, &files.markdown] {
            file::check(path).map_err(|problem| anyhow!("--report {}: {problem}", path.display()))?;
        }
        before(&files.json)?;
        Ok(Files(files.clone()))
    }

    /// Adds a run to what is there by now, and writes both files. Each is replaced as a whole; of runs that end
    /// together none is lost, as far as the file system has locks. Blocks on the disk, and on the others for
    /// [`PATIENCE`] at most, after which it goes on without them.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn add(self, run: Run) -> Result<()> {
        let Files(ReportFiles { json, markdown }) = self;
        let _turn = turn(&json);
        let mut report = before(&json)?;
        report.runs.push(run);
        write(&json, &report.to_json()?)?;
        write(&markdown, &report.to_markdown())
    }
}

/// Waits until nobody else adds to the reports of this one's folder, until what is returned is dropped. The file itself
/// cannot be locked, since another takes its place. `None`: another holds it for so long that this run goes on without,
/// or there are no locks.
fn turn(report: &Path) -> Option<File> {
    let report = report.canonicalize().unwrap_or_else(|_| report.to_owned());
    let folder = report.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(TICK),
            Err(TryLockError::WouldBlock) => {
                let folder = report.display();
                tracing::warn!(report = %folder, "another program holds the report's folder; going on without");
                return None;
            }
            Err(TryLockError::Error(_)) => return None,
        }
    }
}

/// What the runs before left in a file: nothing, if it is not there.
fn before(path: &Path) -> Result<Report> {
    if path.exists() { read(path) } else { Ok(Report::default()) }
}

/// Reads a report.
///
/// # Errors
/// For a person: the file cannot be read, or is none.
pub(crate) fn read(path: &Path) -> Result<Report> {
    let name = || format!("the report {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(name)?;
    let length = file.take(MOST + 1).read_to_string(&mut text).with_context(name)?;
    if length as u64 > MOST {
        return Err(anyhow!("{}: it is larger than 16 MiB, which no report is; give another name", name()));
    }
    Report::from_json(&text).map_err(|error| anyhow!("{}: {error}; give another name", name()))
}

/// Writes a file of a report.
///
/// # Errors
/// For a person: why it cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    file::replace(path, |out| out.write_all(text.as_bytes()))
        .with_context(|| format!("the report {}", path.display()))
}
