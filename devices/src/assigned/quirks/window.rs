//! A pair of registers, index and data: what the data register is depends on what was written to the index.
//!
//! The index reaches the device always. Where it selects a mirror of configuration space, the data register is
//! configuration space as the guest sees it: a read reaches the device too, which may care, a write does not.
//! Byte lanes count: the byte at data + 1 is the one behind the byte that the index selects.

use trapline_io::{Fault, Op, Region, Width};

use super::mirror::within;
use super::{Beside, Lead, Overlay, Place, Quirk, Writes};

/// Bytes of each register.
const REGISTER: u64 = 4;

/// Values of the index that select configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The one that selects its first byte.
    pub first: u32,
    /// How many bytes there are.
    pub len: u64,
}

impl Target {
    /// The byte of configuration space that this value of the index selects, and where that ends.
    pub fn selected_by(self, index: u32) -> Option<(u64, u64)> {
        let at = u64::from(index.checked_sub(self.first)?);
        (at < self.len).then_some((at, self.len))
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub(super) struct Window {
    region: Region,
    bar: u8,
    /// Offset of the index register; the data register is behind it.
    first: u64,
    targets: Vec<Target>,
    index: u32,
}

impl Window {
    /// The pair at byte `first` of a BAR.
    pub fn new(region: Region, bar: u8, first: u64, targets: Vec<Target>) -> Window {
        Window { region, bar, first, targets, index: 0 }
    }

    /// The offset as a place of the device.
    pub fn place(&self, offset: u64) -> Place {
        (Region::bar(self.bar), offset)
    }

    /// What the index selects: the byte of configuration space, and where that ends.
    fn selected(&self) -> Option<(u64, u64)> {
        self.targets.iter().find_map(|target| target.selected_by(self.index))
    }
}

impl Quirk for Window {
    fn region(&self) -> Region {
        self.region
    }

    fn overlays(&self) -> Vec<Overlay> {
        let on = Region::bar(self.bar);
        let index = Overlay { on, first: self.first, len: REGISTER, writes: Writes::Plain };
        let data = Overlay { first: self.first + REGISTER, writes: Writes::Latched, ..index };
        vec![index, data]
    }

    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        let lane = offset.checked_sub(self.first + REGISTER);
        let (Some(lane), Some((at, len))) = (lane, self.selected()) else {
            return Ok(Lead::Device(self.place(offset)));
        };
        let beside = match op {
            Op::Read => Beside::Sees(self.place(offset)),
            Op::Write(_) => Beside::Nothing,
        };
        Ok(Lead::Config(within(at + lane, width, len)?, beside))
    }

    fn pass(&mut self, offset: u64, width: Width, op: Op) {
        if let (Some(lane @ 0..REGISTER), Op::Write(value)) = (offset.checked_sub(self.first), op) {
            self.index = written(self.index, lane, width, value);
        }
    }

    fn reset(&mut self) {
        self.index = 0;
    }
}

/// A register of 4 bytes after a write from its byte `lane` on.
pub(super) fn written(register: u32, lane: u64, width: Width, value: u64) -> u32 {
    let shift = 8 * lane.min(REGISTER);
    let kept = u64::from(register) & !(width.all_ones() << shift);
    ((kept | (value & width.all_ones()) << shift) & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::super::regions;
    use super::*;

    const DATA: u64 = 0x14;

    fn window() -> Window {
        Window::new(regions::ATI_WINDOW, 1, 0x10, vec![Target { first: 0x4000, len: 0x100 }])
    }

    #[test]
    fn a_byte_of_data_is_the_byte_of_its_lane() {
        let mut window = window();
        window.pass(0x10, Width::B4, Op::Write(0x4010));
        for lane in 0..4 {
            let place = (Region::bar(1), DATA + lane);
            let config = Lead::Config(0x10 + u16::try_from(lane).unwrap(), Beside::Sees(place));
            assert_eq!(window.lead(DATA + lane, Width::B1, Op::Read), Ok(config));
        }
        window.pass(0x10, Width::B4, Op::Write(0x40fe));
        assert!(window.lead(DATA, Width::B2, Op::Read).is_ok());
        assert_eq!(window.lead(DATA, Width::B4, Op::Read), Err(Fault::NoRegister), "past its end");
    }

    #[test]
    fn the_index_is_written_in_any_width() {
        let mut window = window();
        window.pass(0x10, Width::B1, Op::Write(0x04));
        window.pass(0x11, Width::B1, Op::Write(0x40));
        assert_eq!(window.lead(DATA, Width::B2, Op::Write(0)), Ok(Lead::Config(4, Beside::Nothing)));
        window.pass(0x12, Width::B2, Op::Write(0x8000));
        let hardware = Lead::Device((Region::bar(1), DATA));
        assert_eq!(window.lead(DATA, Width::B2, Op::Write(0)), Ok(hardware));
        window.pass(0x12, Width::B2, Op::Write(0));
        window.reset();
        assert_eq!(window.lead(DATA, Width::B2, Op::Read), Ok(hardware));
    }

    #[test]
    fn lanes_are_written_and_kept() {
        assert_eq!(written(0x1122_3344, 0, Width::B4, 5), 5);
        assert_eq!(written(0x1122_3344, 1, Width::B1, 0xff), 0x1122_ff44);
        assert_eq!(written(0x1122_3344, 2, Width::B2, 0xaabb), 0xaabb_3344);
        assert_eq!(written(0x1122_3344, 3, Width::B2, 0xaabb), 0xbb22_3344);
        assert_eq!(written(0x1122_3344, 0, Width::B8, 0xffff_0000_0000), 0);
    }
}
