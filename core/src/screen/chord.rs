//! Keys of the terminal, as keys of the guest.
//!
//! All keys go to the guest, Ctrl-C and the like included, but for one prefix, as users of QEMU and of screen know it:
//!
//! | keys | do |
//! |---|---|
//! | Ctrl-A, then x | leave: the machine is ended |
//! | Ctrl-A, then Ctrl-A or a | Ctrl-A for the guest |
//! | Ctrl-A, then d | Ctrl-Alt-Delete for the guest |
//! | Ctrl-A, then any other key | nothing; the help line is shown again |

use crossterm::event::{self, KeyEvent, KeyEventKind, KeyModifiers};
use trapline_devices::platform::keyboard::{Key, KeyCode};

/// The help line.
pub const HELP: &str = " trapline   Ctrl-A x: leave   Ctrl-A Ctrl-A: Ctrl-A   Ctrl-A d: Ctrl-Alt-Del ";

/// What a key of the terminal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The guest gets this key.
    Send(Key),
    /// The user wants to leave.
    Leave,
    /// The prefix was pressed, or something after it that means nothing: the help line is due.
    Help,
    /// Nothing.
    Ignore,
}

/// Tells the guest's keys from those for trapline.
#[derive(Debug, Default)]
pub struct Chord {
    /// Whether the last key was the prefix.
    pending: bool,
}

const CTRL_A: Key = Key::new(KeyCode::Char('a')).with_ctrl();
const CTRL_ALT_DELETE: Key = Key::new(KeyCode::Delete).with_ctrl().with_alt();

impl Chord {
    /// Takes one event.
    pub fn feed(&mut self, event: &KeyEvent) -> Action {
        let Some(key) = decode(event) else { return Action::Ignore };
        if std::mem::take(&mut self.pending) {
            return match key.code {
                KeyCode::Char('a' | 'A') => Action::Send(CTRL_A),
                KeyCode::Char('x' | 'X') => Action::Leave,
                KeyCode::Char('d' | 'D') => Action::Send(CTRL_ALT_DELETE),
                _ => Action::Help,
            };
        }
        if key == CTRL_A {
            self.pending = true;
            return Action::Help;
        }
        Action::Send(key)
    }
}

/// The guest's key for an event of the terminal; `None` for a release and for what a PC keyboard does not have.
#[must_use]
pub fn decode(event: &KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let code = match event.code {
        // A terminal gives the character as typed: Shift is in it already.
        event::KeyCode::Char(c @ ' '..='~') => KeyCode::Char(c),
        event::KeyCode::Enter => KeyCode::Enter,
        event::KeyCode::Esc => KeyCode::Escape,
        event::KeyCode::Backspace => KeyCode::Backspace,
        event::KeyCode::Tab | event::KeyCode::BackTab => KeyCode::Tab,
        event::KeyCode::Up => KeyCode::Up,
        event::KeyCode::Down => KeyCode::Down,
        event::KeyCode::Left => KeyCode::Left,
        event::KeyCode::Right => KeyCode::Right,
        event::KeyCode::Home => KeyCode::Home,
        event::KeyCode::End => KeyCode::End,
        event::KeyCode::PageUp => KeyCode::PageUp,
        event::KeyCode::PageDown => KeyCode::PageDown,
        event::KeyCode::Insert => KeyCode::Insert,
        event::KeyCode::Delete => KeyCode::Delete,
        event::KeyCode::F(number @ 1..=12) => KeyCode::Function(number),
        _ => return None,
    };
    let held = |modifier| event.modifiers.contains(modifier);
    let typed = matches!(code, KeyCode::Char(_));
    Some(Key {
        code,
        ctrl: held(KeyModifiers::CONTROL),
        alt: held(KeyModifiers::ALT),
        shift: !typed && (held(KeyModifiers::SHIFT) || event.code == event::KeyCode::BackTab),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(code: event::KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    fn press(code: KeyCode, ctrl: bool, alt: bool, shift: bool) -> Key {
        Key { code, shift, ctrl, alt }
    }

    #[test]
    fn keys_are_decoded() {
        use KeyModifiers as M;
        let cases = [
            (event::KeyCode::Char('a'), M::NONE, Some(press(KeyCode::Char('a'), false, false, false))),
            (event::KeyCode::Char('A'), M::SHIFT, Some(press(KeyCode::Char('A'), false, false, false))),
            (event::KeyCode::Char('c'), M::CONTROL, Some(press(KeyCode::Char('c'), true, false, false))),
            (event::KeyCode::Char('x'), M::ALT, Some(press(KeyCode::Char('x'), false, true, false))),
            (event::KeyCode::Char(' '), M::NONE, Some(press(KeyCode::Char(' '), false, false, false))),
            (event::KeyCode::Char('é'), M::NONE, None),
            (event::KeyCode::Char('\u{7f}'), M::NONE, None),
            (event::KeyCode::Enter, M::NONE, Some(Key::new(KeyCode::Enter))),
            (event::KeyCode::Esc, M::NONE, Some(Key::new(KeyCode::Escape))),
            (event::KeyCode::Backspace, M::NONE, Some(Key::new(KeyCode::Backspace))),
            (event::KeyCode::Tab, M::NONE, Some(Key::new(KeyCode::Tab))),
            (event::KeyCode::BackTab, M::NONE, Some(press(KeyCode::Tab, false, false, true))),
            (event::KeyCode::BackTab, M::SHIFT, Some(press(KeyCode::Tab, false, false, true))),
            (event::KeyCode::Up, M::NONE, Some(Key::new(KeyCode::Up))),
            (event::KeyCode::Down, M::SHIFT, Some(press(KeyCode::Down, false, false, true))),
            (event::KeyCode::Left, M::CONTROL, Some(press(KeyCode::Left, true, false, false))),
            (event::KeyCode::Right, M::NONE, Some(Key::new(KeyCode::Right))),
            (event::KeyCode::Home, M::NONE, Some(Key::new(KeyCode::Home))),
            (event::KeyCode::End, M::NONE, Some(Key::new(KeyCode::End))),
            (event::KeyCode::PageUp, M::NONE, Some(Key::new(KeyCode::PageUp))),
            (event::KeyCode::PageDown, M::NONE, Some(Key::new(KeyCode::PageDown))),
            (event::KeyCode::Insert, M::NONE, Some(Key::new(KeyCode::Insert))),
            (event::KeyCode::Delete, M::CONTROL | M::ALT, Some(CTRL_ALT_DELETE)),
            (event::KeyCode::F(1), M::NONE, Some(Key::new(KeyCode::Function(1)))),
            (event::KeyCode::F(12), M::ALT, Some(press(KeyCode::Function(12), false, true, false))),
            (event::KeyCode::F(13), M::NONE, None),
            (event::KeyCode::CapsLock, M::NONE, None),
            (event::KeyCode::Null, M::NONE, None),
        ];
        for (code, modifiers, expected) in cases {
            assert_eq!(decode(&event(code, modifiers)), expected, "{code:?} {modifiers:?}");
        }
    }

    #[test]
    fn a_release_is_no_press() {
        let mut released = event(event::KeyCode::Enter, KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(decode(&released), None);
        released.kind = KeyEventKind::Repeat;
        assert_eq!(decode(&released), Some(Key::new(KeyCode::Enter)));
    }

    #[test]
    fn the_prefix_takes_one_key() {
        let prefix = event(event::KeyCode::Char('a'), KeyModifiers::CONTROL);
        let plain = |c| event(event::KeyCode::Char(c), KeyModifiers::NONE);
        let mut chord = Chord::default();
        let mut feed = |events: &[KeyEvent]| events.iter().map(|event| chord.feed(event)).collect::<Vec<_>>();
        assert_eq!(feed(&[prefix, plain('x')]), [Action::Help, Action::Leave]);
        assert_eq!(
            feed(&[prefix, prefix, plain('x')]),
            [Action::Help, Action::Send(CTRL_A), Action::Send(Key::new(KeyCode::Char('x')))]
        );
        assert_eq!(feed(&[prefix, plain('a')]), [Action::Help, Action::Send(CTRL_A)]);
        assert_eq!(feed(&[prefix, plain('d')]), [Action::Help, Action::Send(CTRL_ALT_DELETE)]);
        assert_eq!(
            feed(&[prefix, plain('q'), plain('x')]),
            [Action::Help, Action::Help, Action::Send(Key::new(KeyCode::Char('x')))]
        );
    }

    #[test]
    fn ctrl_c_is_the_guests() {
        let ctrl_c = event(event::KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(
            Chord::default().feed(&ctrl_c),
            Action::Send(press(KeyCode::Char('c'), true, false, false))
        );
    }
}
