use super::*;
use crate::screen::Cell;

/// A terminal that knows what [`View`] may send and nothing else.
struct Vt {
    columns: usize,
    rows: Vec<Vec<(char, String)>>,
    at: (usize, usize),
    colours: [String; 2],
    cursor: bool,
    /// Characters written so far.
    printed: usize,
}

impl Vt {
    fn new(columns: usize, rows: usize) -> Self {
        let blank = vec![vec![('#', String::new()); columns]; rows];
        Self { columns, rows: blank, at: (0, 0), colours: Default::default(), cursor: true, printed: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut text = std::str::from_utf8(bytes).unwrap();
        while let Some(c) = text.chars().next() {
            text = &text[c.len_utf8()..];
            if c != '\u{1b}' {
                assert!(!c.is_control(), "{c:?}");
                let colours = self.colours.join("/");
                self.rows[self.at.1][self.at.0] = (c, colours);
                self.at.0 = (self.at.0 + 1).min(self.columns - 1);
                self.printed += 1;
                continue;
            }
            let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap();
            let (arguments, rest) = text.split_at(end);
            self.obey(arguments.strip_prefix('[').unwrap(), &rest[..1]);
            text = &rest[1..];
        }
    }

    fn obey(&mut self, arguments: &str, command: &str) {
        match (arguments, command) {
            (place, "H") => {
                let (row, column) = place.split_once(';').unwrap();
                self.at = (column.parse::<usize>().unwrap() - 1, row.parse::<usize>().unwrap() - 1);
            }
            ("2", "J") => self.rows.iter_mut().flatten().for_each(|tile| *tile = (' ', "/".into())),
            ("?25", "h") => self.cursor = true,
            ("?25", "l") => self.cursor = false,
            ("0", "m") => self.colours = Default::default(),
            ("39", "m") => self.colours[0].clear(),
            ("49", "m") => self.colours[1].clear(),
            (colour, "m") if colour.starts_with("38;") => self.colours[0] = colour[3..].into(),
            (colour, "m") if colour.starts_with("48;") => self.colours[1] = colour[3..].into(),
            unknown => panic!("{unknown:?}"),
        }
    }

    fn line(&self, row: usize) -> String {
        self.rows[row].iter().map(|(c, _)| c).collect()
    }
}

/// A screen that a test changes.
#[derive(Default)]
struct Fake {
    text: Option<TextScreen>,
    frame: Option<Frame>,
}

impl Source for Fake {
    fn text(&mut self) -> Option<TextScreen> {
        self.text.clone()
    }
    fn frame(&mut self) -> Option<Frame> {
        self.frame.clone()
    }
}

fn text(columns: usize, rows: usize, fill: char) -> TextScreen {
    let cells = vec![Cell { ch: fill, attribute: 0x1e }; columns * rows];
    TextScreen { columns, rows, cells, cursor: None }
}

/// A view, the terminal behind it, and a clock.
struct Bench {
    view: View<Vec<u8>>,
    vt: Vt,
    now: Instant,
}

impl Bench {
    fn new(columns: u16, rows: u16) -> Self {
        let now = Instant::now();
        let view = View::new(Vec::new(), columns, rows, now);
        Self { view, vt: Vt::new(columns.into(), rows.into()), now }
    }

    /// Draws `screen` and returns how many characters that took.
    fn draw(&mut self, screen: &mut Fake) -> usize {
        self.view.draw(screen, self.now).unwrap();
        let before = self.vt.printed;
        self.vt.feed(&std::mem::take(&mut self.view.out));
        self.vt.printed - before
    }
}

#[test]
fn text_is_shown_with_its_colours() {
    let mut bench = Bench::new(4, 3);
    let mut screen = Fake { text: Some(text(4, 2, 'x')), ..Fake::default() };
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(0), "xxxx");
    assert_eq!(bench.vt.rows[0][0].1, "5;11/5;4", "bright yellow on blue");
}

#[test]
fn only_what_changed_is_written() {
    let mut bench = Bench::new(80, 30);
    let mut screen = Fake { text: Some(text(80, 25, 'x')), ..Fake::default() };
    assert_eq!(bench.draw(&mut screen), 80 * 25 + 80);
    assert_eq!(bench.draw(&mut screen), 0);
    assert_eq!(bench.view.out, b"", "not even a cursor movement");
    let cells = &mut screen.text.as_mut().unwrap().cells;
    cells[0].ch = 'a';
    cells[79].ch = 'b';
    cells[80].ch = 'c';
    cells[1999].attribute = 0x4f;
    assert_eq!(bench.draw(&mut screen), 4);
    assert_eq!((bench.vt.rows[0][0].0, bench.vt.rows[0][79].0, bench.vt.rows[1][0].0), ('a', 'b', 'c'));
    assert_eq!(bench.vt.rows[24][79].1, "5;15/5;1");
}

#[test]
fn any_sequence_of_pictures_ends_with_the_last() {
    let mut bench = Bench::new(7, 5);
    bench.now += HELP_TIME;
    let mut number = 1u32;
    for _ in 0..200 {
        let mut screen = text(7, 5, ' ');
        for cell in &mut screen.cells {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, _, attribute, ch] = number.to_le_bytes();
            *cell = Cell { ch: char::from(b'a' + ch % 3), attribute: attribute & 0x11 };
        }
        let wanted: Vec<String> = (0..5).map(|row| screen.line(row)).collect();
        let colours: Vec<String> = screen.cells.iter().map(|cell| cell.attribute).map(colours_of).collect();
        bench.draw(&mut Fake { text: Some(screen), frame: None });
        assert_eq!((0..5).map(|row| bench.vt.line(row)).collect::<Vec<_>>(), wanted);
        assert!(bench.vt.rows.iter().flatten().map(|tile| &tile.1).eq(&colours));
    }
}

fn colours_of(attribute: u8) -> String {
    let colour = |bit: u8| if bit == 0 { "5;0" } else { "5;4" };
    format!("{}/{}", colour(attribute & 1), colour(attribute >> 4))
}

#[test]
fn the_cursor_follows_the_guests() {
    let mut bench = Bench::new(10, 6);
    let mut screen = Fake { text: Some(text(10, 5, ' ')), ..Fake::default() };
    bench.draw(&mut screen);
    assert!(!bench.vt.cursor);
    screen.text.as_mut().unwrap().cursor = Some((3, 4));
    assert_eq!(bench.draw(&mut screen), 0);
    assert_eq!((bench.vt.cursor, bench.vt.at), (true, (3, 4)));
    screen.text.as_mut().unwrap().cells[0].ch = 'x';
    bench.draw(&mut screen);
    assert_eq!((bench.vt.cursor, bench.vt.at), (true, (3, 4)));
    screen.text.as_mut().unwrap().cursor = None;
    bench.draw(&mut screen);
    assert!(!bench.vt.cursor);
}

#[test]
fn the_help_line_gives_its_row_to_the_guest() {
    let mut bench = Bench::new(80, 25);
    let mut screen = Fake { text: Some(text(80, 25, 'x')), ..Fake::default() };
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(24).trim_end(), HELP.trim_end());
    bench.now += HELP_TIME;
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(24), "x".repeat(80));
    bench.view.help(bench.now);
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(24).trim_end(), HELP.trim_end());
}

#[test]
fn the_help_line_stays_where_a_row_is_free() {
    let mut bench = Bench::new(80, 26);
    bench.now += HELP_TIME * 2;
    bench.draw(&mut Fake { text: Some(text(80, 25, 'x')), ..Fake::default() });
    assert_eq!(bench.vt.line(24), "x".repeat(80));
    assert_eq!(bench.vt.line(25).trim_end(), HELP.trim_end());
}

#[test]
fn another_size_is_drawn_anew() {
    let mut bench = Bench::new(10, 6);
    let mut screen = Fake { text: Some(text(10, 5, 'x')), ..Fake::default() };
    bench.draw(&mut screen);
    bench.view.resize(5, 3);
    bench.vt = Vt::new(5, 3);
    bench.now += HELP_TIME;
    assert_eq!(bench.draw(&mut screen), 15);
    assert_eq!(bench.vt.line(2), "xxxxx");
    for (columns, rows) in [(0, 0), (0, 5), (5, 0), (1, 1)] {
        bench.view.resize(columns, rows);
        bench.view.help(bench.now);
        bench.view.draw(&mut screen, bench.now).unwrap();
        bench.view.out.clear();
    }
}

#[test]
fn graphics_are_half_blocks_and_cost_nothing_unchanged() {
    let mut bench = Bench::new(4, 2);
    bench.now += HELP_TIME;
    let mut screen =
        Fake { frame: Some(Frame { width: 8, height: 8, rgb: [9, 8, 7].repeat(64) }), ..Fake::default() };
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(0), "▀▀▀▀");
    assert_eq!(bench.vt.rows[1][3].1, "2;9;8;7/2;9;8;7");
    assert_eq!(bench.draw(&mut screen), 0);
    screen.frame.as_mut().unwrap().rgb.fill(1);
    assert_eq!(bench.draw(&mut screen), 8);
    screen.text = Some(text(4, 2, 't'));
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(1), "tttt");
    screen.text = None;
    bench.draw(&mut screen);
    assert_eq!(bench.vt.line(1), "▀▀▀▀", "the same frame again, but not what the terminal shows");
}

#[test]
fn a_dark_display_says_so() {
    let mut bench = Bench::new(40, 3);
    bench.draw(&mut Fake::default());
    assert_eq!(bench.vt.line(0).trim_end(), "[the display is off]");
}

#[test]
fn after_a_failure_all_is_drawn_again() {
    struct Flaky(bool);
    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let now = Instant::now();
    let mut view = View::new(Flaky(true), 4, 4, now);
    let mut screen = Fake { text: Some(text(4, 3, 'x')), ..Fake::default() };
    assert!(view.draw(&mut screen, now).is_err());
    assert!(view.shown.is_none());
    view.out.0 = false;
    view.draw(&mut screen, now).unwrap();
    assert!(view.shown.is_some());
}
