//! The program from outside: what it says to bad options, and with which exit status it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn trapline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trapline"))
        .args(arguments)
        .env_remove("TRAPLINE_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// The one line on standard error of a call that must fail with `status`.
fn line_of(arguments: &[&str], status: i32) -> String {
    let output = trapline(arguments);
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    assert_eq!(text.matches('\n').count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(!text.contains("os error"), "{arguments:?}: {text}");
    let line = text.trim_end().strip_prefix("trapline: ").expect("a line says who speaks");
    line.to_owned()
}

#[test]
fn bad_usage_is_one_line_and_status_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "no command is given; there are run, adapter, devices, bind, unbind, rom, report and bench"),
        (&["rom"], "rom is given no command; there are dump, check and fix"),
        (&["walk"], "unrecognized subcommand 'walk'"),
        (&["bench", "--only", "scrol"], "--only scrol: there is no such case; there are nop, exit, port-in"),
        (&["bench", "--device", "none"], "--device none: there is nothing to measure; give null"),
        (&["bench", "--all", "--io", "uring"], "the argument '--all' cannot be used with '--io <IO>'"),
        (&["help"], "unrecognized subcommand 'help'"),
        (&["run", "--track", "x"], "unexpected argument '--track' found"),
        (&["run", "--trace-filter", "bar=0"], "--trace-filter: is for a trace; give --trace FILE too"),
        (&["run", "disk.img"], "unexpected argument 'disk.img' found"),
        (&["run", "--memory"], "a value is required for '--memory <SIZE>' but none was supplied"),
        (&["run", "--cpus", "1", "--cpus", "2"], "the argument '--cpus <N>' cannot be used multiple times"),
        (&["run", "--memory", "3"], "--memory 3: 3 bytes is less than the least guest memory, 16 MiB"),
        (
            &["run", "--device", "nonsense"],
            "--device nonsense: nonsense is no device; give the PCI address of a function of this host",
        ),
        (&["run", "--device", "01:00.9"], "--device 01:00.9: \"01:00.9\" is no PCI address"),
        (&["run", "--hugepages=3M"], "--hugepages 3M: not a size of huge pages; give 2M or 1G"),
        (
            &["run", "--device", "01:00.0", "--screenshot", "/tmp/x.png"],
            "--screenshot: the screen is the assigned card's own, which trapline cannot see",
        ),
        (&["run", "--window", "lax"], "--window lax: not known; give strict, coalesced, shadowed or auto"),
        (&["run", "--append", "-x"], "--append: is for a kernel"),
        (&["run", "--keys", "<nokey>"], "--keys <nokey>: <nokey> is no key"),
        (&["run", "--config", "/nonexistent.toml"], "--config /nonexistent.toml: there is no such file"),
        (&["run", "--config", "/"], "--config /: this is a directory"),
        (&["run", "--config", "/bin/true"], "--config /bin/true: this is not UTF-8 text"),
        (&["adapter"], "the following required arguments were not provided: --socket <PATH>"),
        (&["adapter", "--socket", ""], "a value is required for '--socket <PATH>' but none was supplied"),
    ];
    for (arguments, start) in cases {
        let line = line_of(arguments, 2);
        assert!(line.starts_with(start), "{arguments:?}: {line}");
    }
}

#[test]
fn a_key_of_the_file_that_is_no_option_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.toml");
    std::fs::write(&file, "memory = '1G'\nmemroy = '2G'\n").unwrap();
    let line = line_of(&["run", "--config", file.to_str().unwrap()], 2);
    assert!(line.contains("vm.toml: line 2: unknown field `memroy`"), "{line}");
    std::fs::write(&file, "memory = 5").unwrap();
    let line = line_of(&["run", "--config", file.to_str().unwrap()], 2);
    assert!(line.contains("vm.toml: memory = 5: 5 bytes is less"), "{line}");
}

#[test]
fn outputs_that_can_not_be_written_are_found_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let line = line_of(&["run", "--screenshot", &path("no/a.png")], 1);
    assert!(line.contains("/no/a.png: there is no directory"), "{line}");
    let line = line_of(&["run", "--screen-text", &path("")], 1);
    assert!(line.ends_with("this is a directory; name a file in it"), "{line}");
    assert!(!Path::new(&path("no")).exists());
}

/// A call whose standard output is on a full disk, and its standard error too if there is no other place for it.
fn on_full_disks(arguments: &[&str], log: &str, errors: Option<Stdio>) -> Output {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there is /dev/full");
    let program = Command::new(env!("CARGO_BIN_EXE_trapline"))
        .args(arguments)
        .env("TRAPLINE_LOG", log)
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(errors.unwrap_or_else(|| full().into()))
        .spawn()
        .expect("the program starts");
    program.wait_with_output().expect("the program ends")
}

#[test]
fn a_rom_that_does_not_reach_standard_output_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("card.rom");
    let file = file.to_str().unwrap();
    // One image without a byte that ends a line, so that all of it may wait for the end.
    let mut rom = vec![0; 512];
    rom[..6].copy_from_slice(&[0x55, 0xaa, 1, 0xe9, 0x80, 0]);
    rom[0x18] = 0x1c;
    rom[0x1c..0x24].copy_from_slice(&[b'P', b'C', b'I', b'R', 0xde, 0x10, 0x80, 0x1b]);
    (rom[0x26], rom[0x2b], rom[0x2c], rom[0x31]) = (0x18, 3, 1, 0x80);
    rom[511] = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    assert!(!rom.contains(&b'\n'));
    std::fs::write(file, &rom).unwrap();
    for command in ["dump", "fix"] {
        let all = trapline(&["rom", command, file, "-"]);
        assert_eq!((all.status.code(), all.stdout.len()), (Some(0), 512), "{command}");
        let output = on_full_disks(&["rom", command, file, "-"], "warn", Some(Stdio::piped()));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert_eq!(text, "trapline: standard output: no space left on device\n", "{command}");
    }
}

#[test]
fn a_log_that_can_not_be_written_does_not_end_the_program() {
    // A choice of lines that is none is logged; then the run fails for a reason of its own.
    let output = on_full_disks(&["run", "--screenshot", "/nonexistent/a.png"], "a=bogus", None);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["adapter", "--help"]] {
        let output = trapline(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}
