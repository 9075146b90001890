//! An initramfs: a cpio archive in the "newc" form, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst describes it.

/// The type bits and the permissions of a folder.
const FOLDER: u32 = 0o040_755;
/// The same of a file; all may be executed, which is simple and does no harm.
const FILE: u32 = 0o100_755;
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder; the folders above it come before it.
    pub fn folder(&mut self, path: &str) -> &mut Self {
        self.entry(path, FOLDER, &[]);
        self
    }

    /// Adds a file, which root may execute.
    pub fn file(&mut self, path: &str, contents: &[u8]) -> &mut Self {
        self.entry(path, FILE, contents);
        self
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("no file of an initramfs has 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("no name has 4 GiB");
        // Inode, mode, owner, group, links, time, size, four numbers of devices, length of the name, sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_its_header_its_name_and_its_contents() {
        let mut archive = Archive::default();
        archive.folder("bin").file("bin/a", b"hello");
        let bytes = archive.finish();
        // 110 bytes of header, "bin" and a zero: 114, padded to 116.
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[110..116], b"bin\0\0\0");
        let second = &bytes[116..];
        assert_eq!(&second[14..22], b"000081ed");
        assert_eq!(&second[54..62], b"00000005");
        // 116 bytes of header, name and zero need no padding.
        assert_eq!(&second[110..124], b"bin/a\0hello\0\0\0");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert!(bytes.len().is_multiple_of(4));
    }
}
