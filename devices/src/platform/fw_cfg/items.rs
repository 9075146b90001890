//! What the firmware can read: numbered items, files with names, and their directory.

use std::collections::BTreeMap;

use thiserror::Error;

use super::key;

/// The highest key a file can have.
const LAST_FILE: u16 = 0x3fff;

/// The longest name in a directory entry, less the NUL that ends it.
const NAME_MAX: usize = 55;

/// Makes the parts of a group of files, in the order in which the files were named. Called with the
/// device's token held, on the vCPU that selected the file: it may look at other devices, must not
/// touch this one, and must not wait for the topology.
pub type MakeParts = Box<dyn FnMut() -> Vec<Vec<u8>> + Send>;

/// Why a file could not be added.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FileError {
    /// The name is empty, longer than 55 bytes, or holds a NUL.
    #[error("firmware file name {0:?} is empty, longer than 55 bytes, or holds a NUL")]
    Name(String),
    /// There is a file of that name.
    #[error("there are two firmware files called {0:?}")]
    Twice(String),
    /// A directory entry has 32 bits for the size.
    #[error("firmware file {name:?} has {size} bytes, more than 4 GiB")]
    Size {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
    /// All selectors are taken.
    #[error("no selector is left for firmware file {0:?}")]
    Full(String),
}

enum Content {
    /// Never changes. May be a mapped file.
    Fixed(Box<dyn AsRef<[u8]> + Send>),
    /// The guest may write it; a reset restores what it was.
    Writable { now: Vec<u8>, initial: Vec<u8> },
    /// One part of a group, made when the guest selects one of them.
    Made { group: usize, part: usize },
}

/// Files that are made together, so that they agree with each other.
struct Group {
    make: MakeParts,
    /// Bytes of each, what is made being cut or filled with zeros to that.
    sizes: Vec<usize>,
    /// What was made; until then, and after a reset, empty.
    parts: Vec<Vec<u8>>,
}

/// All that the device offers. See [`super::key`] for the numbers that are not files.
#[derive(Default)]
pub struct Items {
    items: BTreeMap<u16, Content>,
    groups: Vec<Group>,
    /// Names of the files; the first has key [`key::FIRST_FILE`].
    names: Vec<String>,
    directory: Vec<u8>,
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Items {
    /// The signature, the feature bits and an empty directory.
    pub fn new() -> Items {
        let mut items = Items::default();
        items.set(key::SIGNATURE, *b"QEMU");
        items.set(key::FEATURES, 3u32.to_le_bytes());
        items.directory = 0u32.to_be_bytes().to_vec();
        items
    }

    /// Sets the item with this number, in place of what it was. Numbers in little-endian.
    pub fn set(&mut self, key: u16, bytes: impl AsRef<[u8]> + Send + 'static) {
        self.items.insert(key, Content::Fixed(Box::new(bytes)));
    }

    /// Adds a file and gives its number. Numbers are given in the order of adding, so that they are
    /// the same in every run of the same machine.
    ///
    /// # Errors
    /// A name that does not fit or is taken, more than 4 GiB, or too many files.
    pub fn add_file(
        &mut self,
        name: &str,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<u16, FileError> {
        let size = bytes.as_ref().len();
        self.add(name, size, Content::Fixed(Box::new(bytes)))
    }

    /// Adds a file that the guest may write; its size is fixed.
    ///
    /// # Errors
    /// As [`Items::add_file`].
    pub fn add_writable(&mut self, name: &str, initial: Vec<u8>) -> Result<u16, FileError> {
        self.add(name, initial.len(), Content::Writable { now: initial.clone(), initial })
    }

    /// Adds a file that is made when the guest first selects it, and again after a reset: what depends
    /// on what the firmware did before it asked, as ACPI tables do. `make` is called as [`MakeParts`]
    /// is.
    ///
    /// Firmware reads the directory before that, and trusts the sizes it finds there. So the file has
    /// `size` bytes whatever `make` gives: less is filled with zeros, more is cut, with a message to
    /// the log.
    ///
    /// # Errors
    /// As [`Items::add_file`].
    pub fn add_made_file(
        &mut self,
        name: &str,
        size: usize,
        mut make: impl FnMut() -> Vec<u8> + Send + 'static,
    ) -> Result<(), FileError> {
        self.add_made(&[(name, size)], Box::new(move || vec![make()]))
    }

    /// The same for files that must agree with each other: they are made together when the first of
    /// them is selected.
    ///
    /// # Errors
    /// As [`Items::add_file`]; the files before the failing one are then added.
    pub fn add_made(&mut self, files: &[(&str, usize)], make: MakeParts) -> Result<(), FileError> {
        let group = self.groups.len();
        let sizes = files.iter().map(|(_, size)| *size).collect();
        self.groups.push(Group { make, sizes, parts: Vec::new() });
        for (part, (name, size)) in files.iter().enumerate() {
            self.add(name, *size, Content::Made { group, part })?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, size: usize, content: Content) -> Result<u16, FileError> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
            return Err(FileError::Name(name.into()));
        }
        if self.names.iter().any(|known| known == name) {
            return Err(FileError::Twice(name.into()));
        }
        let entry_size = u32::try_from(size).map_err(|_| FileError::Size { name: name.into(), size })?;
        let index = u16::try_from(self.names.len()).ok();
        let key = index.and_then(|index| index.checked_add(key::FIRST_FILE)).filter(|key| *key <= LAST_FILE);
        let key = key.ok_or_else(|| FileError::Full(name.into()))?;

        let mut padded = [0; NAME_MAX + 1];
        for (to, from) in padded.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        self.directory.extend(entry_size.to_be_bytes());
        self.directory.extend(key.to_be_bytes());
        self.directory.extend([0, 0]);
        self.directory.extend(padded);
        self.names.push(name.into());
        let count = u32::from(key - key::FIRST_FILE) + 1;
        for (to, from) in self.directory.iter_mut().zip(count.to_be_bytes()) {
            *to = from;
        }
        self.items.insert(key, content);
        Ok(key)
    }

    /// The number of a file.
    pub fn key_of(&self, file: &str) -> Option<u16> {
        let index = self.names.iter().position(|name| name == file)?;
        u16::try_from(index).ok()?.checked_add(key::FIRST_FILE)
    }

    /// What the guest reads behind a number now; nothing for one that is unknown. Makes what is made
    /// late, as the guest's selecting it would.
    pub fn contents(&mut self, key: u16) -> &[u8] {
        self.prepare(key);
        self.bytes(key)
    }

    /// Called when the item is selected: makes its group, unless that was done since the last reset.
    pub(super) fn prepare(&mut self, key: u16) {
        let Some(&Content::Made { group, .. }) = self.items.get(&key) else { return };
        if let Some(group) = self.groups.get_mut(group).filter(|group| group.parts.is_empty()) {
            group.build();
        }
    }

    /// The item's bytes; none for an unknown number.
    pub(super) fn bytes(&self, key: u16) -> &[u8] {
        match self.items.get(&key) {
            _ if key == key::DIRECTORY => &self.directory,
            Some(Content::Fixed(bytes)) => (**bytes).as_ref(),
            Some(Content::Writable { now, .. }) => now,
            Some(&Content::Made { group, part }) => {
                self.groups.get(group).and_then(|group| group.parts.get(part)).map_or(&[], Vec::as_slice)
            }
            None => &[],
        }
    }

    /// The item's bytes if the guest may write them.
    pub(super) fn writable(&mut self, key: u16) -> Option<&mut [u8]> {
        match self.items.get_mut(&key) {
            Some(Content::Writable { now, .. }) => Some(now),
            _ => None,
        }
    }

    /// Forgets what the guest wrote and what was made for it.
    pub(super) fn reset(&mut self) {
        for content in self.items.values_mut() {
            if let Content::Writable { now, initial } = content {
                now.clone_from(initial);
            }
        }
        for group in &mut self.groups {
            group.parts.clear();
        }
    }
}

impl Group {
    fn build(&mut self) {
        self.parts = (self.make)();
        self.parts.resize(self.sizes.len(), Vec::new());
        for (part, size) in self.parts.iter_mut().zip(&self.sizes) {
            if part.len() > *size {
                tracing::error!(made = part.len(), announced = size, "a firmware file grew and was cut");
            }
            part.resize(*size, 0);
        }
    }
}
