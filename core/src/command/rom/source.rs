//! Where a ROM is read from: a function of the host by VFIO or by sysfs, or a file.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use trapline_devices::assigned::Backend;
use trapline_devices::rom::{Ids, LARGEST, shadow};
use trapline_devices::vfio::{Device, Interface, Iommu, Settings};
use trapline_io::Region;

use super::super::signals::EndingSignals;
use crate::host::binding::Children;
use crate::host::{Function, Host, PciAddress, Tree, rom};

/// The ways to read a function's ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    Vfio,
    Sysfs,
}

/// Where a ROM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Function(PciAddress),
    File(PathBuf),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Source, Infallible> {
        Ok(text.parse().map_or_else(|_| Source::File(text.into()), Source::Function))
    }
}

/// A ROM that was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// What it is called.
    pub(super) name: String,
    /// How it was read, if it is a function's.
    pub(super) how: Option<By>,
    /// The function's ids.
    pub(super) ids: Option<Ids>,
    /// The kernel gives the copy that its firmware has run.
    pub(super) shadow: bool,
}

impl Found {
    /// From where, in words.
    pub(super) fn whence(&self) -> String {
        match self.how {
            Some(By::Vfio) => format!("{} by VFIO", self.name),
            Some(By::Sysfs) => format!("{} by sysfs", self.name),
            None => self.name.clone(),
        }
    }
}

impl Source {
    /// Reads it; `by` is for functions. Blocks for the device, up to some seconds.
    pub(super) fn read(&self, by: Option<By>) -> Result<Found> {
        match self {
            Source::File(path) => {
                let name = path.display().to_string();
                let bytes = file(path).with_context(|| name.clone())?;
                Ok(Found { bytes, name, how: None, ids: None, shadow: false })
            }
            Source::Function(address) => {
                let host = Host::read(Tree::host());
                let Some(found) = host.function(*address) else {
                    bail!("{address}: there is no such PCI function (trapline devices --all lists them)");
                };
                function(&host, found, by)
            }
        }
    }
}

fn function(host: &Host, function: &Function, by: Option<By>) -> Result<Found> {
    let address = function.address;
    let by = by.unwrap_or(if function.is_given() { By::Vfio } else { By::Sysfs });
    let bytes = match by {
        By::Vfio => by_vfio(address)?,
        By::Sysfs => by_sysfs(host.tree(), address).with_context(|| address.to_string())?,
    };
    // The kernel marks it where it looks for it; one as long as that of the boot adapter is it too.
    let as_long = by == By::Vfio && function.boot_vga && bytes.len() == shadow::SIZE;
    let shadow = function.rom.is_some_and(|rom| rom.shadow) || as_long;
    let ids = Some(Ids { vendor: function.vendor, device: function.device });
    Ok(Found { bytes, name: address.to_string(), how: Some(by), ids, shadow })
}

fn by_vfio(address: PciAddress) -> Result<Vec<u8>> {
    // Its errors name the function.
    let mut device = Device::open(address, &Iommu::new(Interface::Auto), Settings::default())?;
    let size = device.region(Region::ROM).size;
    if size == 0 {
        bail!(
            "{address}: the kernel gives no ROM of it by VFIO: it has none, or none with 55 aa (the host's dmesg says \
             which)"
        );
    }
    let mut bytes = vec![0xff; usize::try_from(size.min(LARGEST))?];
    let read = device.read_bytes(Region::ROM, 0, &mut bytes);
    read.map_err(|_| anyhow!("{address}: its ROM cannot be read by VFIO (the host's dmesg may say why)"))?;
    Ok(bytes)
}

fn by_sysfs(tree: &Tree, address: PciAddress) -> Result<Vec<u8>> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root may read a ROM by sysfs: use sudo");
    }
    let mut kernel = Children::new(tree.clone()).context("cannot find the program's own file")?;
    // What is opened is to be closed again.
    let _signals = EndingSignals::first(|_| ()).context("signals cannot be taken over")?;
    Ok(rom::read(tree, address, &mut kernel)?)
}

/// Reads a file, as far as a ROM may go. A pipe is read too, up to its end.
pub(super) fn file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        bail!("this is larger than 16 MiB, which no ROM is");
    }
    Ok(bytes)
}
