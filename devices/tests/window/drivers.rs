//! Random programs of what drivers do to a VGA, in any mode and in any order, and some of what no driver
//! does.
//!
//! One thing is left out, since it differs by right: in the shadow a load does not reach the card, and so
//! does not fill its latches. A program that enters a planar mode and uses what a load in text mode left
//! there sees another value. No program is known to do so; whatever has written registers here loads
//! from the window before anything else.

use proptest::prelude::*;
use trapline_io::{Op, Width};

use crate::guest::{BAR_0, BAR_2, Guest, TEXT};
use crate::machine::{gpa, port};
use crate::modes::{MODE_3, MODE_7, MODE_12, MODE_13, Mode};
use crate::play::Event;

const MODES: [Mode; 5] = [MODE_3, MODE_3, MODE_7, MODE_12, MODE_13];

/// What may be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// A mode set, all of it or without clearing the screen.
    Mode(usize),
    Font(bool),
    ReadFont,
    KernelLines(u64, u64),
    BiosLine(String),
    Menu(u64),
    /// A store at this place in the window, and the same number of neighbours above it.
    Store(u64, Width, u64, usize),
    Load(u64, Width),
    Palette(u8, u8),
    ReadPalette(u8),
    Attribute(u8, u8),
    /// A register read behind an index port.
    Read(u16, u8),
    Start(u64, bool),
    Cursor(u64),
    /// A store with these values of set/reset, its enable, function, write mode, bit mask and map mask, after
    /// a load that fills the latches.
    Draw(u64, [u8; 6], u64),
    Bochs(u16, bool),
    Bank(u16),
    BochsOff,
    Frame(u64, Width, Option<u64>),
    /// A port's byte through BAR 2.
    Alias(u16, Width, u64),
    /// COMMAND, something in the window meanwhile, and both decoded again.
    Hidden(u64),
    /// The adapter disabled, something meanwhile, and enabled.
    Disabled(bool),
    /// Any port in any width.
    Port(u16, Width, u64),
}

fn widths() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::B1, Width::B2, Width::B2, Width::B4, Width::B8])
}

/// Places in the window: mostly in the visible text, sometimes anywhere.
fn places() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..4000_u64).prop_map(|at| TEXT + at),
        2 => (0..0x7ff0_u64).prop_map(|at| TEXT + at),
        1 => (0..0x7ff0_u64).prop_map(|at| 0xb_0000 + at),
        3 => (0..0x1_fff0_u64).prop_map(|at| 0xa_0000 + at),
    ]
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(vec![0x3c2, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3c3]),
        2 => 0x3c0..0x3e0_u16,
        1 => 0x3b0..0x3bc_u16,
    ]
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => (0..9_u64, any::<u8>()).prop_map(|(index, value)| u64::from(value) << 8 | index),
        2 => prop::sample::select(vec![0x0302, 0x0204, 0x1005, 0x0e06, 0x0a06, 0xff08, 0x0003, 0x0001, 0x67, 0x63]),
        1 => any::<u32>().prop_map(u64::from),
    ]
}

pub fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..MODES.len()).prop_map(Action::Mode),
        2 => any::<bool>().prop_map(Action::Font),
        1 => Just(Action::ReadFont),
        5 => (0..1000_u64, 1..60_u64).prop_map(|(number, cells)| Action::KernelLines(number, cells)),
        1 => "[ -~]{1,20}".prop_map(Action::BiosLine),
        1 => (0..10_u64).prop_map(Action::Menu),
        12 => (places(), widths(), any::<u64>(), prop_oneof![Just(1_usize), 2..30_usize])
            .prop_map(|(at, width, value, count)| Action::Store(at, width, value, count)),
        6 => (places(), widths()).prop_map(|(at, width)| Action::Load(at, width)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(first, seed)| Action::Palette(first, seed)),
        1 => any::<u8>().prop_map(Action::ReadPalette),
        2 => (0..0x15_u8, 0..64_u8).prop_map(|(index, value)| Action::Attribute(index, value)),
        3 => (prop::sample::select(vec![0x3c4_u16, 0x3ce, 0x3d4, 0x3b4]), 0..0x1c_u8)
            .prop_map(|(port, index)| Action::Read(port, index)),
        4 => (0..0x4000_u64, any::<bool>()).prop_map(|(at, bytes)| Action::Start(at, bytes)),
        3 => (0..0x4000_u64).prop_map(Action::Cursor),
        5 => (places(), any::<[u8; 6]>(), any::<u64>())
            .prop_map(|(at, registers, value)| Action::Draw(at, registers, value)),
        2 => (prop::sample::select(vec![4_u16, 8, 32]), any::<bool>())
            .prop_map(|(bpp, clear)| Action::Bochs(bpp, clear)),
        2 => (0..16_u16).prop_map(Action::Bank),
        2 => Just(Action::BochsOff),
        3 => (prop_oneof![0..0x8_0000_u64, 0..0x4000_u64], widths(), any::<Option<u64>>())
            .prop_map(|(at, width, value)| Action::Frame(at, width, value)),
        2 => (0..0x20_u16, prop::sample::select(vec![Width::B1, Width::B2]), values())
            .prop_map(|(at, width, value)| Action::Alias(at, width, value)),
        1 => (0..4_u64).prop_map(Action::Hidden),
        1 => any::<bool>().prop_map(Action::Disabled),
        4 => (ports(), prop::sample::select(vec![Width::B1, Width::B2, Width::B2, Width::B4]), values())
            .prop_map(|(port, width, value)| Action::Port(port, width, value)),
    ]
}

impl Guest {
    /// Fills the latches, wherever the window lies now.
    fn fill_latches(&mut self) {
        for at in [0xa_0000, 0xb_0000, TEXT] {
            self.load(at, Width::B1);
        }
    }

    /// Does what `action` says.
    pub fn act(&mut self, action: &Action) {
        match action {
            Action::Mode(mode) => self.set_mode(&MODES[*mode]),
            Action::Font(bios) => self.load_font(*bios, 12),
            Action::ReadFont => self.read_font(4),
            Action::KernelLines(number, cells) => {
                for line in 0..3 {
                    self.kernel_line(number + line, *cells);
                }
            }
            Action::BiosLine(text) => self.bios_line(text),
            Action::Menu(chosen) => self.menu(*chosen),
            Action::Store(at, width, value, count) => {
                for (n, at) in (0..).zip((*at..).step_by(width.bytes())).take(*count) {
                    self.store(at, *width, value.rotate_left(n * 8));
                }
                return;
            }
            Action::Load(at, width) => return self.load(*at, *width),
            Action::Palette(first, seed) => return self.palette(*first, 4, *seed),
            Action::ReadPalette(first) => return self.read_palette(*first, 3),
            Action::Attribute(index, value) => return self.attributes(0x3da, &[(*index, *value)]),
            Action::Read(port, index) => self.read_register(*port, *index),
            Action::Start(at, bytes) => return self.start(*at, *bytes),
            Action::Cursor(at) => return self.two_halves(0x0e, *at),
            Action::Draw(at, registers, value) => self.draw(*at, *registers, *value),
            Action::Bochs(bpp, clear) => self.set_bochs((320, 200), *bpp, if *clear { 0 } else { 0x80 }),
            Action::Bank(bank) => self.bochs(5, *bank),
            Action::BochsOff => self.bochs(4, 0),
            Action::Frame(at, width, value) => {
                let op = value.map_or(Op::Read, |value| Op::Write(value & width.all_ones()));
                // A store across the end of a page is none that a driver makes.
                let at = at & !(width.bytes() as u64 - 1);
                self.events.push(Event::Access(gpa(BAR_0 + at, *width, op)));
            }
            Action::Alias(at, width, value) => {
                let op = Op::Write(value & width.all_ones());
                let at = BAR_2 + 0x400 + u64::from(at & !1);
                self.events.push(Event::Access(gpa(at, *width, op)));
            }
            Action::Hidden(command) => {
                self.store(TEXT + 20, Width::B2, 0x1241);
                self.command(*command);
                self.store(TEXT + 22, Width::B2, 0x1242);
                self.load(TEXT + 20, Width::B4);
                self.two_halves(0x0c, 0x123);
                self.command(3);
            }
            Action::Disabled(wholly) => {
                let (off, on) =
                    if *wholly { ((0x3c3, 0), (0x3c3, 1)) } else { ((0x3c2, 0x65), (0x3c2, 0x67)) };
                self.outb(off.0, off.1);
                self.store(TEXT + 40, Width::B4, 0x1243_1242);
                self.load(TEXT + 40, Width::B4);
                self.outb(on.0, on.1);
            }
            Action::Port(at, width, value) => {
                let op = Op::Write(value & width.all_ones());
                self.events.push(Event::Access(port(*at, *width, op)));
            }
        }
        self.fill_latches();
    }

    fn start(&mut self, at: u64, bytes: bool) {
        if bytes {
            let [low, high, ..] = at.to_le_bytes();
            self.registers_in_two(0x3d4, &[(0x0c, high), (0x0d, low)]);
        } else {
            self.two_halves(0x0c, at);
        }
    }

    fn draw(&mut self, at: u64, registers: [u8; 6], value: u64) {
        let [set_reset, enable, function, mode, bits, planes] = registers;
        let graphics = [(0, set_reset), (1, enable), (3, function), (5, mode & 3), (8, bits)];
        self.registers(0x3ce, &graphics);
        self.registers(0x3c4, &[(2, planes)]);
        self.load(at, Width::B1);
        self.store(at, Width::B1, value);
        self.load(at + 1, Width::B1);
        self.store(at + 2, Width::B2, value >> 8);
        self.registers(0x3c4, &[(2, if bits & 1 == 0 { 3 } else { 15 })]);
        let back = if bits & 1 == 0 { 0x10 } else { 0 };
        self.registers(0x3ce, &[(0, 0), (1, 0), (3, 0), (5, back), (8, 0xff)]);
    }
}
