//! Who gets a lease on the host's legacy VGA ranges ([`vfio::lease`]), and the process that holds it.

use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use trapline_devices::assigned::Backend;
use trapline_devices::vfio::arbiter::{Arbiter, NODE};
use trapline_devices::vfio::{self, Lease};
use trapline_io::Region;

use crate::config::{Arbitration, host_error};
use crate::host::PciAddress;
use crate::sandbox::Seccomp;

/// The hidden command of this program that holds it.
pub(crate) const COMMAND: &str = "vga-lease";

/// Gives a lease to a function that is to have legacy VGA, if `wish` says so; `rivals` is how many other VGA
/// adapters the host has. Without one each access is arbitrated by itself, which is as right.
///
/// # Errors
/// It was asked for by name, and cannot be had.
pub(super) fn give(
    device: &mut vfio::Device,
    wish: Arbitration,
    rivals: usize,
    seccomp: Seccomp,
) -> Result<()> {
    let address = device.address();
    let found = match wish {
        Arbitration::Off => return Ok(()),
        // Nobody forwards the ranges to it.
        _ if device.region(Region::VGA).size == 0 => Err("the host's kernel gives no legacy VGA".into()),
        Arbitration::Auto if rivals == 0 => Err("the host has no other VGA adapter".into()),
        Arbitration::Auto | Arbitration::On => start(address, seccomp),
    };
    match (found, wish) {
        (Ok(lease), _) => device.lease(lease),
        (Err(reason), Arbitration::On) => {
            bail!("{address}: arbiter=on, and there is no lease: {reason}; give arbiter=auto or leave it out")
        }
        (Err(reason), _) => tracing::debug!(device = %address, reason, "no lease on legacy VGA"),
    }
    Ok(())
}

/// Starts the process, or tells a person why not.
fn start(card: PciAddress, seccomp: Seccomp) -> Result<Lease, String> {
    let arbiter = Arbiter::open(Path::new(NODE), card);
    let arbiter = arbiter.map_err(|error| format!("{NODE}: {}", host_error(&error)))?;
    let keeper = std::env::current_exe().and_then(|program| {
        let mut keeper = Command::new(program);
        keeper.arg(COMMAND).arg(card.to_string()).args(["--seccomp", seccomp.word()]);
        Lease::start(keeper, arbiter)
    });
    keeper.map_err(|error: io::Error| format!("its process cannot be started: {}", host_error(&error)))
}
