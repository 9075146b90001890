//! The files that a run writes from its beginning.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

/// Creates, or empties, the file that `option` names for output.
///
/// # Errors
///
/// One line that names the option and the file.
pub fn create(option: &str, path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("--{option} {}", path.display()))
}
