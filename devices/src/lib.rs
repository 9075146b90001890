//! What a trapline guest sees: PCI configuration, the Q35 platform, virtio, functions given to the
//! guest by VFIO or over vfio-user, and the software VGA adapter.
//!
//! Everything here is a [`trapline_io::Device`]: plain `&mut self` code that the access path calls
//! in order, one access at a time, from whichever thread owns the function's token. A device knows
//! its registers and nothing of KVM, of vCPUs or of the machine it is part of. What it needs of the
//! host it takes as a trait of [`host`], which the machine joins to KVM.
//!
//! # The chapters
//!
//! What every function is made of:
//!
//! * [`host`]: interrupt lines and messages, and events for whoever runs the machine;
//! * [`pci`]: configuration space as values and masks, BARs, capabilities, registers that hold addresses before
//!   any firmware runs, addresses of the host's functions.
//!
//! The machine around the adapter:
//!
//! * [`q35`]: RAM, host bridge, LPC bridge, interrupt wires, root ports;
//! * [`platform`]: what is no PCI function: fw_cfg, clock, serial line, debug console, keyboard;
//! * [`virtio`]: disks in raw images.
//!
//! The adapter:
//!
//! * [`rom`]: expansion ROMs, read, judged, compared and put right;
//! * [`legacy`]: the fixed addresses of whoever owns VGA, and how they are made fast;
//! * [`assigned`]: a function that is not emulated here, as the guest sees it;
//! * [`seen`]: what is noted of a function while a guest has it, and how it interrupts now;
//! * [`vfio`]: the way to such a function of the host, by the kernel;
//! * [`vfio_user`]: the way to one over a socket, and the server at its other end;
//! * [`vga`]: the software adapter that such a server offers, and its screen.
//!
//! # How to write a device
//!
//! 1. **Registers** in [`read`](trapline_io::Device::read) and [`write`](trapline_io::Device::write).
//!    What the guest gives is any value at any offset in any width: what is not there is a
//!    [`Fault`](trapline_io::Fault), never a panic.
//! 2. **Claims**: what the function decodes now, computed from its registers, so that nobody has to be
//!    told of a change. A write that may change them is marked where the device is handed to the
//!    machine: [`ConfigSpace::TOPOLOGY`](pci::ConfigSpace::TOPOLOGY) for COMMAND and BARs. What changes
//!    them otherwise is reported as [`Event::Claims`](host::Event::Claims).
//! 3. **Interrupts** through an [`IrqLine`](host::IrqLine) of its own; which wire that is, and who
//!    shares it, is the machine's to know.
//! 4. **Work of its own**: a descriptor that the function's worker watches and answers with
//!    [`attend`](trapline_io::Device::attend), as [`platform::uart`] has it, or a task on its ring,
//!    as [`virtio::block`].
//! 5. **Reset** to power-on. A host resource (a file, a socket, memory) stays.
//!
//! A PCI function with one register behind BAR 0, which interrupts while the register is not zero:
//!
//! ```
//! use std::sync::Arc;
//! use trapline_devices::host::IrqLine;
//! use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Identity, Pin, spec};
//! use trapline_io::device::{Claim, Claims};
//! use trapline_io::{Device, Fault, Region, Width};
//!
//! const BAR: Region = Region::bar(0);
//!
//! struct Mailbox {
//!     config: ConfigSpace,
//!     letter: u64,
//!     irq: Arc<dyn IrqLine>,
//! }
//!
//! impl Mailbox {
//!     fn new(irq: Arc<dyn IrqLine>) -> Mailbox {
//!         let mut config = ConfigSpace::new(Identity {
//!             vendor: 0x1234,
//!             device: 0x0001,
//!             revision: 0,
//!             class: 0x08_8000, // a system peripheral of no kind
//!             subsystem: (0, 0),
//!         });
//!         config.add_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, size: 4096 });
//!         config.set_pin(Pin::A);
//!         Mailbox { config, letter: 0, irq }
//!     }
//! }
//!
//! impl Device for Mailbox {
//!     fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
//!         match (region, offset, width) {
//!             (Region::CONFIG, ..) => self.config.read_region(offset, width),
//!             (BAR, 0, Width::B4) => Ok(self.letter),
//!             (BAR, 0, _) => Err(Fault::BadWidth),
//!             _ => Err(Fault::NoRegister),
//!         }
//!     }
//!
//!     fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
//!         match (region, offset, width) {
//!             (Region::CONFIG, ..) => self.config.write_region(offset, width, value).map(drop),
//!             (BAR, 0, Width::B4) => {
//!                 self.letter = value & Width::B4.all_ones();
//!                 self.irq.set(self.letter != 0);
//!                 Ok(())
//!             }
//!             (BAR, 0, _) => Err(Fault::BadWidth),
//!             _ => Err(Fault::NoRegister),
//!         }
//!     }
//!
//!     fn reset(&mut self) {
//!         self.config.reset();
//!         self.letter = 0;
//!         self.irq.set(false);
//!     }
//!
//!     fn claims(&self) -> Claims {
//!         let bar = self.config.decoded(0).map(|range| Claim::region(range, BAR, 0));
//!         Claims { ranges: bar.into_iter().collect(), bridge: None }
//!     }
//! }
//!
//! # struct NoWire;
//! # impl IrqLine for NoWire {
//! #     fn set(&self, _: bool) {}
//! # }
//! # fn main() -> Result<(), Fault> {
//! # let wire = Arc::new(NoWire);
//! let mut mailbox = Mailbox::new(wire);
//! assert_eq!(mailbox.claims(), Claims::default());
//! // The firmware places the BAR and switches memory decode on.
//! mailbox.write(Region::CONFIG, spec::BAR0.into(), Width::B4, 0xc000_0000)?;
//! mailbox.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 2)?;
//! assert_eq!(mailbox.claims().ranges.len(), 1);
//! mailbox.write(BAR, 0, Width::B4, 7)?;
//! assert_eq!(mailbox.read(BAR, 0, Width::B4), Ok(7));
//! // A guest may do anything; this is all ones to it.
//! assert_eq!(mailbox.read(BAR, 1, Width::B8), Err(Fault::NoRegister));
//! # Ok(())
//! # }
//! ```
//!
//! How a machine takes such a device is told by the crate `trapline`, in `parts`.
//!
//! # Who may do what
//!
//! Nothing that a guest, a card, a file or a socket feeds to a device may panic it, block it without
//! a deadline, or make its memory or its log grow without bound. Unsafe code is in two files: `q35/ram`,
//! which asks the kernel for huge pages, and `vfio/sys`, which makes VFIO's calls.

pub mod assigned;
pub mod host;
pub mod legacy;
pub mod pci;
pub mod platform;
pub mod q35;
pub mod rom;
pub mod seen;
pub mod vfio;
pub mod vfio_user;
pub mod vga;
pub mod virtio;
