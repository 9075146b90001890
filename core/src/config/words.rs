//! Options whose values are words.

use super::{Arbitration, Interface, Io, Messages, Phase, Screen, Seccomp, Vga, Window};

/// A value that people give as one word of a few. Parsing, messages and reports have the words from here.
pub(crate) trait Words: Copy + PartialEq + 'static {
    /// Every value with its word, in the order in which people are told of them.
    const WORDS: &'static [(Self, &'static str)];
    /// The value where nothing is said.
    const DEFAULT: Self;

    /// The value's word.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find_map(|(value, word)| (*value == self).then_some(*word)).unwrap_or_default()
    }

    /// The word, where the value is not the default.
    fn unusual(self) -> Option<&'static str> {
        (self != Self::DEFAULT).then(|| self.word())
    }

    /// The value of a word.
    ///
    /// # Errors
    /// What could be given instead.
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse_of("", text)
    }

    /// The same behind a `key=`, or behind nothing, which is how the words are told of.
    ///
    /// # Errors
    /// What could be given instead.
    fn parse_of(key: &str, text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(_, word)| *word == text);
        found.map(|(value, _)| *value).ok_or_else(|| {
            let words: Vec<String> = Self::WORDS.iter().map(|(_, word)| format!("{key}{word}")).collect();
            let (last, others) =
                words.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
            format!("not known; give {} or {last}", others.join(", "))
        })
    }
}

impl Words for Screen {
    const WORDS: &'static [(Self, &'static str)] = &[(Screen::Auto, "auto"), (Screen::None, "none")];
    const DEFAULT: Self = Screen::Auto;
}

impl Words for Io {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Io::Inline, "inline"), (Io::Uring, "uring"), (Io::Adaptive, "adaptive")];
    const DEFAULT: Self = Io::Adaptive;
}

impl Words for Interface {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Interface::Auto, "auto"), (Interface::Group, "group"), (Interface::Iommufd, "iommufd")];
    const DEFAULT: Self = Interface::Auto;
}

impl Words for Window {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Window::Strict, "strict"),
        (Window::Coalesced, "coalesced"),
        (Window::Shadowed, "shadowed"),
        (Window::Auto, "auto"),
    ];
    const DEFAULT: Self = Window::Auto;
}

impl Words for Seccomp {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Seccomp::On, "on"), (Seccomp::Log, "log"), (Seccomp::Off, "off")];
    const DEFAULT: Self = Seccomp::On;
}

impl Words for Vga {
    const WORDS: &'static [(Self, &'static str)] = &[(Vga::On, "on"), (Vga::Off, "off"), (Vga::Auto, "auto")];
    const DEFAULT: Self = Vga::Auto;
}

impl Words for Messages {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Messages::Guest, "guest"),
        (Messages::NoMsix, "no-msix"),
        (Messages::NoMsi, "no-msi"),
        (Messages::Off, "off"),
    ];
    const DEFAULT: Self = Messages::Guest;
}

impl Words for Phase {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Phase::Auto, "auto"), (Phase::Legacy, "legacy"), (Phase::Native, "native")];
    const DEFAULT: Self = Phase::Auto;
}

impl Words for Arbitration {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Arbitration::On, "on"), (Arbitration::Off, "off"), (Arbitration::Auto, "auto")];
    const DEFAULT: Self = Arbitration::Auto;
}

/// A switch. Where nothing is said, what it is of decides: the default is not used.
impl Words for bool {
    const WORDS: &'static [(Self, &'static str)] = &[(true, "on"), (false, "off")];
    const DEFAULT: Self = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each<T: Words + std::fmt::Debug>() {
        for (value, word) in T::WORDS {
            assert_eq!(T::parse(word), Ok(*value));
            assert_eq!(value.word(), *word);
            assert_eq!(value.unusual().is_none(), *value == T::DEFAULT);
        }
        assert!(T::parse("").is_err());
    }

    #[test]
    fn a_value_has_the_word_it_is_parsed_from() {
        each::<Screen>();
        each::<Io>();
        each::<Interface>();
        each::<Window>();
        each::<Seccomp>();
        each::<Vga>();
        each::<Messages>();
        each::<Phase>();
        each::<Arbitration>();
        each::<bool>();
    }

    #[test]
    fn what_is_no_word_is_answered_by_all_of_them() {
        assert_eq!(Io::parse("fast"), Err("not known; give inline, uring or adaptive".into()));
        assert_eq!(Screen::parse("on"), Err("not known; give auto or none".into()));
        assert_eq!(Vga::parse_of("vga=", "1"), Err("not known; give vga=on, vga=off or vga=auto".into()));
    }
}
