//! The interface that Bochs added: resolutions beyond the VGA's, and a linear framebuffer.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::spec::{self, VRAM_SIZE};

/// The version shown at first, and the oldest that can be asked for.
const VERSIONS: std::ops::RangeInclusive<u16> = 0xb0c0..=0xb0c5;
/// What the enable register keeps.
const ENABLE_MASK: u16 =
    spec::DISPI_ENABLED | spec::DISPI_GETCAPS | spec::DISPI_8BIT_DAC | spec::DISPI_LFB | spec::DISPI_NO_CLEAR;
const COUNT: usize = 11;

/// Widest and highest picture, and most bits per pixel.
pub const MAXIMA: [u16; 3] = [5120, 4096, 32];

/// Registers of the Bochs interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dispi {
    index: U16,
    /// Not zero: pixels of 15, 16 and 32 bits are big-endian.
    big_endian: U16,
    registers: [U16; COUNT],
}

impl Default for Dispi {
    fn default() -> Dispi {
        let mut registers = [U16::ZERO; COUNT];
        registers[usize::from(spec::DISPI_ID)] = U16::new(*VERSIONS.end());
        Dispi { index: U16::ZERO, big_endian: U16::ZERO, registers }
    }
}

/// How the Bochs interface lays the picture out in video memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pixels of a line, 8 to [`MAXIMA`], in eights.
    pub width: usize,
    /// Lines, 1 to [`MAXIMA`].
    pub height: usize,
    /// Bits per pixel: 4, 8, 15, 16, 24 or 32.
    pub bpp: u16,
    /// Bytes of video memory from one line to the next, of one plane at 4 bits per pixel.
    pub pitch: usize,
    /// First pixel shown.
    pub x: usize,
    /// First line shown.
    pub y: usize,
}

/// What a write asks of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Video memory is to be cleared, this many bytes from the start.
    Clear(usize),
}

impl Dispi {
    /// The index register.
    pub fn index(&self) -> u16 {
        self.index.get()
    }

    /// Sets the index register.
    pub fn set_index(&mut self, index: u16) {
        self.index.set(index);
    }

    /// A register's value as the guest reads it; zero where there is none.
    pub fn read(&self, register: u16) -> u16 {
        let caps = self.value(spec::DISPI_ENABLE) & spec::DISPI_GETCAPS != 0;
        match register {
            spec::DISPI_MEMORY => u16::try_from(VRAM_SIZE >> 16).unwrap_or(u16::MAX),
            spec::DISPI_XRES..=spec::DISPI_BPP if caps => MAXIMA[usize::from(register) - 1],
            _ => self.value(register),
        }
    }

    /// Writes a register. A resolution that is not possible is made so once the interface is
    /// enabled: video memory always holds the picture.
    pub(super) fn write(&mut self, register: u16, value: u16) -> Effect {
        match register {
            spec::DISPI_ID if VERSIONS.contains(&value) => self.set(register, value),
            spec::DISPI_ENABLE => return self.enable(value & ENABLE_MASK),
            spec::DISPI_BANK => self.set(register, value),
            spec::DISPI_X_OFFSET | spec::DISPI_Y_OFFSET => self.set(register, value),
            spec::DISPI_XRES | spec::DISPI_YRES | spec::DISPI_BPP | spec::DISPI_VIRT_WIDTH => {
                self.set(register, value);
                if self.enabled() {
                    self.fit();
                }
            }
            // The version asked for is unknown, or the register is read-only, or there is none.
            _ => {}
        }
        Effect::None
    }

    /// The interface governs the display.
    pub fn enabled(&self) -> bool {
        self.value(spec::DISPI_ENABLE) & spec::DISPI_ENABLED != 0
    }

    /// Bits of a component of a colour of the DAC: 6 or 8.
    pub fn dac_bits(&self) -> u32 {
        if self.value(spec::DISPI_ENABLE) & spec::DISPI_8BIT_DAC != 0 { 8 } else { 6 }
    }

    /// Pixels of 15, 16 and 32 bits are big-endian.
    pub fn big_endian(&self) -> bool {
        self.big_endian.get() != 0
    }

    /// Sets the byte order of pixels.
    pub fn set_big_endian(&mut self, big: bool) {
        self.big_endian.set(u16::from(big));
    }

    /// Where the bank starts that the window shows, in bytes of video memory (in bytes of a plane at
    /// 4 bits per pixel); zero while the interface is off. A bank that does not exist wraps around.
    pub(super) fn bank(&self) -> usize {
        if !self.enabled() {
            return 0;
        }
        let size = if self.planar() { VRAM_SIZE / 4 } else { VRAM_SIZE };
        (usize::from(self.value(spec::DISPI_BANK)) << 16) % size
    }

    /// 4 bits per pixel: four planes, as the VGA has them.
    pub(super) fn planar(&self) -> bool {
        self.value(spec::DISPI_BPP) == 4
    }

    /// The picture, if the interface is enabled.
    pub fn layout(&self) -> Option<Layout> {
        if !self.enabled() {
            return None;
        }
        let mut fitted = *self;
        fitted.fit();
        let of = |register| usize::from(fitted.value(register));
        Some(Layout {
            width: of(spec::DISPI_XRES),
            height: of(spec::DISPI_YRES),
            bpp: fitted.value(spec::DISPI_BPP),
            pitch: fitted.pitch(),
            x: of(spec::DISPI_X_OFFSET),
            y: of(spec::DISPI_Y_OFFSET),
        })
    }

    fn enable(&mut self, value: u16) -> Effect {
        let was = self.enabled();
        self.set(spec::DISPI_ENABLE, value);
        if was || !self.enabled() {
            return Effect::None;
        }
        self.set(spec::DISPI_VIRT_WIDTH, self.value(spec::DISPI_XRES));
        self.set(spec::DISPI_X_OFFSET, 0);
        self.set(spec::DISPI_Y_OFFSET, 0);
        self.fit();
        if value & spec::DISPI_NO_CLEAR != 0 {
            return Effect::None;
        }
        let planes = if self.planar() { 4 } else { 1 };
        Effect::Clear(self.pitch() * planes * usize::from(self.value(spec::DISPI_YRES)))
    }

    /// Makes resolution, depth and virtual size possible.
    fn fit(&mut self) {
        if !matches!(self.value(spec::DISPI_BPP), 4 | 8 | 15 | 16 | 24 | 32) {
            self.set(spec::DISPI_BPP, 8);
        }
        let width = self.value(spec::DISPI_XRES).clamp(8, MAXIMA[0]) & !7;
        self.set(spec::DISPI_XRES, width);
        let planes = if self.planar() { 4 } else { 1 };
        // The narrowest lines give the most of them, and the most lines the widest.
        let most = |pitch: usize| u16::try_from(VRAM_SIZE / planes / pitch).unwrap_or(u16::MAX);
        self.set(spec::DISPI_VIRT_WIDTH, self.value(spec::DISPI_VIRT_WIDTH).max(width) & !7);
        let narrowest = most(self.pitch_of(width));
        let height = self.value(spec::DISPI_YRES).clamp(1, MAXIMA[1]).min(narrowest);
        self.set(spec::DISPI_YRES, height);
        if most(self.pitch()) < height {
            self.set(spec::DISPI_VIRT_WIDTH, width);
        }
        self.set(spec::DISPI_VIRT_HEIGHT, most(self.pitch()));
    }

    fn pitch(&self) -> usize {
        self.pitch_of(self.value(spec::DISPI_VIRT_WIDTH))
    }

    /// Bytes of a line of so many pixels, at least 1.
    fn pitch_of(&self, pixels: u16) -> usize {
        let bits = self.value(spec::DISPI_BPP);
        let bits = usize::from(match bits {
            4 => 1,
            15 => 16,
            _ => bits,
        });
        (usize::from(pixels) * bits / 8).max(1)
    }

    fn value(&self, register: u16) -> u16 {
        self.registers.get(usize::from(register)).map_or(0, |value| value.get())
    }

    fn set(&mut self, register: u16, value: u16) {
        if let Some(slot) = self.registers.get_mut(usize::from(register)) {
            slot.set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(width: u16, height: u16, bpp: u16) -> (Dispi, Effect) {
        let mut dispi = Dispi::default();
        dispi.write(spec::DISPI_XRES, width);
        dispi.write(spec::DISPI_YRES, height);
        dispi.write(spec::DISPI_BPP, bpp);
        let effect = dispi.write(spec::DISPI_ENABLE, spec::DISPI_ENABLED | spec::DISPI_LFB);
        (dispi, effect)
    }

    #[test]
    fn the_version_is_negotiated_by_writing_it() {
        let mut dispi = Dispi::default();
        assert_eq!(dispi.read(spec::DISPI_ID), 0xb0c5);
        dispi.write(spec::DISPI_ID, 0xb0c0);
        dispi.write(spec::DISPI_ID, 0xb0c6);
        assert_eq!(dispi.read(spec::DISPI_ID), 0xb0c0);
    }

    #[test]
    fn capabilities_are_read_in_place_of_the_resolution() {
        let mut dispi = Dispi::default();
        dispi.write(spec::DISPI_XRES, 640);
        dispi.write(spec::DISPI_ENABLE, spec::DISPI_GETCAPS);
        assert_eq!([1, 2, 3].map(|register| dispi.read(register)), MAXIMA);
        dispi.write(spec::DISPI_ENABLE, 0);
        assert_eq!(dispi.read(spec::DISPI_XRES), 640);
        assert_eq!(dispi.read(spec::DISPI_MEMORY), 256);
    }

    #[test]
    fn enabling_sets_the_virtual_size_and_clears() {
        let (mut dispi, effect) = enabled(640, 480, 32);
        assert_eq!(effect, Effect::Clear(640 * 480 * 4));
        assert_eq!((dispi.read(spec::DISPI_VIRT_WIDTH), dispi.read(spec::DISPI_VIRT_HEIGHT)), (640, 6553));
        assert_eq!(dispi.write(spec::DISPI_ENABLE, spec::DISPI_ENABLED), Effect::None);
        dispi.write(spec::DISPI_ENABLE, 0);
        let keep = spec::DISPI_ENABLED | spec::DISPI_NO_CLEAR;
        assert_eq!(dispi.write(spec::DISPI_ENABLE, keep), Effect::None);
    }

    #[test]
    fn no_picture_is_larger_than_video_memory() {
        let sizes = [0, 1, 8, 640, 801, 5119, 5120, 16000, u16::MAX];
        for width in sizes {
            for height in sizes {
                for bpp in [0, 4, 8, 15, 16, 24, 32, 33] {
                    let (mut dispi, _) = enabled(width, height, bpp);
                    for virtual_width in sizes {
                        dispi.write(spec::DISPI_VIRT_WIDTH, virtual_width);
                        let layout = dispi.layout().unwrap();
                        let planes = if layout.bpp == 4 { 4 } else { 1 };
                        assert!(layout.pitch * planes * layout.height <= VRAM_SIZE, "{layout:?}");
                        assert!(layout.width >= 8 && layout.height >= 1, "{layout:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn banks_beyond_the_end_wrap() {
        let (mut dispi, _) = enabled(640, 480, 8);
        dispi.write(spec::DISPI_BANK, 255);
        assert_eq!(dispi.bank(), 255 << 16);
        dispi.write(spec::DISPI_BANK, 257);
        assert_eq!(dispi.bank(), 1 << 16);
        dispi.write(spec::DISPI_ENABLE, 0);
        assert_eq!(dispi.bank(), 0);
    }
}
