//! The power management block of the ICH9 (datasheet, "Power Management I/O Registers") and its timer
//! (ACPI 6.5 section 4.8.3.3).
//!
//! There is no system management mode: SMI_EN says from reset on that the APM port's interrupt is set up,
//! which keeps firmware from waiting for one that nobody delivers.

use std::time::{Duration, Instant};

use bitfield_struct::bitfield;
use trapline_io::Width;

/// Ports of the block.
pub(super) const LENGTH: u64 = 0x80;

/// Dwords of the block, by offset.
mod register {
    /// PM1_STS in the lower half, PM1_EN in the upper.
    pub const PM1: u64 = 0x00;
    /// PM1_CNT.
    pub const CONTROL: u64 = 0x04;
    /// PM1_TMR.
    pub const TIMER: u64 = 0x08;
    /// GPE0_STS, two dwords.
    pub const GPE_STATUS: u64 = 0x20;
    /// GPE0_EN, two dwords.
    pub const GPE_ENABLE: u64 = 0x28;
    /// SMI_EN.
    pub const SMI_ENABLE: u64 = 0x30;
}

/// PM1 status and enable: the timer's upper bit changed.
const TIMER_OVERFLOW: u16 = 1 << 0;
/// PM1 status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// PM1 status bits that a one clears: timer, global, buttons, RTC, wake.
const STATUS: u16 = 0x8d21;
/// PM1 enable bits.
const ENABLE: u16 = 0x0521;
/// SMI_EN: writes of the APM port are serviced. Never off.
const APMC_EN: u32 = 1 << 5;

/// PM1 control (ACPI 6.5 section 4.8.3.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
struct Control {
    /// Power management events are SCIs, not SMIs.
    sci_enable: bool,
    bus_master_reload: bool,
    /// Write only.
    global_release: bool,
    #[bits(7)]
    _reserved: u8,
    #[bits(3)]
    sleep_type: u8,
    /// Write only: go to sleep now.
    sleep_enable: bool,
    #[bits(18)]
    _reserved2: u32,
}

/// The sleep type of S5, as the firmware's tables name it.
const SOFT_OFF: u8 = 0;

/// What a write of the block asks for beyond a register's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// S5.
    Off,
}

/// The registers of the block.
#[derive(Debug)]
pub(super) struct Pm {
    status: u16,
    enable: u16,
    control: Control,
    gpe_status: [u32; 2],
    gpe_enable: [u32; 2],
    smi_enable: u32,
    timer_zero: Instant,
    /// How often the timer's upper bit had changed when the status was last brought up to date.
    half_turns: u64,
}

impl Pm {
    /// The block after power-on; the timer starts at zero now.
    pub fn new() -> Pm {
        Pm {
            status: 0,
            enable: 0,
            control: Control::new(),
            gpe_status: [0; 2],
            gpe_enable: [0; 2],
            smi_enable: APMC_EN,
            timer_zero: Instant::now(),
            half_turns: 0,
        }
    }

    /// Reads `width` bytes at `offset`; reserved registers are zero.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let (at, shift) = (offset & !3, 8 * (offset & 3));
        let low = u64::from(self.dword(at));
        // The upper dword only where the access reaches it: a register may cost to read.
        let reaches = (offset & 3) + width.bytes() as u64 > 4;
        let high = if reaches { u64::from(self.dword(at + 4)) } else { 0 };
        (low | high << 32) >> shift & width.all_ones()
    }

    /// Writes the low `width` bytes of `value` at `offset`.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<Sleep> {
        let (at, shift) = (offset & !3, 8 * (offset & 3));
        let mask = u128::from(width.all_ones()) << shift;
        let value = u128::from(value) << shift & mask;
        let lane = |bits: u128, n: u32| (bits >> (32 * n) & 0xffff_ffff) as u32;
        let mut sleep = None;
        for (n, at) in (0..3).zip([at, at + 4, at + 8]) {
            if lane(mask, n) != 0 {
                sleep = sleep.or(self.write_dword(at, lane(mask, n), lane(value, n)));
            }
        }
        sleep
    }

    /// Whether the block pulls the system control interrupt.
    pub fn sci(&self) -> bool {
        let pending = self.status & self.enable & ENABLE != 0
            || self.gpe_status.iter().zip(self.gpe_enable).any(|(status, enable)| status & enable != 0);
        pending && self.control.sci_enable()
    }

    /// What the APM port's ACPI commands do: events become SCIs, or no longer.
    pub fn set_acpi(&mut self, on: bool) {
        self.control.set_sci_enable(on);
    }

    /// Someone pressed the power button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    fn dword(&mut self, at: u64) -> u32 {
        match at {
            register::PM1 => {
                self.see_timer(ticks(self.timer_zero.elapsed()));
                u32::from(self.status) | u32::from(self.enable) << 16
            }
            register::CONTROL => self.control.into_bits(),
            register::TIMER => (ticks(self.timer_zero.elapsed()) & 0xff_ffff) as u32,
            register::GPE_STATUS => self.gpe_status[0],
            0x24 => self.gpe_status[1],
            register::GPE_ENABLE => self.gpe_enable[0],
            0x2c => self.gpe_enable[1],
            register::SMI_ENABLE => self.smi_enable,
            _ => 0,
        }
    }

    fn write_dword(&mut self, at: u64, mask: u32, value: u32) -> Option<Sleep> {
        let merge = |old: u32| old & !mask | value & mask;
        match at {
            register::PM1 => {
                // What is cleared now must not come back from the time before.
                self.see_timer(ticks(self.timer_zero.elapsed()));
                let cleared = (value & mask & 0xffff) as u16;
                self.status &= !(cleared & STATUS);
                self.enable = (merge(u32::from(self.enable) << 16) >> 16) as u16 & ENABLE;
            }
            register::CONTROL => return self.write_control(merge(self.control.into_bits())),
            register::GPE_STATUS => self.gpe_status[0] &= !(value & mask),
            0x24 => self.gpe_status[1] &= !(value & mask),
            register::GPE_ENABLE => self.gpe_enable[0] = merge(self.gpe_enable[0]),
            0x2c => self.gpe_enable[1] = merge(self.gpe_enable[1]),
            register::SMI_ENABLE => self.smi_enable = merge(self.smi_enable) | APMC_EN,
            _ => {}
        }
        None
    }

    fn write_control(&mut self, bits: u32) -> Option<Sleep> {
        let written = Control::from_bits(bits);
        self.control = Control::new()
            .with_sci_enable(written.sci_enable())
            .with_bus_master_reload(written.bus_master_reload())
            .with_sleep_type(written.sleep_type());
        (written.sleep_enable() && written.sleep_type() == SOFT_OFF).then_some(Sleep::Off)
    }

    /// Brings the timer's status bit up to date. Nothing raises the interrupt on its own: who wants
    /// to know the overflow reads the status, and no system in use waits for it.
    fn see_timer(&mut self, ticks: u64) {
        let half_turns = ticks >> 23;
        if half_turns != self.half_turns {
            self.half_turns = half_turns;
            self.status |= TIMER_OVERFLOW;
        }
    }
}

/// Ticks of the timer, 3.579545 MHz, in this time.
fn ticks(time: Duration) -> u64 {
    const HERTZ: u64 = 3_579_545;
    // In two parts, so that nothing overflows and each second has its exact number of ticks.
    let part = u64::from(time.subsec_nanos()) * HERTZ / 1_000_000_000;
    time.as_secs().wrapping_mul(HERTZ).wrapping_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smi_enable_says_that_nothing_is_to_be_set_up() {
        let mut pm = Pm::new();
        assert_eq!(pm.read(0x30, Width::B4), 0x20);
        pm.write(0x30, Width::B4, 0);
        assert_eq!(pm.read(0x30, Width::B1), 0x20);
        assert_eq!(pm.read(0x34, Width::B4), 0);
    }

    #[test]
    fn the_timer_runs_at_its_frequency_and_never_backwards() {
        assert_eq!(ticks(Duration::from_secs(1)), 3_579_545);
        assert_eq!(ticks(Duration::from_micros(1)), 3);
        assert_eq!(ticks(Duration::from_millis(250)), 894_886);
        let mut last = 0;
        for step in 0..40_000_u64 {
            let now = ticks(Duration::from_nanos(999_990_000 + step));
            assert!(now == last || now == last + 1 || last == 0);
            last = now;
        }
        let mut pm = Pm::new();
        let first = pm.read(0x08, Width::B4);
        std::thread::sleep(Duration::from_millis(2));
        let second = pm.read(0x08, Width::B4);
        assert!(second >= first + 7159, "{first} {second}");
        assert_eq!(pm.read(0x0b, Width::B1), 0, "24 bits");
    }

    #[test]
    fn a_change_of_the_upper_bit_shows_once() {
        let mut pm = Pm::new();
        pm.see_timer(0x7f_ffff);
        assert_eq!(pm.status, 0);
        // Two changes that nobody looked at between are seen all the same.
        pm.see_timer(0x100_0000);
        assert_eq!(pm.status, TIMER_OVERFLOW);
        pm.status = 0;
        pm.see_timer(0x100_0001);
        assert_eq!(pm.status, 0);
    }

    #[test]
    fn soft_off_is_asked_for_in_any_width() {
        for (offset, width, value) in [
            (4, Width::B2, 0x2001),
            (4, Width::B4, 0x2000),
            (5, Width::B1, 0x20),
            (0, Width::B8, 0x2000 << 32),
        ] {
            let mut pm = Pm::new();
            assert_eq!(pm.write(offset, width, value), Some(Sleep::Off), "{offset} {width:?}");
            assert_eq!(pm.read(4, Width::B2) & 0x2000, 0, "write only");
        }
        let mut pm = Pm::new();
        assert_eq!(pm.write(4, Width::B2, 0x3c01), None, "no such sleep state");
        assert_eq!(pm.read(4, Width::B2), 0x1c01);
    }

    #[test]
    fn the_power_button_pulls_the_interrupt_until_cleared() {
        let mut pm = Pm::new();
        pm.press_power_button();
        assert!(!pm.sci());
        pm.write(2, Width::B2, 0xffff);
        assert_eq!(pm.read(2, Width::B2), 0x0521);
        assert!(!pm.sci(), "ACPI is off");
        pm.set_acpi(true);
        assert!(pm.sci());
        pm.write(0, Width::B2, 0x0001);
        assert!(pm.sci(), "another bit was cleared");
        pm.write(1, Width::B1, 0x01);
        assert!(!pm.sci());
        assert_eq!(pm.read(0, Width::B4), 0x0521_0000);
    }

    #[test]
    fn accesses_of_any_shape_are_safe() {
        let mut pm = Pm::new();
        for offset in 0..LENGTH {
            for width in [Width::B1, Width::B2, Width::B4, Width::B8] {
                pm.write(offset, width, u64::MAX);
                assert_eq!(pm.read(offset, width) & !width.all_ones(), 0);
            }
        }
        pm.write(0x26, Width::B4, u64::MAX);
        assert_eq!(pm.read(0x28, Width::B2), 0xffff);
        pm.write(0x26, Width::B4, 0x1234_0000);
        assert_eq!(pm.read(0x28, Width::B4), 0xffff_1234, "the enable half that the write reached");
    }
}
