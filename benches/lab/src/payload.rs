//! Small guest programs, as bytes, and what they must show.
//!
//! * [`painter`]: a boot sector that sets a video mode, paints a pattern and turns the machine off.
//! * [`mark`]: a boot sector that says on the serial line that it runs.
//! * [`kernel`]: a bzImage whose setup code prints what it was given and turns the machine off.
//! * [`greeting`]: a boot sector that writes a line.
//! * [`burst`]: a boot sector that writes to the screen without end, and resets the machine when told to.
//! * [`handover`]: a boot sector that hands legacy VGA over between two adapters.
//! * [`stranger`]: a boot sector that leaves an adapter in a state that no firmware would.
//! * [`modes`]: a program that goes through what an adapter's window can mean.
//! * [`bare`]: what programs for the bare machine in 32-bit mode have in common: [`irqs`], [`edu`],
//!   [`movebar`], [`accesses`], [`mod@pam`], [`hostile`].

pub mod accesses;
pub mod bare;
pub mod burst;
mod code;
pub mod edu;
mod flat;
pub mod greeting;
pub mod handover;
pub mod hostile;
pub mod irqs;
pub mod kernel;
pub mod mark;
pub mod modes;
pub mod movebar;
pub mod painter;
pub mod pam;
pub mod stranger;
