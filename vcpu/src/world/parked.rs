//! What is held of a [`World`]: its mutex, and all of its vCPUs.

use super::{Errand, NotParked, Seat, World};

/// The topology mutex, held.
#[derive(Debug)]
pub struct WorldGuard<'w> {
    world: &'w World,
    who: Option<usize>,
}

impl<'w> WorldGuard<'w> {
    /// What `world.state` calls locked belongs to the result, which `who` asked for.
    pub(super) fn of(world: &'w World, who: Option<usize>) -> WorldGuard<'w> {
        WorldGuard { world, who }
    }

    /// Parks all vCPUs but the caller's own. They run on when the result is dropped.
    ///
    /// # Errors
    /// [`NotParked`] if some did not come to rest within 20 s; all run on then.
    pub fn park(&mut self) -> Result<Parked<'_>, NotParked> {
        let (world, who) = (self.world, self.who);
        let mut state = world.state.lock();
        state.parking = true;
        // From here on the drop of `parked` lets them go, on failure too.
        let parked = Parked { world, who, _guard: std::marker::PhantomData };
        world.kick(&state, who);
        let result = world.await_vcpus(&mut state, |state| state.others(who, |seat| seat != Seat::Running));
        drop(state);
        result.map(|()| parked)
    }
}

impl Drop for WorldGuard<'_> {
    fn drop(&mut self) {
        self.world.state.lock().locked = false;
        self.world.allowed.notify_all();
    }
}

/// All vCPUs but the initiator's are parked while this lives.
#[derive(Debug)]
pub struct Parked<'g> {
    world: &'g World,
    who: Option<usize>,
    _guard: std::marker::PhantomData<&'g mut WorldGuard<'g>>,
}

impl Parked<'_> {
    /// The vCPU whose thread parked the others.
    pub fn initiator(&self) -> Option<usize> {
        self.who
    }

    /// Whether `world` is what is parked.
    pub(crate) fn is_of(&self, world: &World) -> bool {
        std::ptr::eq(self.world, world)
    }

    /// Has every vCPU reset itself and waits for it. Whoever waits for the topology mutex on a vCPU
    /// is sent away first. Gives what each failed vCPU says.
    pub(crate) fn reset_vcpus(&self) -> Result<Result<(), Vec<(usize, String)>>, NotParked> {
        let world = self.world;
        let mut state = world.state.lock();
        state.turning_away = true;
        world.allowed.notify_all();
        let rest = |seat| matches!(seat, Seat::Parked | Seat::Vacant);
        let result = world.await_vcpus(&mut state, |state| state.others(None, rest));
        state.turning_away = false;
        result?;
        for place in &mut state.places {
            place.errand = if place.seat == Seat::Parked { Errand::Asked } else { Errand::None };
        }
        world.allowed.notify_all();
        world.await_vcpus(&mut state, |state| {
            let places = state.places.iter().enumerate();
            places
                .filter(|(_, p)| matches!(p.errand, Errand::Asked | Errand::Begun))
                .map(|(i, _)| i)
                .collect()
        })?;
        let mut failed = Vec::new();
        for (i, place) in state.places.iter_mut().enumerate() {
            if let Errand::Done(Err(text)) = std::mem::take(&mut place.errand) {
                failed.push((i, text));
            }
        }
        Ok(if failed.is_empty() { Ok(()) } else { Err(failed) })
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.world.state.lock().parking = false;
        self.world.allowed.notify_all();
    }
}
