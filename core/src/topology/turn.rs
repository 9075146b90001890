//! Turning the legacy window of a function from one mode into another.
//!
//! The function wishes ([`Window::tick`]), the clock's thread turns ([`Topology::turn`]), and the map
//! follows, since a mode is what the function claims in it. All vCPUs are parked meanwhile, but while
//! zones go, which takes milliseconds ([`Zones::unregister`]). A vCPU turns too, but only ever from [`Mode::Shadowed`] to [`Mode::Coalesced`]: before a write
//! that may change what an access to the window means. The zones stay as they are then: to unregister
//! them takes milliseconds, which no vCPU is to wait, and where the map leads a write that KVM has
//! collected is asked when it is taken out of the ring.
//!
//! So whoever changes the map first drains the function that KVM collects for, with the others parked: what was
//! written while the old map was right goes where the old map leads.
//!
//! Several functions may have a window, and KVM collects for one of them at a time, to which the map leads: the
//! *collector*. Where the map comes to lead elsewhere its zones go first, and only then does the vCPU
//! go on that made it so; the other function gets its own zones when it has traffic.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use trapline_io::access::Access;
use trapline_io::addr::{Position, Span};
use trapline_io::completion::Caller;
use trapline_io::device::{DirectKind, Range};
use trapline_io::endpoint::Endpoint;
use trapline_io::feed::Feed;
use trapline_io::space::{AddressSpace, EndpointId};
use trapline_io::window::{Mode, Window};
use trapline_vcpu::world::Parked;
use trapline_vcpu::{WorldGuard, Zones};

use super::{State, Topology, Trouble};
use crate::parts::PartId;
use crate::trace::Notes;

/// What the machine has for a function with a legacy window.
pub(crate) struct Collection {
    /// The function, by its place in the list and on the access path.
    pub(crate) function: PartId,
    pub(crate) id: EndpointId,
    /// From the ring to its queue.
    pub(crate) feed: Arc<Feed>,
    /// What KVM is to collect.
    pub(crate) zones: Zones,
    /// The same, to be compared with what others claim.
    pub(crate) ranges: Vec<Range>,
    /// The most that KVM has not refused.
    pub(crate) most: Mode,
    /// Where turns are noted.
    pub(crate) trace: Option<Notes>,
}

impl Collection {
    /// Whether another function answers in one of the zones. RAM does not count: a slot hides a zone.
    fn is_contested(&self, space: &AddressSpace) -> bool {
        space.ranges().any(|(range, endpoint, _, direct)| {
            let ram = direct.is_some_and(|direct| direct.kind == DirectKind::Ram);
            endpoint != self.id && !ram && self.ranges.iter().any(|zone| overlap(*zone, range))
        })
    }
}

/// For which function KVM collects writes, if for any.
#[derive(Debug)]
pub(super) struct Collector(AtomicUsize);

impl Collector {
    const NOBODY: PartId = PartId::MAX;

    /// The function.
    pub(super) fn get(&self) -> Option<PartId> {
        Some(self.0.load(Acquire)).filter(|id| *id != Collector::NOBODY)
    }

    fn set(&self, function: Option<PartId>) {
        self.0.store(function.unwrap_or(Collector::NOBODY), Release);
    }
}

impl Default for Collector {
    fn default() -> Collector {
        Collector(AtomicUsize::new(Collector::NOBODY))
    }
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// KVM has nothing against it. The function may have thought better of it.
    AsWished,
    /// KVM refused it, or another function is in the way.
    Slower,
}

impl Topology {
    /// From now on the legacy windows of these functions may be turned. Once, before the vCPUs run.
    pub(crate) fn collect(&self, with: Vec<Collection>) {
        // Others would be another machine's.
        let _ = self.windows.set(with.iter().map(|with| with.function).collect());
        self.state.lock().collections = with;
    }

    /// Whether KVM collects writes for the function, so that somebody has to look after them.
    pub(crate) fn is_collecting(&self, function: PartId) -> bool {
        self.collector.get() == Some(function)
    }

    /// Whether KVM collects though it must not: a range of the zones is another function's.
    pub(crate) fn is_contested(&self) -> bool {
        self.contested.load(Acquire)
    }

    /// Turns the legacy window of a function: what KVM or the device refuses stays slower. Parks all vCPUs.
    /// Not on a vCPU's thread, and with no token held.
    ///
    /// # Errors
    /// The vCPUs cannot be parked: nothing has changed. Or the map cannot follow.
    pub(crate) fn turn(&self, function: PartId, wish: Mode) -> Result<Turned, Trouble> {
        let mut guard = self.world.lock();
        let mut state = self.state.lock();
        let Some(endpoint) = self.endpoints.get(function) else { return Ok(Turned::AsWished) };
        let to = self.possible(&state, function, wish);
        if !to.collects()
            && let Some(with) = collection(&mut state, function)
        {
            // While the guest runs, for it takes long; the ring is looked at as before.
            with.zones.unregister()?;
        }
        let parked = guard.park()?;
        // What was collected goes where the map as it is leads.
        endpoint.drain();
        if !to.collects() {
            self.stop_collecting(&mut state, function);
        }
        let mode = self.set_mode(&mut state, function, to, "as wished")?;
        if mode.collects() {
            // Also where it collects: of a turn that could not park, the zones are gone.
            self.start_collecting(&mut state, function, &parked)?;
        }
        Ok(if self.possible(&state, function, wish) == wish { Turned::AsWished } else { Turned::Slower })
    }

    /// Carries out a write that ends the shadow.
    pub(super) fn guarded(&self, caller: &mut Caller, function: PartId, target: &Endpoint, access: Access) {
        // While a reset or the end is under way the write is void, like the rest of what the vCPU does.
        let Ok(mut guard) = self.world.lock_on_vcpu(usize::from(caller.id().0)) else { return };
        let mut state = self.state.lock();
        match self.end_shadow_parking(&mut state, function, &mut guard) {
            Ok(()) if target.call_admitted(caller, access) => {}
            // Another vCPU has written the index of the register meanwhile.
            Ok(()) => {
                drop((state, guard));
                self.change_map(caller, function, target, access);
            }
            Err(trouble) => self.fail(target, &trouble),
        }
    }

    fn end_shadow_parking(
        &self,
        state: &mut State,
        function: PartId,
        guard: &mut WorldGuard<'_>,
    ) -> Result<(), Trouble> {
        let _parked = guard.park()?;
        self.end_shadow_of(state, function, "a write may end plain text")
    }

    /// Before a change of the map: what was collected goes where the map as it is leads.
    pub(super) fn drain_collector(&self) {
        if let Some(endpoint) = self.collector.get().and_then(|function| self.endpoints.get(function)) {
            endpoint.drain();
        }
    }

    /// Ends the shadow, if there is one: it is the collector's. The caller has parked the other vCPUs.
    pub(super) fn end_shadow(&self, state: &mut State, why: &'static str) -> Result<(), Trouble> {
        self.collector.get().map_or(Ok(()), |function| self.end_shadow_of(state, function, why))
    }

    fn end_shadow_of(&self, state: &mut State, function: PartId, why: &'static str) -> Result<(), Trouble> {
        let Some(endpoint) = self.endpoints.get(function) else { return Ok(()) };
        if window_of(endpoint, |window| window.mode()) == Some(Mode::Shadowed) {
            self.set_mode(state, function, Mode::Coalesced, why)?;
        }
        Ok(())
    }

    /// Has KVM collect nothing before everything is reset, and drops what it has. The map does not show
    /// any window any more, and all vCPUs are parked.
    pub(super) fn drop_collected(&self, state: &mut State) -> Result<(), Trouble> {
        for with in &mut state.collections {
            with.zones.unregister()?;
            if let Some(endpoint) = self.endpoints.get(with.function) {
                endpoint.discard();
            }
            with.feed.set_active(false);
        }
        self.collector.set(None);
        self.contested.store(false, Release);
        Ok(())
    }

    /// After a change of the map on a vCPU: where another function now answers in a zone, waits until KVM
    /// collects nothing any more, or the map has changed back. Until its vCPU goes on nobody can know of the change.
    pub(super) fn settle_zones(&self, vcpu: usize) {
        let settled = || !self.is_contested() || self.collector.get().is_none();
        if !settled() {
            // The clock ticks while something is collected.
            drop(self.world.lock_on_vcpu_when(vcpu, settled));
        }
    }

    /// Looks at each map that is to be published whether another function answers in one of the zones.
    pub(super) fn look_for_rivals(&self, state: &State, space: &AddressSpace) {
        let collector = self.collector.get();
        let with = state.collections.iter().find(|with| Some(with.function) == collector);
        let contested = with.is_some_and(|with| with.is_contested(space));
        if self.contested.swap(contested, Release) != contested {
            tracing::debug!(contested, "another function's ranges and those of the legacy window");
        }
    }

    /// Whether it has a legacy window that can be turned.
    pub(super) fn has_window(&self, id: PartId) -> bool {
        self.windows.get().is_some_and(|windows| windows.contains(&id))
    }

    /// What of a wish can be fulfilled.
    fn possible(&self, state: &State, function: PartId, wish: Mode) -> Mode {
        let with = state.collections.iter().find(|with| with.function == function);
        let Some(with) = with.filter(|_| wish.collects()) else { return wish };
        let another = self.collector.get().is_some_and(|collector| collector != function);
        match (wish, with.most) {
            _ if another || with.is_contested(&self.published.current()) => Mode::Resting,
            (Mode::Shadowed, Mode::Coalesced) => Mode::Coalesced,
            (_, Mode::Resting) => Mode::Resting,
            _ => wish,
        }
    }

    /// Turns the function, and lets the map follow. Gives the mode that it has then.
    fn set_mode(
        &self,
        state: &mut State,
        function: PartId,
        to: Mode,
        why: &'static str,
    ) -> Result<Mode, Trouble> {
        let Some(endpoint) = self.endpoints.get(function) else { return Ok(Mode::Native) };
        let turned = window_of(endpoint, |window| {
            let from = window.mode();
            window.turn(to);
            (from, window.mode())
        });
        let Some((from, mode)) = turned else { return Ok(Mode::Native) };
        tracing::debug!(function = endpoint.name(), why, ?from, ?to, ?mode, "the legacy window turns");
        self.ask(state, function);
        if from != mode
            && let Some(Collection { trace: Some(trace), id, .. }) = collection(state, function)
        {
            trace.window(*id, mode);
        }
        match self.show(state, |_| false) {
            Err(error) if mode == Mode::Shadowed => {
                tracing::warn!(%error, "the text window has no memory and is slower");
                if let Some(with) = collection(state, function) {
                    with.most = Mode::Coalesced;
                }
                self.set_mode(state, function, Mode::Coalesced, "no memory slot")
            }
            shown => Ok(shown.map(|()| mode)?),
        }
    }

    fn start_collecting(
        &self,
        state: &mut State,
        function: PartId,
        parked: &Parked<'_>,
    ) -> Result<(), Trouble> {
        let Some(with) = collection(state, function) else { return Ok(()) };
        with.feed.set_active(true);
        let Err(error) = with.zones.register(parked) else {
            self.collector.set(Some(function));
            return Ok(());
        };
        // Some may be there still, and what goes into them must not be lost.
        with.zones.unregister()?;
        with.feed.set_active(false);
        tracing::warn!(%error, "the legacy window is slower");
        with.most = Mode::Resting;
        self.set_mode(state, function, Mode::Resting, "no zones").map(drop)
    }

    /// Nothing is collected for the function any more: no zone is registered, and what was in the ring is out
    /// of it.
    fn stop_collecting(&self, state: &mut State, function: PartId) {
        if let Some(with) = collection(state, function) {
            with.feed.set_active(false);
        }
        if self.is_collecting(function) {
            self.collector.set(None);
            self.contested.store(false, Release);
            self.world.look_again();
        }
    }
}

/// What there is for the function.
fn collection(state: &mut State, function: PartId) -> Option<&mut Collection> {
    state.collections.iter_mut().find(|with| with.function == function)
}

/// Has the endpoint's device, after all that was queued or collected, do something with its window.
pub(crate) fn window_of<R>(endpoint: &Endpoint, f: impl FnOnce(&mut dyn Window) -> R) -> Option<R> {
    endpoint.with_device(|device| device.window().map(f))
}

fn overlap(one: Range, other: Range) -> bool {
    fn spans<A: Position>(one: Span<A>, other: Span<A>) -> bool {
        one.intersection(other).is_some()
    }
    match (one, other) {
        (Range::Ports(one), Range::Ports(other)) => spans(one, other),
        (Range::Memory(one), Range::Memory(other)) => spans(one, other),
        _ => false,
    }
}
