//! An adapter as a guest's program uses it: by ports and by addresses in the window.

use trapline_devices::vga::scanout::{self, Frame, Text};
use trapline_devices::vga::{Adapter, DISPI, Snapshot};
use trapline_io::{Device, Region, Width};

#[path = "../window/modes.rs"]
mod modes;
pub use modes::{MODE_3, MODE_12, MODE_13, Mode};

/// A byte that differs from its neighbours'.
pub fn shade(at: usize) -> u8 {
    u8::try_from((at.wrapping_mul(2_654_435_761) >> 13) % 256).unwrap()
}

/// The adapter, and the palette of the mode that was set.
pub struct Card(pub Adapter, [u8; 16]);

impl Card {
    /// An adapter after power-on.
    pub fn new() -> Card {
        Card(Adapter::new(None).unwrap(), [0; 16])
    }

    pub fn write_port(&mut self, port: u16, width: Width, value: u64) {
        self.0.write(Region::VGA, port.into(), width, value).unwrap();
    }

    pub fn read_port(&mut self, port: u16) -> u8 {
        u8::try_from(self.0.read(Region::VGA, port.into(), Width::B1).unwrap()).unwrap()
    }

    /// Writes registers behind an index port, each in one 16-bit access.
    pub fn index_writes(&mut self, port: u16, writes: &[(u8, u8)]) {
        for &(index, value) in writes {
            self.write_port(port, Width::B2, u64::from(value) << 8 | u64::from(index));
        }
    }

    /// Writes registers of the attribute controller, and shows the screen again.
    pub fn attributes(&mut self, writes: &[(u8, u8)]) {
        self.read_port(0x3da);
        for &(index, value) in writes {
            self.write_port(0x3c0, Width::B1, index.into());
            self.write_port(0x3c0, Width::B1, value.into());
        }
        self.write_port(0x3c0, Width::B1, 0x20);
    }

    pub fn store(&mut self, address: u64, width: Width, value: u64) {
        self.0.write(Region::VGA, address, width, value).unwrap();
    }

    pub fn load(&mut self, address: u64, width: Width) -> u64 {
        self.0.read(Region::VGA, address, width).unwrap()
    }

    /// Writes a register of the Bochs interface through its ports.
    pub fn bochs(&mut self, register: u16, value: u16) {
        self.0.write(DISPI, 0, Width::B2, register.into()).unwrap();
        self.0.write(DISPI, 1, Width::B2, value.into()).unwrap();
    }

    /// Sets all registers, and the DAC to 256 different colours.
    pub fn set_mode(&mut self, mode: &Mode) {
        self.write_port(0x3c2, Width::B1, mode.misc.into());
        let pairs = |values: &[u8]| (0..).zip(values.iter().copied()).collect::<Vec<(u8, u8)>>();
        self.index_writes(0x3c4, &pairs(&mode.sequencer));
        self.index_writes(0x3d4, &[(0x11, 0)]);
        self.index_writes(0x3d4, &pairs(&mode.crtc));
        self.index_writes(0x3ce, &pairs(&mode.graphics));
        self.write_port(0x3c6, Width::B1, 0xff);
        self.write_port(0x3c8, Width::B1, 0);
        for entry in 0..=255 {
            for component in six_bits(entry) {
                self.write_port(0x3c9, Width::B1, component.into());
            }
        }
        self.attributes(&pairs(&mode.attribute));
        self.1.copy_from_slice(&mode.attribute[..16]);
    }

    /// What an entry of the DAC looks like.
    pub fn color(&self, entry: u8) -> [u8; 3] {
        six_bits(entry).map(|six| six << 2 | six >> 4)
    }

    /// What a value of four bits looks like.
    pub fn sixteen(&self, value: u8) -> [u8; 3] {
        self.color(self.1[usize::from(value)])
    }

    pub fn frame(&self) -> Frame {
        scanout::frame(&Snapshot::of(&self.0), self.0.framebuffer().bytes())
    }

    pub fn text(&self) -> Option<Text> {
        scanout::text(&Snapshot::of(&self.0), self.0.framebuffer().bytes())
    }
}

/// Red, green and blue of an entry, each entry's its own.
fn six_bits(entry: u8) -> [u8; 3] {
    [entry & 0x3f, entry >> 2, entry.wrapping_mul(37) >> 2]
}
