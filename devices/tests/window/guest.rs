//! What firmware, boot loaders, kernels and games do to a VGA, as lists of accesses: mode sets, fonts,
//! palettes, text and its scrolling, planes, banks.

use trapline_devices::vga::spec;
use trapline_io::{Access, Op, Region, Trap, Width};

use crate::machine::{gpa, port};
use crate::modes::Mode;
use crate::play::Event;

/// Where the frame buffer and the registers lie when the machine places them.
pub const BAR_0: u64 = 0xe000_0000;
pub const BAR_2: u64 = 0xe100_0000;

/// The text window in colour, and what of it a screen of 80 by 25 shows.
pub const TEXT: u64 = 0xb_8000;
const LINE: u64 = 160;
const LINES: u64 = 25;
const TEXT_LEN: u64 = 0x8000;

/// A guest's program under construction.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    pub events: Vec<Event>,
    /// The first visible byte of the text window.
    origin: u64,
    /// Mode sets clear what the screen shows of text, no more.
    brief: bool,
}

impl Guest {
    /// One whose mode sets are brief.
    pub fn brief() -> Guest {
        Guest { brief: true, ..Guest::default() }
    }

    fn access(&mut self, trap: Trap) {
        self.events.push(Event::Access(trap));
    }

    pub fn outb(&mut self, at: u16, value: u8) {
        self.access(port(at, Width::B1, Op::Write(value.into())));
    }

    pub fn outw(&mut self, at: u16, value: u16) {
        self.access(port(at, Width::B2, Op::Write(value.into())));
    }

    pub fn inb(&mut self, at: u16) {
        self.access(port(at, Width::B1, Op::Read));
    }

    pub fn store(&mut self, at: u64, width: Width, value: u64) {
        self.access(gpa(at, width, Op::Write(value & width.all_ones())));
    }

    pub fn load(&mut self, at: u64, width: Width) {
        self.access(gpa(at, width, Op::Read));
    }

    pub fn command(&mut self, value: u64) {
        self.events.push(Event::Config(Access::write(Region::CONFIG, 4, Width::B2, value)));
    }

    /// Registers behind an index port, index and value in one access.
    pub fn registers(&mut self, at: u16, writes: &[(u8, u8)]) {
        for (index, value) in writes {
            self.outw(at, u16::from_le_bytes([*index, *value]));
        }
    }

    /// The same in two accesses each.
    pub fn registers_in_two(&mut self, at: u16, writes: &[(u8, u8)]) {
        for (index, value) in writes {
            self.outb(at, *index);
            self.outb(at + 1, *value);
        }
    }

    /// Reads a register behind an index port.
    pub fn read_register(&mut self, at: u16, index: u8) {
        self.outb(at, index);
        self.inb(at + 1);
    }

    /// Registers of the attribute controller, the screen on again.
    pub fn attributes(&mut self, status: u16, writes: &[(u8, u8)]) {
        self.inb(status);
        for (index, value) in writes {
            self.outb(0x3c0, *index);
            self.outb(0x3c0, *value);
        }
        self.outb(0x3c0, 0x20);
    }

    /// A mode as a VGA BIOS sets it, its palette and 16 Ki blank cells or a black screen included.
    pub fn set_mode(&mut self, mode: &Mode) {
        let numbered = |values: &[u8]| (0..).zip(values.iter().copied()).collect::<Vec<_>>();
        self.palette(0, if self.brief { 8 } else { 256 }, 0);
        let color = mode.misc & 1 == 1;
        let (crtc, status) = if color { (0x3d4, 0x3da) } else { (0x3b4, 0x3ba) };
        self.outb(0x3c2, mode.misc);
        self.attributes(status, &numbered(&mode.attribute));
        self.registers(0x3c4, &numbered(&mode.sequencer));
        self.registers(0x3ce, &numbered(&mode.graphics));
        self.registers(crtc, &[(0x11, 0)]);
        self.registers(crtc, &numbered(&mode.crtc));
        self.inb(status);
        self.outb(0x3c0, 0x20);
        self.origin = 0;
        let (first, len, fill) = mode.screen();
        let len = if self.brief { LINES * LINE } else { len };
        for at in (first..first + len).step_by(if fill == 0 { 8 } else { 2 }) {
            let width = if fill == 0 { Width::B8 } else { Width::B2 };
            self.store(at, width, fill);
        }
    }

    /// Colours of the DAC from `first` on, by index and data ports.
    pub fn palette(&mut self, first: u8, count: usize, seed: u8) {
        self.outb(0x3c6, 0xff);
        self.outb(0x3c8, first);
        for entry in 0..count {
            let [byte, ..] = entry.wrapping_mul(37).to_le_bytes();
            for component in 0..3 {
                self.outb(0x3c9, byte.wrapping_add(seed).wrapping_mul(3 + component) & 0x3f);
            }
        }
    }

    /// Reads colours back.
    pub fn read_palette(&mut self, first: u8, count: usize) {
        self.outb(0x3c7, first);
        for _ in 0..3 * count {
            self.inb(0x3c9);
        }
    }

    /// A font as a VGA BIOS (or, not `bios`, as Linux) loads it: plane 2 alone, then text again.
    pub fn load_font(&mut self, bios: bool, glyphs: u64) {
        self.registers(0x3c4, &[(0, 1), (2, 4), (4, 7), (0, 3)]);
        self.registers(0x3ce, &[(4, 2), (5, 0), (6, if bios { 4 } else { 0 })]);
        for glyph in 0..glyphs {
            for line in 0..16 {
                let byte = (glyph * 31 + line * 73) & 0xff;
                self.store(0xa_0000 + glyph * 32 + line, Width::B1, byte);
            }
        }
        self.registers(0x3c4, &[(0, 1), (2, 3), (4, 3), (0, 3)]);
        self.registers(0x3ce, &[(4, 0), (5, 0x10), (6, 0x0e)]);
    }

    /// Reads a font back, as programs do that save it.
    pub fn read_font(&mut self, glyphs: u64) {
        self.registers(0x3c4, &[(2, 4), (4, 7)]);
        self.registers(0x3ce, &[(4, 2), (5, 0), (6, 4)]);
        for at in 0..glyphs * 8 {
            self.load(0xa_0000 + at * 4, Width::B4);
        }
        self.registers(0x3c4, &[(2, 3), (4, 3)]);
        self.registers(0x3ce, &[(4, 0), (5, 0x10), (6, 0x0e)]);
    }

    /// Words at the start of the text window, to see whether there is one (vgacon).
    pub fn probe_text(&mut self) {
        for pattern in [0xaa55, 0x55aa] {
            self.load(TEXT, Width::B2);
            self.load(TEXT + 2, Width::B2);
            self.store(TEXT, Width::B2, pattern);
            self.store(TEXT + 2, Width::B2, !pattern);
            self.load(TEXT, Width::B2);
            self.load(TEXT + 2, Width::B2);
            self.store(TEXT, Width::B2, 0x0720);
            self.store(TEXT + 2, Width::B2, 0x0720);
        }
    }

    /// A line of a kernel's messages: cells, cursor, and the screen one line on; by start address, and where
    /// memory ends by a copy to its start.
    pub fn kernel_line(&mut self, number: u64, cells: u64) {
        self.hide_cursor();
        let row = self.origin + (LINES - 1) * LINE;
        for cell in 0..cells.min(80) {
            self.store(TEXT + row + 2 * cell, Width::B2, 0x0700 | (0x21 + (number + cell) % 90));
        }
        if self.origin + (LINES + 1) * LINE >= TEXT_LEN {
            for at in (0..(LINES - 1) * LINE).step_by(8) {
                self.events.push(Event::Copy(TEXT + self.origin + LINE + at, TEXT + at, Width::B8));
            }
            self.origin = 0;
        } else {
            self.origin += LINE;
        }
        let row = self.origin + (LINES - 1) * LINE;
        for at in (0..LINE).step_by(2) {
            self.store(TEXT + row + at, Width::B2, 0x0720);
        }
        self.two_halves(0x0c, self.origin / 2);
        self.two_halves(0x0e, row / 2);
        // The cursor's size again.
        self.registers_in_two(0x3d4, &[(0x0a, 13), (0x0b, 14)]);
    }

    fn hide_cursor(&mut self) {
        self.outb(0x3d4, 0x0a);
        self.events.push(Event::Update(0x3d5, 0xc0, 0x2d));
        self.outb(0x3d4, 0x0b);
        self.events.push(Event::Update(0x3d5, 0xe0, 0x0e));
    }

    /// A place in memory in a pair of CRT controller registers, the high byte first.
    pub fn two_halves(&mut self, index: u8, place: u64) {
        let [low, high, ..] = place.to_le_bytes();
        self.registers(0x3d4, &[(index, high), (index + 1, low)]);
    }

    /// A line of a BIOS's teletype: each byte and the cursor behind it, and the screen up by a copy.
    pub fn bios_line(&mut self, text: &str) {
        let row = (LINES - 1) * LINE;
        for (column, byte) in (0..80).zip(text.bytes()) {
            self.store(TEXT + row + 2 * column, Width::B1, byte.into());
            self.inb(0x3cc);
            self.two_halves(0x0e, row / 2 + column + 1);
        }
        for at in 0..row {
            self.events.push(Event::Copy(TEXT + LINE + at, TEXT + at, Width::B1));
        }
        for at in (0..LINE).step_by(2) {
            self.store(TEXT + row + at, Width::B2, 0x0720);
        }
    }

    /// A boot loader's menu drawn anew: a frame, entries, one of them in reverse, the cursor each time.
    pub fn menu(&mut self, chosen: u64) {
        for row in 0..LINES {
            for column in 0..80_u64 {
                let edge = !(3..=20).contains(&row) || !(2..=77).contains(&column);
                let attribute = if row == 5 + chosen { 0x70 } else { 0x07 };
                let byte = if edge { 0x20 } else { 0x61 + (row * 7 + column) % 26 };
                self.store(TEXT + row * LINE + 2 * column, Width::B2, attribute << 8 | byte);
                if column % 16 == 0 {
                    self.inb(0x3cc);
                    self.two_halves(0x0e, row * 80 + column);
                }
            }
        }
    }

    /// A register of the Bochs interface.
    pub fn bochs(&mut self, register: u16, value: u16) {
        self.outw(spec::DISPI_INDEX, register);
        self.outw(spec::DISPI_DATA, value);
    }

    /// A mode of the Bochs interface as SeaVGABIOS sets it, with the registers that go with it.
    pub fn set_bochs(&mut self, size: (u16, u16), bpp: u16, flags: u16) {
        let enable = spec::DISPI_ENABLED | spec::DISPI_LFB | flags;
        for (register, value) in [(4, 0), (3, bpp), (1, size.0), (2, size.1), (5, 0), (4, enable)] {
            self.bochs(register, value);
        }
        self.registers(0x3d4, &[(0x11, 0), (9, 0), (0x17, 0xe3)]);
        self.registers(0x3ce, &[(6, 5), (5, if bpp == 4 { 0 } else { 0x40 })]);
        self.registers(0x3c4, &[(2, 0x0f), (4, if bpp == 4 { 6 } else { 0x0e })]);
        self.inb(0x3da);
        self.outb(0x3c0, 0x20);
        self.load(0xa_0000, Width::B1);
    }
}
