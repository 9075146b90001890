//! A built table answers like a search through the claims in their order, for any claims and accesses.

use super::{claim, trap};
use arbitrary::{Arbitrary, Result, Unstructured};
use trapline_io::device::{Claim, Range, Target};
use trapline_io::space::{ConfigAddress, ConfigLatch, DwordSet, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Address, Trap};

/// Where `at` lies in `claim`.
fn inside(claim: &Claim, at: Address) -> Option<u64> {
    match (claim.range, at) {
        (Range::Ports(span), Address::Port(port)) => span.offset_of(port),
        (Range::Memory(span), Address::Gpa(gpa)) => span.offset_of(gpa),
        _ => None,
    }
}

/// The first claim that holds the address, its place and the distance from its start.
fn search(claims: &[Claim], at: Address) -> Option<(u16, &Claim, u64)> {
    (0..).zip(claims).find_map(|(id, claim)| Some((id, claim, inside(claim, at)?)))
}

fn check(claims: &[Claim], trap: Trap, found: Resolved) {
    match (search(claims, trap.at), found) {
        (_, Resolved::Split) => assert!(trap.width.half().is_some(), "{trap:?} has no halves"),
        (_, Resolved::Latch(_)) => {}
        (None, Resolved::Unclaimed) => {}
        (Some((_, claim, _)), Resolved::Unclaimed) => {
            assert!(!matches!(claim.target, Target::Region { .. }), "{trap:?} is claimed: {claim:?}");
        }
        (Some((id, claim, distance)), Resolved::Access { endpoint, access, .. }) => {
            assert_eq!((access.width, access.op), (trap.width, trap.op));
            if let Target::Region { region, offset, .. } = claim.target {
                assert_eq!(endpoint, EndpointId(id));
                assert_eq!((access.region, access.offset), (region, offset.wrapping_add(distance)));
            }
        }
        (None, Resolved::Access { .. }) => panic!("{trap:?} leads to {found:?}, and nobody claims it"),
    }
}

fn act(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut builder, mut claims) = (SpaceBuilder::default(), Vec::new());
    for id in 0..u.int_in_range(0..=24)? {
        let claim = claim(u)?;
        // Now and then only a part of it, as a bridge lets through.
        if u.ratio(1, 8)? {
            let window = super::range(u)?;
            builder.claim_within(EndpointId(id), &claim, window);
            let both = match (claim.range, window) {
                (Range::Ports(a), Range::Ports(b)) => a.intersection(b).map(Range::Ports),
                (Range::Memory(a), Range::Memory(b)) => a.intersection(b).map(Range::Memory),
                _ => None,
            };
            // A claim of no address stands for none, so that the numbers agree.
            let Some(range) = both else { return Ok(()) };
            let moved = match (claim.range, range) {
                (Range::Ports(a), Range::Ports(b)) => a.offset_of(b.first()).unwrap_or(0),
                (Range::Memory(a), Range::Memory(b)) => a.offset_of(b.first()).unwrap_or(0),
                _ => 0,
            };
            let mut cut = Claim { range, ..claim };
            if let Target::Region { offset, .. } = &mut cut.target {
                *offset = offset.wrapping_add(moved);
            }
            claims.push(cut);
        } else {
            builder.claim(EndpointId(id), &claim);
            claims.push(claim);
        }
    }
    for _ in 0..u.int_in_range(0..=6)? {
        let at = ConfigAddress(u16::arbitrary(u)?);
        builder.function(at, EndpointId(u16::arbitrary(u)?), DwordSet::of(&[u8::arbitrary(u)?]));
    }
    let (space, latch) = (builder.build(), ConfigLatch::default());
    assert!(space.memory().zip(space.memory().skip(1)).all(|((a, _), (b, _))| a.last() < b.first()));
    while !u.is_empty() {
        let trap = trap(u)?;
        check(&claims, trap, space.resolve(trap, &latch));
    }
    Ok(())
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    // The end of the input ends a run early, which is no finding.
    let _ = act(&mut Unstructured::new(data));
}
