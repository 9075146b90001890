//! Where the regions of functions lie, as a trace tells it, and how that changes.

use std::collections::BTreeMap;

use trapline_io::device::{DirectKind, Range, Target};
use trapline_io::space::{AddressSpace, ConfigAddress, EndpointId};
use trapline_io::{Access, Address, Gpa, Port, Region};

use super::format::Cast;

/// A region of a function at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    pub(super) function: EndpointId,
    pub(super) region: Region,
    /// In ports, not in memory.
    pub(super) in_ports: bool,
    /// The first address that belongs to it.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
    /// The address of offset 0, which of legacy VGA is zero.
    pub(super) origin: u64,
}

impl Mapping {
    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    fn is_bar(&self, cast: &Cast) -> bool {
        cast.function(self.function).is_some_and(|function| function.has_bar(self.region))
    }

    /// The whole of a BAR, which begins at offset 0 and has a power of two of bytes, also where an overlay
    /// took its ends.
    fn as_decoded(self, cast: &Cast) -> Mapping {
        if !self.is_bar(cast) || self.in_ports || self.origin > self.first {
            return self;
        }
        let len = (self.last - self.origin).saturating_add(1);
        let len = len.checked_next_power_of_two().unwrap_or(u64::MAX);
        Mapping { first: self.origin, last: self.origin.saturating_add(len - 1), ..self }
    }
}

/// All regions in memory or ports that are not RAM, each once: what overlays cut out of one belongs to it.
/// Configuration space in memory is region [`Region::CONFIG`] of the bridge that decodes it.
fn mappings(space: &AddressSpace, cast: &Cast) -> Vec<Mapping> {
    let mut found: BTreeMap<(EndpointId, Region, bool, u64), Mapping> = BTreeMap::new();
    for (range, function, target, direct) in space.ranges() {
        let (region, offset) = match target {
            Target::Region { region, offset, .. } => (region, offset),
            Target::Ecam => (Region::CONFIG, 0),
            Target::ConfigAddress | Target::ConfigData => continue,
        };
        let is_memory = direct.is_some_and(|direct| match direct.kind {
            DirectKind::Ram => true,
            DirectKind::Rom => region != Region::ROM,
            DirectKind::Bar | DirectKind::Shadow => false,
        });
        if is_memory {
            continue;
        }
        let (in_ports, first, last) = match range {
            Range::Ports(span) => (true, u64::from(span.first().0), u64::from(span.last().0)),
            Range::Memory(span) => (false, span.first().0, span.last().0),
        };
        let origin = first.wrapping_sub(offset);
        let piece = Mapping { function, region, in_ports, first, last, origin };
        let whole = found.entry((function, region, in_ports, origin)).or_insert(piece);
        whole.first = whole.first.min(first);
        whole.last = whole.last.max(last);
    }
    found.into_values().map(|mapping| mapping.as_decoded(cast)).collect()
}

/// The map as a trace has told it so far.
#[derive(Debug, Default)]
pub(super) struct Map {
    mappings: Vec<Mapping>,
    functions: BTreeMap<EndpointId, ConfigAddress>,
    /// Where each region was last, for what is carried out after it has gone.
    origins: BTreeMap<(EndpointId, Region), Mapping>,
}

/// What is new in a map.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) gone: Vec<Mapping>,
    pub(super) come: Vec<Mapping>,
    /// PCI functions of which something came, or whose address changed.
    pub(super) functions: Vec<EndpointId>,
}

impl Map {
    /// Goes over to `space`.
    pub(super) fn follow(&mut self, space: &AddressSpace, cast: &Cast) -> Change {
        let new = mappings(space, cast);
        let gone: Vec<Mapping> = self.mappings.iter().filter(|old| !new.contains(old)).copied().collect();
        let come: Vec<Mapping> = new.iter().filter(|new| !self.mappings.contains(new)).copied().collect();
        let mut functions: Vec<EndpointId> = Vec::new();
        let addresses: BTreeMap<EndpointId, ConfigAddress> =
            space.functions().map(|(at, function)| (function, at)).collect();
        for (function, at) in &addresses {
            let moved = self.functions.get(function) != Some(at);
            let has_come = come.iter().any(|mapping| mapping.function == *function && mapping.is_bar(cast));
            if moved || has_come {
                functions.push(*function);
            }
        }
        for mapping in &come {
            self.origins.insert((mapping.function, mapping.region), *mapping);
        }
        self.mappings = new;
        self.functions.extend(addresses);
        Change { gone, come, functions }
    }

    /// Bus, device and function of a PCI function; the last that it had where it has none now.
    pub(super) fn address_of(&self, function: EndpointId) -> Option<ConfigAddress> {
        self.functions.get(&function).copied()
    }

    /// Where a region of a function lies.
    pub(super) fn mapping(&self, function: EndpointId, region: Region) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.function == function && mapping.region == region)
    }

    /// Where an access lies in the guest, as far as the map knows: where its region was last.
    pub(super) fn locate(&self, function: EndpointId, access: Access) -> Option<Address> {
        let mapping = self.origins.get(&(function, access.region))?;
        let address = mapping.origin.wrapping_add(access.offset);
        Some(match mapping.in_ports {
            true => Address::Port(Port(u16::try_from(address).ok()?)),
            false => Address::Gpa(Gpa(address)),
        })
    }

    /// The mapping in memory that holds an address.
    pub(super) fn holding(&self, gpa: Gpa) -> Option<&Mapping> {
        let holds = |mapping: &&Mapping| !mapping.in_ports && mapping.first <= gpa.0 && gpa.0 <= mapping.last;
        // An overlay lies inside what it covers: the smaller one answers.
        self.mappings.iter().filter(holds).min_by_key(|mapping| mapping.len())
    }
}
