//! Each kind in a process of its own, since a filter that refuses ends one: this test program again, with what is to be
//! done in a variable.

use std::process::{Command, Output};

use super::*;

/// Says what the process is to do: the number of a kind, and an [`Act`].
const VARIABLE: &str = "TRAPLINE_TEST_CONFINED";

/// What a confined thread does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// What every thread may.
    Live,
    /// Opens a file to write to it.
    Open,
    /// Opens a file to read from it.
    Look,
    /// Opens a socket.
    Connect,
    /// An ioctl that nobody has a use for.
    Ioctl,
    /// Starts a thread.
    Thread,
    /// Starts a program.
    Program,
}

const ACTS: [Act; 7] = [Act::Live, Act::Open, Act::Look, Act::Connect, Act::Ioctl, Act::Thread, Act::Program];

impl Act {
    fn carry_out(self) {
        match self {
            Act::Live => {
                let big = vec![1_u8; 64 << 20];
                std::thread::sleep(std::time::Duration::from_millis(1));
                eprintln!("alive with {}", big.len());
            }
            Act::Open => drop(std::fs::File::options().write(true).open("/dev/null")),
            Act::Look => drop(std::fs::File::open("/dev/null")),
            Act::Connect => drop(std::net::TcpListener::bind("127.0.0.1:0")),
            Act::Ioctl => drop(rustix::io::ioctl_fionread(std::io::stdin())),
            Act::Thread => drop(std::thread::spawn(|| ()).join()),
            Act::Program => drop(Command::new("true").status()),
        }
    }

    /// The calls that a kind is refused over, whatever the C library.
    fn calls(self) -> &'static [&'static str] {
        match self {
            Act::Live => &[],
            Act::Open | Act::Look => &["openat (257)", "open (2)"],
            Act::Connect => &["socket (41)"],
            Act::Ioctl => &["ioctl (16)"],
            Act::Thread | Act::Program => &[],
        }
    }
}

/// In the process that is to end: the act on a thread of that kind.
#[test]
fn as_a_confined_thread() {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let (kind, act) = wanted.split_once(' ').unwrap();
    let kind = Kind::ALL[kind.parse::<usize>().unwrap()];
    let act = ACTS[act.parse::<usize>().unwrap()];
    let confined = move || {
        Seccomp::On.confine(kind);
        act.carry_out();
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("the-confined".into()).spawn(confined).unwrap();
    let _ = thread.join();
}

fn perform(kind: Kind, act: Act) -> Output {
    let kind = Kind::ALL.iter().position(|other| *other == kind).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::tests::as_a_confined_thread", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{kind} {}", act as usize))
        .output()
        .unwrap()
}

fn is_refused(kind: Kind, act: Act) {
    let output = perform(kind, act);
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("trapline: ")).collect();
    let [line] = lines[..] else { panic!("{kind:?} {act:?}: {said}") };
    let call = act.calls().iter().find(|call| {
        let start = format!("trapline: the thread the-confined asked the kernel for {call}, ");
        line.starts_with(&start)
    });
    assert!(call.is_some() && line.contains(kind.plural()), "{kind:?} {act:?}: {said}");
    assert_eq!(output.status.code(), Some(1), "{kind:?} {act:?}");
}

#[test]
fn what_every_thread_does_is_allowed() {
    for kind in Kind::ALL {
        let output = perform(kind, Act::Live);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("alive with 67108864"), "{kind:?}: {said}");
    }
}

#[test]
fn a_call_that_is_refused_is_named_with_its_thread() {
    for kind in Kind::ALL {
        is_refused(kind, Act::Connect);
        is_refused(kind, Act::Ioctl);
        if kind != Kind::Main {
            is_refused(kind, Act::Open);
        }
    }
}

/// The C library blocks all signals while it starts a program or a thread, so that the kernel itself ends the process.
#[test]
fn no_thread_starts_a_program_and_few_a_thread() {
    for kind in Kind::ALL {
        assert!(!perform(kind, Act::Program).status.success(), "{kind:?}");
        assert_eq!(perform(kind, Act::Thread).status.success(), kind == Kind::Dma, "{kind:?}");
    }
}

#[test]
fn the_kinds_differ_where_they_should() {
    assert!(perform(Kind::Main, Act::Open).status.success(), "screenshots are files");
    assert!(perform(Kind::Interrupts, Act::Look).status.success(), "so is what the host counts");
    is_refused(Kind::Vcpu, Act::Look);
}

#[test]
fn every_table_is_a_program() {
    for kind in Kind::ALL {
        let program = program::of(kind, Seccomp::On).unwrap().unwrap();
        assert!(program.len() < 4096, "{kind:?}: {}", program.len());
        assert!(program::of(kind, Seccomp::Off).unwrap().is_none());
        let mut ioctls: Vec<u16> = calls::ioctls(kind).collect();
        ioctls.sort_unstable();
        assert!(!ioctls.is_empty());
    }
    assert_eq!(calls::ioctls(Kind::Vcpu).next(), Some(0xae80), "KVM_RUN is compared first");
}

#[test]
fn a_call_stands_with_a_condition_or_without() {
    for kind in Kind::ALL {
        for call in calls::of(kind) {
            let same = |other: &&calls::Call| other.number == call.number;
            let with = calls::of(kind).filter(same).filter(|other| other.condition.is_some()).count();
            let all = calls::of(kind).filter(same).count();
            assert!(with == 0 || with == all, "{kind:?}: {}", call.number.name());
        }
    }
}
