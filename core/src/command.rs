//! The commands of the program, and its way out.
//!
//! | exit status | means |
//! |---|---|
//! | 0 | the guest switched itself off, or the user left the screen; help was asked for |
//! | 1 | the host failed: a file, a device, KVM; the firmware does not boot on the ROM (`trapline rom`) |
//! | 2 | an option or a configuration file cannot be used |
//! | 124 | the time of `--timeout` was over |
//! | 128 + N | signal N (SIGINT, SIGTERM, SIGHUP, SIGQUIT) ended the run, in good order |
//!
//! Whatever goes wrong is one line on standard error.

mod adapter;
mod bench;
mod bind;
mod devices;
mod lease;
mod log;
mod paragraph;
mod report;
mod rom;
mod run;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{AdapterOptions, ConfigError, Options};
use crate::host::binding::write::COMMAND as WRITE_SYSFS;
use crate::launch::lease::COMMAND as VGA_LEASE;

/// A virtual machine monitor that gives a guest a physical VGA adapter.
#[derive(Debug, Parser)]
#[command(name = "trapline", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a virtual machine
    Run(Box<RunArguments>),
    /// Serve the software VGA adapter over vfio-user
    Adapter(AdapterOptions),
    /// List this host's display adapters and what stands in the way of giving one to a guest
    Devices(devices::Arguments),
    /// Give functions, and what shares their IOMMU groups, to vfio-pci
    Bind(bind::Arguments),
    /// Give functions back to the host's drivers
    Unbind(bind::Arguments),
    /// Print what was seen to work in runs with --report, or write it to files
    Report(report::Arguments),
    /// Read, look at and put right the ROM of a card
    Rom(rom::Arguments),
    /// Measure what an access costs on this host
    Bench(bench::Arguments),
    /// Write to sysfs: what bind and unbind start, so that they can leave it behind if it hangs
    #[command(name = WRITE_SYSFS, hide = true)]
    WriteSysfs(bind::WriteArguments),
    /// Hold the host's VGA arbiter for a machine: what run starts, since who waits for it cannot be stopped
    #[command(name = VGA_LEASE, hide = true)]
    VgaLease(lease::Arguments),
}

/// What can be given to `trapline run`.
#[derive(Debug, clap::Args)]
struct RunArguments {
    #[command(flatten)]
    options: Options,

    /// A TOML file with these options, as in memory = "2G"; what is on the command line takes precedence
    #[arg(long, value_name = "FILE.toml")]
    config: Option<String>,
}

/// How a command ended when nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Success,
    /// A ROM is not good to boot with; that was said.
    Unfit,
    Timeout,
    Signal(u8),
}

/// Carries out the command line `arguments`, the program's name first, and returns the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Run(arguments) }) => {
            run::run(arguments.options, arguments.config.as_deref())
        }
        Ok(Cli { command: Command::Adapter(options) }) => adapter::adapter(options),
        Ok(Cli { command: Command::Devices(arguments) }) => devices::devices(&arguments),
        Ok(Cli { command: Command::Bind(arguments) }) => bind::bind(arguments),
        Ok(Cli { command: Command::Unbind(arguments) }) => bind::unbind(arguments),
        Ok(Cli { command: Command::Report(arguments) }) => report::report(&arguments),
        Ok(Cli { command: Command::Rom(arguments) }) => rom::rom(arguments),
        Ok(Cli { command: Command::Bench(arguments) }) => bench::bench(&arguments),
        Ok(Cli { command: Command::WriteSysfs(arguments) }) => {
            return ExitCode::from(bind::write(&arguments));
        }
        Ok(Cli { command: Command::VgaLease(arguments) }) => lease::keep(&arguments),
        Err(error) => return usage(&error),
    };
    match result {
        Ok(Status::Success) => ExitCode::SUCCESS,
        Ok(Status::Unfit) => ExitCode::FAILURE,
        Ok(Status::Timeout) => ExitCode::from(124),
        Ok(Status::Signal(number)) => ExitCode::from(number.saturating_add(128)),
        Err(error) => {
            say(&one_line(&error));
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// Prints one line to a person.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Standard error may be closed; there is no other place to say it.
    let _ = writeln!(std::io::stderr(), "trapline: {line}");
}

/// Prints a text on standard output.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it may have seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What is wrong with a command line, in one line; or the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // As above: a closed standard output is no failure of ours.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let problem = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
            if text.contains("trapline rom") =>
        {
            "rom is given no command; there are dump, check and fix".to_owned()
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command is given; there are run, adapter, devices, bind, unbind, rom, report and bench"
                .to_owned()
        }
        _ => {
            let first = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = first.split_whitespace().collect();
            let line = words.join(" ");
            line.strip_prefix("error: ").unwrap_or(&line).to_owned()
        }
    };
    say(&format!("{problem} (trapline --help, trapline COMMAND --help)"));
    ExitCode::from(2)
}

/// An error and its causes in one line, each said once, without the numbers of the host's errors.
fn one_line(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let said = cause.to_string();
        let text = match cause.downcast_ref::<std::io::Error>() {
            Some(cause) => crate::config::host_error(cause),
            None => said.clone(),
        };
        match causes.last_mut() {
            // The error names its cause itself.
            Some(last) if !said.is_empty() && last.contains(&said) => *last = last.replace(&said, &text),
            _ => causes.push(text),
        }
    }
    let text = causes.join(": ");
    // What comes behind the words of errors that are no `std::io::Error`, as KVM's.
    let mut pieces = text.split(" (os error ");
    let first = pieces.next().unwrap_or_default().to_owned();
    let text = pieces.fold(first, |text, piece| text + piece.split_once(')').map_or(piece, |(_, rest)| rest));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_chain_of_errors_is_one_line_without_numbers() {
        let cause = std::io::Error::from_raw_os_error(5);
        let error = Err::<(), _>(cause).context("disk a.img").context("two\nlines").unwrap_err();
        assert_eq!(one_line(&error), "two lines: disk a.img: input/output error");
    }

    #[test]
    fn a_cause_that_its_error_names_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("no thread: {0}; check the limits")]
        struct NoThread(#[source] std::io::Error);
        let error = NoThread(std::io::Error::from_raw_os_error(24));
        assert_eq!(one_line(&error.into()), "no thread: too many open files; check the limits");
        let error = anyhow::anyhow!("no vCPU: Bad address (os error 14), and no other");
        assert_eq!(one_line(&error), "no vCPU: Bad address, and no other");
    }
}
