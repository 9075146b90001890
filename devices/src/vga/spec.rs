//! Ports, indexes and bits of a VGA (IBM Video Subsystem, 1992) and of the Bochs VBE interface.

/// Vendor and device ID.
pub const IDENTITY: (u16, u16) = (0x1234, 0x1111);
/// Bytes of video memory: BAR 0.
pub const VRAM_SIZE: usize = 16 << 20;
/// Bytes that the four planes share at the start of video memory.
pub const PLANES_SIZE: usize = 256 << 10;
/// Bytes of the register BAR, BAR 2.
pub const MMIO_SIZE: usize = 4096;
/// Bytes of the expansion ROM's BAR.
pub const ROM_SIZE: usize = 64 << 10;

/// CRT controller index, monochrome address.
pub const CRTC_INDEX_MONO: u16 = 0x3b4;
/// CRT controller data, monochrome address.
pub const CRTC_DATA_MONO: u16 = 0x3b5;
/// Input status 1 (read) and feature control (write), monochrome address.
pub const STATUS_1_MONO: u16 = 0x3ba;
/// Attribute controller: index and data in turn (write), index (read).
pub const ATTRIBUTE: u16 = 0x3c0;
/// Attribute controller data (read).
pub const ATTRIBUTE_READ: u16 = 0x3c1;
/// Miscellaneous output (write), input status 0 (read).
pub const MISC_WRITE: u16 = 0x3c2;
/// Video subsystem enable.
pub const ENABLE: u16 = 0x3c3;
/// Sequencer index.
pub const SEQUENCER_INDEX: u16 = 0x3c4;
/// Sequencer data.
pub const SEQUENCER_DATA: u16 = 0x3c5;
/// DAC pixel mask.
pub const DAC_MASK: u16 = 0x3c6;
/// DAC read index (write), state (read).
pub const DAC_READ_INDEX: u16 = 0x3c7;
/// DAC write index.
pub const DAC_WRITE_INDEX: u16 = 0x3c8;
/// DAC data.
pub const DAC_DATA: u16 = 0x3c9;
/// Feature control (read).
pub const FEATURE_READ: u16 = 0x3ca;
/// Miscellaneous output (read).
pub const MISC_READ: u16 = 0x3cc;
/// Graphics controller index.
pub const GRAPHICS_INDEX: u16 = 0x3ce;
/// Graphics controller data.
pub const GRAPHICS_DATA: u16 = 0x3cf;
/// CRT controller index, colour address.
pub const CRTC_INDEX: u16 = 0x3d4;
/// CRT controller data, colour address.
pub const CRTC_DATA: u16 = 0x3d5;
/// Input status 1 (read) and feature control (write), colour address.
pub const STATUS_1: u16 = 0x3da;

/// Miscellaneous output: the CRT controller answers at its colour address.
pub const MISC_COLOR: u8 = 1 << 0;
/// Miscellaneous output: the window decodes.
pub const MISC_RAM: u8 = 1 << 1;

/// Input status 1: not in the displayed part of a line.
pub const STATUS_1_BLANK: u8 = 1 << 0;
/// Input status 1: vertical retrace.
pub const STATUS_1_RETRACE: u8 = 1 << 3;

/// Port of the Bochs index register, 16 bits.
pub const DISPI_INDEX: u16 = 0x1ce;
/// Port of the Bochs data register, 16 bits.
pub const DISPI_DATA: u16 = 0x1cf;

/// Bochs register: version.
pub const DISPI_ID: u16 = 0;
/// Bochs register: width in pixels.
pub const DISPI_XRES: u16 = 1;
/// Bochs register: height in lines.
pub const DISPI_YRES: u16 = 2;
/// Bochs register: bits per pixel.
pub const DISPI_BPP: u16 = 3;
/// Bochs register: enable and flags.
pub const DISPI_ENABLE: u16 = 4;
/// Bochs register: number of the 64 KiB bank in the window.
pub const DISPI_BANK: u16 = 5;
/// Bochs register: pixels from one line to the next.
pub const DISPI_VIRT_WIDTH: u16 = 6;
/// Bochs register: lines that video memory holds.
pub const DISPI_VIRT_HEIGHT: u16 = 7;
/// Bochs register: first pixel shown.
pub const DISPI_X_OFFSET: u16 = 8;
/// Bochs register: first line shown.
pub const DISPI_Y_OFFSET: u16 = 9;
/// Bochs register: video memory in units of 64 KiB.
pub const DISPI_MEMORY: u16 = 10;

/// Bochs enable: the interface governs the display.
pub const DISPI_ENABLED: u16 = 1 << 0;
/// Bochs enable: resolution registers read as the maxima.
pub const DISPI_GETCAPS: u16 = 1 << 1;
/// Bochs enable: the DAC has 8 bits per component, not 6.
pub const DISPI_8BIT_DAC: u16 = 1 << 5;
/// Bochs enable: linear framebuffer. It is always there; the bit is only kept.
pub const DISPI_LFB: u16 = 1 << 6;
/// Bochs enable: video memory is not cleared on enabling.
pub const DISPI_NO_CLEAR: u16 = 1 << 7;

/// BAR 2: 384 bytes of EDID.
pub const MMIO_EDID: u64 = 0x000;
/// BAR 2: ports 0x3c0 to 0x3df.
pub const MMIO_PORTS: u64 = 0x400;
/// BAR 2: the Bochs registers, 16 bits each.
pub const MMIO_DISPI: u64 = 0x500;
/// BAR 2: size in bytes of the block of registers that starts here, 32 bits.
pub const MMIO_EXTENDED_SIZE: u64 = 0x600;
/// BAR 2: byte order of pixels, 32 bits.
pub const MMIO_BYTE_ORDER: u64 = 0x604;
/// Pixels are little-endian.
pub const LITTLE_ENDIAN: u32 = 0x1e1e_1e1e;
/// Pixels are big-endian.
pub const BIG_ENDIAN: u32 = 0xbebe_bebe;
