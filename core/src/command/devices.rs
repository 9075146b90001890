//! `trapline devices`: the functions of this host that could be given to a guest, and what stands in the
//! way.

mod page;

use anyhow::bail;

use super::{Status, print};
use crate::config::{Options, RunConfig};
use crate::host::{Function, Host, PciAddress, Tree, report};

/// What can be given to `trapline devices`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Functions to tell of, as 0000:01:00.0 or 01:00.0; without any, the display adapters
    #[arg(value_name = "BDF")]
    addresses: Vec<PciAddress>,

    /// Every function that could be given away, display adapters first, one line each
    #[arg(long, conflicts_with = "addresses")]
    all: bool,

    /// For programs: JSON, whose names stay
    #[arg(long)]
    json: bool,
}

/// Prints what was asked for on standard output.
pub(super) fn devices(arguments: &Arguments) -> anyhow::Result<Status> {
    let host = Host::read(Tree::host());
    let chosen = choose(&host, arguments)?;
    let memory = RunConfig::new(Options::default(), None)?.memory;
    let text = if arguments.json {
        report::json(&host, &chosen, memory)?
    } else {
        page::text(&host, &chosen, memory, !arguments.all)
    };
    print(&text)?;
    Ok(Status::Success)
}

/// The functions to tell of, in the order in which they are told.
fn choose<'a>(host: &'a Host, arguments: &Arguments) -> anyhow::Result<Vec<&'a Function>> {
    if !arguments.addresses.is_empty() {
        return arguments.addresses.iter().map(|address| named(host, *address)).collect();
    }
    let (mut chosen, others): (Vec<&Function>, Vec<&Function>) = host
        .functions()
        .iter()
        .filter(|function| !function.is_bridge())
        .partition(|function| function.is_display());
    let also = |function: &&Function| arguments.all || function.is_given();
    chosen.extend(others.into_iter().filter(also));
    Ok(chosen)
}

fn named(host: &Host, address: PciAddress) -> anyhow::Result<&Function> {
    match host.function(address) {
        Some(function) => Ok(function),
        None => bail!("{address}: there is no such PCI function (trapline devices --all lists them)"),
    }
}

#[cfg(test)]
mod tests;
