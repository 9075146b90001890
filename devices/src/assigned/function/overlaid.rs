//! What quirks have in place of what lies there ([`Quirks`](crate::assigned::quirks::Quirks)): as claims, and
//! where an access to one is carried out.

use trapline_io::addr::Position;
use trapline_io::device::{Claim, Range, Retire};
use trapline_io::space::DwordSet;
use trapline_io::window::{Mode, Window};
use trapline_io::{Access, Device, Fault, Gpa, Op, Port, Region, Span, Width};

use super::{Function, config_offset};
use crate::assigned::backend::{Backend, Write};
use crate::assigned::quirks::{Beside, Lead, Overlay, Place, Writes, regions};

impl<B: Backend> Function<B> {
    /// The overlays where the guest sees them. Of a mirror, what changes the map stands apart.
    pub(super) fn claim_quirks(&self, ranges: &mut Vec<Claim>) {
        for (region, overlay) in self.quirks.overlays() {
            for (first, len, changes) in self.runs(&overlay) {
                let Some(range) = self.placed(overlay.on, first, len) else { continue };
                ranges.push(Claim::region(range, region, first).retire(self.retire(&overlay, changes)));
            }
        }
    }

    fn retire(&self, overlay: &Overlay, changes_map: bool) -> Retire {
        match self.mode() {
            mode if mode.collects() && overlay.writes == Writes::Late => Retire::Posted,
            // Where it leads, it may end the shadow.
            Mode::Shadowed => Retire::Topology,
            _ if changes_map => Retire::Topology,
            _ => Retire::Strict,
        }
    }

    /// Parts of an overlay, first byte and length, and whether writes there may change the map.
    fn runs(&self, overlay: &Overlay) -> Vec<(u64, u64, bool)> {
        let Writes::Mirrored(shown) = overlay.writes else {
            return vec![(overlay.first, overlay.len, overlay.writes == Writes::Latched)];
        };
        let topology = self.topology();
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        for (byte, at) in (overlay.first..overlay.first + overlay.len).zip(shown..) {
            let changes = self.byte_changes_map(topology, at);
            match runs.last_mut() {
                Some((_, len, same)) if *same == changes => *len += 1,
                _ => runs.push((byte, 1, changes)),
            }
        }
        runs
    }

    fn byte_changes_map(&self, topology: DwordSet, at: u16) -> bool {
        topology.contains(at.into()) && !self.config.heads_messages(at)
    }

    /// Where the guest sees a part of a BAR, or ports at fixed addresses, if it does.
    fn placed(&self, on: Region, first: u64, len: u64) -> Option<Range> {
        if on == Region::VGA {
            let decodes = self.config.space().command().io() && !self.config.asleep();
            let first = Port(u16::try_from(first).ok().filter(|_| decodes)?);
            return Span::of_len(first, len).map(Range::Ports);
        }
        match self.config.decoded(on.0)? {
            Range::Memory(bar) => part(bar, Gpa(bar.first().0.checked_add(first)?), len).map(Range::Memory),
            Range::Ports(bar) => {
                let first = bar.first().0.checked_add(u16::try_from(first).ok()?)?;
                part(bar, Port(first), len).map(Range::Ports)
            }
        }
    }

    /// Which overlay holds a byte of a BAR.
    pub(super) fn overlay_at(&self, on: Region, at: u64) -> Option<Region> {
        let mut overlays = self.quirks.overlays();
        overlays.find(|(_, overlay)| overlay.meets(on, at, 1)).map(|(region, _)| region)
    }

    /// Whether an overlay has a byte of that part of a BAR.
    pub(super) fn has_overlay(&self, on: Region, first: u64, len: u64) -> bool {
        self.quirks.overlays().any(|(_, overlay)| overlay.meets(on, first, len))
    }

    /// What comes to the device of an access, if anything.
    pub(super) fn reaching_device(&self, access: Access) -> Option<Access> {
        if !regions::is_quirk(access.region) {
            return Some(access);
        }
        let lead = self.quirks.lead(access.region, access.offset, access.width, access.op).ok()?;
        let (Lead::Device((region, offset)) | Lead::Config(_, Beside::Sees((region, offset)))) = lead else {
            return None;
        };
        Some(Access { region, offset, ..access })
    }

    /// Where in configuration space a write comes to, if there: by itself or by an overlay.
    pub(super) fn config_written(&self, access: Access) -> Option<u16> {
        if access.region == Region::CONFIG {
            return config_offset(access.offset, access.width).ok();
        }
        match self.quirks.lead(access.region, access.offset, access.width, access.op) {
            Ok(Lead::Config(at, _)) => Some(at),
            _ => None,
        }
    }

    fn bytes_change_map(&self, at: u16, width: Width) -> bool {
        let topology = self.topology();
        (at..).take(width.bytes()).any(|at| self.byte_changes_map(topology, at))
    }

    /// A read of an overlay.
    pub(super) fn read_overlaid(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match self.quirks.follow(region, offset, width, Op::Read)? {
            Lead::Here(value) => Ok(value),
            Lead::Device(place) => self.read_device(place, width),
            Lead::Config(at, beside) => {
                if let Beside::Sees(place) = beside {
                    // Only that it is read matters.
                    let _ = self.read_device(place, width);
                    self.note_read(place.0, place.1, width);
                }
                self.read_mirrored(at, width)
            }
        }
    }

    /// A write to an overlay.
    pub(super) fn write_overlaid(
        &mut self,
        region: Region,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Fault> {
        let (at, beside) = match self.quirks.follow(region, offset, width, Op::Write(value))? {
            Lead::Here(_) => return Ok(()),
            Lead::Device(place) => return self.write_device(place, width, value),
            Lead::Config(at, beside) => (at, beside),
        };
        let mut done = self.write_mirrored(at, width, value);
        if let Beside::Sees(place) = beside {
            done = done.and(self.write_device(place, width, value));
        }
        // The kernel may make it in the mirror if all of it is the device's own matter.
        let device_alone = self.config.is_device(at, width) && !self.bytes_change_map(at, width);
        match beside {
            Beside::Alike((region, offset)) if device_alone => {
                self.note_write(Write { region, offset, width, value });
            }
            Beside::Sees((region, offset)) if done.is_ok() => {
                self.note_write(Write { region, offset, width, value });
            }
            _ => {}
        }
        done
    }

    /// Reads what the device has under an overlay, or where that leads. Legacy VGA is the business of the
    /// window's owner. What is read and written by an index is never the kernel's to repeat.
    fn read_device(&mut self, (region, offset): Place, width: Width) -> Result<u64, Fault> {
        if region == Region::VGA {
            return Device::read(self, region, offset, width);
        }
        self.settle_window();
        match self.backend.region(region).holds(offset, width) {
            true => self.backend.read(region, offset, width),
            false => Err(Fault::NoRegister),
        }
    }

    /// Writes there.
    fn write_device(&mut self, (region, offset): Place, width: Width, value: u64) -> Result<(), Fault> {
        if region == Region::VGA {
            return Device::write(self, region, offset, width, value);
        }
        self.settle_window();
        let done = match self.backend.region(region).holds(offset, width) {
            true => self.backend.write(region, offset, width, value),
            false => Err(Fault::NoRegister),
        };
        self.disturb();
        done
    }

    fn read_mirrored(&mut self, at: u16, width: Width) -> Result<u64, Fault> {
        let mut value = 0;
        for (at, part, shift) in aligned(at, width) {
            value |= Device::read(self, Region::CONFIG, at.into(), part)? << shift;
        }
        Ok(value)
    }

    fn write_mirrored(&mut self, at: u16, width: Width, value: u64) -> Result<(), Fault> {
        let mut done = Ok(());
        for (at, part, shift) in aligned(at, width) {
            let value = value >> shift & part.all_ones();
            done = done.and(Device::write(self, Region::CONFIG, at.into(), part, value));
        }
        done
    }
}

impl Overlay {
    /// Whether it has a byte of that part of a BAR.
    fn meets(&self, on: Region, first: u64, len: u64) -> bool {
        self.on == on && self.first < first.saturating_add(len) && first < self.first + self.len
    }
}

/// `len` addresses from `first` on, as far as they lie in `bar`.
fn part<A: Position>(bar: Span<A>, first: A, len: u64) -> Option<Span<A>> {
    Span::of_len(first, len)?.intersection(bar)
}

/// An access to configuration space as aligned ones, which cross no dword: byte, width, and how far the value is
/// shifted.
fn aligned(at: u16, width: Width) -> impl Iterator<Item = (u16, Width, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = at.checked_add(u16::try_from(done).ok()?)?;
        let left = width.bytes() - done;
        let fits = |part: &Width| part.bytes() <= left && config_offset(here.into(), *part).is_ok();
        let part = [Width::B4, Width::B2, Width::B1].into_iter().find(fits)?;
        let shift = 8 * done;
        done += part.bytes();
        Some((here, part, shift))
    })
}
