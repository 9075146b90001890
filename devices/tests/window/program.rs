//! What two vCPUs may do to a card in text mode, and what they knew when they did it.
//!
//! Whatever is written carries a number of its own, as far as its register has room for one, so that it
//! is recognised in the record.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use trapline_io::device::Retire;
use trapline_io::window::Mode;
use trapline_io::{Access, Op as Direction, Region, Width};

use crate::card::Card;
use crate::machine::{How, Machine, gpa, port};
use crate::order::{Op, Way};
use crate::record::{CPUS, Seen};

const TEXT: u64 = 0xb_8000;
const TEXT_LEN: u64 = 0x8000;
const BAR_0: u64 = 0xe000_0000;
const BAR_2: u64 = 0xe100_0000;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A store into the text window: where, and how wide.
    Text(usize, u64, Width),
    /// Neighbouring cells, upwards.
    Line(usize, u64, u64),
    /// A load from the text window.
    Look(usize, u64, Width),
    /// A store into the window outside of the text's part.
    Beside(usize, u64),
    /// A port whose writes may be late: DAC index, DAC data, pixel mask, attribute controller.
    Palette(usize, u16),
    /// A byte of the cursor's place (0x0e, 0x0f) or of the start address (0x0c, 0x0d), index and value at once.
    Crtc(usize, u8),
    /// The same in two accesses.
    CrtcTwice(usize, u8),
    /// Input status 1.
    Status(usize),
    /// A register that leaves plain text as it is: clocking mode, or set/reset while that is off.
    Harmless(usize, bool),
    /// One of the ways out of plain text.
    Leave(usize, usize),
    /// The way back.
    Return(usize),
    /// A register in BAR 2, written or read.
    Register(usize, bool),
    /// The frame buffer, written or read.
    Frame(usize, bool),
    /// The Bochs index port.
    Dispi(usize),
    /// The COMMAND register.
    Command(usize, u64),
    /// A register of the vendor's in configuration space.
    Vendor(usize),
    /// A register that no VGA's CRT controller has.
    Beyond(usize),
    /// The vendor ID.
    Identify(usize),
    /// The other vCPU learns of all that this one did.
    Tell(usize),
    /// A beat of the clock after so many milliseconds.
    Tick(u64),
    /// The worker's turn.
    Work,
    /// The machine turns the window.
    Turn(Mode),
    /// The machine is reset.
    Reset,
}

/// Registers of which one value leaves plain text and another returns: index port, index, out, back.
const DOORS: [(u16, u8, u8, u8); 7] = [
    (0x3c4, 2, 0x0f, 0x03),
    (0x3c4, 4, 0x06, 0x02),
    (0x3c4, 0, 0x01, 0x03),
    (0x3ce, 5, 0x00, 0x10),
    (0x3ce, 6, 0x05, 0x0e),
    (0x3ce, 8, 0x0f, 0xff),
    (0x3ce, 1, 0x0f, 0x00),
];

/// Any step, those at the window more often.
pub fn steps() -> impl Strategy<Value = Step> {
    let cpu = 0..CPUS;
    let cell = prop_oneof![8 => 0..24_u64, 1 => 2030..2060_u64, 1 => 16_370..16_384_u64];
    let width =
        prop_oneof![1 => Just(Width::B1), 4 => Just(Width::B2), 1 => Just(Width::B4), 1 => Just(Width::B8)];
    let at = (cell.clone(), 0..2_u64, width.clone()).prop_map(|(cell, odd, width)| {
        // Mostly aligned, and never across the end of a page.
        let at = cell * 2 + odd * u64::from(width < Width::B8);
        let over = (at + width.bytes() as u64 - 1) / 4096 != at / 4096;
        (if over { at & !7 } else { at }, width)
    });
    let mode = prop_oneof![
        3 => Just(Mode::Shadowed),
        2 => Just(Mode::Coalesced),
        1 => Just(Mode::Resting),
        1 => Just(Mode::Native),
    ];
    let late = prop_oneof![Just(0x3c8), Just(0x3c9), Just(0x3c6), Just(0x3c0)];
    prop_oneof![
        20 => (cpu.clone(), at.clone()).prop_map(|(cpu, (at, width))| Step::Text(cpu, at, width)),
        6 => (cpu.clone(), cell, 2..40_u64).prop_map(|(cpu, cell, cells)| Step::Line(cpu, cell, cells)),
        4 => (cpu.clone(), at).prop_map(|(cpu, (at, width))| Step::Look(cpu, at, width)),
        2 => (cpu.clone(), 0..64_u64).prop_map(|(cpu, at)| Step::Beside(cpu, at * 2)),
        8 => (cpu.clone(), late).prop_map(|(cpu, port)| Step::Palette(cpu, port)),
        8 => (cpu.clone(), 0x0c..0x10_u8).prop_map(|(cpu, index)| Step::Crtc(cpu, index)),
        3 => (cpu.clone(), 0x0c..0x10_u8).prop_map(|(cpu, index)| Step::CrtcTwice(cpu, index)),
        3 => cpu.clone().prop_map(Step::Status),
        2 => (cpu.clone(), any::<bool>()).prop_map(|(cpu, which)| Step::Harmless(cpu, which)),
        1 => (cpu.clone(), 0..DOORS.len()).prop_map(|(cpu, door)| Step::Leave(cpu, door)),
        2 => cpu.clone().prop_map(Step::Return),
        2 => (cpu.clone(), any::<bool>()).prop_map(|(cpu, write)| Step::Register(cpu, write)),
        2 => (cpu.clone(), any::<bool>()).prop_map(|(cpu, write)| Step::Frame(cpu, write)),
        1 => cpu.clone().prop_map(Step::Dispi),
        2 => (cpu.clone(), prop_oneof![4 => Just(3_u64), 1 => 0..3_u64])
            .prop_map(|(cpu, command)| Step::Command(cpu, command)),
        1 => cpu.clone().prop_map(Step::Identify),
        1 => cpu.clone().prop_map(Step::Vendor),
        1 => cpu.clone().prop_map(Step::Beyond),
        8 => cpu.prop_map(Step::Tell),
        4 => prop_oneof![4 => Just(16_u64), 1 => Just(1_u64), 1 => Just(300_u64)].prop_map(Step::Tick),
        4 => Just(Step::Work),
        3 => mode.prop_map(Step::Turn),
        1 => Just(Step::Reset),
    ]
}

/// A machine, and what its vCPUs have done so far.
pub struct Run {
    machine: Machine,
    card: Card,
    ops: Vec<Op>,
    /// How many operations of each vCPU each vCPU knows of.
    known: [[usize; CPUS]; CPUS],
    life: usize,
    /// The last number given to a byte of memory or to a port.
    numbers: HashMap<u64, u8>,
    /// What the text window holds, where that is known.
    text: HashMap<u64, u8>,
    command: u64,
    /// The door through which plain text was left.
    left: Option<usize>,
    crtc_index: u8,
    /// A load did not give what was stored.
    pub wrong: Vec<String>,
}

impl Run {
    /// A machine whose card is in mode 3, in one of the window's modes.
    pub fn new(card: Card, machine: Machine, mode: Mode) -> Run {
        let mut run = Run {
            machine,
            card,
            ops: Vec::new(),
            known: [[0; CPUS]; CPUS],
            life: 0,
            numbers: HashMap::new(),
            text: (TEXT..TEXT + TEXT_LEN).map(|at| (at, 0)).collect(),
            command: 3,
            left: None,
            crtc_index: 0,
            wrong: Vec::new(),
        };
        run.start();
        run.card.take();
        run.machine.turn(mode);
        run
    }

    fn start(&mut self) {
        self.machine.place();
        self.card.adapter(crate::modes::text);
        (self.command, self.left, self.crtc_index) = (3, None, 0);
    }

    /// The program, the record, and whether nothing was left lying.
    pub fn end(mut self) -> (Vec<Op>, Vec<Seen>, Vec<String>) {
        if !self.machine.end() {
            self.wrong.push("something was left behind".to_owned());
        }
        self.moment();
        (self.ops, self.card.take(), self.wrong)
    }

    /// Does one step.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Text(cpu, at, width) => self.store(cpu, TEXT + at, width),
            Step::Line(cpu, cell, cells) => {
                for cell in (cell..cell + cells).filter(|cell| cell * 2 + 1 < TEXT_LEN) {
                    self.store(cpu, TEXT + cell * 2, Width::B2);
                }
            }
            Step::Look(cpu, at, width) => self.load(cpu, TEXT + at, width),
            Step::Beside(cpu, at) => self.store(cpu, 0xa_0000 + at, Width::B2),
            Step::Palette(cpu, port) => {
                let value = self.number(port.into());
                self.write(cpu, port.into(), Width::B1, value.into(), false);
            }
            Step::Crtc(cpu, index) => {
                let value = self.number(0x3d4 + u64::from(index) * 0x1000);
                let both = u64::from(value) << 8 | u64::from(index);
                self.crtc_index = index;
                self.write(cpu, 0x3d4, Width::B2, both, index < 0x0e);
            }
            Step::CrtcTwice(cpu, index) => {
                self.write(cpu, 0x3d4, Width::B1, index.into(), false);
                let value = self.number(0x3d4 + u64::from(index) * 0x1000);
                self.write(cpu, 0x3d5, Width::B1, value.into(), index == 0x0c || index == 0x0d);
            }
            Step::Status(cpu) => self.access(cpu, Access::read(Region::VGA, 0x3da, Width::B1), false),
            Step::Harmless(cpu, clocking) => {
                let (port, index) = if clocking { (0x3c4, 1) } else { (0x3ce, 0) };
                let value = u64::from(self.number(port)) & if clocking { 1 } else { 15 };
                self.write(cpu, port, Width::B2, value << 8 | index, false);
            }
            Step::Leave(cpu, door) if self.left.is_none() && self.command == 3 => self.leave(cpu, door),
            Step::Return(cpu) if self.command == 3 => self.go_back(cpu),
            Step::Leave(..) | Step::Return(_) => {}
            Step::Register(cpu, write) => self.register(cpu, write),
            Step::Frame(cpu, write) => self.frame(cpu, write),
            Step::Dispi(_) if self.command & 1 == 0 => {}
            Step::Dispi(cpu) => {
                // The index is nothing to the device; the register behind it is one in BAR 2.
                self.machine.access(cpu, port(0x1ce, Width::B2, Direction::Write(0)));
                let from = self.card.seen();
                self.machine.access(cpu, port(0x1cf, Width::B2, Direction::Read));
                let identity = Access::read(Region::bar(2), 0x500, Width::B2);
                self.add(cpu, identity, Way::Strict, from, true);
            }
            Step::Command(cpu, value) => self.command(cpu, value),
            Step::Vendor(cpu) => {
                let value = self.number(0xffff_0040);
                let access = Access::write(Region::CONFIG, 0x40, Width::B4, value.into());
                let from = self.card.seen();
                self.machine.config(cpu, access);
                self.add(cpu, access, Way::Strict, from, true);
            }
            Step::Beyond(cpu) => {
                let value = self.number(0x3d4 + 0x19 * 0x1000);
                self.crtc_index = 0x19;
                self.write(cpu, 0x3d4, Width::B2, u64::from(value) << 8 | 0x19, true);
            }
            Step::Identify(cpu) => self.unseen(cpu, |machine| {
                machine.config(cpu, Access::read(Region::CONFIG, 0, Width::B4));
            }),
            Step::Tell(cpu) => {
                let other = (cpu + 1) % CPUS;
                for of in 0..CPUS {
                    self.known[other][of] = self.known[other][of].max(self.known[cpu][of]);
                }
            }
            Step::Tick(pause) => {
                self.machine.tick(Duration::from_millis(pause));
                self.moment();
            }
            Step::Work => self.machine.work(),
            Step::Turn(mode) => {
                let before = self.machine.mode();
                self.machine.turn(mode);
                if self.machine.mode() != before {
                    self.moment();
                }
            }
            Step::Reset => self.reset(),
        }
    }

    /// Through a door out of plain text.
    fn leave(&mut self, cpu: usize, door: usize) {
        let (port, index, out, _) = DOORS[door];
        self.write(cpu, port.into(), Width::B2, u64::from(out) << 8 | u64::from(index), true);
        self.left = Some(door);
    }

    fn go_back(&mut self, cpu: usize) {
        let Some(door) = self.left.take() else { return };
        let (port, index, _, back) = DOORS[door];
        self.write(cpu, port.into(), Width::B2, u64::from(back) << 8 | u64::from(index), false);
    }

    fn register(&mut self, cpu: usize, write: bool) {
        // The DAC's write index once more, and the Bochs ID.
        if write {
            let value = self.number(BAR_2 + 0x408);
            self.access(cpu, Access::write(Region::bar(2), 0x408, Width::B1, value.into()), true);
        } else {
            self.access(cpu, Access::read(Region::bar(2), 0x500, Width::B2), true);
        }
    }

    fn frame(&mut self, cpu: usize, write: bool) {
        let at = 0x10_0000;
        if write {
            let value = self.number(BAR_0);
            self.access(cpu, Access::write(Region::bar(0), at, Width::B1, value.into()), true);
        } else {
            self.access(cpu, Access::read(Region::bar(0), at, Width::B4), true);
        }
    }

    fn command(&mut self, cpu: usize, value: u64) {
        let access = Access::write(Region::CONFIG, 4, Width::B2, value);
        let from = self.card.seen();
        self.machine.config(cpu, access);
        self.add(cpu, access, Way::Strict, from, true);
        self.command = value;
    }

    /// Something that the device does not see by itself.
    fn unseen(&mut self, cpu: usize, act: impl FnOnce(&mut Machine)) {
        let from = self.card.seen();
        act(&mut self.machine);
        self.card.note(Seen::Mark(self.ops.len()));
        self.add(cpu, Access::read(Region::CONFIG, 0, Width::B8), Way::Mark, from, true);
    }

    /// A moment at which all that anybody did is in the device.
    fn moment(&mut self) {
        let from = self.card.seen();
        self.card.note(Seen::Mark(self.ops.len()));
        self.add(0, Access::read(Region::CONFIG, 0, Width::B8), Way::Mark, from, true);
        let all = |cpu| self.ops.iter().filter(|op| op.cpu == cpu).count();
        let all = std::array::from_fn(all);
        self.ops.last_mut().unwrap().after = all;
    }

    fn reset(&mut self) {
        self.machine.reset();
        self.life += 1;
        self.text.clear();
        self.start();
    }

    /// The next number for an address; none of them is zero.
    fn number(&mut self, of: u64) -> u8 {
        let number = self.numbers.entry(of).or_default();
        *number = number.checked_add(1).unwrap_or(1);
        *number
    }

    fn store(&mut self, cpu: usize, at: u64, width: Width) {
        let mut bytes = [0; 8];
        for (address, byte) in (at..).zip(&mut bytes[..width.bytes()]) {
            *byte = self.number(address);
        }
        let plain = self.left.is_none() && self.command & 2 != 0;
        if !plain && self.command & 2 != 0 {
            // Planes, masks and latches decide what becomes of it.
            self.text.clear();
        }
        for (address, byte) in (at..).zip(bytes).take(width.bytes()).filter(|_| plain && at >= TEXT) {
            self.text.insert(address, byte);
        }
        self.write(cpu, at, width, u64::from_le_bytes(bytes), false);
    }

    fn load(&mut self, cpu: usize, at: u64, width: Width) {
        let from = self.card.seen();
        let (how, value) = self.machine.access(cpu, gpa(at, width, Direction::Read));
        let plain = self.left.is_none() && self.command & 2 != 0;
        let bytes = value.to_le_bytes();
        for (address, byte) in (at..).zip(bytes).take(width.bytes()).filter(|_| plain) {
            if self.text.get(&address).is_some_and(|held| *held != byte) {
                self.wrong.push(format!("{how:?} {address:x}: {byte} for {}", self.text[&address]));
            }
        }
        if let How::Trapped(_) = how {
            self.add(cpu, Access::read(Region::VGA, at, width), Way::Strict, from, true);
        }
    }

    fn write(&mut self, cpu: usize, offset: u64, width: Width, value: u64, shows: bool) {
        self.access(cpu, Access::write(Region::VGA, offset, width, value), shows);
    }

    /// Carries out an access that a device sees as it is.
    fn access(&mut self, cpu: usize, access: Access, shows: bool) {
        let (base, needs) = match access.region {
            Region::VGA if access.offset < 0xa_0000 => (0, 1),
            Region::VGA => (0, 2),
            region if region == Region::bar(0) => (BAR_0, 2),
            _ => (BAR_2, 2),
        };
        let at = base + access.offset;
        let trap = match u16::try_from(at) {
            Ok(at) => port(at, access.width, access.op),
            Err(_) => gpa(at, access.width, access.op),
        };
        let from = self.card.seen();
        let (how, _) = self.machine.access(cpu, trap);
        let decoded = self.command & needs != 0;
        let read = access.op == Direction::Read;
        let way = match how {
            _ if !decoded => Way::Nowhere,
            How::Slot(trapline_io::device::DirectKind::Shadow) => Way::Ram,
            How::Slot(_) => {
                self.card.note(Seen::Mark(self.ops.len()));
                Way::Mark
            }
            How::Collected => Way::Late,
            How::Trapped(Retire::Posted) if !read => Way::Late,
            How::Trapped(_) => Way::Strict,
            How::Nowhere => {
                self.wrong.push(format!("nobody decodes {access:x?}"));
                Way::Nowhere
            }
        };
        if way == Way::Ram && self.left.is_some() {
            self.wrong.push(format!("shadowed outside of plain text: {access:x?}"));
        }
        self.add(cpu, access, way, from, shows);
    }

    fn add(&mut self, cpu: usize, access: Access, way: Way, from: usize, shows: bool) {
        let (after, made) = (self.known[cpu], (from, self.card.seen()));
        let plain = self.left.is_none();
        self.ops.push(Op { cpu, after, access, way, made, shows, plain, life: self.life });
        self.known[cpu][cpu] += 1;
    }
}
