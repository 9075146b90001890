//! The process that `trapline run` starts to hold the host's VGA arbiter.

use anyhow::Context;
use trapline_devices::vfio::lease::keep_stdio;

use super::Status;
use crate::host::PciAddress;

/// What it is given besides its descriptors.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The card
    #[arg(value_name = "BDF")]
    card: PciAddress,
}

/// Holds the arbiter for bursts of accesses, until the machine is gone.
pub(super) fn keep(arguments: &Arguments) -> anyhow::Result<Status> {
    keep_stdio(arguments.card).context("trapline run starts this, with the descriptors that it needs")?;
    Ok(Status::Success)
}
