//! The window against a slow model: one bit of one plane at a time.

use proptest::prelude::*;

use super::*;
use crate::vga::spec::{
    DISPI_BANK, DISPI_BPP, DISPI_ENABLE, DISPI_ENABLED, DISPI_NO_CLEAR, GRAPHICS_DATA, GRAPHICS_INDEX,
    MISC_WRITE, SEQUENCER_DATA, SEQUENCER_INDEX,
};

/// The planes as a VGA has them, each of its own.
struct Model {
    planes: [Vec<u8>; 4],
    latches: [u8; 4],
    sequencer: [u8; 5],
    graphics: [u8; 9],
}

impl Model {
    fn new(sequencer: [u8; 5], graphics: [u8; 9]) -> Model {
        let planes = std::array::from_fn(|_| vec![0; 0x1_0000]);
        Model { planes, latches: [0; 4], sequencer, graphics }
    }

    /// The address inside a plane's 64 KiB before odd/even and chain-4, if the window decodes.
    fn inside(&self, offset: usize) -> Option<usize> {
        match self.graphics[6] / 4 {
            0 => Some(offset % 0x1_0000),
            1 if offset < 0x1_0000 => Some(offset),
            2 if (0x1_0000..0x1_8000).contains(&offset) => Some(offset - 0x1_0000),
            3 if (0x1_8000..0x2_0000).contains(&offset) => Some(offset - 0x1_8000),
            _ => None,
        }
    }

    fn chain_4(&self) -> bool {
        self.sequencer[4] & 8 == 8
    }

    fn read(&mut self, offset: usize) -> u8 {
        let Some(address) = self.inside(offset) else { return 0xff };
        let odd_even = self.graphics[5] & 0x10 == 0x10;
        let (place, plane) = if self.chain_4() {
            (address - address % 4, address % 4)
        } else if odd_even {
            (address - address % 2, usize::from(self.graphics[4]) / 2 * 2 + address % 2)
        } else {
            (address, usize::from(self.graphics[4]))
        };
        for plane in 0..4 {
            self.latches[plane] = self.planes[plane][place];
        }
        if self.graphics[5] & 8 == 0 {
            return self.latches[plane];
        }
        let mut result = 0;
        for bit in 0..8 {
            let matches = (0..4).all(|plane| {
                let care = self.graphics[7] >> plane & 1 == 1;
                let wanted = self.graphics[2] >> plane & 1;
                !care || self.latches[plane] >> bit & 1 == wanted
            });
            result |= u8::from(matches) << bit;
        }
        result
    }

    fn write(&mut self, offset: usize, byte: u8) {
        let Some(address) = self.inside(offset) else { return };
        for plane in 0..4 {
            let mapped = self.sequencer[2] >> plane & 1 == 1;
            let (place, selected) = if self.chain_4() {
                (address - address % 4, plane == address % 4)
            } else if self.sequencer[4] & 4 == 0 {
                (address - address % 2, plane % 2 == address % 2)
            } else {
                (address, true)
            };
            if mapped && selected {
                self.planes[plane][place] = (0..8).map(|bit| self.bit(plane, bit, byte) << bit).sum();
            }
        }
    }

    /// One bit of what a write puts into a plane.
    fn bit(&self, plane: usize, bit: usize, byte: u8) -> u8 {
        let g = &self.graphics;
        let rotated = byte >> ((bit + usize::from(g[3] % 8)) % 8) & 1;
        let set_reset = g[0] >> plane & 1;
        let latch = self.latches[plane] >> bit & 1;
        let mask = g[8] >> bit & 1;
        let (data, mask) = match g[5] & 3 {
            0 if g[1] >> plane & 1 == 1 => (set_reset, mask),
            0 => (rotated, mask),
            1 => return latch,
            2 => (byte >> plane & 1, mask),
            _ => (set_reset, mask & rotated),
        };
        let data = match g[3] / 8 {
            0 => data,
            1 => data & latch,
            2 => data | latch,
            _ => data ^ latch,
        };
        if mask == 1 { data } else { latch }
    }
}

fn registers(sequencer: [u8; 5], graphics: [u8; 9]) -> Registers {
    let mut registers = Registers::default();
    registers.write_port(MISC_WRITE, 0x67);
    for (index, value) in (0..).zip(sequencer) {
        registers.write_port(SEQUENCER_INDEX, index);
        registers.write_port(SEQUENCER_DATA, value);
    }
    for (index, value) in (0..).zip(graphics) {
        registers.write_port(GRAPHICS_INDEX, index);
        registers.write_port(GRAPHICS_DATA, value);
    }
    registers
}

/// Register values with only the bits that exist.
fn sequencers() -> impl Strategy<Value = [u8; 5]> {
    (0..16_u8, prop_oneof![Just(0_u8), Just(4), Just(8), Just(12)])
        .prop_map(|(map, mode)| [3, 1, map, 0, mode | 2])
}

fn graphics() -> impl Strategy<Value = [u8; 9]> {
    ([0..16_u8, 0..16, 0..16, 0..32, 0..4], 0..4_u8, any::<[bool; 2]>(), 0..4_u8, 0..16_u8, any::<u8>())
        .prop_map(|(first, write, [compare, odd_even], map, care, mask)| {
            let mode = write | u8::from(compare) << 3 | u8::from(odd_even) << 4;
            let [a, b, c, d, e] = first;
            [a, b, c, d, e, mode, map << 2 | 1, care, mask]
        })
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)]
}

/// Few places, so that accesses meet; the ends of all windows among them.
fn offsets() -> impl Strategy<Value = u32> {
    let base = prop_oneof![Just(0_u32), Just(0x1_0000), Just(0x1_8000), Just(0xfff8), Just(0x1_7ff8)];
    (base, 0..16_u32).prop_map(|(base, more)| base + more)
}

type Step = (u32, Width, Option<u64>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn planes_do_what_the_model_does(
        programs in prop::collection::vec(
            (sequencers(), graphics(), prop::collection::vec((offsets(), widths(), any::<Option<u64>>()), 1..12)),
            1..12,
        )
    ) {
        let mut memory = vec![0; PLANES_SIZE];
        let mut window = Window::default();
        let mut model = Model::new([0; 5], [0; 9]);
        for (sequencer, graphics, steps) in programs {
            (model.sequencer, model.graphics) = (sequencer, graphics);
            let registers = registers(sequencer, graphics);
            let vram = VolatileSlice::from(memory.as_mut_slice());
            for (offset, width, write) in steps as Vec<Step> {
                let first = usize::try_from(offset).unwrap();
                if let Some(value) = write {
                    window.write(&registers, vram, offset, width, value);
                    for (lane, byte) in value.to_le_bytes().into_iter().take(width.bytes()).enumerate() {
                        model.write(first + lane, byte);
                    }
                } else {
                    let mut expected = [0; 8];
                    for (lane, byte) in expected.iter_mut().take(width.bytes()).enumerate() {
                        *byte = model.read(first + lane);
                    }
                    prop_assert_eq!(window.read(&registers, vram, offset, width), u64::from_le_bytes(expected));
                }
            }
        }
        for (at, byte) in memory.iter().enumerate() {
            prop_assert_eq!(*byte, model.planes[at % 4][at / 4], "byte {:#x}", at);
        }
    }
}

const TEXT: ([u8; 5], [u8; 9]) = ([3, 0, 3, 0, 2], [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff]);

#[test]
fn a_text_cell_is_a_character_and_an_attribute() {
    let registers = registers(TEXT.0, TEXT.1);
    let mut memory = vec![0; PLANES_SIZE];
    let vram = VolatileSlice::from(memory.as_mut_slice());
    let mut window = Window::default();
    window.write(&registers, vram, 0x1_8002, Width::B4, 0x1742_0741);
    assert_eq!(window.read(&registers, vram, 0x1_8002, Width::B4), 0x1742_0741);
    assert_eq!(window.read(&registers, vram, 0x1_7ffe, Width::B4), 0xffff);
    assert_eq!(memory[8..24], [0x41, 7, 0, 0, 0, 0, 0, 0, 0x42, 0x17, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn chain_4_spreads_bytes_over_the_planes() {
    let registers = registers([3, 1, 0xf, 0, 0xe], [0, 0, 0, 0, 0, 0x40, 5, 0xf, 0xff]);
    let mut memory = vec![0; PLANES_SIZE];
    let vram = VolatileSlice::from(memory.as_mut_slice());
    let mut window = Window::default();
    window.write(&registers, vram, 4, Width::B8, 0x0807_0605_0403_0201);
    assert_eq!(window.read(&registers, vram, 6, Width::B4), 0x0605_0403);
    assert_eq!((&memory[16..20], &memory[32..36]), (&[1, 2, 3, 4][..], &[5, 6, 7, 8][..]));
}

#[test]
fn a_window_that_is_off_reads_as_ones() {
    let mut registers = registers(TEXT.0, TEXT.1);
    let mut memory = vec![0; PLANES_SIZE];
    let vram = VolatileSlice::from(memory.as_mut_slice());
    let mut window = Window::default();
    registers.write_port(MISC_WRITE, 0x65);
    window.write(&registers, vram, 0x1_8000, Width::B2, 0x0741);
    assert_eq!(window.read(&registers, vram, 0x1_8000, Width::B2), 0xffff);
    assert!(memory.iter().all(|byte| *byte == 0));
}

#[test]
fn a_bank_shows_video_memory_as_bytes() {
    let mut registers = registers(TEXT.0, TEXT.1);
    registers.dispi.write(DISPI_BPP, 8);
    registers.dispi.write(DISPI_ENABLE, DISPI_ENABLED | DISPI_NO_CLEAR);
    registers.dispi.write(DISPI_BANK, 3);
    let mut memory = vec![0; 0x5_0000];
    let vram = VolatileSlice::from(memory.as_mut_slice());
    let mut window = Window::default();
    window.write(&registers, vram, 0xfffc, Width::B4, 0x4433_2211);
    window.write(&registers, vram, 0xffff, Width::B2, 0x6655);
    assert_eq!(window.read(&registers, vram, 0xfffc, Width::B8), 0xffff_ffff_5533_2211);
    // Beyond what this memory holds.
    registers.dispi.write(DISPI_BANK, 5);
    window.write(&registers, vram, 0, Width::B4, 0);
    assert_eq!(window.read(&registers, vram, 0, Width::B4), 0xffff_ffff);
    assert_eq!(memory[0x3_fffc..0x4_0001], [0x11, 0x22, 0x33, 0x55, 0]);
}

#[test]
fn at_4_bits_per_pixel_a_bank_is_one_of_the_planes() {
    let mut registers = registers([3, 1, 0xf, 0, 6], [0, 0, 0, 0, 0, 0, 5, 0xf, 0xff]);
    registers.dispi.write(DISPI_BPP, 4);
    registers.dispi.write(DISPI_ENABLE, DISPI_ENABLED | DISPI_NO_CLEAR);
    registers.dispi.write(DISPI_BANK, 1);
    let mut memory = vec![0; 0x5_0000];
    let vram = VolatileSlice::from(memory.as_mut_slice());
    Window::default().write(&registers, vram, 0x10, Width::B1, 0xa5);
    assert_eq!(memory[0x4_0040..0x4_0044], [0xa5; 4]);
}
