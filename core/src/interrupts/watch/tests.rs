//! A card that advertises MSI and sends what a test says, in the guest of a real VM, on a host that a test builds.

use std::os::fd::BorrowedFd;

use trapline_devices::assigned::backend::{Irqs, RegionInfo, Signalled};
use trapline_devices::assigned::{Backend, Function, Options};
use trapline_devices::q35::Pirqs;
use trapline_io::{Device, Fault, Region, Width};
use trapline_vcpu::Vm;

use super::*;
use crate::host::fake::Fake;
use crate::interrupts::FunctionInterrupts;
use crate::platform::KvmGsis;

const ADDRESS: &str = "0000:01:00.0";
/// Where the capability is, and the interrupt that the host's kernel has for it.
const MSI: u64 = 0x50;
const IRQ: u32 = 40;
const MASTER: u64 = 4;
/// Nothing is pending inside; something is, and gets through; the host holds it back.
const IDLE: Pins = Pins { master: true, asserted: false, held: false };
const ASSERTED: Pins = Pins { asserted: true, ..IDLE };
const HELD: Pins = Pins { held: true, ..ASSERTED };

/// Configuration space, and nothing behind it. What is connected stays silent.
struct Card {
    config: Vec<u8>,
    regions: Vec<RegionInfo>,
}

impl Card {
    fn new() -> Card {
        let mut config = vec![0; 256];
        config[..8].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11, 0, 0, 0x10, 0]);
        config[0x34] = 0x50;
        config[0x3d] = 1;
        config[0x50..0x54].copy_from_slice(&[5, 0, 0, 0]);
        let mut regions = vec![RegionInfo::default(); 8];
        regions[7] = RegionInfo { size: 256, readable: true, writable: true, mappings: Vec::new() };
        Card { config, regions }
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn read_bytes(&mut self, _: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let at = usize::try_from(offset).map_err(|_| Fault::NoRegister)?;
        bytes.copy_from_slice(&self.config[at..at + bytes.len()]);
        Ok(())
    }
    fn irqs(&self) -> Irqs {
        Irqs { intx: true, msi: 1, ..Irqs::default() }
    }
    fn enable_intx(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_intx(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    fn enable_vectors(&mut self, _: Signalled, _: u16, _: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        Ok(())
    }
    fn disable_vectors(&mut self, _: Signalled) -> Result<(), Fault> {
        Ok(())
    }
}

/// The card in a guest, as its host has it, and what watches it.
struct Rig {
    host: Fake,
    guest: Function<Card>,
    state: State,
    start: Instant,
}

impl Rig {
    fn new() -> Rig {
        let vm = Arc::new(Vm::new().unwrap());
        let pirqs = Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm))));
        let lines = FunctionInterrupts::new(vm, pirqs, vec![3]);
        let options = Options { interrupts: Some(Arc::new(lines)), ..Options::default() };
        let guest = Function::open(Card::new(), options).unwrap();
        let host = Fake::new();
        host.function(ADDRESS, "1234:11e8", 0x00_ff00, Some("vfio-pci"), Some(1));
        let watched = Watched {
            name: "the card".into(),
            address: ADDRESS.parse().unwrap(),
            seen: Arc::clone(guest.seen()),
            offered: guest.offered(),
            shown: Messages::Guest,
            found: Arc::default(),
        };
        let rig = Rig { host, guest, state: State::new(watched, false), start: Instant::now() };
        rig.by_line(0, IDLE);
        rig
    }

    fn write(&mut self, at: u64, width: Width, value: u64) {
        self.guest.write(Region::CONFIG, at, width, value).unwrap();
    }

    /// As a driver does: a message, MSI, and bus mastering.
    fn enable_msi(&mut self) {
        self.write(MSI + 4, Width::B4, 0xfee0_0000);
        self.write(MSI + 8, Width::B2, 0x41);
        self.write(MSI + 2, Width::B2, 1);
        self.write(4, Width::B2, MASTER);
        self.host.set(ADDRESS, &format!("msi_irqs/{IRQ}"), "msi\n");
        self.by_messages(0);
    }

    /// The host has counted so many on the line, and finds this in the registers.
    fn by_line(&self, count: u64, pins: Pins) {
        self.host.set(ADDRESS, "irq", "20\n");
        self.host.write("sys/kernel/irq/20/per_cpu_count", format!("{count},0\n"));
        self.registers(pins);
    }

    fn by_messages(&self, count: u64) {
        self.host.write(&format!("sys/kernel/irq/{IRQ}/per_cpu_count"), format!("0,{count}\n"));
        self.registers(IDLE);
    }

    fn registers(&self, Pins { master, asserted, held }: Pins) {
        let command = [4 * u8::from(master), 4 * u8::from(held)];
        let registers = [0, 0, 0, 0, command[0], command[1], 8 * u8::from(asserted), 0];
        self.host.write(&format!("sys/bus/pci/devices/{ADDRESS}/config"), registers);
    }

    /// What the thread does so many seconds after the start; gives the second of the next look.
    fn at(&mut self, second: u64) -> Option<u64> {
        let now = self.start + Duration::from_secs(second);
        let due = self.state.step(self.host.tree(), now)?;
        Some(due.saturating_duration_since(self.start).as_secs())
    }

    fn told(&self) -> Option<String> {
        self.state.function.found.lock().told.clone()
    }
}

#[test]
fn a_card_that_never_sends_its_messages_is_told_of_once_with_the_option_that_helps() {
    let mut rig = Rig::new();
    rig.enable_msi();
    assert_eq!([0, 1, 3, 7, 15].map(|second| rig.at(second)), [1, 3, 7, 15, 31].map(Some));
    assert_eq!(rig.told(), None);
    assert_eq!(rig.at(31), None, "nothing is due any more");
    let told = rig.told().unwrap();
    assert!(
        told.contains("enabled its MSI 31 s ago") && told.ends_with("give msi=off, so that it uses its line")
    );
    rig.state.function.found.lock().told = Some("before".into());
    rig.guest.reset();
    rig.enable_msi();
    assert_eq!(rig.at(100), Some(101), "after a reset it is looked at again");
    assert_eq!(rig.at(131), None);
    assert_eq!(rig.told().as_deref(), Some("before"), "once");
}

#[test]
fn a_driver_that_comes_back_late_has_its_time() {
    let mut rig = Rig::new();
    rig.write(4, Width::B2, 0x400);
    rig.enable_msi();
    rig.write(4, Width::B2, MASTER | 0x400);
    let _ = [0, 1, 3, 7, 15].map(|second| rig.at(second));
    rig.write(MSI + 2, Width::B2, 0);
    assert_eq!(rig.at(31), Some(91), "held back");
    rig.write(MSI + 2, Width::B2, 1);
    let _ = [91, 151, 211].map(|second| rig.at(second));
    assert_eq!(rig.told(), None);
}

#[test]
fn a_card_that_sends_them_is_counted_and_not_told_of() {
    let mut rig = Rig::new();
    rig.enable_msi();
    rig.at(0);
    rig.by_messages(2);
    rig.at(1);
    rig.by_messages(7);
    rig.at(31);
    assert_eq!(rig.told(), None);
    // Connected anew, and the last look at the end of a run.
    rig.by_messages(3);
    rig.state.count(rig.host.tree());
    let found = rig.state.function.found.lock().clone();
    assert_eq!(found, Found { msi: 10, ..Found::default() });
}

#[test]
fn messages_that_are_not_counted_are_not_missed() {
    let mut rig = Rig::new();
    rig.state.posted = true;
    rig.enable_msi();
    let _ = [0, 1, 3, 7, 15, 31].map(|second| rig.at(second));
    assert_eq!(rig.told(), None);
}

#[test]
fn a_line_that_is_acknowledged_in_vain_is_a_storm() {
    let mut rig = Rig::new();
    rig.write(4, Width::B2, MASTER);
    // What others on the line had before does not count.
    rig.by_line(5_000_000, IDLE);
    rig.at(0);
    for (second, count) in [(1, 5_002_000), (3, 5_006_000), (7, 5_014_000)] {
        rig.by_line(count, ASSERTED);
        rig.at(second);
    }
    let told = rig.told().unwrap();
    assert!(told.contains("INTx line without end, 2000 times a second"), "{told}");
    assert_eq!(rig.state.function.found.lock().line, 14_000);
}

#[test]
fn a_storm_that_begins_later_is_told_too() {
    let mut rig = Rig::new();
    rig.write(4, Width::B2, MASTER);
    assert_eq!([0, 1, 3, 7, 15, 31].map(|second| rig.at(second)), [1, 3, 7, 15, 31, 91].map(Some));
    for (second, count) in [(91, 120_000), (151, 240_000)] {
        assert_eq!(rig.told(), None);
        rig.by_line(count, ASSERTED);
        rig.at(second);
    }
    let told = rig.told().unwrap();
    assert!(told.contains("INTx line without end, 2000 times a second"), "{told}");
    assert_eq!(rig.at(300), None, "nothing is due any more");
}

#[test]
fn looks_that_come_too_late_are_one() {
    let mut rig = Rig::new();
    rig.write(4, Width::B2, MASTER);
    rig.at(0);
    rig.by_line(2000, ASSERTED);
    rig.at(1);
    // The thread stood still.
    rig.by_line(40_000, ASSERTED);
    assert_eq!(rig.at(20), Some(31));
    assert_eq!(rig.told(), None);
    rig.by_line(62_000, ASSERTED);
    rig.at(31);
    assert!(rig.told().is_some_and(|told| told.contains("2000 times a second")));
}

#[test]
fn a_line_that_nobody_acknowledges_is_told_unless_the_guest_holds_it_back() {
    for (command, tells) in [(MASTER, true), (MASTER | 0x400, false)] {
        let mut rig = Rig::new();
        rig.write(4, Width::B2, MASTER);
        rig.at(0);
        rig.write(4, Width::B2, command);
        rig.by_line(1, HELD);
        let _ = [1, 3, 7, 15, 31].map(|second| rig.at(second));
        assert_eq!(
            rig.told().is_some_and(|told| told.contains("is asserted without end")),
            tells,
            "{command:x}"
        );
    }
}

#[test]
fn the_confined_thread_is_called_and_ends() {
    let mut rig = Rig::new();
    let found = Arc::clone(&rig.state.function.found);
    let watch = Watch::start(rig.host.tree().clone(), vec![rig.state.function.clone()], Seccomp::On).unwrap();
    rig.enable_msi();
    rig.by_messages(9);
    // Whatever the thread has done by then, at its end it counts what there is.
    drop(watch);
    assert_eq!(found.lock().msi, 9);
}
