//! All that decides what an access does and what the screen shows, but for video memory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Attribute, Crtc, Dac, Dispi, Graphics, Sequencer};

/// The registers of the adapter. Made of bytes alone, so that the value in memory is also what a
/// [`Snapshot`](super::Snapshot) carries; any bytes are a valid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    pub feature: u8,
    /// Video subsystem enable; bit 0 counts.
    pub enable: u8,
    /// How often input status 1 was read.
    pub(super) polls: u8,
    /// The sequencer.
    pub sequencer: Sequencer,
    /// The CRT controller.
    pub crtc: Crtc,
    /// The graphics controller.
    pub graphics: Graphics,
    /// The attribute controller.
    pub attribute: Attribute,
    /// The Bochs interface.
    pub dispi: Dispi,
    /// The DAC. It comes last, its colours at its end.
    pub dac: Dac,
}

impl Registers {
    /// Where the DAC's colours start, in bytes; they reach to the end.
    pub(super) const PALETTE: usize = std::mem::offset_of!(Registers, dac) + Dac::PALETTE;
}

impl Default for Registers {
    /// The state after reset: everything off, but the video subsystem enabled.
    fn default() -> Registers {
        Registers {
            misc: 0,
            feature: 0,
            enable: 1,
            polls: 0,
            sequencer: Sequencer::default(),
            crtc: Crtc::default(),
            graphics: Graphics::default(),
            attribute: Attribute::default(),
            dispi: Dispi::default(),
            dac: Dac::default(),
        }
    }
}
