//! Who sits where on bus 0, so that a machine looks the same in every run.
//!
//! | device | what |
//! |---|---|
//! | 0 | host bridge |
//! | 1 to 7 | adapters, or the root ports above them, in the order of the command line |
//! | 8 to 30 | disks, in the order of the command line |
//! | 31 | LPC bridge |

use anyhow::{Context, Result};
use trapline_devices::pci::Devfn;

const ADAPTERS: std::ops::Range<u8> = 1..8;
/// The card that sits at device 2.
const IGD: usize = 1;
const DISKS: std::ops::Range<u8> = 8..31;

/// Where an adapter sits.
pub(super) fn adapter(index: usize) -> Result<Devfn> {
    nth(ADAPTERS, index).with_context(|| format!("more than {} adapters (--device)", ADAPTERS.len()))
}

/// The same where one of the cards is integrated graphics, which firmware and drivers expect at 00:02.0: it
/// changes places with what would sit there.
pub(super) fn adapter_beside(index: usize, igd: Option<usize>) -> Result<Devfn> {
    adapter(match igd {
        Some(igd) if index == igd => IGD,
        Some(igd) if index == IGD => igd,
        _ => index,
    })
}

/// Where a disk sits.
pub(super) fn disk(index: usize) -> Result<Devfn> {
    nth(DISKS, index).with_context(|| format!("more than {} disks (--disk)", DISKS.len()))
}

fn nth(mut devices: std::ops::Range<u8>, index: usize) -> Option<Devfn> {
    devices.nth(index).and_then(|device| Devfn::new(device, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrated_graphics_is_device_2() {
        let places = |igd| [0, 1, 2].map(|index| adapter_beside(index, igd).unwrap().device());
        assert_eq!(places(None), [1, 2, 3]);
        assert_eq!(places(Some(0)), [2, 1, 3]);
        assert_eq!(places(Some(1)), [1, 2, 3]);
        assert_eq!(places(Some(2)), [1, 3, 2]);
    }

    #[test]
    fn places_run_out_with_a_word() {
        assert_eq!(adapter(0).unwrap(), Devfn::new(1, 0).unwrap());
        assert_eq!(disk(22).unwrap(), Devfn::new(30, 0).unwrap());
        assert_eq!(disk(23).unwrap_err().to_string(), "more than 23 disks (--disk)");
        assert_eq!(adapter(7).unwrap_err().to_string(), "more than 7 adapters (--device)");
    }
}
