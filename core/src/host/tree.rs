//! The files in which a host tells of itself.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The most that is read of one file, in bytes. The largest is pci.ids, of one and a half MiB.
const MOST: u64 = 16 << 20;

/// A root folder with `sys`, `proc`, `dev`, `usr` and so on: `/`, or what a test has built.
///
/// Whatever is not there, or may not be read, is `None` or empty: what that means is for who asks.
#[derive(Clone, Debug)]
pub struct Tree(PathBuf);

impl Tree {
    /// This host's.
    pub fn host() -> Tree {
        Tree::at("/")
    }

    /// The tree in a folder.
    pub fn at(root: impl Into<PathBuf>) -> Tree {
        Tree(root.into())
    }

    /// A file of the tree; `path` has no slash before it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// Whether it is there.
    pub(crate) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// A file's text without the spaces around it. What is no UTF-8 in it is replaced.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.path(path)).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A number in decimal, or in what else `T` reads.
    pub(crate) fn parse<T: FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A number in hexadecimal, with 0x or without.
    pub(crate) fn hex(&self, path: impl AsRef<Path>) -> Option<u32> {
        let text = self.text(path)?;
        u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
    }

    /// The last component of what a link leads to.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
