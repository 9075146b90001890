//! The small language of `--trace` and `--trace-filter`.

use std::path::PathBuf;

use trapline_io::addr::Position;
use trapline_io::{Gpa, Port, Span};

use super::device::{path, set, split};
use super::error::Shown;

/// Where a trace goes, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOutput {
    /// The file; it may be a pipe.
    pub path: PathBuf,
    /// Its form.
    pub form: TraceForm,
}

/// The form of a trace; [`crate::trace`] describes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceForm {
    /// Chrome's JSON, for ui.perfetto.dev.
    Perfetto,
    /// The text of Linux' mmiotrace.
    Mmiotrace,
}

/// What is traced: accesses that meet all that is given here. Of several filters one is enough.
///
/// | written | means |
/// |---|---|
/// | `function=NAME` | accesses to this function of the machine: `adapter0`, `disk0`, `host bridge`, ... |
/// | `bar=N` | accesses to BAR N, 0 to 5 |
/// | `port=A`, `port=A-B` | accesses that touch these I/O ports |
/// | `address=A`, `address=A-B` | accesses that touch these guest physical addresses |
///
/// Several, separated by commas, must be met together; ports and addresses exclude each other. Numbers of
/// ports and addresses are hexadecimal, with or without `0x`; both ends of a range belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// The function's name.
    pub function: Option<String>,
    /// The base address register, 0 to 5.
    pub bar: Option<u8>,
    /// Ports.
    pub ports: Option<Span<Port>>,
    /// Guest physical addresses.
    pub memory: Option<Span<Gpa>>,
}

/// Parses `FILE` or `FILE,format=perfetto|mmiotrace`. Without a format the name tells: `.json` is Perfetto's.
pub(super) fn output(text: &str) -> Result<TraceOutput, String> {
    let parts = split(text);
    let (name, options) = parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    let mut form = None;
    for option in options {
        match option.split_once('=') {
            Some(("format", value)) => set(&mut form, "format", parse_form(value)?)?,
            _ => {
                return Err(format!(
                    "{} is no option of a trace; there is format= (a comma in a file's name is written twice)",
                    Shown(option)
                ));
            }
        }
    }
    let path = path(name, "the file is not named")?;
    let by_name = match path.extension().is_some_and(|extension| extension == "json") {
        true => TraceForm::Perfetto,
        false => TraceForm::Mmiotrace,
    };
    Ok(TraceOutput { path, form: form.unwrap_or(by_name) })
}

fn parse_form(text: &str) -> Result<TraceForm, String> {
    match text {
        "perfetto" => Ok(TraceForm::Perfetto),
        "mmiotrace" => Ok(TraceForm::Mmiotrace),
        _ => Err(format!("format={text} is not known; give format=perfetto or format=mmiotrace")),
    }
}

const FORMS: &str = "give function=NAME, bar=N, port=A-B or address=A-B, several separated by commas";

/// Parses one [`TraceFilter`].
pub(super) fn filter(text: &str) -> Result<TraceFilter, String> {
    let mut filter = TraceFilter::default();
    for part in split(text) {
        match part.split_once('=') {
            Some(("function", "")) => return Err("function= needs a name, as adapter0".into()),
            Some(("function", name)) => set(&mut filter.function, "function", name.to_owned())?,
            Some(("bar", number)) => set(&mut filter.bar, "bar", parse_bar(number)?)?,
            Some(("port", range)) => set(&mut filter.ports, "port", parse_range("port", range)?)?,
            Some(("address", range)) => set(&mut filter.memory, "address", parse_range("address", range)?)?,
            _ => return Err(format!("{} is no rule of a filter; {FORMS}", Shown(&part))),
        }
    }
    if filter.ports.is_some() && filter.memory.is_some() {
        return Err("no access is to a port and to an address; give two filters".into());
    }
    Ok(filter)
}

fn parse_bar(text: &str) -> Result<u8, String> {
    text.parse()
        .ok()
        .filter(|bar| *bar < 6)
        .ok_or_else(|| format!("bar={text} is no BAR; give bar=0 to bar=5"))
}

fn parse_range<A: Position>(key: &str, text: &str) -> Result<Span<A>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let span = parse_number(first).zip(parse_number(last)).and_then(|(first, last)| Span::new(first, last));
    span.ok_or_else(|| {
        format!("{key}={text} is no range; give two hexadecimal numbers, the lower first, as {key}=3c0-3df")
    })
}

fn parse_number<A: Position>(text: &str) -> Option<A> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // A sign is not one of our digits.
    let all_digits = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    A::from_raw(u64::from_str_radix(digits, 16).ok().filter(|_| all_digits)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_form_unless_it_is_given() {
        let cases = [
            ("a.json", "a.json", TraceForm::Perfetto),
            ("a", "a", TraceForm::Mmiotrace),
            ("a.json.txt", "a.json.txt", TraceForm::Mmiotrace),
            ("a.json,format=mmiotrace", "a.json", TraceForm::Mmiotrace),
            ("a,,b,format=perfetto", "a,b", TraceForm::Perfetto),
        ];
        for (text, path, form) in cases {
            assert_eq!(output(text), Ok(TraceOutput { path: path.into(), form }), "{text}");
        }
    }

    #[test]
    fn filters_are_read() {
        let ports = Span::new(Port(0x3c0), Port(0x3df));
        let memory = Span::new(Gpa(0xa_0000), Gpa(0xb_ffff));
        let cases = [
            ("port=3c0-3df", TraceFilter { ports, ..TraceFilter::default() }),
            ("port=0x3c0-0x3DF", TraceFilter { ports, ..TraceFilter::default() }),
            ("address=a0000-bffff", TraceFilter { memory, ..TraceFilter::default() }),
            ("port=80", TraceFilter { ports: Span::new(Port(0x80), Port(0x80)), ..TraceFilter::default() }),
            (
                "function=host bridge,bar=5",
                TraceFilter { function: Some("host bridge".into()), bar: Some(5), ..TraceFilter::default() },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(filter(text), Ok(expected), "{text}");
        }
    }
}
