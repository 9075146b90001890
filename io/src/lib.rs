//! The access path of trapline: from what a guest did to the answer it gets.
//!
//! ```text
//!  guest access                     guest write to legacy VGA, while the kernel collects those
//!      |  VM exit                         |  no exit
//!      v                                  v
//!    Trap                               ring of the kernel
//!      |  AddressSpace::resolve           |  Feed: whoever comes to this function next, or a clock
//!      v                                  v
//!   Access                              Access, posted
//!      |                                  |
//!      | <-------- comes after -----------+
//!      v                           token free:  the vCPU carries it out itself
//!   Endpoint  ------------------>  token taken: it pushes, spins a little, sleeps on its Completion
//!   queue + token [endpoint]       posted:      it only pushes, and rings for the worker
//!      |
//!      |  posted writes that follow each other: as one, where the device merges
//!      v
//!    Device               plain `&mut self` code: an emulated device, a file, a socket
//!      |
//!      v
//!   Completion            the value, back to the one who waits
//!      |
//!      v
//!   KVM_RUN
//! ```
//!
//! A *trap* is what the guest touched: a port or an address, a width, a value ([`space`] finds whose that
//! is, through the caller's own view, [`publish`]); an *access* is what a device sees of it: a region, an
//! offset, a width, a value. One direction, no way back but the [`completion::Completion`]. This crate
//! knows addresses, file descriptors and offsets; it does not know PCI registers, VFIO or KVM. A
//! *function* is a PCI function or one platform device; a *region* is a BAR of it, its configuration
//! space, its ROM, its part of the legacy VGA window.
//!
//! # The chapters
//!
//! What is passed on:
//!
//! * [`addr`]: guest addresses as types of their own, and intervals of them;
//! * [`access`]: [`Trap`] and [`Access`], the same event before and behind the look-up;
//! * [`device`]: the trait [`Device`], all the code behind an endpoint, and what it claims;
//! * [`window`]: the ways in which a legacy VGA window is carried out.
//!
//! How an address is found:
//!
//! * [`space`]: the immutable table from addresses to regions, in which every overlap is settled;
//! * [`publish`]: one writer, and readers that never lock.
//!
//! How an access crosses threads:
//!
//! * [`queue`], [`completion`], [`doorbell`]: the way there, the way back, the wake-up;
//! * [`endpoint`]: one function's queue and the right to touch its device: the heart of it all, and
//!   the page that argues why no access is lost, overtaken or done twice;
//! * [`feed`]: writes that the kernel collected, which come before what anybody asks now;
//! * [`rounds`]: the worker's half of that protocol;
//! * [`path`]: the whole way of one vCPU, trap in, value out.
//!
//! How it reaches a file:
//!
//! * [`file`](mod@file): a device whose regions are parts of a file, as VFIO's are;
//! * [`ring`]: what is asked of io_uring; [`worker`]: the thread that drives it.
//!
//! And [`stages`]: where the time goes; [`trace`]: what each access was.
//!
//! # Why vCPUs do their own reads
//!
//! A push costs 1/300 of an exit, an inline `pread` of a register 1/20; a read by way of a sleeping
//! worker costs 10 to 150 times the inline one. So the queue and the ring serve what is *posted*,
//! where nobody waits, and a vCPU that needs an answer takes the token. Likewise with writes: one that
//! the kernel collects costs a fraction of an exit, and a line of text that leaves as one run costs
//! the device one access and not eighty. [`endpoint::Service`] keeps all ways selectable, so that the
//! claim can be checked on any machine.
//!
//! # A machine of one device
//!
//! ```
//! use std::sync::Arc;
//! use trapline_io::completion::{Caller, Completions};
//! use trapline_io::device::{Claim, Claims, Range};
//! use trapline_io::doorbell::Doorbell;
//! use trapline_io::endpoint::Endpoint;
//! use trapline_io::path::{Path, Topology};
//! use trapline_io::publish::Published;
//! use trapline_io::queue::CallerId;
//! use trapline_io::space::{ConfigLatch, EndpointId, SpaceBuilder};
//! use trapline_io::{Access, Address, Device, Fault, Op, Port, Region, Span, Trap, Width};
//!
//! /// One byte of memory behind port 0x80.
//! struct PostCode(u8);
//!
//! impl Device for PostCode {
//!     fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
//!         Ok(u64::from(self.0))
//!     }
//!     fn write(&mut self, _: Region, _: u64, _: Width, value: u64) -> Result<(), Fault> {
//!         self.0 = (value & 0xff) as u8;
//!         Ok(())
//!     }
//!     fn reset(&mut self) {
//!         self.0 = 0;
//!     }
//!     fn claims(&self) -> Claims {
//!         let port = Range::Ports(Span::new(Port(0x80), Port(0x80)).unwrap());
//!         Claims { ranges: vec![Claim::region(port, Region(0), 0)], bridge: None }
//!     }
//! }
//!
//! /// Nothing in this machine moves.
//! struct Fixed;
//! impl Topology for Fixed {
//!     fn change(&self, _: &mut Caller, _: EndpointId, _: Access) {}
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! // The machine: one place for answers per vCPU, one endpoint per function, one table.
//! let completions = Completions::new(1);
//! let bell = Arc::new(Doorbell::new()?);
//! let device = Box::new(PostCode(0));
//! let mut builder = SpaceBuilder::default();
//! for claim in device.claims().ranges {
//!     builder.claim(EndpointId(0), &claim);
//! }
//! let endpoint = Arc::new(Endpoint::new("post code", device, completions.clone(), bell));
//! let space = Published::new(builder.build());
//!
//! // One vCPU's way through it.
//! let mut path = Path::new(
//!     space.reader(),
//!     Arc::new(ConfigLatch::default()),
//!     Arc::new([endpoint]),
//!     Arc::new(Fixed),
//!     completions.caller(CallerId(0)).expect("there is room for one"),
//! );
//! let mut access = |port, width, op| path.carry_out(Trap { at: Address::Port(Port(port)), width, op });
//! access(0x80, Width::B1, Op::Write(0x42));
//! assert_eq!(access(0x80, Width::B1, Op::Read), 0x42);
//! // Half of this access meets nobody.
//! assert_eq!(access(0x80, Width::B2, Op::Read), 0xff42);
//! # Ok(())
//! # }
//! ```
//!
//! # How it is tested
//!
//! The hand-over between threads runs under loom (`tests/loom_*.rs`), which tries the orders of the threads'
//! steps with stand-ins for the queue, the locks and the kernel; the same tests with real threads
//! are in `tests/order.rs`, `tests/collected.rs` and `tests/worker.rs`. What was collected, posted, merged
//! and strict is compared with the plain list of what the guest did in `tests/collected.rs`, in
//! `tests/order_model.rs` and by the fuzz target `collected`; what a trace tells of it in
//! `tests/traced.rs`. The table is compared with a model that knows no tables in `tests/space.rs`, and
//! what the kernel does with transfers is asked of the kernel in `tests/ring_file.rs`.

pub mod access;
pub mod addr;
pub mod completion;
pub mod device;
pub mod doorbell;
pub mod endpoint;
pub mod feed;
pub mod file;
pub mod path;
pub mod publish;
pub mod queue;
#[cfg(not(loom))]
pub mod ring;
pub mod rounds;
pub mod space;
pub mod stages;
mod sync;
pub mod trace;
pub mod window;
#[cfg(not(loom))]
pub mod worker;

pub use access::{Access, Address, Op, Region, Trap, Width};
pub use addr::{Gpa, Port, Span};
pub use device::{Device, Fault};
