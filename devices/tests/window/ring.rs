//! The kernel's ring as far as a test needs it, whole or broken.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use trapline_io::feed::Collected;
use trapline_io::{Address, Trap};

/// Writes that KVM's ring holds.
const PLACES: usize = 169;

/// What is wrong with the way in which the ring is emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// Of two writes the newer one comes first.
    NewestFirst,
    /// Each fourth look finds nothing, so that whoever looked goes first.
    Overlooked,
    /// Each eighth write is gone.
    Leaking,
}

/// The ring. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Ring {
    writes: Arc<Mutex<VecDeque<Trap>>>,
    looks: Arc<Mutex<usize>>,
    flaw: Flaw,
    places: usize,
}

impl Ring {
    /// An empty ring.
    pub fn new(flaw: Flaw) -> Ring {
        Ring { writes: Arc::default(), looks: Arc::default(), flaw, places: PLACES }
    }

    /// The same with room for fewer writes.
    pub fn with_places(mut self, places: usize) -> Ring {
        self.places = places;
        self
    }

    /// Takes a write if there is room and it lies in one of these zones.
    pub fn collect(&self, trap: Trap) -> bool {
        let mut writes = self.writes.lock().unwrap();
        let room = writes.len() < self.places && in_zone(trap);
        if room {
            writes.push_back(trap);
        }
        room
    }

    /// Whether something is there, seen from outside of the access path.
    pub fn holds_writes(&self) -> bool {
        !self.writes.lock().unwrap().is_empty()
    }

    fn count(&self) -> usize {
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        *looks
    }
}

/// What a machine has collected: the window, and the ports whose writes may be late.
fn in_zone(trap: Trap) -> bool {
    const PORTS: [(u64, u64); 5] =
        [(0x3b4, 0x3b5), (0x3c0, 0x3c0), (0x3c6, 0x3c6), (0x3c8, 0x3c9), (0x3d4, 0x3d5)];
    let last = |first: u64| first + trap.width.bytes() as u64 - 1;
    match trap.at {
        Address::Port(port) => {
            let first = u64::from(port.0);
            PORTS.iter().any(|zone| zone.0 <= first && last(first) <= zone.1)
        }
        Address::Gpa(gpa) => 0xa_0000 <= gpa.0 && last(gpa.0) <= 0xb_ffff,
    }
}

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        let overlooked = self.flaw == Flaw::Overlooked && self.count().is_multiple_of(4);
        overlooked || !self.holds_writes()
    }

    fn pop(&self) -> Option<Trap> {
        let mut writes = self.writes.lock().unwrap();
        match self.flaw {
            Flaw::NewestFirst if writes.len() > 1 => writes.remove(1),
            Flaw::Leaking if self.count().is_multiple_of(8) => {
                writes.pop_front();
                writes.pop_front()
            }
            _ => writes.pop_front(),
        }
    }
}
