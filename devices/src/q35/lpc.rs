//! The LPC bridge of the ICH9, 8086:2918 at 00:1f.0 (ICH9 datasheet, "LPC Interface Bridge Registers
//! (D31:F0)"): power management,
//! interrupt routing, chipset registers, and the ports by which a machine is reset.
//!
//! What lies behind its LPC bus (RTC, keyboard, serial ports) are devices of their own.

use std::sync::Arc;

use trapline_io::device::{Claim, Claims, Range};
use trapline_io::space::DwordSet;
use trapline_io::{Access, Device, Fault, Gpa, Port, Region, Span, Width};

use super::chipset::{self, Chipset};
use super::pirq::Pirqs;
use super::pm::{self, Pm, Sleep};
use crate::host::{Event, Events};
use crate::pci::{ConfigSpace, Identity, spec};

/// ACPI base address, 32 bits.
const PMBASE: u16 = 0x40;
/// ACPI control, 8 bits.
const ACPI_CNTL: u16 = 0x44;
/// ACPI control: the block decodes.
const ACPI_EN: u32 = 1 << 7;
/// Routing registers of PIRQA to PIRQD, then of PIRQE to PIRQH, 8 bits each.
const PIRQ_ROUT: [u16; 8] = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b];
/// Serial interrupt control, 8 bits: kept, without effect.
const SIRQ_CNTL: u16 = 0x64;
/// General power management configuration 1, 16 bits.
const GEN_PMCON_1: u16 = 0xa0;
/// General power management configuration 1: cannot be cleared before the next reset.
const SMI_LOCK: u32 = 1 << 4;
/// General power management configuration 3, 8 bits.
const GEN_PMCON_3: u16 = 0xa4;
/// Root complex base address, 32 bits.
const RCBA: u16 = 0xf0;

/// Fast reset and A20 gate.
const PORT_92: u64 = 0x92;
/// Advanced power management control and status.
const APM_CONTROL: u64 = 0xb2;
const APM_STATUS: u64 = 0xb3;
/// Reset control.
const RESET_CONTROL: u64 = 0xcf9;
/// Reset control: reset now.
const RESET_CPU: u64 = 1 << 2;
/// Port 0x92: A20 is open, always.
const A20: u64 = 1 << 1;
/// Commands at the APM control port, as the firmware's tables name them.
const ACPI_ENABLE: u64 = 2;
const ACPI_DISABLE: u64 = 3;

/// The regions of the bridge besides configuration space.
mod region {
    use trapline_io::Region;
    /// Fixed ports, by number.
    pub const PORTS: Region = Region(0);
    /// The power management block.
    pub const PM: Region = Region(1);
    /// The chipset configuration registers.
    pub const CHIPSET: Region = Region(2);
    /// Not claimed: the machine's own case, with a power button.
    pub const CASE: Region = Region(3);
}

/// The LPC bridge.
pub struct Lpc {
    config: ConfigSpace,
    pm: Pm,
    chipset: Chipset,
    pirqs: Pirqs,
    events: Arc<dyn Events>,
    apm: [u8; 2],
    reset_control: u8,
    /// Bit 0 of port 0x92 as it was last written.
    fast_reset: bool,
}

impl std::fmt::Debug for Lpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lpc").field("pm", &self.pm).field("pirqs", &self.pirqs).finish_non_exhaustive()
    }
}

impl Lpc {
    /// The dwords whose writes change the map: PMBASE, ACPI_CNTL, RCBA.
    pub const TOPOLOGY: DwordSet = DwordSet::of(&[0x40, 0x44, 0xf0]);

    /// Posted to the bridge's endpoint by the host, this presses the power button. The guest has no
    /// address for it.
    pub const POWER_BUTTON: Access = Access::write(region::CASE, 0, Width::B1, 1);

    /// A bridge whose registers rule `pirqs`, and that reports power-off and reset to `events`.
    pub fn new(pirqs: Pirqs, events: Arc<dyn Events>) -> Lpc {
        let mut lpc = Lpc {
            config: config(),
            pm: Pm::new(),
            chipset: Chipset::new(),
            pirqs,
            events,
            apm: [0; 2],
            reset_control: 0,
            fast_reset: false,
        };
        lpc.reset();
        lpc
    }

    fn read_port(&self, port: u64) -> Result<u64, Fault> {
        match port {
            PORT_92 => Ok(A20),
            APM_CONTROL => Ok(self.apm[0].into()),
            APM_STATUS => Ok(self.apm[1].into()),
            RESET_CONTROL => Ok(self.reset_control.into()),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write_port(&mut self, port: u64, value: u64) -> Result<(), Fault> {
        let byte = (value & 0xff) as u8;
        match port {
            PORT_92 => {
                let asked = value & 1 == 1;
                if asked && !self.fast_reset {
                    self.events.report(Event::Reset);
                }
                self.fast_reset = asked;
            }
            APM_CONTROL => {
                self.apm[0] = byte;
                self.apm_command(value);
            }
            APM_STATUS => self.apm[1] = byte,
            RESET_CONTROL => {
                // The reset itself clears bit 2, so every write of a one is a rising edge.
                self.reset_control = byte & 0x0a;
                if value & RESET_CPU != 0 {
                    self.events.report(Event::Reset);
                }
            }
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    /// What a handler in system management mode would do.
    fn apm_command(&mut self, command: u64) {
        match command {
            ACPI_ENABLE => self.pm.set_acpi(true),
            ACPI_DISABLE => self.pm.set_acpi(false),
            _ => return,
        }
        self.settle_sci();
    }

    fn write_pm(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        if offset.checked_add(width.bytes() as u64).is_none_or(|end| end > pm::LENGTH) {
            return Err(Fault::NoRegister);
        }
        if let Some(Sleep::Off) = self.pm.write(offset, width, value) {
            self.events.report(Event::PowerOff);
        }
        self.settle_sci();
        Ok(())
    }

    fn read_pm(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        if offset.checked_add(width.bytes() as u64).is_none_or(|end| end > pm::LENGTH) {
            return Err(Fault::NoRegister);
        }
        let value = self.pm.read(offset, width);
        if offset < 2 {
            // Looking at the status may have found an overflow of the timer.
            self.settle_sci();
        }
        Ok(value)
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let lock = self.config.read(GEN_PMCON_1, Width::B2) & SMI_LOCK;
        self.config.write_region(offset, width, value)?;
        let kept = self.config.read(GEN_PMCON_1, Width::B2) | lock;
        self.config.set(GEN_PMCON_1, Width::B2, kept);
        self.settle_routes();
        Ok(())
    }

    fn write_chipset(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.chipset.write(offset, width, value)?;
        if (0x3138..0x3154).contains(&offset) {
            self.settle_slots();
        }
        Ok(())
    }

    /// Takes the registers that route interrupts to the wires.
    fn settle_routes(&self) {
        self.pirqs.route(PIRQ_ROUT.map(|at| self.config.byte(at)));
        self.settle_sci();
    }

    fn settle_slots(&self) {
        for (at, slot) in chipset::ROUTES {
            self.pirqs.route_slot(slot, self.chipset.route(at));
        }
    }

    fn settle_sci(&self) {
        let gsi = match self.config.read(ACPI_CNTL, Width::B1) & 7 {
            1 => 10,
            2 => 11,
            4 => 20,
            5 => 21,
            _ => 9,
        };
        self.pirqs.set_sci(gsi, self.pm.sci());
    }

    /// The power management block's ports. At zero it would hide the oldest ports of the machine:
    /// that base means it was never set.
    fn pm_ports(&self) -> Option<Span<Port>> {
        let base = self.config.read(PMBASE, Width::B4) & 0xff80;
        let on = self.config.read(ACPI_CNTL, Width::B1) & ACPI_EN != 0;
        let base = u16::try_from(base).ok().filter(|base| on && *base != 0)?;
        Span::of_len(Port(base), pm::LENGTH)
    }

    fn chipset_memory(&self) -> Option<Span<Gpa>> {
        let rcba = self.config.read(RCBA, Width::B4);
        let base = u64::from(rcba & 0xffff_c000);
        if rcba & 1 == 1 { Span::of_len(Gpa(base), chipset::LENGTH as u64) } else { None }
    }
}

fn config() -> ConfigSpace {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x2918,
        revision: 2,
        class: 0x06_0100,
        subsystem: (0x1af4, 0x1100),
    });
    // Decode and bus mastering cannot be switched off.
    config.preset(spec::COMMAND, Width::B2, 0x0007);
    config.allow(spec::COMMAND, Width::B2, 0x0140);
    config.allow(spec::CACHE_LINE_SIZE, Width::B1, 0);
    config.allow(spec::INTERRUPT_LINE, Width::B1, 0);
    // The header has no multifunction bit: this is the only function of device 31.
    config.preset(PMBASE, Width::B4, 1);
    config.allow(PMBASE, Width::B4, 0xff80);
    config.allow(ACPI_CNTL, Width::B1, 0x87);
    for register in PIRQ_ROUT {
        config.preset(register, Width::B1, 0x80);
        config.allow(register, Width::B1, 0x8f);
    }
    config.preset(SIRQ_CNTL, Width::B1, 0x10);
    config.allow(SIRQ_CNTL, Width::B1, 0xff);
    config.allow(GEN_PMCON_1, Width::B2, 0x0400 | SMI_LOCK);
    config.allow(GEN_PMCON_3, Width::B1, 0x01);
    config.allow(RCBA, Width::B4, 0xffff_c001);
    config
}

fn fixed(first: u16, last: u16) -> Option<Claim> {
    let range = Range::Ports(Span::new(Port(first), Port(last))?);
    Some(Claim::region(range, region::PORTS, first.into()))
}

impl Device for Lpc {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => self.config.read_region(offset, width),
            region::PM => self.read_pm(offset, width),
            region::CHIPSET => self.chipset.read(offset, width),
            // A wider access at 0xb2 reaches both bytes.
            region::PORTS => {
                let mut value = 0;
                for n in (0..width.bytes() as u64).rev() {
                    value = value << 8 | self.read_port(offset.wrapping_add(n))?;
                }
                Ok(value)
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.write_config(offset, width, value),
            region::PM => self.write_pm(offset, width, value),
            region::CHIPSET => self.write_chipset(offset, width, value),
            region::PORTS => {
                let bytes = value.to_le_bytes();
                let lanes = (0_u64..).zip(bytes.iter().take(width.bytes()));
                lanes
                    .map(|(n, byte)| (offset.wrapping_add(n), u64::from(*byte)))
                    .try_for_each(|(port, byte)| self.write_port(port, byte))
            }
            region::CASE => {
                self.pm.press_power_button();
                self.settle_sci();
                Ok(())
            }
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.pm = Pm::new();
        self.chipset = Chipset::new();
        self.apm = [0; 2];
        self.reset_control = 0;
        self.fast_reset = false;
        self.settle_routes();
        self.settle_slots();
    }

    fn claims(&self) -> Claims {
        let fixed = [fixed(0x92, 0x92), fixed(0xb2, 0xb3), fixed(0xcf9, 0xcf9)].into_iter().flatten();
        let pm = self.pm_ports().map(|span| Claim::region(Range::Ports(span), region::PM, 0));
        let memory = self.chipset_memory();
        let chipset = memory.map(|span| Claim::region(Range::Memory(span), region::CHIPSET, 0));
        Claims { ranges: fixed.chain(pm).chain(chipset).collect(), bridge: None }
    }
}

#[cfg(test)]
mod tests;
