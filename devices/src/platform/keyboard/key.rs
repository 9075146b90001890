//! Keys as people name them, and the bytes that a keyboard sends for them: scan code set 2 on a
//! keyboard with the US layout.

use super::translate::to_set_1;

/// What is on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyCode {
    /// A character of ASCII, with whatever Shift and Control it takes: `'A'` presses Shift and A,
    /// `'\u{3}'` Control and C. Line feed and carriage return are Enter.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Insert.
    Insert,
    /// Delete.
    Delete,
    /// A function key, 1 to 12.
    Function(u8),
}

/// A key with the modifiers that are held while it is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The key.
    pub code: KeyCode,
    /// Left Shift is held.
    pub shift: bool,
    /// Left Control is held.
    pub ctrl: bool,
    /// Left Alt is held.
    pub alt: bool,
}

impl Key {
    /// The key with no modifier but those that its character takes.
    pub const fn new(code: KeyCode) -> Key {
        Key { code, shift: false, ctrl: false, alt: false }
    }

    /// The key with Shift.
    #[must_use]
    pub const fn with_shift(self) -> Key {
        Key { shift: true, ..self }
    }

    /// The key with Control.
    #[must_use]
    pub const fn with_ctrl(self) -> Key {
        Key { ctrl: true, ..self }
    }

    /// The key with Alt.
    #[must_use]
    pub const fn with_alt(self) -> Key {
        Key { alt: true, ..self }
    }

    /// The physical keys that are pressed, in order; none if no key of the layout has this.
    pub(super) fn stroke(self) -> Option<Stroke> {
        let (physical, shift, ctrl) = match self.code {
            KeyCode::Char(character) => character_key(character)?,
            other => (named_key(other)?, false, false),
        };
        let held = |modifier, on: bool| on.then_some(modifier);
        Some(Stroke([
            held(CONTROL, self.ctrl || ctrl),
            held(ALT, self.alt),
            held(SHIFT, self.shift || shift),
            Some(physical),
        ]))
    }
}

/// A switch of the keyboard: its code in set 2, and whether the prefix 0xe0 goes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Physical {
    code: u8,
    extended: bool,
}

const fn plain(code: u8) -> Physical {
    Physical { code, extended: false }
}

const fn extended(code: u8) -> Physical {
    Physical { code, extended: true }
}

const CONTROL: Physical = plain(0x14);
const ALT: Physical = plain(0x11);
const SHIFT: Physical = plain(0x12);
const ENTER: Physical = plain(0x5a);
const ESCAPE: Physical = plain(0x76);
const BACKSPACE: Physical = plain(0x66);
const TAB: Physical = plain(0x0d);

/// Set 2: what follows is the code of a key let go.
pub(super) const BREAK: u8 = 0xf0;
/// Both sets: what follows is a key of the newer keyboards.
pub(super) const EXTENDED: u8 = 0xe0;

/// Keys that are pressed one after the other and let go in the opposite order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stroke([Option<Physical>; 4]);

/// Which codes the keyboard sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ScanCodes {
    /// As the PC/XT had them.
    Set1,
    /// As every keyboard has them after power-on.
    #[default]
    Set2,
}

impl Stroke {
    /// The bytes that the keyboard sends.
    pub(super) fn bytes(self, codes: ScanCodes) -> impl Iterator<Item = u8> {
        let down = self.0.into_iter().flatten().map(|key| (key, false));
        let up = self.0.into_iter().rev().flatten().map(|key| (key, true));
        down.chain(up).flat_map(move |(key, release)| {
            let code = match codes {
                ScanCodes::Set1 => to_set_1(key.code) | if release { 0x80 } else { 0 },
                ScanCodes::Set2 => key.code,
            };
            let prefix = (release && codes == ScanCodes::Set2).then_some(BREAK);
            let extended = key.extended.then_some(EXTENDED);
            [extended, prefix, Some(code)].into_iter().flatten()
        })
    }
}

fn named_key(code: KeyCode) -> Option<Physical> {
    const FUNCTION: [u8; 12] = [0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x78, 0x07];
    Some(match code {
        KeyCode::Char(_) => return None,
        KeyCode::Enter => ENTER,
        KeyCode::Escape => ESCAPE,
        KeyCode::Backspace => BACKSPACE,
        KeyCode::Tab => TAB,
        KeyCode::Up => extended(0x75),
        KeyCode::Down => extended(0x72),
        KeyCode::Left => extended(0x6b),
        KeyCode::Right => extended(0x74),
        KeyCode::Home => extended(0x6c),
        KeyCode::End => extended(0x69),
        KeyCode::PageUp => extended(0x7d),
        KeyCode::PageDown => extended(0x7a),
        KeyCode::Insert => extended(0x70),
        KeyCode::Delete => extended(0x71),
        KeyCode::Function(number) => plain(*FUNCTION.get(usize::from(number).checked_sub(1)?)?),
    })
}

/// The keys with a character: code, without Shift, with Shift.
const CHARACTERS: [(u8, char, char); 48] = [
    (0x0e, '`', '~'),
    (0x16, '1', '!'),
    (0x1e, '2', '@'),
    (0x26, '3', '#'),
    (0x25, '4', '$'),
    (0x2e, '5', '%'),
    (0x36, '6', '^'),
    (0x3d, '7', '&'),
    (0x3e, '8', '*'),
    (0x46, '9', '('),
    (0x45, '0', ')'),
    (0x4e, '-', '_'),
    (0x55, '=', '+'),
    (0x15, 'q', 'Q'),
    (0x1d, 'w', 'W'),
    (0x24, 'e', 'E'),
    (0x2d, 'r', 'R'),
    (0x2c, 't', 'T'),
    (0x35, 'y', 'Y'),
    (0x3c, 'u', 'U'),
    (0x43, 'i', 'I'),
    (0x44, 'o', 'O'),
    (0x4d, 'p', 'P'),
    (0x54, '[', '{'),
    (0x5b, ']', '}'),
    (0x5d, '\\', '|'),
    (0x1c, 'a', 'A'),
    (0x1b, 's', 'S'),
    (0x23, 'd', 'D'),
    (0x2b, 'f', 'F'),
    (0x34, 'g', 'G'),
    (0x33, 'h', 'H'),
    (0x3b, 'j', 'J'),
    (0x42, 'k', 'K'),
    (0x4b, 'l', 'L'),
    (0x4c, ';', ':'),
    (0x52, '\'', '"'),
    (0x1a, 'z', 'Z'),
    (0x22, 'x', 'X'),
    (0x21, 'c', 'C'),
    (0x2a, 'v', 'V'),
    (0x32, 'b', 'B'),
    (0x31, 'n', 'N'),
    (0x3a, 'm', 'M'),
    (0x41, ',', '<'),
    (0x49, '.', '>'),
    (0x4a, '/', '?'),
    (0x29, ' ', ' '),
];

/// The key of a character, whether Shift and whether Control go with it.
fn character_key(character: char) -> Option<(Physical, bool, bool)> {
    match character {
        '\n' | '\r' => return Some((ENTER, false, false)),
        '\t' => return Some((TAB, false, false)),
        '\u{8}' | '\u{7f}' => return Some((BACKSPACE, false, false)),
        '\u{1b}' => return Some((ESCAPE, false, false)),
        '\0'..='\u{1f}' => {
            // Without Shift even where the character printed on the key has it: Control and 2 is NUL.
            let printed = char::from(u8::try_from(character).ok()? | 0x40).to_ascii_lowercase();
            let (key, _, _) = character_key(printed)?;
            return Some((key, false, true));
        }
        _ => {}
    }
    let (code, without, _) = CHARACTERS.iter().find(|(_, a, b)| *a == character || *b == character)?;
    Some((plain(*code), *without != character, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(key: Key, codes: ScanCodes) -> Vec<u8> {
        key.stroke().unwrap().bytes(codes).collect()
    }

    #[test]
    fn keys_send_what_a_keyboard_sends() {
        let key = |code| Key::new(code);
        assert_eq!(sent(key(KeyCode::Char('a')), ScanCodes::Set2), [0x1c, 0xf0, 0x1c]);
        assert_eq!(sent(key(KeyCode::Char('A')), ScanCodes::Set2), [0x12, 0x1c, 0xf0, 0x1c, 0xf0, 0x12]);
        assert_eq!(sent(key(KeyCode::Char('\u{3}')), ScanCodes::Set1), [0x1d, 0x2e, 0xae, 0x9d]);
        assert_eq!(sent(key(KeyCode::Up), ScanCodes::Set2), [0xe0, 0x75, 0xe0, 0xf0, 0x75]);
        assert_eq!(sent(key(KeyCode::Up), ScanCodes::Set1), [0xe0, 0x48, 0xe0, 0xc8]);
        assert_eq!(sent(key(KeyCode::Function(7)), ScanCodes::Set2), [0x83, 0xf0, 0x83]);
        assert_eq!(sent(key(KeyCode::Function(7)), ScanCodes::Set1), [0x41, 0xc1]);
        assert_eq!(
            sent(key(KeyCode::Delete).with_ctrl().with_alt(), ScanCodes::Set1),
            [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]
        );
    }

    #[test]
    fn all_of_ascii_can_be_typed_and_nothing_else() {
        for byte in 0..=0x7f {
            assert!(Key::new(KeyCode::Char(char::from(byte))).stroke().is_some(), "{byte:#x}");
        }
        assert_eq!(sent(Key::new(KeyCode::Char('\0')), ScanCodes::Set1), [0x1d, 0x03, 0x83, 0x9d]);
        assert_eq!(Key::new(KeyCode::Char('é')).stroke(), None);
        assert_eq!(Key::new(KeyCode::Function(0)).stroke(), None);
        assert_eq!(Key::new(KeyCode::Function(13)).stroke(), None);
    }
}
