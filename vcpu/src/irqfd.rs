//! Interrupts of assigned functions that KVM delivers by itself: a device's driver writes an eventfd,
//! and the guest is interrupted, without any thread of ours.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use vmm_sys_util::errno;

use crate::eventfd::Signal;
use crate::routes::{Inputs, LineId, Message, Table, Way};
use crate::vm::Vm;

/// The routing table, and the lines that move when it changes.
#[derive(Debug)]
pub(crate) struct Routing {
    table: Table,
    lines: BTreeMap<LineId, Connected>,
}

/// A line, and the way that KVM knows of it.
#[derive(Debug)]
struct Connected {
    ends: Weak<Ends>,
    /// `None` for a line that is on no wire.
    way: Option<Way>,
}

/// The two descriptors of a line.
#[derive(Debug)]
struct Ends {
    trigger: Signal,
    resample: Signal,
}

impl Routing {
    pub(crate) fn new(limit: usize) -> Routing {
        Routing { table: Table::new(limit), lines: BTreeMap::new() }
    }
}

impl Vm {
    /// Makes `count` vectors without a message. Each has an input of its own until it is dropped.
    ///
    /// # Errors
    /// Out of descriptors, or KVM has no room for so many.
    pub fn vectors(self: &Arc<Vm>, count: usize) -> io::Result<Vec<MessageVector>> {
        let signals: Vec<Signal> = (0..count).map(|_| Signal::new()).collect::<io::Result<_>>()?;
        let gsis = self.routing().lock().table.take(count).ok_or_else(|| {
            io::Error::new(io::ErrorKind::StorageFull, "KVM has no room for so many interrupt routes")
        })?;
        let vector = |(signal, gsi)| MessageVector { vm: Arc::clone(self), signal, gsi, delivers: false };
        Ok(signals.into_iter().zip(gsis).map(vector).collect())
    }

    /// Makes a level-triggered line, on no wire until [`LineMover::lead`] says where it leads.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn line(self: &Arc<Vm>) -> io::Result<LevelLine> {
        let ends = Arc::new(Ends { trigger: Signal::new()?, resample: Signal::new()? });
        let mut routing = self.routing().lock();
        let id = routing.table.name_line();
        routing.lines.insert(id, Connected { ends: Arc::downgrade(&ends), way: None });
        Ok(LevelLine { vm: Arc::clone(self), ends, id })
    }

    /// Tells KVM the table, and moves every line whose way changed. A line goes off the wire before its
    /// way changes, or its level would stay where it was; its device is then asked again.
    fn settle(&self, routing: &mut Routing) -> io::Result<()> {
        let wanted = routing.table.ways();
        let mut moved = Vec::new();
        for (id, line) in &mut routing.lines {
            let way = wanted.get(id).copied();
            if line.way == way {
                continue;
            }
            let was = line.way.take();
            let Some(ends) = line.ends.upgrade() else { continue };
            if let Some(was) = was {
                self.fd().unregister_irqfd(ends.trigger.kvm(), was.gsi)?;
            }
            moved.extend(way.map(|way| (*id, ends, way)));
        }
        self.fd().set_gsi_routing(&routing.table.routing()?)?;
        for (id, ends, way) in moved {
            self.fd().register_irqfd_with_resample(ends.trigger.kvm(), ends.resample.kvm(), way.gsi)?;
            if let Some(line) = routing.lines.get_mut(&id) {
                line.way = Some(way);
            }
            ends.resample.raise()?;
        }
        Ok(())
    }
}

/// A message signalled interrupt: a write to its eventfd delivers its message.
#[derive(Debug)]
pub struct MessageVector {
    vm: Arc<Vm>,
    signal: Signal,
    gsi: u32,
    delivers: bool,
}

impl MessageVector {
    /// The eventfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Sets what a write delivers; with `None` writes wait for the next message. One or two system
    /// calls, one where the message is that of the last time.
    ///
    /// # Errors
    /// The message is no interrupt (its address is not that of a local APIC), or KVM refuses.
    pub fn route(&mut self, message: Option<Message>) -> io::Result<()> {
        let Some(message) = message else { return self.hold() };
        if !message.is_interrupt() {
            self.hold()?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message to {:#x} is no interrupt", message.address),
            ));
        }
        let mut routing = self.vm.routing().lock();
        if routing.table.set(self.gsi, message)
            && let Err(error) = routing.table.routing().and_then(|table| self.vm.fd().set_gsi_routing(&table))
        {
            // KVM has the whole table of before: what it refused must not stand in the next one.
            routing.table.clear(self.gsi);
            drop(routing);
            self.hold()?;
            return Err(error.into());
        }
        drop(routing);
        if !self.delivers {
            self.vm.fd().register_irqfd(self.signal.kvm(), self.gsi)?;
            self.delivers = true;
        }
        Ok(())
    }

    fn hold(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.delivers, false) {
            self.vm.fd().unregister_irqfd(self.signal.kvm(), self.gsi)?;
        }
        Ok(())
    }

    /// Whether a write waits for a message.
    pub fn pending(&self) -> bool {
        !self.delivers && self.signal.is_raised()
    }
}

impl Drop for MessageVector {
    fn drop(&mut self) {
        if let Err(error) = self.hold() {
            tracing::debug!(gsi = self.gsi, %error, "an interrupt was not taken back");
        }
        self.vm.routing().lock().table.give_back(self.gsi);
    }
}

/// A level-triggered interrupt line: a write to [`LevelLine::trigger`] asserts it until the guest
/// acknowledges, which KVM tells by a write to [`LevelLine::resample`].
#[derive(Debug)]
pub struct LevelLine {
    vm: Arc<Vm>,
    ends: Arc<Ends>,
    id: LineId,
}

impl LevelLine {
    /// Written by the device.
    pub fn trigger(&self) -> BorrowedFd<'_> {
        self.ends.trigger.as_fd()
    }

    /// Written by KVM when the guest has acknowledged, and by [`LineMover::lead`]: the line is low then,
    /// and the device may assert it again.
    pub fn resample(&self) -> BorrowedFd<'_> {
        self.ends.resample.as_fd()
    }

    /// What moves the line from outside, for as long as it lives.
    pub fn mover(&self) -> LineMover {
        LineMover { vm: Arc::clone(&self.vm), id: self.id }
    }
}

impl Drop for LevelLine {
    fn drop(&mut self) {
        let mut routing = self.vm.routing().lock();
        routing.table.remove_line(self.id);
        // Others that shared its GSI may have one of their own again.
        if let Err(error) = self.vm.settle(&mut routing) {
            tracing::debug!(%error, "an interrupt line was not taken back");
        }
        routing.lines.remove(&self.id);
    }
}

/// Moves one [`LevelLine`]; nothing happens once that is gone.
#[derive(Debug)]
pub struct LineMover {
    vm: Arc<Vm>,
    id: LineId,
}

impl LineMover {
    /// From now on the line reaches `inputs`. If that is news, the line goes low, and its device is
    /// asked to assert it again. A few system calls; any thread.
    ///
    /// # Errors
    /// KVM refuses; the line is then on no wire.
    pub fn lead(&self, inputs: Inputs) -> io::Result<()> {
        let mut routing = self.vm.routing().lock();
        if !routing.lines.contains_key(&self.id) || !routing.table.lead(self.id, inputs) {
            return Ok(());
        }
        self.vm.settle(&mut routing)
    }
}

/// The default table, which [`Vm::new`] sets.
pub(crate) fn set_default(vm: &kvm_ioctls::VmFd, routing: &Routing) -> Result<(), errno::Error> {
    vm.set_gsi_routing(&routing.table.routing()?)
}
