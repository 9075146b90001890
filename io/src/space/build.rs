//! Building a table: earlier claims win, later ones get what is left.

use super::{AddressSpace, ConfigAddress, DwordSet, EndpointId, Function, Piece, Table};
use crate::addr::{Gpa, Port, Position, Span};
use crate::device::{Claim, Direct, Range};

/// Collects claims into an [`AddressSpace`]. Where two overlap the earlier one keeps the addresses:
/// so overlays are added before what they lie on.
#[derive(Debug, Default)]
pub struct SpaceBuilder {
    ports: Vec<Piece<Port>>,
    memory: Vec<Piece<Gpa>>,
    functions: Vec<Function>,
}

impl SpaceBuilder {
    /// Adds what `endpoint` claims, less what is taken already.
    pub fn claim(&mut self, endpoint: EndpointId, claim: &Claim) {
        match claim.range {
            Range::Ports(span) => insert(&mut self.ports, whole(span, endpoint, claim)),
            Range::Memory(span) => insert(&mut self.memory, whole(span, endpoint, claim)),
        }
    }

    /// Adds the part of `claim` that lies inside `window`, a range of the same address space.
    pub fn claim_within(&mut self, endpoint: EndpointId, claim: &Claim, window: Range) {
        match (claim.range, window) {
            (Range::Ports(span), Range::Ports(window)) => {
                if let Some(inside) = span.intersection(window) {
                    insert(&mut self.ports, cut(&whole(span, endpoint, claim), inside));
                }
            }
            (Range::Memory(span), Range::Memory(window)) => {
                if let Some(inside) = span.intersection(window) {
                    insert(&mut self.memory, cut(&whole(span, endpoint, claim), inside));
                }
            }
            _ => {}
        }
    }

    /// Puts a function's configuration space at a configuration address, unless it is taken.
    /// `topology` tells which dwords change the map.
    pub fn function(&mut self, at: ConfigAddress, endpoint: EndpointId, topology: DwordSet) {
        if let Err(place) = self.functions.binary_search_by_key(&at, |function| function.at) {
            self.functions.insert(place, Function { at, endpoint, topology });
        }
    }

    /// The finished table.
    pub fn build(self) -> AddressSpace {
        AddressSpace {
            ports: Table::new(self.ports),
            memory: Table::new(self.memory),
            functions: self.functions.into_boxed_slice(),
        }
    }
}

fn whole<A>(span: Span<A>, endpoint: EndpointId, claim: &Claim) -> Piece<A> {
    Piece {
        span,
        skipped: 0,
        endpoint,
        target: claim.target,
        direct: claim.direct.clone(),
        signals: claim.signals.clone(),
    }
}

/// Inserts `piece` around what is there, keeping the list sorted and free of overlaps.
fn insert<A: Position>(pieces: &mut Vec<Piece<A>>, piece: Piece<A>) {
    let mut rest = Some(piece.span);
    let mut free = Vec::new();
    let start = pieces.partition_point(|taken| taken.span.last() < piece.span.first());
    for taken in pieces.iter().skip(start).take_while(|taken| taken.span.first() <= piece.span.last()) {
        let Some(span) = rest else { break };
        let [before, behind] = span.without(taken.span);
        free.extend(before);
        rest = behind;
    }
    free.extend(rest);
    for span in free {
        let place = pieces.partition_point(|taken| taken.span.first() < span.first());
        pieces.insert(place, cut(&piece, span));
    }
}

/// The part of `piece` on `span`, which still counts from where the claim began.
fn cut<A: Position>(piece: &Piece<A>, span: Span<A>) -> Piece<A> {
    let moved = span.first().raw() - piece.span.first().raw();
    let direct = piece
        .direct
        .as_ref()
        .map(|direct| Direct { offset: direct.offset.wrapping_add(moved), ..direct.clone() });
    Piece {
        span,
        skipped: piece.skipped.wrapping_add(moved),
        endpoint: piece.endpoint,
        target: piece.target,
        direct,
        // The kernel would signal a write that reaches into what is not the register's.
        signals: if span == piece.span { piece.signals.clone() } else { Vec::new() },
    }
}
