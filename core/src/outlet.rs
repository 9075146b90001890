//! Files named on the command line into which a run writes as it goes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Result, anyhow};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Creates the file, or empties it. A pipe must have a reader: its opening does not wait for one, since the start
/// of a run would hang without a word. What is written afterwards waits as usual.
///
/// # Errors
/// What is in the way, as a line for a person.
pub(crate) fn create(path: &Path) -> Result<File> {
    open(path).map_err(|error| match (error.kind(), error.raw_os_error()) {
        // A file that is not there is made; only its directory can be missing.
        (io::ErrorKind::NotFound, _) => match path.parent() {
            Some(folder) => anyhow!("there is no directory {}; create it first", folder.display()),
            None => error.into(),
        },
        (_, Some(number)) if Errno::from_raw_os_error(number) == Errno::NXIO => {
            anyhow!("nobody reads this pipe; start its reader first")
        }
        _ => anyhow!(crate::config::host_error(&error)),
    })
}

fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    let set = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, set - OFlags::NONBLOCK)?;
    Ok(file)
}
