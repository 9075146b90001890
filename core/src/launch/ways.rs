//! How fast the owner of legacy VGA may be: what was asked for, and what this host's KVM can.

use anyhow::{Result, bail};
use trapline_devices::legacy::{self, Phase, Ways};
use trapline_io::device::Range;
use trapline_io::{Gpa, Port, Span};
use trapline_vcpu::Vm;

use crate::config::Window;

/// Ports of VGA whose writes may be late, since nothing but a read tells: attribute, DAC and CRTC registers.
const LATE: [(u16, u16); 5] =
    [(0x3b4, 0x3b5), (0x3c0, 0x3c0), (0x3c6, 0x3c6), (0x3c8, 0x3c9), (0x3d4, 0x3d5)];

/// Those that may be late too where nothing is shadowed: sequencer and graphics registers, which say what a
/// write to the window means.
const LATE_UNLESS_SHADOWED: [(u16, u16); 2] = [(0x3c4, 0x3c5), (0x3ce, 0x3cf)];

/// What of KVM's collecting there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collecting {
    /// Writes to memory (`KVM_CAP_COALESCED_MMIO`).
    pub(super) memory: bool,
    /// Writes to ports (`KVM_CAP_COALESCED_PIO`, Linux 4.20).
    pub(super) ports: bool,
}

impl Collecting {
    /// What there is on this host.
    pub(super) fn of(vm: &Vm) -> Collecting {
        Collecting { memory: vm.collects_memory(), ports: vm.collects_ports() }
    }

    /// What is missing, for a person.
    fn lacks(self) -> Option<&'static str> {
        match self {
            Collecting { memory: true, ports: true } => None,
            Collecting { memory: false, .. } => {
                Some("KVM of this kernel does not collect writes to memory (KVM_CAP_COALESCED_MMIO)")
            }
            Collecting { memory: true, ports: false } => Some(
                "KVM of this kernel does not collect writes to ports (KVM_CAP_COALESCED_PIO, Linux 4.20)",
            ),
        }
    }
}

/// The ways of `window`, for the log with the reason, in whatever phase a device is told to have.
///
/// # Errors
/// What was asked for by name is not possible here.
pub(super) fn find(window: Window, collecting: Collecting) -> Result<Ways> {
    let fast = |shadowed| Ways { coalesced: true, shadowed, phase: Phase::Auto };
    match (window, collecting.lacks()) {
        (Window::Strict, _) => Ok(Ways::default()),
        (Window::Coalesced, None) => Ok(fast(false)),
        (Window::Shadowed, None) => Ok(fast(true)),
        (Window::Coalesced, Some(lack)) => bail!("--window coalesced: {lack}; give strict or auto"),
        (Window::Shadowed, Some(lack)) => bail!("--window shadowed: {lack}; give strict or auto"),
        (Window::Auto, None) => {
            tracing::info!("the legacy window is shadowed: KVM collects writes to memory and ports");
            Ok(fast(true))
        }
        (Window::Auto, Some(lack)) => {
            tracing::info!("the legacy window is strict: {lack}");
            Ok(Ways::default())
        }
    }
}

/// The same for a device whose phase was pinned, or not.
pub(super) fn in_phase(ways: Ways, phase: Phase) -> Ways {
    // What is strict has nothing to gain from trapped BARs.
    if ways.coalesced { Ways { phase, ..ways } } else { ways }
}

/// The ranges whose writes KVM collects for the function that owns legacy VGA, each a zone of its own.
pub(super) fn collected(ways: Ways) -> Vec<Range> {
    if !ways.coalesced || ways.phase == Phase::Native {
        return Vec::new();
    }
    let (first, last) = legacy::WINDOW;
    let window = Span::new(Gpa(first), Gpa(last)).map(Range::Memory);
    let more = if ways.shadowed { &[][..] } else { &LATE_UNLESS_SHADOWED };
    let ports = LATE.iter().chain(more);
    let ports = ports.filter_map(|(first, last)| Span::new(Port(*first), Port(*last)).map(Range::Ports));
    window.into_iter().chain(ports).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Collecting = Collecting { memory: true, ports: true };

    #[test]
    fn auto_is_the_fastest_that_there_is() {
        let shadowed = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
        assert_eq!(find(Window::Auto, ALL).unwrap(), shadowed);
        assert_eq!(find(Window::Shadowed, ALL).unwrap(), shadowed);
        assert_eq!(find(Window::Coalesced, ALL).unwrap(), Ways { shadowed: false, ..shadowed });
        assert_eq!(find(Window::Strict, ALL).unwrap(), Ways::default());
        for (memory, ports) in [(false, false), (false, true), (true, false)] {
            let collecting = Collecting { memory, ports };
            assert_eq!(find(Window::Auto, collecting).unwrap(), Ways::default());
            assert_eq!(find(Window::Strict, collecting).unwrap(), Ways::default());
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (window, name) in [(Window::Coalesced, "coalesced"), (Window::Shadowed, "shadowed")] {
            for (collecting, lack) in [
                (Collecting { memory: false, ports: false }, "KVM_CAP_COALESCED_MMIO"),
                (Collecting { memory: true, ports: false }, "KVM_CAP_COALESCED_PIO"),
            ] {
                let problem = find(window, collecting).unwrap_err().to_string();
                assert!(problem.starts_with(&format!("--window {name}: ")), "{problem}");
                assert!(problem.contains(lack) && problem.ends_with("give strict or auto"), "{problem}");
            }
        }
    }

    #[test]
    fn a_pinned_phase_is_kept_where_it_means_something() {
        let fast = find(Window::Auto, ALL).unwrap();
        assert_eq!(in_phase(fast, Phase::Native), Ways { phase: Phase::Native, ..fast });
        assert_eq!(in_phase(Ways::default(), Phase::Auto), Ways::default());
    }

    #[test]
    fn what_may_end_the_shadow_is_never_collected_with_it() {
        let fast = find(Window::Auto, ALL).unwrap();
        let has = |ways, port| {
            let ports = |range: &Range| matches!(range, Range::Ports(span) if span.contains(Port(port)));
            collected(ways).iter().any(ports)
        };
        for ways in [fast, Ways { shadowed: false, ..fast }] {
            assert!(has(ways, 0x3d5) && has(ways, 0x3b4) && has(ways, 0x3c9) && has(ways, 0x3c0));
            assert_eq!(has(ways, 0x3c5), !ways.shadowed);
            assert_eq!(has(ways, 0x3ce), !ways.shadowed);
            for port in [0x3c2, 0x3c3, 0x3c7, 0x3ca, 0x3bc, 0x3da, 0x3c1] {
                assert!(!has(ways, port), "{port:x}");
            }
        }
        assert!(collected(Ways::default()).is_empty());
        assert!(collected(in_phase(fast, Phase::Native)).is_empty());
    }
}
