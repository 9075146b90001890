//! Mirrors in BAR 0 of NVIDIA adapters that show the configuration space of *other* functions (envytools, "List
//! and overview of MMIO ranges"): of the audio function beside it at 0x8a000, from the GT215 on, and of the
//! bridge above an adapter that is part of a chipset at 0x2ff000.
//!
//! Nothing can be led from here: the other function is another device of the machine, or none of it. What a
//! guest reads there are the host's addresses, and what it writes moves the host's. So that this is seen, the
//! page is not mapped while somebody traces, and the first access is told to the log.

use trapline_io::{Fault, Op, Region, Width};

use super::{Card, Lead, Overlay, Quirk, Writes, regions};

const BAR: u8 = 0;
const LEN: u64 = 0x1000;

/// See the module's page.
#[derive(Clone, Debug)]
struct Foreign {
    /// The adapter's name, for the log.
    device: String,
    region: Region,
    first: u64,
    whose: &'static str,
    told: bool,
}

/// The audio function's.
pub(super) fn audio(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    make(card, regions::AUDIO_MIRROR, 0x8_a000, "its audio function")
}

/// The bridge's.
pub(super) fn bridge(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    make(card, regions::BRIDGE_MIRROR, 0x2f_f000, "the bridge above it")
}

fn make(card: &Card<'_>, region: Region, first: u64, whose: &'static str) -> Option<Box<dyn Quirk>> {
    let wanted = card.traced && card.has_memory(BAR, first + LEN);
    wanted.then(|| {
        Box::new(Foreign { device: card.name.to_owned(), region, first, whose, told: false })
            as Box<dyn Quirk>
    })
}

impl Quirk for Foreign {
    fn region(&self) -> Region {
        self.region
    }

    fn overlays(&self) -> Vec<Overlay> {
        vec![Overlay { on: Region::bar(BAR), first: self.first, len: LEN, writes: Writes::Plain }]
    }

    fn lead(&self, offset: u64, _: Width, _: Op) -> Result<Lead, Fault> {
        Ok(Lead::Device((Region::bar(BAR), offset)))
    }

    fn pass(&mut self, offset: u64, _: Width, op: Op) {
        if !std::mem::replace(&mut self.told, true) {
            let does = if op == Op::Read { "reads" } else { "writes" };
            tracing::warn!(
                device = self.device,
                "the guest {does} configuration space of {} through its BAR 0 (at {offset:#x}): what \
                 it finds there are the host's addresses",
                self.whose
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GEFORCE, made};
    use super::*;

    #[test]
    fn it_is_watched_while_somebody_traces() {
        assert!(made(GEFORCE, regions::AUDIO_MIRROR).is_none());
        let mut audio = made(GEFORCE.traced(), regions::AUDIO_MIRROR).unwrap();
        assert!(made(GEFORCE.traced(), regions::BRIDGE_MIRROR).is_some());
        let place = (Region::bar(0), 0x8_a010);
        for _ in 0..2 {
            assert_eq!(audio.lead(place.1, Width::B4, Op::Read), Ok(Lead::Device(place)));
            audio.pass(place.1, Width::B4, Op::Read);
        }
    }
}
