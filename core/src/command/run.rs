//! `trapline run`: the life of a run.
//!
//! 1. Options are checked, the places of the files to be written are looked at.
//! 2. Signals are taken over; the machine is built and started.
//! 3. The run is watched, with or without a live view, until something ends it ([`End`]).
//! 4. The screen is kept, the terminal given back, the machine stopped and taken apart.
//! 5. `--screenshot` and `--screen-text` are written, once, as the screen was in 4: after a power-off, a time-out, a
//!    signal, a failure and when the user left alike.

mod outputs;
#[cfg(test)]
mod tests;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::outputs::Outputs;
use self::watch::Watch;
use super::log::Log;
use super::signals::EndingSignals;
use super::{Status, one_line, say};
use crate::config::{Options, RunConfig};
use crate::guest::{End, Ends, Guest};
use crate::host::{Host, Tree};
use crate::report::account;
use crate::sandbox::Kind;
use crate::screen::text::Snapshot;

/// Carries out `trapline run`.
pub(super) fn run(options: Options, file: Option<&str>) -> anyhow::Result<Status> {
    let config = RunConfig::load(options, file)?;
    config.seccomp.prepare();
    let log = super::log::start();
    open_as_many_files_as_there_may_be();
    live(&config, &log, |ends| crate::launch::launch(&config, ends))
}

/// A guest's driver may enable 2048 vectors of each function, and each has an eventfd: the usual limit is for programs
/// that use `select`.
fn open_as_many_files_as_there_may_be() {
    let most = getrlimit(Resource::Nofile).maximum;
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }) {
        tracing::debug!(%errno, "the limit of open files stays");
    }
}

/// The life of a run of the machine that `build` starts.
fn live(
    config: &RunConfig,
    log: &Log,
    build: impl FnOnce(Ends) -> anyhow::Result<Box<dyn Guest>>,
) -> anyhow::Result<Status> {
    let mut outputs = Outputs::check(config)?;
    let (ends, ended) = Ends::channel();
    let told = ends.clone();
    let signals = EndingSignals::confined(config.seccomp, move |signal| told.report(End::Signal(signal)))
        .context("signals cannot be taken over")?;

    let mut guest = build(ends)?;
    // What this thread starts has its own filters; it starts nothing any more.
    config.seccomp.confine(Kind::Main);
    let mut watch = Watch::new(config, ended, Instant::now());
    let watched = watch.until_the_end(guest.as_mut(), log);
    guest.end();
    let screen = guest.screen();
    let snapshot = Snapshot { text: screen.text(), frame: screen.frame() };
    let accounts = guest.accounts();
    let stopped = guest.stop();
    let written = outputs.write(&snapshot);
    let in_order = !matches!(watched, Ok(End::Failed(_)) | Err(_)) && stopped.is_ok();
    let end = (ended_words(&watched), in_order);
    let reported = outputs.report(|| account::run(config, end, &accounts, &Host::read(Tree::host())));
    drop(signals);

    // What ended the run comes first; what went wrong behind it is said too.
    let mut status = watched.and_then(|end| conclude(end, config.timeout, watch.awaited()));
    for problem in [stopped, written, reported].into_iter().filter_map(Result::err) {
        match &status {
            Ok(_) => status = Err(problem),
            Err(_) => say(&one_line(&problem)),
        }
    }
    status
}

/// How the run ended, without what a message may name.
fn ended_words(end: &anyhow::Result<End>) -> &'static str {
    match end {
        Ok(End::PowerOff) => "the guest switched itself off",
        Ok(End::Left) => "the user left the screen",
        Ok(End::Timeout) => "its time was over",
        Ok(End::Signal(_)) => "it was asked to end by a signal",
        Ok(End::Failed(_)) | Err(_) => "it failed",
    }
}

/// What the end of the run means for the exit status.
fn conclude(end: End, timeout: Option<Duration>, awaited: Option<&str>) -> anyhow::Result<Status> {
    if let Some(wanted) = awaited {
        say(&format!("--keys: the run ended while it waited for {wanted:?} on the screen"));
    }
    match end {
        End::PowerOff | End::Left => Ok(Status::Success),
        End::Failed(text) => Err(anyhow!(text)),
        End::Timeout => {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            say(&format!("the guest was still running after {seconds} s (--timeout) and was stopped"));
            Ok(Status::Timeout)
        }
        End::Signal(number) => Ok(Status::Signal(number)),
    }
}
