//! Changes of the map: the writes after which an address leads elsewhere.
//!
//! A vCPU that makes such a write runs it here, before it takes any token, under the one topology
//! mutex of the [`World`]. The order keeps every stale way closed: publish the map without the
//! function's ranges, remove its slots, drain its queue, carry out the write, ask the function what
//! it claims now, publish that, add the slots. VFIO takes a BAR's mapping away when memory decode
//! goes off, so removal comes before the device sees the write.
//!
//! The other vCPUs are parked while something is out of the map, or may decode and is not in it yet, so that
//! none of their accesses is lost in a gap. RAM and ROM change differently: nobody may run while they do, and
//! the map is exchanged in one step.
//!
//! Three things change the map besides: a reset ([`Topology::after_reset`]), a function that says that it
//! decodes something else (`ask_again`), and a turn of the legacy window (`turn.rs` beside [`map`]). Before
//! each what KVM has collected for the window is brought out, or, before a reset, dropped. Where several functions
//! have legacy VGA, `handover.rs` finds out which of them the guest leads it to.

mod handover;
pub mod map;
mod turn;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use trapline_devices::host;
use trapline_io::access::{Access, Op};
use trapline_io::completion::Caller;
use trapline_io::device::{Claims, Device, DirectKind};
use trapline_io::endpoint::Endpoint;
use trapline_io::publish::Published;
use trapline_io::space::{AddressSpace, DwordSet, EndpointId};
use trapline_io::{Gpa, Region, Width};
use trapline_vcpu::ioeventfd::{self, Ioeventfds};
use trapline_vcpu::slots::{self, Slot, SlotError, Slots};
use trapline_vcpu::world::{NotParked, World, WorldGuard};
use trapline_vcpu::{Vm, ZoneError};

use crate::dma::{Gate, Peers};
use crate::events::{Event, Events};
use crate::parts::PartId;
use handover::Led;
use map::Node;
use turn::Collector;
pub(crate) use turn::{Collection, Turned, window_of};

/// Where the register is that switches decode and bus mastering (PCI 3.0 section 6.2.2).
const COMMAND: u64 = 4;

/// The map of one machine, and the only one who changes it.
pub struct Topology {
    nodes: Vec<Node>,
    endpoints: Arc<[Arc<Endpoint>]>,
    /// What must be open before a function may master the bus, by its place.
    gates: Vec<Option<Arc<Gate>>>,
    published: Published,
    world: Arc<World>,
    /// Touched only by who holds the world's lock; the mutex is never waited for.
    state: Mutex<State>,
    /// The functions whose legacy windows can be turned.
    windows: OnceLock<Box<[PartId]>>,
    /// For which of them KVM collects writes. Changed while all vCPUs are parked.
    collector: Collector,
    /// Another function answers where KVM collects.
    contested: AtomicBool,
    /// BARs' slots are gone that are to come back.
    distrusts: AtomicBool,
    events: Events,
}

/// What of the map KVM answers without an exit.
#[derive(Debug)]
struct Untrapped {
    slots: Slots,
    eventfds: Ioeventfds,
}

struct State {
    /// What each function claimed when it was last asked.
    claims: Vec<Claims>,
    untrapped: Untrapped,
    /// BARs of functions of the host for the DMA of others, if there are several.
    peers: Option<Peers>,
    /// What KVM may collect, for the functions whose legacy windows can be turned.
    collections: Vec<Collection>,
    /// Where legacy VGA leads.
    led: Led,
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topology").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Topology {
    /// The map of functions as they are now; puts it into `published` and makes its slots. `gates` are
    /// kept before bus mastering, by the place of the function.
    ///
    /// # Errors
    /// KVM refuses a slot.
    pub fn new(
        nodes: Vec<Node>,
        gates: Vec<Option<Arc<Gate>>>,
        endpoints: Arc<[Arc<Endpoint>]>,
        published: Published,
        world: Arc<World>,
        vm: &Arc<Vm>,
        events: Events,
    ) -> Result<Topology, SlotError> {
        let slots = Slots::new(Arc::clone(vm));
        let untrapped = Untrapped { slots, eventfds: Ioeventfds::new(Arc::clone(vm)) };
        let claims =
            endpoints.iter().map(|endpoint| endpoint.with_device(|device| device.claims())).collect();
        let topology = Topology {
            nodes,
            endpoints,
            gates,
            published,
            world,
            state: Mutex::new(State {
                claims,
                untrapped,
                peers: None,
                collections: Vec::new(),
                led: Led::default(),
            }),
            windows: OnceLock::new(),
            collector: Collector::default(),
            contested: AtomicBool::new(false),
            distrusts: AtomicBool::new(false),
            events,
        };
        topology.show(&mut topology.state.lock(), |_| false)?;
        Ok(topology)
    }

    /// Where the current table is found.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// From now on what of BARs is in the guest is in reach of other functions' DMA too. Before the
    /// vCPUs run.
    pub fn share_bars(&self, mut peers: Peers) {
        let mut state = self.state.lock();
        peers.follow(&slots::wanted(&self.space(&state, |_| false)));
        state.peers = Some(peers);
    }

    /// The memory behind a slot is not there, as a vCPU finds: the BARs' slots go, or the one at `at`, so
    /// that the access traps and the device itself answers. They come back with the next write to configuration
    /// space that is one of the map's, whether it changes anything or not.
    pub fn mistrust(&self, vcpu: usize, at: Option<Gpa>) {
        let Ok(guard) = self.world.lock_on_vcpu(vcpu) else { return };
        let mut state = self.state.lock();
        let good = |slot: &&Slot| {
            slot.kind != DirectKind::Bar
                || at.is_some_and(|at| at < slot.span.first() || slot.span.last() < at)
        };
        let keep: Vec<Slot> = state.untrapped.slots.iter().filter(good).cloned().collect();
        let lost = state.untrapped.slots.iter().count() - keep.len();
        if let Some(peers) = &mut state.peers {
            peers.remove_unwanted(&keep);
        }
        if let Err(error) = state.untrapped.slots.remove_unwanted(&keep) {
            tracing::error!(%error, "a device's memory stays in the guest");
        }
        self.distrusts.store(true, Relaxed);
        drop(state);
        drop(guard);
        tracing::debug!(vcpu, ?at, lost, "a device took its memory away; it is trapped for now");
    }

    /// Takes devices' memory out of the map, before they are reset: they decode nothing then. What KVM has
    /// collected is dropped, like the rest of what the guest did. The caller has parked every vCPU.
    ///
    /// # Errors
    /// KVM refuses a slot or a zone.
    pub(crate) fn before_reset(&self) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        let devices: Vec<bool> = state.claims.iter().map(|claims| has(claims, DirectKind::Bar)).collect();
        let is_device = |id| devices.get(id).is_some_and(|device| *device) || self.has_window(id);
        self.show(&mut state, is_device)?;
        self.drop_collected(&mut state)
    }

    /// Asks every function again after all were reset. The caller has parked every vCPU.
    ///
    /// # Errors
    /// KVM refuses a slot.
    pub fn after_reset(&self) -> Result<(), SlotError> {
        let mut state = self.state.lock();
        for id in 0..self.nodes.len() {
            self.ask(&mut state, id);
        }
        self.show(&mut state, |_| false)
    }

    /// Asks every function again, since one of them said that it claims something else, and lets the map
    /// follow. Not on a vCPU's thread, and with no token held.
    ///
    /// # Errors
    /// The vCPUs cannot be parked, or KVM refuses a slot.
    pub(crate) fn ask_again(&self) -> Result<(), Trouble> {
        let mut guard = self.world.lock();
        let mut state = self.state.lock();
        let before = state.claims.clone();
        for id in 0..self.nodes.len() {
            self.ask(&mut state, id);
        }
        if before == state.claims {
            return Ok(());
        }
        let wanted = slots::wanted(&self.space(&state, |_| false));
        let _parked = match state.untrapped.slots.changes_need_park(&wanted) {
            true => Some(guard.park()?),
            false => None,
        };
        self.drain_collector();
        Ok(self.show(&mut state, |_| false)?)
    }

    /// Publishes the map and brings in line with it what the guest and other functions reach, as if what `hidden`
    /// names decoded nothing.
    fn show(&self, state: &mut State, hidden: impl Fn(PartId) -> bool) -> Result<(), SlotError> {
        let wanted = self.show_guest(state, hidden)?;
        if let Some(peers) = &mut state.peers {
            peers.follow(&wanted);
        }
        Ok(())
    }

    /// The same for the guest alone; gives the slots that it is to have.
    fn show_guest(&self, state: &mut State, hidden: impl Fn(PartId) -> bool) -> Result<Vec<Slot>, SlotError> {
        let claims = shown(state, hidden);
        let space = map::address_space(&self.nodes, &claims);
        let wanted = slots::wanted(&space);
        let eventfds = ioeventfd::wanted(&space);
        self.look_for_rivals(state, &space);
        self.published.publish(space);
        self.lead(state, &map::vga_decoders(&self.nodes, &claims));
        state.untrapped.eventfds.remove_unwanted(&eventfds);
        state.untrapped.slots.remove_unwanted(&wanted)?;
        state.untrapped.slots.add_missing(&wanted)?;
        state.untrapped.eventfds.add_missing(&eventfds);
        self.distrusts.store(false, Relaxed);
        Ok(wanted)
    }

    fn space(&self, state: &State, hidden: impl Fn(PartId) -> bool) -> AddressSpace {
        map::address_space(&self.nodes, &shown(state, hidden))
    }

    fn ask(&self, state: &mut State, id: PartId) {
        let (Some(endpoint), Some(claims)) = (self.endpoints.get(id), state.claims.get_mut(id)) else {
            return;
        };
        *claims = endpoint.with_device(|device| device.claims());
    }

    /// Carries out a change by a function whose ranges are a device's. While what it decodes is out of
    /// the map nobody else runs: most such writes change nothing (bus mastering, a status bit), and
    /// another vCPU's accesses to the function must not fall into a gap that no bus would have. Nor does anybody
    /// run between a write that lets it decode and the map that has it: its registers tell of it at once, to
    /// whoever reads them.
    ///
    /// Other functions' DMA follows after the write, and only where something has moved: to map a large BAR
    /// anew takes as long as a second. The kernel does not take away what the IOMMU has of a BAR when memory
    /// decode goes off, as it does what this process has; nor does it come to lead elsewhere, since the BARs
    /// that the guest moves are not the device's own, which stay where the host has put them. So between the
    /// write and the removal DMA to a BAR that is switched off finds nobody who answers, as on any bus. The same
    /// goes for a function that its own registers reset or put to sleep.
    fn change_ranges(
        &self,
        state: &mut State,
        guard: &mut WorldGuard<'_>,
        (root, access): (PartId, Access),
        write: impl FnOnce(),
    ) -> Result<(), Trouble> {
        let behind = |id| map::is_behind(&self.nodes, id, root);
        // It may decode nothing just now, and be shadowed all the same.
        let collects = self.collector.get().is_some_and(behind);
        let shown =
            collects || (0..self.nodes.len()).any(|id| behind(id) && !state.claims[id].ranges.is_empty());
        if !shown && self.stays_off(state, root, access) {
            write();
            return Ok(());
        }
        let _parked = guard.park()?;
        self.drain_collector();
        if collects {
            self.end_shadow(state, "the map changes")?;
        }
        if shown {
            self.show_guest(state, behind)?;
            self.drain(behind);
        }
        write();
        self.follow_reset(state, root);
        let before = state.claims.get(root).cloned();
        self.ask(state, root);
        let unchanged = !shown && before.as_ref() == state.claims.get(root);
        match unchanged && !self.distrusts.load(Relaxed) {
            true => Ok(()),
            false => Ok(self.show(state, |_| false)?),
        }
    }

    /// Whether a function that decodes nothing does not after `access` either: one to a base address while
    /// COMMAND has decode off, as a guest sizes and places them. A bridge has bus numbers and windows there.
    fn stays_off(&self, state: &State, root: PartId, access: Access) -> bool {
        const BASES: DwordSet = DwordSet::of(&[0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]);
        let command = |device: &mut dyn Device| device.read(Region::CONFIG, COMMAND, Width::B2);
        let off = |endpoint: &Arc<Endpoint>| endpoint.with_device(command).is_ok_and(|bits| bits & 3 == 0);
        let bridge = state.claims.get(root).is_none_or(|claims| claims.bridge.is_some());
        let to_base = access.region == Region::CONFIG && BASES.contains(access.offset);
        to_base && !bridge && self.endpoints.get(root).is_some_and(off)
    }

    /// Carries out a change by the function that owns RAM: nobody else runs meanwhile.
    fn change_memory(
        &self,
        state: &mut State,
        guard: &mut WorldGuard<'_>,
        root: PartId,
        write: impl FnOnce(),
    ) -> Result<(), Trouble> {
        let _parked = guard.park()?;
        // Whatever is queued was addressed through the old map.
        self.drain(|_| true);
        self.end_shadow(state, "the map changes")?;
        write();
        self.ask(state, root);
        Ok(self.show(state, |_| false)?)
    }

    fn fail(&self, target: &Endpoint, trouble: &Trouble) {
        let text = format!("the address map cannot follow {}: {trouble}", target.name());
        self.events.push(Event::Guest(host::Event::Failed(text)));
    }

    fn drain(&self, which: impl Fn(PartId) -> bool) {
        for (_, endpoint) in self.endpoints.iter().enumerate().filter(|(id, _)| which(*id)) {
            endpoint.drain();
        }
    }

    /// Secondary Bus Reset at the bridge `root` resets all that is behind it.
    fn follow_reset(&self, state: &mut State, root: PartId) {
        let asserted =
            |claims: Option<&Claims>| claims.and_then(|claims| claims.bridge).is_some_and(|b| b.in_reset);
        let was = asserted(state.claims.get(root));
        let is = self
            .endpoints
            .get(root)
            .is_some_and(|it| asserted(Some(&it.with_device(|device| device.claims()))));
        if was || !is {
            return;
        }
        // The whole device may leave its bus for a while, where nobody's DMA is to look for it. The guest's slots are
        // gone already.
        let wanted = slots::wanted(&self.space(state, |id| map::is_behind(&self.nodes, id, root)));
        if let Some(peers) = &mut state.peers {
            peers.remove_unwanted(&wanted);
        }
        for id in (0..self.nodes.len()).filter(|id| *id != root && map::is_behind(&self.nodes, *id, root)) {
            if let Some(endpoint) = self.endpoints.get(id) {
                endpoint.with_device(|device| device.reset());
            }
            self.ask(state, id);
        }
    }
}

/// What the functions claim, without the ranges of what is hidden.
fn shown(state: &State, hidden: impl Fn(PartId) -> bool) -> Vec<Option<Claims>> {
    let shown = |(id, claims): (PartId, &Claims)| match hidden(id) {
        true => Some(Claims { ranges: Vec::new(), bridge: claims.bridge }),
        false => Some(claims.clone()),
    };
    state.claims.iter().enumerate().map(shown).collect()
}

/// Whether memory of that kind is claimed.
fn has(claims: &Claims, kind: DirectKind) -> bool {
    claims.ranges.iter().filter_map(|claim| claim.direct.as_ref()).any(|direct| direct.kind == kind)
}

/// Whether `access` sets Bus Master Enable, bit 2 of COMMAND.
fn masters_bus(access: Access) -> bool {
    let Op::Write(value) = access.op else { return false };
    let lane = COMMAND.checked_sub(access.offset).filter(|lane| *lane < access.width.bytes() as u64);
    access.region == Region::CONFIG && lane.is_some_and(|lane| value >> (8 * lane) & 1 << 2 != 0)
}

/// Why a change of the map could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Slots(#[from] SlotError),
    #[error(transparent)]
    Zones(#[from] ZoneError),
    #[error(transparent)]
    Park(#[from] NotParked),
}

impl trapline_io::path::Topology for Topology {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        let root = usize::from(endpoint.0);
        let Some(target) = self.endpoints.get(root) else { return };
        // Most of what may lead to configuration space, or end a shadow, does neither; nor does the map change
        // with most of what drivers write to configuration space itself, while they run.
        let restores = access.region == Region::CONFIG && self.distrusts.load(Relaxed);
        if !restores && target.call_admitted(caller, access) {
            return;
        }
        if access.region != Region::CONFIG && !target.with_device(|device| device.changes_map(access)) {
            return self.guarded(caller, root, target, access);
        }
        self.change_map(caller, root, target, access);
    }
}

impl Topology {
    /// Carries out a write to configuration space, or one that leads there.
    fn change_map(&self, caller: &mut Caller, root: PartId, target: &Endpoint, access: Access) {
        // What it will be of one that leads there is known when it is carried out.
        let gated = access.region != Region::CONFIG || masters_bus(access);
        let gate = self.gates.get(root).and_then(Option::as_ref).filter(|_| gated);
        let ready = || gate.is_none_or(|gate| gate.is_open());
        // While a reset or the end is under way the write is void, like the rest of what the vCPU does.
        let Ok(mut guard) = self.world.lock_on_vcpu_when(usize::from(caller.id().0), ready) else { return };
        let mut state = self.state.lock();
        // A ROM of a function's is no reason to leave its BARs in the map.
        let owns_memory = state.claims.get(root).is_some_and(|claims| has(claims, DirectKind::Ram));
        let write = || {
            target.call(caller, access);
        };
        let done = match owns_memory {
            true => self.change_memory(&mut state, &mut guard, root, write),
            false => self.change_ranges(&mut state, &mut guard, (root, access), write),
        };
        if let Err(trouble) = done {
            self.fail(target, &trouble);
        }
        drop((state, guard));
        self.settle_zones(usize::from(caller.id().0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_mastering_is_seen_in_any_width() {
        let write = |offset, width, value| masters_bus(Access::write(Region::CONFIG, offset, width, value));
        assert!(write(4, Width::B1, 4) && write(4, Width::B2, 7) && write(4, Width::B4, 0x10_0006));
        assert!(write(0, Width::B8, 4 << 32) && write(2, Width::B4, 4 << 16));
        assert!(!write(4, Width::B2, 3) && !write(5, Width::B1, 4) && !write(0, Width::B4, 4));
        assert!(!write(6, Width::B2, 4) && !write(8, Width::B4, 4));
        assert!(!masters_bus(Access::read(Region::CONFIG, 4, Width::B2)));
        assert!(!masters_bus(Access::write(Region::bar(0), 4, Width::B1, 4)));
    }
}
