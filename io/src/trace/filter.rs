//! Which accesses are worth a record.

use crate::access::{Address, Region, Width};
use crate::addr::{Gpa, Port, Position, Span};
use crate::space::EndpointId;

/// What an access must meet, all of it at once; what is `None` any access meets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// It goes to this function.
    pub function: Option<EndpointId>,
    /// It goes to this region of its function.
    pub region: Option<Region>,
    /// It touches one of these ports.
    pub ports: Option<Span<Port>>,
    /// It touches one of these guest physical addresses.
    pub memory: Option<Span<Gpa>>,
}

impl Rule {
    fn admits(&self, seen: &Seen) -> bool {
        self.function.is_none_or(|function| seen.target.is_some_and(|(id, _)| id == function))
            && self.region.is_none_or(|region| seen.target.is_some_and(|(_, of)| of == region))
            && self.reaches(seen)
    }

    fn reaches(&self, seen: &Seen) -> bool {
        if self.ports.is_none() && self.memory.is_none() {
            return true;
        }
        match seen.at {
            // Whoever learns the address asks again.
            None => true,
            Some(Address::Port(port)) => self.ports.is_some_and(|span| touches(span, port, seen.width)),
            Some(Address::Gpa(gpa)) => self.memory.is_some_and(|span| touches(span, gpa, seen.width)),
        }
    }
}

fn touches<A: Position>(span: Span<A>, at: A, width: Width) -> bool {
    let last = at.raw().saturating_add(width.bytes() as u64 - 1);
    span.first().raw() <= last && at <= span.last()
}

struct Seen {
    at: Option<Address>,
    width: Width,
    target: Option<(EndpointId, Region)>,
}

/// Accesses that at least one rule admits; without rules, all.
///
/// ```
/// use trapline_io::trace::{Filter, Rule};
/// use trapline_io::{Address, Port, Span, Width};
///
/// let ports = Span::new(Port(0x3c0), Port(0x3df));
/// let filter = Filter::new(vec![Rule { ports, ..Rule::default() }]);
/// assert!(filter.admits(Some(Address::Port(Port(0x3bf))), Width::B2, None));
/// assert!(!filter.admits(Some(Address::Port(Port(0x80))), Width::B1, None));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Box<[Rule]>);

impl Filter {
    /// A filter of these rules.
    pub fn new(rules: Vec<Rule>) -> Filter {
        Filter(rules.into())
    }

    /// Whether an access is wanted. An address that is not known counts as wanted.
    #[inline]
    pub fn admits(&self, at: Option<Address>, width: Width, target: Option<(EndpointId, Region)>) -> bool {
        self.0.is_empty() || {
            let seen = Seen { at, width, target };
            self.0.iter().any(|rule| rule.admits(&seen))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PORT: Option<Address> = Some(Address::Port(Port(0x3d4)));
    const WINDOW: Option<Address> = Some(Address::Gpa(Gpa(0xb_8000)));

    fn target(function: u16, region: Region) -> Option<(EndpointId, Region)> {
        Some((EndpointId(function), region))
    }

    #[test]
    fn without_rules_everything_is_wanted() {
        assert!(Filter::default().admits(None, Width::B1, None));
    }

    #[test]
    fn a_rule_is_met_as_a_whole_and_one_rule_is_enough() {
        let bar = |function, bar| Rule {
            function: Some(EndpointId(function)),
            region: Some(Region::bar(bar)),
            ..Rule::default()
        };
        let filter = Filter::new(vec![bar(1, 0), bar(2, 5)]);
        assert!(filter.admits(WINDOW, Width::B1, target(1, Region::bar(0))));
        assert!(filter.admits(PORT, Width::B1, target(2, Region::bar(5))));
        assert!(!filter.admits(PORT, Width::B1, target(1, Region::bar(5))));
        assert!(!filter.admits(PORT, Width::B1, None));
    }

    #[test]
    fn ports_are_no_memory() {
        let ports = Span::new(Port(0), Port(u16::MAX));
        let memory = Span::new(Gpa(0), Gpa(u64::MAX));
        let only_ports = Filter::new(vec![Rule { ports, ..Rule::default() }]);
        assert!(only_ports.admits(PORT, Width::B1, None) && !only_ports.admits(WINDOW, Width::B1, None));
        let only_memory = Filter::new(vec![Rule { memory, ..Rule::default() }]);
        assert!(!only_memory.admits(PORT, Width::B1, None) && only_memory.admits(WINDOW, Width::B1, None));
        assert!(only_memory.admits(None, Width::B1, None), "nobody knows yet");
    }

    #[test]
    fn the_last_byte_of_an_access_counts() {
        let memory = Span::new(Gpa(0x1007), Gpa(0x1007));
        let filter = Filter::new(vec![Rule { memory, ..Rule::default() }]);
        let at = |gpa| Some(Address::Gpa(Gpa(gpa)));
        assert!(filter.admits(at(0x1000), Width::B8, None) && !filter.admits(at(0x1000), Width::B4, None));
        assert!(!filter.admits(at(0x1008), Width::B8, None) && !filter.admits(at(u64::MAX), Width::B8, None));
    }
}
