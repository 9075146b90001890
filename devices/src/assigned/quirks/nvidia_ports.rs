//! The back door of NVIDIA adapters from the NV4x on at ports 0x3d0 and 0x3d4, onto BAR 0 and so onto the mirrors
//! of configuration space in it.
//!
//! | a guest that | then |
//! |---|---|
//! | writes 0x338 to 0x3d4, and an offset in BAR 0 to 0x3d0 | has chosen a register |
//! | writes 0x538 to 0x3d4 right after that, and reads 0x3d0 | reads it |
//! | writes 0x738 to 0x3d4 right after that, and writes 0x3d0 | writes it |
//!
//! Anything else at one of the two ports begins anew. The numbers are those of whole accesses of 16 or 32
//! bits: register 0x38 of the CRT controller with 3, 5 and 7. It may as well be written by bytes, index and value. All
//! but a write to configuration space reaches the device too.
//!
//! Ports 0x3d1 to 0x3d3 are the other bytes of the data, and lead where 0x3d0 leads in the state that they find;
//! they leave the state as it is.

use trapline_io::{Fault, Op, Region, Width};

use super::mirror::within;
use super::nvidia_window::mirrors;
use super::window::Target;
use super::{Beside, Card, Lead, Overlay, Quirk, Writes, regions};

const DATA: u64 = 0x3d0;
const INDEX: u64 = 0x3d4;
/// So that an access of 32 bits stays one.
const LEN: u64 = 4;
/// Where the value of the register is written that the index selects.
const VALUE: u64 = INDEX + 1;
/// The register of the CRT controller.
const REGISTER: u8 = 0x38;

/// See the module's page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    None,
    Select,
    Window,
    Read,
    Write,
}

#[derive(Clone, Debug)]
struct Ports {
    mirrors: [Target; 2],
    state: State,
    /// The CRT controller's index.
    index: u8,
    /// The offset in BAR 0.
    offset: u64,
}

/// The quirk, if the card has a BAR 1.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    card.holds(1, 1).then(|| Box::new(Ports::new(card.config_len())) as Box<dyn Quirk>)
}

impl Ports {
    fn new(config_len: u64) -> Ports {
        Ports { mirrors: mirrors(config_len), state: State::None, index: 0, offset: 0 }
    }

    /// The byte of configuration space that is chosen, and where that ends.
    fn chosen(&self) -> Option<(u64, u64)> {
        let offset = u32::try_from(self.offset).ok()?;
        self.mirrors.iter().find_map(|mirror| mirror.selected_by(offset))
    }

    /// The state after a write of the register.
    fn after(&self, value: u8) -> State {
        match (value, self.state) {
            (3, State::None) => State::Select,
            (5, State::Window) => State::Read,
            (7, State::Window) => State::Write,
            _ => State::None,
        }
    }

    /// Follows a write of the index, of the value, or of both.
    fn program(&mut self, offset: u64, width: Width, value: u64) {
        let bytes = value.to_le_bytes();
        let value = match (offset, width) {
            (INDEX, Width::B1) => None,
            (INDEX, _) => Some(bytes[1]),
            _ => Some(bytes[0]),
        };
        if offset == INDEX {
            self.index = bytes[0];
        }
        self.state = match value {
            _ if self.index != REGISTER => State::None,
            // The value is still to come.
            None => self.state,
            Some(value) => self.after(value),
        };
    }
}

impl Quirk for Ports {
    fn region(&self) -> Region {
        regions::NVIDIA_PORTS
    }

    fn overlays(&self) -> Vec<Overlay> {
        let data = Overlay { on: Region::VGA, first: DATA, len: LEN, writes: Writes::Latched };
        vec![data, Overlay { first: INDEX, writes: Writes::Late, ..data }]
    }

    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        let place = (Region::VGA, offset);
        let beside = match (op, self.state) {
            (Op::Read, State::Read) => Beside::Sees(place),
            (Op::Write(_), State::Write) => Beside::Nothing,
            _ => return Ok(Lead::Device(place)),
        };
        let lane = offset.checked_sub(DATA).filter(|lane| *lane < LEN);
        match lane.zip(self.chosen()) {
            Some((lane, (at, end))) => Ok(Lead::Config(within(at + lane, width, end)?, beside)),
            None => Ok(Lead::Device(place)),
        }
    }

    fn pass(&mut self, offset: u64, width: Width, op: Op) {
        match (offset, op) {
            (INDEX | VALUE, Op::Write(value)) => self.program(offset, width, value),
            (DATA, Op::Write(value)) if self.state == State::Select => {
                (self.state, self.offset) = (State::Window, value);
            }
            (DATA | INDEX, _) => self.state = State::None,
            _ => {}
        }
    }

    fn reset(&mut self) {
        (self.state, self.index, self.offset) = (State::None, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Width = Width::B4;
    const HARDWARE: Lead = Lead::Device((Region::VGA, DATA));

    fn after(steps: &[(u64, u64)]) -> Ports {
        in_widths(W, steps)
    }

    fn in_widths(width: Width, steps: &[(u64, u64)]) -> Ports {
        let mut ports = Ports::new(0x1000);
        for (port, value) in steps {
            let width = if *port == DATA { W } else { width };
            let write = Op::Write(*value);
            assert_eq!(ports.lead(*port, width, write), Ok(Lead::Device((Region::VGA, *port))));
            ports.pass(*port, width, write);
        }
        ports
    }

    #[test]
    fn the_other_mirror_is_configuration_space_too() {
        let ports = after(&[(INDEX, 0x338), (DATA, 0x8_8110), (INDEX, 0x538)]);
        let config = Lead::Config(0x110, Beside::Sees((Region::VGA, DATA)));
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(config));
        let ports = after(&[(INDEX, 0x338), (DATA, 0x8_8004), (INDEX, 0x738)]);
        assert_eq!(ports.lead(DATA, W, Op::Write(0)), Ok(Lead::Config(4, Beside::Nothing)));
        let ports = after(&[(INDEX, 0x338), (DATA, 0x8_9000), (INDEX, 0x538)]);
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
    }

    #[test]
    fn the_register_is_written_by_bytes_too() {
        let steps = [(INDEX, 0x38), (VALUE, 3), (DATA, 0x1810), (INDEX, 0x38), (INDEX, 0x38), (VALUE, 5)];
        let mut ports = in_widths(Width::B1, &steps);
        assert!(matches!(ports.lead(DATA, W, Op::Read), Ok(Lead::Config(0x10, _))));
        ports.pass(DATA, W, Op::Read);
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
        // Another register has nothing to do with it, but is something else.
        let others: [&[(u64, u64)]; 3] = [
            &[(INDEX, 0x37), (VALUE, 3), (DATA, 0x1810), (INDEX, 0x38), (VALUE, 5)],
            &[(INDEX, 0x38), (VALUE, 3), (DATA, 0x1810), (INDEX, 0x0e), (INDEX, 0x38), (VALUE, 5)],
            &[(INDEX, 0x38), (VALUE, 3), (DATA, 0x1810), (VALUE, 3), (VALUE, 5)],
        ];
        for steps in others {
            assert_eq!(in_widths(Width::B1, steps).lead(DATA, W, Op::Read), Ok(HARDWARE), "{steps:?}");
        }
        // The index stays.
        let ports = in_widths(Width::B1, &[(INDEX, 0x38), (VALUE, 3), (DATA, 0x1804), (VALUE, 7)]);
        assert_eq!(ports.lead(DATA, W, Op::Write(1)), Ok(Lead::Config(4, Beside::Nothing)));
    }

    #[test]
    fn a_register_is_chosen_and_read_once() {
        let mut ports = after(&[(INDEX, 0x338), (DATA, 0x1810), (INDEX, 0x538)]);
        let config = Lead::Config(0x10, Beside::Sees((Region::VGA, DATA)));
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(config));
        assert_eq!(ports.lead(DATA, W, Op::Write(0)), Ok(HARDWARE));
        ports.pass(DATA, W, Op::Read);
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
    }

    #[test]
    fn a_register_is_chosen_and_written_once() {
        let mut ports = after(&[(INDEX, 0x338), (DATA, 0x1804), (INDEX, 0x738)]);
        assert_eq!(ports.lead(DATA, Width::B2, Op::Write(7)), Ok(Lead::Config(4, Beside::Nothing)));
        assert_eq!(ports.lead(DATA, Width::B2, Op::Read), Ok(HARDWARE));
        ports.pass(DATA, Width::B2, Op::Write(7));
        assert_eq!(ports.lead(DATA, Width::B2, Op::Write(7)), Ok(HARDWARE));
    }

    #[test]
    fn anything_else_begins_anew() {
        let orders: [&[(u64, u64)]; 5] = [
            // Twice the first step is none.
            &[(INDEX, 0x338), (INDEX, 0x338), (DATA, 0x1810), (INDEX, 0x538)],
            &[(INDEX, 0x338), (INDEX, 0x538)],
            &[(INDEX, 0x338), (DATA, 0x1810), (INDEX, 0x338), (INDEX, 0x538)],
            &[(INDEX, 0x338), (DATA, 0x1810), (DATA, 0x1810), (INDEX, 0x538)],
            &[(INDEX, 0x338), (DATA, 0x1910), (INDEX, 0x538)],
        ];
        for order in orders {
            assert_eq!(after(order).lead(DATA, W, Op::Read), Ok(HARDWARE), "{order:?}");
        }
        let ports = after(&[(INDEX, 0x338), (DATA, 0x1804), (INDEX, 0x338), (INDEX, 0x738)]);
        assert_eq!(ports.lead(DATA, W, Op::Write(3)), Ok(HARDWARE));
        // Reads of the index too.
        let mut ports = after(&[(INDEX, 0x338), (DATA, 0x1810), (INDEX, 0x538)]);
        ports.pass(INDEX, W, Op::Read);
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
    }

    #[test]
    fn a_byte_of_data_is_the_byte_of_its_lane() {
        let read = after(&[(INDEX, 0x338), (DATA, 0x1810), (INDEX, 0x538)]);
        let write = after(&[(INDEX, 0x338), (DATA, 0x1804), (INDEX, 0x738)]);
        for (lane, byte) in (0..LEN).zip(0_u16..) {
            let place = (Region::VGA, DATA + lane);
            let config = Lead::Config(0x10 + byte, Beside::Sees(place));
            assert_eq!(read.lead(DATA + lane, Width::B1, Op::Read), Ok(config));
            assert_eq!(read.lead(DATA + lane, Width::B1, Op::Write(0)), Ok(Lead::Device(place)));
            let config = Lead::Config(4 + byte, Beside::Nothing);
            assert_eq!(write.lead(DATA + lane, Width::B1, Op::Write(0)), Ok(config));
            assert_eq!(write.lead(DATA + lane, Width::B1, Op::Read), Ok(Lead::Device(place)));
        }
        let ports = after(&[(INDEX, 0x338), (DATA, 0x18fe), (INDEX, 0x538)]);
        assert!(ports.lead(DATA + 1, Width::B1, Op::Read).is_ok());
        assert_eq!(ports.lead(DATA + 1, Width::B2, Op::Read), Err(Fault::NoRegister), "past its end");
    }

    #[test]
    fn ports_beside_the_two_leave_the_state() {
        let mut ports = after(&[(INDEX, 0x338), (0x3d6, 0), (DATA, 0x1810), (0x3d2, 5), (INDEX, 0x538)]);
        ports.pass(0x3d5, Width::B1, Op::Read);
        ports.pass(0x3d2, Width::B2, Op::Read);
        assert_eq!(ports.lead(0x3d6, Width::B2, Op::Read), Ok(Lead::Device((Region::VGA, 0x3d6))));
        assert!(matches!(ports.lead(DATA, W, Op::Read), Ok(Lead::Config(0x10, _))));
        ports.reset();
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
    }
}
