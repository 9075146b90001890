//! What the owner of legacy VGA decodes at the fixed addresses, by mode.

use std::sync::Arc;

use trapline_io::device::{Claim, Direct, DirectKind, Range, Retire};
use trapline_io::window::Mode;
use trapline_io::{Gpa, Port, Region, Span};
use vm_memory::MmapRegion;

use super::state::TEXT_LEN;
use super::{PORTS, WINDOW, Ways};
use crate::pci::spec::Command;

/// Ports whose writes may be late, since only what the screen shows depends on them and every read
/// drains: index and data of the attribute controller, the DAC's, and of the CRT controller. In pairs, so
/// that a 16-bit access stays one.
const LATE: [(u16, u16); 4] = [(0x3b4, 0x3b5), (0x3c0, 0x3c1), (0x3c8, 0x3c9), (0x3d4, 0x3d5)];
/// The same where nothing is shadowed: sequencer and graphics controller decide what the window means, and
/// stand in one order with the writes to it.
const LATE_UNLESS_SHADOWED: [(u16, u16); 2] = [(0x3c4, 0x3c5), (0x3ce, 0x3cf)];
/// Ports that may end plain text: miscellaneous output, enable, sequencer; graphics controller.
const DECIDING: [(u16, u16); 2] = [(0x3c2, 0x3c5), (0x3ce, 0x3cf)];

/// The ranges whose writes may be collected before they are carried out, each a zone of its own: the
/// window, and of the ports that [`claims_in`] posts those of colour modes. Each zone takes the kernel
/// milliseconds to give up, so there are no more than pay.
pub(crate) fn collected(ways: Ways) -> Vec<Range> {
    if !ways.coalesced {
        return Vec::new();
    }
    let more = if ways.shadowed { &[][..] } else { &LATE_UNLESS_SHADOWED };
    let colour = LATE.iter().filter(|(first, _)| *first >= 0x3c0);
    let ports = colour.chain(more);
    let ports = ports.filter_map(|(first, last)| Span::new(Port(*first), Port(*last)).map(Range::Ports));
    Span::new(Gpa(WINDOW.0), Gpa(WINDOW.1)).map(Range::Memory).into_iter().chain(ports).collect()
}

/// What is decoded with this Command register, each access strict.
pub fn claims(command: Command) -> impl Iterator<Item = Claim> {
    let window = window(command).map(|span| Claim::region(Range::Memory(span), Region::VGA, WINDOW.0));
    window.into_iter().chain(ports(command, &PORTS, Retire::Strict))
}

/// The same in a mode; `text` is the first address of the text window, and the RAM that stands for it.
pub(crate) fn claims_in(
    mode: Mode,
    ways: Ways,
    command: Command,
    text: Option<(u64, &Arc<MmapRegion>)>,
) -> Vec<Claim> {
    if !mode.collects() {
        return claims(command).collect();
    }
    let mut ranges = Vec::new();
    if let (Some(_), Some((first, ram))) = (window(command), text) {
        let direct = Direct { memory: Arc::clone(ram), offset: 0, kind: DirectKind::Shadow };
        let span = Span::of_len(Gpa(first), TEXT_LEN).map(Range::Memory);
        ranges.extend(span.map(|span| {
            Claim::region(span, Region::VGA, first).retire(Retire::Posted).direct(direct.clone())
        }));
    }
    if mode == Mode::Shadowed {
        ranges.extend(ports(command, &DECIDING, Retire::Topology));
    } else if !ways.shadowed {
        ranges.extend(ports(command, &LATE_UNLESS_SHADOWED, Retire::Posted));
    }
    ranges.extend(ports(command, &LATE, Retire::Posted));
    ranges.extend(claims(command).map(|claim| match claim.range {
        Range::Memory(_) => claim.retire(Retire::Posted),
        Range::Ports(_) => claim,
    }));
    ranges
}

fn window(command: Command) -> Option<Span<Gpa>> {
    Span::new(Gpa(WINDOW.0), Gpa(WINDOW.1)).filter(|_| command.memory())
}

fn ports(command: Command, runs: &[(u16, u16)], retire: Retire) -> impl Iterator<Item = Claim> {
    runs.iter().filter(move |_| command.io()).filter_map(move |(first, last)| {
        let span = Span::new(Port(*first), Port(*last))?;
        Some(Claim::region(Range::Ports(span), Region::VGA, (*first).into()).retire(retire))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_end_the_shadow_is_never_collected_with_it() {
        let fast = Ways { coalesced: true, shadowed: true, phase: super::super::Phase::Auto };
        let has = |ways, port| {
            let ports = |range: &Range| matches!(range, Range::Ports(span) if span.contains(Port(port)));
            collected(ways).iter().any(ports)
        };
        for ways in [fast, Ways { shadowed: false, ..fast }] {
            assert!(has(ways, 0x3d5) && has(ways, 0x3c9) && has(ways, 0x3c0) && !has(ways, 0x3b4));
            assert_eq!(has(ways, 0x3c5), !ways.shadowed);
            assert_eq!(has(ways, 0x3ce), !ways.shadowed);
            for port in [0x3c2, 0x3c3, 0x3c6, 0x3c7, 0x3ca, 0x3bc, 0x3da] {
                assert!(!has(ways, port), "{port:x}");
            }
        }
        assert!(collected(Ways::default()).is_empty());
    }
}
