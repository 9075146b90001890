//! The interrupt wires of the chipset: INTx pins of PCI functions, eight PIRQs, the inputs of the
//! interrupt controllers (ICH9 datasheet, PIRQ[n]_ROUT and Device Interrupt Route registers).
//!
//! A PIRQ always reaches its own I/O APIC input, 16 to 23, and, where its routing register says so,
//! an ISA interrupt as well. All wires are shared: an input is high while any line on it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::host::{Gsis, IrqLine};
use crate::pci::Pin;

/// PIRQA to PIRQH.
const PIRQS: usize = 8;
/// Device numbers of the root bus.
const SLOTS: usize = 32;
/// The I/O APIC input of PIRQA.
const FIRST_GSI: u32 = 16;
/// A routing register after reset: to no ISA interrupt.
const UNROUTED: u8 = 0x80;
/// ISA interrupts that a PIRQ can be routed to, as bits.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;
/// A Device Interrupt Route register after reset: INTA# to PIRQA and so on.
pub(super) const DEFAULT_ROUTE: u16 = 0x3210;

/// The chipset's interrupt wires. Clones share them; the LPC bridge's registers rule them.
///
/// Setting a line may be done on any thread, and takes a lock for as long as the host takes to set
/// an interrupt level.
#[derive(Clone)]
pub struct Pirqs(Arc<Mutex<Wires>>);

/// Which inputs of the interrupt controllers a pin reaches at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The pin of the I/O APIC, 16 to 23.
    pub io_apic: u32,
    /// The ISA interrupt, if the PIRQ is routed to one.
    pub isa: Option<u8>,
}

/// Is told which inputs a pin reaches.
type Listener = Box<dyn FnMut(Inputs) + Send>;

/// Someone who is told where a pin leads.
struct Follower {
    at: (usize, usize),
    told: Inputs,
    listener: Listener,
}

struct Wires {
    gsis: Arc<dyn Gsis>,
    /// Who is told where a pin leads, by a number that is never used again.
    followers: BTreeMap<u64, Follower>,
    next_follower: u64,
    /// How many lines pull each pin of each slot of the root bus.
    pulls: [[u32; 4]; SLOTS],
    /// How many lines pull each PIRQ.
    pirqs: [u32; PIRQS],
    /// Which PIRQ each pin of each slot pulls.
    slots: [[u8; 4]; SLOTS],
    /// The eight routing registers.
    routes: [u8; PIRQS],
    /// The system control interrupt: its input and its level.
    sci: (u32, bool),
    /// The levels as the host has them, a bit for each input.
    levels: u32,
}

impl std::fmt::Debug for Pirqs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wires = self.0.lock();
        f.debug_struct("Pirqs").field("routes", &wires.routes).field("levels", &wires.levels).finish()
    }
}

impl Pirqs {
    /// All wires low, routing as after reset.
    pub fn new(gsis: Arc<dyn Gsis>) -> Pirqs {
        Pirqs(Arc::new(Mutex::new(Wires {
            gsis,
            followers: BTreeMap::new(),
            next_follower: 0,
            pulls: [[0; 4]; SLOTS],
            pirqs: [0; PIRQS],
            slots: power_on_slots(),
            routes: [UNROUTED; PIRQS],
            sci: (9, false),
            levels: 0,
        })))
    }

    /// A line of its own from `pin` of device `slot` (0 to 31) of the root bus. It is released when
    /// it is dropped.
    pub fn line(&self, slot: u8, pin: Pin) -> Box<dyn IrqLine> {
        self.line_behind(&[slot], pin)
    }

    /// A line of a function behind bridges. `path` holds the device numbers from the function's own
    /// up to that of the bridge on the root bus; every bridge turns the pins by the number of the
    /// device below it.
    pub fn line_behind(&self, path: &[u8], pin: Pin) -> Box<dyn IrqLine> {
        Box::new(Line { pirqs: self.clone(), at: at_root(path, pin), level: AtomicBool::new(false) })
    }

    /// Tells `listener` which inputs `pin` of the function at `path` (see [`Pirqs::line_behind`])
    /// reaches: at once, and whenever the chipset's registers change that, until the result is dropped.
    /// It is called with the wires' lock held, so it must not touch any of them.
    pub fn follow(&self, path: &[u8], pin: Pin, mut listener: Listener) -> Following {
        let at = at_root(path, pin);
        let mut wires = self.0.lock();
        let told = wires.inputs(at);
        listener(told);
        let id = wires.next_follower;
        wires.next_follower += 1;
        wires.followers.insert(id, Follower { at, told, listener });
        Following { pirqs: self.clone(), id }
    }

    /// The PIRQ, 0 for A to 7 for H, that `pin` of device `slot` of the root bus pulls after reset:
    /// what firmware tables tell an operating system, which does not touch the chipset's routing.
    pub fn at_power_on(slot: u8, pin: Pin) -> u8 {
        power_on_slots()[usize::from(slot) % SLOTS][usize::from(pin.index())]
    }

    /// The I/O APIC input that a PIRQ, 0 for A to 7 for H, always reaches.
    pub fn gsi(pirq: u8) -> u32 {
        FIRST_GSI + u32::from(pirq & 7)
    }

    /// Takes the eight routing registers, PIRQA first.
    pub(super) fn route(&self, routes: [u8; PIRQS]) {
        let mut wires = self.0.lock();
        wires.routes = routes;
        wires.settle();
        wires.tell();
    }

    /// Takes the Device Interrupt Route register of a slot: three bits for each pin, four apart.
    pub(super) fn route_slot(&self, slot: u8, register: u16) {
        let mut wires = self.0.lock();
        let Some(pins) = wires.slots.get_mut(usize::from(slot)) else { return };
        for (pin, shift) in pins.iter_mut().zip([0, 4, 8, 12]) {
            *pin = (register >> shift & 7) as u8;
        }
        wires.count();
        wires.settle();
        wires.tell();
    }

    /// Sets the level of the system control interrupt, and which input it reaches.
    pub(super) fn set_sci(&self, gsi: u32, level: bool) {
        let mut wires = self.0.lock();
        wires.sci = (gsi, level);
        wires.settle();
    }
}

/// Slots 25 to 29 and 31 have routing registers; the others are wired: 30 straight, the rest turned
/// by their number, all to PIRQE to PIRQH.
fn power_on_slots() -> [[u8; 4]; SLOTS] {
    let mut slots = [[0; 4]; SLOTS];
    for (slot, pins) in (0_u8..).zip(&mut slots) {
        for (pin, pirq) in (0_u8..).zip(pins) {
            *pirq = match slot {
                25..=29 | 31 => pin,
                30 => 4 + pin,
                _ => 4 + (slot + pin) % 4,
            };
        }
    }
    slots
}

/// The slot and pin of the root bus by which a function's pin arrives there.
fn at_root(path: &[u8], pin: Pin) -> (usize, usize) {
    let (slot, pin) = match path {
        [below @ .., slot] => (*slot, below.iter().fold(pin, |pin, device| pin.swizzle(*device))),
        [] => (0, pin),
    };
    (usize::from(slot) % SLOTS, usize::from(pin.index()))
}

impl Wires {
    /// The inputs that a pin reaches now.
    fn inputs(&self, (slot, pin): (usize, usize)) -> Inputs {
        let pirq = self.slots[slot][pin];
        Inputs { io_apic: Pirqs::gsi(pirq), isa: isa(self.routes[usize::from(pirq)]) }
    }

    /// Tells those whose pin leads elsewhere now.
    fn tell(&mut self) {
        let mut followers = std::mem::take(&mut self.followers);
        for follower in followers.values_mut() {
            let inputs = self.inputs(follower.at);
            if std::mem::replace(&mut follower.told, inputs) != inputs {
                (follower.listener)(inputs);
            }
        }
        self.followers = followers;
    }

    fn pull(&mut self, (slot, pin): (usize, usize), level: bool) {
        let pirq = usize::from(self.slots[slot][pin]);
        for count in [&mut self.pulls[slot][pin], &mut self.pirqs[pirq]] {
            *count = if level { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
        self.settle();
    }

    /// Counts the pulls of each PIRQ anew.
    fn count(&mut self) {
        self.pirqs = [0; PIRQS];
        for (pulls, pins) in self.pulls.iter().zip(&self.slots) {
            for (pulls, pirq) in pulls.iter().zip(pins) {
                self.pirqs[usize::from(*pirq)] += pulls;
            }
        }
    }

    /// Tells the host the levels that are not what it has.
    fn settle(&mut self) {
        let mut levels = if self.sci.1 { 1 << (self.sci.0 & 31) } else { 0 };
        for ((gsi, pulls), route) in (FIRST_GSI..).zip(self.pirqs).zip(self.routes) {
            if pulls > 0 {
                levels |= 1_u32 << gsi | isa(route).map_or(0, |irq| 1 << irq);
            }
        }
        let mut changed = levels ^ self.levels;
        self.levels = levels;
        while changed != 0 {
            let gsi = changed.trailing_zeros();
            changed &= changed - 1;
            self.gsis.set(gsi, levels >> gsi & 1 == 1);
        }
    }
}

/// The ISA interrupt that a routing register leads to.
fn isa(route: u8) -> Option<u8> {
    let irq = route & 0xf;
    (route & UNROUTED == 0 && ROUTABLE >> irq & 1 == 1).then_some(irq)
}

/// As long as this lives, a listener is told where its pin leads.
#[must_use]
pub struct Following {
    pirqs: Pirqs,
    id: u64,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let gone = self.pirqs.0.lock().followers.remove(&self.id);
        // What the listener holds may have a lock of its own.
        drop(gone);
    }
}

struct Line {
    pirqs: Pirqs,
    at: (usize, usize),
    level: AtomicBool,
}

impl IrqLine for Line {
    fn set(&self, level: bool) {
        // A device may say the same again and again; only the change costs the lock.
        if self.level.load(Relaxed) == level {
            return;
        }
        let mut wires = self.pirqs.0.lock();
        if self.level.swap(level, Relaxed) != level {
            wires.pull(self.at, level);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests;
