//! Opening a disk image.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use thiserror::Error;

use super::SECTOR;

/// How long the lock of a block device may be somebody else's: udev takes it for some milliseconds
/// whenever a writer has closed the device, to look at what is on it now.
const GLANCE: Duration = Duration::from_secs(1);

/// Why a disk image cannot be used: each a line for a person.
#[derive(Debug, Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("disk image {0:?} does not exist")]
    Missing(PathBuf),
    /// The file may not be opened.
    #[error("disk image {0:?} may not be read by this user")]
    Unreadable(PathBuf),
    /// The file may be read, not written.
    #[error("disk image {0:?} may not be written by this user; give it as read-only, or change its mode")]
    Unwritable(PathBuf),
    /// It is a directory.
    #[error("disk image {0:?} is a directory; a raw image file or a block device is needed")]
    Directory(PathBuf),
    /// It is a pipe, a terminal or the like.
    #[error("disk image {0:?} is neither a file nor a block device")]
    Kind(PathBuf),
    /// There is nothing in it.
    #[error("disk image {0:?} is empty")]
    Empty(PathBuf),
    /// The end of a raw image lies between two sectors: it is no raw image, or was cut.
    #[error("disk image {path:?} has {bytes} bytes, not a multiple of 512: not a raw image, or cut short")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Somebody holds a lock that forbids this use, or the host itself has the block device.
    #[error(
        "disk image {0:?} is in use already, by the host (a mount, a volume), by another program or given twice; \
         only read-only uses can be shared"
    )]
    InUse(PathBuf),
    /// The host failed.
    #[error("disk image {path:?} cannot be opened")]
    Host {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// An open raw image, locked for as long as it is open: shared when read-only, else exclusive.
#[derive(Debug)]
pub struct Disk {
    pub(super) file: File,
    /// What it is called in messages.
    pub(super) path: PathBuf,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Opens an image file or a block device.
    ///
    /// # Errors
    /// What is wrong with the path, as a line for a person. Waits for a second at most.
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Disk, DiskError> {
        let path = path.as_ref().to_path_buf();
        let host = |source| DiskError::Host { path: path.clone(), source };
        // Looked at first: opening a pipe would wait for its other end.
        let kind = fs::metadata(&path).map_err(|error| refused(&path, error, true))?.file_type();
        if kind.is_dir() {
            return Err(DiskError::Directory(path));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind(path));
        }
        let writes_device = kind.is_block_device() && !read_only;
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(if writes_device { claim() } else { 0 })
            .open(&path)
            .map_err(|error| refused(&path, error, read_only || File::open(&path).is_err()))?;
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        let patience = if writes_device { GLANCE } else { Duration::ZERO };
        match patiently(patience, || flock(&file, lock)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse(path)),
            // A file system without locks.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => {
                tracing::warn!(?path, "the file system has no locks: the disk image is not protected");
            }
            Err(error) => return Err(host(error.into())),
        }
        // A block device tells its length in no other way.
        let bytes = file.seek(SeekFrom::End(0)).map_err(host)?;
        if bytes == 0 {
            return Err(DiskError::Empty(path));
        }
        if !bytes.is_multiple_of(SECTOR.into()) {
            return Err(DiskError::Size { path, bytes });
        }
        Ok(Disk { file, path, sectors: bytes / u64::from(SECTOR), read_only })
    }

    /// A disk of `sectors` on any descriptor, unchecked.
    #[cfg(test)]
    pub(super) fn unchecked(file: File, sectors: u64, read_only: bool) -> Disk {
        Disk { file, path: "test.img".into(), sectors, read_only }
    }

    /// Its length in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the guest may not write.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What the disk answers when it is asked who it is: the file's name, as far as it fits.
    pub(super) fn identity(&self) -> [u8; 20] {
        let mut identity = [0; 20];
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        for (to, from) in identity.iter_mut().zip(name) {
            *to = *from;
        }
        identity
    }
}

/// The flag that makes this the only one with a claim to a block device. Without it a guest could write
/// below a mounted file system, or below a volume: neither takes a lock. For a file it means nothing.
fn claim() -> i32 {
    i32::try_from(OFlags::EXCL.bits()).unwrap_or_default()
}

/// Tries to take a lock until it is free or `patience` is over.
fn patiently(patience: Duration, mut lock: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    let start = Instant::now();
    loop {
        match lock() {
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// `unreadable`: the path could not even be read.
fn refused(path: &Path, source: std::io::Error, unreadable: bool) -> DiskError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => DiskError::Missing(path),
        ErrorKind::ResourceBusy => DiskError::InUse(path),
        ErrorKind::PermissionDenied if unreadable => DiskError::Unreadable(path),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => DiskError::Unwritable(path),
        _ => DiskError::Host { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_told_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("empty"), b"").unwrap();
        fs::write(at("odd"), [0; 700]).unwrap();
        let error = |name: &str| Disk::open(at(name), false).unwrap_err();
        assert!(matches!(error("none"), DiskError::Missing(_)));
        assert!(matches!(error("empty/below"), DiskError::Missing(_)));
        assert!(matches!(error(""), DiskError::Directory(_)));
        assert!(matches!(error("empty"), DiskError::Empty(_)));
        assert!(matches!(error("odd"), DiskError::Size { bytes: 700, .. }));
        assert!(matches!(Disk::open("/dev/null", true).unwrap_err(), DiskError::Kind(_)));
        for error in [error("none"), error(""), error("empty"), error("odd")] {
            let text = error.to_string();
            assert!(text.starts_with("disk image") && text.lines().count() == 1, "{text}");
        }
    }

    #[test]
    fn a_writer_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, [0; 1024]).unwrap();
        let reader = Disk::open(&path, true).unwrap();
        assert_eq!(reader.sectors(), 2);
        let _other_reader = Disk::open(&path, true).unwrap();
        assert!(matches!(Disk::open(&path, false).unwrap_err(), DiskError::InUse(_)));
        drop((reader, _other_reader));
        let _writer = Disk::open(&path, false).unwrap();
        assert!(matches!(Disk::open(&path, true).unwrap_err(), DiskError::InUse(_)));
    }

    #[test]
    fn a_block_device_that_the_host_has_is_in_use() {
        // What the kernel answers to a second claim; a test has no block device for sure.
        let error = refused(Path::new("/dev/sdx"), Errno::BUSY.into(), false);
        assert!(matches!(error, DiskError::InUse(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("by the host") && text.lines().count() == 1, "{text}");
        assert_eq!(claim(), 0o200, "O_EXCL");
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for() {
        let mut held = 3;
        let glance = || {
            held -= 1;
            if held > 0 { Err(Errno::WOULDBLOCK) } else { Ok(()) }
        };
        assert_eq!(patiently(Duration::from_secs(60), glance), Ok(()));
        assert_eq!(patiently(Duration::ZERO, || Err(Errno::WOULDBLOCK)), Err(Errno::WOULDBLOCK));
        assert_eq!(patiently(Duration::from_millis(30), || Err(Errno::WOULDBLOCK)), Err(Errno::WOULDBLOCK));
        // Only a lock that somebody holds becomes free.
        assert_eq!(patiently(Duration::from_secs(60), || Err(Errno::NOLCK)), Err(Errno::NOLCK));
    }
}
