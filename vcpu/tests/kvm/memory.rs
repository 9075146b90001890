//! Slots of other kinds than RAM.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trapline_io::device::DirectKind;
use trapline_io::{Gpa, Op, Span};
use trapline_vcpu::Slot;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::code::Code;
use super::machine::{Machine, PATIENCE, RAM_REGION, Report, START, WINDOW, WINDOW_REGION, writes};

const WIDE: u32 = 0x2000;
/// Where the guests put what they read.
const RESULT: u32 = 0x7000;

#[test]
fn writes_to_rom_reach_the_device_and_the_memory_stays() {
    // The page at the reset vector is ROM; 32-bit code can reach it.
    let first = Code::real(START).enter_wide(WIDE);
    let wide = Code::wide(WIDE)
        .flat_segments()
        .mov_eax(0x1234_5678)
        .store_eax(0xffff_f010)
        .load_eax(0xffff_f010)
        .store_eax(WINDOW)
        .tell(1)
        .rest();
    let Some(machine) = Machine::started(1, vec![first, wide]) else { return };
    assert_eq!(machine.told(), 1);
    let log = machine.take_log();
    let regions: Vec<_> = log.iter().map(|access| (access.region, access.op)).collect();
    assert_eq!(regions, [(RAM_REGION, Op::Write(0x1234_5678)), (WINDOW_REGION, Op::Write(0))]);
    assert_eq!(writes(&log)[0].1, 0x10);
    let rom: u32 = machine.parts.rom.as_volatile_slice().read_obj(0x10).unwrap();
    assert_eq!(rom, 0);
    machine.stop();
}

/// A guest that reads a page of a file, which has lost that page: as when the kernel takes a device's memory
/// away from its mapping. The vCPU comes out of it again and again (EFAULT).
struct LostPage {
    machine: Machine,
    file: File,
    /// Not after the first of its tries.
    since: Instant,
}

/// `None` also where KVM emulates the instruction: it takes the page for a device's, and has read all ones.
fn reads_lost_page() -> Option<LostPage> {
    let code = Code::real(START)
        .mov_ax(0xd000)
        .mov_ds_ax()
        .tell(1)
        .load_eax(0x10)
        .raw(&[0x31, 0xdb, 0x8e, 0xdb]) // ds = bx = 0
        .store_eax(RESULT)
        .tell(2)
        .rest();
    let machine = Machine::new(1, vec![code])?;
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    let offset = FileOffset::new(file.try_clone().unwrap(), 0);
    let memory = Arc::new(MmapRegion::from_file(offset, 0x1000).unwrap());
    file.set_len(0).unwrap();
    let span = Span::of_len(Gpa(0xd0000), 0x1000).unwrap();
    let slot = Slot { span, memory, offset: 0, kind: DirectKind::Bar };
    machine.parts.slots.lock().unwrap().add_missing(&[slot]).unwrap();
    let since = Instant::now();
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    match machine.told_or_reported() {
        // The machine may take the slot away.
        Err(Report::NoMemory(0)) => Some(LostPage { machine, file, since }),
        trapped => {
            assert_eq!((trapped, machine.ram(RESULT)), (Ok(2), u32::MAX));
            machine.stop();
            None
        }
    }
}

impl LostPage {
    /// What comes next but for reports that the memory is not there.
    fn outcome(&self) -> Result<u8, Report> {
        loop {
            let outcome = self.machine.told_or_reported();
            if outcome != Err(Report::NoMemory(0)) {
                return outcome;
            }
        }
    }

    /// The guest has read `value`; false if it was helped so late that the vCPU may have given up.
    fn has_read(self, value: u32) -> bool {
        let late = self.since.elapsed() > Duration::from_millis(900);
        let outcome = self.outcome();
        let gave_up = late && matches!(outcome, Err(Report::Failed(..)));
        if !gave_up {
            assert_eq!((outcome, self.machine.ram(RESULT)), (Ok(2), value));
        }
        self.machine.stop();
        !gave_up
    }
}

/// Where KVM gives EFAULT all three ends of it are seen; where it emulates the guest's instructions there
/// is no such exit, and the access is a trap from the beginning.
#[test]
fn a_lost_page_does_not_end_the_guest_at_once() {
    for end in [comes_back, loses_its_slot, stays_away] {
        let since = Instant::now();
        loop {
            let Some(lost) = reads_lost_page() else { return };
            if end(lost) {
                break;
            }
            // The vCPU tries for a second, and this thread may not run for as long.
            assert!(since.elapsed() < PATIENCE, "it gives up again and again");
        }
    }
}

fn comes_back(lost: LostPage) -> bool {
    lost.file.set_len(0x1000).unwrap();
    lost.has_read(0)
}

fn loses_its_slot(lost: LostPage) -> bool {
    // A device's slot changes while the vCPUs run.
    lost.machine.parts.publish(Some(0..super::machine::RAM));
    lost.has_read(u32::MAX)
}

fn stays_away(lost: LostPage) -> bool {
    // It can be parked meanwhile.
    drop(lost.machine.parts.world.lock().park().unwrap());
    assert_eq!(lost.machine.reported(), Report::NoMemory(0), "it is told again");
    let outcome = lost.outcome();
    let Err(Report::Failed(0, text)) = &outcome else { panic!("not a failure of vCPU 0: {outcome:?}") };
    assert!(text.contains("memory"), "{text}");
    assert!(lost.since.elapsed() > Duration::from_millis(500), "it was not tried for long");
    lost.machine.stop();
    true
}
