//! What a card saw.
#![allow(dead_code, reason = "each test uses its own part")]

use trapline_io::{Access, Region};

/// vCPUs of a machine.
pub const CPUS: usize = 2;

/// What the device saw, and what the harness notes in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// One access.
    Access(Access),
    /// A run of bytes in ascending order; whether byte lanes were independent just then.
    Run { region: Region, offset: u64, bytes: Vec<u8>, independent: bool },
    /// The operation of this number.
    Mark(usize),
    /// The device was reset.
    Reset,
}
