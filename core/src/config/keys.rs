//! The small language of `--keys`.

use std::str::FromStr;
use std::time::Duration;

use trapline_devices::platform::keyboard::{Key, KeyCode};

use super::error::Shown;

/// The longest single wait, in seconds.
const WAIT_LONGEST: f64 = 1e6;

/// What is to be typed, and when. Made from its text with [`str::parse`]:
///
/// * a printable ASCII character: that character, typed;
/// * `<enter>`, `<esc>`, `<tab>`, `<backspace>`, `<space>`, `<up>`, `<down>`, `<left>`, `<right>`, `<home>`, `<end>`,
///   `<pageup>`, `<pagedown>`, `<insert>`, `<delete>`, `<f1>` to `<f12>`: that key;
/// * `<lt>`, `<gt>`: the characters `<` and `>` (a bare `>` types itself too);
/// * `<ctrl-X>`, `<alt-X>`, `<shift-X>`, also combined, as in `<ctrl-alt-delete>`: X with modifiers held, where X is a
///   key's name or one character;
/// * `<wait:SECONDS>`: nothing for so long; fractions are allowed;
/// * `<wait-text:STRING>`: nothing until the screen shows STRING within one of its rows; `\>` and `\\` stand for `>`
///   and `\`;
/// * a line break, a tab: Enter, Tab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

impl Script {
    /// Whether it waits for something to appear on the screen.
    pub fn watches(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::WaitText(_)))
    }
}

/// One step of a [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key is pressed and released.
    Press(Key),
    /// Nothing happens for so long.
    Wait(Duration),
    /// Nothing happens until the screen shows this.
    WaitText(String),
}

impl FromStr for Script {
    type Err = String;

    /// Parses a script; the error says what is wrong, without the script's own text.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = rest.get(c.len_utf8()..).unwrap_or_default();
            if c == '<' {
                let (name, after) = tag(after)?;
                steps.push(step(&name)?);
                rest = after;
            } else {
                steps.push(Step::Press(Key::new(character(c)?)));
                rest = after;
            }
        }
        Ok(Self { steps })
    }
}

/// The text of a tag up to its closing `>`, unescaped, and what follows it.
fn tag(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '>' => return Ok((name, text.get(at + 1..).unwrap_or_default())),
            _ => name.push(c),
        }
    }
    Err("a < has no closing >; the character itself is written <lt>".into())
}

fn step(tag: &str) -> Result<Step, String> {
    if let Some(seconds) = tag.strip_prefix("wait:") {
        let problem = || format!("{} is not a time to wait; give seconds, as in <wait:0.5>", Shown(seconds));
        let number: f64 = seconds.parse().map_err(|_| problem())?;
        if !(0.0..=WAIT_LONGEST).contains(&number) {
            return Err(problem());
        }
        return Duration::try_from_secs_f64(number).map(Step::Wait).map_err(|_| problem());
    }
    if let Some(wanted) = tag.strip_prefix("wait-text:") {
        return match wanted {
            "" => Err("<wait-text:> names no text".into()),
            _ => Ok(Step::WaitText(wanted.to_owned())),
        };
    }
    let unknown = || format!("<{}> is no key", Shown(tag));
    let (mut held, mut name) = (Key::new(KeyCode::Char('\0')), tag);
    loop {
        (held, name) = if let Some(rest) = name.strip_prefix("ctrl-") {
            (held.with_ctrl(), rest)
        } else if let Some(rest) = name.strip_prefix("alt-") {
            (held.with_alt(), rest)
        } else if let Some(rest) = name.strip_prefix("shift-") {
            (held.with_shift(), rest)
        } else {
            break;
        };
    }
    let code = match named(name) {
        Some(code) => code,
        None if name != tag => {
            let mut chars = name.chars();
            let c = chars.next().filter(|_| chars.next().is_none()).ok_or_else(unknown)?;
            character(c)?
        }
        None => return Err(unknown()),
    };
    Ok(Step::Press(Key { code, ..held }))
}

fn named(name: &str) -> Option<KeyCode> {
    Some(match name {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Escape,
        "tab" => KeyCode::Tab,
        "backspace" => KeyCode::Backspace,
        "space" => KeyCode::Char(' '),
        "lt" => KeyCode::Char('<'),
        "gt" => KeyCode::Char('>'),
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "pageup" => KeyCode::PageUp,
        "pagedown" => KeyCode::PageDown,
        "insert" => KeyCode::Insert,
        "delete" => KeyCode::Delete,
        _ => {
            let number = name.strip_prefix('f')?;
            let plain = !number.starts_with(['0', '+']);
            KeyCode::Function(number.parse().ok().filter(|number| plain && (1..=12).contains(number))?)
        }
    })
}

fn character(c: char) -> Result<KeyCode, String> {
    match c {
        '\n' => Ok(KeyCode::Enter),
        '\t' => Ok(KeyCode::Tab),
        ' '..='~' => Ok(KeyCode::Char(c)),
        _ => Err(format!("{c:?} is not on the guest's keyboard")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> Step {
        Step::Press(Key::new(code))
    }

    fn held(code: KeyCode, ctrl: bool, alt: bool, shift: bool) -> Step {
        Step::Press(Key { code, shift, ctrl, alt })
    }

    #[test]
    fn each_form_is_read() {
        let cases: &[(&str, &[Step])] = &[
            ("", &[]),
            (
                "a>\n\t",
                &[
                    press(KeyCode::Char('a')),
                    press(KeyCode::Char('>')),
                    press(KeyCode::Enter),
                    press(KeyCode::Tab),
                ],
            ),
            (
                "<lt><gt><space>",
                &[press(KeyCode::Char('<')), press(KeyCode::Char('>')), press(KeyCode::Char(' '))],
            ),
            ("<f1><f12>", &[press(KeyCode::Function(1)), press(KeyCode::Function(12))]),
            ("<ctrl-c>", &[held(KeyCode::Char('c'), true, false, false)]),
            ("<ctrl-->", &[held(KeyCode::Char('-'), true, false, false)]),
            ("<ctrl-alt-delete>", &[held(KeyCode::Delete, true, true, false)]),
            ("<shift-alt-f4>", &[held(KeyCode::Function(4), false, true, true)]),
            ("<wait:0.5>x", &[Step::Wait(Duration::from_millis(500)), press(KeyCode::Char('x'))]),
            (r"<wait-text:a \> b\\>y", &[Step::WaitText(r"a > b\".into()), press(KeyCode::Char('y'))]),
        ];
        for (text, steps) in cases {
            assert_eq!(text.parse::<Script>().map(|script| script.steps).as_deref(), Ok(*steps), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let cases = [
            ("<f13>", "<f13> is no key"),
            ("<f0>", "<f0> is no key"),
            ("<f01>", "<f01> is no key"),
            ("<Enter>", "<Enter> is no key"),
            ("<a>", "<a> is no key"),
            ("<>", "<\"\"> is no key"),
            ("<ctrl->", "<ctrl-> is no key"),
            ("<ctrl-ab>", "<ctrl-ab> is no key"),
            ("<wait:>", "\"\" is not a time to wait; give seconds, as in <wait:0.5>"),
            ("<wait:-1>", "-1 is not a time to wait; give seconds, as in <wait:0.5>"),
            ("<wait:NaN>", "NaN is not a time to wait; give seconds, as in <wait:0.5>"),
            ("<wait:inf>", "inf is not a time to wait; give seconds, as in <wait:0.5>"),
            ("<wait-text:>", "<wait-text:> names no text"),
            ("é", "'é' is not on the guest's keyboard"),
            ("\u{1b}", "'\\u{1b}' is not on the guest's keyboard"),
            ("<down", "a < has no closing >; the character itself is written <lt>"),
        ];
        for (text, problem) in cases {
            assert_eq!(text.parse::<Script>(), Err(problem.to_owned()), "{text}");
        }
    }
}
