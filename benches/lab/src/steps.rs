//! One step of the test run: a command whose output goes to a file whole and to the screen shortened.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::Tally;

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
pub fn run(name: &str, command: Command, count: Count, logs: &Path) -> Result<Tally> {
    carry_out(name, command, count, logs, (&mut std::io::stderr(), watched(name)))
}

/// The same while something else runs that is looked at: what there is to be seen comes at the end, at once.
pub fn run_beside(name: &str, command: Command, count: Count, logs: &Path) -> Result<Tally> {
    let mut screen = Vec::new();
    let tally = carry_out(name, command, count, logs, (&mut screen, None));
    eprint!("{}", String::from_utf8_lossy(&screen));
    tally
}

/// The same, with what a reader of the run sees going to a screen, and to a line of progress.
fn carry_out(
    name: &str,
    mut command: Command,
    count: Count,
    logs: &Path,
    (screen, spinner): (&mut dyn Write, Option<ProgressBar>),
) -> Result<Tally> {
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
    report(name, time, tally, &output, &log, screen).context("nobody reads the messages")?;
    Ok(tally)
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

/// The step's closing line, and the end of its output if it failed.
fn report(
    name: &str,
    time: Duration,
    tally: Tally,
    output: &[String],
    log: &Path,
    screen: &mut dyn Write,
) -> std::io::Result<()> {
    if tally.failed > 0 {
        for line in &output[output.len().saturating_sub(SHOWN)..] {
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
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        // Not to the test's own output: a run that counts this test would count what it shows.
        let mut screen = std::io::sink();
        let tally = carry_out("a step", command, count, folder.path(), (&mut screen, None)).unwrap();
        let log = std::fs::read_to_string(folder.path().join("a-step.log")).unwrap();
        assert!(log.lines().count() > 0);
        tally
    }

    #[test]
    fn a_step_passes_by_its_exit_status() {
        assert_eq!(shell("echo fine", Count::Step), Tally::PASSED);
        assert_eq!(shell("echo no; exit 3", Count::Step), Tally::FAILED);
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
