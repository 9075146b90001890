//! Each kind in a process of its own, since a filter that refuses ends one: this test program again, with what is to be
//! done in a variable.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level;
use syscalls::Sysno;

use super::*;

/// Says what the process is to do: the number of a kind, an [`Act`], and a call that is refused whatever the kind may.
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
    /// Takes a signal, whose handler sends to a socket.
    Signal,
    /// Sends to somebody whom its socket is not connected to.
    SendTo,
    /// Reads its limit of locked memory.
    Limit,
    /// Reads another limit.
    OtherLimit,
    /// Sets its limit of locked memory.
    SetLimit,
}

const ACTS: [Act; 12] = [
    Act::Live,
    Act::Open,
    Act::Look,
    Act::Connect,
    Act::Ioctl,
    Act::Thread,
    Act::Program,
    Act::Signal,
    Act::SendTo,
    Act::Limit,
    Act::OtherLimit,
    Act::SetLimit,
];

/// Whoever maps memory for DMA.
const MAPS: [Kind; 6] = [Kind::Vcpu, Kind::Worker, Kind::Window, Kind::Dma, Kind::Machine, Kind::Main];

/// Whether it succeeds does not matter: it is refused, or let through.
fn ignore<T>(_: T) {}

impl Act {
    /// Opens what the act needs, and gives what is to be done confined.
    fn prepare(self) -> Box<dyn FnOnce() + Send> {
        match self {
            Act::Live => Box::new(|| {
                let big = vec![1_u8; 64 << 20];
                std::thread::sleep(std::time::Duration::from_millis(1));
                assert!(rustix::param::page_size() > 0);
                eprintln!("alive with {}", big.len());
            }),
            Act::Open => Box::new(|| ignore(File::options().write(true).open("/dev/null"))),
            Act::Look => Box::new(|| ignore(File::open("/dev/null"))),
            Act::Connect => Box::new(|| ignore(std::net::TcpListener::bind("127.0.0.1:0"))),
            Act::Ioctl => Box::new(|| ignore(rustix::io::ioctl_fionread(std::io::stdin()))),
            Act::Thread => Box::new(|| ignore(std::thread::spawn(|| ()).join())),
            Act::Program => Box::new(|| ignore(Command::new("true").status())),
            Act::Signal => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                low_level::pipe::register(SIGTERM, theirs).unwrap();
                let mut ours = File::from(OwnedFd::from(ours));
                Box::new(move || {
                    low_level::raise(SIGTERM).unwrap();
                    ours.read_exact(&mut [0]).unwrap();
                })
            }
            Act::SendTo => {
                let socket = UnixDatagram::unbound().unwrap();
                Box::new(move || ignore(socket.send_to(b"x", "/nowhere")))
            }
            Act::Limit => Box::new(|| ignore(getrlimit(Resource::Memlock))),
            Act::OtherLimit => Box::new(|| ignore(getrlimit(Resource::Nofile))),
            Act::SetLimit => {
                let none = Rlimit { current: Some(0), maximum: Some(0) };
                Box::new(move || ignore(setrlimit(Resource::Memlock, none)))
            }
        }
    }

    /// The calls that a kind is refused over, whatever the C library.
    fn calls(self) -> &'static [&'static str] {
        match self {
            Act::Live => &[],
            Act::Open | Act::Look => &["openat (257)", "open (2)"],
            Act::Connect => &["socket (41)"],
            Act::Ioctl => &["ioctl (16)"],
            Act::Signal | Act::SendTo => &["sendto (44)"],
            Act::Limit | Act::OtherLimit | Act::SetLimit => &["prlimit64 (302)"],
            Act::Thread | Act::Program => &[],
        }
    }
}

/// In the process that is to end: the act on a thread of that kind.
#[test]
fn as_a_confined_thread() {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let wanted: Vec<i32> = wanted.split(' ').map(|number| number.parse().unwrap()).collect();
    let [kind, act, without] = wanted[..] else { panic!("{wanted:?}") };
    let kind = Kind::ALL[usize::try_from(kind).unwrap()];
    let act = ACTS[usize::try_from(act).unwrap()].prepare();
    let confined = move || {
        if without >= 0 {
            refused::install(kind, &refusing(without)).unwrap();
        }
        Seccomp::On.confine(kind);
        act();
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("the-confined".into()).spawn(confined).unwrap();
    let _ = thread.join();
}

/// A filter that refuses one call, and nothing else.
fn refusing(call: i32) -> seccompiler::BpfProgram {
    let rules = BTreeMap::from([(call.into(), Vec::new())]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trap, TargetArch::x86_64);
    filter.unwrap().try_into().unwrap()
}

fn perform(kind: Kind, act: Act, without: Option<Sysno>) -> Output {
    let kind = Kind::ALL.iter().position(|other| *other == kind).unwrap();
    let without = without.map_or(-1, |call| call.id());
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::tests::as_a_confined_thread", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{kind} {} {without}", act as usize))
        .output()
        .unwrap()
}

fn is_allowed(kind: Kind, act: Act) {
    let output = perform(kind, act, None);
    assert!(output.status.success(), "{kind:?} {act:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_refused(kind: Kind, act: Act) {
    is_refused_without(kind, act, None);
}

/// The same where this call is refused in any case.
fn is_refused_without(kind: Kind, act: Act, without: Option<Sysno>) {
    let output = perform(kind, act, without);
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
        let output = perform(kind, Act::Live, None);
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
        assert!(!perform(kind, Act::Program, None).status.success(), "{kind:?}");
        assert_eq!(perform(kind, Act::Thread, None).status.success(), kind == Kind::Dma, "{kind:?}");
    }
}

#[test]
fn the_kinds_differ_where_they_should() {
    // Screenshots are files, and so is what the host counts.
    is_allowed(Kind::Main, Act::Open);
    is_allowed(Kind::Interrupts, Act::Look);
    is_refused(Kind::Vcpu, Act::Look);
}

/// A signal comes on whichever thread the kernel chooses, and its handler tells another one by a socket.
#[test]
fn every_thread_of_a_run_may_take_a_signal_and_send_to_nobody_else() {
    for kind in Kind::ALL {
        is_refused(kind, Act::SendTo);
        if kind == Kind::Lease {
            is_refused(kind, Act::Signal);
        } else {
            is_allowed(kind, Act::Signal);
            is_refused_without(kind, Act::Signal, Some(Sysno::sendto));
        }
    }
}

#[test]
fn whoever_maps_memory_may_read_the_limit_of_it_and_set_none() {
    for kind in Kind::ALL {
        is_refused(kind, Act::OtherLimit);
        is_refused(kind, Act::SetLimit);
        if MAPS.contains(&kind) {
            is_allowed(kind, Act::Limit);
            is_refused_without(kind, Act::Limit, Some(Sysno::prlimit64));
        } else {
            is_refused(kind, Act::Limit);
        }
    }
}

#[test]
fn every_table_is_a_program() {
    for kind in Kind::ALL {
        let program = program::of(kind, Seccomp::On).unwrap().unwrap();
        assert!(program.len() < 4096, "{kind:?}: {}", program.len());
        assert!(program::of(kind, Seccomp::Off).unwrap().is_none());
        let mut ioctls: Vec<u16> = calls::ioctls(kind).collect();
        ioctls.sort_unstable();
        assert_eq!(ioctls.is_empty(), kind == Kind::Lease);
    }
    assert_eq!(calls::ioctls(Kind::Vcpu).next(), Some(0xae80), "KVM_RUN is compared first");
}

#[test]
fn a_call_stands_with_a_condition_or_without() {
    for kind in Kind::ALL {
        for call in calls::of(kind) {
            let same = |other: &&calls::Call| other.number == call.number;
            let with = calls::of(kind).filter(same).filter(|other| !other.conditions.is_empty()).count();
            let all = calls::of(kind).filter(same).count();
            assert!(with == 0 || with == all, "{kind:?}: {}", call.number.name());
        }
    }
}
