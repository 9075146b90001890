use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::testing::low;
use super::*;

const P: Region = isa::PORTS;
const MIB: u64 = 1 << 20;

/// RAM from 0 to 1 MiB and from 2 to 3 MiB.
fn memory() -> Arc<GuestMemoryMmap> {
    let ranges = [(GuestAddress(0), 1 << 20), (GuestAddress(2 * MIB), 1 << 20)];
    Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

fn device(items: Items) -> FwCfg {
    FwCfg::new(items, memory())
}

fn select(device: &mut FwCfg, key: u16) {
    device.write(P, SELECTOR, Width::B2, key.into()).unwrap();
}

fn read(device: &mut FwCfg, count: usize) -> Vec<u8> {
    (0..count).map(|_| low(device.read(P, DATA, Width::B1).unwrap())).collect()
}

/// Puts a descriptor at 0x1000, starts it, gives the control word that the guest sees then.
fn transfer(device: &mut FwCfg, control: u32, length: u32, address: u64) -> u32 {
    let mut bytes = control.to_be_bytes().to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.extend(address.to_be_bytes());
    device.memory.write_slice(&bytes, GuestAddress(0x1000)).unwrap();
    let _ = device.write(P, DMA_LOW, Width::B4, 0x1000u32.swap_bytes().into());
    let mut word = [0; 4];
    device.memory.read_slice(&mut word, GuestAddress(0x1000)).unwrap();
    u32::from_be_bytes(word)
}

fn ram(device: &FwCfg, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    device.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// The directory as firmware reads it: size, key, name.
fn directory(device: &mut FwCfg) -> Vec<(u32, u16, String)> {
    select(device, key::DIRECTORY);
    let count = u32::from_be_bytes(read(device, 4).try_into().unwrap());
    let entry = |bytes: Vec<u8>| {
        let name = bytes[8..].iter().take_while(|byte| **byte != 0);
        (
            u32::from_be_bytes(bytes[..4].try_into().unwrap()),
            u16::from_be_bytes(bytes[4..6].try_into().unwrap()),
            name.map(|byte| char::from(*byte)).collect(),
        )
    };
    (0..count).map(|_| entry(read(device, 64))).collect()
}

#[test]
fn firmware_finds_the_device() {
    let mut device = device(Items::new());
    select(&mut device, key::SIGNATURE);
    assert_eq!(read(&mut device, 6), b"QEMU\0\0");
    select(&mut device, key::FEATURES);
    assert_eq!(read(&mut device, 4), [3, 0, 0, 0]);
    assert_eq!(device.read(P, DMA_HIGH, Width::B4), Ok(u32::from_le_bytes(*b"QEMU").into()));
    assert_eq!(device.read(P, DMA_LOW, Width::B4), Ok(u32::from_le_bytes(*b" CFG").into()));
    assert_eq!(device.read(P, SELECTOR, Width::B2), Err(Fault::BadWidth));
    assert_eq!(directory(&mut device), []);
}

#[test]
fn files_are_found_by_name_and_read_by_either_way() {
    let mut items = Items::new();
    assert_eq!(items.add_file("etc/e820", vec![1, 2, 3, 4, 5]), Ok(0x20));
    assert_eq!(items.add_file("bootorder", *b"x\0"), Ok(0x21));
    let mut device = device(items);
    let listed = directory(&mut device);
    assert_eq!(listed, [(5, 0x20, "etc/e820".into()), (2, 0x21, "bootorder".into())]);
    select(&mut device, 0x20);
    assert_eq!(read(&mut device, 7), [1, 2, 3, 4, 5, 0, 0]);

    device.memory.write_slice(&[9; 16], GuestAddress(0x2000)).unwrap();
    assert_eq!(transfer(&mut device, 0x20 << 16 | SELECT_READ, 3, 0x2000), 0);
    assert_eq!(ram(&device, 0x2000, 5), [1, 2, 3, 9, 9]);
    // The offset went on, and behind the end come zeros.
    assert_eq!(transfer(&mut device, 2, 4, 0x2000), 0);
    assert_eq!(ram(&device, 0x2000, 5), [4, 5, 0, 0, 9]);
}

const SELECT_READ: u32 = 8 | 2;

#[test]
fn skip_moves_and_read_wins() {
    let mut items = Items::new();
    items.set(0x99, vec![10, 11, 12, 13]);
    let mut device = device(items);
    assert_eq!(transfer(&mut device, 0x99 << 16 | 8 | 4, 2, 0), 0);
    assert_eq!(read(&mut device, 1), [12]);
    assert_eq!(transfer(&mut device, 0x99 << 16 | 8 | 4 | 2 | 0x10, 2, 0x2000), 0);
    assert_eq!(ram(&device, 0x2000, 2), [10, 11]);
    assert_eq!(transfer(&mut device, 4, u32::MAX, 0), 0);
    assert_eq!(read(&mut device, 2), [0, 0]);
}

#[test]
fn unknown_items_are_zeros() {
    let mut device = device(Items::new());
    device.memory.write_slice(&[9; 16], GuestAddress(0x2000)).unwrap();
    assert_eq!(transfer(&mut device, 0x7777 << 16 | SELECT_READ, 8, 0x2000), 0);
    assert_eq!(ram(&device, 0x2000, 9), [0, 0, 0, 0, 0, 0, 0, 0, 9]);
}

#[test]
fn only_writable_items_are_written_and_only_inside() {
    let mut items = Items::new();
    items.add_file("fixed", vec![0; 8]).unwrap();
    items.add_writable("open", vec![7; 8]).unwrap();
    let mut device = device(items);
    device.memory.write_slice(&[1, 2, 3, 4], GuestAddress(0x2000)).unwrap();
    assert_eq!(transfer(&mut device, 0x20 << 16 | 8 | 0x10, 4, 0x2000), 1);
    assert_eq!(transfer(&mut device, 0x21 << 16 | 8 | 0x10, 9, 0x2000), 1);
    assert_eq!(transfer(&mut device, 0x21 << 16 | 8 | 0x10, 4, 0x2000), 0);
    select(&mut device, 0x21);
    assert_eq!(read(&mut device, 8), [1, 2, 3, 4, 7, 7, 7, 7]);
    device.reset();
    select(&mut device, 0x21);
    assert_eq!(read(&mut device, 8), [7; 8]);
}

#[test]
fn addresses_outside_ram_are_errors_and_copy_nothing() {
    let mut items = Items::new();
    items.set(0x99, vec![5; 64]);
    let mut device = device(items);
    let select = 0x99 << 16 | SELECT_READ;
    for (length, address) in [
        (32, MIB),
        (32, 0xfee0_0000),
        (2, u64::MAX),
        (u32::MAX, 0),
        (u32::MAX, u64::MAX - 5),
        (32, MIB - 16),
        (0x20_0000, 0),
    ] {
        assert_eq!(transfer(&mut device, select, length, address), 1, "{length:#x} at {address:#x}");
    }
    assert_eq!(ram(&device, MIB - 16, 16), [0; 16]);
    // A transfer of nothing is none.
    assert_eq!(transfer(&mut device, select, 0, 0xfee0_0000), 0);
    // A descriptor outside RAM cannot even be told.
    assert_eq!(
        device.write(P, DMA_LOW, Width::B4, u64::from(0xfff0_0000u32.swap_bytes())),
        Err(Fault::Failed)
    );
}

#[test]
fn the_upper_half_counts_once() {
    let mut items = Items::new();
    items.set(0x99, vec![5; 4]);
    let mut device = device(items);
    device.write(P, DMA_HIGH, Width::B4, 1u32.swap_bytes().into()).unwrap();
    assert_eq!(device.write(P, DMA_LOW, Width::B4, 0x1000u32.swap_bytes().into()), Err(Fault::Failed));
    assert_eq!(transfer(&mut device, 0x99 << 16 | SELECT_READ, 4, 0x2000), 0);
    device.write(P, DMA_HIGH, Width::B4, 1u32.swap_bytes().into()).unwrap();
    device.reset();
    assert_eq!(transfer(&mut device, 0x99 << 16 | SELECT_READ, 4, 0x2000), 0);
}

#[test]
fn made_files_agree_and_keep_their_size() {
    let mut items = Items::new();
    let mut round = 0;
    let make = move || {
        round += 1;
        vec![vec![round; 3], vec![round + 100; 2]]
    };
    items.add_made(&[("etc/acpi/tables", 8), ("etc/table-loader", 4)], Box::new(make)).unwrap();
    let mut device = device(items);
    assert_eq!(directory(&mut device)[0], (8, 0x20, "etc/acpi/tables".into()));
    for round in 1..3 {
        select(&mut device, 0x21);
        assert_eq!(read(&mut device, 4), [100 + round, 100 + round, 0, 0]);
        select(&mut device, 0x20);
        assert_eq!(read(&mut device, 8), [round, round, round, 0, 0, 0, 0, 0]);
        device.reset();
    }
}

#[test]
fn a_made_file_that_grew_is_cut() {
    let mut items = Items::new();
    items.add_made_file("tables", 2, || vec![1; 9]).unwrap();
    let mut device = device(items);
    select(&mut device, 0x20);
    assert_eq!(read(&mut device, 3), [1, 1, 0]);
}

#[test]
fn names_are_checked() {
    let mut items = Items::new();
    let long = "x".repeat(56);
    assert_eq!(items.add_file(&long, []), Err(FileError::Name(long.clone())));
    assert_eq!(items.add_file(&long[1..], []), Ok(0x20));
    assert_eq!(items.add_file(&long[1..], []), Err(FileError::Twice(long[1..].into())));
    assert_eq!(items.add_file("", []), Err(FileError::Name(String::new())));
}

proptest! {
    #[test]
    fn no_port_traffic_panics(
        accesses in prop::collection::vec((0u64..16, 0usize..3, any::<Option<u32>>()), 0..64),
        descriptor in prop::array::uniform16(any::<u8>()),
        small in any::<bool>(),
    ) {
        let mut items = Items::new();
        items.add_writable("open", vec![7; 8]).unwrap();
        items.add_made_file("made", 8, || vec![1; 3]).unwrap();
        let mut device = device(items);
        let mut descriptor = descriptor;
        if small {
            // Half of them name something that can work.
            descriptor[..2].copy_from_slice(&[0, 0x20]);
            descriptor[4..7].fill(0);
            descriptor[8..14].fill(0);
        }
        device.memory.write_slice(&descriptor, GuestAddress(0)).unwrap();
        for (offset, width, write) in accesses {
            let width = [Width::B1, Width::B2, Width::B4][width];
            match write {
                Some(value) => { let _ = device.write(P, offset, width, value.into()); }
                None => { let _ = device.read(P, offset, width); }
            }
            let _ = device.write(P, DMA_LOW, Width::B4, 0);
        }
    }
}
