//! The threads of the real program, each made to ask the kernel for what it has no use for: it stands on a `syscall`
//! instruction that somebody else chose, as it would for an attacker. Needs /dev/kvm and ptrace.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use trapline_devices::vfio::Lease;
use trapline_devices::vfio::arbiter::Arbiter;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// `socket`, which nobody has a use for any more when the guest runs.
const SOCKET: u64 = 41;

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Firmware that halts for ever.
fn firmware(folder: &Path) {
    let mut image = vec![0_u8; 0x1_0000];
    image[..4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]); // cli; back: hlt; jmp back
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    fs::write(folder.join("firmware"), image).unwrap();
}

/// A machine with every thread that a host without a card can have.
fn machine(folder: &Path) -> Running {
    let words =
        ["run", "--firmware", "firmware", "--serial", "stdio", "--trace", "t.json", "--screen", "none"];
    let errors = fs::File::create(folder.join("errors")).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_trapline"))
        .args(words)
        .current_dir(folder)
        .env_remove("TRAPLINE_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    Running(program.unwrap())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The thread of a process with this name, once all of its process are confined.
fn confined(process: u32, name: &str) -> Option<Pid> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten().map(|task| task.path());
    let mut found = None;
    for task in tasks {
        let comm = text(&task.join("comm"));
        // The kernel's own, for io_uring and for KVM.
        if ["iou-", "kvm-"].iter().any(|own| comm.starts_with(own)) {
            continue;
        }
        if !text(&task.join("status")).contains("\nSeccomp:\t2\n") {
            return None;
        }
        if comm.trim_end() == name {
            found = task.file_name()?.to_str()?.parse().ok().map(Pid::from_raw);
        }
    }
    found
}

/// Waits until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where a process has a `syscall` instruction.
fn instruction(process: u32) -> u64 {
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = text(Path::new(&format!("/proc/{process}/maps")));
    let code = maps.lines().filter(|line| line.contains(" r-xp "));
    let mut found = code.filter_map(|line| {
        let (first, last) = line.split_once(' ')?.0.split_once('-')?;
        let [first, last] = [first, last].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(last - first).unwrap()];
        memory.read_exact_at(&mut bytes, first).ok()?;
        let at = bytes.windows(2).position(|pair| pair == [0x0f, 0x05])?;
        Some(first + at as u64)
    });
    found.next().expect("a program asks the kernel for something")
}

/// Has a thread ask the kernel for a socket.
fn ask(process: u32, thread: Pid) {
    ptrace::attach(thread).unwrap();
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    let mut registers = ptrace::getregs(thread).unwrap();
    // No call that was interrupted is begun again.
    registers.orig_rax = u64::MAX;
    (registers.rip, registers.rax) = (instruction(process), SOCKET);
    ptrace::setregs(thread, registers).unwrap();
    ptrace::detach(thread, None).unwrap();
}

fn line(thread: &str, who: &str) -> String {
    format!("trapline: the thread {thread} asked the kernel for socket (41), which {who} have no use for: ")
}

#[test]
fn every_thread_of_a_run_ends_it_with_a_line_that_names_thread_and_call() {
    for (thread, comm, who) in [
        ("main", "trapline", "main threads"),
        ("vcpu0", "vcpu0", "vCPU threads"),
        ("worker", "worker", "workers"),
        ("adapter0", "adapter0", "workers"),
        ("vga", "vga", "clocks of a window"),
        ("trace", "trace", "writers of a trace"),
        ("machine", "machine", "machines' threads"),
        ("signals", "signals", "signal threads"),
        ("serial-input", "serial-input", "readers of a serial line"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        firmware(folder.path());
        let mut machine = machine(folder.path());
        let process = machine.0.id();
        ask(process, until(thread, || confined(process, comm)));
        let status = until(thread, || machine.0.try_wait().unwrap());
        let said = text(&folder.path().join("errors"));
        assert!(said.lines().any(|said| said.starts_with(&line(thread, who))), "{thread}: {said}");
        assert_eq!(status.code(), Some(1), "{thread}: {said}");
    }
}

#[test]
fn so_does_the_adapter_s_process() {
    let folder = tempfile::tempdir().unwrap();
    firmware(folder.path());
    let machine = machine(folder.path());
    let children = format!("/proc/{0}/task/{0}/children", machine.0.id());
    let adapter = until("the adapter", || text(Path::new(&children)).trim().parse().ok());
    ask(adapter, until("its thread", || confined(adapter, "trapline")));
    let errors = folder.path().join("errors");
    let wanted = line("main", "software adapters");
    until("its line", || text(&errors).lines().any(|said| said.starts_with(&wanted)).then_some(()));
}

/// The process that holds the host's VGA arbiter; a file takes what it says to that.
#[test]
fn and_the_one_that_holds_a_lease() {
    let folder = tempfile::tempdir().unwrap();
    let (node, errors) = (folder.path().join("arbiter"), folder.path().join("errors"));
    let card = "0000:01:00.0";
    let start = |seccomp: &str| {
        fs::write(&node, "").unwrap();
        let mut keeper = Command::new(env!("CARGO_BIN_EXE_trapline"));
        keeper.args(["vga-lease", card, "--seccomp", seccomp]).stderr(fs::File::create(&errors).unwrap());
        Lease::start(keeper, Arbiter::open(&node, card.parse().unwrap()).unwrap()).unwrap()
    };
    let lease = start("on");
    until("a thread", || confined(lease.process(), "trapline"));
    lease.used();
    until("the ranges are given up", || text(&node).contains("unlock io+mem").then_some(()));
    drop(lease);
    assert_eq!(text(&errors), "", "it lives and ends with what it may ask for");

    let lease = start("on");
    ask(lease.process(), until("a thread", || confined(lease.process(), "trapline")));
    let wanted = line("main", "holders of a lease");
    until("its line", || text(&errors).starts_with(&wanted).then_some(()));

    let lease = start("off");
    let status = format!("/proc/{0}/status", lease.process());
    lease.used();
    until("it works", || text(&node).contains("unlock io+mem").then_some(()));
    assert!(text(Path::new(&status)).contains("\nSeccomp:\t0\n"));
}

/// Each vector that a guest's driver enables has a descriptor, and the usual limit is lower than there may be vectors.
#[test]
fn a_run_may_open_as_many_files_as_the_system_lets_it() {
    let folder = tempfile::tempdir().unwrap();
    firmware(folder.path());
    let machine = machine(folder.path());
    until("the machine", || confined(machine.0.id(), "vcpu0"));
    let limits = text(Path::new(&format!("/proc/{}/limits", machine.0.id())));
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().take(2).collect();
    assert_eq!(files[0], files[1], "{limits}");
}
