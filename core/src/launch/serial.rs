//! The serial line's ends on the host.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::uart::Input;

use crate::config::{Seccomp, Serial};
use crate::sandbox::Kind;

/// Where the line's output goes; no line at all for [`Serial::None`].
pub(super) fn output(serial: &Serial) -> Result<Option<Output>> {
    Ok(match serial {
        Serial::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
            Some(Output::descriptor(stdout))
        }
        Serial::File(path) => Some(to_file("serial", path)?),
        Serial::None => None,
    })
}

/// The file that `option` names, for what a text device says. It may be a pipe or a terminal, which can
/// stop taking: then the guest is held up for a moment only, and the run can end.
pub(super) fn to_file(option: &str, path: &Path) -> Result<Output> {
    let file = File::create(path).map_err(|error| {
        // A file that is not there is made; only its directory can be missing.
        match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(folder)) => {
                anyhow!("there is no directory {}; create it first", folder.display())
            }
            _ => error.into(),
        }
    });
    let file = file.with_context(|| format!("--{option} {}", path.display()))?;
    Ok(Output::descriptor(file.into()))
}

/// Takes standard input to the line until it ends. The thread ends with the process: a read from a
/// terminal cannot be called back.
pub(super) fn feed(input: Input, seccomp: Seccomp) -> Result<()> {
    let read = move || {
        seccomp.confine(Kind::SerialInput);
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            send(&input, bytes.get(..count).unwrap_or_default());
        }
    };
    std::thread::Builder::new()
        .name("serial-input".into())
        .spawn(read)
        .map(drop)
        .context("cannot start the thread that reads the serial line's input")
}

/// Sends all of `bytes`, at the pace at which the guest reads.
fn send(input: &Input, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = input.send(bytes);
        bytes = bytes.get(taken..).unwrap_or_default();
        if taken == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_missing_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = to_file("serial", &folder.path().join("no/log")).unwrap_err();
        let wanted = format!("there is no directory {}/no; create it first", folder.path().display());
        assert_eq!(error.root_cause().to_string(), wanted);
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_hold_the_guest_up_for_ever() {
        let (_reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd()).into();
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut output = output(&Serial::File(path)).unwrap().unwrap();
            [b'x'; 200_000].iter().for_each(|byte| output.push(*byte));
            told.send(output.lost()).unwrap();
        });
        let lost = tells.recv_timeout(Duration::from_secs(10)).expect("the guest hangs");
        assert!(lost > 0);
    }
}
