//! From registers and video memory to what a person sees: characters, or pixels.
//!
//! Pure functions: they neither change the adapter nor need one. Whatever the snapshot and the memory
//! hold, they end, stay within the memory given (what lies beyond it is dark), and give a picture of
//! at most [`MAX_WIDTH`] by [`MAX_HEIGHT`].
//!
//! A picture has the dots that the adapter would send to a monitor, as `screendump` of QEMU has them:
//! text mode 3 is 720x400, and mode 13h is 640x400, each of its 320x200 pixels being two dots wide
//! and shown in two lines.

mod cp437;
mod linear;
mod planar;
mod raster;
mod text;

use vm_memory::VolatileSlice;

use super::Snapshot;
use super::dispi;
use super::registers::Registers;
use super::spec::PLANES_SIZE;

pub use text::{Cell, Text};

/// The widest picture, in pixels.
pub const MAX_WIDTH: usize = dispi::MAXIMA[0] as usize;
/// The highest picture, in lines.
pub const MAX_HEIGHT: usize = dispi::MAXIMA[1] as usize;

/// What the adapter shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the screen is off.
    Off,
    /// Characters.
    Text,
    /// A graphics mode of the VGA.
    Planar,
    /// A mode of the Bochs interface.
    Linear,
}

/// A picture: the pixels on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Red, green and blue of each pixel, line by line from the top left: `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Frame {
    /// A black picture.
    fn black(width: usize, height: usize) -> Frame {
        Frame { width, height, rgb: vec![0; width * height * 3] }
    }

    /// Red, green and blue of one pixel; `None` outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width {
            return None;
        }
        let at = y.checked_mul(self.width)?.checked_add(x)?.checked_mul(3)?;
        self.rgb.get(at..)?.first_chunk().copied()
    }

    /// The lines, from the top.
    fn lines_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.rgb.chunks_exact_mut((self.width * 3).max(1))
    }
}

/// What the adapter shows.
pub fn mode(snapshot: &Snapshot) -> Mode {
    let registers = &snapshot.registers;
    if registers.enable & 1 == 0 || !registers.attribute.screen_on() || registers.sequencer.screen_off() {
        Mode::Off
    } else if registers.dispi.enabled() {
        Mode::Linear
    } else if registers.graphics.graphics() {
        Mode::Planar
    } else {
        Mode::Text
    }
}

/// The characters on the screen; `None` in graphics modes and while the screen is off.
pub fn text(snapshot: &Snapshot, vram: VolatileSlice<'_>) -> Option<Text> {
    (mode(snapshot) == Mode::Text).then(|| text::read(&snapshot.registers, &Planes::copy(vram)))
}

/// The picture on the screen; black while the screen is off.
pub fn frame(snapshot: &Snapshot, vram: VolatileSlice<'_>) -> Frame {
    let registers = &snapshot.registers;
    match mode(snapshot) {
        Mode::Off => {
            let (width, height) = size(registers);
            Frame::black(width, height)
        }
        Mode::Text => text::draw(registers, &Planes::copy(vram)),
        Mode::Planar => planar::draw(registers, &Planes::copy(vram)),
        Mode::Linear => linear::draw(registers, vram),
    }
}

/// Width and height of the picture.
fn size(registers: &Registers) -> (usize, usize) {
    match registers.dispi.layout() {
        Some(layout) => (layout.width, layout.height),
        None => {
            let raster = raster::Raster::of(registers);
            (raster.width(), raster.lines)
        }
    }
}

/// The colours that the 16 values of four bits show.
fn sixteen_colors(registers: &Registers) -> [[u8; 3]; 16] {
    let bits = registers.dispi.dac_bits();
    registers.attribute.colors().map(|entry| registers.dac.color(entry, bits))
}

/// The colours of the DAC.
fn all_colors(registers: &Registers) -> [[u8; 3]; 256] {
    let bits = registers.dispi.dac_bits();
    let mut colors = [[0; 3]; 256];
    for (entry, color) in (0..=u8::MAX).zip(&mut colors) {
        *color = registers.dac.color(entry, bits);
    }
    colors
}

/// A copy of the four planes: one cell is four bytes, plane 0 first.
struct Planes(Vec<u8>);

impl Planes {
    fn copy(vram: VolatileSlice<'_>) -> Planes {
        let mut bytes = vec![0; PLANES_SIZE];
        vram.copy_to(&mut bytes);
        Planes(bytes)
    }

    fn cell(&self, cell: usize) -> [u8; 4] {
        self.0.get(cell * 4..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default()
    }
}
