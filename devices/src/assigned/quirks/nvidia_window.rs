//! The window in BAR 5 of NVIDIA adapters, by which their BIOS reaches BAR 0 without memory accesses
//! (documented by envytools): two enable registers, index and data.
//!
//! While bit 0 of both enables is set the pair works as `window` has it; else it reaches the device, and the
//! state stays.

use trapline_io::{Fault, Op, Region, Width};

use super::window::{Target, Window, written};
use super::{Card, Lead, Overlay, Quirk, Writes, regions};

const BAR: u8 = 5;
/// Master, enable, index and data, 4 bytes each.
const INDEX: u64 = 8;
const LEN: u64 = 0x10;

/// See the module's page.
#[derive(Clone, Debug)]
struct Gated {
    window: Window,
    /// Master and enable.
    enables: [u32; 2],
}

/// The quirk, if the card has the ports.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    let targets = mirrors(card.config_len()).into();
    let window = Window::new(regions::NVIDIA_WINDOW, BAR, INDEX, targets);
    card.has_ports(BAR, LEN).then(|| Box::new(Gated { window, enables: [0; 2] }) as Box<dyn Quirk>)
}

/// The mirrors of configuration space of so many bytes in BAR 0.
pub(super) fn mirrors(config_len: u64) -> [Target; 2] {
    [Target { first: 0x1800, len: 0x100 }, Target { first: 0x8_8000, len: config_len }]
}

impl Gated {
    fn open(&self) -> bool {
        self.enables[0] & self.enables[1] & 1 == 1
    }
}

impl Quirk for Gated {
    fn region(&self) -> Region {
        self.window.region()
    }

    fn overlays(&self) -> Vec<Overlay> {
        let on = Region::bar(BAR);
        let master = Overlay { on, first: 0, len: 4, writes: Writes::Plain };
        let enable = Overlay { first: 4, ..master };
        [vec![master, enable], self.window.overlays()].concat()
    }

    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        if offset < INDEX || !self.open() {
            return Ok(Lead::Device(self.window.place(offset)));
        }
        self.window.lead(offset, width, op)
    }

    fn pass(&mut self, offset: u64, width: Width, op: Op) {
        if offset >= INDEX {
            if self.open() {
                self.window.pass(offset, width, op);
            }
            return;
        }
        let register = usize::from(offset >= 4);
        if let (Some(enable), Op::Write(value)) = (self.enables.get_mut(register), op) {
            *enable = written(*enable, offset % 4, width, value);
        }
    }

    fn reset(&mut self) {
        self.window.reset();
        self.enables = [0; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::super::Beside;
    use super::super::tests::{GEFORCE, made};
    use super::*;

    const DATA: u64 = 0xc;

    fn write(quirk: &mut dyn Quirk, offset: u64, value: u64) {
        let write = Op::Write(value);
        assert_eq!(quirk.lead(offset, Width::B4, write), Ok(Lead::Device((Region::bar(BAR), offset))));
        quirk.pass(offset, Width::B4, write);
    }

    #[test]
    fn both_enables_open_it() {
        let mut quirk = made(GEFORCE, regions::NVIDIA_WINDOW).unwrap();
        let quirk = &mut *quirk;
        let config = |at| Ok(Lead::Config(at, Beside::Sees((Region::bar(BAR), DATA))));
        let hardware = Ok(Lead::Device((Region::bar(BAR), DATA)));
        write(quirk, 0, 1);
        write(quirk, 8, 0x8_8010);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), hardware);
        write(quirk, 4, 1);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), hardware, "the index was not seen");
        write(quirk, 8, 0x8_8010);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), config(0x10));
        // Neither updated nor cleared while it is closed.
        write(quirk, 4, 0);
        write(quirk, 8, 0x8_8014);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), hardware);
        write(quirk, 4, 3);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), config(0x10));
        write(quirk, 8, 0x1804);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), config(4));
        write(quirk, 8, 0x1900);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), hardware);
        quirk.reset();
        write(quirk, 8, 0x1804);
        assert_eq!(quirk.lead(DATA, Width::B4, Op::Read), hardware);
    }

    #[test]
    fn it_needs_ports_and_legacy_vga() {
        assert!(made(GEFORCE.with_bar(5, 8), regions::NVIDIA_WINDOW).is_none());
        assert!(made(GEFORCE.without_vga(), regions::NVIDIA_WINDOW).is_none());
    }
}
