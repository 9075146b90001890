//! The accesses to the legacy region: what each of them means for the registers, the shadow and the mode.

use std::time::Instant;

use trapline_io::window::Mode;
use trapline_io::{Fault, Region, Width};

use super::{Known, Owner};
use crate::assigned::Backend;
use crate::legacy::WINDOW;
use crate::legacy::state::{beyond_crtc, decides};
use crate::seen::Mark;

impl Owner {
    /// Reads a port, or from the window.
    ///
    /// # Errors
    /// The card's.
    pub fn read(&mut self, card: &mut dyn Backend, offset: u64, width: Width) -> Result<u64, Fault> {
        if offset < WINDOW.0 {
            return card.read(Region::VGA, offset, width);
        }
        self.passed(card, true);
        if let (Mode::Shadowed, Some(text), Some(shadow)) = (self.mode, self.text, &self.shadow)
            && let Some(place) = text.place(offset)
        {
            return Ok(shadow.load(place, width));
        }
        card.read(Region::VGA, offset, width)
    }

    /// Writes a port, or to the window.
    ///
    /// # Errors
    /// The card's.
    pub fn write(
        &mut self,
        card: &mut dyn Backend,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Fault> {
        if offset < WINDOW.0 {
            self.passed(card, false);
            return self.write_port(card, offset, width, value);
        }
        let bytes = value.to_le_bytes();
        let (bytes, _) = bytes.split_at(width.bytes());
        self.write_window(card, offset, bytes, |card| card.write(Region::VGA, offset, width, value))
    }

    /// Whether a run of writes that begins here may be one.
    pub fn merges(&self, offset: u64) -> bool {
        self.end_of_lanes(offset).is_some()
    }

    /// Writes to the window, by one transfer where the bytes are independent.
    ///
    /// # Errors
    /// The card's; part of the bytes may have been written.
    pub fn write_run(&mut self, card: &mut dyn Backend, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let end = offset.saturating_add(bytes.len() as u64);
        if self.end_of_lanes(offset).is_some_and(|last| end <= last + 1) {
            return self
                .write_window(card, offset, bytes, |card| card.write_bytes(Region::VGA, offset, bytes));
        }
        let mut done = Ok(());
        for (at, byte) in (offset..).zip(bytes) {
            done = done.and(self.write(card, at, Width::B1, (*byte).into()));
        }
        done
    }

    /// The last address up to which bytes are independent from here on.
    fn end_of_lanes(&self, offset: u64) -> Option<u64> {
        let Known::Registers(state) = &self.known else { return None };
        let (first, last) = state.independent().filter(|_| self.mode != Mode::Native)?;
        (first..=last).contains(&offset).then_some(last)
    }

    fn write_window(
        &mut self,
        card: &mut dyn Backend,
        offset: u64,
        bytes: &[u8],
        write: impl FnOnce(&mut dyn Backend) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.passed(card, true);
        if let (Mode::Shadowed, Some(text), Some(shadow)) = (self.mode, self.text, &self.shadow)
            && let Some(place) = text.place(offset)
        {
            shadow.store(place, bytes);
            return Ok(());
        }
        let done = write(card);
        self.note(offset, bytes, done.is_ok());
        done
    }

    /// Keeps true what the card is known to have, after a write that it took, or failed.
    fn note(&mut self, offset: u64, bytes: &[u8], done: bool) {
        let Some(shadow) = &mut self.shadow else { return };
        match &self.known {
            Known::Registers(state) => match state.plain_text() {
                _ if !done => shadow.forget(),
                Some(text) => {
                    // Outside of the text window nothing is decoded.
                    if let Some(place) = text.place(offset) {
                        shadow.note(place, bytes);
                    } else if text.place(offset.saturating_add(bytes.len() as u64 - 1)).is_some() {
                        shadow.forget();
                    }
                }
                None if state.writes_text() => shadow.forget(),
                None => {}
            },
            Known::Unasked | Known::Silent => shadow.forget(),
        }
    }

    fn write_port(
        &mut self,
        card: &mut dyn Backend,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Fault> {
        if beyond_crtc(offset, width, value) {
            self.pinned = true;
            self.consider();
        }
        if self.mode == Mode::Shadowed {
            // What was forgotten since it started is to be known before a start address passes text.
            self.learn(card);
        }
        let Known::Registers(before) = self.known else {
            if decides(offset, width) {
                // It may lead to other memory too.
                self.disturbed();
            }
            return card.write(Region::VGA, offset, width, value);
        };
        let mut state = before;
        let follows = state.follow(offset, width, value);
        if self.mode == Mode::Shadowed
            && (!follows || state.start() != before.start() || decides(offset, width))
        {
            self.flush(card);
        }
        let done = card.write(Region::VGA, offset, width, value);
        if follows && done.is_ok() {
            self.known = Known::Registers(state);
            self.fresh |= decides(offset, width);
        } else {
            self.forget();
        }
        if let Some(shadow) = self.shadow.as_mut().filter(|_| !follows || state.page() != before.page()) {
            shadow.forget();
        }
        self.consider();
        done
    }

    /// One more access to the window, or write to a port.
    fn passed(&mut self, card: &mut dyn Backend, window: bool) {
        self.traffic.busy = true;
        match self.mode {
            Mode::Native => {
                if window && self.phases.native_window(Instant::now) {
                    self.native = false;
                    self.traffic.active = true;
                    self.consider();
                }
                return;
            }
            Mode::Resting if !self.traffic.active && self.traffic.burst.count(Instant::now) => {
                self.traffic.active = true;
                self.consider();
            }
            _ => {}
        }
        if window {
            self.phases.window();
            self.learn(card);
            if std::mem::take(&mut self.fresh) {
                self.note_mode();
            }
        }
    }

    /// Notes what kind of mode the window is used in.
    fn note_mode(&self) {
        if let Known::Registers(state) = &self.known {
            match state.plain_text() {
                Some(_) => self.seen.note(Mark::Text),
                None if state.shows_graphics() => self.seen.note(Mark::Graphics),
                None => {}
            }
        }
    }
}
