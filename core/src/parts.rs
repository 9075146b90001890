//! What a device hands to the machine: the same struct from an assigned function, the software
//! adapter, a platform device and a test double. So adding a device does not change the machine.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trapline_devices::pci::Devfn;
use trapline_io::Device;
use trapline_io::device::Range;
use trapline_io::space::DwordSet;
use trapline_io::worker::Task;

use crate::dma::Gate;
use crate::identity::HostAddresses;

/// The place of a device in its machine's list of parts.
pub type PartId = usize;

/// Where a device sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not a PCI function: it has no configuration space.
    Platform,
    /// A PCI function.
    Pci {
        /// The bridge above it, by its place in the list; `None` on bus 0.
        parent: Option<PartId>,
        /// Device and function on its bus.
        devfn: Devfn,
    },
}

/// Which thread serves what a vCPU does not carry out itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The worker that all functions share: block I/O, timers, sockets.
    Shared,
    /// A worker of its own: for functions whose access can sleep in the kernel, as legacy VGA does
    /// in the arbiter.
    Own,
}

/// A device, ready to be put into a machine.
pub struct Parts {
    /// What messages call it.
    pub name: String,
    /// The device itself.
    pub device: Box<dyn Device>,
    /// Where it sits.
    pub place: Place,
    /// Which configuration dwords change the map when written.
    pub topology: DwordSet,
    /// Who serves it.
    pub served_by: ServedBy,
    /// A descriptor whose readiness is the device's to attend to.
    pub attention: Option<OwnedFd>,
    /// Futures that its worker drives.
    pub tasks: Vec<Task>,
    /// The ranges whose writes KVM may collect, as its [`trapline_io::window::Window`] wishes: none for all
    /// but functions with legacy VGA.
    pub collected: Vec<Range>,
    /// The host's addresses that it keeps; see [`crate::identity`].
    pub keeps: Option<HostAddresses>,
    /// What must be open before the guest lets it master the bus.
    pub dma: Option<Arc<Gate>>,
    /// Set at the end of the run: then an interrupted access to it is not tried again.
    pub stopping: Option<Arc<AtomicBool>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Parts {
    /// A platform device without anything asynchronous.
    pub fn platform(name: impl Into<String>, device: impl Device + 'static) -> Parts {
        Parts {
            name: name.into(),
            device: Box::new(device),
            place: Place::Platform,
            topology: DwordSet::default(),
            served_by: ServedBy::Shared,
            attention: None,
            tasks: Vec::new(),
            collected: Vec::new(),
            keeps: None,
            dma: None,
            stopping: None,
        }
    }

    /// A PCI function without anything asynchronous.
    pub fn function(
        name: impl Into<String>,
        device: impl Device + 'static,
        parent: Option<PartId>,
        devfn: Devfn,
        topology: DwordSet,
    ) -> Parts {
        Parts { place: Place::Pci { parent, devfn }, topology, ..Parts::platform(name, device) }
    }

    /// The same with a descriptor to watch.
    #[must_use]
    pub fn attention(mut self, fd: OwnedFd) -> Parts {
        self.attention = Some(fd);
        self
    }

    /// The same with a future to drive.
    #[must_use]
    pub fn task(mut self, task: Task) -> Parts {
        self.tasks.push(task);
        self
    }
}
