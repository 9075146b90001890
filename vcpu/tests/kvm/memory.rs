//! Slots of other kinds than RAM.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trapline_io::device::DirectKind;
use trapline_io::{Gpa, Op, Span};
use trapline_vcpu::Slot;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::code::Code;
use super::machine::{Machine, RAM_REGION, Report, START, WINDOW, WINDOW_REGION, writes};

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

/// What a guest meets that reads a page of a file, which has lost that page: as when the kernel takes a
/// device's memory away from its mapping.
enum LostPage {
    /// The vCPU comes out of the guest again and again (EFAULT).
    Retried(Machine, File),
    /// This KVM emulates the instruction, takes the page for a device's, and has read all ones.
    Trapped,
}

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
    machine.parts.world.release();
    assert_eq!(machine.told(), 1);
    std::thread::sleep(Duration::from_millis(50));
    if machine.told_already().is_some() {
        assert_eq!(machine.ram(RESULT), u32::MAX);
        machine.stop();
        return Some(LostPage::Trapped);
    }
    Some(LostPage::Retried(machine, file))
}

/// Where KVM gives EFAULT all three ends of it are seen; where it emulates the guest's instructions there
/// is no such exit, and the access is a trap from the beginning.
#[test]
fn a_lost_page_does_not_end_the_guest_at_once() {
    for end in [comes_back, loses_its_slot, stays_away] {
        let Some(LostPage::Retried(machine, file)) = reads_lost_page() else { return };
        end(machine, file);
    }
}

fn comes_back(machine: Machine, file: File) {
    file.set_len(0x1000).unwrap();
    assert_eq!(machine.told(), 2);
    assert_eq!(machine.ram(RESULT), 0);
    machine.stop();
}

fn loses_its_slot(machine: Machine, _file: File) {
    assert_eq!(machine.reported(), Report::NoMemory(0));
    // A device's slot changes while the vCPUs run.
    machine.parts.publish(Some(0..super::machine::RAM));
    assert_eq!(machine.told(), 2);
    assert_eq!(machine.ram(RESULT), u32::MAX);
    machine.stop();
}

fn stays_away(machine: Machine, _file: File) {
    let since = Instant::now();
    // It can be parked meanwhile.
    drop(machine.parts.world.lock().park().unwrap());
    assert_eq!(machine.reported(), Report::NoMemory(0), "the machine may take the slot away");
    let failed = std::iter::repeat_with(|| machine.reported()).find(|report| *report != Report::NoMemory(0));
    let Some(Report::Failed(0, text)) = failed else { panic!("not a failure of vCPU 0: {failed:?}") };
    assert!(text.contains("memory"), "{text}");
    assert!(since.elapsed() > Duration::from_millis(500), "it was not tried for long");
    machine.stop();
}
