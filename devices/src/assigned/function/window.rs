//! The function's side of the fast path: what each access means for the legacy window it owns.

use std::thread::Thread;
use std::time::Instant;

use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Fault, Op, Region, Width};

use super::{Function, regions};
use crate::assigned::backend::Backend;
use crate::legacy;
use crate::pci::spec;

impl<B: Backend> Function<B> {
    /// As [`Function::load`], with the window looked after.
    pub(super) fn watched_read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let Function { backend, owner: Some(owner), .. } = self else { return Err(Fault::NoRegister) };
        if region == Region::VGA && backend.region(region).holds(offset, width) {
            return owner.read(backend, offset, width);
        }
        if !regions::is_quirk(region) {
            self.before(region);
        }
        self.load(region, offset, width)
    }

    /// As [`Function::store`], with the window looked after.
    pub(super) fn watched_write(
        &mut self,
        region: Region,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Fault> {
        let Function { backend, owner: Some(owner), .. } = self else { return Err(Fault::NoRegister) };
        if region == Region::VGA && backend.region(region).holds(offset, width) {
            return owner.write(backend, offset, width, value);
        }
        if regions::is_quirk(region) {
            return self.store(region, offset, width, value);
        }
        self.before(region);
        let done = self.store(region, offset, width, value);
        if region < Region::ROM {
            self.disturb();
        }
        done
    }

    /// A run of writes to the window.
    pub(super) fn watched_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let Function { backend, owner: Some(owner), .. } = self else { return Err(Fault::NoRegister) };
        let end = offset.checked_add(bytes.len() as u64);
        match () {
            () if backend.is_dead() => Err(Fault::Failed),
            () if region != Region::VGA || offset < legacy::WINDOW.0 => Err(Fault::NoRegister),
            () if end.is_none_or(|end| end > backend.region(region).size) => Err(Fault::NoRegister),
            () => owner.write_run(backend, offset, bytes),
        }
    }

    /// Brings out what the guest has written: nothing overtakes it.
    pub(super) fn settle_window(&mut self) {
        if let Some(owner) = &mut self.owner {
            owner.flush(&mut self.backend);
        }
    }

    /// A write to configuration space at `at` was carried out; `reached` says that the device saw some of it.
    pub(super) fn follow_config(&mut self, at: u16, reached: bool) {
        if (spec::COMMAND..spec::COMMAND + 2).contains(&at) {
            self.decode_anew();
        }
        // Power, and registers of the vendor's that may lead anywhere.
        if at >= spec::FIRST_CAPABILITY && reached {
            self.disturb();
            self.decode_anew();
        }
    }

    /// Whether the device decodes ports may have changed.
    pub(super) fn decode_anew(&mut self) {
        let ports = self.config.space().command().io() && !self.config.asleep();
        if let Some(owner) = &mut self.owner {
            owner.decode(ports);
        }
    }

    /// The device may not have what it had, neither registers nor memory.
    pub(super) fn disturb(&mut self) {
        if let Some(owner) = &mut self.owner {
            owner.disturbed();
        }
    }

    /// An access to anything but the legacy region comes behind what is in the shadow.
    fn before(&mut self, region: Region) {
        let Some(owner) = &mut self.owner else { return };
        owner.flush(&mut self.backend);
        if !self.backend.region(region).mappings.is_empty() && region < Region::ROM {
            owner.bar();
        }
    }
}

/// Asked only where [`trapline_io::Device::window`] gives it, of a function that has an owner; without
/// one, all is strict and the BARs are mapped.
impl<B: Backend> Window for Function<B> {
    fn mode(&self) -> Mode {
        self.owner.as_ref().map_or(Mode::Native, legacy::Owner::mode)
    }

    fn watch(&mut self, clock: Thread) {
        if let Some(owner) = &mut self.owner {
            owner.watch(clock);
        }
    }

    fn tick(&mut self, now: Instant) -> Mode {
        let Function { backend, owner, .. } = self;
        let wish = owner.as_mut().map_or(Mode::Native, |owner| owner.tick(backend, now));
        backend.settle();
        wish
    }

    fn turn(&mut self, to: Mode) {
        let Function { backend, owner, .. } = self;
        if let Some(owner) = owner {
            owner.turn(backend, to, Instant::now());
            // While the clock ticks it asks now and then whether the device is still there.
            backend.post(owner.mode().collects());
        }
    }

    fn regained(&mut self) {
        self.disturb();
    }

    fn admits(&self, access: Access) -> bool {
        let Some(owner) = &self.owner else { return true };
        // What comes to the device of it.
        let Some(access) = self.reaching_device(access) else { return true };
        let write = matches!(access.op, Op::Write(_));
        let elsewhere = access.region < Region::ROM && write && owner.mode() == Mode::Shadowed;
        !elsewhere && owner.admits(access)
    }
}
