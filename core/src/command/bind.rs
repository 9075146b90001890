//! `trapline bind` and `trapline unbind`: functions to vfio-pci and back to the host's drivers.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::Status;
use super::signals::EndingSignals;
use crate::host::binding::{self, Change, Children, Kernel, Plan, Wish};
use crate::host::environment::VfioPci;
use crate::host::{Host, PciAddress, Tree};

/// What can be given to `trapline bind` and `trapline unbind`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Functions, as 0000:01:00.0 or 01:00.0
    #[arg(value_name = "BDF", required = true)]
    addresses: Vec<PciAddress>,

    /// Leave the other functions of their IOMMU groups as they are
    #[arg(long)]
    only: bool,

    /// Take what is in use too: the boot adapter, a network interface that is up, a function that a process has open
    #[arg(long)]
    force: bool,
}

/// What the child is given that writes to sysfs.
#[derive(Debug, clap::Args)]
pub(super) struct WriteArguments {
    file: PathBuf,
    #[arg(allow_hyphen_values = true)]
    text: String,
}

/// Gives functions to vfio-pci.
pub(super) fn bind(arguments: Arguments) -> anyhow::Result<Status> {
    let (host, mut kernel) = start("bind")?;
    let plan = Plan::bind(&host, &arguments.into())?;
    if host.environment().vfio_pci == VfioPci::Available {
        kernel.load(binding::VFIO_PCI)?;
    }
    let _signals = put_off_signals()?;
    say(&binding::bind(host.tree(), &plan, &mut kernel)?);
    Ok(Status::Success)
}

/// Gives functions back to the host.
pub(super) fn unbind(arguments: Arguments) -> anyhow::Result<Status> {
    let (host, mut kernel) = start("unbind")?;
    let plan = Plan::unbind(&host, &arguments.into())?;
    let _signals = put_off_signals()?;
    say(&binding::unbind(host.tree(), &plan, &mut kernel)?);
    Ok(Status::Success)
}

/// Writes to sysfs, as a child of the above. Returns the exit status.
pub(super) fn write(arguments: &WriteArguments) -> u8 {
    binding::write::child(&arguments.file, &arguments.text)
}

/// A first signal does not leave functions half-way between two drivers; a second ends the program at once.
fn put_off_signals() -> anyhow::Result<EndingSignals> {
    EndingSignals::first(|_| ()).context("signals cannot be taken over")
}

fn start(command: &str) -> anyhow::Result<(Host, Children)> {
    if !rustix::process::geteuid().is_root() {
        bail!("trapline {command} changes which driver has a function, which only root may: use sudo");
    }
    let tree = Tree::host();
    let kernel = Children::new(tree.clone()).context("cannot find the program's own file")?;
    Ok((Host::read(tree), kernel))
}

/// One line for each function, as things are now.
fn say(changes: &[Change]) {
    let mut out = std::io::stdout();
    for change in changes {
        // Nobody may be listening; it is done all the same.
        let _ = writeln!(out, "{change}");
    }
}

impl From<Arguments> for Wish {
    fn from(arguments: Arguments) -> Wish {
        let Arguments { addresses, only, force } = arguments;
        Wish { addresses, companions: !only, force }
    }
}
