//! From what each function claims to the address space: buses, bridge windows, precedence.
//!
//! Pure: values in, a table out. Functions come in the order of their precedence (the host bridge,
//! which claims RAM, first); a function behind bridges gets what all of them let through.
//!
//! Several functions may decode legacy VGA. Bridges lead it to one bus at a time, as a rule, and there COMMAND
//! says who answers. Two at once are undefined on PCI; here the first on the bus answers ([`vga_decoders`]).

use trapline_devices::legacy;
use trapline_io::addr::Position;
use trapline_io::device::{Claim, Claims, Forwards, Range, Target};
use trapline_io::space::{AddressSpace, ConfigAddress, DwordSet, EndpointId, SpaceBuilder};
use trapline_io::{Gpa, Port, Region, Span};

use crate::parts::{PartId, Place};

/// What is fixed about a function: all but its registers.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Where it sits.
    pub place: Place,
    /// Which of its configuration dwords change the map.
    pub topology: DwordSet,
}

/// The address space of `nodes`, whose places in the list are their endpoint ids; `claims` are in
/// the same order. A claim of `None` stands for a function that decodes nothing just now, its
/// configuration space apart.
pub fn address_space(nodes: &[Node], claims: &[Option<Claims>]) -> AddressSpace {
    let mut builder = SpaceBuilder::default();
    let mut decoders = vga_claims(nodes, claims);
    for (id, node) in nodes.iter().enumerate() {
        let Ok(endpoint) = u16::try_from(id).map(EndpointId) else { break };
        let Some(above) = Ancestors::of(nodes, claims, node) else { continue };
        if let Place::Pci { devfn, .. } = node.place {
            let at = ConfigAddress(u16::from(above.bus) << 8 | u16::from(devfn.raw()));
            builder.function(at, endpoint, node.topology);
        }
        let ranges = claims.get(id).into_iter().flatten().flat_map(|claims| &claims.ranges);
        let (vga, others): (Vec<_>, Vec<_>) = ranges.partition(|claim| is_vga(claim));
        if !vga.is_empty() {
            // In the place of the first function that decodes it, all do in the order of the bus.
            for (above, endpoint, claim) in decoders.drain(..) {
                above.admit(&mut builder, endpoint, claim);
            }
        }
        for claim in others {
            above.admit(&mut builder, endpoint, claim);
        }
    }
    builder.build()
}

/// The functions that decode ports or memory of legacy VGA, and which bridges lead it to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoders {
    /// Those with ports, in the order of the bus: the first answers.
    pub ports: Vec<PartId>,
    /// Those with the window, likewise.
    pub window: Vec<PartId>,
}

/// Who decodes legacy VGA just now.
pub fn vga_decoders(nodes: &[Node], claims: &[Option<Claims>]) -> Decoders {
    let mut decoders = Decoders::default();
    for (above, endpoint, claim) in vga_claims(nodes, claims) {
        let kind = match claim.range {
            Range::Ports(_) => &mut decoders.ports,
            Range::Memory(_) => &mut decoders.window,
        };
        let id = PartId::from(endpoint.0);
        if above.lead(claim.range) && !kind.contains(&id) {
            kind.push(id);
        }
    }
    decoders
}

/// All claims of legacy VGA with the bridges above, in the order of the bus.
fn vga_claims<'a>(nodes: &[Node], claims: &'a [Option<Claims>]) -> Vec<(Ancestors, EndpointId, &'a Claim)> {
    let mut found = Vec::new();
    for (id, node) in nodes.iter().enumerate() {
        let Ok(endpoint) = u16::try_from(id).map(EndpointId) else { break };
        let ranges = claims.get(id).into_iter().flatten().flat_map(|claims| &claims.ranges);
        for claim in ranges.filter(|claim| is_vga(claim)) {
            let Some(above) = Ancestors::of(nodes, claims, node) else { break };
            let devfn = match node.place {
                Place::Pci { devfn, .. } => devfn.raw(),
                Place::Platform => 0,
            };
            found.push(((above.bus, devfn), (above, endpoint, claim)));
        }
    }
    // Claims of one function keep their order.
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, claim)| claim).collect()
}

/// Whether it is one of legacy VGA's, and not a BAR that was put there. What a quirk has over the ports goes where
/// they go, and before them.
fn is_vga(claim: &Claim) -> bool {
    let Target::Region { region, .. } = claim.target else { return false };
    match claim.range {
        Range::Ports(span) => is_vga_ports(span) && region >= Region::VGA,
        Range::Memory(span) => is_vga_window(span) && region == Region::VGA,
    }
}

/// Whether `id` is `root`, or sits behind it.
pub fn is_behind(nodes: &[Node], id: PartId, root: PartId) -> bool {
    let mut at = Some(id);
    // A chain longer than the list would be a loop.
    for _ in 0..=nodes.len() {
        match at {
            Some(here) if here == root => return true,
            Some(here) => {
                at = match nodes.get(here).map(|node| node.place) {
                    Some(Place::Pci { parent, .. }) => parent,
                    _ => None,
                };
            }
            None => return false,
        }
    }
    false
}

/// The bridges above a function, nearest first, and the bus they make.
struct Ancestors {
    bus: u8,
    bridges: Vec<Forwards>,
}

impl Ancestors {
    /// `None` where configuration cycles do not reach the function: a bridge above it has no bus
    /// number yet, or one above that does not cover it.
    fn of(nodes: &[Node], claims: &[Option<Claims>], node: &Node) -> Option<Ancestors> {
        let mut bridges = Vec::new();
        let mut parent = match node.place {
            Place::Pci { parent, .. } => parent,
            Place::Platform => None,
        };
        while let Some(id) = parent {
            if bridges.len() > nodes.len() {
                return None;
            }
            bridges.push(claims.get(id)?.as_ref()?.bridge?);
            parent = match nodes.get(id)?.place {
                Place::Pci { parent, .. } => parent,
                Place::Platform => None,
            };
        }
        let bus = bridges.first().map_or(0, |bridge: &Forwards| bridge.secondary);
        let reached = bridges
            .iter()
            .all(|bridge| bridge.secondary != 0 && bridge.secondary <= bus && bus <= bridge.subordinate);
        reached.then_some(Ancestors { bus, bridges })
    }

    /// Whether all the bridges lead this range of legacy VGA here.
    fn lead(&self, range: Range) -> bool {
        self.bridges.iter().all(|bridge| match range {
            Range::Ports(_) => bridge.vga_io,
            Range::Memory(_) => bridge.vga_memory,
        })
    }

    /// Adds what of `claim` all the bridges let through.
    fn admit(&self, builder: &mut SpaceBuilder, endpoint: EndpointId, claim: &Claim) {
        match claim.range {
            Range::Ports(span) if is_vga_ports(span) => {
                if self.lead(claim.range) {
                    builder.claim(endpoint, claim);
                }
            }
            Range::Memory(span) if is_vga_window(span) => {
                if self.lead(claim.range) {
                    builder.claim(endpoint, claim);
                }
            }
            Range::Ports(span) => {
                for open in self.windows(span, |bridge| [bridge.io, None]) {
                    builder.claim_within(endpoint, claim, Range::Ports(open));
                }
            }
            Range::Memory(span) => {
                for open in self.windows(span, |bridge| [bridge.memory, bridge.prefetchable]) {
                    builder.claim_within(endpoint, claim, Range::Memory(open));
                }
            }
        }
    }

    /// The parts of `span` that lie in one of the windows of every bridge.
    fn windows<A: Position>(
        &self,
        span: Span<A>,
        windows: impl Fn(&Forwards) -> [Option<Span<A>>; 2],
    ) -> Vec<Span<A>> {
        let mut open = vec![span];
        for bridge in &self.bridges {
            let through = windows(bridge);
            open = open
                .iter()
                .flat_map(|span| through.iter().flatten().filter_map(|window| span.intersection(*window)))
                .collect();
        }
        open
    }
}

/// Legacy VGA ports, which VGA Enable forwards (PCI-to-PCI Bridge 1.2 section 3.2.5.18), and the
/// DISPI ports 0x1ce and 0x1cf of Bochs-compatible adapters, which belong with them here: a real
/// bridge would not pass them, but then a guest could not use the adapter's VBE behind one.
fn is_vga_ports(span: Span<Port>) -> bool {
    let within = |(first, last): (u16, u16)| Port(first) <= span.first() && span.last() <= Port(last);
    legacy::PORTS.into_iter().any(within) || within((0x1ce, 0x1d0))
}

/// The legacy VGA window.
fn is_vga_window(span: Span<Gpa>) -> bool {
    let (first, last) = legacy::WINDOW;
    Gpa(first) <= span.first() && span.last() <= Gpa(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_devices::pci::Devfn;
    use trapline_io::space::{ConfigLatch, Resolved};
    use trapline_io::{Address, Op, Region, Trap, Width};

    fn function(parent: Option<PartId>, device: u8) -> Node {
        let devfn = Devfn::new(device, 0).unwrap();
        Node { place: Place::Pci { parent, devfn }, topology: DwordSet::default() }
    }

    fn memory(first: u64, last: u64, region: Region) -> Claim {
        Claim::region(Range::Memory(Span::new(Gpa(first), Gpa(last)).unwrap()), region, 0)
    }

    fn bridge(forwards: Forwards) -> Option<Claims> {
        Some(Claims { ranges: Vec::new(), bridge: Some(forwards) })
    }

    fn who(space: &AddressSpace, gpa: u64) -> Option<u16> {
        let trap = Trap { at: Address::Gpa(Gpa(gpa)), width: Width::B1, op: Op::Read };
        match space.resolve(trap, &ConfigLatch::default()) {
            Resolved::Access { endpoint, .. } => Some(endpoint.0),
            _ => None,
        }
    }

    #[test]
    fn a_bar_behind_a_bridge_needs_the_window() {
        let nodes = [function(None, 1), function(Some(0), 0)];
        let bar =
            Some(Claims { ranges: vec![memory(0xe000_0000, 0xe0ff_ffff, Region::bar(0))], bridge: None });
        let mut forwards = Forwards { secondary: 1, subordinate: 1, ..Forwards::default() };
        let space = address_space(&nodes, &[bridge(forwards), bar.clone()]);
        assert_eq!(who(&space, 0xe000_0000), None);
        assert_eq!(space.function(ConfigAddress(0x100)), Some(EndpointId(1)));
        forwards.memory = Span::new(Gpa(0xe080_0000), Gpa(0xefff_ffff));
        let space = address_space(&nodes, &[bridge(forwards), bar]);
        assert_eq!(who(&space, 0xe07f_ffff), None);
        assert_eq!(who(&space, 0xe080_0000), Some(1));
    }

    #[test]
    fn the_vga_window_follows_vga_enable_alone() {
        let nodes = [function(None, 1), function(Some(0), 0)];
        let window = Some(Claims { ranges: vec![memory(0xa_0000, 0xb_ffff, Region::VGA)], bridge: None });
        let mut forwards = Forwards { secondary: 1, subordinate: 1, ..Forwards::default() };
        forwards.memory = Span::new(Gpa(0), Gpa(0xf_ffff));
        assert_eq!(who(&address_space(&nodes, &[bridge(forwards), window.clone()]), 0xa_0000), None);
        forwards.vga_memory = true;
        assert_eq!(who(&address_space(&nodes, &[bridge(forwards), window]), 0xa_0000), Some(1));
    }

    #[test]
    fn a_quirk_at_a_port_of_legacy_vga_comes_before_the_port() {
        let ports = |first, last, region| {
            let ports = Range::Ports(Span::new(Port(first), Port(last)).unwrap());
            Claim::region(ports, region, first.into())
        };
        let quirk = Region(0xe3);
        let ranges = vec![ports(0x3d0, 0x3d3, quirk), ports(0x3c0, 0x3df, Region::VGA)];
        let space = address_space(&[function(None, 1)], &[Some(Claims { ranges, bridge: None })]);
        let region = |port| {
            let trap = Trap { at: Address::Port(Port(port)), width: Width::B1, op: Op::Read };
            match space.resolve(trap, &ConfigLatch::default()) {
                Resolved::Access { access, .. } => Some(access.region),
                _ => None,
            }
        };
        assert_eq!(
            [0x3cf, 0x3d0, 0x3d3, 0x3d4].map(region),
            [Some(Region::VGA), Some(quirk), Some(quirk), Some(Region::VGA)]
        );
    }

    #[test]
    fn of_two_that_decode_legacy_vga_the_first_on_the_bus_answers() {
        let vga = || {
            let ports = Range::Ports(Span::new(Port(0x3c0), Port(0x3df)).unwrap());
            let ranges =
                vec![memory(0xa_0000, 0xb_ffff, Region::VGA), Claim::region(ports, Region::VGA, 0x3c0)];
            Some(Claims { ranges, bridge: None })
        };
        // Behind a bridge, and two on bus 0 the wrong way round.
        let nodes = [function(None, 1), function(Some(0), 0), function(None, 3), function(None, 2)];
        let forwards = Forwards { secondary: 1, subordinate: 1, ..Forwards::default() };
        let decoders = |vga_io, vga_memory, others: [Option<Claims>; 2]| {
            let [third, fourth] = others;
            let claims = [bridge(Forwards { vga_io, vga_memory, ..forwards }), vga(), third, fourth];
            let decoders = vga_decoders(&nodes, &claims);
            let space = address_space(&nodes, &claims);
            let first = decoders.window.first().map(|id| u16::try_from(*id).unwrap());
            assert_eq!(who(&space, 0xb_8000), first);
            (decoders.ports, decoders.window)
        };
        assert_eq!(decoders(false, false, [None, None]), (vec![], vec![]));
        assert_eq!(decoders(true, false, [None, None]), (vec![1], vec![]));
        assert_eq!(decoders(true, true, [None, None]), (vec![1], vec![1]));
        assert_eq!(decoders(false, true, [vga(), None]), (vec![2], vec![2, 1]));
        assert_eq!(decoders(true, true, [vga(), vga()]), (vec![3, 2, 1], vec![3, 2, 1]));
    }

    #[test]
    fn a_bridge_without_a_bus_number_hides_what_is_behind() {
        let nodes = [function(None, 1), function(Some(0), 0)];
        let bar =
            Some(Claims { ranges: vec![memory(0xe000_0000, 0xe0ff_ffff, Region::bar(0))], bridge: None });
        let forwards = Forwards { memory: Span::new(Gpa(0), Gpa(u64::MAX)), ..Forwards::default() };
        let space = address_space(&nodes, &[bridge(forwards), bar]);
        assert_eq!(who(&space, 0xe000_0000), None);
        assert_eq!(space.function(ConfigAddress(0)), None);
    }

    #[test]
    fn the_function_added_first_keeps_an_overlap() {
        let nodes = [function(None, 1), function(None, 2)];
        let claims =
            |first| Some(Claims { ranges: vec![memory(first, 0x2fff, Region::bar(0))], bridge: None });
        let space = address_space(&nodes, &[claims(0x2000), claims(0x1000)]);
        assert_eq!(who(&space, 0x1000), Some(1));
        assert_eq!(who(&space, 0x2000), Some(0));
    }

    #[test]
    fn a_loop_of_bridges_ends() {
        let nodes = [function(Some(1), 1), function(Some(0), 2)];
        let forwards = Forwards { secondary: 1, subordinate: 255, ..Forwards::default() };
        let space = address_space(&nodes, &[bridge(forwards), bridge(forwards)]);
        assert_eq!(who(&space, 0), None);
        assert!(is_behind(&nodes, 0, 1));
        assert!(!is_behind(&nodes, 0, 7));
    }
}
