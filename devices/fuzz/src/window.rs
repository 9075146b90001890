//! The owner of legacy VGA under any guest, and any turns of the machine, beside the same adapter that is
//! used strictly: reads, registers and memory are the same.

use std::time::{Duration, Instant};

use super::width;
use arbitrary::Arbitrary;
use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::RegionInfo;
use trapline_devices::legacy::{Owner, Phase, Ways};
use trapline_devices::vga::Adapter;
use trapline_io::window::Mode;
use trapline_io::{Access, Device, Fault, Region, Width};

const PORTS: [u16; 10] = [0x3c2, 0x3c3, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3b4, 0x3c0];
const MODES: [Mode; 4] = [Mode::Native, Mode::Resting, Mode::Coalesced, Mode::Shadowed];
/// Mode 3 as far as the window goes, index and data.
const TEXT: [(u16, u16); 9] = [
    (0x3c4, 0x0300),
    (0x3c4, 0x0302),
    (0x3c4, 0x0204),
    (0x3ce, 0x0001),
    (0x3ce, 0x0003),
    (0x3ce, 0x0004),
    (0x3ce, 0x1005),
    (0x3ce, 0x0e06),
    (0x3ce, 0xff08),
];

/// What a guest does, and the machine meanwhile.
#[derive(Arbitrary, Debug)]
enum Step {
    Port(u8, u8, u32),
    /// An indexed register of sequencer or graphics controller.
    Register(bool, u8, u8),
    Window(bool, u16, u8, u64),
    Read(bool, u16, u8),
    Run(bool, u16, Vec<u8>),
    /// A register of the Bochs interface.
    Bochs(u8, u16),
    /// All registers of text mode.
    Text,
    Beat,
    Turn(u8),
}

struct Card(Adapter, Vec<RegionInfo>);

impl Card {
    fn new() -> Card {
        Card(Adapter::new(None).expect("video memory"), Vec::new())
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "fuzz"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.1
    }
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.0.read(region, offset, width)
    }
    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.0.write(region, offset, width, value)
    }
}

struct Both {
    owner: Owner,
    card: Card,
    strict: Card,
    now: Instant,
}

impl Both {
    fn turn(&mut self, to: Mode) {
        let was = self.owner.mode();
        self.owner.turn(&mut self.card, to, self.now);
        assert!(self.owner.mode() == to || to == Mode::Shadowed);
        if was == Mode::Shadowed && self.owner.mode() != was {
            // Reads of the shadow loaded no latches.
            let _ = self.card.0.read(Region::VGA, 0xb_8000, Width::B1);
            let _ = self.strict.0.read(Region::VGA, 0xb_8000, Width::B1);
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let value = value & width.all_ones();
        if !self.owner.admits(Access::write(Region::VGA, offset, width, value)) {
            self.turn(Mode::Coalesced);
        }
        let done = self.owner.write(&mut self.card, offset, width, value);
        assert_eq!(done, self.strict.0.write(Region::VGA, offset, width, value));
    }

    fn bochs(&mut self, register: u8, value: u16) {
        if self.owner.mode() == Mode::Shadowed {
            self.turn(Mode::Coalesced);
        }
        let at = 0x500 + 2 * u64::from(register % 11);
        for card in [&mut self.card, &mut self.strict] {
            let _ = card.0.write(Region::bar(2), at, Width::B2, value.into());
        }
        self.owner.disturbed();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Port(port, any, value) => {
                self.write(PORTS[usize::from(port) % PORTS.len()].into(), width(any & 1), value.into());
            }
            Step::Register(graphics, index, value) => {
                let port = if graphics { 0x3ce } else { 0x3c4 };
                self.write(port, Width::B2, u64::from(value) << 8 | u64::from(index % 10));
            }
            Step::Window(text, at, any, value) => self.write(place(text, at), width(any), value),
            Step::Read(text, at, any) => {
                let (offset, width) = (place(text, at), width(any));
                let seen = self.owner.read(&mut self.card, offset, width);
                assert_eq!(seen, self.strict.0.read(Region::VGA, offset, width));
            }
            Step::Run(text, at, bytes) => {
                let offset = place(text, at);
                let most = usize::try_from(0xc_0000 - offset).unwrap_or(0);
                let bytes = &bytes[..bytes.len().min(most)];
                let _ = self.owner.write_run(&mut self.card, offset, bytes);
                let _ = self.strict.write_bytes(Region::VGA, offset, bytes);
            }
            Step::Bochs(register, value) => self.bochs(register, value),
            Step::Text => {
                TEXT.into_iter().for_each(|(port, both)| self.write(port.into(), Width::B2, both.into()))
            }
            Step::Beat => {
                self.now += Duration::from_millis(16);
                let wish = self.owner.tick(&mut self.card, self.now);
                self.turn(wish);
            }
            Step::Turn(to) => self.turn(MODES[usize::from(to & 3)]),
        }
    }
}

/// An address of the text window, or of all of it that an access of any width may reach.
fn place(text: bool, at: u16) -> u64 {
    if text { 0xb_8000 + u64::from(at & 0x3f) } else { 0xa_0000 + 2 * u64::from(at).min(0xfffc) }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(steps) = super::input::<Vec<Step>>(data) else { return };
    let ways = Ways { coalesced: true, shadowed: true, phase: Phase::Auto };
    let mut owner = Owner::new(ways, true).expect("it may be fast");
    owner.decode(true);
    let mut both = Both { owner, card: Card::new(), strict: Card::new(), now: Instant::now() };
    both.write(0x3c2, Width::B1, 0x67);
    both.step(Step::Text);
    for step in steps {
        both.step(step);
    }
    both.turn(Mode::Resting);
    assert_eq!(both.card.0.registers(), both.strict.0.registers());
    let planes = |card: &Card| {
        let mut bytes = vec![0; 0x4_0000];
        card.0.framebuffer().bytes().copy_to(&mut bytes);
        bytes
    };
    assert!(planes(&both.card) == planes(&both.strict));
}
