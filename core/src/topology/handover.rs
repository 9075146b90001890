//! Where legacy VGA leads, when several functions can decode it.
//!
//! The guest hands it over by COMMAND of the functions and VGA Enable of the bridges above them, as on
//! hardware; the map follows those writes like all others. What is special about it: the function that gets
//! it asks its device anew what registers and memory hold, and if KVM collects for
//! the one that had it, the vCPU that made the write waits until that is over
//! ([`Topology::settle_zones`](super::Topology)).

use super::map::Decoders;
use super::{State, Topology, window_of};
use crate::parts::PartId;

/// The functions that legacy VGA leads to, or led to last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Led {
    ports: Option<PartId>,
    window: Option<PartId>,
    /// That several decode it at once was told.
    told: bool,
}

impl Topology {
    /// After a publication: lets a function know that legacy VGA leads to it again.
    pub(super) fn lead(&self, state: &mut State, decoders: &Decoders) {
        self.tell_of_conflict(&mut state.led, decoders);
        let now = [decoders.ports.first(), decoders.window.first()];
        let led = [&mut state.led.ports, &mut state.led.window];
        let mut regained: Vec<PartId> = Vec::new();
        for (now, led) in now.into_iter().zip(led) {
            // While it leads nowhere nobody else's addresses reach a device.
            let Some(now) = now.copied() else { continue };
            let before = led.replace(now);
            if before.is_some_and(|before| before != now) && !regained.contains(&now) {
                regained.push(now);
            }
        }
        for endpoint in regained.into_iter().filter_map(|id| self.endpoints.get(id)) {
            tracing::debug!(function = endpoint.name(), "legacy VGA is handed over");
            window_of(endpoint, |window| window.regained());
        }
    }

    /// Once in a run: a guest's firmware may well do so for a moment, and a guest that does it for long
    /// would do it at every change.
    fn tell_of_conflict(&self, led: &mut Led, decoders: &Decoders) {
        let Some(many) = [&decoders.window, &decoders.ports].into_iter().find(|many| many.len() > 1) else {
            return;
        };
        if std::mem::replace(&mut led.told, true) {
            return;
        }
        let names = many.iter().filter_map(|id| self.endpoints.get(*id));
        let names: Vec<&str> = names.map(|endpoint| endpoint.name()).collect();
        tracing::warn!(
            "the guest lets {} decode legacy VGA at once, which PCI leaves undefined: {} answers, the first on the bus",
            names.join(" and "),
            names.first().copied().unwrap_or_default()
        );
    }
}
