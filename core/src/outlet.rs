//! Files named on the command line into which a run writes as it goes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// As [`create`], for lines. A file that is this program's own output, or error output, is not emptied but shared with
/// what else comes there.
///
/// # Errors
/// As [`create`].
pub(crate) fn lines(path: &Path) -> Result<File> {
    let (output, errors) = (io::stdout(), io::stderr());
    own(path, &[output.as_fd(), errors.as_fd()]).map_or_else(|| create(path), Ok)
}

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

/// Sees that no two of these options, each with what it names, write over each other's lines.
///
/// # Errors
/// Two name one file.
pub(crate) fn apart(named: &[(&str, &Path)]) -> Result<()> {
    let file = |path: &Path| std::fs::metadata(path).ok().filter(|found| found.is_file());
    for (index, (option, path)) in named.iter().enumerate() {
        let Some(found) = file(path) else { continue };
        let same = |other: &std::fs::Metadata| (other.dev(), other.ino()) == (found.dev(), found.ino());
        let others = named.iter().skip(index + 1);
        if let Some((other, _)) =
            others.into_iter().find(|(_, path)| file(path).is_some_and(|file| same(&file)))
        {
            bail!("--{option} and --{other} name one file, {}; give each its own", path.display());
        }
    }
    Ok(())
}

/// A descriptor of ours that leads to the same file: another one would begin at the file's start.
fn own(path: &Path, ours: &[BorrowedFd<'_>]) -> Option<File> {
    let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let leads = |fd: &&BorrowedFd<'_>| {
        rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (found.dev(), found.ino()))
    };
    ours.iter().find(leads)?.try_clone_to_owned().ok().map(File::from)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    let set = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, set - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn two_options_do_not_write_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, link, other) =
            (folder.path().join("one"), folder.path().join("link"), folder.path().join("other"));
        std::fs::write(&one, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let null = Path::new("/dev/null");
        apart(&[("serial", &one), ("debugcon", &other), ("trace", &folder.path().join("none"))]).unwrap();
        apart(&[("serial", null), ("debugcon", null)]).unwrap();
        let refused =
            apart(&[("serial", &one), ("trace", &other), ("debugcon", &link)]).unwrap_err().to_string();
        assert!(refused.starts_with("--serial and --debugcon name one file, "), "{refused}");
    }

    #[test]
    fn what_is_our_own_output_already_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = File::create(&path).unwrap();
        log.write_all(b"before, ").unwrap();
        let mut shared = own(&path, &[log.as_fd()]).unwrap();
        shared.write_all(b"in between, ").unwrap();
        log.write_all(b"after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before, in between, after");
        assert!(own(&folder.path().join("none"), &[log.as_fd()]).is_none());
        assert!(own(Path::new("/dev/null"), &[File::open("/dev/null").unwrap().as_fd()]).is_none());
    }
}
