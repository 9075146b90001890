//! A PCI Express root port: a type 1 header, and what its registers let through.
//!
//! It is the generic port 1b36:000c, an identity that stands for no silicon: drivers go by its class, and
//! nobody expects a chipset's own registers of it. It has no slot, so that firmware does not reserve
//! hot-plug windows, which can misplace a large BAR behind it.
//!
//! Some bits are kept without effect, as the map cannot express them: Bus Master Enable of the port for
//! the DMA of what lies behind it, ISA Enable, and Link Disable beyond the link's status.

use trapline_io::device::{Claims, Forwards};
use trapline_io::space::DwordSet;
use trapline_io::{Device, Fault, Gpa, Port, Region, Span, Width};

use crate::pci::spec::{self, BridgeControl, express};
use crate::pci::{ConfigSpace, Express, Identity, Link, Pin, PortType, Power};

/// Where the power management control register lies, the first capability being its own.
const POWER_CONTROL: u8 = 0x44;
/// D0.
const FULL_POWER: u8 = 0;

/// A root port with nothing but what a bridge needs.
#[derive(Debug)]
pub struct RootPort {
    config: ConfigSpace,
    power: Option<Power>,
    express: Option<u16>,
}

impl RootPort {
    /// The dwords whose writes change the map: those of a bridge, and its power state.
    pub const TOPOLOGY: DwordSet = ConfigSpace::BRIDGE_TOPOLOGY.union(DwordSet::of(&[POWER_CONTROL]));

    /// A port as it is after power-on: all windows closed, no bus behind it. `link` is what it tells
    /// about its link.
    pub fn new(link: Link) -> RootPort {
        let mut config = ConfigSpace::new_bridge(Identity {
            vendor: 0x1b36,
            device: 0x000c,
            revision: 0,
            class: 0x06_0400,
            subsystem: (0, 0),
        });
        let power = Power::add_to(&mut config);
        let express = Express { port: PortType::RootPort, link }.add_to(&mut config);
        config.set_pin(Pin::A);
        RootPort { config, power, express }
    }

    fn bridge_control(&self) -> BridgeControl {
        BridgeControl::from_bits(self.config.word(spec::BRIDGE_CONTROL))
    }

    fn power_state(&self) -> u8 {
        self.power.map_or(FULL_POWER, |power| power.state(&self.config))
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let power = self.power_state();
        self.config.write_region(offset, width, value)?;
        if let Some(capability) = self.power {
            capability.settle(&mut self.config, power);
        }
        self.settle_link();
        Ok(())
    }

    /// A link that is switched off is not active.
    fn settle_link(&mut self) {
        let Some(at) = self.express else { return };
        let off = self.config.read(at + express::LINK_CONTROL, Width::B2) & u32::from(express::LINK_DISABLE);
        let active = u32::from(express::LINK_ACTIVE);
        let status = self.config.read(at + express::LINK_STATUS, Width::B2) & !active;
        let status = if off == 0 { status | active } else { status };
        self.config.set(at + express::LINK_STATUS, Width::B2, status);
    }

    /// The I/O window: address bits 15:12, granularity 4 KiB (bridge specification section 3.2.5.6).
    fn io_window(&self) -> Option<Span<Port>> {
        let [base, limit] = [0, 1].map(|n| u16::from(self.config.byte(spec::IO_BASE + n) & 0xf0) << 8);
        Span::new(Port(base), Port(limit | 0xfff))
    }

    /// A memory window: address bits 31:20 at `at`, granularity 1 MiB, with these upper halves
    /// (bridge specification sections 3.2.5.8 and 3.2.5.9).
    fn memory_window(&self, at: u16, upper: [u32; 2]) -> Option<Span<Gpa>> {
        let [base, limit] = [0, 2].map(|n| u64::from(self.config.word(at + n) & 0xfff0) << 16);
        let first = u64::from(upper[0]) << 32 | base;
        Span::new(Gpa(first), Gpa(u64::from(upper[1]) << 32 | limit | 0xf_ffff))
    }

    fn prefetchable_window(&self) -> Option<Span<Gpa>> {
        let upper = [0, 4].map(|n| self.config.read(spec::PREFETCHABLE_BASE_UPPER + n, Width::B4));
        self.memory_window(spec::PREFETCHABLE_BASE, upper)
    }

    /// What goes downstream now. In D3hot only configuration accesses do (PCI PM 1.2 chapter 5).
    fn forwards(&self) -> Forwards {
        let command = self.config.command();
        let awake = self.power_state() == FULL_POWER;
        let (io, memory) = (command.io() && awake, command.memory() && awake);
        let vga = self.bridge_control().vga();
        Forwards {
            in_reset: self.bridge_control().reset(),
            secondary: self.config.byte(spec::PRIMARY_BUS + 1),
            subordinate: self.config.byte(spec::PRIMARY_BUS + 2),
            io: self.io_window().filter(|_| io),
            memory: self.memory_window(spec::MEMORY_BASE, [0, 0]).filter(|_| memory),
            prefetchable: self.prefetchable_window().filter(|_| memory),
            vga_io: vga && io,
            vga_memory: vga && memory,
        }
    }
}

impl Device for RootPort {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => self.config.read_region(offset, width),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.write_config(offset, width, value),
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn claims(&self) -> Claims {
        Claims { ranges: Vec::new(), bridge: Some(self.forwards()) }
    }
}

#[cfg(test)]
mod tests;
