//! trapline: a virtual machine monitor for KVM that gives a guest a physical VGA adapter, from the
//! first BIOS message on.
//!
//! # The crates
//!
//! ```text
//!   trapline            this crate: configuration, firmware tables, birth and death of a machine, the program
//!     |        \
//!     |         trapline-devices   what the guest sees: PCI, Q35, virtio, vfio-user, the software adapter
//!     |           |
//!   trapline-vcpu |                KVM: memory slots, collected writes, vCPU threads, stopping the world
//!          \      |
//!           trapline-io            the access path: Trap, AddressSpace, Feed, Endpoint, Completion
//! ```
//!
//! Arrows go down only: `trapline-io` knows no PCI, VFIO or KVM, and `trapline-devices` and
//! `trapline-vcpu` do not know each other. What a device needs of KVM is a trait of
//! [`trapline_devices::host`], joined to it here. The access path itself is told in [`trapline_io`].
//!
//! # From a device to a machine
//!
//! A device hands in [`parts::Parts`]: its code behind the trait [`trapline_io::Device`], where it
//! sits, which of its configuration dwords change the map. What it decodes is a value,
//! [`trapline_io::device::Claims`], computed from its registers. [`topology`] turns all claims into
//! one address space, memory slots included; nobody else does. So [`machine::Machine`] does not know
//! what its parts are, and RAM is no special case: it is what the host bridge claims.
//!
//! A write that changes the map (a BAR, COMMAND, PAM, a bridge's window) is carried out by
//! [`topology::Topology`], in this order: hide, remove the slots, drain, write, ask
//! again, publish, add the slots. It also turns the legacy VGA window from one way of being carried out
//! ([`trapline_io::window::Mode`]) to another, which is a change of the map too: the function wishes, and a
//! clock ([`window`]) has it done. Several functions may have legacy VGA: the map leads it to one at a time, as
//! the guest's COMMAND and VGA Enable say, and KVM collects for that one alone.
//!
//! # A machine of two parts
//!
//! A host bridge with 1 MiB of RAM and a firmware of three instructions, and a device that switches
//! the machine off. It needs `/dev/kvm`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use trapline::events::Events;
//! use trapline::machine::{Ending, Machine};
//! use trapline::parts::Parts;
//! use trapline_devices::host::{Event, Events as _};
//! use trapline_devices::pci::Devfn;
//! use trapline_devices::q35::{HostBridge, Ram};
//! use trapline_io::device::{Claim, Claims, Range};
//! use trapline_io::endpoint::Service;
//! use trapline_io::publish::Published;
//! use trapline_io::{Device, Fault, Port, Region, Span, Width};
//! use trapline_vcpu::Vm;
//! use vm_memory::{Bytes, MmapRegion, VolatileMemory};
//!
//! struct Switch(Events);
//!
//! impl Device for Switch {
//!     fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
//!         Err(Fault::NoRegister) // the guest reads all ones
//!     }
//!     fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
//!         self.0.report(Event::PowerOff);
//!         Ok(())
//!     }
//!     fn reset(&mut self) {}
//!     fn claims(&self) -> Claims {
//!         let port = Range::Ports(Span::of_len(Port(0x50), 1).expect("one port is a span"));
//!         Claims { ranges: vec![Claim::region(port, Region(0), 0)], bridge: None }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let firmware = MmapRegion::new(0x1_0000)?;
//! // At the reset vector: out 0x50, al; hlt
//! firmware.as_volatile_slice().write_slice(&[0xe6, 0x50, 0xf4], 0xfff0)?;
//!
//! let events = Events::default();
//! let bridge = HostBridge::new(Ram::new(1 << 20)?, Arc::new(firmware))?;
//! let parts = vec![
//!     Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
//!     Parts::platform("switch", Switch(events.clone())),
//! ];
//! let vm = Arc::new(Vm::new()?);
//! let mut machine = Machine::new(vm, 1, Service::Adaptive, Published::default(), parts, events)?;
//! assert_eq!(machine.run(None)?, Ending::PowerOff);
//! machine.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # The chapters
//!
//! * [`config`]: the command line and TOML, checked once;
//! * [`launch`]: from a configuration to a running machine; [`platform`]: the Q35 as parts;
//!   [`adapter`]: the software adapter and its process;
//! * [`machine`], [`parts`], [`topology`], [`events`]: what every machine is made of; [`window`]: the clock of
//!   each function with a legacy window; [`stoppable`]: threads that are called, such as that clock;
//! * [`identity`]: where BARs lie, when some lie where the host has them;
//! * [`sandbox`]: what each thread may ask of the kernel;
//! * [`interrupts`], [`dma`]: what functions of the host need of it besides, and whether interrupts come and end;
//! * [`host`]: the functions of this host, and what stands in the way of giving one to a guest;
//! * [`trace`]: every access of the guest, written down; [`report`]: what became of a run, written down;
//! * [`guest`]: a machine that runs, as whoever watches it sees it;
//! * [`firmware`]: ACPI, SMBIOS, the memory map, Linux by SeaBIOS' option ROM;
//! * [`screen`]: the live view, pictures, text; [`command`]: the program's commands;
//! * [`bench`](mod@bench): what an access costs on this host.

// Unsafe code is in one file, `sandbox/refused`: installing a filter, and the handler of its signal.
pub mod adapter;
pub mod bench;
pub mod command;
pub mod config;
pub mod dma;
pub mod events;
pub mod firmware;
pub mod guest;
pub mod host;
pub mod identity;
pub mod interrupts;
pub mod launch;
pub mod machine;
mod outlet;
pub mod parts;
pub mod platform;
pub mod report;
pub mod sandbox;
pub mod screen;
pub mod stoppable;
pub mod topology;
pub mod trace;
pub mod window;
