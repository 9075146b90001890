//! The files that a machine is given, opened and looked at before it is built.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::config::Disk;

/// A disk reads and writes in sectors of this many bytes.
pub const SECTOR: u64 = 512;

/// An image that is open, and locked against other runs that would write to it: one writer, or any number of
/// readers.
#[derive(Debug)]
pub struct OpenDisk {
    /// The image, open for reading, and for writing unless `readonly`.
    pub file: File,
    /// Its length: a multiple of [`SECTOR`], above 0.
    pub bytes: u64,
    /// Whether the guest is kept from writing.
    pub readonly: bool,
}

impl OpenDisk {
    /// Opens a regular file or a block device. Blocks on the host's disk.
    ///
    /// # Errors
    ///
    /// One line that names the disk: it is not there, may not be opened, is no image, or is in use by another run.
    pub fn open(disk: &Disk) -> anyhow::Result<Self> {
        Self::try_open(disk).with_context(|| format!("--disk {}", disk.path.display()))
    }

    fn try_open(disk: &Disk) -> anyhow::Result<Self> {
        use std::os::unix::fs::FileTypeExt;

        // Looked at before it is opened: to open a pipe would wait for its other end.
        let kind = std::fs::metadata(&disk.path)?.file_type();
        ensure!(!kind.is_dir(), "this is a directory; name a raw disk image");
        ensure!(kind.is_file() || kind.is_block_device(), "this is neither a file nor a block device");
        let mut file = match OpenOptions::new().read(true).write(!disk.readonly).open(&disk.path) {
            Err(error) if !disk.readonly && File::open(&disk.path).is_ok() => {
                let problem = crate::config::host_error(&error);
                bail!(
                    "it can not be opened for writing ({problem}); add ,readonly, or change its permissions"
                )
            }
            opened => opened?,
        };
        let bytes = file.seek(SeekFrom::End(0))?;
        ensure!(bytes > 0, "the file is empty; name a raw disk image");
        ensure!(
            bytes.is_multiple_of(SECTOR),
            "its size, {bytes} bytes, is not a multiple of {SECTOR}; name a raw disk image"
        );
        match if disk.readonly { file.try_lock_shared() } else { file.try_lock() } {
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another disk or another run uses it, and one of them may write; make all of them readonly"
                )
            }
            // A file system without locks is no reason not to use it.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        Ok(Self { file, bytes, readonly: disk.readonly })
    }
}

/// Creates, or empties, the file that `option` names for output.
///
/// # Errors
///
/// One line that names the option and the file.
pub fn create(option: &str, path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("--{option} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::one_line;

    fn disk(path: &Path, readonly: bool) -> Disk {
        Disk { path: path.to_owned(), readonly }
    }

    fn problem(path: &Path) -> String {
        let line = one_line(&OpenDisk::open(&disk(path, false)).unwrap_err());
        line.strip_prefix(&format!("--disk {}: ", path.display())).expect("the disk is named").to_owned()
    }

    #[test]
    fn an_image_is_opened_with_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [0; 1024]).unwrap();
        let open = OpenDisk::open(&disk(&path, false)).unwrap();
        assert_eq!((open.bytes, open.readonly), (1024, false));
    }

    #[test]
    fn what_is_no_image_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(problem(&path("a")), "there is no such file");
        assert_eq!(problem(folder.path()), "this is a directory; name a raw disk image");
        assert_eq!(problem(Path::new("/dev/null")), "this is neither a file nor a block device");
        std::fs::write(path("empty"), []).unwrap();
        assert_eq!(problem(&path("empty")), "the file is empty; name a raw disk image");
        std::fs::write(path("odd"), [0; 513]).unwrap();
        assert_eq!(
            problem(&path("odd")),
            "its size, 513 bytes, is not a multiple of 512; name a raw disk image"
        );
    }

    #[test]
    fn one_writer_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [0; 512]).unwrap();
        let first = OpenDisk::open(&disk(&path, true)).unwrap();
        let second = OpenDisk::open(&disk(&path, true)).unwrap();
        let in_use =
            "another disk or another run uses it, and one of them may write; make all of them readonly";
        assert_eq!(problem(&path), in_use);
        drop((first, second));
        let writer = OpenDisk::open(&disk(&path, false)).unwrap();
        assert!(OpenDisk::open(&disk(&path, true)).is_err());
        drop(writer);
        assert!(OpenDisk::open(&disk(&path, false)).is_ok());
    }

    #[test]
    fn an_output_that_can_not_be_made_names_its_option() {
        let error = create("serial", Path::new("/nonexistent/a")).unwrap_err();
        assert_eq!(one_line(&error), "--serial /nonexistent/a: there is no such file");
    }
}
