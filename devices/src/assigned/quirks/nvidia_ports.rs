//! The back door of NVIDIA adapters from the NV4x on at ports 0x3d0 and 0x3d4, onto BAR 0 and so onto the mirror
//! of configuration space at 0x1800 of it.
//!
//! | a guest that | then |
//! |---|---|
//! | writes 0x338 to 0x3d4, and an offset in BAR 0 to 0x3d0 | has chosen a register |
//! | writes 0x538 to 0x3d4 right after that, and reads 0x3d0 | reads it |
//! | writes 0x738 to 0x3d4 right after that, and writes 0x3d0 | writes it |
//!
//! Anything else at one of the two ports begins anew. The numbers are those of whole accesses of 16 or 32
//! bits: index 0x38 of the CRT controller with 3, 5 and 7. All but a write to configuration space reaches the
//! device too.

use trapline_io::{Fault, Op, Region, Width};

use super::{Beside, Card, Lead, Overlay, Quirk, Writes, regions};

const DATA: u64 = 0x3d0;
const INDEX: u64 = 0x3d4;
/// So that an access of 32 bits stays one.
const LEN: u64 = 4;
/// The mirror, as an offset in BAR 0 with its low 8 bits clear.
const MIRROR: u64 = 0x1800;

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

#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    state: State,
    offset: u64,
}

/// The quirk, if the card has a BAR 1.
pub(super) fn on(card: &Card<'_>) -> Option<Box<dyn Quirk>> {
    card.holds(1, 1).then(|| Box::<Ports>::default() as Box<dyn Quirk>)
}

impl Ports {
    /// The byte of configuration space that is chosen.
    fn chosen(&self) -> Option<u16> {
        (self.offset & !0xff == MIRROR).then_some((self.offset & 0xff) as u16)
    }

    fn next(&self, offset: u64, op: Op) -> State {
        match (offset, op, self.state) {
            (INDEX, Op::Write(0x338), State::None) => State::Select,
            (INDEX, Op::Write(0x538), State::Window) => State::Read,
            (INDEX, Op::Write(0x738), State::Window) => State::Write,
            (DATA, Op::Write(_), State::Select) => State::Window,
            _ => State::None,
        }
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

    fn lead(&self, offset: u64, _: Width, op: Op) -> Result<Lead, Fault> {
        let place = (Region::VGA, offset);
        Ok(match (self.chosen(), op, self.state) {
            (Some(at), Op::Read, State::Read) if offset == DATA => Lead::Config(at, Beside::Sees(place)),
            (Some(at), Op::Write(_), State::Write) if offset == DATA => Lead::Config(at, Beside::Nothing),
            _ => Lead::Device(place),
        })
    }

    fn pass(&mut self, offset: u64, _: Width, op: Op) {
        if offset != DATA && offset != INDEX {
            return;
        }
        let next = self.next(offset, op);
        if let (State::Window, Op::Write(value)) = (next, op) {
            self.offset = value;
        }
        self.state = next;
    }

    fn reset(&mut self) {
        *self = Ports::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Width = Width::B4;
    const HARDWARE: Lead = Lead::Device((Region::VGA, DATA));

    fn after(steps: &[(u64, u64)]) -> Ports {
        let mut ports = Ports::default();
        for (port, value) in steps {
            let write = Op::Write(*value);
            assert_eq!(ports.lead(*port, W, write), Ok(Lead::Device((Region::VGA, *port))));
            ports.pass(*port, W, write);
        }
        ports
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
    fn ports_beside_the_two_do_not_matter() {
        let mut ports = after(&[(INDEX, 0x338), (0x3d6, 0), (DATA, 0x1810), (0x3d2, 5), (INDEX, 0x538)]);
        ports.pass(0x3d5, Width::B1, Op::Read);
        assert_eq!(ports.lead(0x3d2, Width::B2, Op::Read), Ok(Lead::Device((Region::VGA, 0x3d2))));
        assert!(matches!(ports.lead(DATA, W, Op::Read), Ok(Lead::Config(0x10, _))));
        ports.reset();
        assert_eq!(ports.lead(DATA, W, Op::Read), Ok(HARDWARE));
    }
}
