//! A PC keyboard and the 8042 controller that it hangs on: ports 0x60 and 0x64, IRQ 1.
//!
//! The thread that has the terminal or the screen presses keys through [`Keys`]. They cross to the
//! device in a bounded queue without a lock, and reach the guest one byte at a time: the next byte is
//! shown when the guest has read the last. Keys follow each other no faster than a fast typist's,
//! since firmware keeps 15 of them and drops the rest without a word. Keys that are pressed
//! before the guest looks for them are kept.
//!
//! There is no mouse: commands for the second port are swallowed, and its tests fail.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bitfield_struct::bitfield;
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

use super::attention::{Attention, Poke};
use super::isa::{self, Irq};
use crate::host::{Event, Events, IrqLine};
use device::Keyboard;
use key::Stroke;
use translate::Translation;

mod device;
mod key;
#[cfg(test)]
mod tests;
mod translate;

pub use key::{Key, KeyCode};

const DATA_PORT: u16 = 0x60;
const COMMAND_PORT: u16 = 0x64;
/// Offsets in the region.
const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// How many keys wait for the guest.
const WAITING: usize = 256;

/// The shortest time from one key to the next.
const PACE: Duration = Duration::from_millis(10);

/// How long no key is typed after the guest has reset the keyboard. Software that resets it then
/// sets it up, and throws away what it did not ask for.
const AFTER_RESET: Duration = Duration::from_millis(200);
/// The keyboard's reset command.
const KEYBOARD_RESET: u8 = 0xff;

/// Commands to the controller.
mod command {
    pub(super) const READ_MEMORY: u8 = 0x20;
    pub(super) const WRITE_MEMORY: u8 = 0x60;
    pub(super) const TEST_PASSWORD: u8 = 0xa4;
    pub(super) const DISABLE_SECOND: u8 = 0xa7;
    pub(super) const ENABLE_SECOND: u8 = 0xa8;
    pub(super) const TEST_SECOND: u8 = 0xa9;
    pub(super) const SELF_TEST: u8 = 0xaa;
    pub(super) const TEST_FIRST: u8 = 0xab;
    pub(super) const DISABLE_FIRST: u8 = 0xad;
    pub(super) const ENABLE_FIRST: u8 = 0xae;
    pub(super) const READ_INPUT: u8 = 0xc0;
    pub(super) const READ_OUTPUT: u8 = 0xd0;
    pub(super) const WRITE_OUTPUT: u8 = 0xd1;
    pub(super) const FAKE_FIRST: u8 = 0xd2;
    pub(super) const FAKE_SECOND: u8 = 0xd3;
    pub(super) const WRITE_SECOND: u8 = 0xd4;
    pub(super) const CLOSE_A20: u8 = 0xdd;
    pub(super) const OPEN_A20: u8 = 0xdf;
    pub(super) const READ_TEST: u8 = 0xe0;
    pub(super) const PULSE: u8 = 0xf0;
}

/// Answers of the controller.
const SELF_TEST_PASSED: u8 = 0x55;
const PORT_FINE: u8 = 0x00;
/// The clock line is stuck: nothing is connected.
const PORT_DEAD: u8 = 0x01;
const NO_PASSWORD: u8 = 0xf1;
/// Input port: the keyboard is not locked.
const UNLOCKED: u8 = 0x80;

/// Status, port 0x64.
#[bitfield(u8)]
struct Status {
    /// A byte waits at port 0x60.
    output_full: bool,
    input_full: bool,
    /// The self test has passed.
    system: bool,
    /// The last write was to port 0x64.
    command: bool,
    unlocked: bool,
    second_full: bool,
    timeout: bool,
    parity: bool,
}

/// The controller's first memory cell.
#[bitfield(u8)]
struct Config {
    first_interrupt: bool,
    second_interrupt: bool,
    /// The self test has passed.
    system: bool,
    _reserved: bool,
    first_disabled: bool,
    second_disabled: bool,
    /// Set 2 becomes set 1.
    translate: bool,
    _reserved2: bool,
}

/// Output port.
#[bitfield(u8)]
struct OutputPort {
    /// Low resets the machine.
    not_reset: bool,
    /// Kept for the guest; the address line itself is always open, as port 0x92 reports it.
    a20: bool,
    #[bits(6)]
    _rest: u8,
}

/// Presses keys. Any thread; clones press on the same keyboard.
#[derive(Clone, Debug)]
pub struct Keys {
    strokes: SyncSender<Stroke>,
    dropped: Arc<AtomicU64>,
    poke: Poke,
}

impl Keys {
    /// Presses and lets go a key, after those pressed before. Says whether there was room: a guest
    /// that does not look leaves room for 256 keys. Characters that the keyboard does not have are
    /// dropped as well. Never blocks.
    pub fn press(&self, key: Key) -> bool {
        let pressed = key.stroke().is_some_and(|stroke| self.strokes.try_send(stroke).is_ok());
        if pressed {
            self.poke.poke();
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
        pressed
    }

    /// How many keys were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The device.
pub struct KeyboardController {
    keyboard: Keyboard,
    translation: Translation,
    config: Config,
    memory: [u8; 32],
    output_port: OutputPort,
    /// The byte at port 0x60.
    output: Option<u8>,
    /// What port 0x60 reads when nothing is new.
    shown: u8,
    /// Answers of the controller that wait for port 0x60: few, since one command gives one.
    answer: Option<u8>,
    /// The command whose parameter port 0x60 takes.
    awaiting: Option<u8>,
    /// The last write was to port 0x64.
    was_command: bool,
    strokes: Receiver<Stroke>,
    /// When the next key may be typed.
    next: Instant,
    /// Whether a call is due that will type the next key.
    armed: bool,
    irq: Irq,
    events: Arc<dyn Events>,
    attention: Attention,
}

impl std::fmt::Debug for KeyboardController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyboardController").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The keyboard is held until somebody enables it, so that keys pressed early are not flushed away.
const AT_POWER_ON: Config = Config::new()
    .with_first_interrupt(true)
    .with_first_disabled(true)
    .with_second_disabled(true)
    .with_translate(true);
const OPEN: OutputPort = OutputPort::new().with_not_reset(true).with_a20(true);

impl KeyboardController {
    /// A controller with its keyboard on `irq`, ISA interrupt 1, and what presses the keys. A reset
    /// that the guest asks for goes to `events`. The worker must watch
    /// [`KeyboardController::attention`].
    ///
    /// # Errors
    /// The kernel has no descriptor to give.
    pub fn new(irq: Arc<dyn IrqLine>, events: Arc<dyn Events>) -> io::Result<(KeyboardController, Keys)> {
        let (strokes, pressed) = sync_channel(WAITING);
        let attention = Attention::new()?;
        let keys = Keys { strokes, dropped: Arc::default(), poke: attention.handle() };
        let device = KeyboardController {
            keyboard: Keyboard::new(),
            translation: Translation::default(),
            config: AT_POWER_ON,
            memory: [0; 32],
            output_port: OPEN,
            output: None,
            shown: 0,
            answer: None,
            awaiting: None,
            was_command: false,
            strokes: pressed,
            next: Instant::now(),
            armed: false,
            irq: Irq::new(irq),
            events,
            attention,
        };
        Ok((device, keys))
    }

    /// The descriptor to watch for [`Device::attend`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn attention(&self) -> io::Result<OwnedFd> {
        self.attention.descriptor()
    }

    fn status(&self) -> Status {
        Status::new()
            .with_output_full(self.output.is_some())
            .with_system(self.config.system())
            .with_command(self.was_command)
            .with_unlocked(true)
    }

    fn read_data(&mut self) -> u8 {
        if let Some(byte) = self.output.take() {
            self.shown = byte;
            // Low, so that the next byte makes an edge.
            self.irq.set(false);
        }
        let byte = self.shown;
        self.fill();
        byte
    }

    /// Shows the next byte at port 0x60 if the last was read.
    fn fill(&mut self) {
        if self.output.is_none() {
            self.output = self.answer.take();
        }
        while self.output.is_none() && !self.config.first_disabled() {
            if self.keyboard.is_ready() {
                self.type_next();
            }
            let Some(byte) = self.keyboard.send() else { break };
            self.output = if self.config.translate() { self.translation.byte(byte) } else { Some(byte) };
        }
        self.irq.set(self.output.is_some() && self.config.first_interrupt());
    }

    /// Types the next key unless it is too soon; then asks to be called when it is time.
    fn type_next(&mut self) {
        let now = Instant::now();
        if now < self.next {
            if !self.armed {
                self.armed = true;
                self.attention.after(self.next - now);
            }
        } else if let Ok(stroke) = self.strokes.try_recv() {
            self.keyboard.press(stroke);
            self.next = now + PACE;
        }
    }

    fn write_data(&mut self, byte: u8) {
        match self.awaiting.take() {
            Some(command::WRITE_MEMORY) => self.set_config(byte),
            Some(command::WRITE_OUTPUT) => self.set_output_port(OutputPort::from_bits(byte)),
            Some(command::FAKE_FIRST | command::FAKE_SECOND) => self.reply(byte),
            // The second port leads nowhere.
            Some(command::WRITE_SECOND) => {}
            Some(cell) => {
                if let Some(cell) = self.memory.get_mut(usize::from(cell & 0x1f)) {
                    *cell = byte;
                }
            }
            None => {
                // Talking to the keyboard enables its port.
                self.config.set_first_disabled(false);
                if byte == KEYBOARD_RESET {
                    self.next = Instant::now() + AFTER_RESET;
                }
                self.keyboard.command(byte);
            }
        }
    }

    fn command(&mut self, byte: u8) {
        self.awaiting = None;
        match byte {
            command::READ_MEMORY => self.reply(self.config.into_bits()),
            0x21..=0x3f => self.reply(self.memory.get(usize::from(byte & 0x1f)).copied().unwrap_or(0)),
            // The rest of the memory, by the command as the number of its cell.
            command::WRITE_MEMORY..=0x7f => self.awaiting = Some(byte),
            command::TEST_PASSWORD => self.reply(NO_PASSWORD),
            command::DISABLE_SECOND | command::ENABLE_SECOND => {}
            command::TEST_SECOND => self.reply(PORT_DEAD),
            command::SELF_TEST => {
                self.config.set_system(true);
                self.output = None;
                self.reply(SELF_TEST_PASSED);
            }
            command::TEST_FIRST => self.reply(PORT_FINE),
            command::DISABLE_FIRST => self.config.set_first_disabled(true),
            command::ENABLE_FIRST => self.config.set_first_disabled(false),
            command::READ_INPUT => self.reply(UNLOCKED),
            command::READ_OUTPUT => self.reply(self.output_port.into_bits()),
            command::WRITE_OUTPUT | command::FAKE_FIRST | command::FAKE_SECOND | command::WRITE_SECOND => {
                self.awaiting = Some(byte);
            }
            command::CLOSE_A20 => self.output_port.set_a20(false),
            command::OPEN_A20 => self.output_port.set_a20(true),
            command::READ_TEST => self.reply(0),
            // The low bits that are clear name lines of the output port to be pulled low for 6 us.
            command::PULSE.. if byte & 1 == 0 => self.events.report(Event::Reset),
            _ => {}
        }
    }

    /// An answer of the controller; it takes the place of one that was not read.
    fn reply(&mut self, byte: u8) {
        self.answer = Some(byte);
    }

    fn set_config(&mut self, byte: u8) {
        // A port that is not there cannot be enabled.
        self.config = Config::from_bits(byte).with_second_disabled(true);
    }

    fn set_output_port(&mut self, port: OutputPort) {
        if !port.not_reset() {
            self.events.report(Event::Reset);
        }
        self.output_port = port.with_not_reset(true);
    }
}

impl Device for KeyboardController {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        Ok(isa::read(offset, width, |at| match at {
            DATA => self.read_data(),
            COMMAND => {
                // A guest that polls sees the next key as soon as it is due.
                if self.output.is_none() {
                    self.fill();
                }
                self.status().into_bits()
            }
            _ => 0xff,
        }))
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        isa::write(offset, width, value, |at, byte| {
            match at {
                DATA => {
                    self.was_command = false;
                    self.write_data(byte);
                }
                COMMAND => {
                    self.was_command = true;
                    self.command(byte);
                }
                _ => return,
            }
            self.fill();
        });
        Ok(())
    }

    fn reset(&mut self) {
        self.keyboard = Keyboard::new();
        self.translation = Translation::default();
        self.config = AT_POWER_ON;
        self.memory = [0; 32];
        self.output_port = OPEN;
        self.output = None;
        self.answer = None;
        self.awaiting = None;
        self.was_command = false;
        self.irq.reset();
    }

    fn claims(&self) -> Claims {
        isa::claims(&[(DATA_PORT, DATA_PORT, DATA), (COMMAND_PORT, COMMAND_PORT, COMMAND)])
    }

    fn attend(&mut self) {
        self.attention.clear();
        self.armed = false;
        self.fill();
    }
}
