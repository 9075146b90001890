//! Small guest programs, as bytes, and what they must show.
//!
//! * [`painter`]: a boot sector that sets a video mode, paints a pattern and turns the machine off.
//! * [`kernel`]: a bzImage whose setup code prints what it was given and turns the machine off.

mod code;
pub mod kernel;
pub mod painter;
