//! Turning the legacy window of the function that owns it from one mode into another.
//!
//! The function wishes ([`Window::tick`]), the clock's thread turns ([`Topology::turn`]), and the map
//! follows, since a mode is what the function claims in it. All vCPUs are parked meanwhile (design
//! rule 12), but while zones go, which takes milliseconds ([`Zones::unregister`]). A vCPU turns too, but
//! only ever from [`Mode::Shadowed`] to [`Mode::Coalesced`]: before a write
//! that may change what an access to the window means. The zones stay as they are then: to unregister
//! them takes milliseconds, which no vCPU is to wait, and where the map leads a write that KVM has
//! collected is asked when it is taken out of the ring.
//!
//! So whoever changes the map first drains the owner, with the others parked: what was written while the
//! old map was right goes where the old map leads.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use trapline_io::access::Access;
use trapline_io::addr::{Position, Span};
use trapline_io::completion::Caller;
use trapline_io::device::{Claim, DirectKind, Range};
use trapline_io::endpoint::Endpoint;
use trapline_io::feed::Feed;
use trapline_io::space::EndpointId;
use trapline_io::window::{Mode, Window};
use trapline_vcpu::world::Parked;
use trapline_vcpu::{WorldGuard, Zones};

use super::{State, Topology, Trouble};
use crate::parts::PartId;
use crate::trace::Notes;

/// What the machine has for the function that owns legacy VGA.
pub(crate) struct Collection {
    /// The function, by its place in the list and on the access path.
    pub(crate) owner: PartId,
    pub(crate) id: EndpointId,
    /// From the ring to its queue.
    pub(crate) feed: Arc<Feed>,
    /// What KVM is to collect.
    pub(crate) zones: Zones,
    /// The same, to be compared with what others claim.
    pub(crate) ranges: Vec<Range>,
    /// Where turns are noted.
    pub(crate) trace: Option<Notes>,
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
    /// From now on the legacy window of a function may be turned. Once, before the vCPUs run.
    pub(crate) fn collect(&self, with: Collection) {
        // A second one would be another machine's.
        let _ = self.owner.set(with.owner);
        self.state.lock().collection = Some(with);
    }

    /// Whether KVM collects writes, so that somebody has to look after them.
    pub(crate) fn is_collecting(&self) -> bool {
        self.collecting.load(Acquire)
    }

    /// Whether KVM collects though it must not: a range of the zones is another function's.
    pub(crate) fn is_contested(&self) -> bool {
        self.contested.load(Acquire)
    }

    /// Turns the legacy window: what KVM or the device refuses stays slower. Parks all vCPUs. Not on a
    /// vCPU's thread, and with no token held.
    ///
    /// # Errors
    /// The vCPUs can not be parked: nothing has changed. Or the map can not follow.
    pub(crate) fn turn(&self, wish: Mode) -> Result<Turned, Trouble> {
        let mut guard = self.world.lock();
        let mut state = self.state.lock();
        let Some(endpoint) = self.owner() else { return Ok(Turned::AsWished) };
        let to = self.possible(&state, wish);
        if !to.collects()
            && let Some(with) = &mut state.collection
        {
            // While the guest runs, for it takes long; the ring is looked at as before.
            with.zones.unregister()?;
        }
        let parked = guard.park()?;
        // What was collected goes where the map as it is leads.
        endpoint.drain();
        if !to.collects() {
            self.stop_collecting(&state);
        }
        let mode = self.set_mode(&mut state, to, "as wished")?;
        if mode.collects() {
            // Also where it collects: of a turn that could not park, the zones are gone.
            self.start_collecting(&mut state, &parked)?;
        }
        Ok(if self.possible(&state, wish) == wish { Turned::AsWished } else { Turned::Slower })
    }

    /// Carries out a write that ends the shadow.
    pub(super) fn guarded(&self, caller: &mut Caller, root: PartId, target: &Endpoint, access: Access) {
        // While a reset or the end is under way the write is void, like the rest of what the vCPU does.
        let Ok(mut guard) = self.world.lock_on_vcpu(usize::from(caller.id().0)) else { return };
        let mut state = self.state.lock();
        match self.end_shadow_parking(&mut state, &mut guard) {
            Ok(()) if target.call_admitted(caller, access) => {}
            // Another vCPU has written the index of the register meanwhile.
            Ok(()) => {
                drop((state, guard));
                self.change_map(caller, root, target, access);
            }
            Err(trouble) => self.fail(target, &trouble),
        }
    }

    fn end_shadow_parking(&self, state: &mut State, guard: &mut WorldGuard<'_>) -> Result<(), Trouble> {
        let _parked = guard.park()?;
        self.end_shadow(state, "a write may end plain text")
    }

    /// Before a change of the map: what was collected goes where the map as it is leads.
    pub(super) fn drain_owner(&self) {
        if let Some(endpoint) = self.owner() {
            endpoint.drain();
        }
    }

    /// Ends the shadow, if there is one. The caller has parked the other vCPUs.
    pub(super) fn end_shadow(&self, state: &mut State, why: &'static str) -> Result<(), Trouble> {
        let Some(endpoint) = self.owner() else { return Ok(()) };
        if window_of(endpoint, |window| window.mode()) == Some(Mode::Shadowed) {
            self.set_mode(state, Mode::Coalesced, why)?;
        }
        Ok(())
    }

    /// Has KVM collect nothing before everything is reset, and drops what it has. The map does not show
    /// the owner any more, and all vCPUs are parked.
    pub(super) fn drop_collected(&self, state: &mut State) -> Result<(), Trouble> {
        if let (Some(with), Some(endpoint)) = (&mut state.collection, self.owner()) {
            with.zones.unregister()?;
            endpoint.discard();
            with.feed.set_active(false);
            self.collecting.store(false, Release);
        }
        Ok(())
    }

    /// After a change of the map on a vCPU: where another function now answers in a zone, waits until KVM
    /// collects nothing any more. Until its vCPU goes on nobody can know of the change.
    pub(super) fn settle_zones(&self, vcpu: usize) {
        if self.is_contested() && self.is_collecting() {
            // The clock ticks while something is collected.
            drop(self.world.lock_on_vcpu_when(vcpu, || !self.is_collecting()));
        }
    }

    /// Looks after each publication whether another function answers in one of the zones. RAM does not
    /// count: a slot hides a zone.
    pub(super) fn look_for_rivals(&self, state: &State) {
        let Some(with) = &state.collection else { return };
        let ram = |claim: &Claim| claim.direct.as_ref().is_some_and(|direct| direct.kind == DirectKind::Ram);
        let in_zone = |claim: &Claim| with.ranges.iter().any(|zone| overlap(*zone, claim.range));
        let others = state.claims.iter().enumerate().filter(|(id, _)| !self.is_owner(*id));
        let contested =
            others.flat_map(|(_, claims)| &claims.ranges).any(|claim| in_zone(claim) && !ram(claim));
        if self.contested.swap(contested, Release) != contested {
            tracing::debug!(contested, "another function's ranges and those of the legacy window");
        }
    }

    pub(super) fn is_owner(&self, id: PartId) -> bool {
        self.owner.get() == Some(&id)
    }

    fn owner(&self) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(*self.owner.get()?)
    }

    /// What of a wish can be fulfilled.
    fn possible(&self, state: &State, wish: Mode) -> Mode {
        match (wish, state.most) {
            (Mode::Shadowed | Mode::Coalesced, _) if self.is_contested() => Mode::Resting,
            (Mode::Shadowed, Mode::Coalesced) => Mode::Coalesced,
            (Mode::Shadowed | Mode::Coalesced, Mode::Resting) => Mode::Resting,
            _ => wish,
        }
    }

    /// Turns the function, and lets the map follow. Gives the mode that it has then.
    fn set_mode(&self, state: &mut State, to: Mode, why: &'static str) -> Result<Mode, Trouble> {
        let Some(endpoint) = self.owner() else { return Ok(Mode::Native) };
        let turned = window_of(endpoint, |window| {
            let from = window.mode();
            window.turn(to);
            (from, window.mode())
        });
        let Some((from, mode)) = turned else { return Ok(Mode::Native) };
        tracing::debug!(why, ?from, ?to, ?mode, "the legacy window turns");
        if let Some(id) = self.owner.get() {
            self.ask(state, *id);
        }
        if from != mode
            && let Some(Collection { trace: Some(trace), id, .. }) = &state.collection
        {
            trace.window(*id, mode);
        }
        match self.show(state, |_| false) {
            Err(error) if mode == Mode::Shadowed => {
                tracing::warn!(%error, "the text window has no memory and is slower");
                state.most = Mode::Coalesced;
                self.set_mode(state, Mode::Coalesced, "no memory slot")
            }
            shown => Ok(shown.map(|()| mode)?),
        }
    }

    fn start_collecting(&self, state: &mut State, parked: &Parked<'_>) -> Result<(), Trouble> {
        let Some(with) = &mut state.collection else { return Ok(()) };
        with.feed.set_active(true);
        let Err(error) = with.zones.register(parked) else {
            self.collecting.store(true, Release);
            return Ok(());
        };
        // Some may be there still, and what goes into them must not be lost.
        with.zones.unregister()?;
        with.feed.set_active(false);
        tracing::warn!(%error, "the legacy window is slower");
        state.most = Mode::Resting;
        self.set_mode(state, Mode::Resting, "no zones").map(drop)
    }

    /// Nothing is collected any more: no zone is registered, and what was in the ring is out of it.
    fn stop_collecting(&self, state: &State) {
        if let Some(with) = &state.collection {
            with.feed.set_active(false);
            self.collecting.store(false, Release);
            self.world.look_again();
        }
    }
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
