//! The simplest tar archive (POSIX ustar): regular files, owned by root, of the year 1970.

const BLOCK: usize = 512;

/// An archive being written.
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Archive { bytes: Vec::new() }
    }

    /// Appends a file; `name` has less than 100 bytes.
    pub fn add(&mut self, name: &str, contents: &[u8]) {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", contents.len()));
        put(136, "00000000000\0");
        put(156, "0");
        put(257, "ustar\0");
        put(263, "00");
        // The sum is taken with spaces in its own place.
        put(148, "        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The archive, with the two blocks of zeros at its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_add_up_and_contents_are_padded() {
        let mut archive = Archive::new();
        archive.add("grub/grub.cfg", b"set timeout=-1\n");
        archive.add("empty", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len(), 5 * BLOCK);
        let header = &bytes[..BLOCK];
        assert_eq!(&header[..14], b"grub/grub.cfg\0");
        assert_eq!(&header[124..136], b"00000000017\0");
        let told = u32::from_str_radix(std::str::from_utf8(&header[148..154]).unwrap(), 8).unwrap();
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = header[148..156].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(told, sum - field + 8 * 32);
        assert_eq!(&bytes[BLOCK..BLOCK + 15], b"set timeout=-1\n");
        assert_eq!(bytes[BLOCK + 15], 0);
    }
}
