//! The files that the end of a run leaves.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::config::{RunConfig, TextOutput};
use crate::report::Run;
use crate::report::files::Files;
use crate::screen::text::Snapshot;
use crate::screen::{file, png, text};

/// The files to be written.
#[derive(Debug)]
pub(super) struct Outputs {
    screenshot: Option<PathBuf>,
    text: Option<TextOutput>,
    report: Option<Files>,
}

impl Outputs {
    /// Looks whether the files can be written: better now than after the run.
    pub(super) fn check(config: &RunConfig) -> anyhow::Result<Self> {
        let checked = |option: &str, path: &Path| {
            file::check(path).map_err(|problem| anyhow!("--{option} {}: {problem}", path.display()))
        };
        if let Some(path) = &config.screenshot {
            checked("screenshot", path)?;
        }
        if let Some(TextOutput::File(path)) = &config.screen_text {
            checked("screen-text", path)?;
        }
        let report = config.report.as_ref().map(Files::open).transpose()?;
        Ok(Self { screenshot: config.screenshot.clone(), text: config.screen_text.clone(), report })
    }

    /// Adds the run to its report, if there is one.
    pub(super) fn report(&mut self, run: impl FnOnce() -> Run) -> anyhow::Result<()> {
        self.report.take().map_or(Ok(()), |files| files.add(run()))
    }

    /// Writes what the screen showed. All are tried; the first error is returned.
    pub(super) fn write(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let text = self.write_text(snapshot);
        let screenshot = self.write_screenshot(snapshot);
        text.and(screenshot)
    }

    fn write_text(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        match &self.text {
            None => Ok(()),
            Some(TextOutput::Stdout) => {
                let mut out = std::io::stdout().lock();
                text::write(snapshot, &mut out).and_then(|()| out.flush()).context("--screen-text -")
            }
            Some(TextOutput::File(path)) => file::replace(path, |out| text::write(snapshot, out))
                .with_context(|| format!("--screen-text {}", path.display())),
        }
    }

    fn write_screenshot(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let Some(path) = &self.screenshot else { return Ok(()) };
        let name = || format!("--screenshot {}", path.display());
        let Some(frame) = &snapshot.frame else {
            return Err(anyhow!("{}: not written, the guest's display was off", name()));
        };
        file::replace(path, |out| png::write(frame, out)).with_context(name)
    }
}
