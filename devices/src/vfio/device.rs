//! One function, as a [`Backend`].

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::{Device as _, Fault, Region, Width};

use super::attention::Attention;
use super::irq::{self, Index};
use super::owned::Function;
use super::reset::{Facts, Method};
use super::sys::{Question, View};
use super::{Error, Iommu, Lease, ioeventfd, message, open};
use crate::assigned::backend::{Backend, Irqs, RegionInfo, Signalled, Write};
use crate::host::{Event, Events};
use crate::pci::PciAddress;
use crate::pci::spec::{self, Command};

mod again;
#[cfg(test)]
mod tests;

/// How to use a device.
#[derive(Clone, Default)]
pub struct Settings {
    /// Who is told when the device fails or the host wants it back; else it is only logged.
    pub events: Option<Arc<dyn Events>>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// A function of the host, as a [`Backend`].
///
/// When it is dropped its interrupts are disconnected, bus mastering is off, and its BARs are mapped
/// for nobody's DMA any more. The kernel resets it when its last descriptor is closed: a mapping of a
/// BAR and KVM's VFIO device hold one.
pub struct Device {
    name: String,
    function: Function,
    settings: Settings,
    regions: Vec<RegionInfo>,
    /// Type and subtype of each that has them.
    kinds: Vec<Option<(u32, u32)>>,
    /// The same regions as parts of the device's file.
    files: FileDevice,
    irqs: Irqs,
    attention: Attention,
    facts: Facts,
    method: Method,
    /// A bus reset was tried, and it did not work.
    bus_failed: bool,
    express: bool,
    dead: bool,
    /// The host's wish was told.
    asked_back: bool,
    /// What the kernel refused, and was told once: a guest may ask for it for ever.
    refused: Vec<&'static str>,
    /// Told of each access to the legacy ranges.
    lease: Option<Lease>,
    iommu: Arc<Iommu>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("name", &self.name).field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the function at `address`. Its interrupts are off, it decodes nothing and masters no bus.
    /// Waits for the kernel, which resets the device: up to some seconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(address: PciAddress, iommu: &Arc<Iommu>, settings: Settings) -> Result<Device, Error> {
        let function = open::function(address, iommu)?;
        let opened = open::learn(&function, &iommu.owned());
        let opened = opened.inspect_err(|_| iommu.owned().close(address))?;
        Ok(Device {
            name: address.to_string(),
            function,
            settings,
            regions: opened.regions,
            kinds: opened.kinds,
            files: opened.files,
            irqs: opened.irqs,
            attention: opened.attention,
            facts: opened.facts,
            method: opened.method,
            bus_failed: false,
            express: opened.express,
            dead: false,
            asked_back: false,
            refused: Vec::new(),
            lease: None,
            iommu: Arc::clone(iommu),
        })
    }

    /// From now on bursts of accesses to its legacy ranges have a lease.
    pub fn lease(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Before an access to `region`.
    #[inline]
    fn touch(&self, region: Region) {
        if let Some(lease) = self.lease.as_ref().filter(|_| region == Region::VGA) {
            lease.used();
        }
    }

    /// Where it is on the host.
    pub fn address(&self) -> PciAddress {
        self.function.address
    }

    /// How its next reset goes: what was planned, or what is left of that.
    pub fn method(&self) -> Method {
        self.way(&self.iommu.owned())
    }

    /// Whether it has a PCI Express capability.
    pub fn is_express(&self) -> bool {
        self.express
    }

    /// Set by whoever stops the machine: from then on an interrupted transfer is not tried again, so
    /// that a signal gets a thread out of a device that does not answer.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.files.stopping()
    }

    /// What became of the device after an access that did not work.
    fn look_after(&mut self, fault: Fault) -> Fault {
        // If it lives, the access was one that the kernel does not let through now.
        if fault == Fault::Failed && !self.dead && !self.answers() {
            self.die("does not answer any more: it was removed, or lost its power or its link");
        }
        fault
    }

    /// Whether the device itself answers. Its ids would not tell: those the kernel has a copy of. Its
    /// revision and class come from the device, and cannot be all ones.
    fn answers(&mut self) -> bool {
        let class = self.files.read(Region::CONFIG, spec::REVISION_ID.into(), Width::B4);
        class.is_ok_and(|class| class != Width::B4.all_ones())
    }

    fn die(&mut self, what: &str) {
        if !std::mem::replace(&mut self.dead, true) {
            self.tell(format!("{}: {what}", self.name));
        }
    }

    fn tell(&self, text: String) {
        match &self.settings.events {
            Some(events) => events.report(Event::Failed(text)),
            None => tracing::error!("{text}"),
        }
    }

    fn command(&mut self) -> Result<Command, Fault> {
        let value = self.files.read(Region::CONFIG, spec::COMMAND.into(), Width::B2)?;
        u16::try_from(value).map(Command::from_bits).map_err(|_| Fault::Failed)
    }

    fn set_command(&mut self, command: Command) -> Result<(), Fault> {
        let value = u64::from(command.into_bits());
        self.files.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, value)
    }

    fn connected(&mut self, done: Result<(), Errno>, what: &'static str) -> Result<(), Fault> {
        done.map_err(|errno| {
            self.refuses(what, || format!("the kernel refused to {what}: {errno}"));
            Fault::Failed
        })
    }

    /// Says once what the kernel refused.
    fn refuses(&mut self, what: &'static str, words: impl FnOnce() -> String) {
        if !self.refused.contains(&what) {
            self.refused.push(what);
            tracing::warn!(device = self.name, "{}", words());
        }
    }
}

impl Backend for Device {
    fn name(&self) -> &str {
        &self.name
    }

    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }

    fn typed(&self, kind: (u32, u32)) -> Option<Region> {
        let place = self.kinds.iter().position(|known| *known == Some(kind))?;
        u8::try_from(place).ok().map(Region)
    }

    fn is_dead(&self) -> bool {
        self.dead
    }

    fn resettable(&self) -> bool {
        !matches!(self.way(&self.iommu.owned()), Method::None(_))
    }

    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if self.dead {
            return Err(Fault::Failed);
        }
        self.touch(region);
        self.files.read(region, offset, width).map_err(|fault| self.look_after(fault))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Failed);
        }
        if region == Region::CONFIG {
            // Nothing is done with a device before its COMMAND register is written.
            self.function.fresh.store(false, Relaxed);
        }
        self.touch(region);
        self.files.write(region, offset, width, value).map_err(|fault| self.look_after(fault))
    }

    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Failed);
        }
        let file = self.files.file(region).ok_or(Fault::NoRegister)?.clone();
        self.touch(region);
        if region != Region::ROM {
            let received = open::receive(&file, offset, bytes, &self.files.stopping());
            return received.map_err(|fault| self.look_after(fault));
        }
        // The kernel reads the ROM only while the function decodes memory.
        let command = self.command()?;
        self.set_command(command.with_memory(true))?;
        let read = open::receive(&file, offset, bytes, &self.files.stopping());
        self.set_command(command)?;
        read.map_err(|fault| self.look_after(fault))
    }

    fn write_bytes(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Failed);
        }
        let place = self.files.file(region).ok_or(Fault::NoRegister)?;
        self.touch(region);
        let sent = open::send(place, offset, bytes, &self.files.stopping());
        sent.map_err(|fault| self.look_after(fault))
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        self.files.file(region)
    }

    fn reset(&mut self) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Failed);
        }
        self.start_again()
    }

    fn irqs(&self) -> Irqs {
        self.irqs
    }

    fn enable_intx(&mut self, trigger: BorrowedFd<'_>, unmask: BorrowedFd<'_>) -> Result<(), Fault> {
        if !self.irqs.intx {
            return Err(Fault::NoRegister);
        }
        let file = &self.function.file;
        let done = irq::connect(file, Index::Intx, 0, &[trigger]).and_then(|()| {
            // Only now there is something to unmask.
            irq::connect_unmask(file, unmask).inspect_err(|_| {
                let _ = irq::disconnect(file, Index::Intx);
            })
        });
        self.connected(done, "connect INTx")
    }

    fn disable_intx(&mut self) -> Result<(), Fault> {
        let done = irq::disconnect(&self.function.file, Index::Intx);
        self.connected(done, "disconnect INTx")
    }

    fn enable_vectors(
        &mut self,
        kind: Signalled,
        first: u16,
        triggers: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        let (index, most) = self.vectors(kind);
        if usize::from(first) + triggers.len() > usize::from(most) || triggers.is_empty() {
            return Err(Fault::NoRegister);
        }
        let done = irq::connect(&self.function.file, index, first.into(), triggers);
        self.connected(done, "connect message interrupts")
    }

    fn disable_vectors(&mut self, kind: Signalled) -> Result<(), Fault> {
        let (index, _) = self.vectors(kind);
        let done = irq::disconnect(&self.function.file, index);
        self.connected(done, "disconnect message interrupts")
    }

    fn takes_writes(&self) -> bool {
        true
    }

    fn connect_write(&mut self, write: Write, event: BorrowedFd<'_>) -> Result<(), Fault> {
        let at = self.place_of(write)?;
        let done = ioeventfd::connect(&self.function.file, at, write.width, write.value, event);
        self.connected(done, "make a repeated write by itself")?;
        if let Some(events) = &self.settings.events {
            events.report(Event::Claims);
        }
        Ok(())
    }

    fn disconnect_write(&mut self, write: Write) -> Result<(), Fault> {
        let at = self.place_of(write)?;
        let done = ioeventfd::disconnect(&self.function.file, at, write.width, write.value);
        done.map_err(|_| Fault::Failed)
    }

    fn attend(&mut self) {
        let told = self.attention.take();
        if told.error {
            self.tell(format!(
                "{}: it reported an error that it cannot recover from (PCI Express AER; the host's dmesg has more)",
                self.name
            ));
            self.look_after(Fault::Failed);
        }
        // The kernel asks again and again until it is given.
        if told.request && !std::mem::replace(&mut self.asked_back, true) {
            self.tell(format!(
                "{}: the host wants it back (its driver is being unbound, or it is being removed), so the guest \
                 cannot go on",
                self.name
            ));
        }
    }

    fn attention(&self) -> std::io::Result<Option<OwnedFd>> {
        self.attention.watch().map(Some)
    }
}

impl Device {
    /// Where in the device's file a write goes; the kernel makes none but to BARs.
    fn place_of(&self, write: Write) -> Result<u64, Fault> {
        let bar = self.files.file(write.region).filter(|_| write.region < Region::ROM);
        bar.and_then(|bar| bar.position(write.offset, write.width)).ok_or(Fault::NoRegister)
    }

    fn vectors(&self, kind: Signalled) -> (Index, u16) {
        match kind {
            Signalled::Msi => (Index::Msi, self.irqs.msi),
            Signalled::Msix => (Index::Msix, self.irqs.msix),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.lease.take());
        for index in [Index::Intx, Index::Msi, Index::Msix, Index::Error, Index::Request] {
            // What was not connected may be refused, and a device that is gone refuses all.
            let _ = irq::disconnect(&self.function.file, index);
        }
        let _ = self.set_command(Command::new());
        for mapping in self.regions.drain(..).flat_map(|region| region.mappings) {
            self.iommu.forget(&mapping.memory);
        }
        if let Ok(View::Iommufd(_)) = self.iommu.view() {
            let _ = self.function.file.ask(Question::Detach, &mut message::message(&[0]));
        }
        self.iommu.owned().close(self.function.address);
    }
}
