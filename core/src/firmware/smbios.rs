//! SMBIOS: what the machine is, for its owner (System Management BIOS Reference Specification 3.7).
//!
//! The anchor is that of version 2.1 with table address and checksums left at zero: SeaBIOS fills
//! them in, and adds structure 0, which tells the firmware's own name.

use trapline_devices::q35::RamSplit;

/// File name of the anchor.
pub const ANCHOR: &str = "etc/smbios/smbios-anchor";
/// File name of the structures.
pub const TABLES: &str = "etc/smbios/smbios-tables";

/// No such handle.
const NO_HANDLE: u16 = 0xfffe;
/// A cache that is not described.
const NO_CACHE: u16 = 0xffff;
const MANUFACTURER: &str = "trapline";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    /// Contents of [`ANCHOR`].
    pub anchor: Vec<u8>,
    /// Contents of [`TABLES`].
    pub tables: Vec<u8>,
}

/// Describes a machine with `ram`, one socket of `cpus` cores, and the identity `uuid`.
pub fn build(ram: RamSplit, cpus: u8, uuid: [u8; 16]) -> Smbios {
    let mut list = List::default();
    list.add(system(uuid));
    list.add(chassis());
    list.add(processor(cpus));
    let array = list.add(memory_array(ram));
    list.add(memory_device(ram, array));
    for (start, len) in ram.pieces() {
        list.add(mapped_memory(start.0, len, array));
    }
    list.add(Structure::new(32).raw(&[0; 7]));
    list.add(Structure::new(127));
    list.finish()
}

/// One structure: type, length and handle, fixed fields, strings.
struct Structure {
    kind: u8,
    fields: Vec<u8>,
    strings: Vec<&'static str>,
}

impl Structure {
    fn new(kind: u8) -> Self {
        Structure { kind, fields: Vec::new(), strings: Vec::new() }
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.fields.extend_from_slice(bytes);
        self
    }

    fn word(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    fn dword(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    fn qword(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// A reference to a string: its number, counted from 1.
    fn string(mut self, text: &'static str) -> Self {
        self.strings.push(text);
        let number = u8::try_from(self.strings.len()).expect("a handful of strings");
        self.raw(&[number])
    }
}

/// The structures so far.
#[derive(Default)]
struct List {
    bytes: Vec<u8>,
    count: u16,
    longest: u16,
}

impl List {
    /// Appends a structure and returns its handle.
    fn add(&mut self, structure: Structure) -> u16 {
        let start = self.bytes.len();
        let handle = u16::from(structure.kind) << 8 | self.count;
        let length = u8::try_from(structure.fields.len() + 4).expect("the formatted part is short");
        self.bytes.extend_from_slice(&[structure.kind, length]);
        self.bytes.extend_from_slice(&handle.to_le_bytes());
        self.bytes.extend_from_slice(&structure.fields);
        for text in &structure.strings {
            self.bytes.extend_from_slice(text.as_bytes());
            self.bytes.push(0);
        }
        // An empty list of strings still ends with two NULs.
        let end: &[u8] = if structure.strings.is_empty() { &[0, 0] } else { &[0] };
        self.bytes.extend_from_slice(end);
        let len = u16::try_from(self.bytes.len() - start).expect("a structure is short");
        self.longest = self.longest.max(len);
        self.count += 1;
        handle
    }

    fn finish(self) -> Smbios {
        let length = u16::try_from(self.bytes.len()).expect("a dozen structures are below 64 KiB");
        let mut anchor = b"_SM_\0\x1f\x02\x08".to_vec();
        anchor.extend_from_slice(&self.longest.to_le_bytes());
        anchor.extend_from_slice(&[0; 6]);
        anchor.extend_from_slice(b"_DMI_\0");
        anchor.extend_from_slice(&length.to_le_bytes());
        anchor.extend_from_slice(&0u32.to_le_bytes());
        anchor.extend_from_slice(&self.count.to_le_bytes());
        anchor.push(0x28);
        Smbios { anchor, tables: self.bytes }
    }
}

/// System information (section 7.2); woken by the power switch.
fn system(uuid: [u8; 16]) -> Structure {
    Structure::new(1)
        .string(MANUFACTURER)
        .string("Standard PC (Q35 + ICH9)")
        .string(VERSION)
        .raw(&[0])
        .raw(&uuid)
        .raw(&[6, 0, 0])
}

/// System enclosure (section 7.4), of no particular kind and in a safe state.
fn chassis() -> Structure {
    Structure::new(3)
        .string(MANUFACTURER)
        .raw(&[1])
        .string(VERSION)
        .raw(&[0, 0, 3, 3, 3, 2])
        .dword(0)
        .raw(&[0, 0, 0, 0, 0])
}

/// Processor information (section 7.5): one socket, populated and enabled.
fn processor(cpus: u8) -> Structure {
    Structure::new(4)
        .string("CPU 0")
        .raw(&[3, 1])
        .string(MANUFACTURER)
        .qword(0)
        .string(VERSION)
        .raw(&[0])
        .word(0)
        .word(0)
        .word(0)
        .raw(&[0x41, 1])
        .word(NO_CACHE)
        .word(NO_CACHE)
        .word(NO_CACHE)
        .raw(&[0, 0, 0])
        .raw(&[cpus, cpus, cpus])
        .word(2)
        .word(1)
}

/// Physical memory array (section 7.17): one device, no error correction told.
fn memory_array(ram: RamSplit) -> Structure {
    Structure::new(16).raw(&[1, 3, 3]).dword(0x8000_0000).word(NO_HANDLE).word(1).qword(ram.total())
}

/// Memory device (section 7.18): all RAM in one module.
fn memory_device(ram: RamSplit, array: u16) -> Structure {
    let mib = ram.total() >> 20;
    // A size of 0x7fff MiB says that the extended field has it.
    let short = u16::try_from(mib).unwrap_or(0x7fff).min(0x7fff);
    let extended = if short == 0x7fff { u32::try_from(mib).unwrap_or(0x7fff_ffff) } else { 0 };
    Structure::new(17)
        .word(array)
        .word(NO_HANDLE)
        .word(0xffff)
        .word(0xffff)
        .word(short)
        .raw(&[9, 0])
        .string("DIMM 0")
        .raw(&[0, 7])
        .word(2)
        .word(0)
        .string(MANUFACTURER)
        .raw(&[0, 0, 0, 0])
        .dword(extended)
        .word(0)
        .word(0)
        .word(0)
        .word(0)
}

/// Memory array mapped address (section 7.20), in KiB where that fits 32 bits, else in bytes.
fn mapped_memory(start: u64, len: u64, array: u16) -> Structure {
    let last = start.saturating_add(len - 1);
    let short = u32::try_from(start >> 10).ok().zip(u32::try_from(last >> 10).ok());
    match short.filter(|(_, last)| *last != u32::MAX) {
        Some((start, last)) => {
            Structure::new(19).dword(start).dword(last).word(array).raw(&[1]).qword(0).qword(0)
        }
        None => {
            let none = u32::MAX;
            Structure::new(19).dword(none).dword(none).word(array).raw(&[1]).qword(start).qword(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, formatted part and strings of each structure, read as the specification says.
    fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut found = Vec::new();
        while let [kind, len, ..] = *bytes {
            let (fixed, rest) = bytes.split_at(usize::from(len));
            let end = rest.windows(2).position(|pair| pair == [0, 0]).expect("two NULs");
            let strings = rest[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
            let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
            found.push((kind, fixed.to_vec(), strings));
            bytes = &rest[end + 2..];
        }
        found
    }

    #[test]
    fn the_anchor_counts_what_the_tables_hold() {
        let built = build(RamSplit::of(8 << 30), 4, [9; 16]);
        let list = parse(&built.tables);
        let kinds: Vec<u8> = list.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [1, 3, 4, 16, 17, 19, 19, 32, 127]);
        assert_eq!(built.anchor.len(), 31);
        assert_eq!(built.anchor[22..24], u16::try_from(built.tables.len()).unwrap().to_le_bytes());
        assert_eq!(built.anchor[28..30], [9, 0]);
        let lengths: Vec<usize> = list.iter().map(|(_, fixed, _)| fixed.len()).collect();
        assert_eq!(lengths, [0x1b, 0x16, 0x2a, 0x17, 0x28, 0x1f, 0x1f, 0x0b, 4]);
        assert_eq!(list[0].1[8..24], [9; 16]);
        assert_eq!(list[0].2[1], "Standard PC (Q35 + ICH9)");
        assert_eq!(list[2].1[0x23..0x26], [4, 4, 4]);
        assert_eq!(list[4].1[0x0c..0x0e], 8192u16.to_le_bytes());
    }

    #[test]
    fn handles_differ() {
        let built = build(RamSplit::of(8 << 30), 1, [0; 16]);
        let mut handles: Vec<_> =
            parse(&built.tables).iter().map(|(_, fixed, _)| [fixed[2], fixed[3]]).collect();
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), 9);
    }

    #[test]
    fn a_terabyte_goes_to_the_extended_fields() {
        let list = parse(&build(RamSplit::of(8 << 40), 1, [0; 16]).tables);
        let device = &list[4].1;
        assert_eq!(device[0x0c..0x0e], [0xff, 0x7f]);
        assert_eq!(device[0x1c..0x20], (8u32 << 20).to_le_bytes());
        let high = &list[6].1;
        assert_eq!(high[4..8], [0xff; 4]);
        assert_eq!(high[0x0f..0x17], (4u64 << 30).to_le_bytes());
    }
}
