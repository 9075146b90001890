//! The firmware images of the distribution: found, read whole, checked.

use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The largest firmware image: what fits between 0xff000000 and 4 GiB.
const MAX_FIRMWARE: u64 = 16 << 20;
/// A firmware image is a multiple of this.
const FIRMWARE_UNIT: u64 = 64 << 10;
/// The largest option ROM: its size byte counts 512 bytes.
const MAX_OPTION_ROM: u64 = 255 * 512;

/// Where distributions put SeaBIOS: Debian, Ubuntu and Fedora; Arch and openSUSE; a QEMU built by hand.
const SEABIOS: [&str; 4] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/qemu-kvm/bios-256k.bin",
    "/usr/local/share/qemu/bios-256k.bin",
];
const LINUXBOOT: [&str; 4] = [
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu-kvm/linuxboot_dma.bin",
    "/usr/share/seabios/linuxboot_dma.bin",
    "/usr/local/share/qemu/linuxboot_dma.bin",
];

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// None of the usual places has it.
    #[error("no {what} found (looked at {}); install the package {package}{}", places.join(", "), advice)]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// Where.
        places: &'static [&'static str],
        /// Which package of Debian and Ubuntu brings it.
        package: &'static str,
        /// What else can be done.
        advice: &'static str,
    },
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a directory or a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The size is none that such an image can have.
    #[error("{} has {len} bytes, but {rule}", path.display())]
    Size {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        len: u64,
        /// What would be right.
        rule: &'static str,
    },
    /// The bytes are not such an image.
    #[error("{} is not {what}: {found}", path.display())]
    Contents {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What is wrong with it.
        found: &'static str,
    },
}

/// An image and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// The file it was read from.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.bytes.len())
    }
}

/// The firmware: the file that the user named, or the distribution's SeaBIOS. Reads the file whole.
///
/// # Errors
/// There is no such file, it cannot be read, or it is no firmware of at most 16 MiB.
pub fn firmware(named: Option<&Path>) -> Result<Image, ImageError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => find("SeaBIOS image", &SEABIOS, "seabios", ", or name one with --firmware FILE")?,
    };
    let image = read(path, MAX_FIRMWARE, "a firmware image has at most 16 MiB")?;
    check_firmware(image)
}

fn check_firmware(image: Image) -> Result<Image, ImageError> {
    let len = image.bytes.len() as u64;
    if len == 0 || !len.is_multiple_of(FIRMWARE_UNIT) {
        return Err(ImageError::Size {
            path: image.path,
            len,
            rule: "a firmware image is a multiple of 64 KiB (65536 bytes)",
        });
    }
    let vector = &image.bytes[image.bytes.len() - 16..];
    if vector.iter().all(|byte| *byte == 0) || vector.iter().all(|byte| *byte == 0xff) {
        return Err(ImageError::Contents {
            path: image.path,
            what: "a firmware image",
            found: "its last 16 bytes, where a processor starts, hold no code",
        });
    }
    Ok(image)
}

/// The option ROM that loads a Linux kernel through fw_cfg. Reads the file whole.
///
/// # Errors
/// The distribution's file is not there, or is no option ROM.
pub fn linuxboot() -> Result<Image, ImageError> {
    let path =
        find("linuxboot_dma.bin (the option ROM behind --kernel)", &LINUXBOOT, "qemu-system-data", "")?;
    option_rom(path)
}

/// Reads an option ROM and checks its signature and its size byte; the checksum is the firmware's matter.
fn option_rom(path: impl Into<PathBuf>) -> Result<Image, ImageError> {
    let image = read(path.into(), MAX_OPTION_ROM, "an option ROM has at most 127.5 KiB (130560 bytes)")?;
    let [0x55, 0xaa, blocks, ..] = image.bytes[..] else {
        return Err(not_a_rom(image, "it does not start with 55 aa"));
    };
    if blocks == 0 || usize::from(blocks) * 512 > image.bytes.len() {
        return Err(not_a_rom(image, "its third byte says a size that the file has not"));
    }
    Ok(image)
}

fn not_a_rom(image: Image, found: &'static str) -> ImageError {
    ImageError::Contents { path: image.path, what: "an option ROM", found }
}

fn find(
    what: &'static str,
    places: &'static [&'static str],
    package: &'static str,
    advice: &'static str,
) -> Result<PathBuf, ImageError> {
    let found = places.iter().map(Path::new).find(|place| place.exists());
    found.map(Path::to_owned).ok_or(ImageError::Missing { what, places, package, advice })
}

/// Reads a regular file of at most `limit` bytes.
fn read(path: PathBuf, limit: u64, rule: &'static str) -> Result<Image, ImageError> {
    let unreadable = |source| ImageError::Unreadable { path: path.clone(), source };
    // Looked at before it is opened: to open a FIFO would wait for its writer.
    let metadata = std::fs::metadata(&path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile(path));
    }
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::Size { path, len: metadata.len(), rule });
    }
    Ok(Image { path, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn complaint(result: Result<Image, ImageError>) -> String {
        result.expect_err("a bad image").to_string()
    }

    #[test]
    fn a_firmware_of_whole_units_is_taken() {
        let mut bytes = vec![0; 128 << 10];
        bytes[(128 << 10) - 16] = 0xea;
        let (_folder, path) = file("bios.bin", &bytes);
        assert_eq!(firmware(Some(&path)).unwrap().bytes, bytes);
    }

    #[test]
    fn bad_firmware_is_refused_with_its_size_or_fault() {
        let (_a, odd) = file("odd.bin", &[1; 1000]);
        assert!(complaint(firmware(Some(&odd))).contains("1000 bytes, but a firmware image is a multiple"));
        let (_b, empty) = file("empty.bin", &[]);
        assert!(complaint(firmware(Some(&empty))).contains("0 bytes"));
        let (_c, blank) = file("blank.bin", &[0xff; 64 << 10]);
        assert!(complaint(firmware(Some(&blank))).contains("hold no code"));
        let (folder, large) = file("large.bin", &[]);
        std::fs::File::options()
            .write(true)
            .open(&large)
            .unwrap()
            .set_len(MAX_FIRMWARE + (64 << 10))
            .unwrap();
        assert!(complaint(firmware(Some(&large))).contains("at most 16 MiB"));
        assert!(complaint(firmware(Some(folder.path()))).contains("not a regular file"));
        let missing = folder.path().join("none");
        assert!(complaint(firmware(Some(&missing))).contains("cannot read"));
    }

    #[test]
    fn an_option_rom_needs_its_signature_and_its_length() {
        let (_a, good) = file("good.rom", &[&[0x55, 0xaa, 1], &[0; 509][..]].concat());
        assert_eq!(option_rom(&good).unwrap().bytes.len(), 512);
        let (_b, short) = file("short.rom", &[0x55, 0xaa, 2, 0]);
        assert!(complaint(option_rom(short)).contains("size"));
        let (_c, other) = file("other.rom", &[0x7f, b'E', b'L', b'F']);
        assert!(complaint(option_rom(other)).contains("55 aa"));
    }

    #[test]
    fn what_is_missing_names_the_package() {
        let none: &[&str] = &["/nonexistent/a", "/nonexistent/b"];
        let error = find("SeaBIOS image", none, "seabios", ", or name one").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no SeaBIOS image found (looked at /nonexistent/a, /nonexistent/b); install the package seabios, \
             or name one"
        );
    }
}
