//! Files that a reader never sees half written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Writes a file through `fill`: next to it under another name, then renamed into its place. What stood there
/// before stays until then, and stays if anything fails, the host's power included. Something that is no regular
/// file (a pipe, a terminal, /dev/null) is written to as it is. A symbolic link is followed. Blocks on the disk.
///
/// # Errors
///
/// Whatever the host reports; nothing is left behind then.
pub fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let (path, permissions) = match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let mut file = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            fill(&mut file)?;
            return file.flush();
        }
        Ok(found) => (path.canonicalize()?, Some(found.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (behind(path), None),
        Err(error) => return Err(error),
    };
    let (temporary, file) = create_beside(&path)?;
    let written = fill_file(file, permissions, fill).and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        // The error that led here says more than one of this.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn fill_file(
    file: File,
    permissions: Option<std::fs::Permissions>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    // Else the new name might outlive a loss of power, and what it names not.
    file.into_inner()?.sync_all()
}

/// Where a link leads to that has no file at its end; any other path is that itself.
fn behind(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // A ring of links is the kernel's to refuse.
    for _ in 0..40 {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Creates a new file in the folder of `path`, by a name that is no longer than what any folder takes.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    // A file left by a process that was killed must not stand in the way of one with the same number.
    for attempt in 0..100 {
        let temporary = path.with_file_name(format!(".trapline.{}.{attempt}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Tells, without writing, whether [`replace`] would have a place for `path`: what can be known at the start of
/// a run should not be found at its end.
///
/// # Errors
///
/// One line on what is in the way.
pub fn check(path: &Path) -> Result<(), String> {
    let target = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err("this is a directory; name a file in it".into()),
        Ok(found) if !found.is_file() => path.to_owned(),
        Ok(_) => path.canonicalize().as_deref().unwrap_or(path).parent().unwrap_or(path).to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = behind(path);
            let parent =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if path.file_name().is_none() {
                return Err("this names no file".into());
            }
            if !parent.is_dir() {
                return Err(format!("there is no directory {}; create it first", parent.display()));
            }
            parent.to_owned()
        }
        Err(error) => return Err(crate::config::host_error(&error)),
    };
    rustix::fs::access(&target, Access::WRITE_OK)
        .map_err(|_| format!("no permission to write to {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("screen");
        std::fs::write(&path, "old").unwrap();
        replace(&path, |out| {
            out.write_all(b"new")?;
            out.flush()?;
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            Ok(())
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["screen"]);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("screen");
        std::fs::write(&path, "old").unwrap();
        let result = replace(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["screen"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("link"), folder.path().join("real"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, |out| out.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_link_that_leads_nowhere_yet_stays_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("link"), folder.path().join("real"));
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert_eq!(check(&link), Ok(()));
        replace(&link, |out| out.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        std::os::unix::fs::symlink("no/real", folder.path().join("lost")).unwrap();
        assert!(check(&folder.path().join("lost")).unwrap_err().starts_with("there is no directory "));
    }

    #[test]
    fn a_name_may_be_as_long_as_a_name_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        replace(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        replace(Path::new("/dev/null"), |out| out.write_all(b"new")).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn check_finds_what_replace_would_stumble_on() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check(&folder.path().join("new")), Ok(()));
        assert_eq!(check(Path::new("/dev/null")), Ok(()));
        assert_eq!(check(folder.path()), Err("this is a directory; name a file in it".into()));
        assert!(check(&folder.path().join("no/new")).unwrap_err().starts_with("there is no directory "));
        assert!(check(Path::new("/proc/version/x")).is_err());
    }
}
