//! What functions of the host keep of its addresses, before they are opened: RAM is built around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use trapline_devices::host;
use trapline_devices::pci::Moves;
use trapline_devices::q35::RamSplit;
use trapline_io::{Gpa, Span};

use super::fit::{self, Bounds, Fit};
use crate::command::say;
use crate::config::{self, Adapters, DeviceOrigin, RunConfig};
use crate::events::Events;
use crate::firmware::placement::Function;
use crate::host::resource::{HostBar, HostBarKind};
use crate::host::{Host, PciAddress, Tree};
use crate::identity::{self, Ground, HostAddresses};
use crate::parts::{PartId, Parts};

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    functions: BTreeMap<PciAddress, HostAddresses>,
    spans: Vec<Span<Gpa>>,
}

impl Kept {
    /// Reads this host, if `config` has a function that keeps its addresses.
    ///
    /// # Errors
    /// Such a function has a BAR of memory without an address, for this user at least.
    pub(super) fn of(config: &RunConfig) -> Result<Kept> {
        let Adapters::Given(devices) = &config.adapters else { return Ok(Kept::default()) };
        let wanted = devices.iter().filter_map(|device| {
            let DeviceOrigin::Host(address) = &device.origin else { return None };
            match device.identity.unwrap_or(config.identity) {
                config::Identity::Off => None,
                config::Identity::On(moves) => Some((*address, moves)),
            }
        });
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() { Ok(Kept::default()) } else { Kept::on(&Host::read(Tree::host()), &wanted) }
    }

    fn on(host: &Host, wanted: &[(PciAddress, Moves)]) -> Result<Kept> {
        let mut kept = Kept::default();
        for (address, moves) in wanted {
            // One that is not there is told of when it is opened.
            let Some(function) = host.function(*address) else { continue };
            let mut bars = Vec::new();
            for bar in &function.bars {
                kept.spans.extend(span(*address, bar)?);
                if bar.address != 0 {
                    bars.push((bar.index, bar.address));
                }
            }
            let keeps = HostAddresses { name: address.to_string(), bars, moves: *moves };
            kept.functions.insert(*address, keeps);
        }
        Ok(kept)
    }

    /// What of memory is to stay free of RAM.
    pub(super) fn spans(&self) -> &[Span<Gpa>] {
        &self.spans
    }

    /// What the function at an address keeps, if anything.
    pub(super) fn by(&self, address: PciAddress) -> Option<&HostAddresses> {
        self.functions.get(&address)
    }
}

/// Gives all registers their addresses, in place of the firmware; `functions` are the parts at `places`.
///
/// # Errors
/// The host's addresses cannot be kept, or leave no room.
pub(super) fn arrange(
    parts: &mut Vec<Parts>,
    (functions, places): (&[Function], &[PartId]),
    ram: RamSplit,
    bounds: Bounds<'_>,
    events: &Events,
) -> Result<Fit> {
    let events: Arc<dyn host::Events> = Arc::new(events.clone());
    fit::fit_as(ram, bounds, |phys_bits, reserved| {
        let ground = Ground { ram, phys_bits, reserved };
        let (plan, told) = identity::arrange(parts, (functions, places), ground, &events)?;
        told.iter().for_each(|line| say(line));
        Ok(plan)
    })
}

/// What a BAR takes of memory; ports take none.
fn span(address: PciAddress, bar: &HostBar) -> Result<Option<Span<Gpa>>> {
    if bar.kind == HostBarKind::Io {
        return Ok(None);
    }
    if bar.address == 0 {
        bail!(
            "{address}: identity: its BAR {} has no address on the host, or one that only root may know; run as root, \
             or give identity=off",
            bar.index
        );
    }
    Ok(Span::of_len(Gpa(bar.address), bar.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const FUNCTION: &str = "0000:01:00.0";

    fn kept(resource: &str) -> Result<Kept> {
        let fake = Fake::new();
        fake.function(FUNCTION, "10de:1234", 0x03_0000, Some("vfio-pci"), Some(3));
        fake.set(FUNCTION, "resource", resource);
        Kept::on(&Host::read(fake.tree().clone()), &[(FUNCTION.parse().unwrap(), Moves::Follow)])
    }

    #[test]
    fn addresses_of_bars_are_kept_and_the_roms_is_not() {
        let kept = kept(
            "0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200\n\
             0x0000006000000000 0x000000600fffffff 0x000000000014220c\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000e000 0x000000000000e07f 0x0000000000040101\n\
             0x00000000f7000000 0x00000000f707ffff 0x0000000000046200\n",
        );
        let kept = kept.unwrap();
        let keeps = kept.by(FUNCTION.parse().unwrap()).unwrap();
        assert_eq!(keeps.bars, [(0, 0xf600_0000), (1, 0x60_0000_0000), (5, 0xe000)]);
        assert_eq!((&*keeps.name, keeps.moves), (FUNCTION, Moves::Follow));
        let spans = [Span::of_len(Gpa(0xf600_0000), 16 << 20), Span::of_len(Gpa(0x60_0000_0000), 256 << 20)];
        assert_eq!(kept.spans(), spans.map(Option::unwrap));
        assert!(kept.by("0000:02:00.0".parse().unwrap()).is_none());
    }

    #[test]
    fn a_bar_that_is_nowhere_is_named() {
        let error =
            kept("0x0000000000000000 0x0000000000ffffff 0x0000000000040200\n").unwrap_err().to_string();
        assert!(error.starts_with("0000:01:00.0: identity: its BAR 0 has no address"), "{error}");
        assert!(
            kept("0x0000000000000000 0x000000000000001f 0x0000000000040101\n").unwrap().spans().is_empty()
        );
    }
}
