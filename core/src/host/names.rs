//! Names of vendors, devices and classes, from the system's pci.ids.

use std::collections::HashMap;
use std::ops::Range;

use super::tree::Tree;

/// Where distributions put the file.
const FILES: [&str; 3] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids"];

/// The names; empty where the system has none.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    /// The lines of each vendor's devices.
    vendors: HashMap<u16, Range<usize>>,
    /// The lines of each base class's subclasses.
    classes: HashMap<u8, Range<usize>>,
}

/// Whose lines come next.
enum Block {
    Vendor(u16),
    Class(u8),
}

impl Names {
    /// Reads the first of the system's files that is there.
    pub fn of(tree: &Tree) -> Names {
        FILES.iter().find_map(|file| tree.text(file)).map_or_else(Names::default, Names::new)
    }

    fn new(text: String) -> Names {
        let mut names = Names::default();
        let mut open: Option<(Block, usize)> = None;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if !line.starts_with(['\t', '#', '\n', '\r']) {
                names.close(open.take(), at);
                open = header(line).map(|block| (block, at));
            }
            at += line.len();
        }
        names.close(open, at);
        Names { text, ..names }
    }

    fn close(&mut self, block: Option<(Block, usize)>, end: usize) {
        match block {
            Some((Block::Vendor(id), start)) => _ = self.vendors.insert(id, start..end),
            Some((Block::Class(id), start)) => _ = self.classes.insert(id, start..end),
            None => {}
        }
    }

    /// Whether the system has none.
    pub fn is_empty(&self) -> bool {
        self.vendors.is_empty()
    }

    /// A vendor.
    pub fn vendor(&self, vendor: u16) -> Option<&str> {
        let line = self.lines(self.vendors.get(&vendor)?).next()?;
        named(line, &format!("{vendor:04x}"))
    }

    /// A vendor's device.
    pub fn device(&self, vendor: u16, device: u16) -> Option<&str> {
        let id = format!("{device:04x}");
        self.lines(self.vendors.get(&vendor)?).find_map(|line| named(line.strip_prefix('\t')?, &id))
    }

    /// A class by base class and subclass; the base class's own name if the subclass has none.
    pub fn class(&self, base: u8, sub: u8) -> Option<&str> {
        let block = self.classes.get(&base)?;
        let id = format!("{sub:02x}");
        let sub = self.lines(block).find_map(|line| named(line.strip_prefix('\t')?, &id));
        sub.or_else(|| named(self.lines(block).next()?.strip_prefix("C ")?, &format!("{base:02x}")))
    }

    fn lines(&self, block: &Range<usize>) -> impl Iterator<Item = &str> {
        self.text.get(block.clone()).unwrap_or_default().lines()
    }
}

fn header(line: &str) -> Option<Block> {
    if let Some(rest) = line.strip_prefix("C ") {
        return u8::from_str_radix(rest.get(..2)?, 16).ok().map(Block::Class);
    }
    u16::from_str_radix(line.get(..4)?, 16).ok().map(Block::Vendor)
}

/// The name on a line that starts with this id.
fn named<'a>(line: &'a str, id: &str) -> Option<&'a str> {
    line.strip_prefix(id)?.strip_prefix("  ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\n\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t5159  RV100 [Radeon 7000]\n\
                        \t\t1002 0008  Radeon 7000\n\t515e  ES1000\n10de  NVIDIA Corporation\n\t5159  Other\n\n\
                        C 03  Display controller\n\t00  VGA compatible controller\n\t\t00  VGA controller\nC 04  Multimedia controller\n";

    #[test]
    fn names_are_found_in_their_own_block() {
        let names = Names::new(TEXT.into());
        assert_eq!(names.vendor(0x1002), Some("Advanced Micro Devices, Inc. [AMD/ATI]"));
        assert_eq!(names.device(0x1002, 0x515e), Some("ES1000"));
        assert_eq!(names.device(0x10de, 0x5159), Some("Other"));
        assert_eq!(names.device(0x10de, 0x515e), None);
        assert_eq!(names.device(0x1002, 0x1002), None, "a subsystem is no device");
        assert_eq!(names.vendor(0x8086), None);
        assert_eq!(names.class(3, 0), Some("VGA compatible controller"));
        assert_eq!(names.class(3, 0x80), Some("Display controller"));
        assert_eq!(names.class(4, 3), Some("Multimedia controller"));
        assert_eq!(names.class(5, 0), None);
    }

    #[test]
    fn a_system_without_the_file_has_no_names() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Names::of(&Tree::at(folder.path())).vendor(0x1002), None);
        std::fs::create_dir_all(folder.path().join("usr/share/hwdata")).unwrap();
        std::fs::write(folder.path().join(FILES[1]), TEXT).unwrap();
        assert!(Names::of(&Tree::at(folder.path())).vendor(0x1002).is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(text in "[\tC 0-9a-f\né]{0,80}", id: u16) {
            let names = Names::new(text);
            let _ = (names.vendor(id), names.device(id, id), names.class((id >> 8) as u8, 0));
        }
    }
}
