//! The process that `trapline run` starts to hold the host's VGA arbiter.

use anyhow::Context;
use trapline_devices::vfio::lease::Keeper;

use super::Status;
use super::signals::leave_to_parent;
use crate::host::PciAddress;
use crate::sandbox::{Kind, Seccomp};

/// What it is given besides its descriptors.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The card
    #[arg(value_name = "BDF")]
    card: PciAddress,

    /// As of the run that starts it
    #[arg(long, value_name = "on|log|off", default_value = "on")]
    seccomp: Seccomp,
}

/// Holds the arbiter for bursts of accesses, until the machine is gone.
pub(super) fn keep(arguments: &Arguments) -> anyhow::Result<Status> {
    leave_to_parent().context("signals cannot be taken over")?;
    arguments.seccomp.prepare();
    let keeper = Keeper::from_stdio(arguments.card);
    let keeper = keeper.context("trapline run starts this, with the descriptors that it needs")?;
    arguments.seccomp.confine(Kind::Lease);
    keeper.keep().context("the host's VGA arbiter")?;
    Ok(Status::Success)
}
