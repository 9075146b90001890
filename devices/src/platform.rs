//! The devices of a PC that are not PCI functions, each a [`trapline_io::Device`] of its own.
//!
//! * [`fw_cfg`]: what the firmware is told of the machine.
//! * [`rtc`]: CMOS memory and the real-time clock.
//! * [`uart`]: COM1, a 16550A.
//! * [`debug_console`]: the firmware's debug output, port 0x402.
//! * [`keyboard`]: the 8042 controller and a PC keyboard.
//! * [`attention`]: how a device is called without an access of the guest.
//! * [`output`]: where the text devices leave what the guest writes.
//!
//! The interrupt controllers and the timer (ports 0x20, 0x40, 0x61, 0xa0, 0x4d0) are in the kernel;
//! what nothing claims (ports 0x80, 0x378, 0xed ...) reads as ones and swallows writes.

pub mod attention;
pub mod debug_console;
pub mod fw_cfg;
mod isa;
pub mod keyboard;
pub mod output;
pub mod rtc;
pub mod uart;

#[cfg(test)]
pub(crate) mod testing;
