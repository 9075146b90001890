//! Fuzz targets of what the program reads for a person: configuration, keys, images.
//!
//! ```text
//! cd core && cargo +nightly fuzz run toml -- -max_total_time=60
//! ```
//!
//! The other ways to build and run, `tests/fuzz.rs` among them, are those of `io/fuzz/src/lib.rs`.
//!
//! * `toml`: a configuration file, read and checked.
//! * `options`: the text of each option, sizes and device strings among them, on both sides.
//! * `keys`: the language of `--keys`.
//! * `kernel`: a bzImage, its ram disk and command line.
//! * `image`: firmware images.
//! * `report`: a report of runs, which may be anybody's, and the page that is made of it.

pub mod image;
pub mod kernel;
pub mod keys;
pub mod options;
pub mod report;
pub mod toml;

use std::fs::File;
use std::io::{Result, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use arbitrary::{Arbitrary, Unstructured};
use rustix::fs::{MemfdFlags, memfd_create};

/// A file in memory, for what is read by its name.
#[derive(Debug)]
pub struct Named(File);

impl Named {
    /// An empty file.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> Result<Named> {
        Ok(Named(File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?)))
    }

    /// Makes `bytes` its content, and gives its name.
    ///
    /// # Errors
    /// What the system says.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<PathBuf> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(bytes)?;
        Ok(format!("/proc/self/fd/{}", self.0.as_raw_fd()).into())
    }
}

/// `data` as the input of a target, if it is long enough for one.
pub fn input<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}
