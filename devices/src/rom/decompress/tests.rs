//! Files that the tests compress themselves, and what becomes of them when they are damaged.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// How far back a string may start.
const WINDOW: usize = 8192;

/// How a file is to be compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The most symbols of a block.
    pub(crate) block: usize,
    /// Whether strings are told that came before.
    pub(crate) strings: bool,
    /// Which of the codes is taken that there are for a number of symbols: with 0 one whose words differ by one bit at
    /// most in their lengths.
    pub(crate) shape: u64,
}

/// A byte, or length and position of a string.
type Token = (usize, Option<usize>);

/// Bits that are written.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    used: usize,
}

impl Writer {
    fn put(&mut self, number: usize, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::from(number >> bit & 1 != 0) << (7 - self.used % 8);
            self.used += 1;
        }
    }

    /// A file of what was written, which becomes `whole` bytes.
    fn file(self, whole: usize) -> Vec<u8> {
        let sizes = [self.bytes.len(), whole].map(|size| u32::try_from(size).unwrap().to_le_bytes());
        [&sizes.concat()[..], &self.bytes].concat()
    }
}

/// Lengths of words, by symbol, and the words.
struct Words {
    lengths: Vec<usize>,
    words: HashMap<usize, usize>,
}

impl Words {
    /// A code for these symbols: leaves of a tree of which one after the other was cut in two.
    fn new(symbols: &BTreeSet<usize>, mut shape: u64) -> Words {
        let mut leaves = vec![0];
        while leaves.len() < symbols.len() {
            shape = shape.wrapping_mul(6_364_136_223_846_793_005);
            let start = if shape == 0 { 0 } else { usize::try_from(shape >> 40).unwrap() };
            let places = (0..leaves.len()).map(|at| (start + at) % leaves.len());
            let at = match shape {
                0 => places.min_by_key(|at| leaves[*at]),
                _ => places.filter(|at| leaves[*at] < WORD_MOST).nth(0),
            };
            leaves[at.unwrap()] += 1;
            leaves.push(leaves[at.unwrap()]);
        }
        let mut lengths = vec![0; symbols.last().map_or(0, |last| last + 1)];
        symbols.iter().zip(leaves).for_each(|(symbol, length)| lengths[*symbol] = length);
        let mut order: Vec<usize> = symbols.iter().copied().collect();
        order.sort_by_key(|symbol| lengths[*symbol]);
        let (mut words, mut next, mut length) = (HashMap::new(), 0, 0);
        for symbol in order {
            next <<= lengths[symbol] - length;
            length = lengths[symbol];
            words.insert(symbol, next);
            next += 1;
        }
        Words { lengths, words }
    }

    fn put(&self, writer: &mut Writer, symbol: usize) {
        writer.put(self.words[&symbol], u32::try_from(self.lengths[symbol]).unwrap());
    }

    /// The symbol that is alone in it, also where there is none.
    fn only(&self) -> Option<usize> {
        (self.words.len() < 2).then(|| self.words.keys().next().map_or(0, |only| *only))
    }

    fn put_short(&self, writer: &mut Writer, width: u32, gap: bool) {
        if let Some(only) = self.only() {
            return writer.put(only, 2 * width);
        }
        writer.put(self.lengths.len(), width);
        let mut at = 0;
        while let Some(length) = self.lengths.get(at) {
            match length {
                0..7 => writer.put(*length, 3),
                _ => {
                    writer.put(7, 3);
                    (7..*length).for_each(|_| writer.put(1, 1));
                    writer.put(0, 1);
                }
            }
            at += 1;
            if gap && at == 3 {
                let zeros = self.lengths[3..].iter().take(3).take_while(|length| **length == 0).count();
                writer.put(zeros, 2);
                at += zeros;
            }
        }
    }

    /// Writes the code of characters, with the one that it takes to write it.
    fn put_chars(&self, writer: &mut Writer, shape: u64) {
        if let Some(only) = self.only() {
            Words::new(&BTreeSet::new(), 0).put_short(writer, EXTRA_BITS, true);
            return writer.put(only, 2 * CHAR_BITS);
        }
        // Each with what is behind it, and the bits of that.
        let mut told = Vec::new();
        let mut rest = &self.lengths[..];
        while let Some(length) = rest.first() {
            let zeros = rest.iter().take_while(|length| **length == 0).count();
            let (symbol, behind, bits, step) = match zeros {
                0 => (length + 2, 0, 0, 1),
                1 | 2 | 19 => (0, 0, 0, 1),
                3..19 => (1, zeros - 3, 4, zeros),
                _ => (2, zeros - 20, CHAR_BITS, zeros),
            };
            told.push((symbol, behind, bits));
            rest = &rest[step..];
        }
        let extra = Words::new(&told.iter().map(|(symbol, ..)| *symbol).collect(), shape);
        extra.put_short(writer, EXTRA_BITS, true);
        writer.put(self.lengths.len(), CHAR_BITS);
        for (symbol, behind, bits) in told {
            extra.put(writer, symbol);
            writer.put(behind, bits);
        }
    }
}

/// The bits of a position.
fn width(position: usize) -> usize {
    usize::try_from(usize::BITS - position.leading_zeros()).unwrap()
}

fn tokens(bytes: &[u8], strings: bool) -> Vec<Token> {
    let (mut tokens, mut seen, mut at) = (Vec::new(), HashMap::new(), 0);
    while at < bytes.len() {
        let known =
            bytes.get(at..at + 3).and_then(|key| seen.get(key)).filter(|known| at - **known <= WINDOW);
        let length = known.map_or(0, |known: &usize| {
            bytes[at..]
                .iter()
                .zip(&bytes[*known..])
                .take(256)
                .take_while(|(here, there)| here == there)
                .count()
        });
        let step = match known.filter(|_| strings) {
            Some(known) => {
                tokens.push((length + LENGTH_FROM, Some(at - known - 1)));
                length
            }
            None => {
                tokens.push((bytes[at].into(), None));
                1
            }
        };
        for at in at..at + step {
            bytes.get(at..at + 3).map(|key| seen.insert(key, at));
        }
        at += step;
    }
    tokens
}

/// A file that becomes `bytes`.
pub(crate) fn compress(bytes: &[u8], way: Way) -> Vec<u8> {
    let mut writer = Writer::default();
    for block in tokens(bytes, way.strings).chunks(way.block) {
        writer.put(block.len(), BLOCK_BITS);
        let chars = Words::new(&block.iter().map(|(symbol, _)| *symbol).collect(), way.shape);
        let widths = block.iter().filter_map(|(_, position)| position.map(width)).collect();
        let positions = Words::new(&widths, way.shape);
        chars.put_chars(&mut writer, way.shape);
        positions.put_short(&mut writer, POSITION_BITS, false);
        for (symbol, position) in block {
            chars.put(&mut writer, *symbol);
            if let Some(position) = *position {
                let width = width(position);
                positions.put(&mut writer, width);
                let behind = width.saturating_sub(1);
                writer.put(position & ((1 << behind) - 1), u32::try_from(behind).unwrap());
            }
        }
    }
    writer.file(bytes.len())
}

const WAY: Way = Way { block: 4096, strings: true, shape: 0 };

fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn says_the_size(file: &[u8], packed: usize, whole: usize) -> Vec<u8> {
    let sizes = [packed, whole].map(|size| u32::try_from(size).unwrap().to_le_bytes());
    [&sizes.concat()[..], &file[HEADER..]].concat()
}

#[test]
fn a_file_by_hand_is_as_the_specification_says() {
    let mut writer = Writer::default();
    writer.put(5, 16);
    // Extra set: lengths of symbols 0 to 3 are 2, 0, 2, 1; no zeros behind the third. The words: 3 is 0, 0 is 10, 2 is 11.
    writer.put(4, 5);
    [2, 0, 2].into_iter().for_each(|length| writer.put(length, 3));
    writer.put(0, 2);
    writer.put(1, 3);
    // Characters: 97 zeros, one bit for `a`, 158 zeros, one bit for the string of length 3.
    writer.put(257, 9);
    writer.put(0b11, 2);
    writer.put(97 - 20, 9);
    writer.put(0, 1);
    writer.put(0b11, 2);
    writer.put(158 - 20, 9);
    writer.put(0, 1);
    // The only width of positions is 2: position 2 or 3.
    writer.put(0, 4);
    writer.put(2, 4);
    // a, a, a, then two strings that start three bytes back, and four.
    writer.put(0b000, 3);
    writer.put(0b10, 2);
    writer.put(0b11, 2);
    assert_eq!(decompress(&writer.file(9)), Some(b"aaaaaaaaa".to_vec()));
}

#[test]
fn a_file_of_another_encoder_is_understood() {
    let file = [
        0x74, 0x00, 0x00, 0x00, 0x7e, 0x01, 0x00, 0x00, 0x00, 0x4b, 0x53, 0x5a, 0xc2, 0x99, 0xfd, 0x47, 0xd1,
        0xa3, 0xe8, 0xd0, 0x7f, 0xb2, 0x0e, 0xd9, 0x90, 0xa3, 0x64, 0x28, 0xd1, 0xf4, 0x7d, 0x1a, 0x2f, 0x3d,
        0xef, 0x31, 0x0f, 0x8d, 0xe7, 0x6c, 0x8f, 0xa3, 0x46, 0x8d, 0x1a, 0x34, 0x68, 0xd1, 0xa3, 0x46, 0x8d,
        0x1a, 0x34, 0x68, 0xd1, 0xa3, 0x51, 0xdb, 0xb3, 0xe0, 0x57, 0x7c, 0xc3, 0x3b, 0x00, 0x34, 0x7d, 0xc4,
        0x70, 0x52, 0x24, 0xde, 0x26, 0x12, 0x4e, 0x81, 0x31, 0x52, 0x73, 0xa1, 0x90, 0x44, 0x18, 0x7d, 0xab,
        0xf7, 0xe2, 0x48, 0x47, 0x24, 0x38, 0x3a, 0x49, 0x4e, 0xca, 0xf7, 0x59, 0x76, 0x1a, 0x6d, 0xd7, 0xbc,
        0xfa, 0x7e, 0x08, 0xe5, 0x9f, 0xe5, 0x14, 0xd5, 0x5d, 0x96, 0xdd, 0x7e, 0x18, 0xe5, 0x9e, 0x9a, 0xed,
        0xbf, 0x0a, 0x7f, 0xc0, 0x00,
    ];
    let text = b"the card's own screen, and the screen of the card: ".repeat(6);
    let bytes = [&text[..], &(0..250).step_by(7).collect::<Vec<u8>>(), &[0; 40]].concat();
    assert_eq!(decompress(&file), Some(bytes));
}

#[test]
fn what_was_compressed_comes_back() {
    let text = b"a screen, a screen, a screen for UEFI".repeat(20);
    let far = [&noise(100, 1)[..], &noise(8090, 2), &noise(100, 1), &noise(3000, 3), &[7; 700]].concat();
    for bytes in [&text[..], &far, &[0; 20_000], b"x", b"xy", &(0..=255).collect::<Vec<u8>>()] {
        for block in [1, 2, 100, 65_535] {
            for (strings, shape) in [(false, 0), (true, 0), (false, 1), (true, 1), (true, 77)] {
                let way = Way { block, strings, shape };
                let file = compress(bytes, way);
                assert_eq!(decompress(&file).as_deref(), Some(bytes), "{way:?}");
                let behind = [&file[..], b"what fills the image"].concat();
                assert_eq!(decompress(&behind).as_deref(), Some(bytes), "{way:?}");
            }
        }
    }
    assert!(compress(&far, WAY).len() < far.len());
}

#[test]
fn sizes_that_lie_make_no_more_than_there_is() {
    let bytes = noise(1000, 4);
    let file = compress(&bytes, WAY);
    let packed = file.len() - HEADER;
    let sizes = |packed, whole| decompress(&says_the_size(&file, packed, whole));
    assert_eq!(sizes(packed, 1000).as_ref(), Some(&bytes));
    // As firmware does: what is told of more is not looked at.
    assert_eq!(sizes(packed, 999).as_deref(), Some(&bytes[..999]));
    assert_eq!(sizes(packed, 1001), None);
    assert_eq!(sizes(packed, 0xffff_ffff), None);
    assert_eq!(sizes(packed, 0), None);
    assert_eq!(sizes(packed - 1, 1000), None);
    assert_eq!(sizes(packed + 1, 1000), None);
    assert_eq!(sizes(0xffff_ffff, 1000), None);
    assert_eq!(sizes(0, 1000), None);
    assert_eq!(decompress(&file[..7]), None);
    assert_eq!(decompress(&[]), None);
}

/// Eight bytes for each block of strings that take no bits: the shortest file of so much.
#[test]
fn the_most_is_made_and_no_more() {
    let symbols = 1 + LARGEST.div_ceil(256);
    let file = |whole| {
        let mut writer = Writer::default();
        let (mut left, mut only) = (symbols, usize::from(b'x'));
        while left > 0 {
            let block = if left == symbols { 1 } else { left.min(65_535) };
            writer.put(block, BLOCK_BITS);
            [(0, EXTRA_BITS), (0, EXTRA_BITS), (0, CHAR_BITS), (only, CHAR_BITS)]
                .into_iter()
                .for_each(|(number, bits)| writer.put(number, bits));
            writer.put(0, 2 * POSITION_BITS);
            (left, only) = (left - block, 509);
        }
        writer.file(whole)
    };
    assert!(file(LARGEST).len() < 64);
    assert_eq!(decompress(&file(LARGEST)), Some(vec![b'x'; LARGEST]));
    assert_eq!(decompress(&file(LARGEST + 1)), None);
}

#[test]
fn what_no_code_and_no_string_can_be_is_refused() {
    let stream = |fields: &[(usize, u32)]| {
        let mut writer = Writer::default();
        fields.iter().for_each(|(number, bits)| writer.put(*number, *bits));
        writer.put(0, 64);
        decompress(&writer.file(1))
    };
    let only = [(1, 16), (0, 10), (0, 9), (0x41, 9), (0, 8)];
    assert_eq!(stream(&only), Some(b"A".to_vec()));
    // A block of no symbols; a character that there is none; a string before the first byte.
    assert_eq!(stream(&[(0, 16), only[1], only[2], only[3], only[4]]), None);
    assert_eq!(stream(&[only[0], only[1], only[2], (510, 9), only[4]]), None);
    assert_eq!(stream(&[only[0], only[1], only[2], (256, 9), only[4]]), None);
    // Words of one bit for one symbol, and for three; no words at all; a word of 17 bits, and one of very many.
    assert_eq!(stream(&[(1, 16), (1, 5), (1, 3), only[2], only[3], only[4]]), None);
    assert_eq!(stream(&[(1, 16), (3, 5), (0o111, 9), (0, 2), only[2], only[3], only[4]]), None);
    assert_eq!(stream(&[(1, 16), (2, 5), (0, 6), only[2], only[3], only[4]]), None);
    assert_eq!(stream(&[(1, 16), (1, 5), (0x1fff, 13), (0, 1), only[2], only[3], only[4]]), None);
    assert_eq!(stream(&[(1, 16), (1, 5), (usize::MAX, 64), (usize::MAX, 64), (usize::MAX, 64)]), None);
    // More lengths than characters, by single ones and by zeros.
    assert_eq!(stream(&[(1, 16), (0, 5), (0, 5), (511, 9), only[4]]), None);
    assert_eq!(stream(&[(1, 16), (0, 5), (2, 5), (1, 9), (511, 9), only[4]]), None);
}

#[test]
fn a_stream_that_ends_early_makes_nothing() {
    let bytes = b"driver driver driver and a screen, and a driver".repeat(3);
    let file = compress(&bytes, Way { block: 20, ..WAY });
    for end in 0..file.len() {
        assert_eq!(decompress(&file[..end]), None);
        if let Some(packed) = end.checked_sub(HEADER) {
            assert_eq!(decompress(&says_the_size(&file[..end], packed, bytes.len())), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..2000),
            prop::collection::vec(0_u8..3, 1..2000),
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..6).prop_flat_map(|words| {
                prop::collection::vec(prop::sample::select(words), 1..80).prop_map(|words| words.concat())
            }),
        ],
        block in 1_usize..3000,
        strings: bool,
        shape: u64,
    ) {
        let file = compress(&bytes, Way { block, strings, shape });
        prop_assert_eq!(decompress(&file), Some(bytes));
    }

    #[test]
    fn damage_is_borne(
        length in 1_usize..600,
        seed in 0_u64..4,
        way in (1_usize..700, any::<bool>(), any::<u64>()),
        damage in prop::collection::vec((0_usize..400, any::<u8>()), 1..4),
        sizes in any::<[bool; 2]>(),
    ) {
        let (block, strings, shape) = way;
        let mut file = compress(&noise(length, seed), Way { block, strings, shape });
        let first = if sizes[0] { 0 } else { HEADER };
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(first + at) {
                *place = byte;
            }
        }
        let whole = size(&file, 4).unwrap();
        if let Some(made) = decompress(&file) {
            prop_assert!(made.len() == whole && whole <= LARGEST);
        }
    }

    #[test]
    fn noise_is_borne(stream in prop::collection::vec(any::<u8>(), 0..600), zeros in 0_usize..40, whole in 0_usize..9000) {
        let stream = [&[0, 9][..], &vec![0; zeros], &stream].concat();
        let file = Writer { used: stream.len() * 8, bytes: stream }.file(whole);
        prop_assert!(decompress(&file).is_none_or(|made| made.len() == whole));
    }
}
