//! How fast the owner of legacy VGA may be: what was asked for, and what this host's KVM can.

use anyhow::{Result, bail};
use trapline_devices::legacy::{Phase, Ways};
use trapline_vcpu::Vm;

use crate::config::Window;

/// What of KVM's collecting there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Collecting {
    /// Writes to memory (`KVM_CAP_COALESCED_MMIO`).
    pub(crate) memory: bool,
    /// Writes to ports (`KVM_CAP_COALESCED_PIO`, Linux 4.20).
    pub(crate) ports: bool,
}

impl Collecting {
    /// What there is on this host.
    pub(crate) fn of(vm: &Vm) -> Collecting {
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
pub(crate) fn find(window: Window, collecting: Collecting) -> Result<Ways> {
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
}
