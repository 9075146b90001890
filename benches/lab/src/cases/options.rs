//! What a user can get wrong: one clear line each, and the right exit status.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Bench, Case, Skipped};

pub const CASES: &[Case] = &[
    Case { name: "options: a bad option is one clear line", seconds: 60, kvm: false, run: bad_options },
    Case { name: "options: a bad disk is one clear line", seconds: 60, kvm: false, run: bad_disks },
    Case { name: "options: bad firmware is one clear line", seconds: 60, kvm: false, run: bad_firmware },
    Case { name: "options: a bad kernel is one clear line", seconds: 60, kvm: false, run: bad_kernel },
    Case { name: "options: no way to KVM is one clear line", seconds: 60, kvm: true, run: no_kvm },
    Case { name: "options: help names the commands", seconds: 10, kvm: false, run: help },
    Case { name: "options: the program is small", seconds: 10, kvm: false, run: program_size },
];

/// Exit status of wrong usage.
const USAGE: i32 = 2;

/// `trapline run` with `arguments` must end with one of `codes` and a single line that names `thing`.
fn one_line(bench: &Bench, arguments: &[&str], codes: &[i32], thing: &str) -> Result<()> {
    let all: Vec<&str> =
        ["run", "--screen", "none", "--timeout", "20"].iter().chain(arguments).copied().collect();
    let ended = bench.trapline_ends(&all)?;
    let said = ended.errors.trim();
    ensure!(codes.contains(&ended.code()), "{arguments:?}: status {} and: {said}", ended.code());
    ensure!(said.lines().count() == 1, "{arguments:?}: not one line: {said}");
    ensure!(said.contains(thing), "{arguments:?}: no word of {thing}: {said}");
    for odd in ["panicked", "backtrace", "Error {", "os error"] {
        ensure!(!said.contains(odd), "{arguments:?}: not for a person ({odd}): {said}");
    }
    Ok(())
}

fn bad_options(bench: &Bench) -> Result<()> {
    one_line(bench, &["--memory", "3"], &[USAGE], "memory")?;
    one_line(bench, &["--memory", "much"], &[USAGE], "memory")?;
    one_line(bench, &["--cpus", "0"], &[USAGE], "cpus")?;
    one_line(bench, &["--device", "nonsense"], &[USAGE], "nonsense")?;
    one_line(bench, &["--keys", "<nokey>"], &[USAGE], "nokey")?;
    let unknown = bench.trapline_ends(&["run", "--nonsense"])?;
    unknown.expect(USAGE)?;
    ensure!(unknown.errors.contains("--nonsense"), "{}", unknown.errors);
    Ok(())
}

fn bad_disks(bench: &Bench) -> Result<()> {
    bench.write("empty.img", &[])?;
    std::fs::create_dir(bench.file("folder.img")).context("no folder")?;
    for name in ["missing.img", "empty.img", "folder.img"] {
        one_line(bench, &["--disk", name], &[1, USAGE], name)?;
    }
    Ok(())
}

fn bad_firmware(bench: &Bench) -> Result<()> {
    bench.write("odd.bin", &[1; 1000])?;
    bench.write("blank.bin", &[0; 65536])?;
    for name in ["missing.bin", "odd.bin", "blank.bin"] {
        one_line(bench, &["--firmware", name], &[1, USAGE], name)?;
    }
    Ok(())
}

fn bad_kernel(bench: &Bench) -> Result<()> {
    bench.write("text.img", &[b'x'; 4096])?;
    for name in ["missing.img", "text.img"] {
        one_line(bench, &["--kernel", name], &[1, USAGE], name)?;
    }
    Ok(())
}

/// A user that may not open /dev/kvm.
const NOBODY: u32 = 65534;

fn no_kvm(bench: &Bench) -> Result<()> {
    let mode = std::fs::metadata("/dev/kvm").context("no /dev/kvm")?.permissions().mode();
    if !rustix::process::geteuid().is_root() || mode & 0o006 != 0 {
        bail!(Skipped("only root can become a user that may not open /dev/kvm"));
    }
    // The program may lie where nobody may look.
    let folder =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().context("no folder")?;
    let program = folder.path().join("trapline");
    std::fs::copy(bench.trapline(), &program).context("cannot copy the program")?;
    let mut command = Command::new(&program);
    command.args(["run", "--screen", "none", "--timeout", "5"]).current_dir("/").uid(NOBODY).gid(NOBODY);
    let ended = bench.ends(command)?;
    let said = ended.errors.trim();
    ended.expect(1)?;
    ensure!(said.lines().count() == 1 && said.contains("/dev/kvm"), "it said: {said}");
    Ok(())
}

fn help(bench: &Bench) -> Result<()> {
    let ended = bench.trapline_ends(&["--help"])?;
    ended.expect(0)?;
    for command in ["run", "adapter"] {
        ensure!(ended.output.contains(command), "no word of {command}: {}", ended.output);
    }
    Ok(())
}

fn program_size(bench: &Bench) -> Result<()> {
    let size = std::fs::metadata(bench.trapline()).context("no program")?.len();
    ensure!(size < 8 << 20, "the program has {size} bytes, and less than 8 MiB is wanted");
    Ok(())
}
