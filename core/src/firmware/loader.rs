//! The linker script `etc/table-loader`: how the firmware places blobs and joins them by pointers.
//!
//! A script is a list of records of 128 bytes, little-endian. The firmware allocates memory for each
//! file, copies the file there, adds addresses to the pointers inside, and mends checksums.

/// Length of a record in bytes.
pub(super) const RECORD: usize = 128;
/// Room for a file name, its closing NUL included.
pub const NAME: usize = 56;

/// Where a file is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// In 0xf0000-0xfffff, where an operating system looks for the root pointer.
    Low = 2,
}

/// A script being written.
#[derive(Clone, Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
}

/// One record, zero where nothing was written.
struct Record([u8; RECORD]);

impl Record {
    fn new(command: u32) -> Self {
        let mut record = Record([0; RECORD]);
        record.put(0, &command.to_le_bytes());
        record
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn name(&mut self, at: usize, name: &'static str) {
        assert!(name.len() < NAME, "the file names of the script are constants and short");
        self.put(at, name.as_bytes());
    }
}

impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Script::default()
    }

    /// Places `file` at a multiple of `align` (a power of two) in `zone`.
    pub fn allocate(&mut self, file: &'static str, align: u32, zone: Zone) {
        let mut record = Record::new(1);
        record.name(4, file);
        record.put(60, &align.to_le_bytes());
        record.put(64, &[zone as u8]);
        self.bytes.extend_from_slice(&record.0);
    }

    /// Adds the address of `source` to the integer of `size` (4 or 8) bytes at `offset` of `file`.
    pub fn add_pointer(&mut self, file: &'static str, offset: u32, size: u8, source: &'static str) {
        let mut record = Record::new(2);
        record.name(4, file);
        record.name(60, source);
        record.put(116, &offset.to_le_bytes());
        record.put(120, &[size]);
        self.bytes.extend_from_slice(&record.0);
    }

    /// Makes the `len` bytes of `file` from `start` on add up to zero by the byte at `offset`.
    pub fn add_checksum(&mut self, file: &'static str, offset: u32, start: u32, len: u32) {
        let mut record = Record::new(3);
        record.name(4, file);
        record.put(60, &offset.to_le_bytes());
        record.put(64, &start.to_le_bytes());
        record.put(68, &len.to_le_bytes());
        self.bytes.extend_from_slice(&record.0);
    }

    /// The script's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_specified_layout() {
        let mut script = Script::new();
        script.allocate("one", 64, Zone::Low);
        script.add_pointer("one", 0x1234, 8, "two");
        script.add_checksum("one", 9, 4, 36);
        let bytes = script.into_bytes();
        assert_eq!(bytes.len(), 3 * RECORD);
        let (first, rest) = bytes.split_at(RECORD);
        assert_eq!(first[..8], [1, 0, 0, 0, b'o', b'n', b'e', 0]);
        assert_eq!(first[60..66], [64, 0, 0, 0, 2, 0]);
        let (second, third) = rest.split_at(RECORD);
        assert_eq!(second[..4], [2, 0, 0, 0]);
        assert_eq!(second[60..64], *b"two\0");
        assert_eq!(second[116..122], [0x34, 0x12, 0, 0, 8, 0]);
        assert_eq!(third[..4], [3, 0, 0, 0]);
        assert_eq!(third[60..72], [9, 0, 0, 0, 4, 0, 0, 0, 36, 0, 0, 0]);
    }
}
