//! One step of the test run: a command whose output goes to a file whole and to the screen shortened.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::{Outcome, Tally};

/// How many lines of a failed step are shown.
const SHOWN: usize = 80;

/// How a step's output becomes counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The step is one test: it passes if the command succeeds.
    Step,
    /// The same, and no line may be a warning.
    WithoutWarnings,
    /// The command is `cargo test`: its own counts are taken.
    Tests,
}

/// Runs `command` as the step `name`, with all its output in `logs`/`name`.log.
///
/// Blocks until it ended; a person at the terminal sees the latest line.
pub fn run(name: &str, command: Command, count: Count, logs: &Path) -> Result<Outcome> {
    carry_out(name, command, count, logs, (&mut std::io::stderr(), watched(name)))
}

/// The same while something else runs that is looked at: what there is to be seen comes at the end, at once.
pub fn run_beside(name: &str, command: Command, count: Count, logs: &Path) -> Result<Outcome> {
    let mut screen = Vec::new();
    let outcome = carry_out(name, command, count, logs, (&mut screen, None));
    eprint!("{}", String::from_utf8_lossy(&screen));
    outcome
}

/// The same, with what a reader of the run sees going to a screen, and to a line of progress.
fn carry_out(
    name: &str,
    mut command: Command,
    count: Count,
    logs: &Path,
    (screen, spinner): (&mut dyn Write, Option<ProgressBar>),
) -> Result<Outcome> {
    let start = Instant::now();
    let log = logs.join(format!("{}.log", name.replace(' ', "-")));
    let mut file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let (sender, lines) = channel();
    follow(child.stdout.take(), sender.clone());
    follow(child.stderr.take(), sender);
    let output = collect(&lines, &mut file, screen, spinner)?;
    let success = child.wait().context("the command is lost")?.success();
    let tally = match count {
        Count::Step if success => Tally::PASSED,
        Count::WithoutWarnings if success && !output.iter().any(|line| is_warning(line)) => Tally::PASSED,
        Count::Step | Count::WithoutWarnings => Tally::FAILED,
        Count::Tests => Tally::of_output(output.iter().map(String::as_str), success),
    };
    let time = start.elapsed();
    let told = if tally.failed > 0 { what_failed(count, &output) } else { Vec::new() };
    report(name, time, tally, &told, &log, screen).context("nobody reads the messages")?;
    Ok(Outcome { tally, failure: told.join("\n") })
}

fn is_warning(line: &str) -> bool {
    line.starts_with("warning:") || line.starts_with("warning[")
}

/// Sends each line of `stream` until it ends. Two of these end with the command, as its output does.
fn follow(stream: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
}

/// Takes all lines: to the file, to the screen shortened, and back.
fn collect(
    lines: &Receiver<String>,
    file: &mut File,
    screen: &mut dyn Write,
    spinner: Option<ProgressBar>,
) -> Result<Vec<String>> {
    let mut output = Vec::new();
    for line in lines {
        writeln!(file, "{line}").context("cannot write the log")?;
        if let Some(spinner) = &spinner {
            spinner.set_message(line.chars().take(60).collect::<String>());
        }
        if is_milestone(&line) {
            let mut show = || writeln!(screen, "  {}", line.trim());
            match &spinner {
                Some(spinner) => spinner.suspend(show),
                None => show(),
            }
            .context("nobody reads the messages")?;
        }
        output.push(line);
    }
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    Ok(output)
}

/// A line of progress for a person; `None` where nobody looks.
pub fn watched(name: &str) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}");
        let spinner = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
            .with_prefix(name.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(200));
        spinner
    })
}

/// The lines that are worth a reader's time while a step runs.
fn is_milestone(line: &str) -> bool {
    let line = line.trim_start();
    let counted = line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed");
    counted || line.starts_with("skipped: ") || line.ends_with("... FAILED")
}

/// The part of a failed step's output that says what is wrong: what failed tests printed, or what follows the first
/// error of a compiler, or else the end.
fn what_failed(count: Count, output: &[String]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut is_failure = false;
    for line in output {
        match count {
            // A test program tells what each failed test printed, then their names, then its result.
            Count::Tests => {
                is_failure = line == "failures:" || is_failure && !line.starts_with("test result:")
            }
            Count::Step | Count::WithoutWarnings => is_failure |= line.starts_with("error"),
        }
        if is_failure {
            told.push(line.clone());
        }
    }
    if told.is_empty() {
        told = output.to_vec();
        told.drain(..told.len().saturating_sub(SHOWN));
    }
    told.retain(|line| !line.trim().is_empty() && line != "failures:");
    told.truncate(SHOWN);
    told
}

/// The step's closing line, and what is wrong if it failed.
fn report(
    name: &str,
    time: Duration,
    tally: Tally,
    told: &[String],
    log: &Path,
    screen: &mut dyn Write,
) -> std::io::Result<()> {
    if tally.failed > 0 {
        for line in told {
            writeln!(screen, "  | {line}")?;
        }
        writeln!(screen, "  | the whole output: {}", log.display())?;
    }
    let verdict = if tally.failed > 0 { "FAILED" } else { "ok" };
    writeln!(screen, "{name}: {verdict} ({tally}; {:.0} s)", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, count: Count) -> Tally {
        told(script, count).tally
    }

    fn told(script: &str, count: Count) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        // Not to the test's own output: a run that counts this test would count what it shows.
        let mut screen = std::io::sink();
        let outcome = carry_out("a step", command, count, folder.path(), (&mut screen, None)).unwrap();
        let log = std::fs::read_to_string(folder.path().join("a-step.log")).unwrap();
        assert!(log.lines().count() > 0);
        outcome
    }

    #[test]
    fn a_step_passes_by_its_exit_status() {
        assert_eq!(shell("echo fine", Count::Step), Tally::PASSED);
        assert_eq!(shell("echo no; exit 3", Count::Step), Tally::FAILED);
    }

    #[test]
    fn what_failed_tests_printed_is_told() {
        let output = "test a ... FAILED\nfailures:\n---- a stdout ----\nas expected: no\n\nfailures:\n    a\n\n\
                      test result: FAILED. 0 passed; 1 failed; 0 ignored;\nrunning 1 test\nsuccesses:";
        let outcome = told(&format!("printf '%s\n' '{output}'; exit 101"), Count::Tests);
        assert_eq!(outcome.tally, Tally::FAILED);
        assert_eq!(outcome.failure, "---- a stdout ----\nas expected: no\n    a");
        assert_eq!(told("echo one; echo two; exit 1", Count::Step).failure, "one\ntwo");
    }

    #[test]
    fn a_warning_fails_where_none_may_be() {
        assert_eq!(shell("echo 'warning: odd' >&2", Count::WithoutWarnings), Tally::FAILED);
        assert_eq!(shell("echo 'no warning: here'", Count::WithoutWarnings), Tally::PASSED);
    }

    #[test]
    fn the_counts_of_tests_come_from_both_streams() {
        let script =
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored;'; echo 'skipped: no such thing' >&2";
        assert_eq!(shell(script, Count::Tests), Tally { passed: 1, failed: 0, skipped: 1 });
    }
}
