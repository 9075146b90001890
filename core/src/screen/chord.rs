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

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Key, Modifiers, Press};

/// The help line.
pub const HELP: &str = " trapline   Ctrl-A x: leave   Ctrl-A Ctrl-A: Ctrl-A   Ctrl-A d: Ctrl-Alt-Del ";

/// What a key of the terminal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The guest gets this key.
    Send(Press),
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

const CTRL_A: Press =
    Press { key: Key::Char('a'), modifiers: Modifiers { ctrl: true, alt: false, shift: false } };
const CTRL_ALT_DELETE: Press =
    Press { key: Key::Delete, modifiers: Modifiers { ctrl: true, alt: true, shift: false } };

impl Chord {
    /// Takes one event.
    pub fn feed(&mut self, event: &KeyEvent) -> Action {
        let Some(press) = decode(event) else { return Action::Ignore };
        if std::mem::take(&mut self.pending) {
            return match press {
                CTRL_A => Action::Send(CTRL_A),
                Press { key: Key::Char('a' | 'A'), .. } => Action::Send(CTRL_A),
                Press { key: Key::Char('x' | 'X'), .. } => Action::Leave,
                Press { key: Key::Char('d' | 'D'), .. } => Action::Send(CTRL_ALT_DELETE),
                _ => Action::Help,
            };
        }
        if press == CTRL_A {
            self.pending = true;
            return Action::Help;
        }
        Action::Send(press)
    }
}

/// The guest's key for an event of the terminal; `None` for a release and for what a PC keyboard does not have.
#[must_use]
pub fn decode(event: &KeyEvent) -> Option<Press> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let key = match event.code {
        // A terminal gives the character as typed: Shift is in it already.
        KeyCode::Char(c @ ' '..='~') => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Insert => Key::Insert,
        KeyCode::Delete => Key::Delete,
        KeyCode::F(number @ 1..=12) => Key::F(number),
        _ => return None,
    };
    let held = |modifier| event.modifiers.contains(modifier);
    let typed = matches!(key, Key::Char(_));
    let modifiers = Modifiers {
        ctrl: held(KeyModifiers::CONTROL),
        alt: held(KeyModifiers::ALT),
        shift: !typed && (held(KeyModifiers::SHIFT) || event.code == KeyCode::BackTab),
    };
    Some(Press { key, modifiers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    fn press(key: Key, ctrl: bool, alt: bool, shift: bool) -> Press {
        Press { key, modifiers: Modifiers { ctrl, alt, shift } }
    }

    #[test]
    fn keys_are_decoded() {
        use KeyModifiers as M;
        let cases = [
            (KeyCode::Char('a'), M::NONE, Some(press(Key::Char('a'), false, false, false))),
            (KeyCode::Char('A'), M::SHIFT, Some(press(Key::Char('A'), false, false, false))),
            (KeyCode::Char('c'), M::CONTROL, Some(press(Key::Char('c'), true, false, false))),
            (KeyCode::Char('x'), M::ALT, Some(press(Key::Char('x'), false, true, false))),
            (KeyCode::Char(' '), M::NONE, Some(press(Key::Char(' '), false, false, false))),
            (KeyCode::Char('é'), M::NONE, None),
            (KeyCode::Char('\u{7f}'), M::NONE, None),
            (KeyCode::Enter, M::NONE, Some(Key::Enter.into())),
            (KeyCode::Esc, M::NONE, Some(Key::Esc.into())),
            (KeyCode::Backspace, M::NONE, Some(Key::Backspace.into())),
            (KeyCode::Tab, M::NONE, Some(Key::Tab.into())),
            (KeyCode::BackTab, M::NONE, Some(press(Key::Tab, false, false, true))),
            (KeyCode::BackTab, M::SHIFT, Some(press(Key::Tab, false, false, true))),
            (KeyCode::Up, M::NONE, Some(Key::Up.into())),
            (KeyCode::Down, M::SHIFT, Some(press(Key::Down, false, false, true))),
            (KeyCode::Left, M::CONTROL, Some(press(Key::Left, true, false, false))),
            (KeyCode::Right, M::NONE, Some(Key::Right.into())),
            (KeyCode::Home, M::NONE, Some(Key::Home.into())),
            (KeyCode::End, M::NONE, Some(Key::End.into())),
            (KeyCode::PageUp, M::NONE, Some(Key::PageUp.into())),
            (KeyCode::PageDown, M::NONE, Some(Key::PageDown.into())),
            (KeyCode::Insert, M::NONE, Some(Key::Insert.into())),
            (KeyCode::Delete, M::CONTROL | M::ALT, Some(CTRL_ALT_DELETE)),
            (KeyCode::F(1), M::NONE, Some(Key::F(1).into())),
            (KeyCode::F(12), M::ALT, Some(press(Key::F(12), false, true, false))),
            (KeyCode::F(13), M::NONE, None),
            (KeyCode::CapsLock, M::NONE, None),
            (KeyCode::Null, M::NONE, None),
        ];
        for (code, modifiers, expected) in cases {
            assert_eq!(decode(&event(code, modifiers)), expected, "{code:?} {modifiers:?}");
        }
    }

    #[test]
    fn a_release_is_no_press() {
        let mut released = event(KeyCode::Enter, KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(decode(&released), None);
        released.kind = KeyEventKind::Repeat;
        assert_eq!(decode(&released), Some(Key::Enter.into()));
    }

    #[test]
    fn the_prefix_takes_one_key() {
        let prefix = event(KeyCode::Char('a'), KeyModifiers::CONTROL);
        let plain = |c| event(KeyCode::Char(c), KeyModifiers::NONE);
        let mut chord = Chord::default();
        let mut feed = |events: &[KeyEvent]| events.iter().map(|event| chord.feed(event)).collect::<Vec<_>>();
        assert_eq!(feed(&[prefix, plain('x')]), [Action::Help, Action::Leave]);
        assert_eq!(
            feed(&[prefix, prefix, plain('x')]),
            [Action::Help, Action::Send(CTRL_A), Action::Send(Key::Char('x').into())]
        );
        assert_eq!(feed(&[prefix, plain('a')]), [Action::Help, Action::Send(CTRL_A)]);
        assert_eq!(feed(&[prefix, plain('d')]), [Action::Help, Action::Send(CTRL_ALT_DELETE)]);
        assert_eq!(
            feed(&[prefix, plain('q'), plain('x')]),
            [Action::Help, Action::Help, Action::Send(Key::Char('x').into())]
        );
    }

    #[test]
    fn ctrl_c_is_the_guests() {
        let ctrl_c = event(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(Chord::default().feed(&ctrl_c), Action::Send(press(Key::Char('c'), true, false, false)));
    }
}
