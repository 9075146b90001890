//! The keyboard at the end of the cable: it answers commands and sends the codes of keys.

use std::collections::VecDeque;

use super::key::{ScanCodes, Stroke};

/// The keyboard has understood.
const ACKNOWLEDGE: u8 = 0xfa;
/// The keyboard has not understood.
const RESEND: u8 = 0xfe;
/// The self test passed.
const PASSED: u8 = 0xaa;
/// What identifies an MF2 keyboard.
const IDENTITY: [u8; 2] = [0xab, 0x83];

/// How many bytes of answers wait; a guest that asks and never reads loses the oldest question.
const ANSWERS: usize = 16;

/// Commands to the keyboard.
mod command {
    pub(super) const SET_LEDS: u8 = 0xed;
    pub(super) const ECHO: u8 = 0xee;
    pub(super) const SCAN_CODES: u8 = 0xf0;
    pub(super) const IDENTIFY: u8 = 0xf2;
    pub(super) const SET_RATE: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DISABLE: u8 = 0xf5;
    pub(super) const DEFAULTS: u8 = 0xf6;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// The keyboard.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    /// What goes to the controller, one byte at a time: answers before keys.
    answers: VecDeque<u8>,
    keys: VecDeque<u8>,
    codes: ScanCodes,
    /// Whether keys are sent.
    scanning: bool,
    /// A command that waits for its parameter.
    awaiting: Option<u8>,
    last: u8,
}

impl Keyboard {
    /// A keyboard after power-on: it sends keys at once.
    pub(super) fn new() -> Keyboard {
        Keyboard { scanning: true, ..Keyboard::default() }
    }

    /// Takes a byte from the controller.
    pub(super) fn command(&mut self, byte: u8) {
        match self.awaiting.take() {
            Some(waiting) if byte < command::SET_LEDS => self.parameter(waiting, byte),
            // A command in the place of a parameter takes over.
            _ => self.start(byte),
        }
    }

    fn start(&mut self, byte: u8) {
        match byte {
            command::ECHO => self.answer(&[command::ECHO]),
            command::IDENTIFY => self.answer(&[ACKNOWLEDGE, IDENTITY[0], IDENTITY[1]]),
            command::SET_LEDS | command::SCAN_CODES | command::SET_RATE => {
                self.awaiting = Some(byte);
                self.answer(&[ACKNOWLEDGE]);
            }
            command::ENABLE => {
                self.scanning = true;
                self.answer(&[ACKNOWLEDGE]);
            }
            command::DISABLE => {
                self.defaults();
                self.scanning = false;
                self.answer(&[ACKNOWLEDGE]);
            }
            command::DEFAULTS => {
                self.defaults();
                self.answer(&[ACKNOWLEDGE]);
            }
            command::RESET => {
                *self = Keyboard::new();
                self.answer(&[ACKNOWLEDGE, PASSED]);
            }
            command::RESEND => self.answer(&[self.last]),
            // Settings of single keys, in set 3 alone.
            0xf7..=0xfa => self.answer(&[ACKNOWLEDGE]),
            _ => self.answer(&[RESEND]),
        }
    }

    fn parameter(&mut self, waiting: u8, byte: u8) {
        match (waiting, byte) {
            (command::SCAN_CODES, 0) => {
                let set = match self.codes {
                    ScanCodes::Set1 => 1,
                    ScanCodes::Set2 => 2,
                };
                self.answer(&[ACKNOWLEDGE, set]);
                return;
            }
            (command::SCAN_CODES, 1) => self.codes = ScanCodes::Set1,
            (command::SCAN_CODES, 2) => self.codes = ScanCodes::Set2,
            // There is no set 3 here.
            (command::SCAN_CODES, _) => return self.answer(&[RESEND]),
            // LEDs and repeat rate are left to the terminal.
            _ => {}
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    fn defaults(&mut self) {
        self.codes = ScanCodes::default();
        self.keys.clear();
        self.answers.clear();
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.answers.extend(bytes);
        while self.answers.len() > ANSWERS {
            self.answers.pop_front();
        }
    }

    /// Whether a key may be typed: the last one is sent, and the guest wants keys.
    pub(super) fn is_ready(&self) -> bool {
        self.scanning && self.keys.is_empty() && self.answers.is_empty()
    }

    /// Types a key. The caller asks [`Keyboard::is_ready`] first, so that the bytes are bounded.
    pub(super) fn press(&mut self, stroke: Stroke) {
        self.keys.extend(stroke.bytes(self.codes));
    }

    /// The next byte for the controller.
    pub(super) fn send(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front().or_else(|| self.keys.pop_front())?;
        if byte != RESEND {
            self.last = byte;
        }
        Some(byte)
    }
}
