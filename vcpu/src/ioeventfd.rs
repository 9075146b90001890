//! Eventfds that KVM signals in place of an exit: what of the published address space has one.
//!
//! They follow the map as the [slots](crate::slots) do, in two steps: what a device is about to stop
//! decoding loses its eventfds first, what it decodes gets them afterwards. Without one
//! the write traps and reaches the same device, so none of this can fail for the guest.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use trapline_io::device::Signal;
use trapline_io::space::AddressSpace;
use trapline_io::{Address, Width};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use crate::eventfd::with_eventfd;
use crate::vm::Vm;

/// Writes to an address that become a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Ioeventfd {
    /// Where the write begins.
    pub at: Address,
    /// Which writes, and what is signalled.
    pub signal: Signal,
}

/// The eventfds that an address space asks for.
pub fn wanted(space: &AddressSpace) -> Vec<Ioeventfd> {
    space.signals().map(|(at, signal)| Ioeventfd { at, signal: signal.clone() }).collect()
}

/// The eventfds that KVM has. Dropping this removes them.
///
/// Changes belong to whoever holds the topology mutex.
#[derive(Debug)]
pub struct Ioeventfds {
    vm: Arc<Vm>,
    there: Vec<Ioeventfd>,
    /// What KVM refused, so that it is not asked again as long as it is wanted.
    refused: Vec<Ioeventfd>,
    /// That a write traps all the same was put into the log.
    told: bool,
}

impl Ioeventfds {
    /// A machine in which every write traps.
    pub fn new(vm: Arc<Vm>) -> Ioeventfds {
        Ioeventfds { vm, there: Vec::new(), refused: Vec::new(), told: false }
    }

    /// What KVM has.
    pub fn iter(&self) -> impl Iterator<Item = &Ioeventfd> {
        self.there.iter()
    }

    /// Removes what is not in `wanted`: to be done before a device stops decoding it. A write that was
    /// made before has been signalled then. Each is a system call that waits until no vCPU looks at it any
    /// more, up to milliseconds.
    pub fn remove_unwanted(&mut self, wanted: &[Ioeventfd]) {
        self.refused.retain(|it| wanted.contains(it));
        let vm = &self.vm;
        // What KVM does not give up stays in the list, and is tried again.
        self.there.retain(|it| {
            wanted.contains(it)
                || change(vm, it, Change::Remove)
                    .inspect_err(|error| tracing::error!(at = ?it.at, %error, "KVM keeps an ioeventfd"))
                    .is_err()
        });
    }

    /// Makes what is in `wanted` and not there yet: to be done after a device started decoding it. What
    /// KVM refuses traps; the first is told in the log.
    pub fn add_missing(&mut self, wanted: &[Ioeventfd]) {
        for it in wanted {
            if self.there.contains(it) || self.refused.contains(it) {
                continue;
            }
            match change(&self.vm, it, Change::Add) {
                Ok(()) => self.there.push(it.clone()),
                Err(error) => {
                    self.refused.push(it.clone());
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::warn!(at = ?it.at, %error, "KVM has no ioeventfd for a register: it traps");
                    }
                }
            }
        }
    }
}

impl Drop for Ioeventfds {
    fn drop(&mut self) {
        self.remove_unwanted(&[]);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// Adds or removes it.
fn change(vm: &Vm, it: &Ioeventfd, change: Change) -> Result<(), errno::Error> {
    let at = match it.at {
        Address::Port(port) => IoEventAddress::Pio(port.0.into()),
        Address::Gpa(gpa) => IoEventAddress::Mmio(gpa.0),
    };
    with_eventfd(&it.signal.event, |event| {
        let Some((width, value)) = it.signal.value else { return ioctl(vm, event, &at, NoDatamatch, change) };
        let [a, b, c, d, ..] = value.to_le_bytes();
        match width {
            Width::B1 => ioctl(vm, event, &at, a, change),
            Width::B2 => ioctl(vm, event, &at, u16::from_le_bytes([a, b]), change),
            Width::B4 => ioctl(vm, event, &at, u32::from_le_bytes([a, b, c, d]), change),
            Width::B8 => ioctl(vm, event, &at, value, change),
        }
    })
}

/// One `KVM_IOEVENTFD`; the type of `value` is the width.
fn ioctl<T: Into<u64>>(
    vm: &Vm,
    event: &EventFd,
    at: &IoEventAddress,
    value: T,
    change: Change,
) -> Result<(), errno::Error> {
    match change {
        Change::Add => vm.fd().register_ioevent(event, at, value),
        Change::Remove => vm.fd().unregister_ioevent(event, at, value),
    }
}
