//! The real-time clock and its battery-backed memory: ports 0x70 and 0x71, IRQ 8 (Motorola MC146818A).
//!
//! The clock shows the host's time, UTC. When the guest sets it, the difference to the host is kept,
//! in whole seconds, for the life of the machine. Periodic, alarm and update-ended interrupts are
//! raised: while one is enabled a timer calls the device, so the worker must watch
//! [`Rtc::attention`]; the flags of register C are right without that. A periodic interrupt comes at
//! most once per acknowledgement, and ticks missed are not made up for.
//!
//! A reset of the machine leaves the memory and the time as they are, as a battery does, except for
//! the shutdown code: all of the machine starts anew, so there is nothing to come back to.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bitfield_struct::bitfield;
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

use super::attention::Attention;
use super::isa::{self, Irq};
use crate::host::IrqLine;
use calendar::DateTime;

mod calendar;
mod cmos;
#[cfg(test)]
mod tests;

pub use cmos::{BootDevice, Cmos};

/// Registers of the clock, by index.
mod register {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const SECONDS_ALARM: u8 = 0x01;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const MINUTES_ALARM: u8 = 0x03;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const HOURS_ALARM: u8 = 0x05;
    pub(super) const WEEKDAY: u8 = 0x06;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const C: u8 = 0x0c;
    pub(super) const D: u8 = 0x0d;
    pub(super) const SHUTDOWN: u8 = 0x0f;
    pub(super) const CENTURY: u8 = 0x32;
}

/// Register A: an update is under way, the time must not be read.
const UPDATE_IN_PROGRESS: u8 = 0x80;
/// Register A after power-on: the 32,768 Hz time base, periodic rate 1,024 Hz.
const A_INITIAL: u8 = 0x26;
/// Register C: an enabled interrupt is pending.
const PENDING: u8 = 0x80;
/// Register C and B: periodic, alarm and update-ended interrupt.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE_ENDED: u8 = 0x10;
/// Register D: memory and time are valid.
const VALID: u8 = 0x80;
/// An alarm register with both upper bits set matches everything.
const ANY: u8 = 0xc0;

/// How long before the end of a second the update-in-progress bit is set.
const UPDATE: Duration = Duration::from_micros(244);
/// The time base of periodic interrupts.
const TIME_BASE_HZ: u128 = 32_768;

/// Register B.
#[bitfield(u8)]
struct Mode {
    daylight_saving: bool,
    /// Hours count to 24.
    hours_24: bool,
    /// Numbers are binary, not BCD.
    binary: bool,
    square_wave: bool,
    update_interrupt: bool,
    alarm_interrupt: bool,
    periodic_interrupt: bool,
    /// The time stands still to be set.
    set: bool,
}

/// Where the time comes from: the time since 1970.
type Clock = Box<dyn Fn() -> Duration + Send>;

/// The device.
pub struct Rtc {
    memory: [u8; 128],
    index: u8,
    rate: u8,
    mode: Mode,
    /// Register C, without the pending bit.
    flags: u8,
    /// Up to when the flags are accounted for, on the host's clock.
    seen: Duration,
    /// The guest's time less the host's, in seconds.
    ahead: i64,
    /// The time while it stands still.
    held: Option<DateTime>,
    clock: Clock,
    irq: Irq,
    attention: Attention,
}

impl std::fmt::Debug for Rtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtc").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Rtc {
    /// A clock with `cmos` in its memory that pulls `irq`, ISA interrupt 8.
    ///
    /// # Errors
    /// The kernel has no descriptor to give.
    pub fn new(cmos: &Cmos, irq: Arc<dyn IrqLine>) -> io::Result<Rtc> {
        let host = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Rtc::with_clock(cmos, irq, Box::new(host))
    }

    fn with_clock(cmos: &Cmos, irq: Arc<dyn IrqLine>, clock: Clock) -> io::Result<Rtc> {
        Ok(Rtc {
            memory: cmos.memory(),
            index: 0,
            rate: A_INITIAL,
            mode: Mode::new().with_hours_24(true),
            flags: 0,
            seen: clock(),
            ahead: 0,
            held: None,
            clock,
            irq: Irq::new(irq),
            attention: Attention::new()?,
        })
    }

    /// The descriptor to watch for [`Device::attend`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn attention(&self) -> io::Result<OwnedFd> {
        self.attention.descriptor()
    }

    fn load(&mut self, index: u8) -> u8 {
        match index {
            register::A => {
                let late = (self.clock)().subsec_nanos() >= 1_000_000_000 - UPDATE.subsec_nanos();
                let updating = late && self.held.is_none();
                self.rate | if updating { UPDATE_IN_PROGRESS } else { 0 }
            }
            register::B => self.mode.into_bits(),
            register::C => {
                self.settle();
                let flags = self.flags | if self.pulls() { PENDING } else { 0 };
                self.flags = 0;
                self.signal();
                flags
            }
            register::D => VALID,
            _ => self.time_part(index).unwrap_or_else(|| self.cell(index)),
        }
    }

    fn store(&mut self, index: u8, value: u8) {
        // What happened so far happened under the old settings.
        self.settle();
        match index {
            register::A => self.rate = value & !UPDATE_IN_PROGRESS,
            register::B => self.set_mode(Mode::from_bits(value)),
            register::C | register::D => {}
            _ => {
                if !self.set_time_part(index, value)
                    && let Some(cell) = self.memory.get_mut(usize::from(index))
                {
                    *cell = value;
                }
            }
        }
        self.signal();
    }

    fn cell(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn host_seconds(&self) -> i64 {
        seconds((self.clock)())
    }

    fn time(&self) -> DateTime {
        self.held.unwrap_or_else(|| DateTime::of(self.host_seconds().saturating_add(self.ahead)))
    }

    fn set_mode(&mut self, mode: Mode) {
        match (self.held, mode.set()) {
            (None, true) => self.held = Some(self.time()),
            (Some(time), false) => {
                self.ahead = time.seconds().saturating_sub(self.host_seconds());
                self.held = None;
            }
            _ => {}
        }
        // Setting the clock switches the update interrupt off.
        self.mode = if mode.set() { mode.with_update_interrupt(false) } else { mode };
    }

    fn time_part(&self, index: u8) -> Option<u8> {
        let time = self.time();
        let part = match index {
            register::SECONDS => time.second,
            register::MINUTES => time.minute,
            register::HOURS => return Some(self.mode.hour(time.hour)),
            register::WEEKDAY => time.weekday(),
            register::DAY => time.day,
            register::MONTH => time.month,
            register::YEAR => time.year,
            register::CENTURY => time.century,
            _ => return None,
        };
        Some(self.mode.encode(part))
    }

    /// Sets a part of the time and says whether `index` was one. The weekday follows from the date.
    fn set_time_part(&mut self, index: u8, value: u8) -> bool {
        let mut time = self.time();
        let part = self.mode.decode(value);
        match index {
            register::SECONDS => time.second = part,
            register::MINUTES => time.minute = part,
            register::HOURS => time.hour = self.mode.hour_of(value),
            register::WEEKDAY => {}
            register::DAY => time.day = part,
            register::MONTH => time.month = part,
            register::YEAR => time.year = part,
            register::CENTURY => time.century = part,
            _ => return false,
        }
        if self.held.is_some() {
            self.held = Some(time);
        } else {
            self.ahead = time.seconds().saturating_sub(self.host_seconds());
        }
        true
    }

    /// Sets the flags for what happened since it was last called.
    fn settle(&mut self) {
        let now = (self.clock)();
        // The host's clock may have been set back.
        let since = self.seen.min(now);
        self.seen = now;
        if let Some(period) = self.period()
            && ticks(now) / period > ticks(since) / period
        {
            self.flags |= PERIODIC;
        }
        let passed = seconds(now) - seconds(since);
        if self.held.is_some() || passed == 0 {
            return;
        }
        self.flags |= UPDATE_ENDED;
        // A day holds every alarm.
        if (0..passed.min(86_400)).any(|back| self.is_alarm(seconds(now) - back)) {
            self.flags |= ALARM;
        }
    }

    /// Whether the alarm is set for this second of the host's clock.
    fn is_alarm(&self, at: i64) -> bool {
        let of_day = at.saturating_add(self.ahead).rem_euclid(86_400);
        let is = |index, part: i64, decode: fn(Mode, u8) -> u8| {
            let set = self.cell(index);
            set & ANY == ANY || i64::from(decode(self.mode, set)) == part
        };
        is(register::SECONDS_ALARM, of_day % 60, Mode::decode)
            && is(register::MINUTES_ALARM, of_day / 60 % 60, Mode::decode)
            && is(register::HOURS_ALARM, of_day / 3600, Mode::hour_of)
    }

    /// Ticks of the time base between two periodic interrupts.
    fn period(&self) -> Option<u128> {
        match self.rate & 0xf {
            0 => None,
            // These two would be faster than the time base is divided.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Whether an enabled interrupt is pending.
    fn pulls(&self) -> bool {
        self.flags & self.mode.into_bits() & (PERIODIC | ALARM | UPDATE_ENDED) != 0
    }

    /// Sets the line, and asks to be called for the next cause when it is not pulled.
    fn signal(&mut self) {
        let pulls = self.pulls();
        self.irq.set(pulls);
        if pulls {
            return;
        }
        let now = (self.clock)();
        let next_second =
            Duration::from_secs(1).saturating_sub(Duration::from_nanos(now.subsec_nanos().into()));
        let periodic = self.period().filter(|_| self.mode.periodic_interrupt()).map(|period| {
            let rest = period - ticks(now) % period;
            Duration::from_nanos(u64::try_from(rest * 1_000_000_000 / TIME_BASE_HZ + 1).unwrap_or(u64::MAX))
        });
        let by_second = (self.mode.alarm_interrupt() || self.mode.update_interrupt()).then_some(next_second);
        if let Some(delay) = periodic.into_iter().chain(by_second).min() {
            self.attention.after(delay);
        }
    }
}

impl Mode {
    fn encode(self, value: u8) -> u8 {
        if self.binary() { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(self, value: u8) -> u8 {
        if self.binary() { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    /// The hours register for an hour of the day; bit 7 is the afternoon where hours count to 12.
    fn hour(self, hour: u8) -> u8 {
        if self.hours_24() {
            return self.encode(hour);
        }
        let of_half = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(of_half) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn hour_of(self, value: u8) -> u8 {
        if self.hours_24() {
            return self.decode(value);
        }
        self.decode(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
    }
}

fn seconds(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

fn ticks(since_1970: Duration) -> u128 {
    since_1970.as_nanos() * TIME_BASE_HZ / 1_000_000_000
}

impl Device for Rtc {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        // The index cannot be read back. Firmware reads it all the same, to see the state of the
        // NMI mask in bit 7: set means off.
        Ok(isa::read(offset, width, |at| if at == 1 { self.load(self.index) } else { 0xff }))
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        isa::write(offset, width, value, |at, byte| match at {
            0 => self.index = byte & 0x7f,
            1 => self.store(self.index, byte),
            _ => {}
        });
        Ok(())
    }

    fn reset(&mut self) {
        self.index = 0;
        let off = self.mode.with_periodic_interrupt(false).with_alarm_interrupt(false);
        self.set_mode(off.with_update_interrupt(false).with_square_wave(false).with_set(false));
        self.flags = 0;
        self.irq.reset();
        self.memory[usize::from(register::SHUTDOWN)] = 0;
        self.signal();
    }

    fn claims(&self) -> Claims {
        isa::claims(&[(0x70, 0x71, 0)])
    }

    fn attend(&mut self) {
        self.attention.clear();
        self.settle();
        self.signal();
    }
}
