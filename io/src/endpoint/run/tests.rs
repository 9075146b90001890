use std::sync::{Arc, Mutex};

use super::*;
use crate::Width;
use crate::device::Claims;
use crate::queue::CallerId;

/// What reached a device.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Write(Access),
    Run(Region, u64, Vec<u8>),
}

/// Merges everywhere but in BAR 1; fails all runs from offset 0 of BAR 2.
#[derive(Clone, Default)]
struct Merger(Arc<Mutex<Vec<Seen>>>);

impl Device for Merger {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.0.lock().unwrap().push(Seen::Write(Access::write(region, offset, width, value)));
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn merges(&self, region: Region, offset: u64) -> bool {
        assert!(region != Region::CONFIG && (region != Region::VGA || offset > 0xffff), "asked for a port");
        region != Region::bar(1)
    }
    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.lock().unwrap().push(Seen::Run(region, offset, bytes.to_vec()));
        if (region, offset) == (Region::bar(2), 0) { Err(Fault::Failed) } else { Ok(()) }
    }
}

/// Serves these entries as a drain does; gives what the device saw and the number of failed runs.
fn served(entries: &[Entry]) -> (Vec<Seen>, usize) {
    let device = Merger::default();
    let mut held = Held::new(Box::new(device.clone()));
    let mut failed = 0;
    for entry in entries {
        if held.extend(entry) {
            continue;
        }
        failed += usize::from(held.finish().is_err());
        if !held.begin(entry)
            && let Access { region, offset, width, op: Op::Write(value) } = entry.access
        {
            held.device.write(region, offset, width, value).unwrap();
        }
    }
    failed += usize::from(held.finish().is_err());
    assert!(held.finish().is_ok(), "a run leaves once");
    let seen = device.0.lock().unwrap().clone();
    (seen, failed)
}

fn posted(region: Region, offset: u64, width: Width, value: u64) -> Entry {
    Entry::posted(Access::write(region, offset, width, value))
}

#[test]
fn ascending_neighbours_leave_as_one_run_of_their_bytes() {
    let (seen, _) = served(&[
        posted(Region::VGA, 0xb8000, Width::B2, 0x0741),
        posted(Region::VGA, 0xb8002, Width::B1, 0x42),
        posted(Region::VGA, 0xb8003, Width::B4, 0x8765_4321),
    ]);
    let bytes = vec![0x41, 0x07, 0x42, 0x21, 0x43, 0x65, 0x87];
    assert_eq!(seen, [Seen::Run(Region::VGA, 0xb8000, bytes)]);
}

#[test]
fn gaps_steps_back_and_other_regions_end_a_run() {
    let entries = [
        posted(Region::VGA, 0xb8000, Width::B1, 1),
        posted(Region::VGA, 0xb8002, Width::B1, 2),
        posted(Region::VGA, 0xb8001, Width::B1, 3),
        posted(Region::bar(0), 0xb8002, Width::B1, 4),
        posted(Region::bar(0), 0xb8002, Width::B1, 5),
    ];
    let (seen, _) = served(&entries);
    assert_eq!(seen, entries.map(|entry| Seen::Write(entry.access)));
}

#[test]
fn ports_configuration_and_awaited_writes_are_never_merged() {
    let mut entries: Vec<_> = (0x3c0..0x3c8).map(|port| posted(Region::VGA, port, Width::B1, 7)).collect();
    entries.extend((0..4).map(|at| posted(Region::CONFIG, at, Width::B1, 7)));
    entries.extend((0..4).map(|at| posted(Region::bar(1), at, Width::B1, 7)));
    for (index, offset) in (0xa0000..0xa0004).enumerate() {
        let waiter = (index == 1).then_some(CallerId(0));
        entries.push(Entry { waiter, ..posted(Region::VGA, offset, Width::B1, 7) });
    }
    let (seen, _) = served(&entries);
    let mut expected: Vec<_> = entries.iter().map(|entry| Seen::Write(entry.access)).collect();
    expected.truncate(expected.len() - 2);
    expected.push(Seen::Run(Region::VGA, 0xa0002, vec![7, 7]));
    assert_eq!(seen, expected);
}

#[test]
fn a_run_crosses_no_page_and_holds_one() {
    let entries: Vec<_> =
        (0..3 * 4096 / 8).map(|n| posted(Region::VGA, 0xa0ffc + 8 * n, Width::B8, n)).collect();
    let (seen, _) = served(&entries);
    let mut covered = 0xa0ffc;
    for seen in &seen {
        let (offset, len) = match seen {
            Seen::Write(access) => (access.offset, access.width.bytes() as u64),
            Seen::Run(_, offset, bytes) => (*offset, bytes.len() as u64),
        };
        assert_eq!(offset, covered);
        assert!(matches!(seen, Seen::Write(_)) || offset / 4096 == (offset + len - 1) / 4096, "{offset:x}");
        covered += len;
    }
    assert_eq!(covered, 0xa0ffc + 3 * 4096);
    assert_eq!(seen.len(), 6, "three that lie across, and a run up to each of the ends behind them");
    let aligned: Vec<_> = (0..4096).map(|n| posted(Region::bar(0), n, Width::B1, n)).collect();
    assert!(matches!(&served(&aligned).0[..], [Seen::Run(_, 0, bytes)] if bytes.len() == 4096));
}

#[test]
fn a_run_that_fails_is_one_fault_and_the_end_of_the_space_ends_one() {
    let (_, failed) =
        served(&[posted(Region::bar(2), 0, Width::B1, 1), posted(Region::bar(2), 1, Width::B1, 2)]);
    assert_eq!(failed, 1);
    let (seen, failed) = served(&[
        posted(Region::bar(0), u64::MAX - 1, Width::B2, 1),
        posted(Region::bar(0), 0, Width::B1, 2),
    ]);
    assert_eq!((seen.len(), failed), (2, 0));
}
