//! The file of a trace, whole at any time.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::outlet;

/// A file to which pieces are appended. A regular file ends with the footer after each of them, so that it is
/// whole even if the process is killed; a pipe gets its footer at the end. The first failure ends it.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    path: PathBuf,
    /// Where the footer stands, in a file that has places.
    at: Option<u64>,
    failed: bool,
}

impl Sink {
    /// Creates the file, or empties it. A pipe must have a reader.
    pub(super) fn create(path: &Path) -> Result<Sink> {
        let opened = outlet::create(path).and_then(|file| {
            let is_file = file.metadata()?.is_file();
            Ok((file, is_file))
        });
        let (file, is_file) = opened.with_context(|| format!("--trace {}", path.display()))?;
        Ok(Sink { file, path: path.to_owned(), at: is_file.then_some(0), failed: false })
    }

    /// Has `bytes` stand in a regular file until the first piece, which is longer, takes their place.
    pub(super) fn hold(&self, bytes: &[u8]) -> Result<()> {
        if self.at.is_some() {
            let written = self.file.write_all_at(bytes, 0);
            written.with_context(|| format!("--trace {}", self.path.display()))?;
        }
        Ok(())
    }

    /// What it is called.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing more comes into it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Appends `bytes`, and empties them; `footer` follows where it can be taken back. May block.
    pub(super) fn append(&mut self, bytes: &mut Vec<u8>, footer: &[u8]) {
        if !self.failed && !bytes.is_empty() {
            let len = bytes.len() as u64;
            let written = match &mut self.at {
                None => self.file.write_all(bytes),
                Some(at) => {
                    bytes.extend_from_slice(footer);
                    self.file.write_all_at(bytes, *at).map(|()| *at += len)
                }
            };
            if let Err(error) = written {
                self.give_up(&error, footer);
            }
        }
        bytes.clear();
    }

    /// Writes the footer where it does not stand yet.
    pub(super) fn finish(&mut self, footer: &[u8]) {
        if !self.failed
            && self.at.is_none()
            && let Err(error) = self.file.write_all(footer)
        {
            self.give_up(&error, footer);
        }
    }

    fn give_up(&mut self, error: &io::Error, footer: &[u8]) {
        self.failed = true;
        let reason = match error.kind() {
            io::ErrorKind::BrokenPipe => "its reader is gone".to_owned(),
            io::ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => crate::config::host_error(error),
        };
        tracing::error!("--trace {}: {reason}; the trace ends here, the run goes on", self.path.display());
        // Where the footer stood there is room for it again.
        if let Some(at) = self.at {
            let whole = self.file.set_len(at).and_then(|()| self.file.write_all_at(footer, at));
            if let Err(error) = whole {
                tracing::debug!(%error, "the end of the trace is missing");
            }
        }
    }
}
