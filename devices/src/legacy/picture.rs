//! What stands on a card in text mode: all that its screen is made of, read through the legacy region, and
//! put back.
//!
//! For a card that the host's console showed on, and which no reset clears: the guest's firmware and
//! programs leave their own mode, letters and text there, and the host's kernel, whose console it lost,
//! draws nothing again. Only plain text is known to be all that the screen is made of, so nothing else
//! is taken (IBM Video Subsystem, 1992).

use trapline_io::{Fault, Region, Width};

use super::shadow::LEN;
use super::state::{State, Text};
use crate::assigned::Backend;
use crate::vga::spec::{
    ATTRIBUTE, ATTRIBUTE_READ, CRTC_INDEX, CRTC_INDEX_MONO, DAC_DATA, DAC_MASK, DAC_READ_INDEX,
    DAC_WRITE_INDEX, DISPI_ENABLE, GRAPHICS_INDEX, MISC_COLOR, MISC_READ, MISC_WRITE, MMIO_DISPI,
    SEQUENCER_INDEX, STATUS_1, STATUS_1_MONO,
};

/// A plane of a VGA's memory, in bytes, and where the window shows one.
const PLANE: usize = 0x1_0000;
const GRAPHICS_WINDOW: u64 = 0xa_0000;
/// Plane 2 holds the letters' shapes.
const LETTERS: u8 = 1 << 2;
/// Sequencer register 0: in reset, and running.
const RESET: u8 = 1;
const RUNNING: u8 = 3;
/// Sequencer register 1: nothing is shown.
const BLANK: u8 = 1 << 5;
/// CRT controller register 11h: registers 0 to 7 are protected.
const PROTECT: u8 = 1 << 7;
/// Attribute index: the palette is the screen's, not the processor's.
const SHOWN: u8 = 1 << 5;
/// Registers of the window that decide what is reached: map mask and memory mode, read map, mode and
/// miscellaneous; with values that reach one plane.
const PLANAR: [(u16, u8, u8); 5] = [
    (SEQUENCER_INDEX, 2, LETTERS),
    (SEQUENCER_INDEX, 4, 0x06),
    (GRAPHICS_INDEX, 4, 2),
    (GRAPHICS_INDEX, 5, 0x00),
    (GRAPHICS_INDEX, 6, 0x05),
];

/// See the module's page.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// The text window, which says where it is.
    text: Text,
    misc: u8,
    sequencer: Indexed<5>,
    crtc: Indexed<25>,
    graphics: Indexed<9>,
    attribute: [u8; 21],
    attribute_index: u8,
    dac_mask: u8,
    dac: Vec<u8>,
    cells: Vec<u8>,
    letters: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").field("text", &self.text).finish_non_exhaustive()
    }
}

/// Registers behind an index, and the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indexed<const N: usize> {
    index: u8,
    registers: [u8; N],
}

impl Picture {
    /// Takes what a card shows that decodes ports and memory; `None` if that is no plain text. `bochs` says
    /// that it has the Bochs interface in BAR 2. Some hundred port accesses, and 96 KiB of slow memory.
    ///
    /// # Errors
    /// The card failed an access; its registers may not be what they were.
    pub fn take(card: &mut dyn Backend, bochs: bool) -> Result<Option<Picture>, Fault> {
        let Some(text) = State::read(card, bochs)?.and_then(|state| state.plain_text()) else {
            return Ok(None);
        };
        let misc = read(card, MISC_READ)?;
        let sequencer = Indexed::read(card, SEQUENCER_INDEX)?;
        let crtc = Indexed::read(card, crtc_index(misc))?;
        let graphics = Indexed::read(card, GRAPHICS_INDEX)?;
        let (attribute_index, attribute) = read_attribute(card, misc)?;
        let dac_mask = read(card, DAC_MASK)?;
        write(card, DAC_READ_INDEX, 0)?;
        let dac = (0..3 * 256).map(|_| read(card, DAC_DATA)).collect::<Result<_, _>>()?;
        let mut cells = vec![0; LEN];
        card.read_bytes(Region::VGA, text.first, &mut cells)?;
        let mut letters = vec![0; PLANE];
        planar(card)?;
        let got = card.read_bytes(Region::VGA, GRAPHICS_WINDOW, &mut letters);
        let picture = Picture {
            text,
            misc,
            sequencer,
            crtc,
            graphics,
            attribute,
            attribute_index,
            dac_mask,
            dac,
            cells,
            letters,
        };
        picture.window_back(card).and(got)?;
        picture.indices_back(card)?;
        Ok(Some(picture))
    }

    /// Puts it back on the card, whatever mode that is in. It decodes ports and memory, BAR 2 too where it
    /// has the Bochs interface there.
    ///
    /// # Errors
    /// The card failed an access; part of it may have been put back.
    pub fn put_back(&self, card: &mut dyn Backend, bochs: bool) -> Result<(), Fault> {
        if bochs {
            card.write(Region::bar(2), MMIO_DISPI + 2 * u64::from(DISPI_ENABLE), Width::B2, 0)?;
        }
        set(card, SEQUENCER_INDEX, 0, RESET)?;
        write(card, MISC_WRITE, self.misc)?;
        let [_, clocking, rest @ ..] = self.sequencer.registers;
        set(card, SEQUENCER_INDEX, 1, clocking | BLANK)?;
        for (index, value) in (2..).zip(rest) {
            set(card, SEQUENCER_INDEX, index, value)?;
        }
        set(card, SEQUENCER_INDEX, 0, RUNNING)?;
        let crtc = crtc_index(self.misc);
        set(card, crtc, 0x11, self.crtc.registers[0x11] & !PROTECT)?;
        for (index, value) in (0..).zip(self.crtc.registers).filter(|(index, _)| *index != 0x11) {
            set(card, crtc, index, value)?;
        }
        set(card, crtc, 0x11, self.crtc.registers[0x11])?;
        for (index, value) in (0..).zip(self.graphics.registers) {
            set(card, GRAPHICS_INDEX, index, value)?;
        }
        self.colours_back(card)?;
        planar(card)?;
        card.write_bytes(Region::VGA, GRAPHICS_WINDOW, &self.letters)?;
        self.window_back(card)?;
        card.write_bytes(Region::VGA, self.text.first, &self.cells)?;
        set(card, SEQUENCER_INDEX, 1, clocking)?;
        self.indices_back(card)
    }

    fn colours_back(&self, card: &mut dyn Backend) -> Result<(), Fault> {
        write(card, DAC_MASK, self.dac_mask)?;
        write(card, DAC_WRITE_INDEX, 0)?;
        self.dac.iter().try_for_each(|value| write(card, DAC_DATA, *value))?;
        // A read of the status makes the next write an index.
        read(card, status(self.misc))?;
        (0..).zip(self.attribute).try_for_each(|(index, value)| {
            write(card, ATTRIBUTE, index)?;
            write(card, ATTRIBUTE, value)
        })
    }

    /// What decides about the window is as it was.
    fn window_back(&self, card: &mut dyn Backend) -> Result<(), Fault> {
        PLANAR.iter().try_for_each(|(port, index, _)| {
            let of = |registers: &[u8]| registers.get(usize::from(*index)).copied().unwrap_or(0);
            let was = match *port {
                SEQUENCER_INDEX => of(&self.sequencer.registers),
                _ => of(&self.graphics.registers),
            };
            set(card, *port, *index, was)
        })
    }

    /// The indices are as they were, and the screen is shown.
    fn indices_back(&self, card: &mut dyn Backend) -> Result<(), Fault> {
        write(card, SEQUENCER_INDEX, self.sequencer.index)?;
        write(card, GRAPHICS_INDEX, self.graphics.index)?;
        write(card, crtc_index(self.misc), self.crtc.index)?;
        read(card, status(self.misc))?;
        write(card, ATTRIBUTE, self.attribute_index | SHOWN)?;
        read(card, status(self.misc)).map(drop)
    }
}

impl<const N: usize> Indexed<N> {
    fn read(card: &mut dyn Backend, port: u16) -> Result<Indexed<N>, Fault> {
        let index = read(card, port)?;
        let mut registers = [0; N];
        for (number, register) in (0..).zip(&mut registers) {
            write(card, port, number)?;
            *register = read(card, port + 1)?;
        }
        Ok(Indexed { index, registers })
    }
}

/// The attribute controller's index, and its registers. The screen is dark meanwhile.
fn read_attribute(card: &mut dyn Backend, misc: u8) -> Result<(u8, [u8; 21]), Fault> {
    read(card, status(misc))?;
    let index = read(card, ATTRIBUTE)?;
    let mut registers = [0; 21];
    for (number, register) in (0..).zip(&mut registers) {
        read(card, status(misc))?;
        write(card, ATTRIBUTE, number)?;
        *register = read(card, ATTRIBUTE_READ)?;
    }
    Ok((index, registers))
}

/// Lets the window show the plane of the letters, byte by byte.
fn planar(card: &mut dyn Backend) -> Result<(), Fault> {
    PLANAR.iter().try_for_each(|(port, index, value)| set(card, *port, *index, *value))
}

fn crtc_index(misc: u8) -> u16 {
    if misc & MISC_COLOR != 0 { CRTC_INDEX } else { CRTC_INDEX_MONO }
}

fn status(misc: u8) -> u16 {
    if misc & MISC_COLOR != 0 { STATUS_1 } else { STATUS_1_MONO }
}

fn set(card: &mut dyn Backend, port: u16, index: u8, value: u8) -> Result<(), Fault> {
    write(card, port, index)?;
    write(card, port + 1, value)
}

fn read(card: &mut dyn Backend, port: u16) -> Result<u8, Fault> {
    card.read(Region::VGA, port.into(), Width::B1).map(|value| value.to_le_bytes()[0])
}

fn write(card: &mut dyn Backend, port: u16, value: u8) -> Result<(), Fault> {
    card.write(Region::VGA, port.into(), Width::B1, value.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::legacy::testing::Card;

    /// A card in text mode with letters, text and colours of its own.
    fn console() -> Card {
        let mut card = Card::in_text();
        let picture = Picture::take(&mut card, true).unwrap().unwrap();
        let bytes = |len: usize, by: usize| (0..251_u8).cycle().step_by(by).take(len).collect();
        let number = |at: usize| u8::try_from(at).unwrap();
        let own = Picture {
            cells: bytes(LEN, 7),
            letters: bytes(PLANE, 11),
            dac: (0..64).cycle().step_by(5).take(768).collect(),
            dac_mask: 0xff,
            attribute: std::array::from_fn(|at| number(at) & 0x0f),
            crtc: Indexed { index: 0x0e, registers: std::array::from_fn(|at| number(at) | 0x20) },
            ..picture
        };
        own.put_back(&mut card, true).unwrap();
        card
    }

    #[test]
    fn taking_changes_nothing() {
        let mut card = console();
        let first = Picture::take(&mut card, true).unwrap().unwrap();
        assert_eq!(first.letters[1], 11);
        assert_eq!(first.cells[2], 14);
        assert!(first.attribute_index & SHOWN != 0);
        let second = Picture::take(&mut card, true).unwrap().unwrap();
        assert!(first == second);
    }

    #[test]
    fn what_is_no_text_is_not_taken() {
        let mut card = console();
        card.index_writes(0x3c4, &[3, 0, 0x0f, 0, 0x0e]);
        assert_eq!(Picture::take(&mut card, true).unwrap(), None);
        card.fails = true;
        assert!(Picture::take(&mut card, true).is_err());
    }

    proptest! {
        // Each puts back and takes some 200,000 bytes, one by one.
        #![proptest_config(ProptestConfig::with_cases(8))]
        /// Whatever a guest did to ports, window and the Bochs interface.
        #[test]
        fn all_of_it_comes_back(writes in prop::collection::vec(
            prop_oneof![
                (0x3c0..0x3e0_u64, any::<u8>()).prop_map(|(port, value)| (Region::VGA, port, value)),
                (0x3b4..0x3b6_u64, any::<u8>()).prop_map(|(port, value)| (Region::VGA, port, value)),
                (0xa_0000..0xc_0000_u64, any::<u8>()).prop_map(|(at, value)| (Region::VGA, at, value)),
                (0x500..0x516_u64, any::<u8>()).prop_map(|(at, value)| (Region::bar(2), at, value)),
            ],
            0..300,
        )) {
            let mut card = console();
            let picture = Picture::take(&mut card, true).unwrap().unwrap();
            for (region, at, value) in writes {
                // Port 3c3 turns the adapter off, which no firmware leaves so.
                if at != 0x3c3 {
                    let _ = card.write(region, at, Width::B1, value.into());
                }
            }
            picture.put_back(&mut card, true).unwrap();
            let after = Picture::take(&mut card, true).unwrap();
            prop_assert!(after.as_ref() == Some(&picture));
        }
    }
}
