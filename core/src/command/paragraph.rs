//! Paragraphs for people: a word at the left, and what is to be said of it beside that.

use std::fmt::Write;

/// The longest line, in characters.
pub(super) const WIDTH: usize = 100;
/// Where a paragraph's text starts.
const INDENT: usize = 16;

/// A word and what is to be said of it, in lines that are not too long.
pub(super) fn entry(page: &mut String, word: &str, text: &str) {
    let mut line = format!("    {word:width$}", width = INDENT - 4);
    let mut room = WIDTH - INDENT;
    for (index, part) in text.split(' ').enumerate() {
        let length = part.chars().count();
        if index > 0 && length + 1 > room {
            let _ = writeln!(page, "{}", line.trim_end());
            line = " ".repeat(INDENT);
            room = WIDTH - INDENT;
        } else if index > 0 {
            line.push(' ');
            room = room.saturating_sub(1);
        }
        line.push_str(part);
        room = room.saturating_sub(length);
    }
    let _ = writeln!(page, "{}", line.trim_end());
}

/// The first characters of a text, with three dots where something is missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}
