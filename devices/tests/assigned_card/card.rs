//! A card that VFIO might give away, and a host that takes its interrupts: both record what is asked
//! of them, and insist on the order that the real ones need.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use trapline_devices::assigned::backend::{Irqs, Mapping, RegionInfo, Signalled, Write};
use trapline_devices::assigned::{Backend, Function, Options};
use trapline_devices::host::{Interrupts, Level, Message, Vector};
use trapline_devices::pci::Pin;
use trapline_io::{Device, Fault, Region, Width};
use vm_memory::MmapRegion;

pub const MSI: u16 = 0x50;
pub const POWER: u16 = 0x68;
pub const MSIX: u16 = 0x70;
pub const EXPRESS: u16 = 0x80;
/// BAR 0 has registers, the table in its third page and the pending bits in its last.
pub const BAR: u64 = 0x8000;
pub const TABLE: u64 = 0x2000;
pub const PENDING: u64 = 0x7800;
pub const VECTORS: u16 = 70;

pub struct State {
    pub config: Vec<u8>,
    pub log: Vec<String>,
    pub intx: Option<(OwnedFd, OwnedFd)>,
    pub msi: Vec<OwnedFd>,
    pub msix: BTreeMap<u16, OwnedFd>,
    /// What the device's host has to give.
    pub most: usize,
    pub irqs: Irqs,
    pub dead: bool,
    /// How many writes its driver would make by itself, and those that it does.
    pub room: usize,
    pub writes: Vec<Write>,
}

impl State {
    fn quiet(&self) -> bool {
        self.intx.is_none() && self.msi.is_empty() && self.msix.is_empty()
    }
}

#[derive(Clone)]
pub struct Card {
    state: Arc<Mutex<State>>,
    regions: Arc<[RegionInfo]>,
}

fn put(config: &mut [u8], at: u16, bytes: &[u8]) {
    config[usize::from(at)..usize::from(at) + bytes.len()].copy_from_slice(bytes);
}

fn low(at: u16) -> u8 {
    at.to_le_bytes()[0]
}

fn config() -> Vec<u8> {
    let mut config = vec![0; 4096];
    put(&mut config, 0, &[0x86, 0x80, 0xd3, 0x10, 0, 0, 0x10, 0]);
    put(&mut config, 8, &[1, 0, 0, 2]);
    config[0x34] = low(MSI);
    config[0x3d] = 1;
    // 64 bits, masks, up to 16 messages.
    put(&mut config, MSI, &[0x05, low(POWER), 0x88, 0x01]);
    put(&mut config, POWER, &[0x01, low(MSIX), 0x03, 0xc8, 0x08]);
    put(&mut config, MSIX, &[0x11, low(EXPRESS)]);
    put(&mut config, MSIX + 2, &(VECTORS - 1).to_le_bytes());
    put(&mut config, MSIX + 4, &TABLE.to_le_bytes()[..4]);
    put(&mut config, MSIX + 8, &PENDING.to_le_bytes()[..4]);
    put(&mut config, EXPRESS, &[0x10, 0, 0x02, 0, 0, 0x80, 0, 0x10]);
    config
}

impl Card {
    pub fn new() -> Card {
        Card::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut State)) -> Card {
        let mut state = State {
            config: config(),
            log: Vec::new(),
            intx: None,
            msi: Vec::new(),
            msix: BTreeMap::new(),
            most: usize::MAX,
            irqs: Irqs { intx: true, msi: 16, msix: VECTORS, msix_grows: true },
            dead: false,
            room: 0,
            writes: Vec::new(),
        };
        change(&mut state);
        let memory = Arc::new(MmapRegion::new(usize::try_from(BAR).unwrap()).unwrap());
        let region = |size| RegionInfo { size, readable: true, writable: true, mappings: Vec::new() };
        let mut regions = vec![region(0); 9];
        regions[0] = RegionInfo { mappings: vec![Mapping::whole(0, memory)], ..region(BAR) };
        regions[7] = region(4096);
        Card { state: Arc::new(Mutex::new(state)), regions: regions.into() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What was asked of it since this was last called.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    pub fn command(&self) -> u16 {
        let state = self.state();
        u16::from_le_bytes([state.config[4], state.config[5]])
    }

    /// Signals a vector; false where it is not connected.
    pub fn fire(&self, kind: Signalled, vector: u16) -> bool {
        let state = self.state();
        let fd = match kind {
            Signalled::Msi => state.msi.get(usize::from(vector)),
            Signalled::Msix => state.msix.get(&vector),
        };
        fd.is_some_and(|fd| rustix::io::write(fd, &1_u64.to_ne_bytes()).is_ok())
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn is_dead(&self) -> bool {
        self.state().dead
    }
    fn resettable(&self) -> bool {
        true
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region != Region::CONFIG {
            return Ok(0x5a5a_5a5a_5a5a_5a5a & width.all_ones());
        }
        let mut bytes = [0; 8];
        let at = usize::try_from(offset).unwrap();
        bytes[..width.bytes()].copy_from_slice(&self.state().config[at..at + width.bytes()]);
        Ok(u64::from_le_bytes(bytes))
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let mut state = self.state();
        if region != Region::CONFIG {
            state.log.push(format!("bar {offset:x}"));
            return Ok(());
        }
        state.log.push(format!("config {offset:x} = {value:x}"));
        let reset = u64::from(EXPRESS + 8);
        if offset == reset && value & 0x8000 != 0 {
            assert!(state.quiet(), "a reset under connected interrupts");
            put(&mut state.config, 4, &[0, 0]);
            return Ok(());
        }
        put(&mut state.config, u16::try_from(offset).unwrap(), &value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }
    fn read_bytes(&mut self, _: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let at = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&self.state().config[at..at + bytes.len()]);
        Ok(())
    }
    fn reset(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        assert!(state.quiet(), "a reset under connected interrupts");
        state.log.push("reset".into());
        Ok(())
    }
    fn irqs(&self) -> Irqs {
        self.state().irqs
    }
    fn enable_intx(&mut self, trigger: BorrowedFd<'_>, unmask: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut state = self.state();
        assert!(state.quiet(), "INTx beside another kind");
        state.intx = Some((trigger.try_clone_to_owned().unwrap(), unmask.try_clone_to_owned().unwrap()));
        state.log.push("intx on".into());
        Ok(())
    }
    fn disable_intx(&mut self) -> Result<(), Fault> {
        let mut state = self.state();
        assert!(state.intx.take().is_some());
        state.log.push("intx off".into());
        Ok(())
    }
    fn enable_vectors(
        &mut self,
        kind: Signalled,
        first: u16,
        triggers: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        let mut state = self.state();
        let grows = kind == Signalled::Msix && state.irqs.msix_grows && !state.msix.is_empty();
        assert!(grows || state.quiet(), "{kind:?} beside another kind, or twice");
        assert!(grows || first == 0);
        assert!(!triggers.is_empty());
        // As the kernel does for a device that is not in D0.
        let asleep = state.config[usize::from(POWER) + 4] & 3 != 0;
        if asleep || state.msix.len() + triggers.len() > state.most {
            return Err(Fault::Failed);
        }
        let fds = triggers.iter().map(|fd| fd.try_clone_to_owned().unwrap());
        match kind {
            Signalled::Msi => state.msi = fds.collect(),
            Signalled::Msix => {
                for (vector, fd) in (first..).zip(fds) {
                    assert!(vector < state.irqs.msix);
                    assert!(state.msix.insert(vector, fd).is_none(), "connected twice");
                }
            }
        }
        state.log.push(format!("{kind:?} {first} x{}", triggers.len()));
        Ok(())
    }
    fn takes_writes(&self) -> bool {
        self.state().room > 0
    }
    fn connect_write(&mut self, write: Write, _: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut state = self.state();
        assert!(!state.writes.contains(&write), "connected twice");
        state.log.push(format!("connect {:x}", write.offset));
        if state.writes.len() >= state.room {
            return Err(Fault::Failed);
        }
        state.writes.push(write);
        Ok(())
    }
    fn disconnect_write(&mut self, write: Write) -> Result<(), Fault> {
        let mut state = self.state();
        let place = state.writes.iter().position(|there| *there == write).expect("was connected");
        state.writes.remove(place);
        Ok(())
    }
    fn disable_vectors(&mut self, kind: Signalled) -> Result<(), Fault> {
        let mut state = self.state();
        match kind {
            Signalled::Msi => assert!(!std::mem::take(&mut state.msi).is_empty()),
            Signalled::Msix => assert!(!std::mem::take(&mut state.msix).is_empty()),
        }
        state.log.push(format!("{kind:?} off"));
        Ok(())
    }
}

struct Slot {
    fd: OwnedFd,
    message: Option<Message>,
    alive: bool,
}

/// Trigger and resample of a line.
type LineFds = Arc<(OwnedFd, OwnedFd)>;

/// Takes interrupts.
#[derive(Clone, Default)]
pub struct Host {
    slots: Arc<Mutex<Vec<Slot>>>,
    /// Those that are not dropped.
    lines: Arc<Mutex<Vec<LineFds>>>,
    routes: Arc<Mutex<u32>>,
    /// Whose lines were asked for.
    pub pins: Arc<Mutex<Vec<Pin>>>,
    /// More vectors at a time are refused.
    most: Option<usize>,
}

struct HostVector {
    slots: Arc<Mutex<Vec<Slot>>>,
    routes: Arc<Mutex<u32>>,
    place: usize,
    fd: OwnedFd,
}

struct HostLine {
    lines: Arc<Mutex<Vec<LineFds>>>,
    fds: LineFds,
}

impl std::fmt::Debug for HostVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vector {}", self.place)
    }
}

impl std::fmt::Debug for HostLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("line")
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn take(fd: &OwnedFd) -> bool {
    rustix::io::read(fd, &mut [0; 8]).is_ok()
}

impl Host {
    pub fn new() -> Host {
        Host::default()
    }

    /// One that has so many vectors at a time.
    pub fn with_at_most(most: usize) -> Host {
        Host { most: Some(most), ..Host::default() }
    }

    pub fn options(&self) -> Options {
        Options { interrupts: Some(Arc::new(self.clone())), ..Options::default() }
    }

    /// What is delivered now.
    pub fn delivered(&self) -> Vec<Message> {
        let slots = self.slots.lock().unwrap();
        let open = slots.iter().filter(|slot| slot.alive);
        open.filter_map(|slot| slot.message.filter(|_| take(&slot.fd))).collect()
    }

    /// Vectors that are not dropped.
    pub fn vectors(&self) -> usize {
        self.slots.lock().unwrap().iter().filter(|slot| slot.alive).count()
    }

    /// Lines that are not dropped.
    pub fn lines(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Whether the line was asserted since this was last asked.
    pub fn asserted(&self) -> bool {
        self.lines.lock().unwrap().iter().any(|fds| take(&fds.0))
    }

    /// The guest acknowledges the line.
    pub fn acknowledge(&self) {
        for fds in self.lines.lock().unwrap().iter() {
            rustix::io::write(&fds.1, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    /// How often a message was changed.
    pub fn routes(&self) -> u32 {
        *self.routes.lock().unwrap()
    }
}

impl Interrupts for Host {
    fn vectors(&self, count: usize) -> io::Result<Vec<Box<dyn Vector>>> {
        if self.most.is_some_and(|most| count > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut slots = self.slots.lock().unwrap();
        let make = |_| {
            let fd = event();
            slots.push(Slot { fd: fd.try_clone().unwrap(), message: None, alive: true });
            let (slots_of, routes, place) = (self.slots.clone(), self.routes.clone(), slots.len() - 1);
            Box::new(HostVector { slots: slots_of, routes, place, fd }) as Box<dyn Vector>
        };
        Ok((0..count).map(make).collect())
    }
    fn line(&self, pin: Pin) -> io::Result<Box<dyn Level>> {
        self.pins.lock().unwrap().push(pin);
        let fds = Arc::new((event(), event()));
        self.lines.lock().unwrap().push(fds.clone());
        Ok(Box::new(HostLine { lines: self.lines.clone(), fds }))
    }
}

impl Vector for HostVector {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn route(&mut self, message: Option<Message>) -> io::Result<()> {
        *self.routes.lock().unwrap() += 1;
        // As KVM's are: what is no interrupt is refused, and nothing is delivered from then on.
        let refused = message.is_some_and(|message| message.address >> 20 != 0xfee);
        self.slots.lock().unwrap()[self.place].message = message.filter(|_| !refused);
        if refused { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
    fn pending(&self) -> bool {
        // Looks and puts it back.
        let full = take(&self.fd);
        full && rustix::io::write(&self.fd, &1_u64.to_ne_bytes()).is_ok()
    }
}

impl Drop for HostVector {
    fn drop(&mut self) {
        self.slots.lock().unwrap()[self.place].alive = false;
    }
}

impl Level for HostLine {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.fds.0.as_fd()
    }
    fn resample(&self) -> BorrowedFd<'_> {
        self.fds.1.as_fd()
    }
}

impl Drop for HostLine {
    fn drop(&mut self) {
        self.lines.lock().unwrap().retain(|fds| !Arc::ptr_eq(fds, &self.fds));
    }
}

/// A guest's driver of the card.
pub struct Driver<B: Backend = Card>(pub Function<B>);

impl Driver {
    pub fn new(card: &Card, host: &Host) -> Driver {
        Driver(Function::open(card.clone(), host.options()).unwrap())
    }
}

impl<B: Backend> Driver<B> {
    pub fn set16(&mut self, at: u16, value: u16) {
        self.0.write(Region::CONFIG, at.into(), Width::B2, value.into()).unwrap();
    }
    pub fn set32(&mut self, at: u16, value: u32) {
        self.0.write(Region::CONFIG, at.into(), Width::B4, value.into()).unwrap();
    }
    pub fn get16(&mut self, at: u16) -> u16 {
        self.0.read(Region::CONFIG, at.into(), Width::B2).unwrap().try_into().unwrap()
    }
    pub fn get32(&mut self, at: u16) -> u32 {
        self.0.read(Region::CONFIG, at.into(), Width::B4).unwrap().try_into().unwrap()
    }
    /// A dword of a table entry.
    pub fn entry(&mut self, vector: u16, register: u64, value: u32) {
        let at = 16 * u64::from(vector) + 4 * register;
        self.0.write(Region(0xf1), at, Width::B4, value.into()).unwrap();
    }
    pub fn pending(&mut self) -> u64 {
        self.0.read(Region(0xf2), 0, Width::B8).unwrap()
    }
}

pub fn message(address: u64, data: u32) -> Message {
    Message { address, data }
}
