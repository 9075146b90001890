//! The script is carried out as a firmware does it, and the tables are then read as an operating
//! system does it: from the root pointer on.

use std::collections::HashMap;

use super::*;
use crate::firmware::loader::RECORD;

fn platform() -> Platform {
    Platform {
        cpus: 4,
        ram: RamSplit::of(1 << 30),
        windows: Windows::default(),
        keyboard: true,
        serial: true,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn name_at(record: &[u8], at: usize) -> String {
    let name = &record[at..at + 56];
    let end = name.iter().position(|byte| *byte == 0).expect("a closing NUL");
    String::from_utf8(name[..end].to_vec()).unwrap()
}

/// Guest memory with the files placed by a linker script.
struct Memory {
    bytes: Vec<u8>,
    files: HashMap<String, usize>,
}

impl Memory {
    fn load(tables: &Tables) -> Self {
        let mut memory = Memory { bytes: vec![0; 0x1000], files: HashMap::new() };
        for record in tables.loader.chunks(RECORD) {
            match u32_at(record, 0) {
                1 => memory.allocate(record, tables),
                2 => memory.add_pointer(record),
                3 => memory.add_checksum(record),
                other => panic!("command {other}"),
            }
        }
        memory
    }

    fn allocate(&mut self, record: &[u8], tables: &Tables) {
        let name = name_at(record, 4);
        let file = if name == RSDP { &tables.rsdp } else { &tables.tables };
        let at = self.bytes.len().next_multiple_of(u32_at(record, 60) as usize);
        self.bytes.resize(at, 0xcc);
        self.bytes.extend_from_slice(file);
        self.files.insert(name, at);
    }

    fn add_pointer(&mut self, record: &[u8]) {
        let at = self.files[&name_at(record, 4)] + u32_at(record, 116) as usize;
        let size = usize::from(record[120]);
        let mut old = [0; 8];
        old[..size].copy_from_slice(&self.bytes[at..at + size]);
        let new = u64::from_le_bytes(old) + self.files[&name_at(record, 60)] as u64;
        self.bytes[at..at + size].copy_from_slice(&new.to_le_bytes()[..size]);
    }

    fn add_checksum(&mut self, record: &[u8]) {
        let file = self.files[&name_at(record, 4)];
        let start = file + u32_at(record, 64) as usize;
        let sum = self.sum(start, u32_at(record, 68) as usize);
        let byte = &mut self.bytes[file + u32_at(record, 60) as usize];
        *byte = byte.wrapping_sub(sum);
    }

    fn sum(&self, start: usize, len: usize) -> u8 {
        self.bytes[start..start + len].iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at an address, its checksum checked.
    fn table(&self, at: u64) -> &[u8] {
        let at = usize::try_from(at).unwrap();
        let len = u32_at(&self.bytes, at + 4) as usize;
        assert_eq!(self.sum(at, len), 0, "checksum of {:?}", &self.bytes[at..at + 4]);
        &self.bytes[at..at + len]
    }

    /// All tables that the RSDT and the XSDT name, which must be the same.
    fn listed(&self) -> HashMap<[u8; 4], &[u8]> {
        let rsdp = self.files[RSDP];
        let root = &self.bytes[rsdp..rsdp + 36];
        assert_eq!(&root[..8], b"RSD PTR ");
        assert_eq!((self.sum(rsdp, 20), self.sum(rsdp, 36)), (0, 0));
        let rsdt = self.table(u32_at(root, 16).into());
        let xsdt = self.table(u64_at(root, 24));
        assert_eq!((&rsdt[..4], &xsdt[..4]), (&b"RSDT"[..], &b"XSDT"[..]));
        let short: Vec<u64> = rsdt[36..].chunks(4).map(|entry| u64::from(u32_at(entry, 0))).collect();
        let long: Vec<u64> = xsdt[36..].chunks(8).map(|entry| u64_at(entry, 0)).collect();
        assert_eq!(short, long);
        short.iter().map(|at| self.table(*at)).map(|table| (table[..4].try_into().unwrap(), table)).collect()
    }
}

#[test]
fn the_script_joins_all_tables_with_right_checksums() {
    let built = build(&platform());
    let memory = Memory::load(&built);
    let listed = memory.listed();
    let mut names: Vec<_> = listed.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort();
    assert_eq!(names, ["APIC", "FACP", "MCFG", "WAET"]);
    let fadt = listed[b"FACP"];
    let facs = u32_at(fadt, 36) as usize;
    assert_eq!(&memory.bytes[facs..facs + 4], b"FACS");
    assert_eq!(facs % 64, 0);
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
    assert_eq!(&memory.table(u32_at(fadt, 40).into())[..4], b"DSDT");
}

#[test]
fn the_fixed_hardware_is_where_the_chipset_has_it() {
    let memory_owner = build(&platform());
    let memory = Memory::load(&memory_owner);
    let fadt = memory.listed()[b"FACP"];
    assert_eq!(
        [u32_at(fadt, 56), u32_at(fadt, 64), u32_at(fadt, 76), u32_at(fadt, 80)],
        [0x600, 0x604, 0x608, 0x620]
    );
    assert_eq!(u32_at(fadt, 48), 0xb2);
    assert_eq!(fadt[52..54], [2, 3]);
    assert_eq!(u32_at(fadt, 112), 0x84a5);
    assert_eq!(fadt[109..111], [2, 0], "a keyboard controller, and a VGA adapter");
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0xcf9, 0x0f));
}

#[test]
fn every_processor_is_listed_once() {
    let built = build(&platform());
    let memory = Memory::load(&built);
    let mut madt = &memory.listed()[b"APIC"][44..];
    let mut cpus = Vec::new();
    let mut kinds = Vec::new();
    while let [kind, len, rest @ ..] = madt {
        kinds.push(*kind);
        if *kind == 0 {
            assert_eq!(u32_at(rest, 2), 1, "enabled");
            cpus.push(rest[1]);
        }
        madt = &madt[usize::from(*len)..];
    }
    assert_eq!(cpus, [0, 1, 2, 3]);
    assert_eq!(kinds, [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 4]);
}

#[test]
fn windows_change_neither_the_sizes_nor_the_script() {
    let before = build(&platform());
    let high = Span::of_len(Gpa(0x38_0000_0000), 256 << 30);
    let after = build(&Platform { windows: Windows { high, ..Windows::default() }, ..platform() });
    assert_eq!(before.loader, after.loader);
    assert_eq!(before.rsdp, after.rsdp);
    assert_eq!(before.tables.len(), after.tables.len());
    assert_ne!(before.tables, after.tables);
    let window: Vec<u8> = [0x38_0000_0000u64, 0x77_ffff_ffff].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert!(after.tables.windows(16).any(|bytes| bytes == window));
    Memory::load(&after).listed();
}

#[test]
fn a_gap_of_ram_is_a_window_of_its_own() {
    let kept = Span::of_len(Gpa(0x1_4010_0000), 1 << 20).unwrap();
    let ram = RamSplit::around(4 << 30, &[kept], 4096).unwrap();
    let high = Span::of_len(Gpa(0x38_0000_0000), 256 << 30);
    let before = build(&Platform { ram, ..platform() });
    let after = build(&Platform { ram, windows: Windows { high, ..Windows::default() }, ..platform() });
    assert_eq!(before.tables.len(), after.tables.len());
    let gap: Vec<u8> = [0x1_4000_0000_u64, 0x1_7fff_ffff].iter().flat_map(|n| n.to_le_bytes()).collect();
    let has = |tables: &Tables| tables.tables.windows(16).any(|bytes| bytes == gap);
    assert!(has(&before) && has(&after) && !has(&build(&platform())));
}

#[test]
fn absent_devices_are_not_listed() {
    let has = |tables: &Tables, name: &[u8]| tables.tables.windows(name.len()).any(|bytes| bytes == name);
    let full = build(&platform());
    let bare = build(&Platform { keyboard: false, serial: false, ..platform() });
    for name in [b"KBD_", b"COM1"] {
        assert!(has(&full, name));
        assert!(!has(&bare, name));
    }
}

#[test]
fn the_largest_machine_has_tables_too() {
    let windows = Windows { low: (0xffff_ffff, 0), high: Span::new(Gpa(0), Gpa(u64::MAX)) };
    let built = build(&Platform { cpus: u8::MAX, ram: RamSplit::of(1 << 45), windows, ..platform() });
    assert!(built.tables.len() < 128 << 10);
    Memory::load(&built).listed();
}
