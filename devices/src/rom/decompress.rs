//! What UEFI's compression made small, made large again (UEFI 2.10, section 19.2).
//!
//! A file is two sizes and blocks behind them, a stream of bits of which each byte's highest comes first. A block has
//! three codes of Huffman's and then its symbols: bytes as they are, and strings that came before, told by length and
//! position. Any bytes are taken: what is made of them is never more than [`LARGEST`], and the time grows with what is
//! read and made.

/// The most bytes that are made of a file: drivers in the ROMs of cards have a tenth of it at most.
pub const LARGEST: usize = 16 << 20;
/// Bytes of the two sizes.
const HEADER: usize = 8;
/// Bits of a block's number of symbols.
const BLOCK_BITS: u32 = 16;
/// Bits of the number of lengths of the extra set, of the characters and lengths, and of the positions.
const EXTRA_BITS: u32 = 5;
const CHAR_BITS: u32 = 9;
const POSITION_BITS: u32 = 4;
/// The longest word of a code.
const WORD_MOST: usize = 16;
/// Symbols for characters and lengths: 256 bytes, and the lengths from 3 to 256.
const CHARS: usize = 510;
/// What a symbol for a length is more than the length.
const LENGTH_FROM: usize = 256 - 3;
/// The one number of lengths in the extra set behind which zeros are counted.
const GAP_BEHIND: usize = 3;

/// What `file` was before it was compressed, as firmware makes it of what the first size counts; `None` where it could
/// make nothing of it, and for more than [`LARGEST`].
pub fn decompress(file: &[u8]) -> Option<Vec<u8>> {
    let (packed, whole) = (size(file, 0)?, size(file, 4)?);
    if whole == 0 || whole > LARGEST {
        return None;
    }
    let mut bits = Bits { bytes: file.get(HEADER..)?.get(..packed)?, at: 0 };
    // No room is made for a size before there is something to fill it.
    let mut made = Vec::new();
    while made.len() < whole {
        block(&mut bits, &mut made, whole)?;
    }
    Some(made)
}

/// One of the sizes at the beginning.
fn size(file: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*file.get(at..)?.first_chunk()?)).ok()
}

/// Reads a block, and makes no more of it than `whole` bytes in all. It has one symbol at least, each of which makes at
/// least one byte.
fn block(bits: &mut Bits, made: &mut Vec<u8>, whole: usize) -> Option<()> {
    let symbols = Some(bits.take(BLOCK_BITS)?).filter(|symbols| *symbols > 0)?;
    let extra = Code::short(bits, EXTRA_BITS, true)?;
    let chars = Code::chars(bits, &extra)?;
    let positions = Code::short(bits, POSITION_BITS, false)?;
    for _ in 0..symbols {
        let left = whole.saturating_sub(made.len());
        if left == 0 {
            break;
        }
        let symbol = chars.read(bits)?;
        match u8::try_from(symbol) {
            Ok(byte) => made.push(byte),
            Err(_) => {
                let back = position(bits, &positions)?;
                repeat(made, back, symbol.saturating_sub(LENGTH_FROM).min(left))?;
            }
        }
    }
    Some(())
}

/// How far before the end a string starts. A position is told by how many bits it has, and those behind its highest.
fn position(bits: &mut Bits, positions: &Code) -> Option<usize> {
    let width = positions.read(bits)?;
    let position = match u32::try_from(width).ok()?.checked_sub(1) {
        None => 0,
        Some(behind) => 1_usize.checked_shl(behind)? | bits.take(behind)?,
    };
    position.checked_add(1)
}

/// Adds `length` bytes that start `back` before the end; they may go on into what is added.
fn repeat(made: &mut Vec<u8>, back: usize, length: usize) -> Option<()> {
    let start = made.len().checked_sub(back)?;
    for at in (start..).take(length) {
        made.push(*made.get(at)?);
    }
    Some(())
}

/// A code of Huffman's: words of fewer bits come first, and among those of the same, those of lower symbols.
enum Code {
    /// There is only one symbol, which takes no bits.
    Only(usize),
    /// How many words there are of one bit, of two, and so on; and the symbols, in the order of their words.
    Words([usize; WORD_MOST], Vec<usize>),
}

impl Code {
    /// The code whose words have these lengths, by symbol; zero for a symbol that has none. `None` unless every stream
    /// of bits starts with one of its words.
    fn of(lengths: &[usize]) -> Option<Code> {
        let mut counts = [0; WORD_MOST];
        let mut symbols = Vec::new();
        let mut taken = 0;
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            *counts.get_mut(length - 1)? += 1;
            taken += 1 << (WORD_MOST - length);
            symbols.push(symbol);
        }
        // Lengths are of these symbols, so that none is missed.
        symbols.sort_by_key(|symbol| lengths.get(*symbol));
        (taken == 1 << WORD_MOST).then_some(Code::Words(counts, symbols))
    }

    /// Reads a code of few symbols: how many lengths there are in `width` bits, then the lengths, those below 7 in three
    /// bits, others as three ones, one for each that they are above 7, and a zero. With `gap`, two bits behind the third
    /// count zeros.
    fn short(bits: &mut Bits, width: u32, gap: bool) -> Option<Code> {
        let count = bits.take(width)?;
        if count == 0 {
            return Some(Code::Only(bits.take(width)?));
        }
        let mut lengths = Vec::new();
        while lengths.len() < count {
            let mut length = bits.take(3)?;
            while length >= 7 && bits.take(1)? == 1 {
                length += 1;
                if length > WORD_MOST {
                    return None;
                }
            }
            lengths.push(length);
            if gap && lengths.len() == GAP_BEHIND {
                lengths.resize(GAP_BEHIND + bits.take(2)?, 0);
            }
        }
        Code::of(&lengths)
    }

    /// Reads the code of characters and lengths: the lengths of its words are symbols of `extra`, two higher than the
    /// lengths; those below tell of zeros.
    fn chars(bits: &mut Bits, extra: &Code) -> Option<Code> {
        let count = bits.take(CHAR_BITS)?;
        if count == 0 {
            return Some(bits.take(CHAR_BITS)?).filter(|only| *only < CHARS).map(Code::Only);
        }
        let mut lengths = Vec::new();
        while lengths.len() < count {
            let zeros = match extra.read(bits)? {
                0 => 1,
                1 => bits.take(4)? + 3,
                2 => bits.take(CHAR_BITS)? + 20,
                more => {
                    lengths.push(more - 2);
                    continue;
                }
            };
            lengths.resize(lengths.len() + zeros, 0);
        }
        if lengths.len() > CHARS { None } else { Code::of(&lengths) }
    }

    /// Reads a word, and says whose it is.
    fn read(&self, bits: &mut Bits) -> Option<usize> {
        let (counts, symbols) = match self {
            Code::Only(symbol) => return Some(*symbol),
            Code::Words(counts, symbols) => (counts, symbols),
        };
        // Which of the words it would be that have as many bits as were read, were all shorter ones no words.
        let (mut which, mut shorter) = (0, 0);
        for count in counts {
            which = which << 1 | bits.take(1)?;
            if which < *count {
                return symbols.get(shorter + which).copied();
            }
            which -= count;
            shorter += count;
        }
        None
    }
}

/// A stream of bits, of which a byte's highest comes first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl Bits<'_> {
    /// The next bits as a number; `None` if there are not so many.
    fn take(&mut self, count: u32) -> Option<usize> {
        let mut number = 0;
        for _ in 0..count {
            let byte = usize::from(*self.bytes.get(self.at / 8)?);
            number = number << 1 | byte >> (7 - self.at % 8) & 1;
            self.at += 1;
        }
        Some(number)
    }
}

#[cfg(test)]
pub(crate) mod tests;
