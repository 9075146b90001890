//! The expansion ROM: the VBIOS that the distribution ships.

use std::path::{Path, PathBuf};

/// The file's name, in every distribution.
const NAME: &str = "vgabios-stdvga.bin";
/// Where distributions put it.
const FOLDERS: [&str; 6] = [
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/share/seavgabios",
    "/usr/share/vgabios",
    "/usr/share/qemu-kvm",
    "/usr/local/share/qemu",
];

/// There is no VBIOS for the software VGA adapter.
#[derive(Debug, thiserror::Error)]
#[error(
    "no {NAME} found in {folders}: install the package that holds it (Debian, Ubuntu: seabios)",
    folders = FOLDERS.join(", ")
)]
pub struct RomMissing;

/// The path of the distribution's VBIOS for this adapter. Looks at a few paths; reads nothing.
///
/// # Errors
/// It is not installed.
pub fn find_rom() -> Result<PathBuf, RomMissing> {
    find_in(FOLDERS.map(Path::new)).ok_or(RomMissing)
}

fn find_in<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(NAME)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_the_file_wins() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(full.path().join(NAME), [0x55, 0xaa]).unwrap();
        assert_eq!(find_in([empty.path(), full.path()]), Some(full.path().join(NAME)));
        assert_eq!(find_in([empty.path()]), None);
    }

    #[test]
    fn the_message_names_file_and_package() {
        let text = RomMissing.to_string();
        assert!(text.contains(NAME) && text.contains("seabios)"), "{text}");
    }
}
