//! What stands behind an endpoint: a [`Device`], and what it claims of the guest's address space.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vm_memory::MmapRegion;

use crate::file::FileRegion;
use crate::window::Window;
use crate::{Access, Gpa, Port, Region, Span, Width};

/// Why a device could not carry out an access. The guest sees all ones or a dropped write, the
/// endpoint counts it; a fault is never an error of the host's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is decoded at this offset.
    NoRegister,
    /// The register is there and not to be touched in this width or alignment.
    BadWidth,
    /// The hardware behind it failed, or is gone.
    Failed,
}

/// One function of the guest's machine, seen from the access path.
///
/// The endpoint calls it with its token held: never two calls at a time, in the order of the queue,
/// on whichever thread owns the token. So a device is plain `&mut self` code and holds no lock that
/// another thread keeps while it does I/O. It must neither block without a deadline nor panic,
/// whatever the guest wrote.
pub trait Device: Send {
    /// Reads `width` bytes at `offset` of `region`; bits beyond the width are ignored.
    ///
    /// # Errors
    /// A [`Fault`] makes the guest read all ones.
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault>;

    /// Writes the low `width` bytes of `value` at `offset` of `region`.
    ///
    /// # Errors
    /// After a [`Fault`] the write is dropped, and counted.
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault>;

    /// Signals no interrupt from now on, until [`Device::reset`] comes, and is otherwise as before. A machine that
    /// is reset asks this of all its functions before it resets their processors: what reached a local APIC after
    /// that would meet firmware that knows nothing of it. Every vCPU is parked then. It may take as long as
    /// disconnecting interrupts does. A function that only raises a line, which its reset lowers, has nothing to do.
    fn quiet(&mut self) {}

    /// Back to the state at power-on: registers, config space, latches; not host resources.
    fn reset(&mut self);

    /// What this function decodes right now. Asked after every write that changes the map, after a turn of its
    /// window, after a reset, and when the function lets the machine know that it decodes something else; never on
    /// a plain access.
    fn claims(&self) -> Claims;

    /// Whether this write may change what the function decodes, or whether it masters the bus. Asked of writes
    /// that change the map by their place, with everything before them carried out: those to configuration space
    /// change it unless the function knows better, others that [`Retire::Topology`] marks do where a register of
    /// its own leads there.
    fn changes_map(&self, access: Access) -> bool {
        access.region == Region::CONFIG
    }

    /// Called by the worker, with the token held, when the descriptor that this function gave to be
    /// watched became readable: a server's own message, or its end. Takes all there is to read, does
    /// not block when there is nothing, and after the end is not called again.
    fn attend(&mut self) {}

    /// Whether a run of bytes that go to ascending addresses from `offset` on, each written once, may
    /// reach this region as one [`Device::write_run`]. Asked with everything before
    /// the run carried out; the answer holds until something else is, and for one page: a run crosses
    /// no multiple of 4096. Never asked for configuration space or the ports of [`Region::VGA`].
    fn merges(&self, region: Region, offset: u64) -> bool {
        let _ = (region, offset);
        false
    }

    /// Writes `bytes`, those of at least two posted writes, from `offset` of `region` on: only where
    /// [`Device::merges`] said so, and within one page of the region. A run that turns out to be one
    /// write only is a [`Device::write`].
    ///
    /// # Errors
    /// As [`Device::write`]; part of the bytes may have been written.
    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let _ = (region, offset, bytes);
        Err(Fault::NoRegister)
    }

    /// The legacy VGA window, if this function owns one.
    fn window(&mut self) -> Option<&mut dyn Window> {
        None
    }

    /// The part of a file that *is* this region, if there is one: a write to the region is a write of
    /// the same bytes there and nothing else. The worker may then carry out posted writes in batches
    /// without calling [`Device::write`]. Must not change but by a reset, and be nothing for a region
    /// of which the device merges writes.
    fn file(&self, region: Region) -> Option<&FileRegion> {
        let _ = region;
        None
    }
}

/// When the vCPU that made an access may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retire {
    /// When the device has answered.
    Strict,
    /// Writes: as soon as the access has its place in the order. Reads are strict all the same.
    Posted,
    /// Writes may change the map: carried out by the topology, then strict. Reads are
    /// strict. In [`crate::window::Mode::Shadowed`] that is also what may end the shadow, and of a register that
    /// may lead to configuration space the device says which writes do ([`Device::changes_map`]).
    Topology,
}

/// What a function decodes: a plain value, computed from its registers.
///
/// Where claims overlap, an earlier one wins: of one function the earlier in the list (so overlays
/// stand before the BAR they lie on), of two functions that of the function added first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// The ranges, overlays first.
    pub ranges: Vec<Claim>,
    /// Set for a bridge: what it passes on to the functions behind it.
    pub bridge: Option<Forwards>,
}

/// A range of one address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// I/O ports.
    Ports(Span<Port>),
    /// Guest physical memory.
    Memory(Span<Gpa>),
}

/// What is found at a claimed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A region of the claiming function; `offset` is that of the range's first address.
    Region {
        /// Which region.
        region: Region,
        /// The region's offset at the range's first address.
        offset: u64,
        /// When writes retire.
        retire: Retire,
    },
    /// PCI configuration address latch, port 0xcf8 (PCI 3.0 section 3.2.2.3.2).
    ConfigAddress,
    /// PCI configuration data window, ports 0xcfc to 0xcff.
    ConfigData,
    /// Enhanced configuration access: bus, device, function and register from the offset into the
    /// range (PCI Express base specification, section 7.2.2).
    Ecam,
}

/// One range that a function decodes.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Where.
    pub range: Range,
    /// What answers a trapped access there.
    pub target: Target,
    /// Host memory the guest may use there without any trap.
    pub direct: Option<Direct>,
    /// Eventfds that take the place of writes to the range's first address.
    pub signals: Vec<Signal>,
}

impl Claim {
    /// A trapped range where `target` answers.
    pub fn of(range: Range, target: Target) -> Claim {
        Claim { range, target, direct: None, signals: Vec::new() }
    }

    /// A trapped range of `region`, `offset` being that of the range's first address; strict.
    pub fn region(range: Range, region: Region, offset: u64) -> Claim {
        Claim::of(range, Target::Region { region, offset, retire: Retire::Strict })
    }

    /// The same range with `retire` in place of strict.
    #[must_use]
    pub fn retire(mut self, retire: Retire) -> Claim {
        if let Target::Region { retire: was, .. } = &mut self.target {
            *was = retire;
        }
        self
    }

    /// The same range, also mapped straight into the guest.
    #[must_use]
    pub fn direct(mut self, direct: Direct) -> Claim {
        self.direct = Some(direct);
        self
    }

    /// The same range, where some writes become a signal. The range is the register's own: an overlay,
    /// which stands before what it lies on. Where not all of it is in the map its writes trap.
    #[must_use]
    pub fn signal(mut self, signal: Signal) -> Claim {
        self.signals.push(signal);
        self
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Claim) -> bool {
        self.range == other.range
            && self.target == other.target
            && self.direct == other.direct
            && self.signals == other.signals
    }
}

/// An eventfd that the kernel counts up in place of a write that would trap: nobody else learns of the
/// write. What traps all the same, as before a signal is set up, goes to the claim's target, which must
/// do as the eventfd's reader does.
#[derive(Clone, Debug)]
pub struct Signal {
    /// The eventfd.
    pub event: Arc<OwnedFd>,
    /// The writes it stands for: of this value in this width, or, with `None`, all that begin at the
    /// address.
    pub value: Option<(Width, u64)>,
}

impl PartialEq for Signal {
    fn eq(&self, other: &Signal) -> bool {
        Arc::ptr_eq(&self.event, &other.event) && self.value == other.value
    }
}

/// Host memory that a memory slot puts into the guest.
#[derive(Clone, Debug)]
pub struct Direct {
    /// The mapping; it lives at least as long as this value.
    pub memory: Arc<MmapRegion>,
    /// Byte offset into the mapping at the claim's first address.
    pub offset: u64,
    /// What kind of slot.
    pub kind: DirectKind,
}

/// What a direct range is to the guest, and so how its slot may change: only a BAR's while vCPUs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectKind {
    /// RAM: read and written; its slot changes only while all vCPUs are parked.
    Ram,
    /// Read-only: writes trap to the claim's target. Changes only while parked.
    Rom,
    /// A device's memory; a gap traps, so its slot may change while vCPUs run.
    Bar,
    /// RAM that stands for a device's text window ([`crate::window::Mode::Shadowed`]). Changes only
    /// while parked.
    Shadow,
}

impl PartialEq for Direct {
    fn eq(&self, other: &Direct) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.offset == other.offset && self.kind == other.kind
    }
}

/// What a PCI-to-PCI bridge forwards downstream (PCI-to-PCI Bridge Architecture 1.2, chapter 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Bus number right behind the bridge.
    pub secondary: u8,
    /// Highest bus number behind the bridge.
    pub subordinate: u8,
    /// The I/O window, if open.
    pub io: Option<Span<Port>>,
    /// The memory window, if open.
    pub memory: Option<Span<Gpa>>,
    /// The prefetchable memory window, if open.
    pub prefetchable: Option<Span<Gpa>>,
    /// VGA Enable: the legacy VGA ranges go downstream too. Needs the bridge's own I/O and memory
    /// decode, so `vga_io` and `vga_memory` tell them apart.
    pub vga_io: bool,
    /// See `vga_io`.
    pub vga_memory: bool,
    /// Secondary Bus Reset is asserted: what is behind the bridge is held in reset.
    pub in_reset: bool,
}
