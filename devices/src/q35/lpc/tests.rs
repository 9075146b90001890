use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::host::Gsis;
use crate::pci::Pin;

#[derive(Default)]
struct Board {
    levels: AtomicU32,
    events: Mutex<Vec<Event>>,
}

impl Gsis for Board {
    fn set(&self, gsi: u32, level: bool) {
        let bit = 1 << gsi;
        if level {
            self.levels.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.levels.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl Events for Board {
    fn report(&self, event: Event) {
        self.events.lock().push(event);
    }
}

struct Rig {
    lpc: Lpc,
    board: Arc<Board>,
    pirqs: Pirqs,
}

fn rig() -> Rig {
    let board = Arc::new(Board::default());
    let pirqs = Pirqs::new(Arc::clone(&board) as Arc<dyn Gsis>);
    let lpc = Lpc::new(pirqs.clone(), Arc::clone(&board) as Arc<dyn Events>);
    Rig { lpc, board, pirqs }
}

impl Rig {
    fn set(&mut self, offset: u64, width: Width, value: u64) {
        self.lpc.write(Region::CONFIG, offset, width, value).unwrap();
    }
    fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.lpc.read(Region::CONFIG, offset, width).unwrap()
    }
    fn out(&mut self, port: u64, value: u64) {
        self.lpc.write(region::PORTS, port, Width::B1, value).unwrap();
    }
    fn inb(&mut self, port: u64) -> u64 {
        self.lpc.read(region::PORTS, port, Width::B1).unwrap()
    }
    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.board.events.lock())
    }
    fn levels(&self) -> u32 {
        self.board.levels.load(Ordering::Relaxed)
    }
    fn claimed(&self, region: Region) -> Vec<Range> {
        let of = |claim: &Claim| match claim.target {
            trapline_io::device::Target::Region { region: found, .. } => found == region,
            _ => false,
        };
        self.lpc.claims().ranges.iter().filter(|claim| of(claim)).map(|claim| claim.range).collect()
    }
}

#[test]
fn identity_and_reset_values() {
    let mut rig = rig();
    assert_eq!(rig.get(0x00, Width::B4), 0x2918_8086);
    assert_eq!(rig.get(0x08, Width::B4), 0x0601_0002);
    assert_eq!(rig.get(0x0e, Width::B1), 0, "the only function");
    assert_eq!(rig.get(0x40, Width::B4), 1);
    assert_eq!(rig.get(0x60, Width::B4), 0x8080_8080);
    assert_eq!(rig.get(0x68, Width::B4), 0x8080_8080);
    for bar in (0x10..=0x24).step_by(4).chain([0x30]) {
        rig.set(bar, Width::B4, 0xffff_ffff);
        assert_eq!(rig.get(bar, Width::B4), 0);
    }
}

#[test]
fn the_pm_block_decodes_when_firmware_says_so() {
    let mut rig = rig();
    assert!(rig.claimed(region::PM).is_empty());
    rig.set(0x44, Width::B1, 0x80);
    assert!(rig.claimed(region::PM).is_empty(), "no base yet");
    rig.set(0x40, Width::B4, 0x601);
    assert_eq!(rig.get(0x40, Width::B4), 0x601);
    assert_eq!(rig.claimed(region::PM), [Range::Ports(Span::of_len(Port(0x600), 0x80).unwrap())]);
    rig.set(0x40, Width::B4, 0xffff_ffff);
    assert_eq!(rig.get(0x40, Width::B4), 0xff81);
    assert_eq!(rig.claimed(region::PM), [Range::Ports(Span::of_len(Port(0xff80), 0x80).unwrap())]);
    assert_eq!(rig.lpc.read(region::PM, 0x30, Width::B4), Ok(0x20));
    assert_eq!(rig.lpc.read(region::PM, 0x7d, Width::B4), Err(Fault::NoRegister));
    assert_eq!(rig.lpc.write(region::PM, u64::MAX, Width::B4, 0), Err(Fault::NoRegister));
    rig.lpc.reset();
    assert!(rig.claimed(region::PM).is_empty());
}

#[test]
fn rcba_opens_the_chipset_registers() {
    let mut rig = rig();
    rig.set(0xf0, Width::B4, 0xfed1_c001);
    assert_eq!(
        rig.claimed(region::CHIPSET),
        [Range::Memory(Span::of_len(Gpa(0xfed1_c000), 0x4000).unwrap())]
    );
    rig.set(0xf0, Width::B4, 0xffff_ffff);
    assert_eq!(rig.get(0xf0, Width::B4), 0xffff_c001);
    rig.set(0xf0, Width::B4, 0xfed1_c000);
    assert!(rig.claimed(region::CHIPSET).is_empty());
}

#[test]
fn fixed_ports_are_always_there() {
    let rig = rig();
    let port = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
    assert_eq!(rig.claimed(region::PORTS), [port(0x92, 0x92), port(0xb2, 0xb3), port(0xcf9, 0xcf9)]);
}

#[test]
fn reset_control_fires_on_bit_two() {
    let mut rig = rig();
    rig.out(0xcf9, 0x02);
    assert!(rig.events().is_empty());
    assert_eq!(rig.inb(0xcf9), 0x02);
    for value in [0x06, 0x0e, 0x0f, 0x04] {
        rig.out(0xcf9, value);
        assert_eq!(rig.events(), [Event::Reset], "{value:#x}");
    }
    rig.lpc.reset();
    assert_eq!(rig.inb(0xcf9), 0);
    assert!(rig.events().is_empty());
}

#[test]
fn a20_stays_open_and_fast_reset_needs_an_edge() {
    let mut rig = rig();
    for value in [0x00, 0x02, 0xfe] {
        rig.out(0x92, value);
        assert_eq!(rig.inb(0x92), 0x02);
        assert!(rig.events().is_empty(), "{value:#x}");
    }
    rig.out(0x92, 0x03);
    assert_eq!(rig.events(), [Event::Reset]);
    rig.out(0x92, 0x01);
    assert!(rig.events().is_empty());
    rig.lpc.reset();
    rig.out(0x92, 0x01);
    assert_eq!(rig.events(), [Event::Reset]);
}

#[test]
fn the_apm_port_switches_acpi() {
    let mut rig = rig();
    assert_eq!(rig.lpc.read(region::PM, 4, Width::B2), Ok(0));
    rig.out(0xb2, 2);
    assert_eq!(rig.lpc.read(region::PM, 4, Width::B2), Ok(1));
    rig.out(0xb2, 0x55);
    assert_eq!(rig.lpc.read(region::PM, 4, Width::B2), Ok(1));
    rig.out(0xb2, 3);
    assert_eq!(rig.lpc.read(region::PM, 4, Width::B2), Ok(0));
    rig.out(0xb3, 0xaa);
    assert_eq!(rig.lpc.read(region::PORTS, 0xb2, Width::B2), Ok(0xaa03));
    assert_eq!(rig.lpc.read(region::PORTS, 0xb3, Width::B2), Err(Fault::NoRegister));
}

#[test]
fn the_power_button_and_soft_off() {
    let mut rig = rig();
    rig.set(0x44, Width::B1, 0x80);
    rig.lpc.write(region::PM, 2, Width::B2, 0x0100).unwrap();
    let button = Lpc::POWER_BUTTON;
    rig.lpc.write(button.region, button.offset, button.width, 1).unwrap();
    assert_eq!(rig.levels(), 0, "ACPI is off");
    rig.out(0xb2, 2);
    assert_eq!(rig.levels(), 1 << 9);
    for (select, gsi) in [(1, 10), (2, 11), (4, 20), (5, 21), (0, 9), (7, 9)] {
        rig.set(0x44, Width::B1, 0x80 | select);
        assert_eq!(rig.levels(), 1 << gsi, "select {select}");
    }
    rig.lpc.write(region::PM, 0, Width::B2, 0x0100).unwrap();
    assert_eq!(rig.levels(), 0);
    rig.lpc.write(region::PM, 4, Width::B2, 0x2001).unwrap();
    assert_eq!(rig.events(), [Event::PowerOff]);
    // A pending button does not outlive a reset.
    rig.lpc.write(button.region, button.offset, button.width, 1).unwrap();
    assert_eq!(rig.levels(), 1 << 9);
    rig.lpc.reset();
    assert_eq!(rig.levels(), 0);
}

#[test]
fn routing_registers_move_interrupts() {
    let mut rig = rig();
    let line = rig.pirqs.line(31, Pin::B);
    line.set(true);
    assert_eq!(rig.levels(), 1 << 17);
    rig.set(0x60, Width::B4, 0x0b0b_0a0a);
    assert_eq!(rig.levels(), 1 << 17 | 1 << 10);
    rig.set(0x61, Width::B1, 0xff);
    assert_eq!(rig.get(0x60, Width::B4), 0x0b0b_8f0a);
    assert_eq!(rig.levels(), 1 << 17);
    rig.lpc.write(region::CHIPSET, 0x3140, Width::B2, 0x3260).unwrap();
    assert_eq!(rig.levels(), 1 << 22);
    rig.lpc.write(region::CHIPSET, 0x3140, Width::B1, 0x00).unwrap();
    assert_eq!(rig.levels(), 1 << 16 | 1 << 10, "PIRQA is routed to IRQ 10");
    rig.lpc.reset();
    assert_eq!(rig.levels(), 1 << 17, "the device still pulls; the routes are back");
}

#[test]
fn the_smi_lock_stays_until_reset() {
    let mut rig = rig();
    rig.set(0xa0, Width::B2, 0xffff);
    assert_eq!(rig.get(0xa0, Width::B2), 0x0410);
    rig.set(0xa0, Width::B2, 0);
    assert_eq!(rig.get(0xa0, Width::B2), 0x0010);
    rig.lpc.reset();
    assert_eq!(rig.get(0xa0, Width::B2), 0);
}
