//! The VGA registers that decide what an access to the window means: read from the card, then followed
//! by every write that passes (IBM Video Subsystem, 1992).
//!
//! Only what decides is kept, so a value read back from the card is the value that was followed. A
//! register that no VGA has may mean anything on a card, and so what is here is not known any more
//! when one is written; the card is asked again.

use trapline_io::{Fault, Region, Width};

use crate::assigned::Backend;
use crate::vga::spec::{
    CRTC_DATA, CRTC_DATA_MONO, CRTC_INDEX, CRTC_INDEX_MONO, DISPI_ENABLE, DISPI_ENABLED, ENABLE,
    GRAPHICS_DATA, GRAPHICS_INDEX, MISC_COLOR, MISC_RAM, MISC_READ, MISC_WRITE, MMIO_DISPI, SEQUENCER_DATA,
    SEQUENCER_INDEX,
};

/// Bytes of the text window: 16 Ki cells of character and attribute.
pub const TEXT_LEN: u64 = super::shadow::LEN as u64;

/// The bits that count of sequencer registers 0 to 4: resets, map mask, memory mode.
const SEQUENCER: [u8; 5] = [0x03, 0, 0x0f, 0, 0x0e];
/// The bits that count of graphics registers 0 to 8: enable set/reset, rotate and function, read map,
/// mode, miscellaneous, bit mask.
const GRAPHICS: [u8; 9] = [0, 0x0f, 0, 0x1f, 0x03, 0x7b, 0x0f, 0, 0xff];
/// CRT controller registers 0x0c and 0x0d: where in memory the screen starts.
const CRTC: [u8; 14] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// The last register of a VGA's CRT controller.
const CRTC_LAST: u8 = 0x18;

/// Miscellaneous output: which half of memory odd/even modes use.
const MISC_PAGE: u8 = 1 << 5;
/// Sequencer register 0: neither reset is held.
const RUNNING: u8 = 3;
/// Sequencer register 4: memory beyond 64 KiB, planes 0 and 1 by odd and even addresses.
const TEXT_MEMORY: u8 = 0x02;
/// Sequencer register 4: the two low bits of the address are the plane.
const CHAIN_4: u8 = 0x08;
/// Graphics register 6: no character generator.
const GRAPHICS_MODE: u8 = 0x01;
/// Graphics register 5: odd/even, read and write mode 0, one shift.
const TEXT_MODE: u8 = 0x10;

/// The text window in plain text mode: every byte of it is memory that stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its first address: 0xb8000, or 0xb0000 in monochrome.
    pub first: u64,
    /// Which half of memory it shows.
    page: bool,
}

impl Text {
    /// Its last address.
    pub fn last(self) -> u64 {
        self.first + TEXT_LEN - 1
    }

    /// Where in it an address is.
    pub fn place(self, address: u64) -> Option<usize> {
        let inside = address.checked_sub(self.first).filter(|inside| *inside < TEXT_LEN)?;
        usize::try_from(inside).ok()
    }
}

/// See the module's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    misc: u8,
    sequencer_index: u8,
    sequencer: [u8; 5],
    graphics_index: u8,
    graphics: [u8; 9],
    crtc_index: u8,
    crtc: [u8; 14],
    /// The Bochs interface is enabled, and the window a bank of it.
    bochs: bool,
}

impl State {
    /// Asks the card, through its legacy region; `bochs` says that it has the Bochs interface in BAR 2.
    /// `None` if nothing answers there. Index registers are as before, and nothing else is touched: not
    /// input status 1, since a read of it is a write to the attribute controller.
    ///
    /// # Errors
    /// The card failed an access.
    pub fn read(card: &mut dyn Backend, bochs: bool) -> Result<Option<State>, Fault> {
        let misc = read_port(card, MISC_READ)?;
        let (sequencer_index, sequencer) = read_indexed(card, SEQUENCER_INDEX, SEQUENCER)?;
        let (graphics_index, graphics) = read_indexed(card, GRAPHICS_INDEX, GRAPHICS)?;
        let crtc_at = if misc & MISC_COLOR != 0 { CRTC_INDEX } else { CRTC_INDEX_MONO };
        let (crtc_index, crtc) = read_indexed(card, crtc_at, CRTC)?;
        if misc == 0xff && sequencer == SEQUENCER && graphics == GRAPHICS {
            return Ok(None);
        }
        let bochs = bochs && {
            let at = MMIO_DISPI + 2 * u64::from(DISPI_ENABLE);
            card.read(Region::bar(2), at, Width::B2)? & u64::from(DISPI_ENABLED) != 0
        };
        Ok(Some(State {
            misc,
            sequencer_index,
            sequencer,
            graphics_index,
            graphics,
            crtc_index,
            crtc,
            bochs,
        }))
    }

    /// Takes note of a write to ports, byte by byte in ascending order as the bus carries it. False if
    /// it is not known any more what the registers hold.
    #[must_use]
    pub fn follow(&mut self, offset: u64, width: Width, value: u64) -> bool {
        let mut bytes = (offset..).zip(value.to_le_bytes()).take(width.bytes());
        bytes.all(|(port, byte)| u16::try_from(port).is_ok_and(|port| self.follow_byte(port, byte)))
    }

    fn follow_byte(&mut self, port: u16, byte: u8) -> bool {
        match self.named(port) {
            MISC_WRITE => self.misc = byte,
            // What is written while the adapter is disabled is lost.
            ENABLE => return false,
            SEQUENCER_INDEX => self.sequencer_index = byte,
            GRAPHICS_INDEX => self.graphics_index = byte,
            CRTC_INDEX => self.crtc_index = byte,
            SEQUENCER_DATA => return keep(&mut self.sequencer, SEQUENCER, self.sequencer_index, byte),
            GRAPHICS_DATA => return keep(&mut self.graphics, GRAPHICS, self.graphics_index, byte),
            CRTC_DATA => {
                return keep(&mut self.crtc, CRTC, self.crtc_index, byte) || self.crtc_index <= CRTC_LAST;
            }
            _ => {}
        }
        true
    }

    /// A port by its colour name: the CRT controller answers at one of two addresses. Zero for the one
    /// where it does not.
    fn named(&self, port: u16) -> u16 {
        let color = self.misc & MISC_COLOR != 0;
        match port {
            CRTC_INDEX | CRTC_DATA if !color => 0,
            CRTC_INDEX_MONO | CRTC_DATA_MONO if color => 0,
            CRTC_INDEX_MONO => CRTC_INDEX,
            CRTC_DATA_MONO => CRTC_DATA,
            _ => port,
        }
    }

    /// The text window, in plain text mode: odd/even, map mask 3, read and write mode 0, no set/reset,
    /// no rotation or function, all bits, no chain-4, memory enabled, the window at 0xb8000 or 0xb0000.
    /// Neither with a sequencer in reset nor with the Bochs interface enabled.
    pub fn plain_text(&self) -> Option<Text> {
        let first = match self.graphics[6] {
            0x0e => 0xb_8000,
            0x0a => 0xb_0000,
            _ => return None,
        };
        let plain = self.replaces()
            && self.sequencer[2] == 3
            && self.sequencer[4] == TEXT_MEMORY
            && self.graphics[4] == 0
            && self.graphics[5] == TEXT_MODE
            && !self.bochs;
        plain.then_some(Text { first, page: self.page() })
    }

    /// The addresses, first and last, at which byte lanes are independent, so that neighbouring writes
    /// may become one: the text window in plain text mode, or all of the window with chain-4.
    pub fn independent(&self) -> Option<(u64, u64)> {
        if let Some(text) = self.plain_text() {
            return Some((text.first, text.last()));
        }
        let chained = self.replaces() && self.sequencer[2] == 0x0f && self.sequencer[4] & CHAIN_4 != 0;
        match self.graphics[6] >> 2 {
            1 if chained => Some((0xa_0000, 0xa_ffff)),
            0 if chained && !self.bochs => Some((0xa_0000, 0xb_ffff)),
            _ => None,
        }
    }

    /// Whether a write to the window may change what text is made of: planes 0 and 1.
    pub fn writes_text(&self) -> bool {
        self.bochs || self.sequencer[2] & 3 != 0
    }

    /// Whether a graphics mode is set, of the VGA's or of the Bochs interface.
    pub fn shows_graphics(&self) -> bool {
        self.bochs || self.graphics[6] & GRAPHICS_MODE != 0
    }

    /// Which half of memory odd/even modes use.
    pub fn page(&self) -> bool {
        self.misc & MISC_PAGE != 0
    }

    /// Where in memory the screen starts, as the CRT controller has it.
    pub fn start(&self) -> u16 {
        u16::from_be_bytes([self.crtc[0x0c], self.crtc[0x0d]])
    }

    /// A byte that is written becomes, unchanged, a byte of memory.
    fn replaces(&self) -> bool {
        self.misc & MISC_RAM != 0
            && self.sequencer[0] == RUNNING
            && self.graphics[1] == 0
            && self.graphics[3] == 0
            && self.graphics[5] & 3 == 0
            && self.graphics[8] == 0xff
    }
}

/// Whether a write to ports selects a register of the CRT controller that a VGA does not have.
pub fn beyond_crtc(offset: u64, width: Width, value: u64) -> bool {
    let mut bytes = (offset..).zip(value.to_le_bytes()).take(width.bytes());
    let indices = [u64::from(CRTC_INDEX), u64::from(CRTC_INDEX_MONO)];
    bytes.any(|(port, byte)| indices.contains(&port) && byte > CRTC_LAST)
}

/// Whether a write to ports reaches one that may change what the window means.
pub fn decides(offset: u64, width: Width) -> bool {
    const DECIDING: [u16; 6] =
        [MISC_WRITE, ENABLE, SEQUENCER_INDEX, SEQUENCER_DATA, GRAPHICS_INDEX, GRAPHICS_DATA];
    let end = offset.saturating_add(width.bytes() as u64);
    DECIDING.iter().any(|port| (offset..end).contains(&u64::from(*port)))
}

/// Keeps the bits of a register that count; false where there is no such register.
fn keep<const N: usize>(registers: &mut [u8; N], masks: [u8; N], index: u8, byte: u8) -> bool {
    let index = usize::from(index);
    let (Some(register), Some(mask)) = (registers.get_mut(index), masks.get(index)) else { return false };
    *register = byte & mask;
    true
}

fn read_port(card: &mut dyn Backend, port: u16) -> Result<u8, Fault> {
    card.read(Region::VGA, port.into(), Width::B1).map(|value| value.to_le_bytes()[0])
}

fn write_port(card: &mut dyn Backend, port: u16, byte: u8) -> Result<(), Fault> {
    card.write(Region::VGA, port.into(), Width::B1, byte.into())
}

/// An index register, and those behind it of which some bits count. The index is as before.
fn read_indexed<const N: usize>(
    card: &mut dyn Backend,
    index_port: u16,
    masks: [u8; N],
) -> Result<(u8, [u8; N]), Fault> {
    let index = read_port(card, index_port)?;
    let mut registers = [0; N];
    let mut wanted = (0_u8..).zip(masks).zip(&mut registers).filter(|((_, mask), _)| *mask != 0);
    let read = wanted.try_for_each(|((number, mask), register)| {
        write_port(card, index_port, number)?;
        *register = read_port(card, index_port + 1)? & mask;
        Ok(())
    });
    write_port(card, index_port, index).and(read)?;
    Ok((index, registers))
}

#[cfg(test)]
mod tests;
