//! Where SeaBIOS puts base address registers, told before it runs.
//!
//! The firmware hands out addresses by a fixed rule. [`place`] is that rule as a function of values: functions
//! in, addresses out. So a machine whose functions do not fit is refused before it starts, with the sum that
//! does not fit, where the firmware would stop without a word or go past the last address there is; and
//! whoever must know an address beforehand can ask.
//!
//! # The rule
//!
//! Ports, memory and prefetchable memory are three lists. On each bus they are sorted by alignment, then by
//! size, the largest first, and handed out without gaps. What a bridge's bus needs is one entry of the bus
//! above, in units of 4 KiB of ports or 2 MiB of memory.
//!
//! * Ports lie from c000h on, or from 1000h where that is not enough.
//! * Memory below 4 GiB is [`LOW`], filled from its end down: of the two memory lists that with the larger
//!   alignment lies lower.
//! * If that is too small, or if the firmware expects a guest that uses 64-bit addresses (where there is RAM
//!   above 4 GiB; up to 1.16.2 never, in 1.16.3 only where it believes the width), all 64-bit registers of bus
//!   0, and the prefetchable windows of bridges behind which all prefetchable registers are 64-bit, go above
//!   RAM: up to 1.16.2 right above it, later to the end of what the processor can address, if the firmware
//!   believes what CPUID says of that. Nobody looks whether they end before it.
//!
//! Versions differ, see [`Version`]. Other firmware places as it likes; it is not told beforehand.

mod misfit;
mod seabios;
mod survey;
mod version;

use trapline_devices::pci::{Bar, Devfn};
use trapline_devices::q35::RamSplit;
use trapline_io::device::Range;
use trapline_io::{Gpa, Span};

pub use misfit::{Misfit, Share};
pub(crate) use seabios::holds;
pub use seabios::place;
pub use survey::survey;
pub(crate) use version::is_believed;
pub use version::{Vendor, Version};

/// The 32-bit window of SeaBIOS on this machine: behind the configuration space window, before the I/O APIC.
pub const LOW: (u64, u64) = (0xc000_0000, 0xfebf_ffff);

/// The place of a function in its machine's list.
pub type FunctionId = usize;

/// A PCI function as the firmware finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// What messages call it.
    pub name: String,
    /// The bridge above it; `None` on bus 0.
    pub parent: Option<FunctionId>,
    /// Device and function on its bus.
    pub devfn: Devfn,
    /// Base class and subclass.
    pub class: u16,
    /// The base address registers; 6 is the ROM.
    pub bars: [Option<Bar>; 7],
    /// Set for a bridge. All three of its windows can be opened, and the prefetchable one takes 64-bit
    /// addresses, as those of this machine's root ports.
    pub bridge: Option<Bridge>,
}

/// What the firmware asks of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Something can be put behind it later: a port with a slot, or a hot-plug controller. The firmware then
    /// gives it windows that are not needed yet.
    pub hot_plug: bool,
}

/// A machine as the firmware finds it.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// The functions, bridges among them, in any order.
    pub functions: &'a [Function],
    /// Where RAM lies.
    pub ram: RamSplit,
    /// How many bits of a physical address CPUID tells, 32 to 52.
    pub phys_bits: u8,
    /// Whose processor CPUID tells.
    pub vendor: Vendor,
    /// What the memory map reserves above 4 GiB (`etc/e820`).
    pub reserved: &'a [Span<Gpa>],
    /// `etc/reserved-memory-end`: below it the firmware puts nothing above 4 GiB.
    pub floor: u64,
}

/// Where addresses of this many bits end.
fn end_of(bits: u8) -> u64 {
    1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX)
}

/// A base address register and what it will decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whose.
    pub function: FunctionId,
    /// Its index; 6 is the ROM.
    pub bar: u8,
    /// Where, naturally aligned.
    pub at: Range,
}

/// An open window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Whose.
    pub bridge: FunctionId,
    /// The prefetchable one, not that for other memory.
    pub prefetchable: bool,
    /// What it passes on.
    pub at: Range,
}

/// Where everything will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All base address registers, in no order.
    pub bars: Vec<Placed>,
    /// All open windows of bridges, in no order.
    pub windows: Vec<Window>,
    /// The 64-bit window, in whole GiB: from the first address that the firmware took above RAM to the end of
    /// the last; `None` if it put nothing there.
    pub high: Option<Span<Gpa>>,
}

impl Plan {
    /// Where a register will be, if the function has it.
    pub fn bar(&self, function: FunctionId, bar: u8) -> Option<Range> {
        let found = self.bars.iter().find(|placed| (placed.function, placed.bar) == (function, bar));
        found.map(|placed| placed.at)
    }
}

#[cfg(test)]
mod tests;
