//! Interrupts of assigned functions: what the devices ask for, joined to KVM and the chipset's wires.
//!
//! Once it is joined an interrupt goes from the host's kernel to the guest without any code of ours. Whether
//! interrupts come, and end, is therefore looked at from outside: `count` has what sysfs tells, `judge` what
//! that means, `watch` the thread that looks, a few times after each change and then no more.

pub(crate) mod count;
pub(crate) mod judge;
pub(crate) mod watch;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use trapline_devices::host::{Interrupts, Level, Message, Vector};
use trapline_devices::pci::Pin;
use trapline_devices::q35::{Following, Inputs, Pirqs};
use trapline_vcpu::{LevelLine, MessageVector, Vm};

/// The interrupts of one function.
pub struct FunctionInterrupts {
    vm: Arc<Vm>,
    pirqs: Pirqs,
    /// Device numbers from the function's own up to that on the root bus.
    path: Vec<u8>,
}

impl FunctionInterrupts {
    /// Of a function whose pins arrive at the chipset's wires by `path`: device numbers from the
    /// function's own up to that on the root bus, as [`Pirqs::line_behind`] takes them.
    pub fn new(vm: Arc<Vm>, pirqs: Pirqs, path: Vec<u8>) -> FunctionInterrupts {
        FunctionInterrupts { vm, pirqs, path }
    }
}

impl Interrupts for FunctionInterrupts {
    fn vectors(&self, count: usize) -> io::Result<Vec<Box<dyn Vector>>> {
        let boxed = |vector| Box::new(KvmVector(vector)) as Box<dyn Vector>;
        Ok(self.vm.vectors(count)?.into_iter().map(boxed).collect())
    }

    fn line(&self, pin: Pin) -> io::Result<Box<dyn Level>> {
        let line = self.vm.line()?;
        let mover = line.mover();
        let follow = move |Inputs { io_apic, isa }: Inputs| {
            let inputs = trapline_vcpu::Inputs { io_apic, pic: isa.map(u32::from) };
            if let Err(error) = mover.lead(inputs) {
                tracing::error!(?inputs, %error, "an interrupt line of an assigned function is lost");
            }
        };
        let following = self.pirqs.follow(&self.path, pin, Box::new(follow));
        Ok(Box::new(KvmLevel { line, _following: following }))
    }
}

#[derive(Debug)]
struct KvmVector(MessageVector);

impl Vector for KvmVector {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn route(&mut self, message: Option<Message>) -> io::Result<()> {
        self.0.route(message.map(|Message { address, data }| trapline_vcpu::Message { address, data }))
    }

    fn pending(&self) -> bool {
        self.0.pending()
    }
}

#[derive(Debug)]
struct KvmLevel {
    line: LevelLine,
    _following: Following,
}

impl Level for KvmLevel {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.line.trigger()
    }

    fn resample(&self) -> BorrowedFd<'_> {
        self.line.resample()
    }
}
