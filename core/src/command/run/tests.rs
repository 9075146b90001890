//! Runs of a machine that is none: how they are watched, end, and leave the terminal.
//!
//! Signals and the terminal belong to a whole process, so those runs take place in one of their own: this
//! test program started again for [`the_run_of_a_child`] alone, on a terminal of its own where the run needs one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use trapline_devices::platform::keyboard::{Key, KeyCode};

use super::*;
use crate::sandbox::Seccomp;
use crate::screen::{Cell, Frame, Source, TextScreen};

/// What a machine that is none does.
type Script = fn(Ends, &Typed);
/// The keys it was given.
type Typed = Arc<Mutex<Vec<Key>>>;

/// A guest with one line on its screen: what was typed.
struct Fake {
    typed: Typed,
    stopped: Arc<Mutex<bool>>,
    screen: Line,
    /// Whether it cannot be stopped.
    stuck: bool,
}

struct Line(Typed);

impl Source for Line {
    fn text(&mut self) -> Option<TextScreen> {
        let typed = self.0.lock();
        let line = "READY ".chars().chain(typed.iter().map(|key| match key.code {
            KeyCode::Char(c) => c,
            _ => '.',
        }));
        let cells: Vec<Cell> = line.map(|ch| Cell { ch, attribute: 7 }).collect();
        Some(TextScreen { columns: cells.len(), rows: 1, cells, cursor: None })
    }

    fn frame(&mut self) -> Option<Frame> {
        Some(Frame { width: 1, height: 1, rgb: vec![1, 2, 3] })
    }
}

impl Guest for Fake {
    fn press(&mut self, key: Key) {
        self.typed.lock().push(key);
    }
    fn screen(&mut self) -> &mut dyn Source {
        &mut self.screen
    }
    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        if self.stuck {
            loop {
                std::thread::park();
            }
        }
        *self.stopped.lock() = true;
        Ok(())
    }
}

/// Runs a machine that does what `script` says in a thread of its own.
fn run_fake(config: &RunConfig, script: Script) -> (anyhow::Result<Status>, Vec<Key>) {
    let (typed, stopped) = (Typed::default(), Arc::default());
    let fake = Fake {
        typed: typed.clone(),
        stopped: Arc::clone(&stopped),
        screen: Line(typed.clone()),
        stuck: std::env::var(CHILD).is_ok_and(|kind| kind == "stuck"),
    };
    let (theirs, log) = (typed.clone(), Log::default());
    let status = live(config, &log, |ends| {
        std::thread::spawn(move || script(ends, &theirs));
        Ok(Box::new(fake))
    });
    assert!(*stopped.lock(), "a run ends with its machine stopped");
    (status, typed.lock().clone())
}

fn config(toml: &str) -> RunConfig {
    // The thread of a test is not to be confined.
    let config = RunConfig::new(Options::from_toml(toml).unwrap(), None).unwrap();
    RunConfig { seccomp: Seccomp::Off, ..config }
}

/// Waits until `count` keys were typed, then ends the run as after a power-off.
fn power_off_after(count: usize, ends: &Ends, typed: &Typed) {
    while typed.lock().len() < count {
        std::thread::sleep(Duration::from_millis(1));
    }
    ends.report(End::PowerOff);
}

#[test]
fn a_script_is_typed_and_the_screen_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut config = config("screen = 'none'\nkeys = '<wait-text:READY>ab<enter><wait-text:ab.>c'");
    config.screenshot = Some(path("a.png"));
    config.screen_text = Some(crate::config::TextOutput::File(path("a.txt")));
    let (status, typed) = run_fake(&config, |ends, typed| power_off_after(4, &ends, typed));
    assert_eq!(status.unwrap(), Status::Success);
    use KeyCode::{Char, Enter};
    assert_eq!(typed, [Char('a'), Char('b'), Enter, Char('c')].map(Key::new));
    assert_eq!(std::fs::read_to_string(path("a.txt")).unwrap(), "READY ab.c\n");
    assert!(std::fs::read(path("a.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_run_ends_after_its_time() {
    let start = Instant::now();
    let (status, _) = run_fake(&config("screen = 'none'\ntimeout = 0.2"), |_, _| {});
    assert_eq!(status.unwrap(), Status::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_machine_that_fails_says_so() {
    let (status, _) = run_fake(&config("screen = 'none'"), |ends, _| {
        ends.report(End::Failed("the adapter is gone".into()));
        ends.report(End::PowerOff);
    });
    assert_eq!(status.unwrap_err().to_string(), "the adapter is gone", "the first end counts");
}

#[test]
fn a_machine_that_can_not_be_built_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("screen = 'none'");
    config.screenshot = Some(folder.path().join("a.png"));
    let error = live(&config, &Log::default(), |_| Err(anyhow!("there is no /dev/kvm"))).unwrap_err();
    assert_eq!(error.to_string(), "there is no /dev/kvm");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// What a child says when its machine runs, and so its signals are taken over.
const STARTED: &str = "machine started";
const CHILD: &str = "TRAPLINE_TEST_CHILD";

/// Not a test by itself: the run that other tests start in a process of its own.
#[test]
fn the_run_of_a_child() {
    let Ok(kind) = std::env::var(CHILD) else { return };
    let script: Script = match kind.as_str() {
        "endless" | "stuck" => |_, _| {},
        "changing" => |_, typed| {
            for number in 0_u32.. {
                let digit = char::from_digit(number % 10, 10).unwrap();
                *typed.lock() = vec![Key::new(KeyCode::Char(digit)); 40];
                std::thread::sleep(Duration::from_millis(5));
            }
        },
        "unseen" => |_, _| println!("{STARTED}"),
        "power off" => |ends, typed| power_off_after(1, &ends, typed),
        "panic" => |ends, typed| {
            power_off_after(1, &Ends::channel().0, typed);
            let _ends = ends;
            panic!("on purpose");
        },
        other => panic!("{other:?}"),
    };
    let options = match kind.as_str() {
        "changing" => "screen = 'auto'\ntimeout = 3",
        _ => "screen = 'auto'",
    };
    let (status, typed) = run_fake(&config(options), script);
    let status = match status {
        Ok(Status::Success) if kind == "endless" => 40 + i32::try_from(typed.len()).unwrap(),
        Ok(Status::Success) => 30,
        Ok(Status::Timeout) => 31,
        Ok(Status::Signal(number)) => 100 + i32::from(number),
        Ok(Status::Unfit) | Err(_) => 32,
    };
    std::process::exit(status);
}

/// A child on a terminal.
struct OnTerminal {
    child: Child,
    terminal: OwnedFd,
    /// Held so that the terminal stays when the child has gone.
    end: File,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
    before: String,
}

impl OnTerminal {
    fn start(kind: &str) -> Self {
        let (terminal, end) = pseudo_terminal();
        let before = settings(&end);
        let child = on(&end, kind);
        let (sender, output) = mpsc::channel();
        let mut reader = File::from(terminal.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, terminal, end, output, seen: String::new(), before }
    }

    /// Waits until the terminal was sent `wanted`.
    fn expect(&mut self, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.seen.contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.output.recv_timeout(left).unwrap_or_else(|_| panic!("{:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn keys(&self, bytes: &[u8]) {
        File::from(self.terminal.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// Waits for the end of the child; the terminal must then be as it was.
    fn end(mut self) -> (ExitStatus, String) {
        self.expect(LEFT);
        let status = self.child.wait().unwrap();
        assert_eq!(settings(&self.end), self.before, "the terminal's settings");
        assert!(self.seen.contains("\x1b[?25h"), "the cursor shows");
        (status, std::mem::take(&mut self.seen))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Only a test that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal's two ends: who types, and the program's.
fn pseudo_terminal() -> (OwnedFd, File) {
    let terminal =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::grantpt(&terminal).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
    let end = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&end, size).unwrap();
    (terminal, end)
}

/// A child on that terminal.
fn on(end: &File, kind: &str) -> Child {
    let stdio = || Stdio::from(end.try_clone().unwrap());
    // The last words of one whose terminal takes nothing would wait there.
    let errors = if kind == "changing" { Stdio::null() } else { stdio() };
    child(kind).stdin(stdio()).stdout(stdio()).stderr(errors).spawn().unwrap()
}

/// What a terminal is sent on the way to its other screen, and back.
const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

fn settings(terminal: &File) -> String {
    let settings: Termios = tcgetattr(terminal).unwrap();
    format!("{settings:?}")
}

fn child(kind: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "command::run::tests::the_run_of_a_child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, kind).env_remove("TRAPLINE_LOG");
    command
}

#[test]
fn the_chord_leaves_and_other_keys_are_the_guests() {
    let mut run = OnTerminal::start("endless");
    run.expect(ENTERED);
    run.expect("READY");
    assert_ne!(settings(&run.end), run.before, "raw while the view is shown");
    run.keys(b"q\x03\x01\x01\x1b[A");
    // Shown as typed: q, c, a, and a key without a character.
    run.expect("qca.");
    run.keys(b"\x01x");
    let (status, _) = run.end();
    assert_eq!(status.code(), Some(44));
}

#[test]
fn a_power_off_gives_the_terminal_back() {
    let mut run = OnTerminal::start("power off");
    run.expect("READY");
    run.keys(b"x");
    let (status, _) = run.end();
    assert_eq!(status.code(), Some(30));
}

#[test]
fn signals_give_the_terminal_back() {
    use rustix::process::Signal;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut run = OnTerminal::start("endless");
        run.expect("READY");
        run.signal(signal);
        let (status, _) = run.end();
        assert_eq!(status.code(), Some(100 + signal.as_raw()));
    }
}

#[test]
fn a_terminal_that_takes_nothing_does_not_hold_the_run_up() {
    let mut run = OnTerminal::start("changing");
    run.expect("READY");
    rustix::termios::tcflow(&run.end, rustix::termios::Action::OOff).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match run.child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it waits for its terminal"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(31));
    assert_eq!(settings(&run.end), run.before, "the terminal's settings");
}

#[test]
fn a_terminal_that_is_gone_ends_the_run() {
    let (terminal, end) = pseudo_terminal();
    let mut child = on(&end, "endless");
    drop(end);
    let (mut reader, mut seen) = (File::from(terminal), String::new());
    while !seen.contains("READY") {
        let mut bytes = [0; 4096];
        let count = reader.read(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop(reader);
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("it goes on without its terminal");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(status.code(), Some(101));
}

#[test]
fn a_second_signal_ends_a_run_that_does_not_stop() {
    use rustix::process::Signal;
    let mut run = OnTerminal::start("stuck");
    run.expect("READY");
    run.signal(Signal::TERM);
    run.expect(LEFT);
    // As a shell does that ends, and then its terminal.
    run.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(run.child.try_wait().unwrap(), None);
    run.signal(Signal::INT);
    let (status, _) = run.end();
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_panic_in_any_thread_gives_the_terminal_back_before_it_is_told() {
    let mut run = OnTerminal::start("panic");
    run.expect("READY");
    run.keys(b"x");
    run.expect("on purpose");
    let told = run.seen.find("on purpose");
    assert!(run.seen.contains(LEFT) && run.seen.find(LEFT) < told);
    let (status, seen) = run.end();
    assert_eq!(status.code(), Some(32), "the run ends, as far as the panic let it");
    assert!(!seen[told.unwrap()..].contains("READY"), "nothing is drawn over what was told");
}

#[test]
fn without_a_terminal_nothing_is_drawn() {
    use std::io::{BufRead, BufReader};
    let mut run = child("unseen").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains(STARTED) {
        assert_ne!(output.read_line(&mut seen).unwrap(), 0, "{seen}");
    }
    let id = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    output.read_to_string(&mut seen).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(115));
    assert!(!seen.contains('\x1b'), "{seen}");
}
